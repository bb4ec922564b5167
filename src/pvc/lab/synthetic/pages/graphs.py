"""Task `graph`: bar charts with names or colours and line charts, with questions about extremes, values and numbers.

Called by `tasks` and `albums`.
"""

from __future__ import annotations

import itertools

from pvc.lab.synthetic.pages import texts
from pvc.lab.synthetic.pages.canvas import Box, Canvas, Item, Polyline, Words
from pvc.lab.synthetic.pages.faces import get_advance, get_cap_height
from pvc.lab.synthetic.pages.figures import sample_ground
from pvc.lab.synthetic.pages.layout import PageSize, sample_face, sample_finish, sample_page
from pvc.lab.synthetic.palette import jitter_colour, sample_contrasting
from pvc.lab.synthetic.phrasing import select_distinct
from pvc.lab.synthetic.scene import SceneOptions, SceneQA
from pvc.lab.synthetic.seeding import Rng
from pvc.lab.synthetic.vocabulary import COLOUR_NAMES, COLOURS, LETTERS, Rgb

Questions = list[tuple[str, str]]
_MIN_BAR = 2.0  # pixels of a tile, so that the smallest bar is visible
_TRIES = 100  # attempts to find a page for long names
_TALLEST = (
    "Which bar is the tallest?",
    "Which bar is tallest?",
    "Which bar is the highest?",
    "What is the tallest bar?",
    "Which bar is the largest?",
)
_SHORTEST = (
    "Which bar is the shortest?",
    "Which bar is shortest?",
    "Which bar is the lowest?",
    "What is the smallest bar?",
    "Which bar is the smallest?",
)
_VALUE = ("What is the value of {n}?", "How high is {n}?", "What value does {n} have?", "Which number is above {n}?")
_BARS = (
    "How many bars are there?",
    "How many bars do you see?",
    "How many bars does the chart have?",
    "Count the bars.",
)


def _sample_names(rng: Rng, count: int) -> list[str]:
    kind = rng.weighted({"letters": 0.35, "months": 0.15, "days": 0.12, "goods": 0.2, "years": 0.18})
    if kind == "letters":
        start = rng.integer(0, 26 - count) if rng.chance(0.3) else 0
        return list(LETTERS[start : start + count])
    if kind == "months":
        start = rng.integer(0, 12 - count)
        return [m[:3] for m in texts.MONTHS[start : start + count]]
    if kind == "days":
        return [d[:3] for d in texts.DAYS[:count]]
    if kind == "years":
        first = rng.integer(2000, 2026)
        return [str(first + i) for i in range(count)]
    return [name.capitalize() for name in texts.sample_goods(rng, count)]


def _sample_values(rng: Rng, count: int) -> list[int]:
    """Sample values whose largest and smallest are visible as such."""
    while True:
        high = rng.choice((9, 10, 20, 50, 100))
        values = [rng.integer(1, high) for _ in range(count)]
        ranked = sorted(values)
        if ranked[-1] - ranked[-2] >= 0.08 * ranked[-1] and ranked[1] - ranked[0] >= 0.08 * ranked[-1]:
            return values


def _sample_page_size(
    rng: Rng, names: list[str], values: list[str], across: float, down: float
) -> tuple[PageSize, str, float, list[str]]:
    """Sample a page, a face and a font size for names and values of columns beside each other.

    `across` is the part of the page's width for all columns together, `down` the part of its height for a line. Names
    that fit no page, such as six long words, become letters.
    """
    for tries in itertools.count(1):
        page_size, face = sample_page(rng), sample_face(rng)
        column = across * page_size.width / len(names)
        size = page_size.sample_font_size(rng, face, [*names, *values], column, down * page_size.height)
        if size is not None:
            break
        if tries == _TRIES:
            names = list(LETTERS[: len(names)])
    assert size is not None
    return page_size, face, size, names


