"""Drawing lots for looks: grounds, colours with enough contrast, cameras, frame times, and free places.

Shared by the task modules, which decide what is shown and asked; this decides only how it looks.
"""

from __future__ import annotations

from collections.abc import Sequence

from pvc.errors import UsageError
from pvc.synthetic.scene import UNITS, Backdrop, Figure, Look, Track
from pvc.synthetic.seeding import Dice
from pvc.synthetic.vocabulary import COLOURS, Rgb

_TRIES = 60
TEXT_CONTRAST = 95.0  # grey levels between text and ground, before the look takes up to a fifth of it
_COLOUR_DISTANCE = 85.0  # Euclidean, RGB: mid grey is this far from all eight colours
_GREY_DISTANCE = 170.0  # the same for black and white, which have no hue to tell them from a dark or a light ground
_LENGTHS = {4: 2.0, 5: 1.0, 6: 2.0, 7: 1.0, 8: 6.0, 10: 1.5, 12: 2.0, 16: 3.0}
_STEPS = (0.25, 0.5, 1.0)
# How far each shape may be turned and still be itself.
_TURNS = {"circle": 0, "square": 10, "triangle": 16, "star": 18, "cross": 14}


def luminance(rgb: Rgb) -> float:
    """Perceived grey level, 0..255 (ITU-R BT.601)."""
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]


def any_rgb(dice: Dice) -> Rgb:
    """Any colour."""
    return dice.integer(0, 255), dice.integer(0, 255), dice.integer(0, 255)


def near(dice: Dice, rgb: Rgb, reach: int) -> Rgb:
    """A colour at most `reach` away in every channel."""
    red, green, blue = (min(255, max(0, v + dice.integer(-reach, reach))) for v in rgb)
    return red, green, blue


def contrasting(dice: Dice, *grounds: Rgb) -> Rgb:
    """A colour whose luminance differs from all grounds by TEXT_CONTRAST."""
    levels = [luminance(g) for g in grounds]
    for _ in range(_TRIES):
        rgb = any_rgb(dice)
        if min(abs(luminance(rgb) - level) for level in levels) >= TEXT_CONTRAST:
            return rgb
    return (0, 0, 0) if sum(levels) / len(levels) > 127 else (255, 255, 255)


def backdrop(dice: Dice) -> Backdrop:
    """A plain, softly graded or grainy ground for text; graded ones stay within 50 grey levels."""
    colour = any_rgb(dice)
    style = dice.weighted({"plain": 0.45, "graded": 0.35, "grainy": 0.2})
    if style == "graded":
        return Backdrop(colour, near(dice, colour, 30), dice.uniform(0, 360))
    return Backdrop(colour, grain=dice.uniform(2, 9) if style == "grainy" else 0.0)


def figure_backdrop(dice: Dice, colours: Sequence[str]) -> Backdrop:
    """A ground that is none of the named colours, nor easily taken for one."""
    ground: Rgb = (128, 128, 128)
    for _ in range(_TRIES):
        candidate = near(dice, (dice.integer(0, 255),) * 3, 45)
        if _stands_apart(candidate, colours):
            ground = candidate
            break
    style = dice.weighted({"plain": 0.5, "graded": 0.3, "grainy": 0.2})
    if style == "graded":
        other = near(dice, ground, 18)
        return Backdrop(ground, other, dice.uniform(0, 360)) if _stands_apart(other, colours) else Backdrop(ground)
    return Backdrop(ground, grain=dice.uniform(2, 7) if style == "grainy" else 0.0)


def _stands_apart(ground: Rgb, colours: Sequence[str]) -> bool:
    for name in set(colours):
        limit = _GREY_DISTANCE if name in ("black", "white") else _COLOUR_DISTANCE
        if sum((a - b) ** 2 for a, b in zip(ground, COLOURS[name], strict=True)) < limit**2:
            return False
    return True


def look(dice: Dice) -> Look:
    """Camera and file: contrast, brightness, sometimes blur, slight noise."""
    return Look(
        contrast=dice.uniform(0.82, 1.08),
        brightness=dice.uniform(-14, 14),
        blur=dice.uniform(0.04, 0.16) if dice.chance(0.2) else 0.0,
        noise=dice.uniform(0.5, 5),
        noise_seed=dice.integer(0, (1 << 30) - 1),
    )


def squash(dice: Dice) -> float:
    """Width over height after a picture of another format was made square: 0.6 to 1.6, one being the most likely."""
    if dice.chance(0.3):
        return 1.0
    wide = dice.uniform(1, 1.6)
    return wide if dice.chance(0.5) else round(max(0.6, 1 / wide), 3)


def extents(dice: Dice, low: float, high: float, ratio: float, limit: float) -> tuple[float, float]:
    """Width and height of an object of a size between two bounds (its smaller side at least 0.8 `low`)."""
    side = dice.uniform(low, high)
    root = ratio**0.5
    w, h = side * root, side / root
    floor = 0.8 * low
    return round(min(limit, max(floor, w)), 3), round(min(limit, max(floor, h)), 3)


def figure(dice: Dice, shape: str, colour: str, size: tuple[float, float], track: Track) -> Figure:
    """A shape in a jittered version of its colour, turned a little."""
    turn = _TURNS[shape]
    # Even degrees only: turned masters are cached.
    angle = 2 * dice.integer(-turn // 2, turn // 2) if turn else 0
    return Figure(shape, colour, near(dice, COLOURS[colour], 12), size[0], size[1], float(angle), track)


def cells(dice: Dice, count: int, side: int, sizes: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
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


def clip_length(dice: Dice, frames: int | None, least: int) -> int:
    """Number of frames: as asked, or drawn from 4 to 16 with 8 the most likely."""
    if frames is None:
        return max(least, dice.weighted(_LENGTHS))
    if frames < least:
        raise UsageError(f"{frames} frames were asked for; this task needs at least {least}")
    return frames


def timestamps(dice: Dice, frames: int) -> tuple[float, ...]:
    """Seconds of each frame: from 0.0 in equal steps."""
    step = dice.choice(_STEPS)
    return tuple(step * i for i in range(frames))


def spans(dice: Dice, frames: int, count: int) -> list[tuple[int, int]]:
    """Cut a clip into `count` parts in order, each at least one frame long: (start, end) with end left out."""
    cuts = sorted(dice.sample(range(1, frames), count - 1))
    return list(zip([0, *cuts], [*cuts, frames], strict=True))
