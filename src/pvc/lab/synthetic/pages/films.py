"""Clip tasks: `captions` (texts over time) and `motion` (shapes that move, appear, flash or change)."""

from __future__ import annotations

import itertools
from dataclasses import replace

from pvc.lab.synthetic.pages import texts
from pvc.lab.synthetic.pages.canvas import Canvas, Finish, Item, Reel, Words
from pvc.lab.synthetic.pages.faces import advance, cap_height
from pvc.lab.synthetic.pages.figures import figure_ground, shape_at
from pvc.lab.synthetic.pages.layout import LEAST_CAP, LEAST_WIDTH, any_face, ink_and_paper, paper
from pvc.lab.synthetic.palette import clip_length
from pvc.lab.synthetic.phrasing import distinct, listed, with_article
from pvc.lab.synthetic.scene import Backdrop, SceneOptions, SceneQA
from pvc.lab.synthetic.seeding import Rng
from pvc.lab.synthetic.vocabulary import COLOUR_NAMES, DIGITS, SAFE_LETTERS, SHAPES

Pair = tuple[str, str]
Asks = list[tuple[str, str]]
_SIDE = 96  # pixels of a frame; the processor makes every frame a tile
_LENGTHS = {4: 2.0, 6: 2.0, 8: 4.0, 10: 1.0, 12: 1.5, 16: 2.0}
_INTERVALS = (0.1, 0.2, 0.25, 0.5, 0.5, 1.0, 2.0)


def length_of(dice: Rng, wish: SceneOptions, least: int = 4) -> int:
    """Return the frames of a clip: as asked for, or drawn; raises UsageError for too few."""
    return dice.weighted(_LENGTHS) if wish.frames is None else clip_length(dice, wish.frames, least)


def times_of(dice: Rng, frames: int) -> tuple[float, ...]:
    """Draw the seconds of frames in equal steps from 0."""
    step = dice.choice(_INTERVALS)
    return tuple(round(step * i, 2) for i in range(frames))


def runs(dice: Rng, frames: int, count: int) -> list[tuple[int, int]]:
    """Cut frames into `count` parts in order, each at least one frame long, of about equal length or any."""
    if dice.chance(0.6):
        marks = [round(i * frames / count) for i in range(count + 1)]
    else:
        marks = [0, *sorted(dice.sample(range(1, frames), count - 1)), frames]
    return list(itertools.pairwise(marks))


def film(dice: Rng, backdrop: Backdrop, frames: list[list[Item]], times: tuple[float, ...]) -> Reel:
    """Return a clip of items on one ground; noise differs from frame to frame."""
    noise = dice.uniform(0.5, 5) if dice.chance(0.4) else 0.0
    quality = dice.integer(50, 92) if dice.chance(0.25) else 0
    seed = dice.integer(0, 1 << 28)
    return Reel(
        tuple(
            Canvas(_SIDE, _SIDE, backdrop, tuple(items), Finish(0.0, noise, seed + i if noise else 0, quality))
            for i, items in enumerate(frames)
        ),
        times,
    )


def _set(
    dice: Rng, face: str, text: str, ink: tuple[int, int, int], middle: tuple[float, float], share: float
) -> Words | None:
    """Return a line about a point, as large as a part of the frame; None if it is not legible."""
    size = share * _SIDE / advance(face, text)
    size = min(size, 0.62 * _SIDE / cap_height(face))
    scale = 64 / _SIDE
    if size * advance(face, text) / len(text) * scale < LEAST_WIDTH or size * cap_height(face) * scale < LEAST_CAP:
        return None
    half = advance(face, text) * size / 2
    x = min(max(middle[0], half + 1), _SIDE - half - 1)
    y = min(max(middle[1], size * cap_height(face) / 2 + 1), _SIDE - size * cap_height(face) / 2 - 0.25 * size)
    return Words(text, face, round(size, 2), round(x, 1), round(y + size * cap_height(face) / 2, 1), ink, "ms")


