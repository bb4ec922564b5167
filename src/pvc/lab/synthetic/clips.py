"""Shared parts of tasks about time: frame times, tracks, motion, camera effects, and questions with their sentences.

Called by the task modules about motion, moments, sequences and mixed media.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from pvc.lab.synthetic import palette
from pvc.lab.synthetic.phrasing import phrase, select_distinct, spell_number
from pvc.lab.synthetic.scene import LEVELS, UNITS, CameraEffects, Figure, Scene, SceneOptions, SceneQA, Track
from pvc.lab.synthetic.seeding import Rng, Split
from pvc.lab.synthetic.vocabulary import COLOUR_NAMES, DIRECTIONS

T = TypeVar("T")
Point = tuple[float, float]
Path = tuple[Point, Point]  # start and end
Builder = Callable[[Rng, SceneOptions], SceneQA]
Question = tuple[str, str, str]  # question, short answer, answer as a sentence
WAYS = {**DIRECTIONS, "up left": (-1, -1), "up right": (1, -1), "down left": (-1, 1), "down right": (1, 1)}
_TENTHS = {2: 1.0, 3: 1.0, 5: 4.0, 8: 1.0, 10: 4.0, 15: 1.0, 20: 2.0}  # of a second between frames
_TRIES = 40  # of one placement, before the whole sample is generated again
_RESTARTS = 200
_MIN_DISTANCE = 10.0  # units


class _NoLayoutError(Exception):
    """No layout of the split is possible with what was sampled so far."""


def build_scene_qa(
    rng: Rng,
    scene: Scene,
    questions: Sequence[Question],
    level: int,
    max_questions: int = 4,
    further: tuple[Scene, ...] = (),
) -> SceneQA:
    """Build a SceneQA that asks the first question first and some of the others in later turns.

    Args:
        rng: random generator of the sample.
        scene: the first medium.
        questions: questions with short answers and sentences.
        level: difficulty.
        max_questions: maximum number of later questions.
        further: the other media.
    """
    pairs = [phrase(rng, *question) for question in questions]
    return SceneQA(scene, *pairs[0], select_distinct(pairs[0][0], pairs[1:], max_questions, rng), further, level)


def sample_layout(split: Split, sample: Callable[[], T], get_layout: Callable[[T], Iterable[object]]) -> T:
    """Sample until the layout is allowed in the split. Builders that call this are wrapped in `retry_layout`.

    Args:
        split: the split.
        sample: samples a candidate.
        get_layout: returns the values that name the layout of a candidate.
    """
    for _ in range(_TRIES):
        candidate = sample()
        if palette.is_layout_allowed(split, *get_layout(candidate)):
            return candidate
    raise _NoLayoutError(f"no layout like {get_layout(candidate)} is for {split!r}")


def retry_layout(build: Builder) -> Builder:
    """Wrap a builder so that it starts again, with the same generator, if no layout of the split is possible."""

    @functools.wraps(build)
    def retry(rng: Rng, options: SceneOptions) -> SceneQA:
        for _ in range(_RESTARTS):
            try:
                return build(rng, options)
            except _NoLayoutError as error:
                reason = error
        raise AssertionError(f"{build.__name__}: {reason}")

    return retry


# Times


def sample_times(rng: Rng, frames: int) -> tuple[float, ...]:
    """Sample times of frames in tenths of a second, as the model reads them: any start, sometimes uneven steps.

    Args:
        rng: random generator of the sample.
        frames: number of frames.
    """
    tenths = 0 if rng.chance(0.5) else rng.integer(1, 600)
    step = rng.weighted(_TENTHS)
    is_uneven = rng.chance(0.2)
    times = []
    for _ in range(frames):
        times.append(round(tenths / 10, 1))
        tenths += rng.weighted(_TENTHS) if is_uneven else step
    return tuple(times)


def format_time(time: float) -> str:
    """Return a time as it stands before a frame in the model's input (`pvc.processing`)."""
    return f"{time:.1f}s"


def sample_spans(rng: Rng, frames: int, count: int, min_frames: int = 1) -> list[tuple[int, int]]:
    """Cut a clip into parts in order.

    Args:
        rng: random generator of the sample.
        frames: length of the clip.
        count: number of parts.
        min_frames: minimum length of a part; one frame if this does not fit.

    Returns:
        (start, end) of every part; end is exclusive.
    """
    extra = min_frames - 1 if frames >= count * min_frames else 0
    parts = palette.sample_spans(rng, frames - extra * count, count)
    return [(start + extra * i, end + extra * (i + 1)) for i, (start, end) in enumerate(parts)]


def sample_event_starts(rng: Rng, frames: int, count: int, length: int = 1) -> list[int]:
    """Sample the first frames of events; none begins in frame 0 and at least one frame lies between two.

    Args:
        rng: random generator of the sample.
        frames: length of the clip.
        count: number of events.
        length: frames of an event.
    """
    spare = frames - 1 - (count * length + count - 1)
    starts = sorted(rng.sample(range(spare + count), count))
    return [1 + start - i + i * (length + 1) for i, start in enumerate(starts)]


# Tracks


