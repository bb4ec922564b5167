"""What tasks about time share: frame times, tracks, motion, looks of clips, and questions with their sentences.

It leaves out what is asked. Used by the task modules about motion, moments, sequences and mixed media.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from pvc.lab.synthetic import palette
from pvc.lab.synthetic.phrasing import distinct, number_word, phrase
from pvc.lab.synthetic.scene import LEVELS, UNITS, CameraEffects, Figure, Scene, SceneOptions, SceneQA, Track
from pvc.lab.synthetic.seeding import Rng, Split
from pvc.lab.synthetic.vocabulary import COLOUR_NAMES, DIRECTIONS

T = TypeVar("T")
Point = tuple[float, float]
Path = tuple[Point, Point]  # start and end
Builder = Callable[[Rng, SceneOptions], SceneQA]
Ask = tuple[str, str, str]  # question, short answer, answer as a sentence
WAYS = {**DIRECTIONS, "up left": (-1, -1), "up right": (1, -1), "down left": (-1, 1), "down right": (1, 1)}
_TENTHS = {2: 1.0, 3: 1.0, 5: 4.0, 8: 1.0, 10: 4.0, 15: 1.0, 20: 2.0}  # of a second between frames
_TRIES = 40  # of one placement, before the whole sample is drawn anew
_RESTARTS = 200
_APART = 10.0  # units


class _NoLayoutError(Exception):
    """What has been drawn so far leaves no layout of the split."""


def drafted(
    dice: Rng, scene: Scene, asks: Sequence[Ask], level: int, most: int = 4, further: tuple[Scene, ...] = ()
) -> SceneQA:
    """A draft that asks the first question and, in later turns, at most `most` of the others.

    The scene is that of the first medium, `further` those of the others.
    """
    pairs = [phrase(dice, *ask) for ask in asks]
    return SceneQA(scene, *pairs[0], distinct(pairs[0][0], pairs[1:], most, dice), further, level)


def laid_out(split: Split, draw: Callable[[], T], name: Callable[[T], Iterable[object]]) -> T:
    """Draw until the layout that `name` gives is one of the split's. Builders that call this are `redrawn`."""
    for _ in range(_TRIES):
        drawn = draw()
        if palette.layout_is_for(split, *name(drawn)):
            return drawn
    raise _NoLayoutError(f"no layout like {name(drawn)} is for {split!r}")


def redrawn(build: Builder) -> Builder:
    """A builder that begins again, with the same dice, where no layout of the split is left."""

    @functools.wraps(build)
    def persistent(dice: Rng, wish: SceneOptions) -> SceneQA:
        for _ in range(_RESTARTS):
            try:
                return build(dice, wish)
            except _NoLayoutError as error:
                reason = error
        raise AssertionError(f"{build.__name__}: {reason}")

    return persistent


# Times


def seconds(dice: Rng, frames: int) -> tuple[float, ...]:
    """Times to ask for, in tenths of a second as the model reads them: any start, now and then uneven steps."""
    now = 0 if dice.chance(0.5) else dice.integer(1, 600)
    step = dice.weighted(_TENTHS)
    uneven = dice.chance(0.2)
    times = []
    for _ in range(frames):
        times.append(round(now / 10, 1))
        now += dice.weighted(_TENTHS) if uneven else step
    return tuple(times)


def stamp(time: float) -> str:
    """A time as it stands before the frame in the model's input (`processing.processor`)."""
    return f"{time:.1f}s"


def spans(dice: Rng, frames: int, count: int, least: int = 1) -> list[tuple[int, int]]:
    """Cut a clip into `count` parts in order, each at least `least` frames long where that fits, else one."""
    extra = least - 1 if frames >= count * least else 0
    parts = palette.spans(dice, frames - extra * count, count)
    return [(start + extra * i, end + extra * (i + 1)) for i, (start, end) in enumerate(parts)]


def moments(dice: Rng, frames: int, count: int, length: int = 1) -> list[int]:
    """First frames of `count` events of `length` frames, none in frame 0, with a frame or more between them."""
    free = frames - 1 - (count * length + count - 1)
    starts = sorted(dice.sample(range(free + count), count))
    return [1 + start - i + i * (length + 1) for i, start in enumerate(starts)]


