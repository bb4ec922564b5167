"""Tasks about shapes in pictures: `shape`, `count`, `place` and `bars`.

They choose what is shown and asked; looks come from `palette`. Objects in pictures never touch, and the shape or colour
that a question names is on one object only. Used by `tasks`.
"""

from __future__ import annotations

from typing import Any

from pvc.synthetic import palette
from pvc.synthetic.objects import COLOUR_OF, SHAPE_OF, about_pairs, distinct_pairs, further_questions, name_of, scatter
from pvc.synthetic.scene import UNITS, Draft, Figure, Plate, Scene, Wish
from pvc.synthetic.seeding import Dice
from pvc.synthetic.vocabulary import COLOUR_NAMES, COLOURS, PLACES, PLURALS, SHAPES

_HOW_MANY = ("How many {things} are there?", "How many {things} can you see?", "Count the {things}.")
_WHERE = ("Where is the {thing}?", "In which part of the picture is the {thing}?")
_BAR = ("Which bar is the {which}?", "What colour is the {which} bar?", "What color is the {which} bar?")


def _picture(dice: Dice, figures: tuple[Figure, ...], asked: dict[str, Any]) -> Scene:
    ground = palette.figure_backdrop(dice, [f.colour for f in figures])
    return Scene(ground, palette.look(dice), (), figures, asked=asked)


def shape(dice: Dice, wish: Wish) -> Draft:
    """One to three shapes; asked is the colour of a shape or the shape of a colour."""
    pairs = distinct_pairs(dice, dice.integer(1, 3))
    figures = scatter(dice, pairs, 14, 28, 2)
    name, colour = dice.choice(pairs)
    by_shape = dice.chance(0.5)
    scene = _picture(dice, figures, {"shape": name, "colour": colour, "about": "colour" if by_shape else "shape"})
    if by_shape:
        question, answer = dice.choice(COLOUR_OF).format(shape=name), colour
    else:
        question, answer = dice.choice(SHAPE_OF).format(colour=colour), name
    return Draft(scene, question, answer, further_questions(dice, about_pairs(dice, pairs), question))


def count(dice: Dice, wish: Wish) -> Draft:
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
    figures = scatter(dice, pairs, 11, 18, 3 if dice.chance(0.6) else 4)
    scene = _picture(dice, figures, {"about": about, "shape": kind, "colour": colour, "number": number})
    question = dice.choice(_HOW_MANY).format(things=things)
    shapes, colours = [name for name, _ in pairs], [shade for _, shade in pairs]
    counts = [(PLURALS[name], shapes.count(name)) for name in sorted(set(shapes))]
    counts += [(f"{shade} shapes", colours.count(shade)) for shade in sorted(set(colours))]
    also = [(dice.choice(_HOW_MANY).format(things=kinds), str(n)) for kinds, n in counts if kinds != things and n <= 6]
    return Draft(scene, question, str(number), further_questions(dice, also, question))


def place(dice: Dice, wish: Wish) -> Draft:
    """One to four shapes in the corners and the centre; asked is where one is."""
    pairs = distinct_pairs(dice, dice.integer(1, 4))
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
    question = dice.choice(_WHERE).format(thing=name_of(dice, *pairs[i]))
    others = [
        (dice.choice(_WHERE).format(thing=name_of(dice, *pair)), where)
        for j, (pair, where) in enumerate(zip(pairs, places, strict=True))
        if j != i
    ]
    return Draft(scene, question, places[i], further_questions(dice, others + about_pairs(dice, pairs), question))


def bars(dice: Dice, wish: Wish) -> Draft:
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
    return Draft(scene, question, answer, further_questions(dice, list(answers.values()), question))
