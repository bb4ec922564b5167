"""Tasks about shapes in pictures: `shape`, `count`, `place` and `describe`.

They choose what is shown and asked; looks come from `palette`. Objects in pictures never touch, and the shape or colour
that a question names is on one object only. Used by `tasks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pvc.lab.synthetic import palette
from pvc.lab.synthetic.objects import COLOUR_OF, SHAPE_OF, name_of, scatter
from pvc.lab.synthetic.phrasing import distinct, listed, number_word, phrase, with_article
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
# Per level: least and most objects, their sizes, cells a side.
_SHAPES = {1: (1, 1, 18, 30, 2), 2: (2, 2, 14, 26, 2), 3: (3, 4, 12, 19, 3), 4: (4, 5, 7, 11, 4)}
_PLACES = {1: (1, 1, 13, 17), 2: (2, 2, 12, 16), 3: (3, 4, 11, 15), 4: (5, 5, 7, 10)}
# Per level: least and most to count, most others, sizes, cells a side.
_COUNTS = {1: (1, 3, 0, 13, 18, 3), 2: (1, 4, 2, 11, 17, 3), 3: (1, 6, 3, 10, 14, 4), 4: (3, 9, 5, 7, 10, 4)}
# Per level: objects of each row.
_ROWS = {
    1: ((1,), (2,)),
    2: ((2,), (3,)),
    3: ((3,), (1, 2), (2, 1), (2, 2)),
    4: ((2, 3), (3, 2), (2, 2), (1, 3), (2, 2, 1), (1, 2, 2)),
}


def picture(dice: Rng, figures: Sequence[Figure], asked: dict[str, Any]) -> Scene:
    """Figures on a ground that none of them is taken for."""
    ground = palette.figure_backdrop(dice, [f.colour for f in figures])
    return Scene(ground, palette.look(dice), (), tuple(figures), asked=asked)


def _arranged(
    dice: Rng, split: Split, pairs: list[tuple[str, str]], low: float, high: float, side: int
) -> tuple[Figure, ...]:
    """Objects that do not touch, in a layout of the split."""
    while True:
        figures = scatter(dice, pairs, low, high, side)
        if palette.arranged_for(split, [f.track[0] for f in figures if f.track[0]]):
            return figures


def _about(dice: Rng, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The colour of every shape and the shape of every colour."""
    asks = []
    for name, colour in pairs:
        sentence = f"The {name} is {colour}."
        asks.append(phrase(dice, dice.choice(COLOUR_OF).format(shape=name), colour, sentence))
        asks.append(phrase(dice, dice.choice(SHAPE_OF).format(colour=colour), name, f"The {colour} shape is a {name}."))
    return asks


