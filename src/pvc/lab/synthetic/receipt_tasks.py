"""Receipts: a few items with prices and their total, as in a shop; asked are prices, the total, the extremes.

It leaves out other tables. Names come from a fixed list; a line (name and price) belongs to one split only.
Used by `tasks`.
"""

from __future__ import annotations

from pvc.lab.synthetic import fonts, palette
from pvc.lab.synthetic.lettering import nominal_width
from pvc.lab.synthetic.phrasing import distinct, phrase
from pvc.lab.synthetic.scene import UNITS, Backdrop, Plate, Scene, SceneOptions, SceneQA, Text
from pvc.lab.synthetic.seeding import Rng, is_for

_ITEMS = (
    *("MILK", "TEA", "EGGS", "RICE", "SOAP", "FISH", "HAM", "JAM", "NUTS", "CORN", "PEAS", "BEER", "WINE", "OIL"),
    *("SALT", "CAKE", "PIE", "FIGS", "PLUM", "PEAR", "MEAT", "BEEF", "COLA", "SODA", "TOFU", "PEN", "BOOK", "KIWI"),
)
_TOTALS = ("TOTAL", "SUM")
_COUNTS = {1: 2, 2: 2, 3: 3, 4: 4}
_DECIMALS = {1: 0, 2: 1, 3: 2, 4: 2}
_MOST = {1: 9, 2: 99, 3: 999, 4: 4999}  # highest price in the smallest coin
_HEIGHTS = {1: (8.5, 11.0), 2: (8.0, 10.0), 3: (7.0, 8.5), 4: (6.0, 7.2)}
_MARGIN = 2.5


def _written(price: int, decimals: int) -> str:
    if not decimals:
        return str(price)
    whole, part = divmod(price, 10**decimals)
    return f"{whole}.{part:0{decimals}d}"


def _lines(dice: Rng, wish: SceneOptions, level: int, count: int) -> list[tuple[str, int]]:
    """Different items with different prices; title and lower case are drawn for all of them at once."""
    case = dice.weighted({"upper": 0.5, "title": 0.3, "lower": 0.2})
    found: list[tuple[str, int]] = []
    while len(found) < count:
        name, price = dice.choice(_ITEMS), dice.integer(10 ** (_DECIMALS[level]) if level > 1 else 1, _MOST[level])
        if not is_for(f"{name} {_written(price, _DECIMALS[level])}", wish.split):
            continue
        name = {"upper": name, "title": name.capitalize(), "lower": name.lower()}[case]
        if all(name != other and price != cost for other, cost in found):
            found.append((name, price))
    return found


def _paper(dice: Rng) -> Backdrop:
    """Light paper most of the time, any ground else."""
    if dice.chance(0.4):
        return palette.backdrop(dice)
    light = palette.near(dice, (226, 224, 216), 22)
    return Backdrop(light, palette.near(dice, light, 12), texture="paper", texture_seed=dice.integer(0, 9999))


def receipt(dice: Rng, wish: SceneOptions) -> SceneQA:
    """Items, prices and a total. Level: 2, 2, 3, 4 items; prices with none, one, two, two digits after the point."""
    level, (width, height) = palette.level_of(dice, wish), palette.extent_of(dice, wish)
    decimals, count = _DECIMALS[level], (_COUNTS[level] + 1) * int(height / UNITS) - 1
    ground = _paper(dice)
    ink = palette.contrasting(dice, *palette.colours_of(ground), split=wish.split)
    family, cap = dice.choice(fonts.families(wish.split)), dice.uniform(*_HEIGHTS[level])
    while True:
        bought = _lines(dice, wish, level, count)
        lines = [(name, _written(price, decimals)) for name, price in bought]
        word = dice.choice(_TOTALS)
        word = word if lines[0][0].isupper() else word.capitalize() if lines[0][0][0].isupper() else word.lower()
        lines.append((word, _written(sum(price for _, price in bought), decimals)))
        if palette.layout_is_for(wish.split, "receipt", *((len(a), len(b)) for a, b in lines)):
            break
    pitch = (height - 2 * _MARGIN) / len(lines)
    items = []
    for i, (name, price) in enumerate(lines):
        y = round(_MARGIN + pitch * (i + 0.5), 3)
        price_w = round(min(0.52 * width, max(nominal_width(price, cap), 4.6 * len(price))), 3)
        name_w = round(min(nominal_width(name, cap), width - 2 * _MARGIN - price_w - 3.0), 3)
        items.append(Text(name, family, ink, name_w, cap, 0.03, 0.0, ((round(_MARGIN + name_w / 2, 3), y),)))
        items.append(Text(price, family, ink, price_w, cap, 0.03, 0.0, ((round(width - _MARGIN - price_w / 2, 3), y),)))
    rule = Plate(width / 2, round(_MARGIN + pitch * (len(lines) - 1), 3), width - 2 * _MARGIN, 1.0, ink)
    facts = {"items": [list(line) for line in lines[:-1]], "total": lines[-1][1]}
    look = palette.look(dice, fine=level >= 3)
    scene = Scene(ground, look, (rule,), (), tuple(items), asked=facts, extent=(width, height))
    pairs = _questions(dice, lines, bought)
    asked = dice.choice(pairs)
    return SceneQA(scene, *asked, distinct(asked[0], pairs, 5, dice), level=level)


def _questions(dice: Rng, lines: list[tuple[str, str]], bought: list[tuple[str, int]]) -> list[tuple[str, str]]:
    by_price = sorted(bought, key=lambda line: line[1])
    total, cheapest, dearest = lines[-1][1], by_price[0][0], by_price[-1][0]
    pairs = [
        phrase(dice, f"What is the price of {name}?", price, f"The price of {name} is {price}.")
        for name, price in lines[:-1]
    ]
    pairs.append(phrase(dice, "What is the total?", total, f"The total is {total}."))
    pairs.append(phrase(dice, "Which item is the cheapest?", cheapest, f"The cheapest item is {cheapest}."))
    pairs.append(phrase(dice, "Which item costs the most?", dearest, f"The item that costs the most is {dearest}."))
    name, price = dice.choice(lines[:-1])
    pairs.append(phrase(dice, f"Which item costs {price}?", name, f"The item that costs {price} is {name}."))
    return pairs
