"""`compare`: two pictures and one question about both, such as whether they say the same or which shows more.

It leaves out clips (`mixed_tasks`). The question comes after both pictures. Used by `tasks`.
"""

from __future__ import annotations

from typing import Any

from pvc.lab.synthetic import fonts, palette, strings
from pvc.lab.synthetic.lettering import extents_of
from pvc.lab.synthetic.objects import scatter
from pvc.lab.synthetic.phrasing import distinct, phrase
from pvc.lab.synthetic.scene import UNITS, Scene, SceneOptions, SceneQA, Text
from pvc.lab.synthetic.seeding import Rng, is_for
from pvc.lab.synthetic.shape_tasks import HOW_MANY, many, pair_for, picture
from pvc.lab.synthetic.vocabulary import COLOUR_NAMES, DIGITS, LETTERS, PLURALS, SHAPES

_NAMES = ("first", "second")
_SAME = (
    "Is the text in both pictures the same or different?",
    "Do both pictures show the same text or different texts?",
)
_LENGTHS = {1: (1, 2), 2: (2, 3, 4), 3: (4, 5, 6), 4: (6, 7, 8)}
_HEIGHTS = {1: (14.0, 24.0), 2: (10.0, 16.0), 3: (8.0, 12.0), 4: (6.0, 8.5)}
_HIGHEST = {1: 99, 2: 99, 3: 999, 4: 9999}
# Per level: most of the counted objects, most others, sizes, cells a side.
_OBJECTS = {1: (3, 0, 13, 18, 3), 2: (4, 1, 12, 17, 3), 3: (6, 2, 10, 14, 4), 4: (9, 4, 7, 10, 4)}


def compare(dice: Rng, wish: SceneOptions) -> SceneQA:
    """Two pictures. Level: up to 2, 4, 6, 8 characters; numbers to 99, 99, 999, 9999; up to 3, 4, 6, 9 objects."""
    level = palette.level_of(dice, wish)
    kind = dice.weighted({"text": 0.4, "number": 0.25, "objects": 0.35})
    return {"text": _texts, "number": _numbers, "objects": _objects}[kind](dice, wish, level)


def _written(dice: Rng, wish: SceneOptions, level: int, text: str) -> Scene:
    """A picture of a text with looks of its own."""
    ground = palette.backdrop(dice)
    rgb = palette.contrasting(dice, *palette.colours_of(ground), split=wish.split)
    while True:
        w, h = extents_of(dice, text, _HEIGHTS[level], UNITS - 4.0, 5.6)
        x = dice.uniform(w / 2 + 2, UNITS - w / 2 - 2)
        point = (x, dice.uniform(h / 2 + 2, UNITS - 0.75 * h - 2))
        if palette.arranged_for(wish.split, [point], len(text)):
            break
    item = Text(text, dice.choice(fonts.families(wish.split)), rgb, w, h, dice.uniform(0, 0.1), 0.0, (point,))
    return Scene(ground, palette.look(dice, level == 4), (), (), (item,))


def _changed(dice: Rng, text: str) -> str:
    """The text with one character replaced by another of its sort."""
    i = dice.integer(0, len(text) - 1)
    other = dice.choice(DIGITS if text[i] in DIGITS else LETTERS)
    return text[:i] + other + text[i + 1 :]


def _difference(text: str, other: str) -> tuple[str, str] | None:
    """The one character of either text that the other has not; None if there is none, or only its font tells it."""
    gone, come = set(text) - set(other), set(other) - set(text)
    if len(gone) != 1 or len(come) != 1 or (gone | come) & set("IO01"):
        return None
    return gone.pop(), come.pop()


