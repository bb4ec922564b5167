"""Conversations about two media, with two questions; the second is scored.

Media are picture and picture, picture and clip, clip and picture, clip and clip, in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from benchmarks.nano_suite.canvas import CLIP, SQUARE
from benchmarks.nano_suite.clips import digits, held, late_word, moving_things, recoloured_things, thing_clip
from benchmarks.nano_suite.items import Item, Medium, Question, Turn, generators
from benchmarks.nano_suite.objects import NAMES, SHAPES, Thing, count_question, scattered, things_picture
from benchmarks.nano_suite.texts import pick_word, word_picture

_FORMS = ("after", "named", "back", "together", "compare", "after")


@dataclass(frozen=True)
class Scene:
    """A medium and what can be asked about it.

    Attributes:
        medium: the picture or clip.
        plain: the question where only one medium can be meant.
        named: the question with a place for "the second picture".
        expected, rule: the answer and how it is compared.
        other: a question about another fact, or None.
    """

    medium: Medium
    plain: str
    named: str
    expected: str
    rule: str
    other: Question | None = None

    def ask(self, reference: str = "") -> Question:
        """The question about this medium; with a reference such as "the first clip"."""
        return Question(self.named.format(reference) if reference else self.plain, self.expected, self.rule)


def _word_scene(rng: Random, seed: int) -> Scene:
    size = rng.choice(SQUARE)
    text = pick_word(rng, size)
    medium = word_picture(text, size, rng.choice(("plain", "sign", "label")), seed)
    return Scene(medium, "What does it say?", "What does {} say?", text, "text")


def _thing_scene(rng: Random, seed: int) -> Scene:
    thing = Thing(rng.choice(SHAPES), rng.choice(NAMES[:6]), 0.5, 0.5, rng.uniform(0.24, 0.4))
    medium = things_picture([thing], rng.choice(SQUARE), seed)
    colour, shape = ("What color is it?", thing.colour, "colour"), ("What shape is it?", thing.shape, "shape")
    if rng.random() < 0.5:
        return Scene(medium, colour[0], "What color is the shape in {}?", *colour[1:], Question(*shape))
    return Scene(medium, shape[0], "What shape is in {}?", *shape[1:], Question(*colour))


def _count_scene(rng: Random, seed: int) -> Scene:
    names, question = count_question(rng, rng.randint(1, 6), has_others=False)
    size = rng.choice(SQUARE)
    shape, colour = names[0]
    plural = shape + ("es" if shape == "cross" else "s")
    medium = things_picture(scattered(rng, names, size), size, seed)
    plain, named = f"How many {plural} are there?", f"How many {plural} are in {{}}?"
    other = Question(f"What color are the {plural}?", colour, "colour")
    return Scene(medium, plain, named, question.expected, "number", other)


def _moving_scene(rng: Random, seed: int) -> Scene:
    frames, shape, way = moving_things(rng)
    medium = thing_clip(frames, rng.choice(CLIP), seed)
    other = Question("Which shape moves?", shape, "shape")
    return Scene(medium, "Which way does it move?", "Which way does the shape move in {}?", way, "direction", other)


def _colour_scene(rng: Random, seed: int) -> Scene:
    frames, shape, _, after = recoloured_things(rng)
    medium = thing_clip(frames, rng.choice(CLIP), seed)
    plain, named = "What color is it at the end?", "What color is the shape at the end of {}?"
    return Scene(medium, plain, named, after, "colour", Question("Which shape changes?", shape, "shape"))


def _late_scene(rng: Random, seed: int) -> Scene:
    medium, question = late_word(rng, rng.choice(CLIP), seed)
    return Scene(medium, "Which word appears?", "Which word appears in {}?", question.expected, "text")


def _digits_scene(rng: Random, seed: int) -> Scene:
    medium, question = digits(rng, rng.choice(CLIP), seed)
    return Scene(medium, "Which digits are shown?", "Which digits are shown in {}?", question.expected, "sequence")


Maker = Callable[[Random, int], Scene]
_PICTURES: Sequence[Maker] = (_word_scene, _thing_scene, _count_scene)
_CLIPS: Sequence[Maker] = (_moving_scene, _colour_scene, _late_scene, _digits_scene)
_WITH_TWO_FACTS = (_thing_scene, _count_scene, _moving_scene, _colour_scene)


def _references(first: Medium, second: Medium) -> tuple[str, str]:
    names = {"image": "picture", "video": "clip"}
    if first.kind != second.kind:
        return f"the {names[first.kind]}", f"the {names[second.kind]}"
    return f"the first {names[first.kind]}", f"the second {names[second.kind]}"


def _thing_or_clip(rng: Random, seed: int, is_clip: bool, shape: str, colour: str) -> Medium:
    """A shape in a picture, or a clip in which it appears."""
    thing = Thing(shape, colour, 0.5, 0.5, rng.uniform(0.24, 0.4))
    if not is_clip:
        return things_picture([thing], rng.choice(SQUARE), seed)
    clip = [[thing] if state else [] for state in held(rng, 2)]
    return thing_clip(clip, rng.choice(CLIP), seed)


def _compared(rng: Random, seed: int, are_clips: tuple[bool, bool], is_same: bool) -> tuple[Turn, Turn]:
    """Two shapes of which the colours, or the shapes, are compared."""
    about_colour = rng.random() < 0.5
    shapes, colours = rng.sample(SHAPES, 2), rng.sample(NAMES[:6], 2)
    if is_same and about_colour:
        colours[1] = colours[0]
    elif is_same:
        shapes[1] = shapes[0]
    media = [_thing_or_clip(rng, seed + at, are_clips[at], shapes[at], colours[at]) for at in range(2)]
    if about_colour:
        first = Question("What color is the shape?", colours[0], "colour")
        text = "Do both shapes have the same color?"
    else:
        first = Question("Which shape is it?", shapes[0], "shape")
        text = "Is it the same shape as before?"
    return Turn(first, (media[0],)), Turn(Question(text, "yes" if is_same else "no", "yes_no"), (media[1],))


def conversation(number: int) -> Item:
    """Two media, two questions."""
    rng, seed = generators("conversation", number)
    are_clips = (number % 4 >= 2, number % 2 == 1)
    form = _FORMS[number // 4 % len(_FORMS)]
    if form == "compare":
        is_same = (number + number // 24) % 2 == 0
        return Item("conversation", number, _compared(rng, seed, are_clips, is_same))
    makers = [_CLIPS if is_clip else _PICTURES for is_clip in are_clips]
    if form == "back":
        makers[0] = [maker for maker in makers[0] if maker in _WITH_TWO_FACTS]
    first, second = (rng.choice(makers[at])(rng, seed + at) for at in range(2))
    return Item("conversation", number, _turns(form, first, second))


def _turns(form: str, first: Scene, second: Scene) -> tuple[Turn, Turn]:
    """The two turns of a form: what is asked, and when the second medium is shown."""
    references = _references(first.medium, second.medium)
    one, two = (first.medium,), (second.medium,)
    if form == "after":
        return Turn(first.ask(), one), Turn(second.ask(), two)
    if form == "named":
        return Turn(first.ask(), one), Turn(second.ask(references[1]), two)
    if form == "back":
        assert first.other is not None
        return Turn(first.other, one), Turn(first.ask(references[0]), two)
    return Turn(first.ask(references[0]), one + two), Turn(second.ask(references[1]))
