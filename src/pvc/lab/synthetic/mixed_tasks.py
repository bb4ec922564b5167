"""Tasks of several media and several turns: `match` (a picture, then a clip) and `turns` (a clip, asked about again).

They choose what is shown and asked; looks come from `palette`. Used by `tasks`.
"""

from __future__ import annotations

import dataclasses

from pvc.lab.synthetic import fonts, palette
from pvc.lab.synthetic.clips import (
    Ask,
    Path,
    Point,
    anywhere,
    between,
    camera,
    drafted,
    during,
    home,
    journey,
    journeys,
    laid_out,
    placed,
    redrawn,
    seconds,
    spans,
    stamp,
)
from pvc.lab.synthetic.lettering import draw_code, draw_text, fitted
from pvc.lab.synthetic.motion_tasks import Pair, about, stillness_ask, there_are, way_ask
from pvc.lab.synthetic.objects import name_of, scatter
from pvc.lab.synthetic.phrasing import capitalised, with_article
from pvc.lab.synthetic.scene import UNITS, Backdrop, Scene, SceneOptions, SceneQA, Text, Track
from pvc.lab.synthetic.seeding import Rng
from pvc.lab.synthetic.vocabulary import COLOUR_NAMES, DIRECTIONS, SHAPES

# Objects in the clip and their size, by level.
_MATCH = {1: (1, (15, 21)), 2: (2, (13, 18)), 3: (3, (11, 15)), 4: (4, (8, 11))}
_MODES = {
    1: ("there", "time"),
    2: ("there", "time", "way"),
    3: ("there", "time", "way", "text"),
    4: ("time", "way", "text"),
}
# Objects, their size, and the characters of the text, by level.
_TURNS = {1: (1, (15, 20), (2, 3)), 2: (2, (13, 18), (3, 4)), 3: (3, (11, 15), (4, 5)), 4: (4, (8, 12), (5, 6))}
_STRIP = 15.0  # units at the top or the bottom that the text of `turns` has for itself
_LEAST_WAY = 12.0
_SAME = "the object in the picture"


@redrawn
def match(dice: Rng, wish: SceneOptions) -> SceneQA:
    """A picture of an object, then a clip: is the object in it, when, which way does it move, which text is below it?

    Level 1: one large object in the clip; 2: two; 3: three, and the text; 4: four small ones, in noise.
    """
    level = palette.level_of(dice, wish)
    length = palette.clip_length(dice, wish.frames, 3)
    number = _MATCH[level][0]
    mode = dice.choice(_MODES[level])
    if mode == "text":
        number = min(number, 3)  # texts must fit beside each other
    pairs = palette.pairs(dice, wish.split, min(number, length - 1) if mode == "time" else number)
    shown = pairs[0]
    there = mode != "there" or dice.chance(0.5)
    if not there:
        shown = _absent(dice, wish, pairs)
    picture = _portrait(dice, wish, shown)
    clip, asks = _CLIPS[mode](dice, wish, pairs, length, level)
    yes = ("yes", f"Yes, {_SAME} is in the video.") if there else ("no", f"No, {_SAME} is not in the video.")
    presence: Ask = (dice.choice((f"Is {_SAME} in the video?", f"Does {_SAME} appear in the video?")), *yes)
    shape, colour = shown
    thing = f"{colour} {shape}"
    asks.append(("Which object is in the picture?", thing, f"{with_article(thing)} is in the picture."))
    first = presence if mode == "there" else asks[0]
    rest = [ask for ask in (presence, *asks) if ask is not first]
    if not there:  # the questions about it make no sense
        rest = [ask for ask in rest if _SAME not in ask[0]]
    asked = {"mode": mode, "shape": shown[0], "colour": shown[1], "there": there}
    return drafted(dice, dataclasses.replace(picture, asked=asked), [first, *rest], level, further=(clip,))


def _absent(dice: Rng, wish: SceneOptions, pairs: list[Pair]) -> Pair:
    """An object that the clip does not have: like its first one in shape or in colour, if possible, or in neither."""
    shape, colour = pairs[0]
    others = [
        (s, c) for s in SHAPES for c in COLOUR_NAMES if palette.pair_is_for(s, c, wish.split) and (s, c) not in pairs
    ]
    alike = [pair for pair in others if (pair[0] == shape) != (pair[1] == colour)]
    return dice.choice(alike if alike and dice.chance(0.6) else others)


