"""Charts: `bars`, coloured bars to compare, and `chart`, bars or a line with labels and values to read.

Values lie on ticks or are printed, so that they are exact. It leaves out pies, legends and stacked bars.
Used by `tasks`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pvc.lab.synthetic import fonts, palette
from pvc.lab.synthetic.phrasing import distinct, number_word, phrase
from pvc.lab.synthetic.scene import UNITS, Curve, Figure, Plate, Scene, SceneOptions, SceneQA, Text
from pvc.lab.synthetic.seeding import Rng, Split, is_for
from pvc.lab.synthetic.vocabulary import COLOUR_NAMES, COLOURS, LETTERS, Rgb

_HOW_MANY = ("How many bars are there?", "How many bars can you see?", "Count the bars.")
_BAR = ("Which bar is the {which}?", "What colour is the {which} bar?", "What color is the {which} bar?")
_BARS = {1: (2, 3), 2: (3, 4), 3: (4, 5), 4: (5, 7)}
# Per level: least and most categories, highest value in ticks.
_CHARTS = {1: (3, 3, 9), 2: (3, 4, 4), 3: (4, 5, 5), 4: (5, 6, 5)}
_STEPS = {1: (1,), 2: (1, 2), 3: (1, 2, 5, 10), 4: (2, 5, 10, 20)}


def _bar_colours(dice: Rng, split: Split, number: int) -> list[str]:
    """Different colours; the held-out colour of squares comes first in the split of colours and nowhere else."""
    held_out = [colour for colour in COLOUR_NAMES if palette.colour_pair_split("square", colour) == "colours"]
    others = [colour for colour in COLOUR_NAMES if colour not in held_out]
    if split != "colours":
        return dice.sample(others, number)
    return [dice.choice(held_out), *dice.sample(others, number - 1)]


def bars(dice: Rng, wish: SceneOptions) -> SceneQA:
    """Bars, each of its own colour; asked is an extreme or their number. Level: 2 or 3, 3 or 4, 4 or 5, 5 to 7 bars."""
    level = palette.level_of(dice, wish)
    number = dice.integer(*_BARS[level])
    about = dice.weighted({"tallest": 0.4, "shortest": 0.35, "number": 0.25 if wish.split != "colours" else 0.0})
    drawn = _bar_colours(dice, wish.split, number)
    ground = palette.figure_backdrop(dice, drawn)
    while True:
        ranks = dice.sample(range(1, number + 1), number)
        if wish.split == "colours":  # the bar that is asked for has the held-out colour
            wanted = ranks.index(number if about == "tallest" else 1)
            ranks[0], ranks[wanted] = ranks[wanted], ranks[0]
        order = dice.sample(range(number), number)
        colours, ranks = [drawn[i] for i in order], [ranks[i] for i in order]
        base, top = dice.uniform(52, 61), dice.uniform(4, 14)
        left, right = dice.uniform(4, 14), dice.uniform(52, 61)
        if palette.layout_is_for(wish.split, "bars", *ranks, round(left / 5), round(base / 5)):
            break
    pitch, gap = (right - left) / number, (base - top - 4) / number
    width = round(pitch * dice.uniform(0.45, 0.85), 3)
    figures = []
    for i, (colour, rank) in enumerate(zip(colours, ranks, strict=True)):
        # Heights differ by at least half of the gap: a person must see which is taller.
        height = round(4 + gap * (rank - dice.uniform(0, 0.5)), 3)
        point = (round(left + pitch * (i + 0.5), 3), round(base - height / 2, 3))
        figures.append(Figure("square", colour, palette.near(dice, COLOURS[colour], 12), width, height, 0.0, (point,)))
    plates: tuple[Plate, ...] = ()
    if dice.chance(0.7):
        line = palette.contrasting(dice, ground.colour)
        plates = (Plate((left + right) / 2, base + 0.5, right - left + 4, 1.0, line),)
        if dice.chance(0.6):
            plates += (Plate(left - 1.5, (base + top) / 2, 1.0, base - top + 2, line),)
    asked = {"about": about, "colours": colours, "levels": ranks}
    scene = Scene(ground, palette.look(dice), plates, tuple(figures), asked=asked)
    question, answer, more = _bar_questions(dice, about, colours, ranks)
    return SceneQA(scene, question, answer, more, level=level)


def _bar_questions(
    dice: Rng, about: str, colours: list[str], ranks: list[int]
) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    number = len(colours)
    tallest, shortest = colours[ranks.index(number)], colours[ranks.index(1)]
    i, j = dice.sample(range(number), 2)
    taller = colours[i] if ranks[i] > ranks[j] else colours[j]
    pairs = {
        "number": phrase(dice, dice.choice(_HOW_MANY), str(number), f"There are {number_word(number)} bars."),
        "tallest": phrase(
            dice, dice.choice(_BAR).format(which="tallest"), tallest, f"The {tallest} bar is the tallest."
        ),
        "shortest": phrase(
            dice, dice.choice(_BAR).format(which="shortest"), shortest, f"The {shortest} bar is the shortest."
        ),
        "taller": phrase(
            dice,
            f"Which bar is taller, the {colours[i]} one or the {colours[j]} one?",
            taller,
            f"The {taller} bar is taller.",
        ),
        "left": ("What colour is the bar on the left?", colours[0]),
        "right": ("What colour is the bar on the right?", colours[-1]),
    }
    question, answer = pairs[about]
    return question, answer, distinct(question, pairs.values(), 4, dice)


@dataclass(frozen=True)
class _Plot:
    """Where a chart lies: x of every category, y of the lowest and of the highest tick, and its inks."""

    xs: tuple[float, ...]
    left: float
    base: float
    top: float
    ink: Rgb
    faint: Rgb
    bar: Rgb
    family: str


def _values(dice: Rng, split: Split, level: int) -> tuple[list[str], list[int], int]:
    """Category names, their values in ticks and the worth of a tick; the highest and the lowest are one each."""
    least, most, top = _CHARTS[level]
    while True:
        number = dice.integer(least, most)
        if level <= 2 or dice.chance(0.5):
            names = list(LETTERS[:number])
        else:
            names = dice.sample([c for c in LETTERS if c not in "IOQ"], number)
        ticks = [dice.integer(1, top) for _ in range(number)]
        step = dice.choice(_STEPS[level])
        if ticks.count(max(ticks)) > 1 or ticks.count(min(ticks)) > 1:
            continue
        text = " ".join(f"{name}{tick * step}" for name, tick in zip(names, ticks, strict=True))
        if is_for(text, split) and palette.layout_is_for(split, "chart", *ticks):
            return names, ticks, step


def _label(text: str, plot: _Plot, cap: float, point: tuple[float, float], room: float) -> Text:
    w = round(min(room, (0.84 * cap + 0.4) * len(text)), 3)
    return Text(text, plot.family, plot.ink, w, cap, 0.0, 0.0, ((round(point[0], 3), round(point[1], 3)),))


def chart(dice: Rng, wish: SceneOptions) -> SceneQA:
    """A small chart to read. Level: 3 bars with values; 3 or 4 bars with ticks; 4 or 5, then 5 or 6, bars or points."""
    level = palette.level_of(dice, wish)
    names, ticks, step = _values(dice, wish.split, level)
    most = _CHARTS[level][2]
    as_line = level >= 3 and dice.chance(0.5)
    ground = palette.backdrop(dice)
    grounds = palette.colours_of(ground)
    ink = palette.contrasting(dice, *grounds, split=wish.split)
    bar = palette.contrasting(dice, *grounds)
    mixed = [round(0.7 * a + 0.3 * b) for a, b in zip(ground.colour, ink, strict=True)]
    left = 4.0 if level == 1 else 3.5 + 5.2 * len(str(most * step))
    pitch = (UNITS - 2 - left) / len(names)
    xs = tuple(round(left + pitch * (i + 0.5), 3) for i in range(len(names)))
    family = dice.choice(fonts.families(wish.split))
    plot = _Plot(xs, left, 52.0, 13.0 if level == 1 else 5.0, ink, (mixed[0], mixed[1], mixed[2]), bar, family)
    texts = [_label(name, plot, 6.5, (x, 58.5), 7.0) for name, x in zip(names, xs, strict=True)]
    plates = [Plate((left + UNITS - 1) / 2, 52.0, UNITS - 1 - left, 1.0, ink)]
    height = (plot.base - plot.top) / most
    if level > 1:
        plates.append(Plate(left, 28.0, 1.0, 48.0, ink))
        for tick in range(most + 1):
            y = plot.base - tick * height
            plates.insert(0, Plate((left + UNITS - 1) / 2, y, UNITS - 1 - left, 1.0, plot.faint))
            texts.append(_label(str(tick * step), plot, 5.2, (left / 2 - 0.2, y), left - 2.0))
    curves: tuple[Curve, ...] = ()
    tops = [round(plot.base - tick * height, 3) for tick in ticks]
    if as_line:
        curves = (Curve(tuple(zip(xs, tops, strict=True)), bar, 1.2, 2.2),)
    else:
        width = round(pitch * dice.uniform(0.45, 0.7), 3)
        plates += [Plate(x, (top + 52) / 2, width, 52 - top, bar) for x, top in zip(xs, tops, strict=True)]
    if level == 1:
        values = zip(ticks, xs, tops, strict=True)
        texts += [_label(str(tick * step), plot, 7.0, (x, top - 5.5), 8.0) for tick, x, top in values]
    facts = {"names": names, "values": [tick * step for tick in ticks], "line": as_line}
    look = palette.look(dice, fine=True)
    scene = Scene(ground, look, tuple(plates), (), tuple(texts), asked=facts, curves=curves)
    pairs = _chart_questions(dice, names, [tick * step for tick in ticks], "points" if as_line else "bars")
    asked = dice.choice(pairs)
    return SceneQA(scene, *asked, distinct(asked[0], pairs, 5, dice), level=level)


def _chart_questions(dice: Rng, names: list[str], values: list[int], things: str) -> list[tuple[str, str]]:
    highest, lowest = names[values.index(max(values))], names[values.index(min(values))]
    pairs = [
        phrase(dice, f"What is the value of {name}?", str(value), f"The value of {name} is {value}.")
        for name, value in dice.sample(list(zip(names, values, strict=True)), 3)
    ]
    pairs.append(phrase(dice, "Which one has the highest value?", highest, f"{highest} has the highest value."))
    pairs.append(phrase(dice, "Which one has the lowest value?", lowest, f"{lowest} has the lowest value."))
    first, second = dice.sample(range(len(names)), 2)
    if values[first] != values[second]:
        larger, smaller = (first, second) if values[first] > values[second] else (second, first)
        answer = f"{names[larger]} is larger than {names[smaller]}."
        pairs.append(phrase(dice, f"Which is larger, {names[first]} or {names[second]}?", names[larger], answer))
    many = str(len(names))
    pairs.append(phrase(dice, f"How many {things} are there?", many, f"There are {number_word(len(names))} {things}."))
    return pairs
