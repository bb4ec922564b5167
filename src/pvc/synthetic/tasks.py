"""The list of tasks, and `make`: (task, seed, split) -> one sample, the same everywhere and every time.

It leaves out endless mixtures (`stream`) and files (`dataset`). Used by training, evaluation and the command line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pvc.errors import UsageError
from pvc.synthetic import dense_tasks, shape_tasks, text_tasks
from pvc.synthetic.draw import render
from pvc.synthetic.scene import LEVELS, PATCH, Draft, Kind, Medium, Sample, Scene, Wish
from pvc.synthetic.seeding import Dice, Split

MAX_SIZE = 1024


@dataclass(frozen=True)
class Task:
    """A kind of question: `build` draws a scene with its question and answer from dice."""

    name: str
    kind: Kind
    summary: str
    build: Callable[[Dice, Wish], Draft]


_ALL = (
    Task("read", "image", "read a line of 1 to 6 capitals and digits", text_tasks.read),
    Task("page", "image", "read one of the lines that fill a picture", text_tasks.page),
    Task("rows", "image", "read a line of a picture full of characters", dense_tasks.rows),
    Task("shape", "image", "name the colour of a shape, or the shape of a colour", shape_tasks.shape),
    Task("count", "image", "count the objects of a shape or a colour", shape_tasks.count),
    Task("place", "image", "say in which part of the picture a shape is", shape_tasks.place),
    Task("bars", "image", "name the tallest or shortest bar of a chart, or count the bars", shape_tasks.bars),
    Task("direction", "video", "say which way a shape moves", motion_tasks.direction),
    Task("digits", "video", "read characters that appear one after another", sequence_tasks.digits),
    Task("appear", "video", "say which shape appears first or last", motion_tasks.appear),
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}


def task_named(name: str) -> Task:
    """One of TASKS; UsageError for a name nobody knows."""
    if name not in TASKS:
        raise UsageError(f"task {name!r} is not one of {', '.join(TASKS)}")
    return TASKS[name]


def check_size(size: int) -> None:
    """UsageError unless `size` is a multiple of the patch within reason."""
    if size % PATCH or not 4 * PATCH <= size <= MAX_SIZE:
        raise UsageError(f"size is {size}; it must be a multiple of {PATCH} between {4 * PATCH} and {MAX_SIZE}")


def make(
    task: str,
    seed: int,
    *,
    size: int = 64,
    split: Split = "train",
    frames: int | None = None,
    level: int | None = None,
) -> Sample:
    """The sample of a task, seed and split at size x size pixels.

    frames: length of a video, drawn from 4 to 16 when None; image tasks take None or 1. level: difficulty from 1 to
    LEVELS, drawn when None.
    Raises UsageError for an unknown task or split, a negative seed, a size that is no multiple of 8, too few frames, a
    level that does not exist.
    """
    chosen = task_named(task)
    check_size(size)
    if chosen.kind == "image" and frames not in (None, 1):
        raise UsageError(f"task {task!r} makes pictures; {frames} frames were asked for")
    if level is not None and not 1 <= level <= LEVELS:
        raise UsageError(f"level is {level}; it must be from 1 to {LEVELS}")
    draft = chosen.build(Dice(split, task, seed), Wish(split, frames, level))
    scenes = (draft.scene, *draft.further)
    description = {
        "task": task,
        "kind": chosen.kind,
        "split": split,
        "seed": int(seed),  # a numpy integer would not be JSON
        "size": size,
        "level": draft.level,
        "question": draft.question,
        "answer": draft.answer,
        **draft.scene.description(),
    }
    if draft.further:
        description["further"] = [scene.description() for scene in draft.further]
    return Sample(
        task=task,
        media=tuple(_medium(scene, size) for scene in scenes),
        question=draft.question,
        answer=draft.answer,
        level=draft.level,
        description=description,
        more=draft.more,
    )


def _medium(scene: Scene, size: int) -> Medium:
    pixels, labels = render(scene, size)
    return Medium("video" if scene.timestamps else "image", pixels, scene.timestamps, labels)
