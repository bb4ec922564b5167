"""Task `graph`: bar charts with names or colours and line charts, asked about extremes, values and numbers."""

from __future__ import annotations

import itertools

from pvc.lab.synthetic.pages import texts
from pvc.lab.synthetic.pages.canvas import Box, Canvas, Item, Polyline, Words
from pvc.lab.synthetic.pages.faces import advance, cap_height
from pvc.lab.synthetic.pages.figures import figure_ground
from pvc.lab.synthetic.pages.layout import Room, any_face, any_page, finish
from pvc.lab.synthetic.palette import contrasting, near
from pvc.lab.synthetic.phrasing import distinct
from pvc.lab.synthetic.scene import SceneOptions, SceneQA
from pvc.lab.synthetic.seeding import Rng
from pvc.lab.synthetic.vocabulary import COLOUR_NAMES, COLOURS, LETTERS, Rgb

Asks = list[tuple[str, str]]
_LEAST_BAR = 2.0  # pixels of a tile, so that the smallest bar is seen
_TRIES = 100  # pages on which long names are tried
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


def _names(dice: Rng, count: int) -> list[str]:
    kind = dice.weighted({"letters": 0.35, "months": 0.15, "days": 0.12, "goods": 0.2, "years": 0.18})
    if kind == "letters":
        start = dice.integer(0, 26 - count) if dice.chance(0.3) else 0
        return list(LETTERS[start : start + count])
    if kind == "months":
        start = dice.integer(0, 12 - count)
        return [m[:3] for m in texts.MONTHS[start : start + count]]
    if kind == "days":
        return [d[:3] for d in texts.DAYS[:count]]
    if kind == "years":
        first = dice.integer(2000, 2026)
        return [str(first + i) for i in range(count)]
    return [name.capitalize() for name in texts.goods(dice, count)]


def _values(dice: Rng, count: int) -> list[int]:
    """Draw values whose largest and smallest can be seen."""
    while True:
        high = dice.choice((9, 10, 20, 50, 100))
        found = [dice.integer(1, high) for _ in range(count)]
        ranked = sorted(found)
        if ranked[-1] - ranked[-2] >= 0.08 * ranked[-1] and ranked[1] - ranked[0] >= 0.08 * ranked[-1]:
            return found


def _room_for(
    dice: Rng, names: list[str], values: list[str], across: float, down: float
) -> tuple[Room, str, float, list[str]]:
    """Draw a page, a face and a size for the names and values of columns beside each other.

    across, down: parts of the page's width, for all columns together, and of its height, for a line. Names that fit
    no page, such as six long words, become letters.
    """
    for tries in itertools.count(1):
        room, face = any_page(dice), any_face(dice)
        column = across * room.width / len(names)
        size = room.size_for(dice, face, [*names, *values], column, down * room.height)
        if size is not None:
            break
        if tries == _TRIES:
            names = list(LETTERS[: len(names)])
    assert size is not None
    return room, face, size, names


def graph(dice: Rng, wish: SceneOptions) -> SceneQA:
    """A chart; asked is the tallest, the shortest, a printed value or a number of bars."""
    if dice.chance(0.2):
        return _line_chart(dice)
    return _coloured_bars(dice) if dice.chance(0.3) else _named_bars(dice)


def _frame(dice: Rng, room: Room, bottom: float, top: float, ink: Rgb) -> tuple[float, float, float, list[Item]]:
    """Return left, right and width of a chart's area, with its axes."""
    left, right = 0.07 * room.width, 0.95 * room.width
    line = max(1.0, 0.008 * min(room.width, room.height))
    items: list[Item] = []
    if dice.chance(0.8):
        items.append(Box(left, bottom, right, bottom + line, ink))
    if dice.chance(0.5):
        items.append(Box(left - line, top, left, bottom + line, ink))
    return left, right, right - left, items


def _named_bars(dice: Rng) -> SceneQA:
    count = dice.weighted({2: 0.2, 3: 0.35, 4: 0.27, 5: 0.12, 6: 0.06})
    names, values = _names(dice, count), _values(dice, count)
    has_values = dice.chance(0.65)
    shown = [str(v) for v in values] if has_values else []
    room, face, size, names = _room_for(dice, names, shown, 0.7912, 0.12)
    size = min(size, 0.16 * room.height / cap_height(face))
    colours = (
        dice.sample(COLOUR_NAMES, 1) * count if dice.chance(0.6) else [dice.choice(COLOUR_NAMES) for _ in range(count)]
    )
    ground = figure_ground(dice, colours, 0.9)
    ink = contrasting(dice, ground.colour, split="train_all")
    bottom, top = room.height - 1.6 * size, 1.5 * size if has_values else 0.06 * room.height
    left, _, width, items = _frame(dice, room, bottom, top, ink)
    pitch, thick = width / count, dice.uniform(0.4, 0.8)
    for i, (name, value, colour) in enumerate(zip(names, values, colours, strict=True)):
        middle = left + pitch * (i + 0.5)
        height = max((bottom - top) * value / max(values), _LEAST_BAR / room.down)
        half = pitch * thick / 2
        items.append(
            Box(middle - half, round(bottom - height, 1), middle + half, bottom, near(dice, COLOURS[colour], 10))
        )
        items.append(Words(name, face, size, round(middle, 1), round(room.height - 0.45 * size, 1), ink, "ms"))
        if has_values:
            items.append(
                Words(str(value), face, size, round(middle, 1), round(bottom - height - 0.3 * size, 1), ink, "ms")
            )
    asks: Asks = [
        (dice.choice(_TALLEST), names[values.index(max(values))]),
        (dice.choice(_SHORTEST), names[values.index(min(values))]),
        (dice.choice(_BARS), str(count)),
    ]
    if has_values:
        asks += [(dice.choice(_VALUE).format(n=name), str(v)) for name, v in zip(names, values, strict=True)]
        asks.append((dice.choice(("What is the highest value?", "What is the largest value?")), str(max(values))))
    first = dice.choice(asks)
    canvas = Canvas(room.width, room.height, ground, tuple(items), finish(dice, room))
    return SceneQA(canvas, *first, distinct(first[0], asks, 4, dice))


