"""The list of tasks, and `make`, which generates one sample from task, seed and split.

The result is the same in every process and on every machine. `stream` has endless mixtures, `dataset` writes files.
Called by training, evaluation and the command line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
from pvc.lab.synthetic.veils import merge_equal_frames

MAX_SIZE = 1024
TILES = (1, 2, 4)


@dataclass(frozen=True)
class Task:
    """A kind of question.

    Attributes:
        name: key in TASKS.
        kind: "image" or "video".
        summary: what the question asks for, in a few words; printed by `pvc lab synth --list`.
        build: generates a scene with its questions and answers from a random generator and the options.
        levels: what the level sets, in a few words.
        tiles: whether its pictures can be larger than 64 x 64 units.
        pages: whether it makes pages of any size (`pvc.lab.synthetic.pages`). Pages have neither levels nor patch
            labels.
    """

    name: str
    kind: Kind
    summary: str
    build: Callable[[Rng, SceneOptions], SceneQA]
    levels: str = ""
    tiles: bool = False
    pages: bool = False


def _page_task(name: str, kind: Kind, summary: str, build: Callable[[Rng, SceneOptions], SceneQA]) -> Task:
    return Task(name, kind, summary, build, "no levels: pages of any size", pages=True)


_TASK_LIST = (
    Task("read", "image", "read a line", text_tasks.build_read, "1-3, 2-5, 3-7, 5-9 characters, ever smaller"),
    Task("page", "image", "read one of the lines that fill a picture", text_tasks.build_page, "2, 3, 4, 5 lines", True),
    Task(
        "locate",
        "image",
        "read at a place, or place a text",
        text_tasks.build_locate,
        "2, 3, 4, 5 texts, smaller",
        True,
    ),
    Task(
        "rows",
        "image",
        "read a line of a grid of characters",
        dense_tasks.build_rows,
        "8, 16, 32, 64 characters a tile",
        True,
    ),
    Task("needle", "image", "find the odd character", dense_tasks.build_needle, "grids of 3, 4, 6, 8 a side", True),
    Task(
        "receipt",
        "image",
        "prices, total and extremes of a receipt",
        receipt_tasks.build_receipt,
        "2, 2, 3, 4 items; 0, 1, 2, 2 digits after the point",
        True,
    ),
    Task(
        "chart",
        "image",
        "values and extremes of a labelled chart",
        chart_tasks.build_chart,
        "3 bars with printed values; 3-4 bars with ticks; 4-5, 5-6 bars or points",
    ),
    Task(
        "shape",
        "image",
        "colour of a shape, shape of a colour",
        shape_tasks.build_shape,
        "1, 2, 3-4, 4-5 shapes, smaller",
    ),
    Task(
        "count",
        "image",
        "count a shape or a colour",
        shape_tasks.build_count,
        "up to 3, 4, 6, 9 objects and 0, 2, 3, 5 others, smaller",
    ),
    Task("place", "image", "say where a shape is", shape_tasks.build_place, "1, 2, 3-4, 5 shapes, smaller"),
    Task(
        "describe",
        "image",
        "name all objects in reading order",
        shape_tasks.build_describe,
        "1-2, 2-3, 3-4, 4-5 objects, in rows from level 3",
    ),
    Task(
        "compare",
        "image",
        "a question about two pictures",
        compare_tasks.build_compare,
        "up to 2, 4, 6, 8 characters; numbers to 99, 99, 999, 9999; up to 3, 4, 6, 9 objects",
    ),
    Task("bars", "image", "compare or count coloured bars", chart_tasks.build_bars, "2-3, 3-4, 4-5, 5-7 bars"),
    Task(
        "direction",
        "video",
        "say which way a shape moves",
        motion_tasks.build_direction,
        "1, 1-2, 2-3, 3-4 shapes, slower",
    ),
    Task("appear", "video", "order of appearance", motion_tasks.build_appear, "2, 3, 4, 5 shapes"),
    Task(
        "events",
        "video",
        "count flashes, jumps, appearances",
        motion_tasks.build_events,
        "1, 1, 2, 3 shapes; 4-6 events",
    ),
    Task(
        "digits", "video", "read single characters in order", sequence_tasks.build_digits, "2, 2-3, 3-4, 4-5 characters"
    ),
    Task(
        "pieces", "video", "read a text shown in pieces", sequence_tasks.build_pieces, "3-4, 4-5, 5-6, 7-8 characters"
    ),
    Task(
        "flicker",
        "video",
        "read a code that is hidden in most frames",
        sequence_tasks.build_flicker,
        "2-3, 3-4, 4-5, 5-7 characters; legible in 3, 2, 1 of eight frames, in one frame",
    ),
    Task(
        "board",
        "video",
        "read a line of a board that shows few at a time",
        sequence_tasks.build_board,
        "2, 3, 4, 4 lines",
    ),
    Task("static", "video", "rows, page or count without any motion", sequence_tasks.build_static, "as of these tasks"),
    Task(
        "change", "video", "say what changed, into what, when", moment_tasks.build_change, "1-2, 2-3, 3-4, 4-5 shapes"
    ),
    Task("when", "video", "say at which time something happens", moment_tasks.build_when, "1, 2, 3, 4 shapes; texts"),
    Task(
        "long",
        "video",
        "find a code or a shape in few of many frames",
        long_tasks.build_long,
        "64, 128, 256, 512 frames; needles of 3, 2, 2, 1 frames",
    ),
    Task("match", "video", "find what a picture shows in a clip", mixed_tasks.build_match, "1, 2, 3, 4 shapes"),
    Task("turns", "video", "answer several questions about a clip", mixed_tasks.build_turns, "1, 2, 3, 4 shapes"),
    _page_task("sign", "image", "read a word, phrase or number on a page of any aspect ratio", signs.build_sign),
    _page_task("lines", "image", "read two to six lines of a page", signs.build_lines),
    _page_task(
        "screen", "image", "read an entry of a menu, table, dialog, terminal, form or list", screens.build_screen
    ),
    _page_task("figures", "image", "name one to six shapes, their colours and places", figures.build_figures),
    _page_task("tally", "image", "count up to nine shapes", figures.build_tally),
    _page_task("graph", "image", "extremes and values of bar and line charts", graphs.build_graph),
    _page_task(
        "outside", "image", "say that nothing is shown, or that a photograph is not known", outside.build_outside
    ),
    _page_task("album", "image", "a conversation about two to four pictures", albums.build_album),
    _page_task("captions", "video", "read characters, pieces and words over time", films.build_captions),
    _page_task("motion", "video", "shapes that move, appear, flash or change", films.build_motion),
    _page_task("reels", "video", "a conversation about pictures and clips", albums.build_reels),
)
TASKS: dict[str, Task] = {task.name: task for task in _TASK_LIST}


def get_task(name: str) -> Task:
    """Return one of TASKS by its name.

    Raises:
        UsageError: No task has this name.
    """
    if name not in TASKS:
        raise UsageError(f"task {name!r} is not one of {', '.join(TASKS)}")
    return TASKS[name]


def check_size(size: int) -> None:
    """Check that a size in pixels is a multiple of PATCH, at least 4 * PATCH and at most MAX_SIZE.

    Raises:
        UsageError: The size is not allowed.
    """
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
    """Generate the sample of a task, seed and split.

    Args:
        task: one of TASKS.
        seed: number of the sample, from 0.
        size: pixels of a tile's side, a multiple of 8. Pages are laid out for tiles of 64 pixels; others scale them.
        split: what the sample may show; see `Split`.
        frames: length of a video; sampled if None. Image tasks take None or 1. `reels` always samples it.
        level: difficulty from 1 to LEVELS; sampled if None. Page tasks take None only.
        tiles: 1, 2 (twice as wide or as high) or 4 (both), for the tasks whose pictures can have several tiles.

    Raises:
        UsageError: The task or split does not exist, the seed is negative, or the size is not a multiple of 8. Also if
            the task does not have this level or number of tiles, or needs more frames.
    """
    definition = get_task(task)
    check_size(size)
    _check_options(definition, frames, level, tiles)
    scene_qa = definition.build(Rng(split, task, seed), SceneOptions(split, frames, level, tiles))
    scenes = () if scene_qa.scene is None else (scene_qa.scene, *scene_qa.further)
    # A numpy integer as the seed would not be JSON.
    header = {"task": task, "kind": definition.kind, "split": split, "seed": int(seed), "size": size}
    return Sample(
        task=task,
        media=tuple(_render_medium(scene, size) for scene in scenes),
        question=scene_qa.question,
        answer=scene_qa.answer,
        level=scene_qa.level,
        description=header | _describe(scene_qa),
        more=scene_qa.more,
        turns=tuple(
            Turn(tuple(_render_medium(scene, size) for scene in turn.media), turn.question, turn.answer)
            for turn in scene_qa.turns
        ),
    )


def _describe(scene_qa: SceneQA) -> dict[str, Any]:
    """Return scenes, questions and answers as JSON values."""
    description = {
        "level": scene_qa.level,
        "question": scene_qa.question,
        "answer": scene_qa.answer,
        **(scene_qa.scene.description() if scene_qa.scene else {}),
    }
    if scene_qa.further:
        description["further"] = [scene.description() for scene in scene_qa.further]
    if scene_qa.turns:
        description["turns"] = [
            {"question": turn.question, "answer": turn.answer, "media": [scene.description() for scene in turn.media]}
            for turn in scene_qa.turns
        ]
    return description


def _check_options(task: Task, frames: int | None, level: int | None, tiles: int) -> None:
    if task.kind == "image" and frames not in (None, 1):
        raise UsageError(f"task {task.name!r} makes pictures, but {frames} frames are requested; leave frames out")
    if level is not None and not 1 <= level <= LEVELS:
        raise UsageError(f"level is {level}; it must be from 1 to {LEVELS}")
    if level is not None and task.pages:
        raise UsageError(f"level is {level}, but task {task.name!r} has no levels; leave the level out")
    if tiles not in TILES or (tiles > 1 and not task.tiles):
        raise UsageError(
            f"task {task.name!r} was asked for {tiles} tiles; it makes {'1, 2 or 4' if task.tiles else '1'}"
        )


def _render_medium(scene: Scene | canvas.Canvas | canvas.Reel, size: int) -> Medium:
    if isinstance(scene, canvas.Canvas):
        return Medium("image", canvas.render(scene, size / 64)[None], ())
    if isinstance(scene, canvas.Reel):
        frames = np.stack([canvas.render(frame, size / 64) for frame in scene.frames])
        return Medium("video", frames, scene.timestamps)
    shorter, order = merge_equal_frames(scene)
    pixels, labels = render(shorter, size)
    if len(order) != len(pixels):
        pixels, labels = pixels[order], labels[order]
    return Medium("video" if scene.timestamps else "image", pixels, scene.timestamps, labels)
