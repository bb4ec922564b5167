"""Clip tasks: `captions` (texts over time) and `motion` (shapes that move, appear, flash or change).

Called by `tasks` and `albums`.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

from pvc.lab.synthetic.pages import texts
from pvc.lab.synthetic.pages.canvas import Canvas, Finish, Item, Reel, Words
from pvc.lab.synthetic.pages.faces import get_advance, get_cap_height
from pvc.lab.synthetic.pages.figures import sample_ground, sample_shape
from pvc.lab.synthetic.pages.layout import MIN_CAP, MIN_WIDTH, sample_face, sample_ink_and_paper, sample_paper
from pvc.lab.synthetic.palette import sample_clip_length
from pvc.lab.synthetic.phrasing import add_article, join_names, select_distinct
from pvc.lab.synthetic.scene import Backdrop, SceneOptions, SceneQA
from pvc.lab.synthetic.seeding import Rng
from pvc.lab.synthetic.vocabulary import COLOUR_NAMES, DIGITS, SAFE_LETTERS, SHAPES

Pair = tuple[str, str]
Questions = list[tuple[str, str]]
_SIDE = 96  # pixels of a frame; the processor makes every frame a tile
_LENGTHS = {4: 2.0, 6: 2.0, 8: 4.0, 10: 1.0, 12: 1.5, 16: 2.0}
_INTERVALS = (0.1, 0.2, 0.25, 0.5, 0.5, 1.0, 2.0)


def _sample_length(rng: Rng, options: SceneOptions, min_frames: int = 4) -> int:
    """Return the requested frames of a clip, or sample them; raise UsageError for too few."""
    return rng.weighted(_LENGTHS) if options.frames is None else sample_clip_length(rng, options.frames, min_frames)


def _sample_times(rng: Rng, frames: int) -> tuple[float, ...]:
    """Sample the seconds of frames in equal steps from 0."""
    step = rng.choice(_INTERVALS)
    return tuple(round(step * i, 2) for i in range(frames))


def _sample_spans(rng: Rng, frames: int, count: int) -> list[tuple[int, int]]:
    """Cut frames into `count` parts in order, each at least one frame long, of about equal length or any."""
    if rng.chance(0.6):
        marks = [round(i * frames / count) for i in range(count + 1)]
    else:
        marks = [0, *sorted(rng.sample(range(1, frames), count - 1)), frames]
    return list(itertools.pairwise(marks))


def _build_reel(rng: Rng, backdrop: Backdrop, frames: list[list[Item]], times: tuple[float, ...]) -> Reel:
    """Build a clip of items on one ground; noise differs from frame to frame."""
    noise = rng.uniform(0.5, 5) if rng.chance(0.4) else 0.0
    quality = rng.integer(50, 92) if rng.chance(0.25) else 0
    seed = rng.integer(0, 1 << 28)
    return Reel(
        tuple(
            Canvas(_SIDE, _SIDE, backdrop, tuple(items), Finish(0.0, noise, seed + i if noise else 0, quality))
            for i, items in enumerate(frames)
        ),
        times,
    )


def _fit_words(
    rng: Rng, face: str, text: str, ink: tuple[int, int, int], middle: tuple[float, float], share: float
) -> Words | None:
    """Return a line about a point, as large as a part of the frame; None if it is not legible."""
    size = share * _SIDE / get_advance(face, text)
    size = min(size, 0.62 * _SIDE / get_cap_height(face))
    scale = 64 / _SIDE
    if size * get_advance(face, text) / len(text) * scale < MIN_WIDTH or size * get_cap_height(face) * scale < MIN_CAP:
        return None
    half = get_advance(face, text) * size / 2
    x = min(max(middle[0], half + 1), _SIDE - half - 1)
    y = min(max(middle[1], size * get_cap_height(face) / 2 + 1), _SIDE - size * get_cap_height(face) / 2 - 0.25 * size)
    return Words(text, face, round(size, 2), round(x, 1), round(y + size * get_cap_height(face) / 2, 1), ink, "ms")


_KINDS = {"characters": 0.42, "pieces": 0.25, "words": 0.15, "caption": 0.18}
_DIGITS_FORMS = (
    "Which digits appear, in order?",
    "Which digits appear?",
    "Which digits are shown, in order?",
    "What digits do you see, in order?",
    "Read the digits in order.",
    "Which numbers appear?",
    "Which numbers appear one after another?",
    "What is the sequence of digits?",
)
_LETTERS_FORMS = (
    "Which letters appear, in order?",
    "Which letters appear?",
    "Read the letters in order.",
    "What letters are shown one after another?",
    "Which letters do you see, in order?",
)
_MIXED_FORMS = ("Which characters appear, in order?", "Read the characters in order.", "Which characters are shown?")
_PIECES_FORMS = (
    "Which word is spelled?",
    "What does the whole text say?",
    "Which text do the pieces make?",
    "What do the pieces say together?",
    "Put the pieces together.",
    "What is the whole word?",
    "Which word is shown piece by piece?",
    "What is written, all together?",
)
_WORDS_FORMS = (
    "Which words appear, in order?",
    "Which words appear?",
    "What words are shown one after another?",
    "Read the words in order.",
)
_CAPTION_FORMS = (
    "Which word appears?",
    "What does the text say?",
    "What does it say?",
    "What text appears?",
    "Which text appears in the video?",
    "What is written in the video?",
    "What word is shown?",
    "Read the text.",
)


def build_captions(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build characters, pieces of a word or words one after another, or a word that is visible for a while.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    while True:
        kind = rng.weighted(_KINDS)
        frames = _sample_length(rng, options)
        parts, questions = _sample_parts(rng, options, kind, frames)
        face = sample_face(rng)
        ink, page = sample_ink_and_paper(rng)
        is_static = rng.chance(0.6)
        share = rng.uniform(0.3, 0.92)
        if kind == "characters":
            share *= 0.8
        spots = (
            [(_SIDE / 2, _SIDE / 2)]
            if is_static
            else [(rng.uniform(0.2, 0.8) * _SIDE, rng.uniform(0.2, 0.8) * _SIDE) for _ in parts]
        )
        lines = [
            _fit_words(rng, face, text, ink, spots[i % len(spots)], share if len(text) > 1 else min(share, 0.6))
            for i, (text, _, _) in enumerate(parts)
        ]
        if all(lines):
            break
    frame_items: list[list[Item]] = [[] for _ in range(frames)]
    for words, (_, start, end) in zip(lines, parts, strict=True):
        for f in range(start, end):
            assert words is not None
            frame_items[f].append(words)
    reel = _build_reel(rng, sample_paper(rng, page), frame_items, _sample_times(rng, frames))
    return SceneQA(reel, *questions[0], select_distinct(questions[0][0], questions[1:], 3, rng))


def _sample_parts(
    rng: Rng, options: SceneOptions, kind: str, frames: int
) -> tuple[list[tuple[str, int, int]], Questions]:
    """Return texts with the frames in which they are visible, and the questions."""
    if kind == "characters":
        count = min(frames, rng.weighted({2: 0.1, 3: 0.25, 4: 0.25, 5: 0.15, 6: 0.15, 7: 0.05, 8: 0.05}))
        style = rng.weighted({"digits": 0.6, "letters": 0.25, "mixed": 0.15})
        alphabet = {"digits": DIGITS, "letters": SAFE_LETTERS, "mixed": SAFE_LETTERS + DIGITS[2:]}[style]
        text = texts.sample_for_split(options.split, lambda: "".join(rng.choice(alphabet) for _ in range(count)))
        spans = _sample_spans(rng, frames, count)
        # The same character twice in a row looks like two only with a gap between.
        has_gaps = rng.chance(0.35) or any(a == b for a, b in itertools.pairwise(text))
        parts = []
        for (start, end), character in zip(spans, text, strict=True):
            parts.append((character, start, max(start + 1, end - 1) if has_gaps else end))
        repeats = [p for p, q in itertools.pairwise(parts) if p[0] == q[0] and p[2] == q[1]]
        if repeats:
            return _sample_parts(rng, options, kind, frames)
        question = {"digits": _DIGITS_FORMS, "letters": _LETTERS_FORMS, "mixed": _MIXED_FORMS}[style]
        thing = {"digits": "digit", "letters": "letter", "mixed": "character"}[style]
        questions = [
            (rng.choice(question), text),
            (f"Which {thing} comes first?", text[0]),
            (f"Which {thing} comes last?", text[-1]),
            (f"How many {thing}s appear?", str(len(text))),
        ]
        return parts, questions
    if kind == "pieces":
        text = texts.sample_for_split(options.split, lambda: texts.sample_word(rng, options.split, 8))
        count = min(frames, len(text), rng.weighted({2: 0.5, 3: 0.35, 4: 0.15}))
        cuts = [0, *sorted(rng.sample(range(1, len(text)), count - 1)), len(text)] if count > 1 else [0, len(text)]
        spans = _sample_spans(rng, frames, len(cuts) - 1)
        parts = [(text[a:b], *span) for a, b, span in zip(cuts, cuts[1:], spans, strict=False)]
        if any(p[0] == q[0] for p, q in itertools.pairwise(parts)):  # would look like one piece
            return _sample_parts(rng, options, kind, frames)
        return parts, [(rng.choice(_PIECES_FORMS), text), ("How many pieces are there?", str(len(parts)))]
    if kind == "words":
        count = min(frames, rng.weighted({2: 0.6, 3: 0.4}))
        words = texts.sample_lines(rng, options.split, count, 8)
        spans = _sample_spans(rng, frames, count)
        questions = [
            (rng.choice(_WORDS_FORMS), " ".join(words)),
            (
                rng.choice(("Which text comes first?", "Which word appears first?", "What does it say first?")),
                words[0],
            ),
            (
                rng.choice(("Which text comes last?", "Which word appears last?", "What does it say at the end?")),
                words[-1],
            ),
        ]
        parts = [(word, *span) for word, span in zip(words, spans, strict=True)]
        return parts, questions if rng.chance(0.6) else questions[1:]
    text = texts.sample_line(rng, options.split, 9)
    start = rng.integer(0, frames - 2)
    end = frames if rng.chance(0.5) else rng.integer(start + 1, frames)
    return [(text, start, end)], [(rng.choice(_CAPTION_FORMS), text)]


# Shapes that move, appear, flash or change

_WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_WHICH_WAY = (
    "Which way does the {t} move?",
    "In which direction does the {t} move?",
    "Which direction does the {t} move?",
    "Where does the {t} move?",
    "Where is the {t} going?",
    "Which way is the {t} moving?",
    "Does the {t} move left, right, up or down?",
    "In what direction is the {t} moving?",
)
_IT = ("Which way does it move?", "In which direction does it move?", "Which way is it moving?", "Where does it go?")
_FIRST = ("Which shape appears first?", "What appears first?", "What comes first?", "Which object appears first?")
_LAST = ("Which shape appears last?", "What appears last?", "What comes last?", "Which object appears last?")
_ORDER = (
    "In which order do the shapes appear?",
    "Which shapes appear, in order?",
    "Name the shapes in the order they appear.",
)
_FLASHES = (
    "How many times does the {t} flash?",
    "How often does the {t} flash?",
    "How many times does the {t} appear?",
    "How often does the {t} appear?",
)
_TURNED = (
    "Which colour does the {t} become?",
    "What colour is the {t} at the end?",
    "What color does the {t} change to?",
    "What color is the {t} at the end?",
)


def build_motion(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build one to four shapes that move, appear one after another, flash or change their colour.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    kind = rng.weighted({"move": 0.4, "appear": 0.28, "flash": 0.17, "change": 0.15})
    frames = _sample_length(rng, options)
    build = {"move": _build_moving, "appear": _build_appearing, "flash": _build_flashing, "change": _build_changing}[
        kind
    ]
    shapes, questions, pairs = build(rng, frames)
    ground = sample_ground(rng, [colour for _, colour in pairs])
    reel = _build_reel(rng, ground, shapes, _sample_times(rng, frames))
    first = questions[0] if rng.chance(0.7) else rng.choice(questions)
    return SceneQA(reel, *first, select_distinct(first[0], questions, 3, rng))


def _sample_pairs(rng: Rng, count: int) -> list[Pair]:
    return list(zip(rng.sample(SHAPES, count), rng.sample(COLOUR_NAMES, count), strict=True))


def _sample_name(rng: Rng, pair: Pair) -> str:
    return rng.weighted({pair[0]: 0.5, f"{pair[1]} {pair[0]}": 0.4, f"{pair[1]} shape": 0.1})


def _build_colour_questions(rng: Rng, pairs: list[Pair]) -> Questions:
    questions: Questions = []
    for name, colour in pairs:
        questions.append(
            (
                rng.choice(("What colour is the {s}?", "What color is the {s}?", "Which colour is the {s}?")).format(
                    s=name
                ),
                colour,
            )
        )
        questions.append((rng.choice(("Which shape is {c}?", "What shape is the {c} object?")).format(c=colour), name))
    return questions


def _build_moving(rng: Rng, frames: int) -> tuple[list[list[Item]], Questions, list[Pair]]:
    count = rng.weighted({1: 0.65, 2: 0.35})
    pairs = _sample_pairs(rng, count)
    ways = rng.sample(tuple(_WAYS), count)
    side = rng.uniform(0.16, 0.42 if count == 1 else 0.28) * _SIDE
    questions: Questions = []
    tracks = []
    for i, (pair, way) in enumerate(zip(pairs, ways, strict=True)):
        dx, dy = _WAYS[way]
        slack = _SIDE - side
        travel = rng.uniform(0.35, 1.0) * slack
        # Each of two shapes stays in one half.
        low, high = (0.0, 1.0) if count == 1 else ((0.0, 0.42), (0.58, 1.0))[i]
        along, across = (slack - travel) * rng.random(), slack * rng.uniform(low, high)
        if dx:
            x0 = along if dx > 0 else along + travel
            start, end = (x0, across), (x0 + dx * travel, across)
        else:
            y0 = along if dy > 0 else along + travel
            start, end = (across, y0), (across, y0 + dy * travel)
        tracks.append((start, end))
        questions.append((rng.choice(_WHICH_WAY).format(t=_sample_name(rng, pair)), way))
        if count == 1:
            questions.append((rng.choice(_IT), way))
    if count == 2 and _has_crossing(tracks, side):
        return _build_moving(rng, frames)
    shapes: list[list[Item]] = [[] for _ in range(frames)]
    for pair, (start, end) in zip(pairs, tracks, strict=True):
        base = sample_shape(rng, pair, 0, 0, side, side)
        for f in range(frames):
            part = f / (frames - 1)
            x, y = (a + (b - a) * part + side / 2 for a, b in zip(start, end, strict=True))
            shapes[f].append(replace(base, x=round(x, 1), y=round(y, 1)))
    return shapes, [*questions, *_build_colour_questions(rng, pairs)], pairs


def _has_crossing(tracks: list[tuple[tuple[float, float], tuple[float, float]]], side: float) -> bool:
    """Return whether two shapes come close to each other."""
    for f in range(17):
        (ax, ay), (bx, by) = ((a + (b - a) * f / 16, c + (d - c) * f / 16) for ((a, c), (b, d)) in tracks)
        if abs(ax - bx) < side and abs(ay - by) < side:
            return True
    return False


def _sample_spots(rng: Rng, count: int) -> list[tuple[float, float]]:
    cells = rng.sample(range(4), count)
    return [((0.27 + 0.46 * (c % 2)) * _SIDE, (0.27 + 0.46 * (c // 2)) * _SIDE) for c in cells]


def _build_appearing(rng: Rng, frames: int) -> tuple[list[list[Item]], Questions, list[Pair]]:
    """Build shapes that appear one after another, and stay or go."""
    count = min(frames, rng.weighted({1: 0.12, 2: 0.45, 3: 0.33, 4: 0.1}))
    pairs = _sample_pairs(rng, count)
    stays_visible = rng.chance(0.5)
    same_spot = not stays_visible and rng.chance(0.4)
    spots = [(_SIDE / 2, _SIDE / 2)] * count if same_spot else _sample_spots(rng, count)
    side = rng.uniform(0.2, 0.6 if same_spot else 0.4) * _SIDE
    shapes: list[list[Item]] = [[] for _ in range(frames)]
    for pair, spot, (start, end) in zip(pairs, spots, _sample_spans(rng, frames, count), strict=True):
        base = sample_shape(rng, pair, *spot, side, side)
        for f in range(start, frames if stays_visible else end):
            shapes[f].append(base)
    things = [add_article(f"{colour} {name}") for name, colour in pairs]
    names = [name for name, _ in pairs]
    questions: Questions = []
    if count > 1:
        questions = [(rng.choice(_FIRST), names[0]), (rng.choice(_LAST), names[-1])]
        questions = rng.sample(questions, 2)
        questions.insert(rng.integer(0, 1), (rng.choice(_ORDER), ", ".join(names)))
        questions.append((rng.choice(("Which colour appears first?", "Which color comes first?")), pairs[0][1]))
        a, b = rng.sample(range(count), 2)
        questions.append((f"What appears first, the {names[a]} or the {names[b]}?", names[min(a, b)]))
    questions.append(
        (
            rng.choice(("What do you see?", "What is in the video?", "Describe the video.", "What is shown?")),
            join_names(things),
        )
    )
    questions.append((rng.choice(("How many shapes appear?", "How many shapes are in the video?")), str(count)))
    return shapes, [*questions, *_build_colour_questions(rng, pairs)], pairs


def _build_flashing(rng: Rng, frames: int) -> tuple[list[list[Item]], Questions, list[Pair]]:
    """Build a shape that is visible in some frames, with gaps between."""
    pair = _sample_pairs(rng, 1)[0]
    count = min((frames + 1) // 2, rng.integer(1, 5))
    if rng.chance(0.6):
        cuts = sorted(rng.sample(range(frames - count + 1), count))
        visible_frames = {cut + i for i, cut in enumerate(cuts)}  # single frames with at least one gap between two
    else:
        cuts = sorted(rng.sample(range(frames + 1), 2 * count))
        visible_frames = {f for start, end in zip(cuts[::2], cuts[1::2], strict=True) for f in range(start, end)}
    side = rng.uniform(0.25, 0.6) * _SIDE
    spot = (rng.uniform(side / 2, _SIDE - side / 2), rng.uniform(side / 2, _SIDE - side / 2))
    base = sample_shape(rng, pair, *spot, side, side)
    shapes: list[list[Item]] = [[base] if f in visible_frames else [] for f in range(frames)]
    questions: Questions = [(rng.choice(_FLASHES).format(t=_sample_name(rng, pair)), str(count))]
    return shapes, [*questions, *_build_colour_questions(rng, [pair])], [pair]


def _build_changing(rng: Rng, frames: int) -> tuple[list[list[Item]], Questions, list[Pair]]:
    """Build a shape whose colour or kind changes once."""
    name, before = _sample_pairs(rng, 1)[0]
    turn = rng.integer(1, frames - 1)
    side = rng.uniform(0.25, 0.6) * _SIDE
    spot = (rng.uniform(side / 2, _SIDE - side / 2), rng.uniform(side / 2, _SIDE - side / 2))
    if rng.chance(0.65):
        after = rng.choice([c for c in COLOUR_NAMES if c != before])
        first, second = (
            sample_shape(rng, (name, before), *spot, side, side),
            sample_shape(rng, (name, after), *spot, side, side),
        )
        questions: Questions = [
            (rng.choice(_TURNED).format(t=name), after),
            (
                rng.choice(
                    (
                        "What colour is the {s} at first?",
                        "Which colour was the {s} before?",
                        "What color is the {s} at the beginning?",
                    )
                ).format(s=name),
                before,
            ),
            (
                rng.choice(("How does the colour change?", "How does the color of the {s} change?")).format(s=name),
                f"from {before} to {after}",
            ),
            ("What changes?", f"the colour of the {name}"),
        ]
        pairs = [(name, before), (name, after)]
    else:
        other = rng.choice([s for s in SHAPES if s != name])
        first, second = (
            sample_shape(rng, (name, before), *spot, side, side),
            sample_shape(rng, (other, before), *spot, side, side),
        )
        questions = [
            (rng.choice(("Which shape does the {s} become?", "What does the {s} turn into?")).format(s=name), other),
            (rng.choice(("Which shape is shown last?", "Which shape is shown at the end?")), other),
            (rng.choice(("Which shape is shown first?", "Which shape is shown at the beginning?")), name),
        ]
        pairs = [(name, before), (other, before)]
    shapes: list[list[Item]] = [[first if f < turn else second] for f in range(frames)]
    return shapes, questions, pairs


__all__ = ["build_captions", "build_motion"]