def _texts(dice: Rng, wish: SceneOptions, level: int) -> SceneQA:
    """The same text or, in most cases, one that differs in one character."""
    same, difference = dice.chance(0.4), None
    while True:
        text, _ = strings.text_of(dice, wish.split, _LENGTHS[level], strings.PLAIN)
        other = text if same else _changed(dice, text)
        difference = _difference(text, other)
        if same or (difference and is_for(other, wish.split)):
            break
    first, second = _written(dice, wish, level, text), _written(dice, wish, level, other)
    sentence = "Both pictures show the same text." if same else "The pictures show different texts."
    asks = [phrase(dice, dice.choice(_SAME), "same" if same else "different", sentence)]
    for name, shown in zip(_NAMES, (text, other), strict=True):
        asks.append(phrase(dice, f"What does the {name} picture say?", shown, f"The {name} picture says {shown}."))
    if difference and len(text) > 1:
        asks.append(("Which character of the first picture is missing in the second?", difference[0]))
        asks.append(("Which character of the second picture is missing in the first?", difference[1]))
    asked = asks[0] if same or dice.chance(0.6) else dice.choice(asks)
    facts: dict[str, Any] = {"kind": "text", "texts": [text, other], "same": same}
    return _draft(dice, (first, second), facts, asked, asks, level)


def _numbers(dice: Rng, wish: SceneOptions, level: int) -> SceneQA:
    """Two numbers; asked is which is larger or smaller."""
    as_long = dice.chance(0.5)  # half of the pairs have as many digits, so that the width does not tell
    while True:
        values = tuple(strings.number_below(dice, wish.split, 1, _HIGHEST[level]) for _ in range(2))
        if values[0] != values[1] and (not as_long or len(str(values[0])) == len(str(values[1]))):
            break
    scenes = tuple(_written(dice, wish, level, str(value)) for value in values)
    asks = []
    for which, best in (("larger", max(values)), ("smaller", min(values))):
        name = _NAMES[values.index(best)]
        question = f"Which picture shows the {which} number?"
        asks.append(phrase(dice, question, name, f"The {name} picture shows the {which} number."))
        asks.append(phrase(dice, f"What is the {which} number?", str(best), f"The {which} number is {best}."))
    for name, value in zip(_NAMES, values, strict=True):
        asks.append(phrase(dice, f"Which number is in the {name} picture?", str(value), f"The number is {value}."))
    asked = asks[dice.weighted({0: 0.35, 1: 0.15, 2: 0.35, 3: 0.15})]
    return _draft(dice, (scenes[0], scenes[1]), {"kind": "number", "numbers": list(values)}, asked, asks, level)


def _objects(dice: Rng, wish: SceneOptions, level: int) -> SceneQA:
    """Objects of one shape among others in both pictures; asked is which picture has more or fewer of them."""
    most, most_others, low, high, side = _OBJECTS[level]
    kind = dice.choice(SHAPES)
    counts = dice.sample(range(1, most + 1), 2)
    others = [s for s in SHAPES if s != kind]
    scenes = []
    for number in counts:
        pairs = [pair_for(dice, wish.split, (kind,), COLOUR_NAMES) for _ in range(number)]
        pairs += [pair_for(dice, "train", others, COLOUR_NAMES) for _ in range(dice.integer(0, most_others))]
        while True:
            figures = scatter(dice, pairs, low, high, side)
            if palette.arranged_for(wish.split, [f.track[0] for f in figures if f.track[0]]):
                break
        scenes.append(picture(dice, figures, {}))
    things, asks = PLURALS[kind], []
    for which, best in (("more", max(counts)), ("fewer", min(counts))):
        name = _NAMES[counts.index(best)]
        question = f"Which picture has {which} {things}?"
        asks.append(phrase(dice, question, name, f"The {name} picture has {which} {things}."))
    for name, number in zip(_NAMES, counts, strict=True):
        question = f"How many {things} are in the {name} picture?"
        asks.append((question, str(number)))
    total = sum(counts)
    question = dice.choice(HOW_MANY).format(things=things).rstrip("?.")
    mark = "." if question.startswith("Count") else "?"
    asks.append(phrase(dice, f"{question} in both pictures together{mark}", str(total), many(total, kind, things)))
    facts: dict[str, Any] = {"kind": "objects", "shape": kind, "counts": counts}
    return _draft(dice, (scenes[0], scenes[1]), facts, dice.choice(asks[:2]), asks, level)


def _draft(
    dice: Rng,
    scenes: tuple[Scene, Scene],
    facts: dict[str, Any],
    asked: tuple[str, str],
    asks: list[tuple[str, str]],
    level: int,
) -> SceneQA:
    first, second = scenes
    first.asked.update(facts)
    return SceneQA(first, *asked, distinct(asked[0], asks, 4, dice), (second,), level)
