"""Charts: `bars`, coloured bars to compare, and `chart`, bars or a line with labels and values to read.

Values lie on ticks or are printed, so that they are exact. Called by `tasks`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pvc.lab.synthetic import fonts, palette
from pvc.lab.synthetic.phrasing import phrase, select_distinct, spell_number
from pvc.lab.synthetic.scene import UNITS, Curve, Figure, Plate, Scene, SceneOptions, SceneQA, Text
from pvc.lab.synthetic.seeding import Rng, Split, is_text_allowed
from pvc.lab.synthetic.vocabulary import COLOUR_NAMES, COLOURS, LETTERS, Rgb

_HOW_MANY = ("How many bars are there?", "How many bars can you see?", "Count the bars.")
_BAR = ("Which bar is the {which}?", "What colour is the {which} bar?", "What color is the {which} bar?")
_BARS = {1: (2, 3), 2: (3, 4), 3: (4, 5), 4: (5, 7)}
# Per level: minimum and maximum number of categories, highest value in ticks.
_CHARTS = {1: (3, 3, 9), 2: (3, 4, 4), 3: (4, 5, 5), 4: (5, 6, 5)}
_STEPS = {1: (1,), 2: (1, 2), 3: (1, 2, 5, 10), 4: (2, 5, 10, 20)}


def _sample_bar_colours(rng: Rng, split: Split, number: int) -> list[str]:
    """Return different colours; in "colours", the first is a held-out colour of squares, elsewhere none is."""
    held_out = [colour for colour in COLOUR_NAMES if palette.get_colour_pair_split("square", colour) == "colours"]
    others = [colour for colour in COLOUR_NAMES if colour not in held_out]
    if split != "colours":
        return rng.sample(others, number)
    return [rng.choice(held_out), *rng.sample(others, number - 1)]


def build_bars(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build bars of different colours, and ask for an extreme or for their number.

    Level: 2 or 3, 3 or 4, 4 or 5, 5 to 7 bars.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level = palette.sample_level(rng, options)
    number = rng.integer(*_BARS[level])
    about = rng.weighted({"tallest": 0.4, "shortest": 0.35, "number": 0.25 if options.split != "colours" else 0.0})
    bar_colours = _sample_bar_colours(rng, options.split, number)
    ground = palette.sample_figure_backdrop(rng, bar_colours)
    while True:
        ranks = rng.sample(range(1, number + 1), number)
        if options.split == "colours":  # the answer is the held-out colour
            target = ranks.index(number if about == "tallest" else 1)
            ranks[0], ranks[target] = ranks[target], ranks[0]
        order = rng.sample(range(number), number)
        colours, ranks = [bar_colours[i] for i in order], [ranks[i] for i in order]
        base, top = rng.uniform(52, 61), rng.uniform(4, 14)
        left, right = rng.uniform(4, 14), rng.uniform(52, 61)
        if palette.is_layout_allowed(options.split, "bars", *ranks, round(left / 5), round(base / 5)):
            break
    pitch, gap = (right - left) / number, (base - top - 4) / number
    width = round(pitch * rng.uniform(0.45, 0.85), 3)
    figures = []
    for i, (colour, rank) in enumerate(zip(colours, ranks, strict=True)):
        # Heights differ by at least half of the gap, so that a person can see which is taller.
        height = round(4 + gap * (rank - rng.uniform(0, 0.5)), 3)
        point = (round(left + pitch * (i + 0.5), 3), round(base - height / 2, 3))
        figures.append(
            Figure("square", colour, palette.jitter_colour(rng, COLOURS[colour], 12), width, height, 0.0, (point,))
        )
    plates: tuple[Plate, ...] = ()
    if rng.chance(0.7):
        line = palette.sample_contrasting(rng, ground.colour)
        plates = (Plate((left + right) / 2, base + 0.5, right - left + 4, 1.0, line),)
        if rng.chance(0.6):
            plates += (Plate(left - 1.5, (base + top) / 2, 1.0, base - top + 2, line),)
    facts = {"about": about, "colours": colours, "levels": ranks}
    scene = Scene(ground, palette.sample_effects(rng), plates, tuple(figures), asked=facts)
    question, answer, more = _build_bar_questions(rng, about, colours, ranks)
    return SceneQA(scene, question, answer, more, level=level)


def _build_bar_questions(
    rng: Rng, about: str, colours: list[str], ranks: list[int]
) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    number = len(colours)
    tallest, shortest = colours[ranks.index(number)], colours[ranks.index(1)]
    i, j = rng.sample(range(number), 2)
    taller = colours[i] if ranks[i] > ranks[j] else colours[j]
    pairs = {
        "number": phrase(rng, rng.choice(_HOW_MANY), str(number), f"There are {spell_number(number)} bars."),
        "tallest": phrase(rng, rng.choice(_BAR).format(which="tallest"), tallest, f"The {tallest} bar is the tallest."),
        "shortest": phrase(
            rng, rng.choice(_BAR).format(which="shortest"), shortest, f"The {shortest} bar is the shortest."
        ),
        "taller": phrase(
            rng,
            f"Which bar is taller, the {colours[i]} one or the {colours[j]} one?",
            taller,
            f"The {taller} bar is taller.",
        ),
        "left": ("What colour is the bar on the left?", colours[0]),
        "right": ("What colour is the bar on the right?", colours[-1]),
    }
    question, answer = pairs[about]
    return question, answer, select_distinct(question, pairs.values(), 4, rng)


@dataclass(frozen=True)
class _Plot:
    """Layout and colours of a chart.

    Attributes:
        xs: position across of every category, in units.
        left: position of the left axis.
        base: height of the lowest tick.
        top: height of the highest tick.
        ink: colour of labels and axes.
        faint: colour of grid lines.
        bar: colour of bars and lines.
        family: font of the labels.
    """

    xs: tuple[float, ...]
    left: float
    base: float
    top: float
    ink: Rgb
    faint: Rgb
    bar: Rgb
    family: str


def _sample_values(rng: Rng, split: Split, level: int) -> tuple[list[str], list[int], int]:
    """Return category names, their values in ticks, and the value of a tick. Maximum and minimum are unique."""
    min_count, max_count, top = _CHARTS[level]
    while True:
        number = rng.integer(min_count, max_count)
        if level <= 2 or rng.chance(0.5):
            names = list(LETTERS[:number])
        else:
            names = rng.sample([c for c in LETTERS if c not in "IOQ"], number)
        ticks = [rng.integer(1, top) for _ in range(number)]
        step = rng.choice(_STEPS[level])
        if ticks.count(max(ticks)) > 1 or ticks.count(min(ticks)) > 1:
            continue
        text = " ".join(f"{name}{tick * step}" for name, tick in zip(names, ticks, strict=True))
        if is_text_allowed(text, split) and palette.is_layout_allowed(split, "chart", *ticks):
            return names, ticks, step


def _build_label(text: str, plot: _Plot, cap: float, point: tuple[float, float], room: float) -> Text:
    w = round(min(room, (0.84 * cap + 0.4) * len(text)), 3)
    return Text(text, plot.family, plot.ink, w, cap, 0.0, 0.0, ((round(point[0], 3), round(point[1], 3)),))


def build_chart(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build a small chart to read.

    Level: 3 bars with printed values; 3 or 4 bars with ticks; 4 or 5, then 5 or 6, bars or points.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level = palette.sample_level(rng, options)
    names, ticks, step = _sample_values(rng, options.split, level)
    max_ticks = _CHARTS[level][2]
    as_line = level >= 3 and rng.chance(0.5)
    ground = palette.sample_backdrop(rng)
    grounds = palette.get_colours(ground)
    ink = palette.sample_contrasting(rng, *grounds, split=options.split)
    bar = palette.sample_contrasting(rng, *grounds)
    mixed = [round(0.7 * a + 0.3 * b) for a, b in zip(ground.colour, ink, strict=True)]
    left = 4.0 if level == 1 else 3.5 + 5.2 * len(str(max_ticks * step))
    pitch = (UNITS - 2 - left) / len(names)
    xs = tuple(round(left + pitch * (i + 0.5), 3) for i in range(len(names)))
    family = rng.choice(fonts.get_families(options.split))
    plot = _Plot(xs, left, 52.0, 13.0 if level == 1 else 5.0, ink, (mixed[0], mixed[1], mixed[2]), bar, family)
    texts = [_build_label(name, plot, 6.5, (x, 58.5), 7.0) for name, x in zip(names, xs, strict=True)]
    plates = [Plate((left + UNITS - 1) / 2, 52.0, UNITS - 1 - left, 1.0, ink)]
    height = (plot.base - plot.top) / max_ticks
    if level > 1:
        plates.append(Plate(left, 28.0, 1.0, 48.0, ink))
        for tick in range(max_ticks + 1):
            y = plot.base - tick * height
            plates.insert(0, Plate((left + UNITS - 1) / 2, y, UNITS - 1 - left, 1.0, plot.faint))
            texts.append(_build_label(str(tick * step), plot, 5.2, (left / 2 - 0.2, y), left - 2.0))
    curves: tuple[Curve, ...] = ()
    tops = [round(plot.base - tick * height, 3) for tick in ticks]
    if as_line:
        curves = (Curve(tuple(zip(xs, tops, strict=True)), bar, 1.2, 2.2),)
    else:
        width = round(pitch * rng.uniform(0.45, 0.7), 3)
        plates += [Plate(x, (top + 52) / 2, width, 52 - top, bar) for x, top in zip(xs, tops, strict=True)]
    if level == 1:
        values = zip(ticks, xs, tops, strict=True)
        texts += [_build_label(str(tick * step), plot, 7.0, (x, top - 5.5), 8.0) for tick, x, top in values]
    facts = {"names": names, "values": [tick * step for tick in ticks], "line": as_line}
    effects = palette.sample_effects(rng, fine=True)
    scene = Scene(ground, effects, tuple(plates), (), tuple(texts), asked=facts, curves=curves)
    pairs = _build_chart_questions(rng, names, [tick * step for tick in ticks], "points" if as_line else "bars")
    first_question = rng.choice(pairs)
    return SceneQA(scene, *first_question, select_distinct(first_question[0], pairs, 5, rng), level=level)


def _build_chart_questions(rng: Rng, names: list[str], values: list[int], things: str) -> list[tuple[str, str]]:
    highest, lowest = names[values.index(max(values))], names[values.index(min(values))]
    pairs = [
        phrase(rng, f"What is the value of {name}?", str(value), f"The value of {name} is {value}.")
        for name, value in rng.sample(list(zip(names, values, strict=True)), 3)
    ]
    pairs.append(phrase(rng, "Which one has the highest value?", highest, f"{highest} has the highest value."))
    pairs.append(phrase(rng, "Which one has the lowest value?", lowest, f"{lowest} has the lowest value."))
    first, second = rng.sample(range(len(names)), 2)
    if values[first] != values[second]:
        larger, smaller = (first, second) if values[first] > values[second] else (second, first)
        answer = f"{names[larger]} is larger than {names[smaller]}."
        pairs.append(phrase(rng, f"Which is larger, {names[first]} or {names[second]}?", names[larger], answer))
    many = str(len(names))
    pairs.append(phrase(rng, f"How many {things} are there?", many, f"There are {spell_number(len(names))} {things}."))
    return pairs