def build_track(point: Point, visible: Sequence[bool]) -> Track:
    """Return a track that is at a point in some frames and nowhere in the others.

    Args:
        point: (x, y) in units.
        visible: for every frame, whether the object is in it.
    """
    return tuple(point if is_visible else None for is_visible in visible)


def build_linear_track(start: Point, end: Point, frames: int) -> Track:
    """Return a track from one point to another at constant speed.

    Args:
        start: (x, y) in the first frame.
        end: (x, y) in the last frame.
        frames: number of frames.
    """
    (x, y), last = start, max(1, frames - 1)
    dx, dy = (end[0] - x) / last, (end[1] - y) / last
    return tuple((round(x + dx * f, 3), round(y + dy * f, 3)) for f in range(frames))


def sample_path(
    rng: Rng, way: str, size: tuple[float, float], travel: float, room: tuple[float, float] = (0.0, UNITS)
) -> Path:
    """Sample start and end of a straight path that stays in the picture.

    It drifts to the side by at most a seventh of its length. A diagonal one goes equally far in both directions.

    Args:
        rng: random generator of the sample.
        way: one of WAYS.
        size: width and height of the object in units.
        travel: length of the path in units.
        room: top and bottom of the area that the object may use.
    """
    ends = []
    for step, extent, (low, high) in zip(WAYS[way], size, ((0.0, UNITS), room), strict=True):
        low, high = low + extent / 2 + 1, high - extent / 2 - 1
        is_diagonal = 0 not in WAYS[way]
        shift = step * travel * (0.75 if is_diagonal else 1.0) if step else rng.uniform(-1, 1) * min(3.0, travel / 7)
        shift = max(low - high, min(high - low, shift))
        start = rng.uniform(low - min(0.0, shift), high - max(0.0, shift))
        ends.append((start, round(start + shift, 3)))
    (x0, x1), (y0, y1) = ends
    return (x0, y0), (x1, y1)


def sample_point(rng: Rng, size: tuple[float, float], room: tuple[float, float] = (0.0, UNITS)) -> Point:
    """Sample a centre at which an object is wholly in the picture.

    Args:
        rng: random generator of the sample.
        size: width and height of the object in units.
        room: top and bottom of the area that the object may use.
    """
    w, h = size[0] / 2 + 1, size[1] / 2 + 1
    return rng.uniform(w, UNITS - w), rng.uniform(room[0] + h, room[1] - h)


def sample_paths(count: int, sample: Callable[[int], Path], first: Path) -> list[Path]:
    """Sample paths that are apart from each other at their start or end, so that all objects are visible.

    Args:
        count: number of paths, the first one included.
        sample: samples the path of the object with this index.
        first: the first path.
    """
    paths = [first]
    while len(paths) < count:
        for _ in range(_TRIES):
            path = sample(len(paths))
            if all(
                max(_compute_distance(path[0], other[0]), _compute_distance(path[1], other[1])) >= _MIN_DISTANCE
                for other in paths
            ):
                break
        paths.append(path)
    return paths


def _compute_distance(first: Point, second: Point) -> float:
    return max(abs(first[0] - second[0]), abs(first[1] - second[1]))


# Objects and effects


def get_position(item: Figure) -> Point:
    """Return the position of an object in the first frame."""
    point = item.track[0]
    assert point is not None
    return point


def replace_track(item: Figure, track: Track) -> Figure:
    """Return the same object on another track.

    Args:
        item: the object.
        track: its new track.
    """
    return dataclasses.replace(item, track=track)


def recolour(rng: Rng, item: Figure, colour: str, track: Track) -> Figure:
    """Return the same object in another colour and on another track.

    Args:
        rng: random generator of the sample.
        item: the object.
        colour: the new colour's name.
        track: its new track.
    """
    copy = palette.sample_figure(rng, item.shape, colour, (item.w, item.h), track)
    return dataclasses.replace(copy, angle=item.angle)


def sample_other_colour(rng: Rng, shapes: Sequence[str], used: Sequence[str]) -> str | None:
    """Sample a colour that is not used and makes no held-out pair with any of the shapes.

    Args:
        rng: random generator of the sample.
        shapes: shapes that may get the colour.
        used: colours that are not allowed.

    Returns:
        The colour's name, or None if there is none.
    """
    available = [
        colour
        for colour in COLOUR_NAMES
        if colour not in used and all(palette.is_pair_allowed(shape, colour, "train") for shape in shapes)
    ]
    return rng.choice(available) if available else None


def sample_clip_effects(rng: Rng, level: int, fine: bool = False) -> CameraEffects:
    """Sample camera effects; at the highest level, with more noise.

    Args:
        rng: random generator of the sample.
        level: difficulty.
        fine: leave out what would make small text illegible.
    """
    effects = palette.sample_effects(rng, fine)
    return dataclasses.replace(effects, noise=rng.uniform(6, 12)) if level == LEVELS else effects


_TIMES = ("never", "once", "twice")


def format_count(number: int) -> str:
    """Return a number of times in words: "once", "twice", "three times"."""
    return _TIMES[number] if number < len(_TIMES) else f"{spell_number(number)} times"
