"""Questions about shapes: shape and colour, number, position, description. Called by `suite.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from benchmarks.nano_suite.canvas import COLOURS, RGB, SQUARE, TALL, WIDE, Canvas, pick_colours
from benchmarks.nano_suite.items import Item, Medium, Question, generators, picture, single
from benchmarks.nano_suite.texts import letters_that_fit, pick_word, word_picture

Size = tuple[int, int]
SHAPES = ("circle", "square", "triangle", "star", "cross")
NAMES = tuple(COLOURS)
PLACES = {
    "top left": (0.2, 0.2),
    "top": (0.5, 0.2),
    "top right": (0.8, 0.2),
    "left": (0.2, 0.5),
    "center": (0.5, 0.5),
    "right": (0.8, 0.5),
    "bottom left": (0.2, 0.8),
    "bottom": (0.5, 0.8),
    "bottom right": (0.8, 0.8),
}


@dataclass(frozen=True)
class Thing:
    """A shape in a picture.

    Attributes:
        shape: one of `SHAPES`.
        colour: one of `NAMES`.
        x: of the centre, as a fraction of the width.
        y: of the centre, as a fraction of the height.
        radius: as a fraction of the shorter side.
    """

    shape: str
    colour: str
    x: float = 0.5
    y: float = 0.5
    radius: float = 0.35

    @property
    def name(self) -> str:
        """Colour and shape, for example "red circle"."""
        return f"{self.colour} {self.shape}"


def things_picture(things: list[Thing], size: Size, seed: int) -> Medium:
    """Build a picture of shapes.

    Args:
        things: the shapes.
        size: width and height in pixels.
        seed: of the rendering.
    """
    return picture(lambda: draw_things(things, size, Random(seed)))


def draw_things(things: list[Thing], size: Size, rng: Random) -> Canvas:
    """Render shapes on a background with enough contrast to all of them.

    Args:
        things: the shapes.
        size: width and height in pixels.
        rng: the generator.
    """
    ground, values = pick_colours(rng, [thing.colour for thing in things])
    canvas = Canvas(size, ground)
    for thing, value in zip(things, values, strict=True):
        put_thing(canvas, thing, value)
    return canvas


def put_thing(canvas: Canvas, thing: Thing, value: RGB) -> None:
    """Render one shape.

    Args:
        canvas: the canvas.
        thing: the shape.
        value: its colour as RGB.
    """
    width, height = canvas.width, canvas.height
    canvas.shape(thing.shape, thing.x * width, thing.y * height, thing.radius * min(width, height), value)


def side_by_side(rng: Random, count: int, size: Size) -> list[Thing]:
    """Choose shapes of different names and colours, in a row or a column.

    Args:
        rng: the generator.
        count: number of shapes, 1 to 3.
        size: width and height of the picture in pixels.
    """
    shapes, colours = rng.sample(SHAPES, count), rng.sample(NAMES, count)
    if "white" in colours and "black" in colours:
        colours[colours.index("white")] = rng.choice([name for name in NAMES[:6] if name not in colours])
    is_row = size[0] >= size[1]
    longer, shorter = max(size), min(size)
    max_radius = min(0.42, 0.42 * longer / count / shorter)
    things = []
    for at, (shape, colour) in enumerate(zip(shapes, colours, strict=True)):
        along, across = (at + 0.5) / count, 0.5
        x, y = (along, across) if is_row else (across, along)
        things.append(Thing(shape, colour, x, y, max_radius * rng.uniform(0.6, 1.0)))
    return things


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def listed(things: list[Thing]) -> str:
    """List shapes as text, for example "A red circle, a blue star and an orange cross."."""
    names = [_with_article(thing.name) for thing in things]
    joined = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return joined[0].upper() + joined[1:] + "."


def shape(number: int) -> Item:
    """Build an item about the shape or colour of one of one to three shapes."""
    rng, seed = generators("shape", number)
    count = 1 + number % 3
    size = rng.choice(SQUARE + (WIDE if count > 1 else ()) + (TALL if count > 1 and number % 2 else ()))
    things = side_by_side(rng, count, size)
    return single(
        "shape", number, things_picture(things, size, seed), shape_question(rng, things, number // 3 % 2 == 0)
    )


def shape_question(rng: Random, things: list[Thing], is_about_colour: bool) -> Question:
    """Build a question about the colour or the shape of one of the shapes.

    Args:
        rng: the generator.
        things: the shapes.
        is_about_colour: ask for the colour.
    """
    thing = rng.choice(things)
    colour_word = rng.choice(("color", "colour"))
    if is_about_colour:
        if len(things) == 1:
            wording = rng.choice((f"What {colour_word} is the {thing.shape}?", f"What {colour_word} is it?"))
        else:
            wording = rng.choice(
                (f"What {colour_word} is the {thing.shape}?", f"What is the {colour_word} of the {thing.shape}?")
            )
        return Question(wording, thing.colour, "colour")
    if len(things) == 1:
        wording = rng.choice(("What shape is this?", "Which shape do you see?", f"What is the {thing.colour} shape?"))
    else:
        wording = rng.choice((f"What shape is {thing.colour}?", f"Which shape is the {thing.colour} one?"))
    return Question(wording, thing.shape, "shape")


def scattered(rng: Random, names: list[tuple[str, str]], size: Size) -> list[Thing]:
    """Place shapes in cells of a grid, without overlap.

    Args:
        rng: the generator.
        names: shape and colour of each.
        size: width and height of the picture in pixels.
    """
    columns, rows = (4, 4) if 0.7 < size[0] / size[1] < 1.6 else ((7, 2) if size[0] > size[1] else (2, 7))
    cells = rng.sample([(column, row) for column in range(columns) for row in range(rows)], len(names))
    reach = min(size[0] / columns, size[1] / rows) / min(size)
    things = []
    for (shape, colour), (column, row) in zip(names, cells, strict=True):
        x = (column + 0.5 + rng.uniform(-0.08, 0.08)) / columns
        y = (row + 0.5 + rng.uniform(-0.08, 0.08)) / rows
        things.append(Thing(shape, colour, x, y, reach * rng.uniform(0.3, 0.4)))
    return things


def count(number: int) -> Item:
    """Build an item about the number of a shape, one to nine; every second picture also has other shapes."""
    rng, seed = generators("count", number)
    total = 1 + number % 9
    size = rng.choice(SQUARE + (((800, 400), (640, 320)) if number % 3 == 0 else ()))
    names, question = count_question(rng, total, has_others=number % 2 == 1)
    things = scattered(rng, names, size)
    return single("count", number, things_picture(things, size, seed), question)


def count_question(rng: Random, total: int, has_others: bool) -> tuple[list[tuple[str, str]], Question]:
    """Choose shapes and colours, and a question about their number.

    Args:
        rng: the generator.
        total: the number to ask for.
        has_others: add other shapes.

    Returns:
        Shape and colour of each, and the question.
    """
    shape_name, colour = rng.choice(SHAPES), rng.choice(NAMES[:6])
    plural = shape_name + ("es" if shape_name == "cross" else "s")
    names = [(shape_name, colour)] * total
    if not has_others:
        wording = rng.choice(
            (f"How many {plural} are there?", f"Count the {plural}.", f"How many {plural} do you see?")
        )
        return names, Question(wording, str(total), "number")
    others = rng.randint(1, 4)
    if rng.random() < 0.5:  # the same shape in another colour
        other = rng.choice([name for name in NAMES[:6] if name != colour])
        names = names + [(shape_name, other)] * others
        wording = rng.choice((f"How many {plural} are {colour}?", f"How many {colour} {plural} are there?"))
    else:
        other = rng.choice([name for name in SHAPES if name != shape_name])
        names = names + [(other, colour)] * others
        wording = rng.choice((f"How many {plural} are there?", f"How many {plural} can you count?"))
    return names, Question(wording, str(total), "number")


def place(number: int) -> Item:
    """Build an item about the position of a shape, absolute or relative to another one."""
    rng, seed = generators("place", number)
    size = rng.choice([size for size in SQUARE if size != (480, 640)])
    if number % 2 == 0:
        name = tuple(PLACES)[number // 2 % 9]
        thing = Thing(rng.choice(SHAPES), rng.choice(NAMES), *PLACES[name], 0.16)
        things = [thing]
        if number % 4 == 0:
            far = [other for other in PLACES if math.dist(PLACES[other], PLACES[name]) > 0.4]
            opposite = rng.choice(far)
            shape = rng.choice([other for other in SHAPES if other != thing.shape])
            colour = rng.choice([other for other in NAMES[:6] if other != thing.colour])
            things.append(Thing(shape, colour, *PLACES[opposite], 0.16))
        wording = rng.choice((f"Where is the {thing.shape}?", f"In which part of the picture is the {thing.shape}?"))
        question = Question(wording, name, "place")
    else:
        things, question = _relation(rng, number // 2)
    return single("place", number, things_picture(things, size, seed), question)


def _relation(rng: Random, number: int) -> tuple[list[Thing], Question]:
    shapes, colours = rng.sample(SHAPES, 2), rng.sample(NAMES[:6], 2)
    is_row = number % 2 == 0
    places = [(0.25, 0.5), (0.75, 0.5)] if is_row else [(0.5, 0.24), (0.5, 0.76)]
    things = [Thing(shape, colour, *at, 0.2) for shape, colour, at in zip(shapes, colours, places, strict=True)]
    index = rng.randrange(2)
    first, second = things[index], things[1 - index]
    sides = ("left", "right") if is_row else ("above", "below")
    form = number // 2 % 3
    if form == 0:
        text = "left or right of" if is_row else "above or below"
        return things, Question(f"Is the {first.shape} {text} the {second.shape}?", sides[index], "relation")
    side = sides[index]
    words = f"to the {side} of" if is_row else side
    if form == 1:
        return things, Question(f"What is {words} the {second.shape}?", first.shape, "choice", (second.shape,))
    text = f"Is the {first.shape} {words} the {second.shape}?"
    if rng.random() < 0.5:
        return things, Question(text, "yes", "yes_no")
    text = f"Is the {second.shape} {words} the {first.shape}?"
    return things, Question(text, "no", "yes_no")


_DESCRIBE = ("What is in the picture?", "Describe it.", "What do you see?", "Describe the picture.", "What is shown?")


def describe(number: int) -> Item:
    """Build an item with a description of one to three shapes or, in every fourth picture, of a word."""
    rng, seed = generators("describe", number)
    wording = rng.choice(_DESCRIBE)
    size = rng.choice(SQUARE + WIDE)
    if number % 4 == 3:
        text = pick_word(rng, size)
        assert len(text) <= letters_that_fit(size)
        medium = word_picture(text, size, rng.choice(("plain", "sign", "label")), seed)
        return single("describe", number, medium, Question(wording, text, "describe_text"))
    things = side_by_side(rng, 1 + number // 4 % 3, size)
    return single("describe", number, things_picture(things, size, seed), Question(wording, listed(things), "describe"))
