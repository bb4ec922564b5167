"""Tasks about text in pictures: `read` (a line), `page` (lines that fill the picture), `locate` (texts at places).

Texts come from `strings`, looks from `palette`. Called by `tasks`.
"""

from __future__ import annotations

from pvc.lab.synthetic import fonts, palette, strings
from pvc.lab.synthetic.lettering import sample_text_size
from pvc.lab.synthetic.phrasing import phrase, select_distinct, spell_number
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
# Per level: lengths, heights in units, minimum units per character.
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


def build_read(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build a line on a ground, a sign or a frame.

    Level: 1 to 3, 2 to 5, 3 to 7, 5 to 9 characters, smaller at each level.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level = palette.sample_level(rng, options)
    lengths, heights, min_advance = _READ_LEVELS[level]
    sign = rng.weighted({"none": 0.5, "plate": 0.28, "bordered": 0.14, "frame": 0.08})
    while True:
        text, style = strings.sample_text(rng, options.split, lengths, strings.PLAIN if level == 1 else strings.MIXED)
        angle = rng.uniform(-7, 7) if rng.chance(0.25) and len(text) <= 4 else 0.0
        room = UNITS - 2 * _MARGIN - (4.0 if sign != "none" else 0.0) - abs(angle)
        w, h = sample_text_size(rng, text, heights, room, min_advance)
        # A rotated line is higher by its width times the sine of the angle.
        half_w = w / 2 + _MARGIN + (1.5 if sign != "none" else 0.0)
        half_h = (
            h / 2 + _MARGIN + (1.5 if sign != "none" else 0.0) + _get_tail_height(text, h) + abs(angle) * w * 0.0088
        )
        x = rng.uniform(half_w, UNITS - half_w) if half_w < UNITS / 2 else UNITS / 2
        y = rng.uniform(half_h, UNITS - half_h)
        if palette.is_arrangement_allowed(options.split, [(x, y)], len(text)):
            break
    ground, plates, rgb = _sample_sign(rng, sign, (x, y, half_w, half_h), options.split)
    item = Text(text, rng.choice(fonts.get_families(options.split)), rgb, w, h, rng.uniform(0, 0.12), angle, ((x, y),))
    scene = Scene(
        ground, palette.sample_effects(rng, level == 4), plates, (), (item,), asked={"text": text, "style": style}
    )
    question, answer = phrase(rng, rng.choice(_READ), text, f"The text is {text}.")
    return SceneQA(scene, question, answer, _build_spelling_questions(rng, text), level=level)


def _get_tail_height(text: str, height: float) -> float:
    """Return the space for what hangs below the baseline."""
    return 0.25 * height if any(c in "QJgjpqy,/$" for c in text) else 0.0


def _sample_sign(
    rng: Rng, sign: str, box: tuple[float, float, float, float], split: Split
) -> tuple[Backdrop, tuple[Plate, ...], Rgb]:
    """Return ground, plates and ink for a text with this centre and these half extents."""
    ground, (x, y, half_w, half_h) = palette.sample_backdrop(rng), box
    grounds = palette.get_colours(ground)
    if sign in ("plate", "bordered"):
        rgb = palette.sample_rgb(rng)
        border = palette.sample_contrasting(rng, rgb) if sign == "bordered" else None
        w, h = 2 * half_w + rng.uniform(-1, 4), 2 * half_h + rng.uniform(-1, 6)
        plates = (Plate(x, y, round(w, 3), round(h, 3), rgb, border, 1.0),)
        return ground, plates, palette.sample_contrasting(rng, rgb, split=split)
    ink = palette.sample_contrasting(rng, *grounds, split=split)
    if sign == "frame":
        border = palette.sample_contrasting(rng, *grounds)
        side = UNITS - 2
        return ground, (Plate(UNITS / 2, UNITS / 2, side, side, None, border, rng.uniform(1, 2)),), ink
    return ground, (), ink


def _build_spelling_questions(rng: Rng, text: str) -> tuple[tuple[str, str], ...]:
    """Ask about the characters of a text."""
    if len(text) < 2:
        return ()
    count = str(len(text))
    candidates = [
        ("What is the first character?", text[0]),
        ("What is the last character?", text[-1]),
        phrase(rng, "How many characters are there?", count, f"There are {spell_number(len(text))} characters."),
    ]
    if len(text) > 2:
        candidates.append(("What is the second character?", text[1]))
        candidates.append(("Which character comes before the last one?", text[-2]))
    return select_distinct("", candidates, 3, rng)


def build_page(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build lines of texts of all styles that fill the picture, and ask for one of them.

    Level: 2, 3, 4, 5 lines, with more characters at each level.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level, (width, height) = palette.sample_level(rng, options), palette.sample_extent(rng, options)
    rows = _PAGE_ROWS[level] * int(height / UNITS)
    pitch, room = (height - 2 * _MARGIN) / rows, width - 2 * _MARGIN
    ground = palette.sample_backdrop(rng)
    rgb = palette.sample_contrasting(rng, *palette.get_colours(ground), split=options.split)
    family = rng.choice(fonts.get_families(options.split))
    words = int(width / UNITS)
    while True:
        texts = strings.sample_texts(rng, options.split, rows * words, _PAGE_LENGTHS[level], strings.MIXED)
        lines = [" ".join(text for text, _ in texts[i * words : (i + 1) * words]) for i in range(rows)]
        side = rng.weighted({"left": 0.35, "center": 0.2, "any": 0.45})
        share = rng.uniform(0.5, 0.64)
        items = []
        for row, text in enumerate(lines):
            w, h = sample_text_size(rng, text, (min(share * pitch, 16.0), min(share * pitch, 16.0) + 0.5), room, 5.4)
            spare = room - w
            x = _MARGIN + w / 2 + {"left": 0.0, "center": spare / 2}.get(side, rng.uniform(0, spare))
            point = (round(x, 3), round(_MARGIN + pitch * (row + 0.5), 3))
            items.append(Text(text, family, rgb, w, h, rng.uniform(0, 0.1), 0.0, (point,)))
        if palette.is_arrangement_allowed(options.split, [item.track[0] for item in items if item.track[0]]):
            break
    target_row = rng.integer(0, rows - 1)
    facts = {"lines": lines, "row": target_row}
    effects = palette.sample_effects(rng, fine=level >= 3)
    scene = Scene(ground, effects, (), (), tuple(items), asked=facts, extent=(width, height))
    row_pairs = [(rng.choice(_LINE).format(row=i + 1), i) for i in range(rows)]
    pairs = [phrase(rng, question, lines[i], f"Line {i + 1} says {lines[i]}.") for question, i in row_pairs]
    quoted_row = rng.integer(0, rows - 1)
    others = [pair for i, pair in enumerate(pairs) if i != target_row]
    others.append((f"In which line is {lines[quoted_row]}?", str(quoted_row + 1)))
    others.append(phrase(rng, "How many lines are there?", str(rows), f"There are {spell_number(rows)} lines."))
    return SceneQA(scene, *pairs[target_row], select_distinct(pairs[target_row][0], others, 5, rng), level=level)


def _format_place(place: str) -> str:
    return "in the center" if place == "center" else f"at the {place}"


def build_locate(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build short texts at named places, and ask for a text by its place or for a place by its text.

    Level: 2, 3, 4, 5 texts, smaller at each level.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level, (width, height) = palette.sample_level(rng, options), palette.sample_extent(rng, options)
    count, lengths, heights = _LOCATE_LEVELS[level]
    ground = palette.sample_backdrop(rng)
    family, same = rng.choice(fonts.get_families(options.split)), rng.chance(0.6)
    inks = [palette.sample_contrasting(rng, *palette.get_colours(ground), split=options.split) for _ in range(count)]
    while True:
        texts = [text for text, _ in strings.sample_texts(rng, options.split, count, lengths, strings.PLAIN)]
        places = rng.sample(tuple(PLACES), count)
        points, items = [], []
        for i, (text, place) in enumerate(zip(texts, places, strict=True)):
            w, h = sample_text_size(rng, text, heights, 25.0, 5.8)
            x, y = PLACES[place]
            reach = max(0.0, 12.5 - w / 2) if place != "center" else 2.0
            point = (
                round(x * width + rng.uniform(-reach, reach), 3),
                round(y * height + rng.uniform(-1.5, 1.5), 3),
            )
            points.append(point)
            items.append(Text(text, family, inks[0 if same else i], w, h, 0.05, 0.0, (point,)))
        if palette.is_arrangement_allowed(options.split, points):
            break
    effects = palette.sample_effects(rng, fine=level >= 3)
    facts = {"texts": texts, "places": places}
    scene = Scene(ground, effects, (), (), tuple(items), asked=facts, extent=(width, height))
    pairs = []
    for text, place in zip(texts, places, strict=True):
        read_question = rng.choice(
            (f"What is written {_format_place(place)}?", f"Read the text {_format_place(place)}.")
        )
        pairs.append(phrase(rng, read_question, text, f"The text {_format_place(place)} is {text}."))
        place_question = rng.choice((f"Where is the text {text}?", f"In which part of the picture is {text}?"))
        pairs.append(phrase(rng, place_question, place, f"The text {text} is {_format_place(place)}."))
    first_question = rng.choice(pairs)
    return SceneQA(scene, *first_question, select_distinct(first_question[0], pairs, 5, rng), level=level)