def _portrait(dice: Rng, wish: SceneOptions, pair: Pair) -> Scene:
    """A picture of one object."""
    size = palette.extents(dice, 18, 34, palette.squash(dice), 44)

    def draw() -> Point:
        return anywhere(dice, size)

    point = laid_out(wish.split, draw, lambda drawn: ("match", *palette.cell_of(*drawn, 8)))
    figure = palette.figure(dice, *pair, size, (point,))
    return Scene(palette.figure_backdrop(dice, [pair[1]]), palette.look(dice), (), (figure,))


def _moving(dice: Rng, wish: SceneOptions, pairs: list[Pair], length: int, level: int) -> tuple[Scene, list[Ask]]:
    """Objects that move, each another way."""
    ways = dice.sample(tuple(DIRECTIONS), len(pairs))
    sizes = [palette.extents(dice, *_MATCH[level][1], 1.0, 24) for _ in pairs]
    near, far = (20, 34) if level < 3 else (12, 22)

    def path(i: int) -> Path:
        return journey(dice, ways[i], sizes[i], dice.uniform(near, far))

    paths = journeys(len(pairs), path, path(0))
    figures = [
        palette.figure(dice, *pair, size, between(*ends, length))
        for pair, size, ends in zip(pairs, sizes, paths, strict=True)
    ]
    ground = palette.figure_backdrop(dice, [colour for _, colour in pairs])
    # Drawn last, so that nothing passes in front of the one that is asked for.
    figures.reverse()
    times = palette.timestamps(dice, length)
    scene = Scene(ground, camera(dice, level), (), tuple(figures), (), length, times)
    asks: list[Ask] = [
        (f"Which way does {_SAME} move in the video?", ways[0], capitalised(f"{_SAME} moves {ways[0]}."))
    ]
    return scene, asks + [way_ask(dice, pair, way) for pair, way in zip(pairs[1:], ways[1:], strict=True)]


def _coming(dice: Rng, wish: SceneOptions, pairs: list[Pair], length: int, level: int) -> tuple[Scene, list[Ask]]:
    """Objects that appear one after another in any order, none in the first frame."""
    items = scatter(dice, pairs, *_MATCH[level][1], 2)
    moments = dice.sample(range(1, length), len(pairs))
    stays = dice.chance(0.5)
    figures = []
    for item, moment in zip(items, moments, strict=True):
        end = length if stays else min(length, moment + dice.integer(1, 3))
        figures.append(placed(item, during(home(item), [moment <= f < end for f in range(length)])))
    ground = palette.figure_backdrop(dice, [colour for _, colour in pairs])
    times = seconds(dice, length)
    scene = Scene(ground, camera(dice, level), (), tuple(figures), (), length, times)
    stamps = [stamp(times[moment]) for moment in moments]
    own = capitalised(f"{_SAME} appears at {stamps[0]}.")
    asks: list[Ask] = [(f"When does {_SAME} appear in the video?", stamps[0], own)]
    for pair, time in zip(pairs[1:], stamps[1:], strict=True):
        thing = name_of(dice, *pair)
        asks.append((f"When does the {thing} appear in the video?", time, f"The {thing} appears at {time}."))
    return scene, asks


def _labelled(dice: Rng, wish: SceneOptions, pairs: list[Pair], length: int, level: int) -> tuple[Scene, list[Ask]]:
    """Objects side by side with a text below each, all at once or one after another."""
    column = UNITS / len(pairs)
    order = dice.sample(range(len(pairs)), len(pairs))
    parts = spans(dice, length, len(pairs), 2) if dice.chance(0.5) else [(0, length)] * len(pairs)
    ground = palette.figure_backdrop(dice, [colour for _, colour in pairs])
    rgb = palette.contrasting(dice, *palette.colours_of(ground), split=wish.split)
    family, top = dice.choice(fonts.families(wish.split)), dice.uniform(14, 36)
    figures, texts, labels = [], [], list[str]()
    for pair, slot, (start, end) in zip(pairs, order, parts, strict=True):
        label = draw_code(dice, wish.split, 2)
        while label in labels:
            label = draw_code(dice, wish.split, 2)
        labels.append(label)
        x = round(column * (slot + 0.5), 3)
        shown = [start <= f < end for f in range(length)]
        size = palette.extents(dice, *_MATCH[level][1], 1.0, column - 4)
        figures.append(palette.figure(dice, *pair, size, during((x, top), shown)))
        w, h = fitted(label, dice.uniform(9, 11), column - 3)
        texts.append(Text(label, family, rgb, w, h, 0.0, 0.0, during((x, round(top + 19, 3)), shown)))
    times = palette.timestamps(dice, length)
    scene = Scene(ground, camera(dice, level), (), tuple(figures), tuple(texts), length, times)
    own = f"The text below {_SAME} is {labels[0]}."
    asks: list[Ask] = [(f"In the video, which text is below {_SAME}?", labels[0], own)]
    for pair, label in zip(pairs[1:], labels[1:], strict=True):
        thing = name_of(dice, *pair)
        asks.append((f"Which text is below the {thing}?", label, f"The text below the {thing} is {label}."))
    return scene, asks