# Tracks


def during(point: Point, shown: Sequence[bool]) -> Track:
    """At a point in the frames that show it."""
    return tuple(point if there else None for there in shown)


def between(start: Point, end: Point, frames: int) -> Track:
    """From one point to another at constant speed."""
    (x, y), last = start, max(1, frames - 1)
    dx, dy = (end[0] - x) / last, (end[1] - y) / last
    return tuple((round(x + dx * f, 3), round(y + dy * f, 3)) for f in range(frames))


def journey(
    dice: Rng, way: str, size: tuple[float, float], travel: float, room: tuple[float, float] = (0.0, UNITS)
) -> Path:
    """Start and end of a straight path that stays in the picture, between the heights of `room`.

    It drifts to the side by at most a seventh of the way; a slanted one goes equally far in both directions.
    """
    ends = []
    for step, extent, (low, high) in zip(WAYS[way], size, ((0.0, UNITS), room), strict=True):
        low, high = low + extent / 2 + 1, high - extent / 2 - 1
        slanted = 0 not in WAYS[way]
        gone = step * travel * (0.75 if slanted else 1.0) if step else dice.uniform(-1, 1) * min(3.0, travel / 7)
        gone = max(low - high, min(high - low, gone))
        start = dice.uniform(low - min(0.0, gone), high - max(0.0, gone))
        ends.append((start, round(start + gone, 3)))
    (x0, x1), (y0, y1) = ends
    return (x0, y0), (x1, y1)


def anywhere(dice: Rng, size: tuple[float, float], room: tuple[float, float] = (0.0, UNITS)) -> Point:
    """A point where an object of this size is wholly in the picture, between the heights of `room`."""
    w, h = size[0] / 2 + 1, size[1] / 2 + 1
    return dice.uniform(w, UNITS - w), dice.uniform(room[0] + h, room[1] - h)


def journeys(count: int, draw: Callable[[int], Path], first: Path) -> list[Path]:
    """The first path and more, each apart from the others at its start or its end, so that all objects are seen."""
    paths = [first]
    while len(paths) < count:
        for _ in range(_TRIES):
            path = draw(len(paths))
            if all(max(_gap(path[0], other[0]), _gap(path[1], other[1])) >= _APART for other in paths):
                break
        paths.append(path)
    return paths


def _gap(one: Point, other: Point) -> float:
    return max(abs(one[0] - other[0]), abs(one[1] - other[1]))


# Objects and looks


def home(item: Figure) -> Point:
    """Where an object stands that has been placed in the first frame."""
    point = item.track[0]
    assert point is not None
    return point


def placed(item: Figure, track: Track) -> Figure:
    """The same object on another track."""
    return dataclasses.replace(item, track=track)


def in_colour(dice: Rng, item: Figure, colour: str, track: Track) -> Figure:
    """The same object in another colour and on another track."""
    turned = palette.figure(dice, item.shape, colour, (item.w, item.h), track)
    return dataclasses.replace(turned, angle=item.angle)


def other_colour(dice: Rng, shapes: Sequence[str], taken: Sequence[str]) -> str | None:
    """A colour that is not taken and makes no held-out pair with any of the shapes; None where there is none."""
    free = [
        colour
        for colour in COLOUR_NAMES
        if colour not in taken and all(palette.pair_is_for(shape, colour, "train") for shape in shapes)
    ]
    return dice.choice(free) if free else None


def camera(dice: Rng, level: int, fine: bool = False) -> CameraEffects:
    """The usual look; noisier at the highest level. fine: without what makes small text illegible."""
    look = palette.look(dice, fine)
    return dataclasses.replace(look, noise=dice.uniform(6, 12)) if level == LEVELS else look


_TIMES = ("never", "once", "twice")


def times_word(number: int) -> str:
    """ "once", "twice", "three times"."""
    return _TIMES[number] if number < len(_TIMES) else f"{number_word(number)} times"
