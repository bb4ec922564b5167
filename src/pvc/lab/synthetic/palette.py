"""Samples how pictures look: grounds, colours with enough contrast, camera effects, frame times, levels, free places.

The task modules, which call it, decide about content and questions. This module also decides which colour pairs, hues
and layouts are held out of which split.
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
TEXT_CONTRAST = 95.0  # grey levels between text and ground, before camera effects remove up to a fifth
_COLOUR_DISTANCE = 85.0  # Euclidean, RGB: mid grey is this far from all eight colours
_GREY_DISTANCE = 170.0  # the same for black and white, which have no hue
_LENGTHS = {4: 2.0, 5: 1.0, 6: 2.0, 7: 1.0, 8: 6.0, 10: 1.5, 12: 2.0, 16: 3.0}
_TEXTURES = {"clouds": 0.4, "blobs": 0.15, "stripes": 0.15, "paper": 0.2, "checks": 0.1}
_JPEG_PROBABILITY = 0.25  # of a scene that passes through a JPEG file
_STEPS = (0.25, 0.5, 1.0)
# Never in training. Five of them differ in shape and colour, so that a picture can consist of them alone.
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
_GREY_HUE = 6  # class of colours that are nearly grey, after the six hues of 60 degrees each
_MIN_CHROMA = 32
# Maximum rotation in degrees at which each shape is still recognisable.
_MAX_ANGLES = {"circle": 0, "square": 10, "triangle": 16, "star": 18, "cross": 14}


def compute_luminance(rgb: Rgb) -> float:
    """Return the perceived grey level, 0 to 255 (ITU-R BT.601)."""
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]


def get_colour_pair_split(shape: str, colour: str) -> Literal["train", "colours"]:
    """Return the split of a shape in a colour. Held-out pairs are only in "colours" and "train_all".

    Args:
        shape: one of SHAPES.
        colour: one of COLOUR_NAMES.
    """
    return "colours" if (shape, colour) in HELD_OUT_PAIRS else "train"


def is_pair_allowed(shape: str, colour: str, split: Split) -> bool:
    """Return whether a question of a split may be about a shape in a colour.

    Args:
        shape: one of SHAPES.
        colour: one of COLOUR_NAMES.
        split: the split.
    """
    return split == "train_all" or (get_colour_pair_split(shape, colour) == "colours") == (split == "colours")


def sample_pairs(rng: Rng, split: Split, count: int) -> list[tuple[str, str]]:
    """Sample shapes and colours of objects; all shapes differ and all colours differ.

    In the split "colours" all pairs are held-out ones; in the others, except "train_all", none is.

    Args:
        rng: random generator of the sample.
        split: the split.
        count: number of objects, at most five.

    Returns:
        (shape, colour) of every object.
    """
    while True:
        shapes = rng.sample(SHAPES, count)
        if split == "colours":
            colours = [rng.choice([c for s, c in sorted(HELD_OUT_PAIRS) if s == shape]) for shape in shapes]
        else:
            colours = rng.sample(COLOUR_NAMES, count)
        candidate = list(zip(shapes, colours, strict=True))
        if all(is_pair_allowed(shape, colour, split) for shape, colour in candidate):
            return candidate


def get_layout_split(*parts: object) -> Literal["train", "layouts"]:
    """Return the split of a layout. One in eight is only in "layouts" and "train_all".

    Args:
        parts: values that name the layout coarsely, such as the cell of the object in question and the number of
            objects.
    """
    name = ":".join(map(str, ("layout", *parts)))
    return "layouts" if stable_hash(name) % _LAYOUTS == 0 else "train"


def is_layout_allowed(split: Split, *parts: object) -> bool:
    """Return whether a split may show a layout. If not, the caller samples another one.

    Args:
        split: the split.
        parts: values that name the layout; see `get_layout_split`.
    """
    return split == "train_all" or (get_layout_split(*parts) == "layouts") == (split == "layouts")


def get_cell(x: float, y: float, side: int = 3) -> tuple[int, int]:
    """Return row and column of a point in a grid over the picture, for naming layouts.

    Args:
        x: position across in units.
        y: position down in units.
        side: rows and columns of the grid.
    """
    return min(side - 1, max(0, int(y * side / UNITS))), min(side - 1, max(0, int(x * side / UNITS)))


def is_arrangement_allowed(split: Split, points: Sequence[tuple[float, float]], *parts: object) -> bool:
    """Return whether a split may show objects at these points, rounded to cells of 12.8 units.

    Args:
        split: the split.
        points: centres of the objects in units.
        parts: more values that name the layout.
    """
    return is_layout_allowed(split, *sorted((int(y * 5 / UNITS), int(x * 5 / UNITS)) for x, y in points), *parts)


def _get_hue_class(rgb: Rgb) -> int:
    """Return one of six hues (0: red), or 6 for colours that are nearly grey."""
    high, low = max(rgb), min(rgb)
    if high - low < _MIN_CHROMA:
        return _GREY_HUE
    return round(colorsys.rgb_to_hsv(*(v / 255 for v in rgb))[0] * 6) % 6


def get_hue_pair_split(text: Rgb, ground: Rgb) -> Literal["train", "colours"]:
    """Return the split of text of one colour on a ground of another. For every ground, one hue is held out.

    Args:
        text: colour of the text.
        ground: colour of the ground.
    """
    return "colours" if _get_hue_class(text) == (_get_hue_class(ground) + 2) % 6 else "train"


def sample_rgb(rng: Rng) -> Rgb:
    """Sample any colour."""
    return rng.integer(0, 255), rng.integer(0, 255), rng.integer(0, 255)


def jitter_colour(rng: Rng, rgb: Rgb, reach: int) -> Rgb:
    """Sample a colour close to another.

    Args:
        rng: random generator of the sample.
        rgb: the colour.
        reach: maximum difference in every channel.
    """
    red, green, blue = (min(255, max(0, v + rng.integer(-reach, reach))) for v in rgb)
    return red, green, blue


def sample_contrasting(rng: Rng, *grounds: Rgb, split: Split = "train") -> Rgb:
    """Sample a colour for text on these grounds.

    Its luminance differs from all grounds by at least TEXT_CONTRAST, and its pairs of hues belong to the split.

    Args:
        rng: random generator of the sample.
        grounds: colours of the ground.
        split: the split.
    """
    levels = [compute_luminance(g) for g in grounds]
    target_hue = (_get_hue_class(grounds[0]) + 2) % 6 if split == "colours" else None
    for _ in range(_TRIES):
        rgb = sample_rgb(rng) if target_hue is None else _sample_rgb_of_hue(rng, target_hue)
        if min(abs(compute_luminance(rgb) - level) for level in levels) < TEXT_CONTRAST:
            continue
        if split == "train_all":
            return rgb
        held_out = [get_hue_pair_split(rgb, ground) == "colours" for ground in grounds]
        if held_out[0] if split == "colours" else not any(held_out):
            return rgb
    if target_hue is None:
        return (0, 0, 0) if sum(levels) / len(levels) > 127 else (255, 255, 255)
    return _get_extreme_rgb(target_hue, dark=sum(levels) / len(levels) > 127)


def _sample_rgb_of_hue(rng: Rng, hue: int) -> Rgb:
    """Sample any colour of a hue class."""
    return _convert_hsv((hue + rng.uniform(-0.45, 0.45)) / 6 % 1, rng.uniform(0.2, 1), rng.uniform(0.2, 1))


def _get_extreme_rgb(hue: int, dark: bool) -> Rgb:
    """Return the darkest or lightest colour that still has the hue."""
    return _convert_hsv(hue / 6, 0.9, 0.16) if dark else _convert_hsv(hue / 6, 0.14, 1.0)


def _convert_hsv(hue: float, saturation: float, value: float) -> Rgb:
    red, green, blue = (round(255 * v) for v in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


def sample_backdrop(rng: Rng) -> Backdrop:
    """Sample a plain, graded, grainy or textured ground for text. Its colours differ by at most 45 in every channel."""
    colour = sample_rgb(rng)
    style = rng.weighted({"plain": 0.3, "graded": 0.25, "grainy": 0.15, "texture": 0.3})
    if style == "graded":
        return Backdrop(colour, jitter_colour(rng, colour, 30), rng.uniform(0, 360))
    if style == "texture":
        return _sample_texture(rng, colour, jitter_colour(rng, colour, 45))
    return Backdrop(colour, grain=rng.uniform(2, 9) if style == "grainy" else 0.0)


def _sample_texture(rng: Rng, colour: Rgb, other: Rgb) -> Backdrop:
    texture, grain = rng.weighted(_TEXTURES), rng.uniform(1, 4) if rng.chance(0.3) else 0.0
    angle = rng.uniform(0, 180) if texture in ("stripes", "checks") else 0.0
    return Backdrop(colour, other, angle, grain, texture, rng.integer(0, (1 << 20) - 1))


def get_colours(ground: Backdrop) -> tuple[Rgb, ...]:
    """Return the one or two colours of a ground, for `sample_contrasting`."""
    return (ground.colour,) if ground.colour2 is None else (ground.colour, ground.colour2)


def sample_figure_backdrop(rng: Rng, colours: Sequence[str]) -> Backdrop:
    """Sample a ground from which all the named colours are clearly different.

    Args:
        rng: random generator of the sample.
        colours: colour names of the figures on it.
    """
    ground: Rgb = (128, 128, 128)
    for _ in range(_TRIES):
        candidate = jitter_colour(rng, (rng.integer(0, 255),) * 3, 45)
        if is_distinguishable(candidate, colours):
            ground = candidate
            break
    style = rng.weighted({"plain": 0.3, "graded": 0.2, "grainy": 0.15, "texture": 0.35})
    if style in ("graded", "texture"):
        other = jitter_colour(rng, ground, 18 if style == "graded" else 40)
        if not is_distinguishable(other, colours):
            return Backdrop(ground)
        return (
            Backdrop(ground, other, rng.uniform(0, 360)) if style == "graded" else _sample_texture(rng, ground, other)
        )
    return Backdrop(ground, grain=rng.uniform(2, 7) if style == "grainy" else 0.0)


def is_distinguishable(ground: Rgb, colours: Sequence[str]) -> bool:
    """Return whether all the named colours are clearly different from a ground.

    Args:
        ground: colour of the ground.
        colours: colour names.
    """
    for name in set(colours):
        limit = _GREY_DISTANCE if name in ("black", "white") else _COLOUR_DISTANCE
        if sum((a - b) ** 2 for a, b in zip(ground, COLOURS[name], strict=True)) < limit**2:
            return False
    return True


def sample_effects(rng: Rng, fine: bool = False) -> CameraEffects:
    """Sample effects of camera and file: contrast, brightness, sometimes blur, slight noise, sometimes JPEG artefacts.

    Args:
        rng: random generator of the sample.
        fine: leave out what would make characters of 6 units and less illegible.
    """
    return CameraEffects(
        contrast=rng.uniform(0.82, 1.08),
        brightness=rng.uniform(-14, 14),
        blur=rng.uniform(0.04, 0.16) if rng.chance(0.2) and not fine else 0.0,
        noise=rng.uniform(0.5, 5),
        noise_seed=rng.integer(0, (1 << 30) - 1),
        jpeg=rng.integer(70 if fine else 30, 90) if rng.chance(_JPEG_PROBABILITY) else 0,
    )


def sample_extent(rng: Rng, options: SceneOptions) -> tuple[float, float]:
    """Sample width and height in units of a picture with the requested tiles.

    Two tiles are side by side or one above the other.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    if options.tiles == 2:
        return (2 * UNITS, UNITS) if rng.chance(0.5) else (UNITS, 2 * UNITS)
    side = UNITS if options.tiles == 1 else 2 * UNITS
    return side, side


