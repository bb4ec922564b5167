"""Tasks about characters: `read` (a line), `page` (lines that fill the picture).

They choose what is shown and asked; looks come from `palette`. Strings belong to one split only (`seeding`).
Used by `tasks`.
"""

from __future__ import annotations

from pvc.synthetic import fonts, palette
from pvc.synthetic.lettering import LEAST_ADVANCE, WIDTHS, nominal_width
from pvc.synthetic.scene import UNITS, Draft, Plate, Scene, Text, Wish
from pvc.synthetic.seeding import Dice, Split, string_split
from pvc.synthetic.vocabulary import DIGITS, LETTERS, SAFE_LETTERS

_READ = (
    "What does it say?",
    "Read the text.",
    "What is written here?",
    "What text is shown?",
    "Which text can you see?",
)
_LENGTHS = {1: 1.0, 2: 1.5, 3: 2.0, 4: 2.5, 5: 2.0, 6: 2.0}
_STYLES = {"word": 0.3, "letters": 0.25, "number": 0.2, "code": 0.25}
_VOWELS, _CONSONANTS = "AEIOUY", "BCDFGHJKLMNPQRSTVWXZ"
_MARGIN = 2.0


def _line(dice: Dice, style: str, length: int) -> str:
    if style == "number":
        return "".join(dice.choice(DIGITS) for _ in range(length))
    if style == "letters":
        return "".join(dice.choice(LETTERS) for _ in range(length))
    if style == "code":
        return "".join(dice.choice(SAFE_LETTERS + DIGITS) for _ in range(length))
    start = dice.integer(0, 1)
    return "".join(dice.choice(_VOWELS if (i + start) % 2 else _CONSONANTS) for i in range(length))


def _is_clear(text: str, style: str) -> bool:
    # "IO" could be 10, and a code such as B0X could be BOX: a person could not tell.
    if style == "code":
        return any(c in "23456789" for c in text) and any(c in LETTERS for c in text)
    return style == "number" or any(c not in "IO" for c in text)


def draw_string(dice: Dice, split: Split) -> tuple[str, str]:
    """A string of this split that can be read in one way only, and its style."""
    while True:
        length, style = dice.weighted(_LENGTHS), dice.weighted(_STYLES)
        text = _line(dice, style, length)
        if _is_clear(text, style) and string_split(text) == split:
            return text, style


def _line_extents(dice: Dice, text: str, room: float) -> tuple[float, float]:
    """Ink width and capital height: 9 to 20 units high, as wide as fits when long."""
    height = dice.uniform(9, 20)
    width = nominal_width(text, height)
    if width > room:  # smaller, but not below 9.5; what is still too wide is squeezed
        height = max(9.5, height * room / width)
        width = nominal_width(text, height)
    width *= palette.squash(dice)
    # A wide I is no longer one, so the floor is for the characters that need it.
    floor = LEAST_ADVANCE * sum(min(1.0, WIDTHS.get(c, 1.0)) for c in text)
    return round(min(room, max(width, floor)), 3), round(height, 3)


def read(dice: Dice, wish: Wish) -> Draft:
    """A line of 1 to 6 characters on a ground, a sign or a framed picture."""
    text, style = draw_string(dice, wish.split)
    ground = palette.backdrop(dice)
    sign = dice.weighted({"none": 0.55, "plate": 0.25, "bordered": 0.12, "frame": 0.08})
    room = UNITS - 2 * _MARGIN - (4.0 if sign != "none" else 0.0)
    angle = dice.uniform(-7, 7) if dice.chance(0.25) and len(text) <= 4 else 0.0
    w, h = _line_extents(dice, text, room - abs(angle))
    # A turned line is higher by its width times the sine of the angle.
    half_w, half_h = w / 2 + _MARGIN, h / 2 + _MARGIN + (2.0 if "Q" in text or "J" in text else 0.0)
    half_h += abs(angle) * w * 0.0088
    if sign != "none":
        half_w, half_h = half_w + 1.5, half_h + 1.5
    x = dice.uniform(half_w, UNITS - half_w) if half_w < UNITS / 2 else UNITS / 2
    y = dice.uniform(half_h, UNITS - half_h)
    plates: tuple[Plate, ...] = ()
    grounds = [ground.colour] if ground.colour2 is None else [ground.colour, ground.colour2]
    if sign in ("plate", "bordered"):
        rgb = palette.any_rgb(dice)
        grounds = [rgb]
        border = palette.contrasting(dice, rgb) if sign == "bordered" else None
        w_plate, h_plate = 2 * half_w + dice.uniform(-1, 4), 2 * half_h + dice.uniform(-1, 6)
        plates = (Plate(x, y, round(w_plate, 3), round(h_plate, 3), rgb, border, 1.0),)
    elif sign == "frame":
        border = palette.contrasting(dice, *grounds)
        plates = (Plate(UNITS / 2, UNITS / 2, UNITS - 2, UNITS - 2, None, border, dice.uniform(1, 2)),)
    rgb = palette.contrasting(dice, *grounds)
    spacing = dice.uniform(0, 0.12)
    item = Text(text, dice.choice(fonts.FAMILIES), rgb, w, h, spacing, angle, ((x, y),))
    scene = Scene(ground, palette.look(dice), plates, (), (item,), asked={"text": text, "style": style})
    return Draft(scene, dice.choice(_READ), text)


def page(dice: Dice, wish: Wish) -> Draft:
    """Lines of characters that fill the picture; one of them is asked for."""
    ground = palette.backdrop(dice)
    grounds = [ground.colour] if ground.colour2 is None else [ground.colour, ground.colour2]
    family, rgb = dice.choice(fonts.FAMILIES), palette.contrasting(dice, *grounds)
    rows = dice.integer(2, 4)
    pitch = (UNITS - 2 * _MARGIN) / rows
    items, lines = [], []
    for row in range(rows):
        while True:
            text = "".join(dice.choice(LETTERS + DIGITS) for _ in range(dice.integer(3, 7)))
            if string_split(text) == wish.split:
                break
        height = round(min(pitch * dice.uniform(0.55, 0.75), 18.0), 3)
        room = UNITS - 2 * _MARGIN
        width = round(min(room, max(nominal_width(text, height), LEAST_ADVANCE * len(text))), 3)
        x = dice.uniform(width / 2 + _MARGIN, UNITS - width / 2 - _MARGIN) if width < room else UNITS / 2
        point = (x, _MARGIN + pitch * (row + 0.5))
        items.append(Text(text, family, rgb, width, height, dice.uniform(0, 0.1), 0.0, (point,)))
        lines.append(text)
    asked = dice.integer(0, rows - 1)
    scene = Scene(ground, palette.look(dice), (), (), tuple(items), asked={"lines": lines, "row": asked})
    more = tuple((f"What is in line {row + 1}?", line) for row, line in enumerate(lines) if row != asked)
    return Draft(scene, f"What is in line {asked + 1}?", lines[asked], more)
