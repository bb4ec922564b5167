"""Receipts: a few items with prices and their total, with questions about prices, the total and the extremes.

Names come from a fixed list; a line (name and price) belongs to one split only. Called by `tasks`.
"""

from __future__ import annotations

from pvc.lab.synthetic import fonts, palette
from pvc.lab.synthetic.lettering import compute_nominal_width
from pvc.lab.synthetic.phrasing import phrase, select_distinct
from pvc.lab.synthetic.scene import UNITS, Backdrop, Plate, Scene, SceneOptions, SceneQA, Text
from pvc.lab.synthetic.seeding import Rng, is_text_allowed

_ITEMS = (
    *("MILK", "TEA", "EGGS", "RICE", "SOAP", "FISH", "HAM", "JAM", "NUTS", "CORN", "PEAS", "BEER", "WINE", "OIL"),
    *("SALT", "CAKE", "PIE", "FIGS", "PLUM", "PEAR", "MEAT", "BEEF", "COLA", "SODA", "TOFU", "PEN", "BOOK", "KIWI"),
)
_TOTALS = ("TOTAL", "SUM")
_COUNTS = {1: 2, 2: 2, 3: 3, 4: 4}
_DECIMALS = {1: 0, 2: 1, 3: 2, 4: 2}
_MAX_PRICES = {1: 9, 2: 99, 3: 999, 4: 4999}  # highest price in the smallest coin
_HEIGHTS = {1: (8.5, 11.0), 2: (8.0, 10.0), 3: (7.0, 8.5), 4: (6.0, 7.2)}
_MARGIN = 2.5


def _format_price(price: int, decimals: int) -> str:
    if not decimals:
        return str(price)
    whole, part = divmod(price, 10**decimals)
    return f"{whole}.{part:0{decimals}d}"


def _sample_lines(rng: Rng, options: SceneOptions, level: int, count: int) -> list[tuple[str, int]]:
    """Return different items with different prices, all in the same case."""
    case = rng.weighted({"upper": 0.5, "title": 0.3, "lower": 0.2})
    items: list[tuple[str, int]] = []
    while len(items) < count:
        name, price = rng.choice(_ITEMS), rng.integer(10 ** (_DECIMALS[level]) if level > 1 else 1, _MAX_PRICES[level])
        if not is_text_allowed(f"{name} {_format_price(price, _DECIMALS[level])}", options.split):
            continue
        name = {"upper": name, "title": name.capitalize(), "lower": name.lower()}[case]
        if all(name != other and price != cost for other, cost in items):
            items.append((name, price))
    return items


def _sample_paper(rng: Rng) -> Backdrop:
    """Return light paper or, less often, any ground."""
    if rng.chance(0.4):
        return palette.sample_backdrop(rng)
    light = palette.jitter_colour(rng, (226, 224, 216), 22)
    return Backdrop(light, palette.jitter_colour(rng, light, 12), texture="paper", texture_seed=rng.integer(0, 9999))


def build_receipt(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build items, prices and a total.

    Level: 2, 2, 3, 4 items; prices with none, one, two, two digits after the point.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level, (width, height) = palette.sample_level(rng, options), palette.sample_extent(rng, options)
    decimals, count = _DECIMALS[level], (_COUNTS[level] + 1) * int(height / UNITS) - 1
    ground = _sample_paper(rng)
    ink = palette.sample_contrasting(rng, *palette.get_colours(ground), split=options.split)
    family, cap = rng.choice(fonts.get_families(options.split)), rng.uniform(*_HEIGHTS[level])
    while True:
        purchases = _sample_lines(rng, options, level, count)
        lines = [(name, _format_price(price, decimals)) for name, price in purchases]
        total_name = rng.choice(_TOTALS)
        total_name = (
            total_name
            if lines[0][0].isupper()
            else total_name.capitalize()
            if lines[0][0][0].isupper()
            else total_name.lower()
        )
        lines.append((total_name, _format_price(sum(price for _, price in purchases), decimals)))
        if palette.is_layout_allowed(options.split, "receipt", *((len(a), len(b)) for a, b in lines)):
            break
    pitch = (height - 2 * _MARGIN) / len(lines)
    items = []
    for i, (name, price) in enumerate(lines):
        y = round(_MARGIN + pitch * (i + 0.5), 3)
        price_w = round(min(0.52 * width, max(compute_nominal_width(price, cap), 4.6 * len(price))), 3)
        name_w = round(min(compute_nominal_width(name, cap), width - 2 * _MARGIN - price_w - 3.0), 3)
        items.append(Text(name, family, ink, name_w, cap, 0.03, 0.0, ((round(_MARGIN + name_w / 2, 3), y),)))
        items.append(Text(price, family, ink, price_w, cap, 0.03, 0.0, ((round(width - _MARGIN - price_w / 2, 3), y),)))
    rule = Plate(width / 2, round(_MARGIN + pitch * (len(lines) - 1), 3), width - 2 * _MARGIN, 1.0, ink)
    facts = {"items": [list(line) for line in lines[:-1]], "total": lines[-1][1]}
    effects = palette.sample_effects(rng, fine=level >= 3)
    scene = Scene(ground, effects, (rule,), (), tuple(items), asked=facts, extent=(width, height))
    pairs = _build_questions(rng, lines, purchases)
    first_question = rng.choice(pairs)
    return SceneQA(scene, *first_question, select_distinct(first_question[0], pairs, 5, rng), level=level)


def _build_questions(rng: Rng, lines: list[tuple[str, str]], purchases: list[tuple[str, int]]) -> list[tuple[str, str]]:
    by_price = sorted(purchases, key=lambda line: line[1])
    total, cheapest, dearest = lines[-1][1], by_price[0][0], by_price[-1][0]
    pairs = [
        phrase(rng, f"What is the price of {name}?", price, f"The price of {name} is {price}.")
        for name, price in lines[:-1]
    ]
    pairs.append(phrase(rng, "What is the total?", total, f"The total is {total}."))
    pairs.append(phrase(rng, "Which item is the cheapest?", cheapest, f"The cheapest item is {cheapest}."))
    pairs.append(phrase(rng, "Which item costs the most?", dearest, f"The item that costs the most is {dearest}."))
    name, price = rng.choice(lines[:-1])
    pairs.append(phrase(rng, f"Which item costs {price}?", name, f"The item that costs {price} is {name}."))
    return pairs