def shape(dice: Rng, wish: SceneOptions) -> SceneQA:
    """Asked is the colour of a shape or the shape of a colour. Level: 1, 2, 3 or 4, 4 or 5 shapes, ever smaller."""
    level = palette.level_of(dice, wish)
    least, most, low, high, side = _SHAPES[level]
    pairs = palette.pairs(dice, wish.split, dice.integer(least, most))
    figures = _arranged(dice, wish.split, pairs, low, high, side)
    asks = _about(dice, pairs)
    asked = dice.integer(0, len(asks) - 1)
    name, colour = pairs[asked // 2]
    about = "shape" if asked % 2 else "colour"
    scene = picture(dice, figures, {"shape": name, "colour": colour, "about": about})
    return SceneQA(scene, *asks[asked], distinct(asks[asked][0], asks, 4, dice), level=level)


def pair_for(dice: Rng, split: Split, shapes: Sequence[str], colours: Sequence[str]) -> tuple[str, str]:
    """One of the shapes in one of the colours that the split may show."""
    options = [(s, c) for s in shapes for c in colours if palette.pair_is_for(s, c, split)]
    return dice.choice(options)


def many(number: int, singular: str, plural: str) -> str:
    """ "There is one star.", "There are two stars."."""
    return f"There is one {singular}." if number == 1 else f"There are {number_word(number)} {plural}."


def _counted(dice: Rng, wish: SceneOptions, number: int, others: int) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """What is shown to be counted by shape or by colour, and what stands about it, which is of another kind."""
    kind, colour = pair_for(dice, wish.split, SHAPES, COLOUR_NAMES)
    rest: Split = "train"  # only what is asked about is held out
    if dice.chance(0.65):
        shades = (colour,) if dice.chance(0.5) else COLOUR_NAMES
        pairs = [pair_for(dice, wish.split, (kind,), shades) for _ in range(number)]
        other_shapes = [s for s in SHAPES if s != kind]
        pairs += [pair_for(dice, rest, other_shapes, COLOUR_NAMES) for _ in range(others)]
        return pairs, {"about": "shape", "shape": kind, "colour": colour, "number": number}
    names = (kind,) if dice.chance(0.4) else SHAPES
    pairs = [pair_for(dice, wish.split, names, (colour,)) for _ in range(number)]
    other_colours = [c for c in COLOUR_NAMES if c != colour]
    pairs += [pair_for(dice, rest, SHAPES, other_colours) for _ in range(others)]
    return pairs, {"about": "colour", "shape": kind, "colour": colour, "number": number}


def count(dice: Rng, wish: SceneOptions) -> SceneQA:
    """Asked is the number of a shape or a colour. Level: up to 3, 4, 6, 9 of them, up to 0, 2, 3, 5 others, smaller."""
    level = palette.level_of(dice, wish)
    least, most, most_others, low, high, side = _COUNTS[level]
    number, others = dice.integer(least, most), dice.integer(0, most_others)
    pairs, facts = _counted(dice, wish, number, others)
    figures = _arranged(dice, wish.split, pairs, low, high, side if dice.chance(0.6) else side + 1)
    scene = picture(dice, figures, facts)
    shapes, colours = [name for name, _ in pairs], [shade for _, shade in pairs]
    kinds = {PLURALS[name]: (name, shapes.count(name)) for name in sorted(set(shapes))}
    kinds |= {f"{shade} shapes": (f"{shade} shape", colours.count(shade)) for shade in sorted(set(colours))}
    asked = PLURALS[facts["shape"]] if facts["about"] == "shape" else f"{facts['colour']} shapes"
    asks = {
        things: phrase(dice, dice.choice(HOW_MANY).format(things=things), str(n), many(n, thing, things))
        for things, (thing, n) in kinds.items()
    }
    question, answer = asks[asked]
    also = [ask for things, ask in asks.items() if things != asked]
    also.append(
        phrase(
            dice, dice.choice(HOW_MANY).format(things="objects"), str(len(pairs)), many(len(pairs), "object", "objects")
        )
    )
    if len(set(shapes)) > 1:
        first, second = dice.sample(sorted(set(shapes)), 2)
        if shapes.count(first) != shapes.count(second):
            larger = first if shapes.count(first) > shapes.count(second) else second
            smaller = second if larger == first else first
            question2 = f"Are there more {PLURALS[first]} or more {PLURALS[second]}?"
            answer2 = f"There are more {PLURALS[larger]} than {PLURALS[smaller]}."
            also.append(phrase(dice, question2, PLURALS[larger], answer2))
    return SceneQA(scene, question, answer, distinct(question, also, 4, dice), level=level)


def at_place(place: str) -> str:
    """ "at the top left", "in the center"."""
    return "in the center" if place == "center" else f"at the {place}"


def place(dice: Rng, wish: SceneOptions) -> SceneQA:
    """Shapes in the corners and the centre; asked is where one is. Level: 1, 2, 3 or 4, 5 shapes, ever smaller."""
    level = palette.level_of(dice, wish)
    least, most, low, high = _PLACES[level]
    pairs = palette.pairs(dice, wish.split, dice.integer(least, most))
    ratio = palette.squash(dice)
    sizes = [palette.extents(dice, low, high, ratio, 17) for _ in pairs]
    while True:
        places = dice.sample(tuple(PLACES), len(pairs))
        points = []
        for where in places:
            # The centre stays the centre, and what stands in it keeps clear of the corners.
            reach = 2.0 if where == "center" else 3.5
            x, y = (v * UNITS + dice.uniform(-reach, reach) for v in PLACES[where])
            points.append((round(x, 3), round(y, 3)))
        if palette.arranged_for(wish.split, points):
            break
    figures = [
        palette.figure(dice, *pair, size, (point,)) for pair, size, point in zip(pairs, sizes, points, strict=True)
    ]
    i = dice.integer(0, len(pairs) - 1)
    facts = {"shape": pairs[i][0], "colour": pairs[i][1], "places": places, "place": places[i]}
    scene = picture(dice, figures, facts)
    asks, also = [], _about(dice, pairs) if level < 3 else []
    for pair, where in zip(pairs, places, strict=True):
        thing = name_of(dice, *pair)
        asks.append(phrase(dice, dice.choice(_WHERE).format(thing=thing), where, f"The {thing} is {at_place(where)}."))
        also.append((f"Which shape is {at_place(where)}?", pair[0]))
        what = with_article(f"{pair[1]} {pair[0]}")
        also.append(phrase(dice, f"What is {at_place(where)}?", what, f"There is {what} {at_place(where)}."))
    return SceneQA(scene, *asks[i], distinct(asks[i][0], [*asks, *also], 4, dice), level=level)


def _in_rows(dice: Rng, rows: Sequence[int], ratio: float) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Places and sizes in reading order: rows apart by more than anybody could mistake, any gaps in a row."""
    found = []
    cell_h = UNITS / len(rows)
    shift = dice.uniform(-15, 15) if len(rows) == 1 else 0.0  # one row may lie anywhere
    for row, count_ in enumerate(rows):
        cell_w = UNITS / count_
        for column in range(count_):
            limit = min(cell_w, cell_h) - 4
            w, h = palette.extents(dice, min(11.0, 0.7 * limit), min(20.0, limit), ratio, limit)
            spare = (cell_w - w) / 2 - 1.5
            x = (column + 0.5) * cell_w + dice.uniform(-spare, spare)
            reach = min(0.1 * cell_h, (cell_h - h) / 2 - 1, 4.0)  # less than half a height: a row is seen as one
            y = (row + 0.5) * cell_h + shift + dice.uniform(-reach, reach)
            found.append(((round(x, 3), round(y, 3)), (w, h)))
    return found


def describe(dice: Rng, wish: SceneOptions) -> SceneQA:
    """All objects are to be named in reading order. Level: 1 or 2; 2 or 3; 3 or 4 in rows; 4 or 5 in rows."""
    level = palette.level_of(dice, wish)
    rows, ratio = dice.choice(_ROWS[level]), palette.squash(dice)
    pairs: list[tuple[str, str]] = []
    while len(pairs) < sum(rows):
        pair = pair_for(dice, wish.split, SHAPES, COLOUR_NAMES)
        if pair not in pairs:
            pairs.append(pair)
    while True:
        placed = _in_rows(dice, rows, ratio)
        if palette.arranged_for(wish.split, [point for point, _ in placed]):
            break
    figures = [palette.figure(dice, *pair, size, (point,)) for pair, (point, size) in zip(pairs, placed, strict=True)]
    things = [with_article(f"{colour} {name}") for name, colour in pairs]
    names = [f"{colour} {name}" for name, colour in pairs]
    scene = picture(dice, figures, {"rows": list(rows), "things": names})
    everything = listed(things)
    asked = phrase(dice, dice.choice(_DESCRIBE), everything, f"The picture shows {everything}.")
    number = len(pairs)
    also = [
        phrase(dice, dice.choice(HOW_MANY).format(things="objects"), str(number), many(number, "object", "objects"))
    ]
    if number > 1:
        also.append(("What is the first object, in reading order?", things[0]))
        also.append(("What is the last object, in reading order?", things[-1]))
    for i, (start, length) in enumerate((sum(rows[:r]), n) for r, n in enumerate(rows)):
        if len(rows) > 1:
            also.append((f"Which objects are in row {i + 1}?", listed(things[start : start + length])))
        if length > 1:  # at the ends of a row, exactly one object lies on that side
            second, last = names[start + 1], start + length - 1
            also.append((f"What is to the left of the {second}?", things[start]))
            also.append((f"What is to the right of the {names[last - 1]}?", things[last]))
    return SceneQA(scene, *asked, distinct(asked[0], also, 4, dice), level=level)
