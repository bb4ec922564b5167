"""Drawing lots for looks: grounds, colours with enough contrast, cameras, frame times, and free places.

Shared by the task modules, which decide what is shown and asked; this decides only how it looks.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Literal

from pvc.errors import UsageError
from pvc.lab.synthetic.scene import LEVELS, UNITS, Backdrop, CameraEffects, Figure, SceneOptions, Track
from pvc.lab.synthetic.seeding import Rng, Split, stable_hash
from pvc.lab.synthetic.vocabulary import COLOUR_NAMES, COLOURS, SHAPES, Rgb

_TRIES = 60
TEXT_CONTRAST = 95.0  # grey levels between text and ground, before the look takes up to a fifth of it
_COLOUR_DISTANCE = 85.0  # Euclidean, RGB: mid grey is this far from all eight colours
_GREY_DISTANCE = 170.0  # the same for black and white, which have no hue to tell them from a dark or a light ground
_LENGTHS = {4: 2.0, 5: 1.0, 6: 2.0, 7: 1.0, 8: 6.0, 10: 1.5, 12: 2.0, 16: 3.0}
_TEXTURES = {"clouds": 0.4, "blobs": 0.15, "stripes": 0.15, "paper": 0.2, "checks": 0.1}
_COMPRESSED = 0.25  # part of the scenes that went through a JPEG file
_STEPS = (0.25, 0.5, 1.0)
# Never seen in training; five of them differ in shape and in colour, so that a picture can hold nothing else.
HELD_OUT_PAIRS = frozenset(
    {
        ("circle", "purple"),
        ("circle", "black"),
        ("square", "orange"),
        ("triangle", "blue"),
        ("star", "green"),
        ("cross", "yellow"),
    }
)
_LAYOUTS = 8  # one layout in as many is held out
_GREY_HUE = 6  # class of what has no hue to speak of, after the six hues of 60 degrees each
_LEAST_CHROMA = 32
# How far each shape may be turned and still be itself.
_TURNS = {"circle": 0, "square": 10, "triangle": 16, "star": 18, "cross": 14}


def luminance(rgb: Rgb) -> float:
    """Perceived grey level, 0..255 (ITU-R BT.601)."""
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]


def colour_pair_split(shape: str, colour: str) -> Literal["train", "colours"]:
    """Which splits a shape in a colour belongs to: the held-out pairs are seen in "colours" only."""
    return "colours" if (shape, colour) in HELD_OUT_PAIRS else "train"


def pair_is_for(shape: str, colour: str, split: Split) -> bool:
    """Whether a split may show a shape in a colour as the thing asked about."""
    return split == "train_all" or (colour_pair_split(shape, colour) == "colours") == (split == "colours")


def pairs(dice: Rng, split: Split, count: int) -> list[tuple[str, str]]:
    """Shapes and colours of at most five objects, all shapes different and all colours different.

    In the split "colours" all are held-out pairs, elsewhere none is.
    """
    while True:
        shapes = dice.sample(SHAPES, count)
        if split == "colours":
            colours = [dice.choice([c for s, c in sorted(HELD_OUT_PAIRS) if s == shape]) for shape in shapes]
        else:
            colours = dice.sample(COLOUR_NAMES, count)
        drawn = list(zip(shapes, colours, strict=True))
        if all(pair_is_for(shape, colour, split) for shape, colour in drawn):
            return drawn


def layout_split(*parts: object) -> Literal["train", "layouts"]:
    """Which splits a layout belongs to: one in eight is seen in "layouts" only.

    parts: what names the layout coarsely, such as the cell of the asked object and the number of objects.
    """
    name = ":".join(map(str, ("layout", *parts)))
    return "layouts" if stable_hash(name) % _LAYOUTS == 0 else "train"


def layout_is_for(split: Split, *parts: object) -> bool:
    """Whether a split may show a layout: draw again where it may not."""
    return split == "train_all" or (layout_split(*parts) == "layouts") == (split == "layouts")


def cell_of(x: float, y: float, side: int = 3) -> tuple[int, int]:
    """Row and column of a point (in units) in a side x side grid over the picture, for naming layouts."""
    return min(side - 1, max(0, int(y * side / UNITS))), min(side - 1, max(0, int(x * side / UNITS)))


def arranged_for(split: Split, points: Sequence[tuple[float, float]], *parts: object) -> bool:
    """Whether a split may show objects at these points, told apart as cells of 12.8 units (`parts`: more to tell)."""
    return layout_is_for(split, *sorted((int(y * 5 / UNITS), int(x * 5 / UNITS)) for x, y in points), *parts)


def hue_class(rgb: Rgb) -> int:
    """One of six hues (0: red), or 6 for what is nearly grey."""
    high, low = max(rgb), min(rgb)
    if high - low < _LEAST_CHROMA:
        return _GREY_HUE
    return round(colorsys.rgb_to_hsv(*(v / 255 for v in rgb))[0] * 6) % 6


def hue_pair_split(text: Rgb, ground: Rgb) -> Literal["train", "colours"]:
    """Which splits text of one colour on a ground of another belongs to: for every ground, one hue is held out."""
    return "colours" if hue_class(text) == (hue_class(ground) + 2) % 6 else "train"


def any_rgb(dice: Rng) -> Rgb:
    """Any colour."""
    return dice.integer(0, 255), dice.integer(0, 255), dice.integer(0, 255)


def near(dice: Rng, rgb: Rgb, reach: int) -> Rgb:
    """A colour at most `reach` away in every channel."""
    red, green, blue = (min(255, max(0, v + dice.integer(-reach, reach))) for v in rgb)
    return red, green, blue


def contrasting(dice: Rng, *grounds: Rgb, split: Split = "train") -> Rgb:
    """A colour whose luminance differs from all grounds by TEXT_CONTRAST, and whose pair of hues is the split's."""
    levels = [luminance(g) for g in grounds]
    wanted = (hue_class(grounds[0]) + 2) % 6 if split == "colours" else None
    for _ in range(_TRIES):
        rgb = any_rgb(dice) if wanted is None else _rgb_of_hue(dice, wanted)
        if min(abs(luminance(rgb) - level) for level in levels) < TEXT_CONTRAST:
            continue
        if split == "train_all":
            return rgb
        held_out = [hue_pair_split(rgb, ground) == "colours" for ground in grounds]
        if held_out[0] if split == "colours" else not any(held_out):
            return rgb
    if wanted is None:
        return (0, 0, 0) if sum(levels) / len(levels) > 127 else (255, 255, 255)
    return _extreme(wanted, dark=sum(levels) / len(levels) > 127)


