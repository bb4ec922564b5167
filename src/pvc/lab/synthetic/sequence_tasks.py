"""Tasks about text that is not all there at once: `digits`, `pieces`, `flicker`, `board`; and `static`, where all is.

They choose what is shown and asked; looks come from `palette`. Strings belong to one split only (`seeding`).
Used by `tasks`.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Literal

from pvc.lab.synthetic import dense_tasks, fonts, palette, shape_tasks, text_tasks
from pvc.lab.synthetic.clips import Ask, camera, drafted, during, laid_out, redrawn, seconds, stamp
from pvc.lab.synthetic.lettering import draw_code, draw_text, fitted, nominal_width
from pvc.lab.synthetic.phrasing import number_word
from pvc.lab.synthetic.scene import UNITS, Backdrop, Figure, Plate, Scene, SceneOptions, SceneQA, Text, Veil
from pvc.lab.synthetic.seeding import Rng, Split, is_for
from pvc.lab.synthetic.vocabulary import DIGITS, LETTERS, Rgb

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
_WHOLE = ("What is the whole text?", "Read the text that is shown in pieces.", "Which text do the pieces make?")
_HIDDEN = ("What does it say?", "Read the text.", "What text is shown?", "Which text can be read in some frames?")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
# Characters (fewest and most) and the height of the smallest, by level.
_DIGITS = {1: (2, 2, 28), 2: (2, 3, 24), 3: (3, 4, 20), 4: (4, 5, 12)}
_PIECES = {1: (3, 4), 2: (4, 5), 3: (5, 6), 4: (7, 8)}
# Characters, the least height, and in how many of eight frames the text is legible, by level.
_FLICKER = {1: ((2, 3), 20, 3), 2: ((3, 4), 15, 2), 3: ((4, 5), 11, 1), 4: ((5, 7), 9, 1)}
# Rows, characters (fewest and most), and the part of the frames that shows a row, by level.
_BOARD = {1: (2, (2, 4), 0.6), 2: (3, (3, 5), 0.5), 3: (4, (4, 6), 0.4), 4: (4, (6, 8), 0.25)}
_MARGIN = 2.0
_SMALL = 2  # levels up to here stay legible in frames of 32 pixels
Box = tuple[float, float, float]  # centre across, width, height


def ordinal(i: int) -> str:
    """ "first" for 0, up to "eighth"."""
    return _ORDINALS[i]


def _character_asks(text: str, thing: str) -> list[Ask]:
    """Single characters of a text by their place, and their number."""
    asks = [
        (f"What is the {ordinal(i)} {thing}?", character, f"The {ordinal(i)} {thing} is {character}.")
        for i, character in enumerate(text)
    ]
    for one, other in itertools.pairwise(text):
        if text.lower().count(one.lower()) == 1:
            asks.append((f"Which {thing} comes after {one}?", other, f"{other} comes after {one}."))
    number = len(text)
    asks.append((f"How many {thing}s are there?", str(number), f"There are {number_word(number)} {thing}s."))
    return asks


def _sequence(dice: Rng, split: Split, lengths: tuple[int, int], most: int) -> tuple[str, str]:
    """Digits or letters of this split, no two neighbours the same (they could not be told apart)."""
    while True:
        style = dice.weighted({"digits": 0.7, "letters": 0.3})
        length = dice.integer(min(lengths[0], most), min(lengths[1], most))
        text = "".join(dice.choice(DIGITS if style == "digits" else LETTERS) for _ in range(length))
        if all(a != b for a, b in itertools.pairwise(text)) and is_for(text, split):
            return text, style


@redrawn
def digits(dice: Rng, wish: SceneOptions) -> SceneQA:
    """Large characters one after another, each alone for one or more frames, sometimes with blank frames between.

    Level 1: two characters; 2: up to three; 3: up to four; 4: up to five, smaller, in noise.
    """
    level = palette.level_of(dice, wish)
    length = palette.clip_length(dice, wish.frames, 2)
    fewest, most, least = _DIGITS[level]
    text, style = _sequence(dice, wish.split, (fewest, most), length)
    ground = palette.backdrop(dice)
    families, grounds = fonts.families(wish.split), palette.colours_of(ground)
    gaps = dice.chance(0.4)
    same_font = dice.choice(families) if dice.chance(0.6) else None
    same_rgb = palette.contrasting(dice, *grounds, split=wish.split) if dice.chance(0.5) else None

    def place(character: str) -> tuple[float, float, float, float]:
        h = dice.uniform(least, least + 14)
        w = round(min(UNITS - 4, max(7.0, nominal_width(character, h) * palette.squash(dice))), 3)
        tail = 0.25 * h if character in "QJ" else 0.0
        return dice.uniform(w / 2 + 2, UNITS - w / 2 - 2), dice.uniform(h / 2 + 2, UNITS - h / 2 - 2 - tail), w, h

    places = laid_out(
        wish.split,
        lambda: [place(character) for character in text],
        lambda drawn: ("digits", len(text), *(palette.cell_of(x, y, 5) for x, y, _, _ in drawn[:2])),
    )
    items = []
    for character, (x, y, w, h), (start, end) in zip(text, places, palette.spans(dice, length, len(text)), strict=True):
        if gaps and end - start > 1:
            start, end = start + dice.integer(0, 1), end - dice.integer(0, 1) if end - start > 2 else end
        track = during((x, y), [start <= f < end for f in range(length)])
        rgb = same_rgb or palette.contrasting(dice, *grounds, split=wish.split)
        items.append(Text(character, same_font or dice.choice(families), rgb, w, h, 0.0, 0.0, track))
    times = palette.timestamps(dice, length)
    asked = {"text": text, "style": style}
    scene = Scene(ground, camera(dice, level), (), (), tuple(items), length, times, asked)
    first = (dice.choice(_IN_ORDER[style]), text, f"The {style} are {text}.")
    return drafted(dice, scene, [first, *_character_asks(text, style[:-1])], level, 3)


@redrawn
def pieces(dice: Rng, wish: SceneOptions) -> SceneQA:
    """A text in pieces of one to three characters, one after another, each at its place or all in the middle.

    Level 1: three or four characters; 2: up to five; 3: up to six; 4: seven or eight, in noise.
    """
    level = palette.level_of(dice, wish)
    length = palette.clip_length(dice, wish.frames, 2)
    number = min(dice.integer(*_PIECES[level]), 3 * length)
    text = draw_code(dice, wish.split, number)
    parts = _cut(dice, text, length)
    ground = palette.backdrop(dice)
    rgb = palette.contrasting(dice, *palette.colours_of(ground), split=wish.split)
    family = dice.choice(fonts.families(wish.split))
    # Two pieces that are alike could not be told apart in one place.
    alike = any(a == b for a, b in itertools.pairwise(parts))
    centred = not alike and dice.chance(0.5)

    def place() -> tuple[float, float, float, float]:
        if centred:
            w, h = fitted("M" * max(map(len, parts)), dice.uniform(20, 34))
        else:
            w, h = fitted(text, dice.uniform(15, 27))
        x = dice.uniform(w / 2 + 1, UNITS - w / 2 - 1)
        return x, dice.uniform(h / 2 + 2, UNITS - h * 0.75 - 2), w, h

    def layout(drawn: tuple[float, float, float, float]) -> tuple[object, ...]:
        return "pieces", centred, *palette.cell_of(drawn[0], drawn[1], 8), *map(len, parts)

    x, y, w, h = laid_out(wish.split, place, layout)
    stays = not centred and dice.chance(0.25)
    # Each piece at the place that its characters have in the whole line.
    scale, done = w / nominal_width(text, h), 0
    items = []
    for part, (start, end) in zip(parts, palette.spans(dice, length, len(parts)), strict=True):
        done += len(part)
        if centred:
            middle, (width, height) = x, fitted(part, h, w)
        else:
            width, height = round(scale * nominal_width(part, h), 3), h
            middle = round(x - w / 2 + scale * nominal_width(text[:done], h) - width / 2, 3)
        track = during((middle, y), [start <= f < (length if stays else end) for f in range(length)])
        items.append(Text(part, family, rgb, width, height, 0.0, 0.0, track))
    asked = {"text": text, "pieces": parts, "centred": centred}
    look, times = camera(dice, level, level <= _SMALL), palette.timestamps(dice, length)
    scene = Scene(ground, look, (), (), tuple(items), length, times, asked)
    first = (dice.choice(_WHOLE), text, f"The whole text is {text}.")
    asks = [first, *_character_asks(text, "character")]
    asks += [
        (f"What does the {ordinal(i)} piece say?", part, f"The {ordinal(i)} piece says {part}.")
        for i, part in enumerate(parts)
        if len(part) > 1 and is_for(part, wish.split) and not stays
    ]
    return drafted(dice, scene, asks, level)


def _cut(dice: Rng, text: str, most: int) -> list[str]:
    """Two or more pieces of one to three characters, at most `most`."""
    least = max(2, -(-len(text) // 3))
    number = dice.integer(least, max(least, min(len(text), most)))
    sizes = [1] * number
    for _ in range(len(text) - number):
        sizes[dice.choice([i for i, size in enumerate(sizes) if size < 3])] += 1
    ends = list(itertools.accumulate(sizes))
    return [text[end - size : end] for size, end in zip(sizes, ends, strict=True)]


@redrawn
def flicker(dice: Rng, wish: SceneOptions) -> SceneQA:
    """A code that is legible in some frames only and covered, smeared, lost in speckle or gone in the others.

    Level 1: two or three large characters, legible in three of eight frames; 2: up to four, in two; 3: up to five, in
    one; 4: up to seven, small, in one frame of the clip, in noise.
    """
    level = palette.level_of(dice, wish)
    length = palette.clip_length(dice, wish.frames, 2)
    (fewest, most), least, of_eight = _FLICKER[level]
    text = draw_text(dice, wish.split, dice.integer(fewest, most))
    ground = palette.backdrop(dice)
    rgb = palette.contrasting(dice, *palette.colours_of(ground), split=wish.split)

    def place() -> tuple[float, float, float, float]:
        w, h = fitted(text, dice.uniform(least, least + 12))
        return dice.uniform(w / 2 + 1, UNITS - w / 2 - 1), dice.uniform(h / 2 + 2, UNITS - h * 0.75 - 2), w, h

    x, y, w, h = laid_out(
        wish.split, place, lambda drawn: ("flicker", *palette.cell_of(drawn[0], drawn[1], 8), len(text), int(drawn[3]))
    )
    clear = 1 if level == 4 else max(1, length * of_eight // 8)
    legible = set(dice.sample(range(length), clear))
    kinds = ["gone", "board", "speckle", "smear"]
    hides = (
        [dice.choice(kinds)] * length if level < 3 or dice.chance(0.5) else [dice.choice(kinds) for _ in range(length)]
    )
    veils = []
    for kind in ("board", "speckle", "smear"):
        shown = tuple(f not in legible and hides[f] == kind for f in range(length))
        if any(shown):
            veils.append(_veil(dice, kind, (x, y, w, h), (rgb, ground.colour), shown))
    track = during((x, y), [f in legible or hides[f] != "gone" for f in range(length)])
    item = Text(text, dice.choice(fonts.families(wish.split)), rgb, w, h, 0.0, 0.0, track)
    times = seconds(dice, length)
    asked = {"text": text, "legible": sorted(legible)}
    scene = Scene(ground, camera(dice, level, level <= _SMALL), (), (), (item,), length, times, asked, tuple(veils))
    asks = [(dice.choice(_HIDDEN), text, f"The text is {text}."), *_character_asks(text, "character")]
    since = stamp(times[min(legible)])
    asks.append(("When can the text be read for the first time?", since, f"The text can be read first at {since}."))
    if clear <= 6:
        frames = "frame" if clear == 1 else "frames"
        asks.append(
            (
                "In how many frames can the text be read?",
                str(clear),
                f"The text can be read in {number_word(clear)} {frames}.",
            )
        )
    return drafted(dice, scene, asks, level)


def _veil(
    dice: Rng,
    kind: Literal["board", "speckle", "smear"],
    box: tuple[float, float, float, float],
    colours: tuple[Rgb, Rgb],
    shown: tuple[bool, ...],
) -> Veil:
    """Something that hides a text wholly, with its tails."""
    x, y, w, h = box
    tail = 0.3 * h
    rgb, ground = colours
    first = palette.near(dice, ground, 40) if kind == "board" else rgb
    # A smear is as coarse as a character is high: less would leave its outline.
    grain = h if kind == "smear" else dice.uniform(1, 2)
    low = max(0.0, y - h / 2 - tail - 1)
    high = min(UNITS, y + h / 2 + tail + 1)
    wide = w + dice.uniform(4, 10)
    return Veil(
        kind,
        x,
        round((low + high) / 2, 3),
        wide,
        round(high - low, 3),
        first,
        ground,
        grain,
        dice.integer(0, 1 << 30),
        shown,
    )


@redrawn
def board(dice: Rng, wish: SceneOptions) -> SceneQA:
    """Ruled lines of text, each of which is there in some frames only, in two at least; asked is one of them.

    Level 1: two lines of two to four characters; 2: three of up to five; 3: four of up to six; 4: four of up to eight,
    each in a quarter of the frames, in noise.
    """
    level = palette.level_of(dice, wish)
    length = palette.clip_length(dice, wish.frames, 4)
    rows, (fewest, most), part = _BOARD[level]
    lines: list[str] = []
    while len(lines) < rows:
        text = draw_text(dice, wish.split, dice.integer(fewest, most))
        if text.lower() not in [line.lower() for line in lines]:
            lines.append(text)
    ground = palette.backdrop(dice)
    rgb = palette.contrasting(dice, *palette.colours_of(ground), split=wish.split)
    family = dice.choice(fonts.families(wish.split))
    pitch = (UNITS - 2 * _MARGIN) / rows
    rules = _rules(dice, ground, rows, pitch)

    def place() -> list[Box]:
        boxes: list[Box] = []
        for text in lines:
            w, h = fitted(text, min(pitch * dice.uniform(0.5, 0.68), 20.0))
            boxes.append((dice.uniform(w / 2 + 2, UNITS - w / 2 - 2) if w < UNITS - 5 else UNITS / 2, w, h))
        return boxes

    def layout(boxes: list[Box]) -> tuple[object, ...]:
        return "board", rows, *(int(x // 8) for x, _, _ in boxes), *map(len, lines)

    drawn: list[Box] = laid_out(wish.split, place, layout)
    items = []
    visible = [sorted(dice.sample(range(length), max(2, round(part * length)))) for _ in lines]
    for row, (text, (x, w, h)) in enumerate(zip(lines, drawn, strict=True)):
        point = (x, round(_MARGIN + pitch * (row + 0.5), 3))
        track = during(point, [f in visible[row] for f in range(length)])
        items.append(Text(text, family, rgb, w, h, 0.0, 0.0, track))
    asked = {"lines": lines, "visible": visible}
    times = palette.timestamps(dice, length)
    scene = Scene(ground, camera(dice, level), rules, (), tuple(items), length, times, asked)
    asks = [
        (dice.choice(("What is in line {}?", "Read line {}.")).format(i + 1), text, f"Line {i + 1} says {text}.")
        for i, text in enumerate(lines)
    ]
    return drafted(dice, scene, dice.sample(asks, rows), level)


def _rules(dice: Rng, ground: Backdrop, rows: int, pitch: float) -> tuple[Plate, ...]:
    """Thin lines between rows, so that a line has a number when the others are not there."""
    rgb = palette.contrasting(dice, *palette.colours_of(ground))
    return tuple(Plate(UNITS / 2, _MARGIN + pitch * row, UNITS, 1.1, rgb) for row in range(1, rows))


_STILL = {"rows": dense_tasks.rows, "page": text_tasks.page, "count": shape_tasks.count}


def static(dice: Rng, wish: SceneOptions) -> SceneQA:
    """A clip of `rows`, `page` or `count` in which nothing changes but the sensor's noise; the level is theirs."""
    level = palette.level_of(dice, wish)
    name = dice.weighted({"rows": 0.5, "page": 0.2, "count": 0.3})
    length = palette.clip_length(dice, wish.frames, 2)
    draft = _STILL[name](dice, dataclasses.replace(wish, frames=None, level=level, tiles=1))
    scene = draft.scene
    assert isinstance(scene, Scene)  # the older tasks make scenes
    figures: tuple[Figure, ...] = tuple(dataclasses.replace(f, track=f.track * length) for f in scene.figures)
    texts = tuple(dataclasses.replace(t, track=t.track * length) for t in scene.texts)
    look = dataclasses.replace(scene.look, noise=dice.uniform(3, 5 + 2 * level))
    still = dataclasses.replace(
        scene,
        look=look,
        figures=figures,
        texts=texts,
        frames=length,
        timestamps=palette.timestamps(dice, length),
        asked={**scene.asked, "of": name},
    )
    return dataclasses.replace(draft, scene=still, level=level)