_KINDS = {"characters": 0.42, "pieces": 0.25, "words": 0.15, "caption": 0.18}
_DIGITS_ASK = (
    "Which digits appear, in order?",
    "Which digits appear?",
    "Which digits are shown, in order?",
    "What digits do you see, in order?",
    "Read the digits in order.",
    "Which numbers appear?",
    "Which numbers appear one after another?",
    "What is the sequence of digits?",
)
_LETTERS_ASK = (
    "Which letters appear, in order?",
    "Which letters appear?",
    "Read the letters in order.",
    "What letters are shown one after another?",
    "Which letters do you see, in order?",
)
_MIXED_ASK = ("Which characters appear, in order?", "Read the characters in order.", "Which characters are shown?")
_PIECES_ASK = (
    "Which word is spelled?",
    "What does the whole text say?",
    "Which text do the pieces make?",
    "What do the pieces say together?",
    "Put the pieces together.",
    "What is the whole word?",
    "Which word is shown piece by piece?",
    "What is written, all together?",
)
_WORDS_ASK = (
    "Which words appear, in order?",
    "Which words appear?",
    "What words are shown one after another?",
    "Read the words in order.",
)
_CAPTION_ASK = (
    "Which word appears?",
    "What does the text say?",
    "What does it say?",
    "What text appears?",
    "Which text appears in the video?",
    "What is written in the video?",
    "What word is shown?",
    "Read the text.",
)


def captions(dice: Rng, wish: SceneOptions) -> SceneQA:
    """Characters, pieces of a word or words one after another, or a word that is there for a while."""
    while True:
        kind = dice.weighted(_KINDS)
        frames = length_of(dice, wish)
        parts, asks = _parts(dice, wish, kind, frames)
        face = any_face(dice)
        ink, page = ink_and_paper(dice)
        still = dice.chance(0.6)
        share = dice.uniform(0.3, 0.92)
        if kind == "characters":
            share *= 0.8
        spots = (
            [(_SIDE / 2, _SIDE / 2)]
            if still
            else [(dice.uniform(0.2, 0.8) * _SIDE, dice.uniform(0.2, 0.8) * _SIDE) for _ in parts]
        )
        placed = [
            _set(dice, face, text, ink, spots[i % len(spots)], share if len(text) > 1 else min(share, 0.6))
            for i, (text, _, _) in enumerate(parts)
        ]
        if all(placed):
            break
    shown: list[list[Item]] = [[] for _ in range(frames)]
    for words, (_, start, end) in zip(placed, parts, strict=True):
        for f in range(start, end):
            assert words is not None
            shown[f].append(words)
    reel = film(dice, paper(dice, page), shown, times_of(dice, frames))
    return SceneQA(reel, *asks[0], distinct(asks[0][0], asks[1:], 3, dice))