def build_graph(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build a chart, and ask for the tallest, the shortest, a printed value or a number of bars.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    if rng.chance(0.2):
        return _build_line_chart(rng)
    return _build_coloured_bars(rng) if rng.chance(0.3) else _build_named_bars(rng)


def _build_axes(
    rng: Rng, page_size: PageSize, bottom: float, top: float, ink: Rgb
) -> tuple[float, float, float, list[Item]]:
    """Return left, right and width of a chart's area, with its axes."""
    left, right = 0.07 * page_size.width, 0.95 * page_size.width
    line = max(1.0, 0.008 * min(page_size.width, page_size.height))
    items: list[Item] = []
    if rng.chance(0.8):
        items.append(Box(left, bottom, right, bottom + line, ink))
    if rng.chance(0.5):
        items.append(Box(left - line, top, left, bottom + line, ink))
    return left, right, right - left, items


def _build_named_bars(rng: Rng) -> SceneQA:
    count = rng.weighted({2: 0.2, 3: 0.35, 4: 0.27, 5: 0.12, 6: 0.06})
    names, values = _sample_names(rng, count), _sample_values(rng, count)
    has_values = rng.chance(0.65)
    value_texts = [str(v) for v in values] if has_values else []
    page_size, face, size, names = _sample_page_size(rng, names, value_texts, 0.7912, 0.12)
    size = min(size, 0.16 * page_size.height / get_cap_height(face))
    colours = (
        rng.sample(COLOUR_NAMES, 1) * count if rng.chance(0.6) else [rng.choice(COLOUR_NAMES) for _ in range(count)]
    )
    ground = sample_ground(rng, colours, 0.9)
    ink = sample_contrasting(rng, ground.colour, split="train_all")
    bottom, top = page_size.height - 1.6 * size, 1.5 * size if has_values else 0.06 * page_size.height
    left, _, width, items = _build_axes(rng, page_size, bottom, top, ink)
    pitch, thick = width / count, rng.uniform(0.4, 0.8)
    for i, (name, value, colour) in enumerate(zip(names, values, colours, strict=True)):
        middle = left + pitch * (i + 0.5)
        height = max((bottom - top) * value / max(values), _MIN_BAR / page_size.down)
        half = pitch * thick / 2
        items.append(
            Box(
                middle - half, round(bottom - height, 1), middle + half, bottom, jitter_colour(rng, COLOURS[colour], 10)
            )
        )
        items.append(Words(name, face, size, round(middle, 1), round(page_size.height - 0.45 * size, 1), ink, "ms"))
        if has_values:
            items.append(
                Words(str(value), face, size, round(middle, 1), round(bottom - height - 0.3 * size, 1), ink, "ms")
            )
    questions: Questions = [
        (rng.choice(_TALLEST), names[values.index(max(values))]),
        (rng.choice(_SHORTEST), names[values.index(min(values))]),
        (rng.choice(_BARS), str(count)),
    ]
    if has_values:
        questions += [(rng.choice(_VALUE).format(n=name), str(v)) for name, v in zip(names, values, strict=True)]
        questions.append((rng.choice(("What is the highest value?", "What is the largest value?")), str(max(values))))
    first = rng.choice(questions)
    canvas = Canvas(page_size.width, page_size.height, ground, tuple(items), sample_finish(rng, page_size))
    return SceneQA(canvas, *first, select_distinct(first[0], questions, 4, rng))


def _build_coloured_bars(rng: Rng) -> SceneQA:
    """Build bars that differ in colour, upright or lying."""
    count = rng.weighted({2: 0.25, 3: 0.3, 4: 0.25, 5: 0.12, 6: 0.08})
    colours, values = rng.sample(COLOUR_NAMES, count), _sample_values(rng, count)
    page_size = sample_page(rng)
    upright = rng.chance(0.75)
    ground = sample_ground(rng, colours, 0.9)
    ink = sample_contrasting(rng, ground.colour, split="train_all")
    bottom, top = 0.95 * page_size.height, 0.06 * page_size.height
    left, right, width, items = _build_axes(rng, page_size, bottom, top, ink)
    thick = rng.uniform(0.45, 0.85)
    for i, (value, colour) in enumerate(zip(values, colours, strict=True)):
        rgb, part = jitter_colour(rng, COLOURS[colour], 10), value / max(values)
        if upright:
            pitch, length = width / count, max(part * (bottom - top), _MIN_BAR / page_size.down)
            x = left + pitch * (i + 0.5)
            items.append(Box(x - pitch * thick / 2, bottom - length, x + pitch * thick / 2, bottom, rgb))
        else:
            pitch, length = (bottom - top) / count, max(part * (right - left), _MIN_BAR / page_size.across)
            y = top + pitch * (i + 0.5)
            items.append(Box(left, y - pitch * thick / 2, left + length, y + pitch * thick / 2, rgb))
    long, short = colours[values.index(max(values))], colours[values.index(min(values))]
    questions: Questions = [
        (rng.choice(_TALLEST if upright else ("Which bar is the longest?", "Which bar is longest?")), long),
        (rng.choice(_SHORTEST if upright else ("Which bar is the shortest?", "Which bar is shortest?")), short),
        (rng.choice(_BARS), str(count)),
        (rng.choice(("Which colour is the longest bar?", "What colour is the largest bar?")), long),
        (rng.choice(("What colour is the smallest bar?", "What color is the shortest bar?")), short),
    ]
    if upright:
        questions.append(("What colour is the first bar?", colours[0]))
        questions.append(("What colour is the last bar?", colours[-1]))
    first = rng.choice(questions)
    canvas = Canvas(page_size.width, page_size.height, ground, tuple(items), sample_finish(rng, page_size))
    return SceneQA(canvas, *first, select_distinct(first[0], questions, 4, rng))


def _build_line_chart(rng: Rng) -> SceneQA:
    """Build a line through points with names below."""
    count = rng.integer(3, 6)
    names, values = _sample_names(rng, count), _sample_values(rng, count)
    trend = rng.weighted({"rising": 0.3, "falling": 0.3, "any": 0.4})
    if trend != "any":
        values = sorted(set(range(1, 10)) - set(rng.sample(range(2, 9), 9 - count)), reverse=trend == "falling")[:count]
    page_size, face, size, names = _sample_page_size(rng, names, [], 0.82, 0.14)
    size = min(size, 0.18 * page_size.height / get_cap_height(face))
    colour = rng.choice(COLOUR_NAMES)
    ground = sample_ground(rng, [colour], 0.9)
    ink = sample_contrasting(rng, ground.colour, split="train_all")
    bottom, top = page_size.height - 1.8 * size, 0.1 * page_size.height
    left, _, width, items = _build_axes(rng, page_size, bottom, top, ink)
    pitch = width / count
    points = tuple(
        (round(left + pitch * (i + 0.5), 1), round(bottom - 0.94 * (bottom - top) * v / max(values), 1))
        for i, v in enumerate(values)
    )
    thick = max(1.6 / page_size.down, 0.012 * page_size.height)
    items.append(
        Polyline(points, jitter_colour(rng, COLOURS[colour], 10), thick, 1.8 * thick if rng.chance(0.6) else 0.0)
    )
    for (x, _), name in zip(points, names, strict=True):
        items.append(Words(name, face, size, x, round(page_size.height - 0.45 * size, 1), ink, "ms"))
    assert all(get_advance(face, name) * size <= pitch for name in names)
    questions: Questions = [
        (
            rng.choice(("Where is the line highest?", "Which point is the highest?", "Where is the maximum?")),
            names[values.index(max(values))],
        ),
        (
            rng.choice(("Where is the line lowest?", "Which point is the lowest?", "Where is the minimum?")),
            names[values.index(min(values))],
        ),
        (rng.choice(("What colour is the line?", "Which color does the line have?")), colour),
        (rng.choice(("How many points are there?", "How many points does the line have?")), str(count)),
    ]
    if trend != "any":
        questions += [(q, trend) for q in ("Is the line rising or falling?", "Does the line go up or down?")[:1]]
        questions.append(("Does the line go up or down?", "up" if trend == "rising" else "down"))
    first = rng.choice(questions)
    canvas = Canvas(page_size.width, page_size.height, ground, tuple(items), sample_finish(rng, page_size))
    return SceneQA(canvas, *first, select_distinct(first[0], questions, 4, rng))


__all__ = ["build_graph"]
