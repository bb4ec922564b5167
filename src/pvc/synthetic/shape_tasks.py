"""Tasks about shapes: `shape`, `count`, `place` and `bars` in pictures, `direction` and `appear` in clips.

They choose what is shown and asked; looks come from `palette`. Objects in pictures never touch, and the shape or colour
that a question names is on one object only. Used by `tasks`.
"""

from __future__ import annotations

from typing import Any

from pvc.synthetic import palette
from pvc.synthetic.scene import UNITS, Draft, Figure, Plate, Scene, Track
from pvc.synthetic.seeding import Dice, Split
from pvc.synthetic.vocabulary import COLOUR_NAMES, COLOURS, DIRECTIONS, PLACES, PLURALS, SHAPES

_COLOUR_OF = ("What colour is the {shape}?", "What color is the {shape}?", "Which colour does the {shape} have?")
_SHAPE_OF = ("Which shape is {colour}?", "What shape is the {colour} one?", "What is the {colour} object?")
_HOW_MANY = ("How many {things} are there?", "How many {things} can you see?", "Count the {things}.")
_WHERE = ("Where is the {thing}?", "In which part of the picture is the {thing}?")
_BAR = ("Which bar is the {which}?", "What colour is the {which} bar?", "What color is the {which} bar?")
_WHICH_WAY = (
    "Which way does the {thing} move?",
    "In which direction does the {thing} move?",
    "Where does the {thing} move to?",
)
_APPEAR_SHAPE = ("Which shape appears {when}?", "What is the shape that appears {when}?")
_APPEAR_COLOUR = ("What colour is the shape that appears {when}?", "What color is the shape that appears {when}?")


def _pairs(dice: Dice, count: int) -> list[tuple[str, str]]:
    """Shapes and colours of objects, all shapes different and all colours different."""
    return list(zip(dice.sample(SHAPES, count), dice.sample(COLOUR_NAMES, count), strict=True))


def _scatter(dice: Dice, pairs: list[tuple[str, str]], low: float, high: float, side: int) -> tuple[Figure, ...]:
    """Objects that do not touch, of sizes between two bounds, each in a cell of its own."""
    ratio = palette.squash(dice)
    sizes = [palette.extents(dice, low, high, ratio, UNITS / side - 2) for _ in pairs]
    points = palette.cells(dice, len(pairs), side, sizes)
    return tuple(
        palette.figure(dice, shape, colour, size, (point,))
        for (shape, colour), size, point in zip(pairs, sizes, points, strict=True)
    )


def _picture(dice: Dice, figures: tuple[Figure, ...], asked: dict[str, Any]) -> Scene:
    ground = palette.figure_backdrop(dice, [f.colour for f in figures])
    return Scene(ground, palette.look(dice), (), figures, asked=asked)


def _more(dice: Dice, candidates: list[tuple[str, str]], asked: str) -> tuple[tuple[str, str], ...]:
    """Up to three further questions, none of them the one that was asked."""
    others = [(question, answer) for question, answer in candidates if question != asked]
    return tuple(dice.sample(others, min(3, len(others))))


