"""Shared parts of tasks about coloured objects: sampling, placing and naming them, and the simple questions.

Called by the task modules about shapes, motion and moments.
"""

from __future__ import annotations

from pvc.lab.synthetic import palette
from pvc.lab.synthetic.scene import UNITS, Figure
from pvc.lab.synthetic.seeding import Rng
from pvc.lab.synthetic.vocabulary import COLOUR_NAMES, SHAPES

COLOUR_OF = ("What colour is the {shape}?", "What color is the {shape}?", "Which colour does the {shape} have?")
SHAPE_OF = ("Which shape is {colour}?", "What shape is the {colour} one?", "What is the {colour} object?")


def sample_distinct_pairs(rng: Rng, count: int) -> list[tuple[str, str]]:
    """Sample shapes and colours of objects; all shapes differ and all colours differ.

    Args:
        rng: random generator of the sample.
        count: number of objects, at most five.
    """
    return list(zip(rng.sample(SHAPES, count), rng.sample(COLOUR_NAMES, count), strict=True))


def scatter(rng: Rng, pairs: list[tuple[str, str]], low: float, high: float, side: int) -> tuple[Figure, ...]:
    """Sample objects that do not touch, each in one cell of a grid.

    Args:
        rng: random generator of the sample.
        pairs: (shape, colour) of every object.
        low: lower bound of the size in units.
        high: upper bound of the size.
        side: rows and columns of the grid.
    """
    ratio = palette.sample_aspect_ratio(rng)
    sizes = [palette.sample_size(rng, low, high, ratio, UNITS / side - 2) for _ in pairs]
    points = palette.sample_points(rng, len(pairs), side, sizes)
    return tuple(
        palette.sample_figure(rng, shape, colour, size, (point,))
        for (shape, colour), size, point in zip(pairs, sizes, points, strict=True)
    )


def sample_further_questions(
    rng: Rng, candidates: list[tuple[str, str]], first_question: str, max_questions: int = 3
) -> tuple[tuple[str, str], ...]:
    """Select further questions, all different from the first.

    Args:
        rng: random generator of the sample.
        candidates: questions with their answers.
        first_question: the first question of the sample.
        max_questions: maximum number of questions.
    """
    others = [(question, answer) for question, answer in candidates if question != first_question]
    return tuple(rng.sample(others, min(max_questions, len(others))))


def build_pair_questions(rng: Rng, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Ask for the colour of every shape and the shape of every colour.

    Args:
        rng: random generator of the sample.
        pairs: (shape, colour) of every object.
    """
    colours = [(rng.choice(COLOUR_OF).format(shape=name), colour) for name, colour in pairs]
    return colours + [(rng.choice(SHAPE_OF).format(colour=colour), name) for name, colour in pairs]


def sample_name(rng: Rng, name: str, colour: str) -> str:
    """Name an object by its shape, by colour and shape, or by colour.

    Args:
        rng: random generator of the sample.
        name: one of SHAPES.
        colour: one of COLOUR_NAMES.
    """
    return rng.weighted({name: 0.5, f"{colour} {name}": 0.35, f"{colour} shape": 0.15})