def sample_level(rng: Rng, options: SceneOptions) -> int:
    """Return the requested difficulty, or sample one from 1 to LEVELS.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    return options.level or rng.integer(1, LEVELS)


def sample_aspect_ratio(rng: Rng) -> float:
    """Sample width over height after a picture of another format was made square: 0.6 to 1.6, often 1."""
    if rng.chance(0.3):
        return 1.0
    ratio = rng.uniform(1, 1.6)
    return ratio if rng.chance(0.5) else round(max(0.6, 1 / ratio), 3)


def sample_size(rng: Rng, low: float, high: float, ratio: float, limit: float) -> tuple[float, float]:
    """Sample width and height of an object.

    Args:
        rng: random generator of the sample.
        low: lower bound of the size in units; the smaller side is at least 0.8 of it.
        high: upper bound of the size.
        ratio: width over height.
        limit: maximum of either side.
    """
    side = rng.uniform(low, high)
    root = ratio**0.5
    w, h = side * root, side / root
    floor = 0.8 * low
    return round(min(limit, max(floor, w)), 3), round(min(limit, max(floor, h)), 3)


def sample_figure(rng: Rng, shape: str, colour: str, size: tuple[float, float], track: Track) -> Figure:
    """Build a shape in a shade of its colour, rotated a little.

    Args:
        rng: random generator of the sample.
        shape: one of SHAPES.
        colour: one of COLOUR_NAMES.
        size: width and height in units.
        track: centre in every frame.
    """
    turn = _MAX_ANGLES[shape]
    # Even degrees only, because rotated masters are cached.
    angle = 2 * rng.integer(-turn // 2, turn // 2) if turn else 0
    return Figure(shape, colour, jitter_colour(rng, COLOURS[colour], 12), size[0], size[1], float(angle), track)


def sample_points(rng: Rng, count: int, side: int, sizes: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Sample centres of objects that do not touch: each is anywhere within one cell of a grid.

    Args:
        rng: random generator of the sample.
        count: number of objects.
        side: rows and columns of the grid.
        sizes: width and height of every object in units.
    """
    cell_size = UNITS / side
    points = []
    for cell_index, (w, h) in zip(rng.sample(range(side * side), count), sizes, strict=True):
        row, column = divmod(cell_index, side)
        spare_x, spare_y = max(0.0, cell_size - w - 2) / 2, max(0.0, cell_size - h - 2) / 2
        x = (column + 0.5) * cell_size + rng.uniform(-spare_x, spare_x)
        y = (row + 0.5) * cell_size + rng.uniform(-spare_y, spare_y)
        points.append((round(x, 3), round(y, 3)))
    return points