def _coloured_bars(dice: Rng) -> SceneQA:
    """Return bars that differ in colour, upright or lying."""
    count = dice.weighted({2: 0.25, 3: 0.3, 4: 0.25, 5: 0.12, 6: 0.08})
    colours, values = dice.sample(COLOUR_NAMES, count), _values(dice, count)
    room = any_page(dice)
    upright = dice.chance(0.75)
    ground = figure_ground(dice, colours, 0.9)
    ink = contrasting(dice, ground.colour, split="train_all")
    bottom, top = 0.95 * room.height, 0.06 * room.height
    left, right, width, items = _frame(dice, room, bottom, top, ink)
    thick = dice.uniform(0.45, 0.85)
    for i, (value, colour) in enumerate(zip(values, colours, strict=True)):
        rgb, part = near(dice, COLOURS[colour], 10), value / max(values)
        if upright:
            pitch, length = width / count, max(part * (bottom - top), _LEAST_BAR / room.down)
            x = left + pitch * (i + 0.5)
            items.append(Box(x - pitch * thick / 2, bottom - length, x + pitch * thick / 2, bottom, rgb))
        else:
            pitch, length = (bottom - top) / count, max(part * (right - left), _LEAST_BAR / room.across)
            y = top + pitch * (i + 0.5)
            items.append(Box(left, y - pitch * thick / 2, left + length, y + pitch * thick / 2, rgb))
    long, short = colours[values.index(max(values))], colours[values.index(min(values))]
    asks: Asks = [
        (dice.choice(_TALLEST if upright else ("Which bar is the longest?", "Which bar is longest?")), long),
        (dice.choice(_SHORTEST if upright else ("Which bar is the shortest?", "Which bar is shortest?")), short),
        (dice.choice(_BARS), str(count)),
        (dice.choice(("Which colour is the longest bar?", "What colour is the largest bar?")), long),
        (dice.choice(("What colour is the smallest bar?", "What color is the shortest bar?")), short),
    ]
    if upright:
        asks.append(("What colour is the first bar?", colours[0]))
        asks.append(("What colour is the last bar?", colours[-1]))
    first = dice.choice(asks)
    canvas = Canvas(room.width, room.height, ground, tuple(items), finish(dice, room))
    return SceneQA(canvas, *first, distinct(first[0], asks, 4, dice))


def _line_chart(dice: Rng) -> SceneQA:
    """Return a line through points with names below."""
    count = dice.integer(3, 6)
    names, values = _names(dice, count), _values(dice, count)
    trend = dice.weighted({"rising": 0.3, "falling": 0.3, "any": 0.4})
    if trend != "any":
        values = sorted(set(range(1, 10)) - set(dice.sample(range(2, 9), 9 - count)), reverse=trend == "falling")[
            :count
        ]
    room, face, size, names = _room_for(dice, names, [], 0.82, 0.14)
    size = min(size, 0.18 * room.height / cap_height(face))
    colour = dice.choice(COLOUR_NAMES)
    ground = figure_ground(dice, [colour], 0.9)
    ink = contrasting(dice, ground.colour, split="train_all")
    bottom, top = room.height - 1.8 * size, 0.1 * room.height
    left, _, width, items = _frame(dice, room, bottom, top, ink)
    pitch = width / count
    points = tuple(
        (round(left + pitch * (i + 0.5), 1), round(bottom - 0.94 * (bottom - top) * v / max(values), 1))
        for i, v in enumerate(values)
    )
    thick = max(1.6 / room.down, 0.012 * room.height)
    items.append(Polyline(points, near(dice, COLOURS[colour], 10), thick, 1.8 * thick if dice.chance(0.6) else 0.0))
    for (x, _), name in zip(points, names, strict=True):
        items.append(Words(name, face, size, x, round(room.height - 0.45 * size, 1), ink, "ms"))
    assert all(advance(face, name) * size <= pitch for name in names)
    asks: Asks = [
        (
            dice.choice(("Where is the line highest?", "Which point is the highest?", "Where is the maximum?")),
            names[values.index(max(values))],
        ),
        (
            dice.choice(("Where is the line lowest?", "Which point is the lowest?", "Where is the minimum?")),
            names[values.index(min(values))],
        ),
        (dice.choice(("What colour is the line?", "Which color does the line have?")), colour),
        (dice.choice(("How many points are there?", "How many points does the line have?")), str(count)),
    ]
    if trend != "any":
        asks += [(q, trend) for q in ("Is the line rising or falling?", "Does the line go up or down?")[:1]]
        asks.append(("Does the line go up or down?", "up" if trend == "rising" else "down"))
    first = dice.choice(asks)
    canvas = Canvas(room.width, room.height, ground, tuple(items), finish(dice, room))
    return SceneQA(canvas, *first, distinct(first[0], asks, 4, dice))


__all__ = ["graph"]