_CLIPS = {"there": _moving, "way": _moving, "time": _coming, "text": _labelled}


@redrawn
def turns(dice: Rng, wish: SceneOptions) -> SceneQA:
    """A clip of moving shapes and a text, asked about in several turns: colours, ways, order, number, the text.

    Level 1: one large shape, two or three characters; 2: two; 3: three; 4: four small ones, six characters, noise.
    """
    level = palette.level_of(dice, wish)
    length = palette.clip_length(dice, wish.frames, 3)
    number, bounds, lengths = _TURNS[level]
    pairs = palette.pairs(dice, wish.split, number)
    ways = ["still" if dice.chance(0.25) else way for way in dice.sample(tuple(DIRECTIONS), number)]
    text = draw_text(dice, wish.split, dice.integer(*lengths))
    on_top = dice.chance(0.5)
    room = (_STRIP, UNITS) if on_top else (0.0, UNITS - _STRIP)
    sizes = [palette.extents(dice, *bounds, 1.0, 20) for _ in pairs]

    def path(i: int) -> Path:
        if ways[i] == "still":
            return (anywhere(dice, sizes[i], room),) * 2
        return journey(dice, ways[i], sizes[i], dice.uniform(_LEAST_WAY, 28), room)

    first = laid_out(
        wish.split, lambda: path(0), lambda ends: ("turns", *palette.cell_of(*ends[0], 8), ways[0], number, on_top)
    )
    paths = journeys(number, path, first)
    one_by_one = number > 1 and length // 2 >= number and dice.chance(0.5)
    starts = sorted(dice.sample(range(length // 2), number)) if one_by_one else [0] * number
    figures = []
    for pair, size, ends, start in zip(pairs, sizes, paths, starts, strict=True):
        track: Track = (None,) * start + between(*ends, length - start)
        figures.append(palette.figure(dice, *pair, size, track))
    ground = palette.figure_backdrop(dice, [colour for _, colour in pairs])
    line = _line(dice, wish, ground, text, on_top, length)
    times = palette.timestamps(dice, length)
    asked = {"text": text, "ways": ways, "starts": starts}
    scene = Scene(ground, camera(dice, level), (), tuple(figures), (line,), length, times, asked)
    asks = [way_ask(dice, pair, way) for pair, way in zip(pairs, ways, strict=True) if way != "still"]
    asks.append(stillness_ask(dice, *dice.choice(list(zip(pairs, ways, strict=True)))))
    asks += _turn_asks(pairs, text, one_by_one) + dice.sample(about(dice, pairs), 2)
    return drafted(dice, scene, dice.sample(asks, len(asks)), level, 5)


def _turn_asks(pairs: list[Pair], text: str, one_by_one: bool) -> list[Ask]:
    number = len(pairs)
    asks: list[Ask] = [
        ("What does the text say?", text, f"The text says {text}."),
        ("How many shapes are in the video?", str(number), there_are(number)),
    ]
    if one_by_one:
        for when, (shape, _) in (("first", pairs[0]), ("last", pairs[-1])):
            asks.append((f"Which shape appears {when}?", shape, f"The {shape} appears {when}."))
    return asks


def _line(dice: Rng, wish: SceneOptions, ground: Backdrop, text: str, on_top: bool, length: int) -> Text:
    """The text in its strip, in all frames or in a run of them."""
    w, h = fitted(text, dice.uniform(9, 10.5))
    middle = _STRIP / 2 if on_top else UNITS - _STRIP / 2 - 1  # room for tails
    point = (dice.uniform(w / 2 + 1, UNITS - w / 2 - 1), middle)
    start = 0 if dice.chance(0.5) else dice.integer(0, length - 2)
    end = length if start == 0 and dice.chance(0.5) else dice.integer(min(length, start + 2), length)
    rgb = palette.contrasting(dice, *palette.colours_of(ground), split=wish.split)
    track = during(point, [start <= f < end for f in range(length)])
    return Text(text, dice.choice(fonts.families(wish.split)), rgb, w, h, 0.0, 0.0, track)