def sample_clip_length(rng: Rng, frames: int | None, min_frames: int) -> int:
    """Return the requested number of frames, or sample one from 4 to 16, most often 8.

    Args:
        rng: random generator of the sample.
        frames: the requested number, or None.
        min_frames: smallest number that the task can use.

    Raises:
        UsageError: Fewer frames are requested than the task needs.
    """
    if frames is None:
        return max(min_frames, rng.weighted(_LENGTHS))
    if frames < min_frames:
        raise UsageError(f"{frames} frames are requested; this task needs at least {min_frames}")
    return frames


def sample_timestamps(rng: Rng, frames: int) -> tuple[float, ...]:
    """Sample the seconds of frames, from 0.0 in equal steps.

    Args:
        rng: random generator of the sample.
        frames: number of frames.
    """
    step = rng.choice(_STEPS)
    return tuple(step * i for i in range(frames))


def sample_spans(rng: Rng, frames: int, count: int) -> list[tuple[int, int]]:
    """Cut a clip into parts in order, each at least one frame long.

    Args:
        rng: random generator of the sample.
        frames: length of the clip.
        count: number of parts.

    Returns:
        (start, end) of every part; end is exclusive.
    """
    cuts = sorted(rng.sample(range(1, frames), count - 1))
    return list(zip([0, *cuts], [*cuts, frames], strict=True))
