"""Questions about clips of 6 to 16 frames: texts in sequence, and movement. Called by `suite.py`.

By default PVC samples 8 frames of a clip, evenly in time. If a clip is longer than 8 frames, each of its states
therefore lasts at least two frames. Every builder takes a generator, the size in pixels and the seed of the rendering.
It returns the clip and its question.
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


def hold_states(rng: Random, states: int) -> list[int]:
    """Choose the state of each of 6 to 16 frames; every state lasts the same number of frames.

    Args:
        rng: the generator.
        states: number of states.
    """
    choices = [hold for hold in range(1, 9) if 6 <= states * hold <= 16 and (hold > 1 or states <= 8)]
    hold = rng.choice(choices)
    return [state for state in range(states) for _ in range(hold)]


def text_clip(texts: Sequence[str], states: list[int], size: Size, seed: int, is_growing: bool = False) -> Medium:
    """Build a clip of texts, all at one size.

    Args:
        texts: the text of every state.
        states: the state of every frame.
        size: width and height in pixels.
        seed: of the rendering.
        is_growing: align the texts left, as one text that is being typed.
    """

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
    """Build a clip of shapes; every colour has one shade, and the background does not change.

    Args:
        frames: the shapes of every frame.
        size: width and height in pixels.
        seed: of the rendering.
    """

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


def _change_case(rng: Random, text: str) -> str:
    return rng.choice((str.upper, str.lower))(text)


def _short_word(rng: Random, min_length: int, max_length: int) -> str:
    words = [word for word in WORDS if min_length <= len(word) <= max_length]
    return rng.choice([word for word in words if all(a != b for a, b in pairwise(word))])


def digits(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """Build a clip of digits in sequence."""
    values = [rng.randrange(10)]
    for _ in range(rng.randint(2, 4)):
        values.append(rng.choice([digit for digit in range(10) if digit != values[-1]]))
    texts = [str(digit) for digit in values]
    wording = rng.choice(("Which digits are shown?", "Which numbers appear, in order?", "Read the digits in order."))
    medium = text_clip(texts, hold_states(rng, len(texts)), size, seed)
    return medium, Question(wording, " ".join(texts), "sequence")


def spelled(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """Build a clip of the letters of a word, in sequence."""
    word = _change_case(rng, _short_word(rng, 3, 5))
    wording = rng.choice(("What does the clip spell?", "Which word do the letters make?", "Which word is spelled?"))
    return text_clip(list(word), hold_states(rng, len(word)), size, seed), Question(wording, word, "sequence")


def pieces(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """Build a clip of two pieces of a word."""
    parts = [_change_case(rng, part) for part in rng.choice(COMPOUNDS)]
    parts = [part.upper() if parts[0].isupper() else part.lower() for part in parts]
    wording = rng.choice(("Which word do the two parts make?", "Put the pieces together: what is the word?"))
    return text_clip(parts, hold_states(rng, 2), size, seed), Question(wording, "".join(parts), "sequence")


def late_word(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """Build a clip of an empty page on which a word appears."""
    word = _change_case(rng, _short_word(rng, 3, 7))
    wording = rng.choice(("Which word appears?", "What does it say at the end?", "What text appears in the clip?"))
    return text_clip(["", word], hold_states(rng, 2), size, seed), Question(wording, word, "text")


def typed(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """Build a clip of a word that is typed letter by letter."""
    word = _change_case(rng, _short_word(rng, 3, 6))
    texts = [word[:end] for end in range(1, len(word) + 1)]
    wording = rng.choice(("What is typed?", "Which word is written?", "What does it say at the end?"))
    return text_clip(texts, hold_states(rng, len(texts)), size, seed, is_growing=True), Question(wording, word, "text")


def two_words(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """Build a clip of two words in sequence, and a question about one of them."""
    case = rng.choice((str.upper, str.lower))
    first = _short_word(rng, 3, 6)
    texts = [case(first), case(rng.choice([word for word in WORDS if len(word) in (4, 5) and word != first]))]
    index = rng.randrange(2)
    wording = (
        ("Which word comes first?", "What is the first word?")
        if index == 0
        else ("Which word comes last?", "What is the second word?")
    )
    question = Question(rng.choice(wording), texts[index], "choice", (texts[1 - index],))
    return text_clip(texts, hold_states(rng, 2), size, seed), question


def changing_number(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """Build a clip of two to four numbers, and a question about the first or the last."""
    texts = [str(value) for value in rng.sample(range(1, 100), rng.randint(2, 4))]
    index = rng.choice((0, -1))
    wording = (
        ("What is the first number?", "Which number is shown first?")
        if index == 0
        else ("What is the last number?", "Which number is shown at the end?")
    )
    return text_clip(texts, hold_states(rng, len(texts)), size, seed), Question(
        rng.choice(wording), texts[index], "number"
    )


_TEXTS = (digits, spelled, pieces, late_word, typed, two_words, changing_number)


def clip_text(number: int) -> Item:
    """Build an item about texts in a clip."""
    rng, seed = generators("clip_text", number)
    medium, question = _TEXTS[number % len(_TEXTS)](rng, rng.choice(CLIP), seed)
    return single("clip_text", number, medium, question)


def moving_things(rng: Random) -> tuple[list[list[Thing]], str, str]:
    """Choose frames of a shape that crosses the picture; returns them with the shape's name and direction."""
    shape, colour, way = rng.choice(SHAPES), rng.choice(NAMES), rng.choice(("left", "right", "up", "down"))
    frames, across = rng.randint(6, 16), rng.uniform(0.3, 0.7)
    steps = [0.18 + 0.64 * at / (frames - 1) for at in range(frames)]
    steps = steps if way in ("right", "down") else steps[::-1]
    places = [(step, across) if way in ("left", "right") else (across, step) for step in steps]
    radius = rng.uniform(0.13, 0.18)
    return [[Thing(shape, colour, x, y, radius)] for x, y in places], shape, way