def _parts(dice: Rng, wish: SceneOptions, kind: str, frames: int) -> tuple[list[tuple[str, int, int]], Asks]:
    """Return texts with the frames that they are shown in, and the questions."""
    if kind == "characters":
        count = min(frames, dice.weighted({2: 0.1, 3: 0.25, 4: 0.25, 5: 0.15, 6: 0.15, 7: 0.05, 8: 0.05}))
        style = dice.weighted({"digits": 0.6, "letters": 0.25, "mixed": 0.15})
        alphabet = {"digits": DIGITS, "letters": SAFE_LETTERS, "mixed": SAFE_LETTERS + DIGITS[2:]}[style]
        text = texts.drawn(wish.split, lambda: "".join(dice.choice(alphabet) for _ in range(count)))
        spans = runs(dice, frames, count)
        # The same character twice in a row is only seen as two with a gap between.
        gaps = dice.chance(0.35) or any(a == b for a, b in itertools.pairwise(text))
        parts = []
        for (start, end), character in zip(spans, text, strict=True):
            parts.append((character, start, max(start + 1, end - 1) if gaps else end))
        joined = [p for p, q in itertools.pairwise(parts) if p[0] == q[0] and p[2] == q[1]]
        if joined:
            return _parts(dice, wish, kind, frames)
        question = {"digits": _DIGITS_ASK, "letters": _LETTERS_ASK, "mixed": _MIXED_ASK}[style]
        thing = {"digits": "digit", "letters": "letter", "mixed": "character"}[style]
        asks = [
            (dice.choice(question), text),
            (f"Which {thing} comes first?", text[0]),
            (f"Which {thing} comes last?", text[-1]),
            (f"How many {thing}s appear?", str(len(text))),
        ]
        return parts, asks
    if kind == "pieces":
        text = texts.drawn(wish.split, lambda: texts.word(dice, wish.split, 8))
        count = min(frames, len(text), dice.weighted({2: 0.5, 3: 0.35, 4: 0.15}))
        cuts = [0, *sorted(dice.sample(range(1, len(text)), count - 1)), len(text)] if count > 1 else [0, len(text)]
        spans = runs(dice, frames, len(cuts) - 1)
        parts = [(text[a:b], *span) for a, b, span in zip(cuts, cuts[1:], spans, strict=False)]
        if any(p[0] == q[0] for p, q in itertools.pairwise(parts)):  # would look like one piece
            return _parts(dice, wish, kind, frames)
        return parts, [(dice.choice(_PIECES_ASK), text), ("How many pieces are there?", str(len(parts)))]
    if kind == "words":
        count = min(frames, dice.weighted({2: 0.6, 3: 0.4}))
        words = texts.lines(dice, wish.split, count, 8)
        spans = runs(dice, frames, count)
        asks = [
            (dice.choice(_WORDS_ASK), " ".join(words)),
            (
                dice.choice(("Which text comes first?", "Which word appears first?", "What does it say first?")),
                words[0],
            ),
            (
                dice.choice(("Which text comes last?", "Which word appears last?", "What does it say at the end?")),
                words[-1],
            ),
        ]
        return [(word, *span) for word, span in zip(words, spans, strict=True)], asks if dice.chance(0.6) else asks[1:]
    text = texts.line(dice, wish.split, 9)
    start = dice.integer(0, frames - 2)
    end = frames if dice.chance(0.5) else dice.integer(start + 1, frames)
    return [(text, start, end)], [(dice.choice(_CAPTION_ASK), text)]


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


def motion(dice: Rng, wish: SceneOptions) -> SceneQA:
    """One to three shapes that move, appear one after another, flash or change their colour."""
    kind = dice.weighted({"move": 0.4, "appear": 0.28, "flash": 0.17, "change": 0.15})
    frames = length_of(dice, wish)
    build = {"move": _moving, "appear": _appearing, "flash": _flashing, "change": _changing}[kind]
    shapes, asks, pairs = build(dice, frames)
    ground = figure_ground(dice, [colour for _, colour in pairs])
    reel = film(dice, ground, shapes, times_of(dice, frames))
    first = asks[0] if dice.chance(0.7) else dice.choice(asks)
    return SceneQA(reel, *first, distinct(first[0], asks, 3, dice))


def _different(dice: Rng, count: int) -> list[Pair]:
    return list(zip(dice.sample(SHAPES, count), dice.sample(COLOUR_NAMES, count), strict=True))


def _name(dice: Rng, pair: Pair) -> str:
    return dice.weighted({pair[0]: 0.5, f"{pair[1]} {pair[0]}": 0.4, f"{pair[1]} shape": 0.1})


def _colours(dice: Rng, pairs: list[Pair]) -> Asks:
    asks: Asks = []
    for name, colour in pairs:
        asks.append(
            (
                dice.choice(("What colour is the {s}?", "What color is the {s}?", "Which colour is the {s}?")).format(
                    s=name
                ),
                colour,
            )
        )
        asks.append((dice.choice(("Which shape is {c}?", "What shape is the {c} object?")).format(c=colour), name))
    return asks


