"""Tasks about text in pictures: `read` (a line), `page` (lines that fill the picture), `locate` (texts at places).

They choose what is shown and asked; looks come from `palette`, texts from `strings`. Used by `tasks`.
"""

from __future__ import annotations

from pvc.lab.synthetic import fonts, palette, strings
from pvc.lab.synthetic.lettering import extents_of
from pvc.lab.synthetic.phrasing import distinct, number_word, phrase
from pvc.lab.synthetic.scene import UNITS, Backdrop, Plate, Scene, SceneOptions, SceneQA, Text
from pvc.lab.synthetic.seeding import Rng, Split
from pvc.lab.synthetic.vocabulary import PLACES, Rgb

_READ = (
    "What does it say?",
    "Read the text.",
    "What is written here?",
    "What text is shown?",
    "Which text can you see?",
)
_LINE = ("What is in line {row}?", "Read line {row}.", "What does line {row} say?")
_MARGIN = 2.0
# Per level: lengths, heights in units, least units per character.
_READ_LEVELS = {
    1: ((1, 2, 3), (13.0, 24.0), 6.4),
    2: ((2, 3, 4, 5), (10.0, 17.0), 6.4),
    3: ((3, 4, 5, 6, 7), (8.0, 12.0), 6.0),
    4: ((5, 6, 7, 8, 9), (6.0, 8.5), 5.2),
}
_PAGE_ROWS = {1: 2, 2: 3, 3: 4, 4: 5}
_PAGE_LENGTHS = {1: (2, 3, 4), 2: (3, 4, 5, 6), 3: (3, 4, 5, 6, 7), 4: (4, 5, 6, 7, 8, 9)}
# Per level: texts, lengths, heights.
_LOCATE_LEVELS = {
    1: (2, (1, 2), (9.5, 11.0)),
    2: (3, (2, 3), (9.0, 11.0)),
    3: (4, (2, 3), (8.0, 10.0)),
    4: (5, (3, 4), (6.0, 7.5)),
}


def read(dice: Rng, wish: SceneOptions) -> SceneQA:
    """A line on a ground, a sign or a frame. Level: 1 to 3, 2 to 5, 3 to 7, 5 to 9 characters, ever smaller."""
    level = palette.level_of(dice, wish)
    lengths, heights, least = _READ_LEVELS[level]
    sign = dice.weighted({"none": 0.5, "plate": 0.28, "bordered": 0.14, "frame": 0.08})
    while True:
        text, style = strings.text_of(dice, wish.split, lengths, strings.PLAIN if level == 1 else strings.MIXED)
        angle = dice.uniform(-7, 7) if dice.chance(0.25) and len(text) <= 4 else 0.0
        room = UNITS - 2 * _MARGIN - (4.0 if sign != "none" else 0.0) - abs(angle)
        w, h = extents_of(dice, text, heights, room, least)
        # A turned line is higher by its width times the sine of the angle.
        half_w = w / 2 + _MARGIN + (1.5 if sign != "none" else 0.0)
        half_h = h / 2 + _MARGIN + (1.5 if sign != "none" else 0.0) + _tail(text, h) + abs(angle) * w * 0.0088
        x = dice.uniform(half_w, UNITS - half_w) if half_w < UNITS / 2 else UNITS / 2
        y = dice.uniform(half_h, UNITS - half_h)
        if palette.arranged_for(wish.split, [(x, y)], len(text)):
            break
    ground, plates, rgb = _sign(dice, sign, (x, y, half_w, half_h), wish.split)
    item = Text(text, dice.choice(fonts.families(wish.split)), rgb, w, h, dice.uniform(0, 0.12), angle, ((x, y),))
    scene = Scene(ground, palette.look(dice, level == 4), plates, (), (item,), asked={"text": text, "style": style})
    question, answer = phrase(dice, dice.choice(_READ), text, f"The text is {text}.")
    return SceneQA(scene, question, answer, _spelling(dice, text), level=level)


def _tail(text: str, height: float) -> float:
    """Room for what hangs below the baseline."""
    return 0.25 * height if any(c in "QJgjpqy,/$" for c in text) else 0.0


def _sign(
    dice: Rng, sign: str, box: tuple[float, float, float, float], split: Split
) -> tuple[Backdrop, tuple[Plate, ...], Rgb]:
    """Ground, plate and colour of a text whose centre and half extents are given."""
    ground, (x, y, half_w, half_h) = palette.backdrop(dice), box
    grounds = palette.colours_of(ground)
    if sign in ("plate", "bordered"):
        rgb = palette.any_rgb(dice)
        border = palette.contrasting(dice, rgb) if sign == "bordered" else None
        w, h = 2 * half_w + dice.uniform(-1, 4), 2 * half_h + dice.uniform(-1, 6)
        plates = (Plate(x, y, round(w, 3), round(h, 3), rgb, border, 1.0),)
        return ground, plates, palette.contrasting(dice, rgb, split=split)
    ink = palette.contrasting(dice, *grounds, split=split)
    if sign == "frame":
        border = palette.contrasting(dice, *grounds)
        side = UNITS - 2
        return ground, (Plate(UNITS / 2, UNITS / 2, side, side, None, border, dice.uniform(1, 2)),), ink
    return ground, (), ink