def _rgb_of_hue(dice: Rng, hue: int) -> Rgb:
    """Any colour of a hue class."""
    return _hsv((hue + dice.uniform(-0.45, 0.45)) / 6 % 1, dice.uniform(0.2, 1), dice.uniform(0.2, 1))


def _extreme(hue: int, dark: bool) -> Rgb:
    """The darkest or lightest colour that still has the hue."""
    return _hsv(hue / 6, 0.9, 0.16) if dark else _hsv(hue / 6, 0.14, 1.0)


def _hsv(hue: float, saturation: float, value: float) -> Rgb:
    red, green, blue = (round(255 * v) for v in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


def backdrop(dice: Rng) -> Backdrop:
    """A plain, graded, grainy or textured ground for text; its two colours stay within 45 levels in every channel."""
    colour = any_rgb(dice)
    style = dice.weighted({"plain": 0.3, "graded": 0.25, "grainy": 0.15, "texture": 0.3})
    if style == "graded":
        return Backdrop(colour, near(dice, colour, 30), dice.uniform(0, 360))
    if style == "texture":
        return _textured(dice, colour, near(dice, colour, 45))
    return Backdrop(colour, grain=dice.uniform(2, 9) if style == "grainy" else 0.0)


def _textured(dice: Rng, colour: Rgb, other: Rgb) -> Backdrop:
    texture, grain = dice.weighted(_TEXTURES), dice.uniform(1, 4) if dice.chance(0.3) else 0.0
    angle = dice.uniform(0, 180) if texture in ("stripes", "checks") else 0.0
    return Backdrop(colour, other, angle, grain, texture, dice.integer(0, (1 << 20) - 1))


def colours_of(ground: Backdrop) -> tuple[Rgb, ...]:
    """The one or two colours of a ground, for `contrasting`."""
    return (ground.colour,) if ground.colour2 is None else (ground.colour, ground.colour2)


def figure_backdrop(dice: Rng, colours: Sequence[str]) -> Backdrop:
    """A ground that is none of the named colours, nor easily taken for one."""
    ground: Rgb = (128, 128, 128)
    for _ in range(_TRIES):
        candidate = near(dice, (dice.integer(0, 255),) * 3, 45)
        if stands_apart(candidate, colours):
            ground = candidate
            break
    style = dice.weighted({"plain": 0.3, "graded": 0.2, "grainy": 0.15, "texture": 0.35})
    if style in ("graded", "texture"):
        other = near(dice, ground, 18 if style == "graded" else 40)
        if not stands_apart(other, colours):
            return Backdrop(ground)
        return Backdrop(ground, other, dice.uniform(0, 360)) if style == "graded" else _textured(dice, ground, other)
    return Backdrop(ground, grain=dice.uniform(2, 7) if style == "grainy" else 0.0)


def stands_apart(ground: Rgb, colours: Sequence[str]) -> bool:
    """Return whether none of the named colours is lost on a ground."""
    for name in set(colours):
        limit = _GREY_DISTANCE if name in ("black", "white") else _COLOUR_DISTANCE
        if sum((a - b) ** 2 for a, b in zip(ground, COLOURS[name], strict=True)) < limit**2:
            return False
    return True


def look(dice: Rng, fine: bool = False) -> CameraEffects:
    """Camera and file: contrast, brightness, sometimes blur, slight noise, sometimes JPEG artefacts.

    fine: nothing that would make characters of 6 units and less illegible.
    """
    return CameraEffects(
        contrast=dice.uniform(0.82, 1.08),
        brightness=dice.uniform(-14, 14),
        blur=dice.uniform(0.04, 0.16) if dice.chance(0.2) and not fine else 0.0,
        noise=dice.uniform(0.5, 5),
        noise_seed=dice.integer(0, (1 << 30) - 1),
        jpeg=dice.integer(70 if fine else 30, 90) if dice.chance(_COMPRESSED) else 0,
    )


def extent_of(dice: Rng, wish: SceneOptions) -> tuple[float, float]:
    """Width and height of a picture of as many tiles as asked for; two are side by side or one above the other."""
    if wish.tiles == 2:
        return (2 * UNITS, UNITS) if dice.chance(0.5) else (UNITS, 2 * UNITS)
    side = UNITS if wish.tiles == 1 else 2 * UNITS
    return side, side


def level_of(dice: Rng, wish: SceneOptions) -> int:
    """The difficulty that is asked for, or one drawn from 1 to LEVELS."""
    return wish.level or dice.integer(1, LEVELS)


def squash(dice: Rng) -> float:
    """Width over height after a picture of another format was made square: 0.6 to 1.6, one being the most likely."""
    if dice.chance(0.3):
        return 1.0
    wide = dice.uniform(1, 1.6)
    return wide if dice.chance(0.5) else round(max(0.6, 1 / wide), 3)


def extents(dice: Rng, low: float, high: float, ratio: float, limit: float) -> tuple[float, float]:
    """Width and height of an object of a size between two bounds (its smaller side at least 0.8 `low`)."""
    side = dice.uniform(low, high)
    root = ratio**0.5
    w, h = side * root, side / root
    floor = 0.8 * low
    return round(min(limit, max(floor, w)), 3), round(min(limit, max(floor, h)), 3)


def figure(dice: Rng, shape: str, colour: str, size: tuple[float, float], track: Track) -> Figure:
    """A shape in a jittered version of its colour, turned a little."""
    turn = _TURNS[shape]
    # Even degrees only: turned masters are cached.
    angle = 2 * dice.integer(-turn // 2, turn // 2) if turn else 0
    return Figure(shape, colour, near(dice, COLOURS[colour], 12), size[0], size[1], float(angle), track)


def cells(dice: Rng, count: int, side: int, sizes: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Places for objects that do not touch: each in its own cell of a side x side grid, anywhere within it."""
    cell = UNITS / side
    points = []
    for where, (w, h) in zip(dice.sample(range(side * side), count), sizes, strict=True):
        row, column = divmod(where, side)
        spare_x, spare_y = max(0.0, cell - w - 2) / 2, max(0.0, cell - h - 2) / 2
        x = (column + 0.5) * cell + dice.uniform(-spare_x, spare_x)
        y = (row + 0.5) * cell + dice.uniform(-spare_y, spare_y)
        points.append((round(x, 3), round(y, 3)))
    return points


def clip_length(dice: Rng, frames: int | None, least: int) -> int:
    """Number of frames: as asked, or drawn from 4 to 16 with 8 the most likely."""
    if frames is None:
        return max(least, dice.weighted(_LENGTHS))
    if frames < least:
        raise UsageError(f"{frames} frames were asked for; this task needs at least {least}")
    return frames


def timestamps(dice: Rng, frames: int) -> tuple[float, ...]:
    """Seconds of each frame: from 0.0 in equal steps."""
    step = dice.choice(_STEPS)
    return tuple(step * i for i in range(frames))


def spans(dice: Rng, frames: int, count: int) -> list[tuple[int, int]]:
    """Cut a clip into `count` parts in order, each at least one frame long: (start, end) with end left out."""
    cuts = sorted(dice.sample(range(1, frames), count - 1))
    return list(zip([0, *cuts], [*cuts, frames], strict=True))
