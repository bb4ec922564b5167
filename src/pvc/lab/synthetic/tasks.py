"""The list of tasks, and `make`: (task, seed, split) -> one sample, the same everywhere and every time.

It leaves out endless mixtures (`stream`) and files (`dataset`). Used by training, evaluation and the command line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pvc.errors import UsageError
from pvc.lab.synthetic import (
    chart_tasks,
    compare_tasks,
    dense_tasks,
    long_tasks,
    mixed_tasks,
    moment_tasks,
    motion_tasks,
    receipt_tasks,
    sequence_tasks,
    shape_tasks,
    text_tasks,
)
from pvc.lab.synthetic.draw import render
from pvc.lab.synthetic.pages import albums, canvas, figures, films, graphs, outside, screens, signs
from pvc.lab.synthetic.scene import LEVELS, PATCH, Kind, Medium, Sample, Scene, SceneOptions, SceneQA, Turn
from pvc.lab.synthetic.seeding import Rng, Split
from pvc.lab.synthetic.veils import condensed

MAX_SIZE = 1024
TILES = (1, 2, 4)


@dataclass(frozen=True)
class Task:
    """A kind of question: `build` draws a scene with its question and answer from dice.

    levels: what the level sets, in a few words. tiles: whether its pictures can be larger than 64 x 64 units.
    pages: whether it makes pages of any size (`pvc.lab.synthetic.pages`), which have neither levels nor patch labels.
    """

    name: str
    kind: Kind
    summary: str
    build: Callable[[Rng, SceneOptions], SceneQA]
    levels: str = ""
    tiles: bool = False
    pages: bool = False


def _pages(name: str, kind: Kind, summary: str, build: Callable[[Rng, SceneOptions], SceneQA]) -> Task:
    return Task(name, kind, summary, build, "no levels: pages of any size", pages=True)


_ALL = (
    Task("read", "image", "read a line", text_tasks.read, "1-3, 2-5, 3-7, 5-9 characters, ever smaller"),
    Task("page", "image", "read one of the lines that fill a picture", text_tasks.page, "2, 3, 4, 5 lines", True),
    Task("locate", "image", "read at a place, or place a text", text_tasks.locate, "2, 3, 4, 5 texts, smaller", True),
    Task(
        "rows",
        "image",
        "read a line of a grid of characters",
        dense_tasks.rows,
        "8, 16, 32, 64 characters a tile",
        True,
    ),
    Task("needle", "image", "find the odd character", dense_tasks.needle, "grids of 3, 4, 6, 8 a side", True),
    Task(
        "receipt",
        "image",
        "prices, total and extremes of a receipt",
        receipt_tasks.receipt,
        "2, 2, 3, 4 items; 0, 1, 2, 2 digits after the point",
        True,
    ),
    Task(
        "chart",
        "image",
        "values and extremes of a labelled chart",
        chart_tasks.chart,
        "3 bars with printed values; 3-4 bars with ticks; 4-5, 5-6 bars or points",
    ),
    Task("shape", "image", "colour of a shape, shape of a colour", shape_tasks.shape, "1, 2, 3-4, 4-5 shapes, smaller"),
    Task(
        "count",
        "image",
        "count a shape or a colour",
        shape_tasks.count,
        "up to 3, 4, 6, 9 objects and 0, 2, 3, 5 others, smaller",
    ),
    Task("place", "image", "say where a shape is", shape_tasks.place, "1, 2, 3-4, 5 shapes, smaller"),
    Task(
        "describe",
        "image",
        "name all objects in reading order",
        shape_tasks.describe,
        "1-2, 2-3, 3-4, 4-5 objects, in rows from level 3",
    ),
    Task(
        "compare",
        "image",
        "a question about two pictures",
        compare_tasks.compare,
        "up to 2, 4, 6, 8 characters; numbers to 99, 99, 999, 9999; up to 3, 4, 6, 9 objects",
    ),
    Task("bars", "image", "compare or count coloured bars", chart_tasks.bars, "2-3, 3-4, 4-5, 5-7 bars"),
    Task(
        "direction", "video", "say which way a shape moves", motion_tasks.direction, "1, 1-2, 2-3, 3-4 shapes, slower"
    ),
    Task("appear", "video", "order of appearance", motion_tasks.appear, "2, 3, 4, 5 shapes"),
    Task("events", "video", "count flashes, jumps, appearances", motion_tasks.events, "1, 1, 2, 3 shapes; 4-6 events"),
    Task("digits", "video", "read single characters in order", sequence_tasks.digits, "2, 2-3, 3-4, 4-5 characters"),
    Task("pieces", "video", "read a text shown in pieces", sequence_tasks.pieces, "3-4, 4-5, 5-6, 7-8 characters"),
    Task(
        "flicker",
        "video",
        "read a code that is hidden in most frames",
        sequence_tasks.flicker,
        "2-3, 3-4, 4-5, 5-7 characters; legible in 3, 2, 1 of eight frames, in one frame",
    ),
    Task("board", "video", "read a line of a board that shows few at a time", sequence_tasks.board, "2, 3, 4, 4 lines"),
    Task("static", "video", "rows, page or count without any motion", sequence_tasks.static, "as of these tasks"),
    Task("change", "video", "say what changed, into what, when", moment_tasks.change, "1-2, 2-3, 3-4, 4-5 shapes"),
    Task("when", "video", "say at which time something happens", moment_tasks.when, "1, 2, 3, 4 shapes; texts"),
    Task(
        "long",
        "video",
        "find a code or a shape in few of many frames",
        long_tasks.long,
        "64, 128, 256, 512 frames; needles of 3, 2, 2, 1 frames",
    ),
    Task("match", "video", "find what a picture shows in a clip", mixed_tasks.match, "1, 2, 3, 4 shapes"),
    Task("turns", "video", "answer several questions about a clip", mixed_tasks.turns, "1, 2, 3, 4 shapes"),
    _pages("sign", "image", "read a word, phrase or number on a page of any aspect ratio", signs.sign),
    _pages("lines", "image", "read two to six lines of a page", signs.lines),
    _pages("screen", "image", "read an entry of a menu, table, dialog, terminal, form or list", screens.screen),
    _pages("figures", "image", "name one to six shapes, their colours and places", figures.figures),
    _pages("tally", "image", "count up to nine shapes", figures.tally),
    _pages("graph", "image", "extremes and values of bar and line charts", graphs.graph),
    _pages("outside", "image", "say that nothing is shown, or that a photograph is not known", outside.outside),
    _pages("album", "image", "a conversation about two to four pictures", albums.album),
    _pages("captions", "video", "read characters, pieces and words over time", films.captions),
    _pages("motion", "video", "shapes that move, appear, flash or change", films.motion),
    _pages("reels", "video", "a conversation about pictures and clips", albums.reels),
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
    tiles: int = 1,
) -> Sample:
    """The sample of a task, seed and split at size x size pixels.

    frames: length of a video, drawn from 4 to 16 when None; image tasks take None or 1, and `reels` draws the lengths
    of its clips in any case. level: difficulty from 1 to LEVELS, drawn when None; page tasks take None only. tiles: 1,
    2 (twice as wide or as high) or 4 (both), for tasks of pictures that can; `size` stays the side of one tile. Pages
    are made for tiles of 64 pixels; another `size` scales them.
    Raises UsageError for an unknown task or split, a negative seed, a size that is no multiple of 8, too few frames, a
    level that does not exist, tiles that a task cannot fill.
    """
    chosen = task_named(task)
    check_size(size)
    _check_options(chosen, frames, level, tiles)
    draft = chosen.build(Rng(split, task, seed), SceneOptions(split, frames, level, tiles))
    scenes = () if draft.scene is None else (draft.scene, *draft.further)
    description = {
        "task": task,
        "kind": chosen.kind,
        "split": split,
        "seed": int(seed),  # a numpy integer would not be JSON
        "size": size,
        "level": draft.level,
        "question": draft.question,
        "answer": draft.answer,
        **(draft.scene.description() if draft.scene else {}),
    }
    if draft.further:
        description["further"] = [scene.description() for scene in draft.further]
    if draft.turns:
        description["turns"] = [
            {"question": turn.question, "answer": turn.answer, "media": [scene.description() for scene in turn.media]}
            for turn in draft.turns
        ]
    return Sample(
        task=task,
        media=tuple(_medium(scene, size) for scene in scenes),
        question=draft.question,
        answer=draft.answer,
        level=draft.level,
        description=description,
        more=draft.more,
        turns=tuple(
            Turn(tuple(_medium(scene, size) for scene in turn.media), turn.question, turn.answer)
            for turn in draft.turns
        ),
    )


def _check_options(task: Task, frames: int | None, level: int | None, tiles: int) -> None:
    if task.kind == "image" and frames not in (None, 1):
        raise UsageError(f"task {task.name!r} makes pictures; {frames} frames were asked for")
    if level is not None and not 1 <= level <= LEVELS:
        raise UsageError(f"level is {level}; it must be from 1 to {LEVELS}")
    if level is not None and task.pages:
        raise UsageError(f"level is {level}, but task {task.name!r} has no levels; leave the level out")
    if tiles not in TILES or (tiles > 1 and not task.tiles):
        raise UsageError(
            f"task {task.name!r} was asked for {tiles} tiles; it makes {'1, 2 or 4' if task.tiles else '1'}"
        )


def _medium(scene: Scene | canvas.Canvas | canvas.Reel, size: int) -> Medium:
    if isinstance(scene, canvas.Canvas):
        return Medium("image", canvas.render(scene, size / 64)[None], ())
    if isinstance(scene, canvas.Reel):
        frames = np.stack([canvas.render(frame, size / 64) for frame in scene.frames])
        return Medium("video", frames, scene.timestamps)
    shorter, order = condensed(scene)
    pixels, labels = render(shorter, size)
    if len(order) != len(pixels):
        pixels, labels = pixels[order], labels[order]
    return Medium("video" if scene.timestamps else "image", pixels, scene.timestamps, labels)
