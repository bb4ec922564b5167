"""Tasks about shapes in pictures: `shape`, `count`, `place` and `describe`.

Looks come from `palette`. Objects in pictures never touch, and the shape or colour that a question names is on one
object only. Called by `tasks` and `compare_tasks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pvc.lab.synthetic import palette
from pvc.lab.synthetic.objects import COLOUR_OF, SHAPE_OF, sample_name, scatter
from pvc.lab.synthetic.phrasing import add_article, join_names, phrase, select_distinct, spell_number
from pvc.lab.synthetic.scene import UNITS, Figure, Scene, SceneOptions, SceneQA
from pvc.lab.synthetic.seeding import Rng, Split
from pvc.lab.synthetic.vocabulary import COLOUR_NAMES, PLACES, PLURALS, SHAPES

HOW_MANY = ("How many {things} are there?", "How many {things} can you see?", "Count the {things}.")
_WHERE = ("Where is the {thing}?", "In which part of the picture is the {thing}?")
_DESCRIBE = (
    "Name all objects in reading order.",
    "Which objects are there, in reading order?",
    "Describe the picture.",
)
# Per level: minimum and maximum number of objects, their sizes, cells a side.
_SHAPES = {1: (1, 1, 18, 30, 2), 2: (2, 2, 14, 26, 2), 3: (3, 4, 12, 19, 3), 4: (4, 5, 7, 11, 4)}
_PLACES = {1: (1, 1, 13, 17), 2: (2, 2, 12, 16), 3: (3, 4, 11, 15), 4: (5, 5, 7, 10)}
# Per level: minimum and maximum number to count, maximum of others, sizes, cells a side.
_COUNTS = {1: (1, 3, 0, 13, 18, 3), 2: (1, 4, 2, 11, 17, 3), 3: (1, 6, 3, 10, 14, 4), 4: (3, 9, 5, 7, 10, 4)}
# Per level: objects of each row.
_ROWS = {
    1: ((1,), (2,)),
    2: ((2,), (3,)),
    3: ((3,), (1, 2), (2, 1), (2, 2)),
    4: ((2, 3), (3, 2), (2, 2), (1, 3), (2, 2, 1), (1, 2, 2)),
}


def build_picture(rng: Rng, figures: Sequence[Figure], facts: dict[str, Any]) -> Scene:
    """Build a picture of figures on a ground from which they are clearly different.

    Args:
        rng: random generator of the sample.
        figures: the objects.
        facts: facts behind the answer.
    """
    ground = palette.sample_figure_backdrop(rng, [f.colour for f in figures])
    return Scene(ground, palette.sample_effects(rng), (), tuple(figures), asked=facts)


def _sample_arrangement(
    rng: Rng, split: Split, pairs: list[tuple[str, str]], low: float, high: float, side: int
) -> tuple[Figure, ...]:
    """Sample objects that do not touch, in a layout of the split."""
    while True:
        figures = scatter(rng, pairs, low, high, side)
        if palette.is_arrangement_allowed(split, [f.track[0] for f in figures if f.track[0]]):
            return figures


def _build_object_questions(rng: Rng, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Ask for the colour of every shape and the shape of every colour."""
    questions = []
    for name, colour in pairs:
        sentence = f"The {name} is {colour}."
        questions.append(phrase(rng, rng.choice(COLOUR_OF).format(shape=name), colour, sentence))
        questions.append(
            phrase(rng, rng.choice(SHAPE_OF).format(colour=colour), name, f"The {colour} shape is a {name}.")
        )
    return questions


