"""Tasks about text that appears in parts: `digits`, `pieces`, `flicker`, `board`; and `static`, where all is visible.

Looks come from `palette`. Strings belong to one split only (`seeding`). Called by `tasks`.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Literal

from pvc.lab.synthetic import dense_tasks, fonts, palette, shape_tasks, text_tasks
from pvc.lab.synthetic.clips import (
    Question,
    build_scene_qa,
    build_track,
    format_time,
    retry_layout,
    sample_clip_effects,
    sample_layout,
    sample_times,
)
from pvc.lab.synthetic.lettering import compute_nominal_width, fit_text, sample_code, sample_code_or_word
from pvc.lab.synthetic.phrasing import spell_number
from pvc.lab.synthetic.scene import UNITS, Backdrop, Figure, Plate, Scene, SceneOptions, SceneQA, Text, Veil
from pvc.lab.synthetic.seeding import Rng, Split, is_text_allowed
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
# By level: minimum and maximum number of characters, minimum height.
_DIGITS = {1: (2, 2, 28), 2: (2, 3, 24), 3: (3, 4, 20), 4: (4, 5, 12)}
_PIECES = {1: (3, 4), 2: (4, 5), 3: (5, 6), 4: (7, 8)}
# By level: characters, minimum height, and in how many of eight frames the text is legible.
_FLICKER = {1: ((2, 3), 20, 3), 2: ((3, 4), 15, 2), 3: ((4, 5), 11, 1), 4: ((5, 7), 9, 1)}
# By level: rows, minimum and maximum number of characters, and the part of the frames in which a row is visible.
_BOARD = {1: (2, (2, 4), 0.6), 2: (3, (3, 5), 0.5), 3: (4, (4, 6), 0.4), 4: (4, (6, 8), 0.25)}
_MARGIN = 2.0
_MAX_FINE_LEVEL = 2  # up to this level, texts stay legible in frames of 32 pixels
_Box = tuple[float, float, float]  # centre across, width, height


def _get_ordinal(i: int) -> str:
    """Return "first" for 0, up to "eighth"."""
    return _ORDINALS[i]


def _build_character_questions(text: str, thing: str) -> list[Question]:
    """Ask for single characters of a text by their place, and for their number."""
    questions = [
        (f"What is the {_get_ordinal(i)} {thing}?", character, f"The {_get_ordinal(i)} {thing} is {character}.")
        for i, character in enumerate(text)
    ]
    for character, following in itertools.pairwise(text):
        if text.lower().count(character.lower()) == 1:
            questions.append(
                (f"Which {thing} comes after {character}?", following, f"{following} comes after {character}.")
            )
    number = len(text)
    questions.append((f"How many {thing}s are there?", str(number), f"There are {spell_number(number)} {thing}s."))
    return questions


def _sample_sequence(rng: Rng, split: Split, lengths: tuple[int, int], max_length: int) -> tuple[str, str]:
    """Sample digits or letters, no two neighbours the same, because these could not be distinguished."""
    while True:
        style = rng.weighted({"digits": 0.7, "letters": 0.3})
        length = rng.integer(min(lengths[0], max_length), min(lengths[1], max_length))
        text = "".join(rng.choice(DIGITS if style == "digits" else LETTERS) for _ in range(length))
        if all(a != b for a, b in itertools.pairwise(text)) and is_text_allowed(text, split):
            return text, style


@retry_layout
def build_digits(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build large characters one after another, each alone for some frames, sometimes with blank frames between.

    Level 1: two characters; 2: up to three; 3: up to four; 4: up to five, smaller, in noise.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level = palette.sample_level(rng, options)
    length = palette.sample_clip_length(rng, options.frames, 2)
    min_length, max_length, min_height = _DIGITS[level]
    text, style = _sample_sequence(rng, options.split, (min_length, max_length), length)
    ground = palette.sample_backdrop(rng)
    families, grounds = fonts.get_families(options.split), palette.get_colours(ground)
    has_gaps = rng.chance(0.4)
    same_font = rng.choice(families) if rng.chance(0.6) else None
    same_rgb = palette.sample_contrasting(rng, *grounds, split=options.split) if rng.chance(0.5) else None

    def sample_place(character: str) -> tuple[float, float, float, float]:
        h = rng.uniform(min_height, min_height + 14)
        w = round(min(UNITS - 4, max(7.0, compute_nominal_width(character, h) * palette.sample_aspect_ratio(rng))), 3)
        tail = 0.25 * h if character in "QJ" else 0.0
        return rng.uniform(w / 2 + 2, UNITS - w / 2 - 2), rng.uniform(h / 2 + 2, UNITS - h / 2 - 2 - tail), w, h

    places = sample_layout(
        options.split,
        lambda: [sample_place(character) for character in text],
        lambda candidate: ("digits", len(text), *(palette.get_cell(x, y, 5) for x, y, _, _ in candidate[:2])),
    )
    items = []
    for character, (x, y, w, h), (start, end) in zip(
        text, places, palette.sample_spans(rng, length, len(text)), strict=True
    ):
        if has_gaps and end - start > 1:
            start, end = start + rng.integer(0, 1), end - rng.integer(0, 1) if end - start > 2 else end
        track = build_track((x, y), [start <= f < end for f in range(length)])
        rgb = same_rgb or palette.sample_contrasting(rng, *grounds, split=options.split)
        items.append(Text(character, same_font or rng.choice(families), rgb, w, h, 0.0, 0.0, track))
    times = palette.sample_timestamps(rng, length)
    facts = {"text": text, "style": style}
    scene = Scene(ground, sample_clip_effects(rng, level), (), (), tuple(items), length, times, facts)
    first = (rng.choice(_IN_ORDER[style]), text, f"The {style} are {text}.")
    return build_scene_qa(rng, scene, [first, *_build_character_questions(text, style[:-1])], level, 3)


@retry_layout
def build_pieces(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build a text in pieces of one to three characters, one after another, side by side or all in the middle.

    Level 1: three or four characters; 2: up to five; 3: up to six; 4: seven or eight, in noise.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level = palette.sample_level(rng, options)
    length = palette.sample_clip_length(rng, options.frames, 2)
    number = min(rng.integer(*_PIECES[level]), 3 * length)
    text = sample_code(rng, options.split, number)
    parts = _sample_pieces(rng, text, length)
    ground = palette.sample_backdrop(rng)
    rgb = palette.sample_contrasting(rng, *palette.get_colours(ground), split=options.split)
    family = rng.choice(fonts.get_families(options.split))
    # Two equal pieces in one place could not be distinguished.
    has_repeats = any(a == b for a, b in itertools.pairwise(parts))
    is_centred = not has_repeats and rng.chance(0.5)

    def sample_place() -> tuple[float, float, float, float]:
        if is_centred:
            w, h = fit_text("M" * max(map(len, parts)), rng.uniform(20, 34))
        else:
            w, h = fit_text(text, rng.uniform(15, 27))
        x = rng.uniform(w / 2 + 1, UNITS - w / 2 - 1)
        return x, rng.uniform(h / 2 + 2, UNITS - h * 0.75 - 2), w, h

    def get_layout(candidate: tuple[float, float, float, float]) -> tuple[object, ...]:
        return "pieces", is_centred, *palette.get_cell(candidate[0], candidate[1], 8), *map(len, parts)

    x, y, w, h = sample_layout(options.split, sample_place, get_layout)
    stays_visible = not is_centred and rng.chance(0.25)
    # Each piece is where its characters are in the whole line.
    scale, prefix_length = w / compute_nominal_width(text, h), 0
    items = []
    for part, (start, end) in zip(parts, palette.sample_spans(rng, length, len(parts)), strict=True):
        prefix_length += len(part)
        if is_centred:
            middle, (width, height) = x, fit_text(part, h, w)
        else:
            width, height = round(scale * compute_nominal_width(part, h), 3), h
            middle = round(x - w / 2 + scale * compute_nominal_width(text[:prefix_length], h) - width / 2, 3)
        track = build_track((middle, y), [start <= f < (length if stays_visible else end) for f in range(length)])
        items.append(Text(part, family, rgb, width, height, 0.0, 0.0, track))
    facts = {"text": text, "pieces": parts, "centred": is_centred}
    effects, times = sample_clip_effects(rng, level, level <= _MAX_FINE_LEVEL), palette.sample_timestamps(rng, length)
    scene = Scene(ground, effects, (), (), tuple(items), length, times, facts)
    first = (rng.choice(_WHOLE), text, f"The whole text is {text}.")
    questions = [first, *_build_character_questions(text, "character")]
    questions += [
        (f"What does the {_get_ordinal(i)} piece say?", part, f"The {_get_ordinal(i)} piece says {part}.")
        for i, part in enumerate(parts)
        if len(part) > 1 and is_text_allowed(part, options.split) and not stays_visible
    ]
    return build_scene_qa(rng, scene, questions, level)


def _sample_pieces(rng: Rng, text: str, max_pieces: int) -> list[str]:
    """Cut a text into two or more pieces of one to three characters."""
    min_pieces = max(2, -(-len(text) // 3))
    number = rng.integer(min_pieces, max(min_pieces, min(len(text), max_pieces)))
    sizes = [1] * number
    for _ in range(len(text) - number):
        sizes[rng.choice([i for i, size in enumerate(sizes) if size < 3])] += 1
    ends = list(itertools.accumulate(sizes))
    return [text[end - size : end] for size, end in zip(sizes, ends, strict=True)]


@retry_layout
def build_flicker(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build a code that is legible in some frames and covered, smeared, lost in speckle or absent in the others.

    Level 1: two or three large characters, legible in three of eight frames; 2: up to four, in two; 3: up to five, in
    one; 4: up to seven, small, in one frame of the clip, in noise.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level = palette.sample_level(rng, options)
    length = palette.sample_clip_length(rng, options.frames, 2)
    (min_length, max_length), min_height, legible_of_eight = _FLICKER[level]
    text = sample_code_or_word(rng, options.split, rng.integer(min_length, max_length))
    ground = palette.sample_backdrop(rng)
    rgb = palette.sample_contrasting(rng, *palette.get_colours(ground), split=options.split)

    def sample_place() -> tuple[float, float, float, float]:
        w, h = fit_text(text, rng.uniform(min_height, min_height + 12))
        return rng.uniform(w / 2 + 1, UNITS - w / 2 - 1), rng.uniform(h / 2 + 2, UNITS - h * 0.75 - 2), w, h

    x, y, w, h = sample_layout(
        options.split,
        sample_place,
        lambda candidate: ("flicker", *palette.get_cell(candidate[0], candidate[1], 8), len(text), int(candidate[3])),
    )
    num_legible = 1 if level == 4 else max(1, length * legible_of_eight // 8)
    legible_frames = set(rng.sample(range(length), num_legible))
    kinds = ["gone", "board", "speckle", "smear"]
    frame_kinds = (
        [rng.choice(kinds)] * length if level < 3 or rng.chance(0.5) else [rng.choice(kinds) for _ in range(length)]
    )
    veils = []
    for kind in ("board", "speckle", "smear"):
        visible = tuple(f not in legible_frames and frame_kinds[f] == kind for f in range(length))
        if any(visible):
            veils.append(_sample_veil(rng, kind, (x, y, w, h), (rgb, ground.colour), visible))
    track = build_track((x, y), [f in legible_frames or frame_kinds[f] != "gone" for f in range(length)])
    item = Text(text, rng.choice(fonts.get_families(options.split)), rgb, w, h, 0.0, 0.0, track)
    times = sample_times(rng, length)
    facts = {"text": text, "legible": sorted(legible_frames)}
    scene = Scene(
        ground,
        sample_clip_effects(rng, level, level <= _MAX_FINE_LEVEL),
        (),
        (),
        (item,),
        length,
        times,
        facts,
        tuple(veils),
    )
    questions = [(rng.choice(_HIDDEN), text, f"The text is {text}."), *_build_character_questions(text, "character")]
    questions += _build_legibility_questions(times, legible_frames)
    return build_scene_qa(rng, scene, questions, level)


def _build_legibility_questions(times: tuple[float, ...], legible_frames: set[int]) -> list[Question]:
    """Ask when the text is legible first and, if the frames are few, in how many it is."""
    first_time = format_time(times[min(legible_frames)])
    questions = [
        ("When can the text be read for the first time?", first_time, f"The text can be read first at {first_time}.")
    ]
    count = len(legible_frames)
    if count <= 6:
        sentence = f"The text can be read in {spell_number(count)} {'frame' if count == 1 else 'frames'}."
        questions.append(("In how many frames can the text be read?", str(count), sentence))
    return questions


def _sample_veil(
    rng: Rng,
    kind: Literal["board", "speckle", "smear"],
    box: tuple[float, float, float, float],
    colours: tuple[Rgb, Rgb],
    visible: tuple[bool, ...],
) -> Veil:
    """Build an occluder that hides a text wholly, with its tails."""
    x, y, w, h = box
    tail = 0.3 * h
    rgb, ground = colours
    first = palette.jitter_colour(rng, ground, 40) if kind == "board" else rgb
    # A smear is as coarse as a character is high; a finer one would leave its outline.
    grain = h if kind == "smear" else rng.uniform(1, 2)
    low = max(0.0, y - h / 2 - tail - 1)
    high = min(UNITS, y + h / 2 + tail + 1)
    width = w + rng.uniform(4, 10)
    return Veil(
        kind,
        x,
        round((low + high) / 2, 3),
        width,
        round(high - low, 3),
        first,
        ground,
        grain,
        rng.integer(0, 1 << 30),
        visible,
    )


@retry_layout
def build_board(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build ruled lines of text, each visible in at least two frames, and ask for one of them.

    Level 1: two lines of two to four characters; 2: three of up to five; 3: four of up to six; 4: four of up to eight,
    each in a quarter of the frames, in noise.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level = palette.sample_level(rng, options)
    length = palette.sample_clip_length(rng, options.frames, 4)
    rows, (min_length, max_length), part = _BOARD[level]
    lines: list[str] = []
    while len(lines) < rows:
        text = sample_code_or_word(rng, options.split, rng.integer(min_length, max_length))
        if text.lower() not in [line.lower() for line in lines]:
            lines.append(text)
    ground = palette.sample_backdrop(rng)
    rgb = palette.sample_contrasting(rng, *palette.get_colours(ground), split=options.split)
    family = rng.choice(fonts.get_families(options.split))
    pitch = (UNITS - 2 * _MARGIN) / rows
    rules = _build_rules(rng, ground, rows, pitch)

    def sample_boxes() -> list[_Box]:
        boxes: list[_Box] = []
        for text in lines:
            w, h = fit_text(text, min(pitch * rng.uniform(0.5, 0.68), 20.0))
            boxes.append((rng.uniform(w / 2 + 2, UNITS - w / 2 - 2) if w < UNITS - 5 else UNITS / 2, w, h))
        return boxes

    def get_layout(boxes: list[_Box]) -> tuple[object, ...]:
        return "board", rows, *(int(x // 8) for x, _, _ in boxes), *map(len, lines)

    boxes: list[_Box] = sample_layout(options.split, sample_boxes, get_layout)
    items = []
    visible = [sorted(rng.sample(range(length), max(2, round(part * length)))) for _ in lines]
    for row, (text, (x, w, h)) in enumerate(zip(lines, boxes, strict=True)):
        point = (x, round(_MARGIN + pitch * (row + 0.5), 3))
        track = build_track(point, [f in visible[row] for f in range(length)])
        items.append(Text(text, family, rgb, w, h, 0.0, 0.0, track))
    facts = {"lines": lines, "visible": visible}
    times = palette.sample_timestamps(rng, length)
    scene = Scene(ground, sample_clip_effects(rng, level), rules, (), tuple(items), length, times, facts)
    questions = [
        (rng.choice(("What is in line {}?", "Read line {}.")).format(i + 1), text, f"Line {i + 1} says {text}.")
        for i, text in enumerate(lines)
    ]
    return build_scene_qa(rng, scene, rng.sample(questions, rows), level)


def _build_rules(rng: Rng, ground: Backdrop, rows: int, pitch: float) -> tuple[Plate, ...]:
    """Build thin lines between rows, so that a line has a number even if the others are not visible."""
    rgb = palette.sample_contrasting(rng, *palette.get_colours(ground))
    return tuple(Plate(UNITS / 2, _MARGIN + pitch * row, UNITS, 1.1, rgb) for row in range(1, rows))


_STATIC_BUILDERS = {"rows": dense_tasks.build_rows, "page": text_tasks.build_page, "count": shape_tasks.build_count}


def build_static(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build a clip of `rows`, `page` or `count` in which only the sensor's noise changes; the level is theirs.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level = palette.sample_level(rng, options)
    name = rng.weighted({"rows": 0.5, "page": 0.2, "count": 0.3})
    length = palette.sample_clip_length(rng, options.frames, 2)
    scene_qa = _STATIC_BUILDERS[name](rng, dataclasses.replace(options, frames=None, level=level, tiles=1))
    scene = scene_qa.scene
    assert isinstance(scene, Scene)  # the older tasks make scenes
    figures: tuple[Figure, ...] = tuple(dataclasses.replace(f, track=f.track * length) for f in scene.figures)
    texts = tuple(dataclasses.replace(t, track=t.track * length) for t in scene.texts)
    effects = dataclasses.replace(scene.look, noise=rng.uniform(3, 5 + 2 * level))
    static_scene = dataclasses.replace(
        scene,
        look=effects,
        figures=figures,
        texts=texts,
        frames=length,
        timestamps=palette.sample_timestamps(rng, length),
        asked={**scene.asked, "of": name},
    )
    return dataclasses.replace(scene_qa, scene=static_scene, level=level)