def _spelling(dice: Rng, text: str) -> tuple[tuple[str, str], ...]:
    """Questions about the characters of a text."""
    if len(text) < 2:
        return ()
    many = str(len(text))
    candidates = [
        ("What is the first character?", text[0]),
        ("What is the last character?", text[-1]),
        phrase(dice, "How many characters are there?", many, f"There are {number_word(len(text))} characters."),
    ]
    if len(text) > 2:
        candidates.append(("What is the second character?", text[1]))
        candidates.append(("Which character comes before the last one?", text[-2]))
    return distinct("", candidates, 3, dice)


def page(dice: Rng, wish: SceneOptions) -> SceneQA:
    """Lines of texts of all styles fill the picture; one is asked for. Level: 2, 3, 4, 5 lines of more characters."""
    level, (width, height) = palette.level_of(dice, wish), palette.extent_of(dice, wish)
    rows = _PAGE_ROWS[level] * int(height / UNITS)
    pitch, room = (height - 2 * _MARGIN) / rows, width - 2 * _MARGIN
    ground = palette.backdrop(dice)
    rgb = palette.contrasting(dice, *palette.colours_of(ground), split=wish.split)
    family = dice.choice(fonts.families(wish.split))
    words = int(width / UNITS)
    while True:
        texts = strings.texts_of(dice, wish.split, rows * words, _PAGE_LENGTHS[level], strings.MIXED)
        lines = [" ".join(text for text, _ in texts[i * words : (i + 1) * words]) for i in range(rows)]
        side = dice.weighted({"left": 0.35, "center": 0.2, "any": 0.45})
        share = dice.uniform(0.5, 0.64)
        items = []
        for row, text in enumerate(lines):
            w, h = extents_of(dice, text, (min(share * pitch, 16.0), min(share * pitch, 16.0) + 0.5), room, 5.4)
            spare = room - w
            x = _MARGIN + w / 2 + {"left": 0.0, "center": spare / 2}.get(side, dice.uniform(0, spare))
            point = (round(x, 3), round(_MARGIN + pitch * (row + 0.5), 3))
            items.append(Text(text, family, rgb, w, h, dice.uniform(0, 0.1), 0.0, (point,)))
        if palette.arranged_for(wish.split, [item.track[0] for item in items if item.track[0]]):
            break
    asked = dice.integer(0, rows - 1)
    facts = {"lines": lines, "row": asked}
    look = palette.look(dice, fine=level >= 3)
    scene = Scene(ground, look, (), (), tuple(items), asked=facts, extent=(width, height))
    row_pairs = [(dice.choice(_LINE).format(row=i + 1), i) for i in range(rows)]
    pairs = [phrase(dice, question, lines[i], f"Line {i + 1} says {lines[i]}.") for question, i in row_pairs]
    found = dice.integer(0, rows - 1)
    others = [pair for i, pair in enumerate(pairs) if i != asked]
    others.append((f"In which line is {lines[found]}?", str(found + 1)))
    others.append(phrase(dice, "How many lines are there?", str(rows), f"There are {number_word(rows)} lines."))
    return SceneQA(scene, *pairs[asked], distinct(pairs[asked][0], others, 5, dice), level=level)


def _at(place: str) -> str:
    return "in the center" if place == "center" else f"at the {place}"


def locate(dice: Rng, wish: SceneOptions) -> SceneQA:
    """Short texts at named places; asked is one by its place, or a place by its text. Level: 2 to 5 texts, smaller."""
    level, (width, height) = palette.level_of(dice, wish), palette.extent_of(dice, wish)
    count, lengths, heights = _LOCATE_LEVELS[level]
    ground = palette.backdrop(dice)
    family, same = dice.choice(fonts.families(wish.split)), dice.chance(0.6)
    inks = [palette.contrasting(dice, *palette.colours_of(ground), split=wish.split) for _ in range(count)]
    while True:
        texts = [text for text, _ in strings.texts_of(dice, wish.split, count, lengths, strings.PLAIN)]
        places = dice.sample(tuple(PLACES), count)
        points, items = [], []
        for i, (text, place) in enumerate(zip(texts, places, strict=True)):
            w, h = extents_of(dice, text, heights, 25.0, 5.8)
            x, y = PLACES[place]
            reach = max(0.0, 12.5 - w / 2) if place != "center" else 2.0
            point = (
                round(x * width + dice.uniform(-reach, reach), 3),
                round(y * height + dice.uniform(-1.5, 1.5), 3),
            )
            points.append(point)
            items.append(Text(text, family, inks[0 if same else i], w, h, 0.05, 0.0, (point,)))
        if palette.arranged_for(wish.split, points):
            break
    look = palette.look(dice, fine=level >= 3)
    facts = {"texts": texts, "places": places}
    scene = Scene(ground, look, (), (), tuple(items), asked=facts, extent=(width, height))
    pairs = []
    for text, place in zip(texts, places, strict=True):
        says = dice.choice((f"What is written {_at(place)}?", f"Read the text {_at(place)}."))
        pairs.append(phrase(dice, says, text, f"The text {_at(place)} is {text}."))
        where = dice.choice((f"Where is the text {text}?", f"In which part of the picture is {text}?"))
        pairs.append(phrase(dice, where, place, f"The text {text} is {_at(place)}."))
    asked = dice.choice(pairs)
    return SceneQA(scene, *asked, distinct(asked[0], pairs, 5, dice), level=level)