def moving(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """Build a clip of a shape that crosses the picture."""
    frames, shape, way = moving_things(rng)
    wording = (f"Which way does the {shape} move?", "In which direction does it move?", f"Where does the {shape} go?")
    return thing_clip(frames, size, seed), Question(rng.choice(wording), way, "direction")


def appearing(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """Build a clip of two or three shapes that appear in sequence and stay."""
    count = rng.randint(2, 3)
    shapes, colours = rng.sample(SHAPES, count), rng.sample(NAMES[:6], count)
    places = rng.sample(((0.2, 0.5), (0.5, 0.5), (0.8, 0.5)), count)
    things = [Thing(shape, colour, *at, 0.15) for shape, colour, at in zip(shapes, colours, places, strict=True)]
    index = rng.choice((0, -1))
    word = "first" if index == 0 else "last"
    if rng.random() < 0.7:
        others = tuple(shape for shape in shapes if shape != shapes[index])
        question = Question(f"Which shape appears {word}?", shapes[index], "choice", others)
    else:
        question = Question(f"Which color appears {word}?", colours[index], "colour")
    clip = [things[: state + 1] for state in hold_states(rng, count)]
    return thing_clip(clip, size, seed), question


def flashing(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """Build a clip of a shape that appears one to four times."""
    times = rng.randint(1, 4)
    thing = Thing(rng.choice(SHAPES), rng.choice(NAMES), 0.5, 0.5, rng.uniform(0.25, 0.38))
    states = 2 * times + 1 if times < 4 else 2 * times
    clip = [[thing] if state % 2 else [] for state in hold_states(rng, states)]
    wording = rng.choice((f"How many times does the {thing.shape} flash?", f"How often does the {thing.shape} appear?"))
    return thing_clip(clip, size, seed), Question(wording, str(times), "number")


def recoloured_things(rng: Random) -> tuple[list[list[Thing]], str, str, str]:
    """Choose frames of a shape that changes its colour; returns them with its name and the colours before and after."""
    shape, (before, after) = rng.choice(SHAPES), rng.sample(NAMES[:6], 2)
    radius = rng.uniform(0.25, 0.38)
    return [[Thing(shape, (before, after)[at], 0.5, 0.5, radius)] for at in hold_states(rng, 2)], shape, before, after


def recoloured(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """Build a clip of a shape that changes its colour."""
    frames, shape, before, after = recoloured_things(rng)
    wording, expected = rng.choice(
        (
            (f"What color is the {shape} at the end?", after),
            (f"Which colour does the {shape} turn into?", after),
            (f"What color is the {shape} at first?", before),
        )
    )
    return thing_clip(frames, size, seed), Question(wording, expected, "colour")


def resized(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """Build a clip of a shape that grows or shrinks."""
    shape, colour, frames = rng.choice(SHAPES), rng.choice(NAMES), rng.randint(6, 16)
    radii = [0.1 + 0.32 * at / (frames - 1) for at in range(frames)]
    is_growing = rng.random() < 0.5
    clip = [[Thing(shape, colour, 0.5, 0.5, radius)] for radius in (radii if is_growing else radii[::-1])]
    wording = rng.choice((f"Does the {shape} grow or shrink?", f"Does the {shape} get bigger or smaller?"))
    grow = ("grow", "shrink") if "grow" in wording else ("bigger", "smaller")
    return thing_clip(clip, size, seed), Question(wording, grow[0 if is_growing else 1], "growth")


def reshaped(rng: Random, size: Size, seed: int) -> tuple[Medium, Question]:
    """Build a clip of a shape that changes into another one."""
    (before, after), colour = rng.sample(SHAPES, 2), rng.choice(NAMES)
    radius = rng.uniform(0.25, 0.38)
    clip = [[Thing((before, after)[state], colour, 0.5, 0.5, radius)] for state in hold_states(rng, 2)]
    wording, expected, other = rng.choice(
        (
            (f"What does the {before} turn into?", after, before),
            ("Which shape is shown at the end?", after, before),
            ("Which shape is shown at first?", before, after),
        )
    )
    return thing_clip(clip, size, seed), Question(wording, expected, "choice", (other,))


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
    """Build an item about movement or change in a clip."""
    rng, seed = generators("clip_motion", number)
    medium, question = _MOTIONS[number % len(_MOTIONS)](rng, rng.choice(CLIP), seed)
    return single("clip_motion", number, medium, question)