def build_shape(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build shapes, and ask for the colour of a shape or the shape of a colour.

    Level: 1, 2, 3 or 4, 4 or 5 shapes, smaller at each level.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level = palette.sample_level(rng, options)
    min_count, max_count, low, high, side = _SHAPES[level]
    pairs = palette.sample_pairs(rng, options.split, rng.integer(min_count, max_count))
    figures = _sample_arrangement(rng, options.split, pairs, low, high, side)
    questions = _build_object_questions(rng, pairs)
    index = rng.integer(0, len(questions) - 1)
    name, colour = pairs[index // 2]
    about = "shape" if index % 2 else "colour"
    scene = build_picture(rng, figures, {"shape": name, "colour": colour, "about": about})
    return SceneQA(scene, *questions[index], select_distinct(questions[index][0], questions, 4, rng), level=level)


def sample_pair(rng: Rng, split: Split, shapes: Sequence[str], colours: Sequence[str]) -> tuple[str, str]:
    """Sample a shape and a colour that the split may show.

    Args:
        rng: random generator of the sample.
        split: the split.
        shapes: shapes to choose from.
        colours: colours to choose from.
    """
    options = [(s, c) for s in shapes for c in colours if palette.is_pair_allowed(s, c, split)]
    return rng.choice(options)


def format_object_count(number: int, singular: str, plural: str) -> str:
    """Return a sentence with a number: "There is one star.", "There are two stars.".

    Args:
        number: the number.
        singular: name of one object.
        plural: name of several objects.
    """
    return f"There is one {singular}." if number == 1 else f"There are {spell_number(number)} {plural}."


def _sample_counted_pairs(
    rng: Rng, options: SceneOptions, number: int, others: int
) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Sample objects to be counted by shape or by colour, objects of other kinds, and the facts behind the answer."""
    kind, colour = sample_pair(rng, options.split, SHAPES, COLOUR_NAMES)
    rest: Split = "train"  # only the objects in question are held out
    if rng.chance(0.65):
        shades = (colour,) if rng.chance(0.5) else COLOUR_NAMES
        pairs = [sample_pair(rng, options.split, (kind,), shades) for _ in range(number)]
        other_shapes = [s for s in SHAPES if s != kind]
        pairs += [sample_pair(rng, rest, other_shapes, COLOUR_NAMES) for _ in range(others)]
        return pairs, {"about": "shape", "shape": kind, "colour": colour, "number": number}
    names = (kind,) if rng.chance(0.4) else SHAPES
    pairs = [sample_pair(rng, options.split, names, (colour,)) for _ in range(number)]
    other_colours = [c for c in COLOUR_NAMES if c != colour]
    pairs += [sample_pair(rng, rest, SHAPES, other_colours) for _ in range(others)]
    return pairs, {"about": "colour", "shape": kind, "colour": colour, "number": number}


def build_count(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build objects, and ask for the number of a shape or a colour.

    Level: up to 3, 4, 6, 9 of them, up to 0, 2, 3, 5 others, smaller at each level.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level = palette.sample_level(rng, options)
    min_count, max_count, max_others, low, high, side = _COUNTS[level]
    number, num_others = rng.integer(min_count, max_count), rng.integer(0, max_others)
    pairs, facts = _sample_counted_pairs(rng, options, number, num_others)
    figures = _sample_arrangement(rng, options.split, pairs, low, high, side if rng.chance(0.6) else side + 1)
    scene = build_picture(rng, figures, facts)
    shapes, colours = [name for name, _ in pairs], [shade for _, shade in pairs]
    kinds = {PLURALS[name]: (name, shapes.count(name)) for name in sorted(set(shapes))}
    kinds |= {f"{shade} shapes": (f"{shade} shape", colours.count(shade)) for shade in sorted(set(colours))}
    target = PLURALS[facts["shape"]] if facts["about"] == "shape" else f"{facts['colour']} shapes"
    questions = {
        things: phrase(rng, rng.choice(HOW_MANY).format(things=things), str(n), format_object_count(n, thing, things))
        for things, (thing, n) in kinds.items()
    }
    question, answer = questions[target]
    others = [candidate for things, candidate in questions.items() if things != target]
    others.append(
        phrase(
            rng,
            rng.choice(HOW_MANY).format(things="objects"),
            str(len(pairs)),
            format_object_count(len(pairs), "object", "objects"),
        )
    )
    if len(set(shapes)) > 1:
        first, second = rng.sample(sorted(set(shapes)), 2)
        if shapes.count(first) != shapes.count(second):
            larger = first if shapes.count(first) > shapes.count(second) else second
            smaller = second if larger == first else first
            more_question = f"Are there more {PLURALS[first]} or more {PLURALS[second]}?"
            more_answer = f"There are more {PLURALS[larger]} than {PLURALS[smaller]}."
            others.append(phrase(rng, more_question, PLURALS[larger], more_answer))
    return SceneQA(scene, question, answer, select_distinct(question, others, 4, rng), level=level)


def _format_place(place: str) -> str:
    """Return a place with its preposition: "at the top left", "in the center"."""
    return "in the center" if place == "center" else f"at the {place}"


def build_place(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build shapes in the corners and the centre, and ask where one is.

    Level: 1, 2, 3 or 4, 5 shapes, smaller at each level.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level = palette.sample_level(rng, options)
    min_count, max_count, low, high = _PLACES[level]
    pairs = palette.sample_pairs(rng, options.split, rng.integer(min_count, max_count))
    ratio = palette.sample_aspect_ratio(rng)
    sizes = [palette.sample_size(rng, low, high, ratio, 17) for _ in pairs]
    while True:
        places = rng.sample(tuple(PLACES), len(pairs))
        points = []
        for place in places:
            # The object in the centre stays clear of the corners.
            reach = 2.0 if place == "center" else 3.5
            x, y = (v * UNITS + rng.uniform(-reach, reach) for v in PLACES[place])
            points.append((round(x, 3), round(y, 3)))
        if palette.is_arrangement_allowed(options.split, points):
            break
    figures = [
        palette.sample_figure(rng, *pair, size, (point,))
        for pair, size, point in zip(pairs, sizes, points, strict=True)
    ]
    i = rng.integer(0, len(pairs) - 1)
    facts = {"shape": pairs[i][0], "colour": pairs[i][1], "places": places, "place": places[i]}
    scene = build_picture(rng, figures, facts)
    questions, others = [], _build_object_questions(rng, pairs) if level < 3 else []
    for pair, place in zip(pairs, places, strict=True):
        thing = sample_name(rng, *pair)
        questions.append(
            phrase(rng, rng.choice(_WHERE).format(thing=thing), place, f"The {thing} is {_format_place(place)}.")
        )
        others.append((f"Which shape is {_format_place(place)}?", pair[0]))
        description = add_article(f"{pair[1]} {pair[0]}")
        others.append(
            phrase(
                rng, f"What is {_format_place(place)}?", description, f"There is {description} {_format_place(place)}."
            )
        )
    return SceneQA(scene, *questions[i], select_distinct(questions[i][0], [*questions, *others], 4, rng), level=level)


def _sample_rows(rng: Rng, rows: Sequence[int], ratio: float) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Sample centres and sizes in reading order: rows clearly apart, any gaps in a row."""
    places = []
    cell_h = UNITS / len(rows)
    shift = rng.uniform(-15, 15) if len(rows) == 1 else 0.0  # one row may lie anywhere
    for row, row_length in enumerate(rows):
        cell_w = UNITS / row_length
        for column in range(row_length):
            limit = min(cell_w, cell_h) - 4
            w, h = palette.sample_size(rng, min(11.0, 0.7 * limit), min(20.0, limit), ratio, limit)
            spare = (cell_w - w) / 2 - 1.5
            x = (column + 0.5) * cell_w + rng.uniform(-spare, spare)
            reach = min(
                0.1 * cell_h, (cell_h - h) / 2 - 1, 4.0
            )  # less than half a height, so that a row looks like one
            y = (row + 0.5) * cell_h + shift + rng.uniform(-reach, reach)
            places.append(((round(x, 3), round(y, 3)), (w, h)))
    return places


def build_describe(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build objects, and ask for all of them in reading order.

    Level: 1 or 2; 2 or 3; 3 or 4 in rows; 4 or 5 in rows.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level = palette.sample_level(rng, options)
    rows, ratio = rng.choice(_ROWS[level]), palette.sample_aspect_ratio(rng)
    pairs: list[tuple[str, str]] = []
    while len(pairs) < sum(rows):
        pair = sample_pair(rng, options.split, SHAPES, COLOUR_NAMES)
        if pair not in pairs:
            pairs.append(pair)
    while True:
        places = _sample_rows(rng, rows, ratio)
        if palette.is_arrangement_allowed(options.split, [point for point, _ in places]):
            break
    figures = [
        palette.sample_figure(rng, *pair, size, (point,)) for pair, (point, size) in zip(pairs, places, strict=True)
    ]
    things = [add_article(f"{colour} {name}") for name, colour in pairs]
    names = [f"{colour} {name}" for name, colour in pairs]
    scene = build_picture(rng, figures, {"rows": list(rows), "things": names})
    everything = join_names(things)
    first_question = phrase(rng, rng.choice(_DESCRIBE), everything, f"The picture shows {everything}.")
    number = len(pairs)
    others = [
        phrase(
            rng,
            rng.choice(HOW_MANY).format(things="objects"),
            str(number),
            format_object_count(number, "object", "objects"),
        )
    ]
    if number > 1:
        others.append(("What is the first object, in reading order?", things[0]))
        others.append(("What is the last object, in reading order?", things[-1]))
    for i, (start, length) in enumerate((sum(rows[:r]), n) for r, n in enumerate(rows)):
        if len(rows) > 1:
            others.append((f"Which objects are in row {i + 1}?", join_names(things[start : start + length])))
        if length > 1:  # at the ends of a row, exactly one object lies on that side
            second, last = names[start + 1], start + length - 1
            others.append((f"What is to the left of the {second}?", things[start]))
            others.append((f"What is to the right of the {names[last - 1]}?", things[last]))
    return SceneQA(scene, *first_question, select_distinct(first_question[0], others, 4, rng), level=level)
