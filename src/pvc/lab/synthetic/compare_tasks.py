"""Task `compare`: two pictures and one question about both, such as whether they say the same or which shows more.

The question comes after both pictures. Called by `tasks`.
"""

from __future__ import annotations

from typing import Any

from pvc.lab.synthetic import fonts, palette, strings
from pvc.lab.synthetic.lettering import sample_text_size
from pvc.lab.synthetic.objects import scatter
from pvc.lab.synthetic.phrasing import phrase, select_distinct
from pvc.lab.synthetic.scene import UNITS, Scene, SceneOptions, SceneQA, Text
from pvc.lab.synthetic.seeding import Rng, is_text_allowed
from pvc.lab.synthetic.shape_tasks import HOW_MANY, build_picture, format_object_count, sample_pair
from pvc.lab.synthetic.vocabulary import COLOUR_NAMES, DIGITS, LETTERS, PLURALS, SHAPES

_NAMES = ("first", "second")
_SAME = (
    "Is the text in both pictures the same or different?",
    "Do both pictures show the same text or different texts?",
)
_LENGTHS = {1: (1, 2), 2: (2, 3, 4), 3: (4, 5, 6), 4: (6, 7, 8)}
_HEIGHTS = {1: (14.0, 24.0), 2: (10.0, 16.0), 3: (8.0, 12.0), 4: (6.0, 8.5)}
_HIGHEST = {1: 99, 2: 99, 3: 999, 4: 9999}
# Per level: maximum of the counted objects, maximum of others, sizes, cells a side.
_OBJECTS = {1: (3, 0, 13, 18, 3), 2: (4, 1, 12, 17, 3), 3: (6, 2, 10, 14, 4), 4: (9, 4, 7, 10, 4)}