def _about_pairs(dice: Dice, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The colour of every shape and the shape of every colour."""
    colours = [(dice.choice(_COLOUR_OF).format(shape=name), colour) for name, colour in pairs]
    return colours + [(dice.choice(_SHAPE_OF).format(colour=colour), name) for name, colour in pairs]


def shape(dice: Dice, split: Split, frames: int | None) -> Draft:
    """One to three shapes; asked is the colour of a shape or the shape of a colour."""
    pairs = _pairs(dice, dice.integer(1, 3))
    figures = _scatter(dice, pairs, 14, 28, 2)
    name, colour = dice.choice(pairs)
    by_shape = dice.chance(0.5)
    scene = _picture(dice, figures, {"shape": name, "colour": colour, "about": "colour" if by_shape else "shape"})
    if by_shape:
        question, answer = dice.choice(_COLOUR_OF).format(shape=name), colour
    else:
        question, answer = dice.choice(_SHAPE_OF).format(colour=colour), name
    return Draft(scene, question, answer, _more(dice, _about_pairs(dice, pairs), question))


def count(dice: Dice, split: Split, frames: int | None) -> Draft:
    """One to six objects of one kind, by shape or by colour, among up to three others."""
    number, others = dice.integer(1, 6), dice.integer(0, 3)
    kind, colour = dice.choice(SHAPES), dice.choice(COLOUR_NAMES)
    other_shapes = [s for s in SHAPES if s != kind]
    other_colours = [c for c in COLOUR_NAMES if c != colour]
    if dice.chance(0.65):
        about, things = "shape", PLURALS[kind]
        one_colour = dice.chance(0.5)
        pairs = [(kind, colour if one_colour else dice.choice(COLOUR_NAMES)) for _ in range(number)]
        pairs += [(dice.choice(other_shapes), dice.choice(COLOUR_NAMES)) for _ in range(others)]
    else:
        about, things = "colour", f"{colour} shapes"
        one_shape = dice.chance(0.4)
        pairs = [(kind if one_shape else dice.choice(SHAPES), colour) for _ in range(number)]
        pairs += [(dice.choice(SHAPES), dice.choice(other_colours)) for _ in range(others)]
    figures = _scatter(dice, pairs, 11, 18, 3 if dice.chance(0.6) else 4)
    scene = _picture(dice, figures, {"about": about, "shape": kind, "colour": colour, "number": number})
    question = dice.choice(_HOW_MANY).format(things=things)
    shapes, colours = [name for name, _ in pairs], [shade for _, shade in pairs]
    counts = [(PLURALS[name], shapes.count(name)) for name in sorted(set(shapes))]
    counts += [(f"{shade} shapes", colours.count(shade)) for shade in sorted(set(colours))]
    also = [(dice.choice(_HOW_MANY).format(things=kinds), str(n)) for kinds, n in counts if kinds != things and n <= 6]
    return Draft(scene, question, str(number), _more(dice, also, question))


def place(dice: Dice, split: Split, frames: int | None) -> Draft:
    """One to four shapes in the corners and the centre; asked is where one is."""
    pairs = _pairs(dice, dice.integer(1, 4))
    places = dice.sample(tuple(PLACES), len(pairs))
    ratio = palette.squash(dice)
    figures = []
    for (name, colour), where in zip(pairs, places, strict=True):
        size = palette.extents(dice, 11, 15, ratio, 17)
        x, y = PLACES[where]
        # The centre stays the centre, and what stands in it keeps clear of the corners.
        reach = 2.0 if where == "center" else 3.5
        point = (
            round(x * UNITS + dice.uniform(-reach, reach), 3),
            round(y * UNITS + dice.uniform(-reach, reach), 3),
        )
        figures.append(palette.figure(dice, name, colour, size, (point,)))
    i = dice.integer(0, len(pairs) - 1)
    asked = {"shape": pairs[i][0], "colour": pairs[i][1], "places": places, "place": places[i]}
    scene = _picture(dice, tuple(figures), asked)
    question = dice.choice(_WHERE).format(thing=_thing(dice, *pairs[i]))
    others = [
        (dice.choice(_WHERE).format(thing=_thing(dice, *pair)), where)
        for j, (pair, where) in enumerate(zip(pairs, places, strict=True))
        if j != i
    ]
    return Draft(scene, question, places[i], _more(dice, others + _about_pairs(dice, pairs), question))


def bars(dice: Dice, split: Split, frames: int | None) -> Draft:
    """A bar chart of two to five bars, each of its own colour; asked is the tallest, the shortest or their number."""
    number = dice.integer(2, 5)
    colours = dice.sample(COLOUR_NAMES, number)
    ground = palette.figure_backdrop(dice, colours)
    base, top = dice.uniform(52, 61), dice.uniform(4, 14)
    left, right = dice.uniform(4, 14), dice.uniform(52, 61)
    pitch = (right - left) / number
    width = round(pitch * dice.uniform(0.45, 0.85), 3)
    gap = (base - top - 4) / number  # heights differ by at least half of this: a person must see which is taller
    levels = dice.sample(range(1, number + 1), number)
    heights = [round(4 + gap * (level - dice.uniform(0, 0.5)), 3) for level in levels]
    figures = tuple(
        Figure(
            "square",
            colour,
            palette.near(dice, COLOURS[colour], 12),
            width,
            height,
            0.0,
            ((round(left + pitch * (i + 0.5), 3), round(base - height / 2, 3)),),
        )
        for i, (colour, height) in enumerate(zip(colours, heights, strict=True))
    )
    plates: tuple[Plate, ...] = ()
    if dice.chance(0.7):
        line = palette.contrasting(dice, ground.colour)
        plates = (Plate((left + right) / 2, base + 0.5, right - left + 4, 1.0, line),)
        if dice.chance(0.6):
            plates += (Plate(left - 1.5, (base + top) / 2, 1.0, base - top + 2, line),)
    about = dice.weighted({"tallest": 0.4, "shortest": 0.35, "number": 0.25})
    asked = {"about": about, "colours": colours, "levels": levels}
    scene = Scene(ground, palette.look(dice), plates, figures, asked=asked)
    answers = {
        "number": (dice.choice(_HOW_MANY).format(things="bars"), str(number)),
        "tallest": (dice.choice(_BAR).format(which="tallest"), colours[levels.index(max(levels))]),
        "shortest": (dice.choice(_BAR).format(which="shortest"), colours[levels.index(min(levels))]),
    }
    question, answer = answers.pop(about)
    return Draft(scene, question, answer, _more(dice, list(answers.values()), question))


def _thing(dice: Dice, name: str, colour: str) -> str:
    """A shape by name, by colour and name, or by colour."""
    return dice.weighted({name: 0.5, f"{colour} {name}": 0.35, f"{colour} shape": 0.15})


def _clip(dice: Dice, figures: tuple[Figure, ...], asked: dict[str, Any]) -> Scene:
    length = len(figures[0].track)
    times = palette.timestamps(dice, length)
    ground = palette.figure_backdrop(dice, [f.colour for f in figures])
    return Scene(ground, palette.look(dice), (), figures, (), length, times, asked)


def _motion(dice: Dice, way: str, size: tuple[float, float], frames: int, least: float) -> Track:
    """A straight path of at least `least` units, all of it in the picture, with a slight drift to the side."""
    dx, dy = DIRECTIONS[way]
    along = size[0] if dx else size[1]
    across = size[1] if dx else size[0]
    room = UNITS - along - 2
    travel = dice.uniform(least, max(least, min(46.0, room)))
    start = along / 2 + 1 + dice.uniform(0, room - travel)
    drift = dice.uniform(-3, 3)
    level = dice.uniform(across / 2 + 4, UNITS - across / 2 - 4)
    points = []
    for f in range(frames):
        part = f / (frames - 1)
        ahead, aside = start + travel * part, level + drift * (part - 0.5)
        if dx + dy < 0:
            ahead = UNITS - ahead
        points.append((round(ahead, 3), round(aside, 3)) if dx else (round(aside, 3), round(ahead, 3)))
    return tuple(points)


def direction(dice: Dice, split: Split, frames: int | None) -> Draft:
    """One to three shapes, each moving another way or standing still; asked is the way of one that moves."""
    length = palette.clip_length(dice, frames, 2)
    pairs = _pairs(dice, dice.integer(1, 3))
    ways = dice.sample(tuple(DIRECTIONS), len(pairs))
    ways = [ways[0], *("still" if dice.chance(0.35) else w for w in ways[1:])]
    ratio = palette.squash(dice)
    figures = []
    for (name, colour), way in zip(pairs, ways, strict=True):
        size = palette.extents(dice, 12, 20, ratio, 24)
        if way == "still":
            x = dice.uniform(size[0] / 2 + 1, UNITS - size[0] / 2 - 1)
            track: Track = ((x, dice.uniform(size[1] / 2 + 1, UNITS - size[1] / 2 - 1)),) * length
        else:
            track = _motion(dice, way, size, length, 20.0)
        figures.append(palette.figure(dice, name, colour, size, track))
    asked = {"shape": pairs[0][0], "colour": pairs[0][1], "direction": ways[0]}
    # Drawn last, so that nothing passes in front of the one that is asked for.
    scene = _clip(dice, tuple(reversed(figures)), asked)
    question = dice.choice(_WHICH_WAY).format(thing=_thing(dice, *pairs[0]))
    others = [
        (dice.choice(_WHICH_WAY).format(thing=_thing(dice, *pair)), way)
        for pair, way in zip(pairs[1:], ways[1:], strict=True)
        if way != "still"
    ]
    return Draft(scene, question, ways[0], _more(dice, others + _about_pairs(dice, pairs), question))


def appear(dice: Dice, split: Split, frames: int | None) -> Draft:
    """Two to four shapes appear one after another and stay or go; asked is the first or the last."""
    length = palette.clip_length(dice, frames, 2)
    pairs = _pairs(dice, dice.integer(2, min(4, length)))
    stays = dice.chance(0.6)
    placed = _scatter(dice, pairs, 14, 26, 2)
    figures = []
    for item, (start, end) in zip(placed, palette.spans(dice, length, len(pairs)), strict=True):
        shown = range(start, length if stays else end)
        track = tuple(item.track[0] if f in shown else None for f in range(length))
        figures.append(Figure(item.shape, item.colour, item.rgb, item.w, item.h, item.angle, track))
    when = dice.choice(("first", "last"))
    name, colour = pairs[0] if when == "first" else pairs[-1]
    about = dice.choice(("shape", "colour"))
    asked = {"when": when, "about": about, "shape": name, "colour": colour}
    scene = _clip(dice, tuple(figures), asked)
    words = _APPEAR_SHAPE if about == "shape" else _APPEAR_COLOUR
    question = dice.choice(words).format(when=when)
    others = []
    for moment, (kind, shade) in (("first", pairs[0]), ("last", pairs[-1])):
        others.append((dice.choice(_APPEAR_SHAPE).format(when=moment), kind))
        others.append((dice.choice(_APPEAR_COLOUR).format(when=moment), shade))
    return Draft(scene, question, name if about == "shape" else colour, _more(dice, others, question))
