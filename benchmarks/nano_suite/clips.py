"""Questions about clips of 6 to 16 frames: texts that come one after another, and movement.

By default the product takes 8 frames of a clip, evenly in time. Every state of a clip that is longer than 8 frames
therefore lasts at least two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random

from benchmarks.nano_suite.canvas import CLIP, INKS, Canvas, pick_colours, pick_face
from benchmarks.nano_suite.items import Item, Medium, Question, generators, single
from benchmarks.nano_suite.objects import NAMES, SHAPES, Thing, put_thing
from benchmarks.nano_suite.words import COMPOUNDS, WORDS

Size = tuple[int, int]


def held(rng: Random, states: int) -> list[int]:
    """Which state every frame shows: 6 to 16 frames, each state for the same number of them."""
    choices = [hold for hold in range(1, 9) if 6 <= states * hold <= 16 and (hold > 1 or states <= 8)]
    hold = rng.choice(choices)
    return [state for state in range(states) for _ in range(hold)]


def text_clip(texts: Sequence[str], states: list[int], size: Size, seed: int, is_growing: bool = False) -> Medium:
    """A clip that shows texts; all of them at one size, or as one text that is typed."""

    def render() -> list[Canvas]:
        rng = Random(seed)
        (ground, ink), face = rng.choice(INKS), pick_face(rng)
        frames = [Canvas(size, ground, is_frame=True) for _ in states]
        width, height = size
        largest = frames[0].fitting_size(list(texts), width * 0.88, height * 0.75, face)
        text_size = max(frames[0].smallest_size(face), int(largest * rng.uniform(0.75, 1.0)))
        for frame, state in zip(frames, states, strict=True):
            if texts[state]:
                x = width * 0.06 if is_growing else width / 2
                frame.text(texts[state], x, height / 2, text_size, ink, face, "lm" if is_growing else "mm")
        return frames

    return Medium("video", render)


def thing_clip(frames: list[list[Thing]], size: Size, seed: int) -> Medium:
    """A clip of shapes; every colour has one shade, and the background stays the same."""

    def render() -> list[Canvas]:
        names = sorted({thing.colour for things in frames for thing in things})
        ground, values = pick_colours(Random(seed), names)
        shades = dict(zip(names, values, strict=True))
        canvases = [Canvas(size, ground, is_frame=True) for _ in frames]
        for canvas, things in zip(canvases, frames, strict=True):
            for thing in things:
                put_thing(canvas, thing, shades[thing.colour])
        return canvases

    return Medium("video", render)


def _cased(rng: Random, text: str) -> str:
    return rng.choice((str.upper, str.lower))(text)


def _short_word(rng: Random, least: int, most: int) -> str:
    words = [word for word in WORDS if least <= len(word) <= most]
    return rng.choice([word for word in words if all(a != b for a, b in pairwise(word))])


def digits(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """Digits one after another."""
    shown = [rng.randrange(10)]
    for _ in range(rng.randint(2, 4)):
        shown.append(rng.choice([digit for digit in range(10) if digit != shown[-1]]))
    texts = [str(digit) for digit in shown]
    asked = rng.choice(("Which digits are shown?", "Which numbers appear, in order?", "Read the digits in order."))
    medium = text_clip(texts, held(rng, len(texts)), size, seed)
    return medium, Question(asked, " ".join(texts), "sequence")


def spelled(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """Letters of a word, one after another."""
    word = _cased(rng, _short_word(rng, 3, 5))
    asked = rng.choice(("What does the clip spell?", "Which word do the letters make?", "Which word is spelled?"))
    return text_clip(list(word), held(rng, len(word)), size, seed), Question(asked, word, "sequence")


def pieces(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """Two pieces of a word."""
    parts = [_cased(rng, part) for part in rng.choice(COMPOUNDS)]
    parts = [part.upper() if parts[0].isupper() else part.lower() for part in parts]
    asked = rng.choice(("Which word do the two parts make?", "Put the pieces together: what is the word?"))
    return text_clip(parts, held(rng, 2), size, seed), Question(asked, "".join(parts), "sequence")


def late_word(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """An empty page on which a word appears."""
    word = _cased(rng, _short_word(rng, 3, 7))
    asked = rng.choice(("Which word appears?", "What does it say at the end?", "What text appears in the clip?"))
    return text_clip(["", word], held(rng, 2), size, seed), Question(asked, word, "text")


def typed(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """A word that is typed letter by letter."""
    word = _cased(rng, _short_word(rng, 3, 6))
    texts = [word[:end] for end in range(1, len(word) + 1)]
    asked = rng.choice(("What is typed?", "Which word is written?", "What does it say at the end?"))
    return text_clip(texts, held(rng, len(texts)), size, seed, is_growing=True), Question(asked, word, "text")


def two_words(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """Two words one after another, of which one is asked."""
    case = rng.choice((str.upper, str.lower))
    first = _short_word(rng, 3, 6)
    texts = [case(first), case(rng.choice([word for word in WORDS if len(word) in (4, 5) and word != first]))]
    one = rng.randrange(2)
    asked = (
        ("Which word comes first?", "What is the first word?")
        if one == 0
        else ("Which word comes last?", "What is the second word?")
    )
    question = Question(rng.choice(asked), texts[one], "choice", (texts[1 - one],))
    return text_clip(texts, held(rng, 2), size, seed), question


def changing_number(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """Two to four numbers; the first or last is asked."""
    texts = [str(value) for value in rng.sample(range(1, 100), rng.randint(2, 4))]
    one = rng.choice((0, -1))
    asked = (
        ("What is the first number?", "Which number is shown first?")
        if one == 0
        else ("What is the last number?", "Which number is shown at the end?")
    )
    return text_clip(texts, held(rng, len(texts)), size, seed), Question(rng.choice(asked), texts[one], "number")


_TEXTS = (digits, spelled, pieces, late_word, typed, two_words, changing_number)


def clip_text(number: int) -> Item:
    """Texts in a clip."""
    rng, seed = generators("clip_text", number)
    medium, question = _TEXTS[number % len(_TEXTS)](rng, rng.choice(CLIP), seed)
    return single("clip_text", number, medium, question)


def moving_things(rng: Random) -> tuple[list[list[Thing]], str, str]:
    """Frames of a shape that crosses the picture, its name and its direction."""
    shape, colour, way = rng.choice(SHAPES), rng.choice(NAMES), rng.choice(("left", "right", "up", "down"))
    frames, across = rng.randint(6, 16), rng.uniform(0.3, 0.7)
    steps = [0.18 + 0.64 * at / (frames - 1) for at in range(frames)]
    steps = steps if way in ("right", "down") else steps[::-1]
    places = [(step, across) if way in ("left", "right") else (across, step) for step in steps]
    radius = rng.uniform(0.13, 0.18)
    return [[Thing(shape, colour, x, y, radius)] for x, y in places], shape, way


def moving(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """A shape that crosses the picture."""
    frames, shape, way = moving_things(rng)
    asked = (f"Which way does the {shape} move?", "In which direction does it move?", f"Where does the {shape} go?")
    return thing_clip(frames, size, seed), Question(rng.choice(asked), way, "direction")


def appearing(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """Two or three shapes that appear one after another and stay."""
    count = rng.randint(2, 3)
    shapes, colours = rng.sample(SHAPES, count), rng.sample(NAMES[:6], count)
    places = rng.sample(((0.2, 0.5), (0.5, 0.5), (0.8, 0.5)), count)
    things = [Thing(shape, colour, *at, 0.15) for shape, colour, at in zip(shapes, colours, places, strict=True)]
    one = rng.choice((0, -1))
    word = "first" if one == 0 else "last"
    if rng.random() < 0.7:
        others = tuple(shape for shape in shapes if shape != shapes[one])
        question = Question(f"Which shape appears {word}?", shapes[one], "choice", others)
    else:
        question = Question(f"Which color appears {word}?", colours[one], "colour")
    clip = [things[: state + 1] for state in held(rng, count)]
    return thing_clip(clip, size, seed), question


def flashing(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """A shape that is shown one to four times, and hidden between."""
    times = rng.randint(1, 4)
    thing = Thing(rng.choice(SHAPES), rng.choice(NAMES), 0.5, 0.5, rng.uniform(0.25, 0.38))
    states = 2 * times + 1 if times < 4 else 2 * times
    clip = [[thing] if state % 2 else [] for state in held(rng, states)]
    asked = rng.choice((f"How many times does the {thing.shape} flash?", f"How often does the {thing.shape} appear?"))
    return thing_clip(clip, size, seed), Question(asked, str(times), "number")


def recoloured_things(rng: Random) -> tuple[list[list[Thing]], str, str, str]:
    """Frames of a shape that changes its colour, its name, and the colours before and after."""
    shape, (before, after) = rng.choice(SHAPES), rng.sample(NAMES[:6], 2)
    radius = rng.uniform(0.25, 0.38)
    return [[Thing(shape, (before, after)[at], 0.5, 0.5, radius)] for at in held(rng, 2)], shape, before, after


def recoloured(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """A shape that changes its colour."""
    frames, shape, before, after = recoloured_things(rng)
    asked, expected = rng.choice(
        (
            (f"What color is the {shape} at the end?", after),
            (f"Which colour does the {shape} turn into?", after),
            (f"What color is the {shape} at first?", before),
        )
    )
    return thing_clip(frames, size, seed), Question(asked, expected, "colour")


def resized(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """A shape that grows or shrinks."""
    shape, colour, frames = rng.choice(SHAPES), rng.choice(NAMES), rng.randint(6, 16)
    radii = [0.1 + 0.32 * at / (frames - 1) for at in range(frames)]
    is_growing = rng.random() < 0.5
    clip = [[Thing(shape, colour, 0.5, 0.5, radius)] for radius in (radii if is_growing else radii[::-1])]
    asked = rng.choice((f"Does the {shape} grow or shrink?", f"Does the {shape} get bigger or smaller?"))
    grow = ("grow", "shrink") if "grow" in asked else ("bigger", "smaller")
    return thing_clip(clip, size, seed), Question(asked, grow[0 if is_growing else 1], "growth")


def reshaped(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """A shape that becomes another one."""
    (before, after), colour = rng.sample(SHAPES, 2), rng.choice(NAMES)
    radius = rng.uniform(0.25, 0.38)
    clip = [[Thing((before, after)[state], colour, 0.5, 0.5, radius)] for state in held(rng, 2)]
    asked, expected, other = rng.choice(
        (
            (f"What does the {before} turn into?", after, before),
            ("Which shape is shown at the end?", after, before),
            ("Which shape is shown at first?", before, after),
        )
    )
    return thing_clip(clip, size, seed), Question(asked, expected, "choice", (other,))


_MOTIONS: tuple[Callable[[Random, Size, int], tuple[Medium, Question]], ...] = (
    moving,
    appearing,
    flashing,
    recoloured,
    moving,
    resized,
    reshaped,
)


def clip_motion(number: int) -> Item:
    """Movement and change in a clip."""
    rng, seed = generators("clip_motion", number)
    medium, question = _MOTIONS[number % len(_MOTIONS)](rng, rng.choice(CLIP), seed)
    return single("clip_motion", number, medium, question)