def build_compare(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build two pictures with texts, numbers or objects to compare.

    Level: up to 2, 4, 6, 8 characters; numbers to 99, 99, 999, 9999; up to 3, 4, 6, 9 objects.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level = palette.sample_level(rng, options)
    kind = rng.weighted({"text": 0.4, "number": 0.25, "objects": 0.35})
    return {"text": _build_texts, "number": _build_numbers, "objects": _build_objects}[kind](rng, options, level)


def _build_text_picture(rng: Rng, options: SceneOptions, level: int, text: str) -> Scene:
    """Build a picture of a text with a font, ground and effects that only it has."""
    ground = palette.sample_backdrop(rng)
    rgb = palette.sample_contrasting(rng, *palette.get_colours(ground), split=options.split)
    while True:
        w, h = sample_text_size(rng, text, _HEIGHTS[level], UNITS - 4.0, 5.6)
        x = rng.uniform(w / 2 + 2, UNITS - w / 2 - 2)
        point = (x, rng.uniform(h / 2 + 2, UNITS - 0.75 * h - 2))
        if palette.is_arrangement_allowed(options.split, [point], len(text)):
            break
    item = Text(text, rng.choice(fonts.get_families(options.split)), rgb, w, h, rng.uniform(0, 0.1), 0.0, (point,))
    return Scene(ground, palette.sample_effects(rng, level == 4), (), (), (item,))


def _replace_character(rng: Rng, text: str) -> str:
    """Return a text with one character replaced by another letter or digit."""
    i = rng.integer(0, len(text) - 1)
    other = rng.choice(DIGITS if text[i] in DIGITS else LETTERS)
    return text[:i] + other + text[i + 1 :]


def _get_difference(text: str, other: str) -> tuple[str, str] | None:
    """Return the one character of either text that the other does not have.

    None if there is not exactly one, or if only the font distinguishes them.
    """
    removed, added = set(text) - set(other), set(other) - set(text)
    if len(removed) != 1 or len(added) != 1 or (removed | added) & set("IO01"):
        return None
    return removed.pop(), added.pop()


def _build_texts(rng: Rng, options: SceneOptions, level: int) -> SceneQA:
    """Build two pictures of the same text or, in most cases, of texts that differ in one character."""
    same, difference = rng.chance(0.4), None
    while True:
        text, _ = strings.sample_text(rng, options.split, _LENGTHS[level], strings.PLAIN)
        other = text if same else _replace_character(rng, text)
        difference = _get_difference(text, other)
        if same or (difference and is_text_allowed(other, options.split)):
            break
    first, second = _build_text_picture(rng, options, level, text), _build_text_picture(rng, options, level, other)
    sentence = "Both pictures show the same text." if same else "The pictures show different texts."
    questions = [phrase(rng, rng.choice(_SAME), "same" if same else "different", sentence)]
    for name, content in zip(_NAMES, (text, other), strict=True):
        questions.append(
            phrase(rng, f"What does the {name} picture say?", content, f"The {name} picture says {content}.")
        )
    if difference and len(text) > 1:
        questions.append(("Which character of the first picture is missing in the second?", difference[0]))
        questions.append(("Which character of the second picture is missing in the first?", difference[1]))
    first_question = questions[0] if same or rng.chance(0.6) else rng.choice(questions)
    facts: dict[str, Any] = {"kind": "text", "texts": [text, other], "same": same}
    return _build_scene_qa(rng, (first, second), facts, first_question, questions, level)


def _build_numbers(rng: Rng, options: SceneOptions, level: int) -> SceneQA:
    """Build two pictures of numbers, and ask which is larger or smaller."""
    as_long = rng.chance(0.5)  # half of the pairs have equal numbers of digits, so that the width is no hint
    while True:
        values = tuple(strings.sample_number(rng, options.split, 1, _HIGHEST[level]) for _ in range(2))
        if values[0] != values[1] and (not as_long or len(str(values[0])) == len(str(values[1]))):
            break
    scenes = tuple(_build_text_picture(rng, options, level, str(value)) for value in values)
    questions = []
    for which, best in (("larger", max(values)), ("smaller", min(values))):
        name = _NAMES[values.index(best)]
        question = f"Which picture shows the {which} number?"
        questions.append(phrase(rng, question, name, f"The {name} picture shows the {which} number."))
        questions.append(phrase(rng, f"What is the {which} number?", str(best), f"The {which} number is {best}."))
    for name, value in zip(_NAMES, values, strict=True):
        questions.append(phrase(rng, f"Which number is in the {name} picture?", str(value), f"The number is {value}."))
    first_question = questions[rng.weighted({0: 0.35, 1: 0.15, 2: 0.35, 3: 0.15})]
    return _build_scene_qa(
        rng, (scenes[0], scenes[1]), {"kind": "number", "numbers": list(values)}, first_question, questions, level
    )


def _build_objects(rng: Rng, options: SceneOptions, level: int) -> SceneQA:
    """Build two pictures with objects of one shape among others, and ask which has more or fewer of them."""
    max_count, max_others, low, high, side = _OBJECTS[level]
    kind = rng.choice(SHAPES)
    counts = rng.sample(range(1, max_count + 1), 2)
    others = [s for s in SHAPES if s != kind]
    scenes = []
    for number in counts:
        pairs = [sample_pair(rng, options.split, (kind,), COLOUR_NAMES) for _ in range(number)]
        pairs += [sample_pair(rng, "train", others, COLOUR_NAMES) for _ in range(rng.integer(0, max_others))]
        while True:
            figures = scatter(rng, pairs, low, high, side)
            if palette.is_arrangement_allowed(options.split, [f.track[0] for f in figures if f.track[0]]):
                break
        scenes.append(build_picture(rng, figures, {}))
    things, questions = PLURALS[kind], []
    for which, best in (("more", max(counts)), ("fewer", min(counts))):
        name = _NAMES[counts.index(best)]
        question = f"Which picture has {which} {things}?"
        questions.append(phrase(rng, question, name, f"The {name} picture has {which} {things}."))
    for name, number in zip(_NAMES, counts, strict=True):
        question = f"How many {things} are in the {name} picture?"
        questions.append((question, str(number)))
    total = sum(counts)
    question = rng.choice(HOW_MANY).format(things=things).rstrip("?.")
    mark = "." if question.startswith("Count") else "?"
    questions.append(
        phrase(rng, f"{question} in both pictures together{mark}", str(total), format_object_count(total, kind, things))
    )
    facts: dict[str, Any] = {"kind": "objects", "shape": kind, "counts": counts}
    return _build_scene_qa(rng, (scenes[0], scenes[1]), facts, rng.choice(questions[:2]), questions, level)


def _build_scene_qa(
    rng: Rng,
    scenes: tuple[Scene, Scene],
    facts: dict[str, Any],
    first_question: tuple[str, str],
    questions: list[tuple[str, str]],
    level: int,
) -> SceneQA:
    first, second = scenes
    first.asked.update(facts)
    return SceneQA(first, *first_question, select_distinct(first_question[0], questions, 4, rng), (second,), level)