def _moving(dice: Rng, frames: int) -> tuple[list[list[Item]], Asks, list[Pair]]:
    count = dice.weighted({1: 0.65, 2: 0.35})
    pairs = _different(dice, count)
    ways = dice.sample(tuple(_WAYS), count)
    side = dice.uniform(0.16, 0.42 if count == 1 else 0.28) * _SIDE
    asks: Asks = []
    tracks = []
    for i, (pair, way) in enumerate(zip(pairs, ways, strict=True)):
        dx, dy = _WAYS[way]
        free = _SIDE - side
        travel = dice.uniform(0.35, 1.0) * free
        # Two shapes keep to their own halves.
        low, high = (0.0, 1.0) if count == 1 else ((0.0, 0.42), (0.58, 1.0))[i]
        along, across = (free - travel) * dice.random(), free * dice.uniform(low, high)
        if dx:
            x0 = along if dx > 0 else along + travel
            start, end = (x0, across), (x0 + dx * travel, across)
        else:
            y0 = along if dy > 0 else along + travel
            start, end = (across, y0), (across, y0 + dy * travel)
        tracks.append((start, end))
        asks.append((dice.choice(_WHICH_WAY).format(t=_name(dice, pair)), way))
        if count == 1:
            asks.append((dice.choice(_IT), way))
    if count == 2 and _cross(tracks, side):
        return _moving(dice, frames)
    shapes: list[list[Item]] = [[] for _ in range(frames)]
    for pair, (start, end) in zip(pairs, tracks, strict=True):
        base = shape_at(dice, pair, 0, 0, side, side)
        for f in range(frames):
            part = f / (frames - 1)
            x, y = (a + (b - a) * part + side / 2 for a, b in zip(start, end, strict=True))
            shapes[f].append(replace(base, x=round(x, 1), y=round(y, 1)))
    return shapes, [*asks, *_colours(dice, pairs)], pairs


def _cross(tracks: list[tuple[tuple[float, float], tuple[float, float]]], side: float) -> bool:
    """Return whether two shapes come close to each other."""
    for f in range(17):
        (ax, ay), (bx, by) = ((a + (b - a) * f / 16, c + (d - c) * f / 16) for ((a, c), (b, d)) in tracks)
        if abs(ax - bx) < side and abs(ay - by) < side:
            return True
    return False


