"""What tasks about coloured objects share: drawing lots for them, placing them, naming them, and the simple questions.

It leaves out what a task asks and how anything looks (`palette`). Used by the task modules about shapes, motion and
moments.
"""

from __future__ import annotations

from pvc.lab.synthetic import palette
from pvc.lab.synthetic.scene import UNITS, Figure
from pvc.lab.synthetic.seeding import Rng
from pvc.lab.synthetic.vocabulary import COLOUR_NAMES, SHAPES

COLOUR_OF = ("What colour is the {shape}?", "What color is the {shape}?", "Which colour does the {shape} have?")
SHAPE_OF = ("Which shape is {colour}?", "What shape is the {colour} one?", "What is the {colour} object?")


def distinct_pairs(dice: Rng, count: int) -> list[tuple[str, str]]:
    """Shapes and colours of objects, all shapes different and all colours different."""
    return list(zip(dice.sample(SHAPES, count), dice.sample(COLOUR_NAMES, count), strict=True))


def scatter(dice: Rng, pairs: list[tuple[str, str]], low: float, high: float, side: int) -> tuple[Figure, ...]:
    """Objects that do not touch, of sizes between two bounds, each in a cell of its own."""
    ratio = palette.squash(dice)
    sizes = [palette.extents(dice, low, high, ratio, UNITS / side - 2) for _ in pairs]
    points = palette.cells(dice, len(pairs), side, sizes)
    return tuple(
        palette.figure(dice, shape, colour, size, (point,))
        for (shape, colour), size, point in zip(pairs, sizes, points, strict=True)
    )


def further_questions(
    dice: Rng, candidates: list[tuple[str, str]], asked: str, most: int = 3
) -> tuple[tuple[str, str], ...]:
    """Up to `most` further questions, none of them the one that was asked."""
    others = [(question, answer) for question, answer in candidates if question != asked]
    return tuple(dice.sample(others, min(most, len(others))))


def about_pairs(dice: Rng, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The colour of every shape and the shape of every colour."""
    colours = [(dice.choice(COLOUR_OF).format(shape=name), colour) for name, colour in pairs]
    return colours + [(dice.choice(SHAPE_OF).format(colour=colour), name) for name, colour in pairs]


def name_of(dice: Rng, name: str, colour: str) -> str:
    """A shape by name, by colour and name, or by colour."""
    return dice.weighted({name: 0.5, f"{colour} {name}": 0.35, f"{colour} shape": 0.15})
