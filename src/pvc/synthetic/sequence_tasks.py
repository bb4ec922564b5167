"""Tasks about text that appears over time: `digits`.

They choose what is shown and asked; looks come from `palette`. Strings belong to one split only (`seeding`).
Used by `tasks`.
"""

from __future__ import annotations

import itertools

from pvc.synthetic import fonts, palette
from pvc.synthetic.lettering import nominal_width
from pvc.synthetic.scene import UNITS, Draft, Scene, Text, Track, Wish
from pvc.synthetic.seeding import Dice, Split, string_split
from pvc.synthetic.vocabulary import DIGITS, LETTERS

_IN_ORDER = {
    "digits": (
        "Which digits appear, in order?",
        "Read the digits in the order they appear.",
        "What digits are shown one after another?",
    ),
    "letters": (
        "Which letters appear, in order?",
        "Read the letters in the order they appear.",
        "What letters are shown one after another?",
    ),
}


def _sequence(dice: Dice, split: Split, most: int) -> tuple[str, str]:
    """Two to five digits or letters of this split, no two neighbours the same (they could not be told apart)."""
    while True:
        style = dice.weighted({"digits": 0.7, "letters": 0.3})
        length = dice.integer(2, min(5, most))
        text = "".join(dice.choice(DIGITS if style == "digits" else LETTERS) for _ in range(length))
        if all(a != b for a, b in itertools.pairwise(text)) and string_split(text) == split:
            return text, style


def digits(dice: Dice, wish: Wish) -> Draft:
    """Large characters one after another, each alone for one or more frames, sometimes with blank frames between."""
    length = palette.clip_length(dice, wish.frames, 2)
    text, style = _sequence(dice, wish.split, length)
    ground = palette.backdrop(dice)
    grounds = [ground.colour] if ground.colour2 is None else [ground.colour, ground.colour2]
    gaps = dice.chance(0.4)
    same_font = dice.choice(fonts.FAMILIES) if dice.chance(0.6) else None
    same_rgb = palette.contrasting(dice, *grounds) if dice.chance(0.5) else None
    items = []
    for character, (start, end) in zip(text, palette.spans(dice, length, len(text)), strict=True):
        if gaps and end - start > 1:
            start, end = start + dice.integer(0, 1), end - dice.integer(0, 1) if end - start > 2 else end
        h = dice.uniform(24, 40)
        w = round(min(UNITS - 4, max(7.0, nominal_width(character, h) * palette.squash(dice))), 3)
        tail = 0.25 * h if character in "QJ" else 0.0
        point = (dice.uniform(w / 2 + 2, UNITS - w / 2 - 2), dice.uniform(h / 2 + 2, UNITS - h / 2 - 2 - tail))
        track: Track = tuple(point if start <= f < end else None for f in range(length))
        rgb = same_rgb or palette.contrasting(dice, *grounds)
        items.append(Text(character, same_font or dice.choice(fonts.FAMILIES), rgb, w, h, 0.0, 0.0, track))
    times = palette.timestamps(dice, length)
    asked = {"text": text, "style": style}
    scene = Scene(ground, palette.look(dice), (), (), tuple(items), length, times, asked)
    return Draft(scene, dice.choice(_IN_ORDER[style]), text)