def _grid_spots(dice: Rng, count: int) -> list[tuple[float, float]]:
    cells = dice.sample(range(4), count)
    return [((0.27 + 0.46 * (c % 2)) * _SIDE, (0.27 + 0.46 * (c // 2)) * _SIDE) for c in cells]


def _appearing(dice: Rng, frames: int) -> tuple[list[list[Item]], Asks, list[Pair]]:
    """Shapes that come one after another, and stay or go."""
    count = min(frames, dice.weighted({1: 0.12, 2: 0.45, 3: 0.33, 4: 0.1}))
    pairs = _different(dice, count)
    stays = dice.chance(0.5)
    same_spot = not stays and dice.chance(0.4)
    spots = [(_SIDE / 2, _SIDE / 2)] * count if same_spot else _grid_spots(dice, count)
    side = dice.uniform(0.2, 0.6 if same_spot else 0.4) * _SIDE
    shapes: list[list[Item]] = [[] for _ in range(frames)]
    for pair, spot, (start, end) in zip(pairs, spots, runs(dice, frames, count), strict=True):
        base = shape_at(dice, pair, *spot, side, side)
        for f in range(start, frames if stays else end):
            shapes[f].append(base)
    things = [with_article(f"{colour} {name}") for name, colour in pairs]
    names = [name for name, _ in pairs]
    asks: Asks = []
    if count > 1:
        asks = [(dice.choice(_FIRST), names[0]), (dice.choice(_LAST), names[-1])]
        asks = dice.sample(asks, 2)
        asks.insert(dice.integer(0, 1), (dice.choice(_ORDER), ", ".join(names)))
        asks.append((dice.choice(("Which colour appears first?", "Which color comes first?")), pairs[0][1]))
        a, b = dice.sample(range(count), 2)
        asks.append((f"What appears first, the {names[a]} or the {names[b]}?", names[min(a, b)]))
    asks.append(
        (
            dice.choice(("What do you see?", "What is in the video?", "Describe the video.", "What is shown?")),
            listed(things),
        )
    )
    asks.append((dice.choice(("How many shapes appear?", "How many shapes are in the video?")), str(count)))
    return shapes, [*asks, *_colours(dice, pairs)], pairs


def _flashing(dice: Rng, frames: int) -> tuple[list[list[Item]], Asks, list[Pair]]:
    """A shape that is there in some frames, with gaps between."""
    pair = _different(dice, 1)[0]
    count = min((frames + 1) // 2, dice.integer(1, 5))
    if dice.chance(0.6):
        marks = sorted(dice.sample(range(frames - count + 1), count))
        lit = {mark + i for i, mark in enumerate(marks)}  # single frames, at least one dark one between two
    else:
        marks = sorted(dice.sample(range(frames + 1), 2 * count))
        lit = {f for start, end in zip(marks[::2], marks[1::2], strict=True) for f in range(start, end)}
    side = dice.uniform(0.25, 0.6) * _SIDE
    spot = (dice.uniform(side / 2, _SIDE - side / 2), dice.uniform(side / 2, _SIDE - side / 2))
    base = shape_at(dice, pair, *spot, side, side)
    shapes: list[list[Item]] = [[base] if f in lit else [] for f in range(frames)]
    asks: Asks = [(dice.choice(_FLASHES).format(t=_name(dice, pair)), str(count))]
    return shapes, [*asks, *_colours(dice, [pair])], [pair]


def _changing(dice: Rng, frames: int) -> tuple[list[list[Item]], Asks, list[Pair]]:
    """A shape whose colour or kind changes once."""
    name, before = _different(dice, 1)[0]
    turn = dice.integer(1, frames - 1)
    side = dice.uniform(0.25, 0.6) * _SIDE
    spot = (dice.uniform(side / 2, _SIDE - side / 2), dice.uniform(side / 2, _SIDE - side / 2))
    if dice.chance(0.65):
        after = dice.choice([c for c in COLOUR_NAMES if c != before])
        first, second = (
            shape_at(dice, (name, before), *spot, side, side),
            shape_at(dice, (name, after), *spot, side, side),
        )
        asks: Asks = [
            (dice.choice(_TURNED).format(t=name), after),
            (
                dice.choice(
                    (
                        "What colour is the {s} at first?",
                        "Which colour was the {s} before?",
                        "What color is the {s} at the beginning?",
                    )
                ).format(s=name),
                before,
            ),
            (
                dice.choice(("How does the colour change?", "How does the color of the {s} change?")).format(s=name),
                f"from {before} to {after}",
            ),
            ("What changes?", f"the colour of the {name}"),
        ]
        pairs = [(name, before), (name, after)]
    else:
        other = dice.choice([s for s in SHAPES if s != name])
        first, second = (
            shape_at(dice, (name, before), *spot, side, side),
            shape_at(dice, (other, before), *spot, side, side),
        )
        asks = [
            (dice.choice(("Which shape does the {s} become?", "What does the {s} turn into?")).format(s=name), other),
            (dice.choice(("Which shape is shown last?", "Which shape is shown at the end?")), other),
            (dice.choice(("Which shape is shown first?", "Which shape is shown at the beginning?")), name),
        ]
        pairs = [(name, before), (other, before)]
    shapes: list[list[Item]] = [[first if f < turn else second] for f in range(frames)]
    return shapes, asks, pairs


__all__ = ["captions", "film", "length_of", "motion", "runs", "times_of"]
