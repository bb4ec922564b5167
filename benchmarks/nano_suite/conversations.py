"""Conversations about two media, with two questions of which the second is scored. Called by `suite.py`.

Media are two pictures, picture and clip, clip and picture, and two clips, in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from benchmarks.nano_suite.canvas import CLIP, SQUARE
from benchmarks.nano_suite.clips import digits, hold_states, late_word, moving_things, recoloured_things, thing_clip
from benchmarks.nano_suite.items import Item, Medium, Question, Turn, generators
from benchmarks.nano_suite.objects import NAMES, SHAPES, Thing, count_question, scattered, things_picture
from benchmarks.nano_suite.texts import pick_word, word_picture

_FORMS = ("after", "named", "back", "together", "compare", "after")


@dataclass(frozen=True)
class Scene:
    """A medium and possible questions about it.

    Attributes:
        medium: the picture or clip.
        plain: the question without a reference to the medium.
        named: the question with `{}` in place of a reference such as "the second picture".
        expected: the right answer.
        rule: the rule that compares answers, a key of `matching.RULES`.
        other: a question about another fact, or None.
    """

    medium: Medium
    plain: str
    named: str
    expected: str
    rule: str
    other: Question | None = None

    def ask(self, reference: str = "") -> Question:
        """Build the question about this medium; with a reference such as "the first clip"."""
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


SceneBuilder = Callable[[Random, int], Scene]
_PICTURES: Sequence[SceneBuilder] = (_word_scene, _thing_scene, _count_scene)
_CLIPS: Sequence[SceneBuilder] = (_moving_scene, _colour_scene, _late_scene, _digits_scene)
_WITH_TWO_FACTS = (_thing_scene, _count_scene, _moving_scene, _colour_scene)


def _build_references(first: Medium, second: Medium) -> tuple[str, str]:
    names = {"image": "picture", "video": "clip"}
    if first.kind != second.kind:
        return f"the {names[first.kind]}", f"the {names[second.kind]}"
    return f"the first {names[first.kind]}", f"the second {names[second.kind]}"


def _build_medium(rng: Random, seed: int, is_clip: bool, shape: str, colour: str) -> Medium:
    """Build a picture of a shape, or a clip in which it appears."""
    thing = Thing(shape, colour, 0.5, 0.5, rng.uniform(0.24, 0.4))
    if not is_clip:
        return things_picture([thing], rng.choice(SQUARE), seed)
    clip = [[thing] if state else [] for state in hold_states(rng, 2)]
    return thing_clip(clip, rng.choice(CLIP), seed)


def _build_comparison(rng: Random, seed: int, are_clips: tuple[bool, bool], is_same: bool) -> tuple[Turn, Turn]:
    """Build two turns about two shapes, of which the second compares their colours or their shapes."""
    about_colour = rng.random() < 0.5
    shapes, colours = rng.sample(SHAPES, 2), rng.sample(NAMES[:6], 2)
    if is_same and about_colour:
        colours[1] = colours[0]
    elif is_same:
        shapes[1] = shapes[0]
    media = [_build_medium(rng, seed + at, are_clips[at], shapes[at], colours[at]) for at in range(2)]
    if about_colour:
        first = Question("What color is the shape?", colours[0], "colour")
        text = "Do both shapes have the same color?"
    else:
        first = Question("Which shape is it?", shapes[0], "shape")
        text = "Is it the same shape as before?"
    return Turn(first, (media[0],)), Turn(Question(text, "yes" if is_same else "no", "yes_no"), (media[1],))


def conversation(number: int) -> Item:
    """Build an item with two media and two questions."""
    rng, seed = generators("conversation", number)
    are_clips = (number % 4 >= 2, number % 2 == 1)
    form = _FORMS[number // 4 % len(_FORMS)]
    if form == "compare":
        is_same = (number + number // 24) % 2 == 0
        return Item("conversation", number, _build_comparison(rng, seed, are_clips, is_same))
    builders = [_CLIPS if is_clip else _PICTURES for is_clip in are_clips]
    if form == "back":
        builders[0] = [builder for builder in builders[0] if builder in _WITH_TWO_FACTS]
    first, second = (rng.choice(builders[at])(rng, seed + at) for at in range(2))
    return Item("conversation", number, _build_turns(form, first, second))


def _build_turns(form: str, first: Scene, second: Scene) -> tuple[Turn, Turn]:
    """Build the two turns of a form."""
    references = _build_references(first.medium, second.medium)
    one, two = (first.medium,), (second.medium,)
    if form == "after":
        return Turn(first.ask(), one), Turn(second.ask(), two)
    if form == "named":
        return Turn(first.ask(), one), Turn(second.ask(references[1]), two)
    if form == "back":
        assert first.other is not None
        return Turn(first.other, one), Turn(first.ask(references[0]), two)
    return Turn(first.ask(references[0]), one + two), Turn(second.ask(references[1]))
