"""The task `long`: a needle, a code or a shape, in one to three of very many frames that are plain or distracting.

It leaves out decoding and choosing of frames. Frames that are alike are drawn once (`veils`). Used by `tasks`.
"""

from __future__ import annotations

import dataclasses

from pvc.lab.synthetic import fonts, palette
from pvc.lab.synthetic.clips import Ask, camera, drafted, during, home, laid_out, placed, redrawn, seconds, spans, stamp
from pvc.lab.synthetic.lettering import draw_code, fitted
from pvc.lab.synthetic.objects import name_of, scatter
from pvc.lab.synthetic.scene import UNITS, Backdrop, Figure, Scene, SceneOptions, SceneQA, Text
from pvc.lab.synthetic.seeding import Rng
from pvc.lab.synthetic.vocabulary import SHAPES

# Frames when the level is asked for and no length, how many of them show a needle, and how many sceneries there are.
_LEVELS = {1: (64, 3, 0), 2: (128, 2, 4), 3: (256, 2, 12), 4: (512, 1, 24)}
_DRAWN = (64, 128)  # least and most frames when nothing is asked for
_TOP = 20.0  # units that a code has for itself


def _length_and_level(dice: Rng, wish: SceneOptions) -> tuple[int, int]:
    level = palette.level_of(dice, wish)
    if wish.frames is not None:
        return palette.clip_length(dice, wish.frames, 4), level
    return (_LEVELS[level][0] if wish.level else dice.integer(*_DRAWN)), level


@redrawn
def long(dice: Rng, wish: SceneOptions) -> SceneQA:
    """A code, a shape or both show up in a few of many frames; asked is what they are and when.

    Level: 64, 128, 256, 512 frames (drawn from 64 to 128 where neither level nor length is asked for); the needle is
    there for 3, 2, 2, 1 frames; other shapes come and go 0, 4, 12, 24 times.
    """
    length, level = _length_and_level(dice, wish)
    _, lasting, sceneries = _LEVELS[level]
    lasting = min(lasting, length // 4)
    pairs = palette.pairs(dice, wish.split, 4)
    items, begin = laid_out(
        wish.split,
        lambda: (_below(scatter(dice, pairs, 13, 24, 2)), dice.integer(1, length - lasting)),
        lambda drawn: ("long", *palette.cell_of(*home(drawn[0][0]), 8), 16 * drawn[1] // length),
    )
    needle, distractors = items[0], items[1:]
    ground = palette.figure_backdrop(dice, [colour for _, colour in pairs])
    times = seconds(dice, length)
    shown = [begin <= f < begin + lasting for f in range(length)]
    shape, colour = pairs[0]
    kind = dice.weighted({"code": 0.4, "shape": 0.35, "both": 0.25})
    figures = _scenery(dice, distractors, sceneries, length)
    texts: tuple[Text, ...] = ()
    asks: list[Ask] = []
    if kind != "code":
        figures.append(placed(needle, during(home(needle), shown)))
        thing, time = name_of(dice, shape, colour), stamp(times[begin])
        asks.append((f"When does the {thing} appear?", time, f"The {thing} appears at {time}."))
        asks.append((f"What colour is the {shape}?", colour, f"The {shape} is {colour}."))
    if kind != "shape":
        other = begin if kind == "code" else dice.integer(1, length - lasting)
        texts = (_code(dice, wish, ground, [other <= f < other + lasting for f in range(length)]),)
        text, time = texts[0].text, stamp(times[other])
        asks.append(("Which code appears?", text, f"The code {text} appears."))
        asks.append(("When does the code appear?", time, f"The code appears at {time}."))
    elif sceneries == 0:
        asks.append(("Which shape appears?", shape, f"The {shape} appears."))
    main = len(asks)
    asks += _presence(dice, {figure.shape for figure in figures})
    asked = {"kind": kind, "shape": shape, "colour": colour, "begin": begin, "lasting": lasting}
    scene = Scene(ground, camera(dice, level), (), tuple(figures), texts, length, times, asked)
    first = dice.integer(0, main - 1)
    rest = [ask for i, ask in enumerate(asks) if i != first]
    return drafted(dice, scene, [asks[first], *rest], level)


def _presence(dice: Rng, there: set[str]) -> list[Ask]:
    """Whether there is some shape at all, once for one that there is, if any, and once for one that there is not."""
    absent = dice.choice([shape for shape in SHAPES if shape not in there])
    asks: list[Ask] = [(f"Is there a {absent} in the video?", "no", f"No, there is no {absent} in the video.")]
    present = dice.choice(sorted(there)) if there else None
    if present:
        asks.append((f"Is there a {present} in the video?", "yes", f"Yes, there is a {present} in the video."))
    return asks


def _below(items: tuple[Figure, ...]) -> tuple[Figure, ...]:
    """The objects moved down and flattened, so that the top of the picture is free."""
    part = 1 - _TOP / UNITS
    lowered = []
    for item in items:
        x, y = home(item)
        there = (x, round(UNITS - (UNITS - y) * part, 3))
        lowered.append(dataclasses.replace(item, h=round(item.h * part, 3), track=(there,)))
    return tuple(lowered)


def _scenery(dice: Rng, items: tuple[Figure, ...], number: int, length: int) -> list[Figure]:
    """Objects of which other ones are there in each of `number` parts of the clip."""
    if number == 0:
        return []
    parts = [
        (part, dice.sample(items, dice.integer(0, len(items)))) for part in spans(dice, length, min(number, length))
    ]
    figures = []
    for item in items:
        shown = [item in there for (start, end), there in parts for _ in range(start, end)]
        if any(shown):
            figures.append(placed(item, during(home(item), shown)))
    return figures


def _code(dice: Rng, wish: SceneOptions, ground: Backdrop, shown: list[bool]) -> Text:
    """A code at the top of some frames."""
    text = draw_code(dice, wish.split, dice.integer(2, 5))
    w, h = fitted(text, dice.uniform(10, 15))
    point = (dice.uniform(w / 2 + 1, UNITS - w / 2 - 1), round(_TOP / 2, 3))
    rgb = palette.contrasting(dice, *palette.colours_of(ground), split=wish.split)
    return Text(text, dice.choice(fonts.families(wish.split)), rgb, w, h, 0.0, 0.0, during(point, shown))
