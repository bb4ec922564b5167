"""Tasks whose examples are generated: the protocol of their providers, and how training finds them.

A package provides tasks through an entry point of the group `pvc.tasks`; `pvc.lab` provides the synthetic ones.
Training on files alone needs none. Called by `mixture.py`, `sample_cache.py`, `model_init.py` and `pipeline.py`.

F frames, H and W pixels, P patches a side.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pvc.errors import UsageError

GROUP = "pvc.tasks"


@dataclass(frozen=True)
class TaskOptions:
    """How one example of a task is generated.

    Attributes:
        size: pixels a side.
        split: "train", or "train_all", which includes what "train" holds out.
        frames: number of frames of a clip; None for pictures.
        level: of difficulty; None for any.
        tiles: number of tiles of a picture; None for the task's default.
        questions: maximum number of questions about its media, each in a separate turn; None for all.
        characters: maximum number of characters of all questions and answers if there are several; None for any.
        quiet_frames: number of frames without content before every clip.
        start: time of the first frame of every clip, in seconds.
    """

    size: int
    split: Literal["train", "train_all"] = "train"
    frames: int | None = None
    level: int | None = None
    tiles: int | None = None
    questions: int | None = None
    characters: int | None = None
    quiet_frames: int = 0
    start: float = 0.0


@dataclass(frozen=True)
class GeneratedExample:
    """One example of a task.

    Attributes:
        messages: a conversation whose media are arrays or `pvc.media.Video`.
        patches: uint8 frames `(F, H, W, 3)` of its media and int64 classes of their patches `(F, P, P)`; empty for
            tasks without classes.
        origin: the provider's description of the example; only the provider reads it.
    """

    messages: Sequence[dict[str, Any]]
    patches: tuple[tuple[NDArray[np.uint8], NDArray[np.int64]], ...] = ()
    origin: Any = None


@dataclass(frozen=True)
class HeldOut:
    """Examples to measure accuracy on.

    Attributes:
        count: number of examples.
        levels: of difficulty, used in turn; None for any.
        tiles: number of tiles of a picture.
        frames: number of frames of a clip.
        image_steps: number of steps of a picture.
    """

    count: int
    levels: tuple[int, ...] | None
    tiles: int
    frames: int
    image_steps: int


class TaskProvider(Protocol):
    """Generator of examples of tasks. All results depend on the arguments alone."""

    @property
    def tasks(self) -> Mapping[str, Literal["image", "video"]]:
        """Names of all tasks, each with the kind of its media: pictures or a clip."""
        ...

    @property
    def num_patch_classes(self) -> int:
        """Number of classes of patches; 0 if no task has any."""
        ...

    def has_patch_classes(self, task: str) -> bool:
        """Return whether the examples of a task have a class for every patch."""
        ...

    def texts(self, tasks: Iterable[str]) -> list[str]:
        """Return questions and answers of tasks, from which a tokenizer learns."""
        ...

    def generate(self, task: str, seed: int, options: TaskOptions) -> GeneratedExample:
        """Generate one example.

        Args:
            task: name of the task.
            seed: of the example.
            options: size, length and difficulty.

        Raises:
            PVCError: the task does not support the options.
        """
        ...

    def measure(self, engine: Any, task: str, held_out: HeldOut) -> float:
        """Return the fraction of held-out examples that the model answers exactly, in free-running generation.

        Args:
            engine: a `pvc.engine.Engine`.
            task: name of the task.
            held_out: number and kind of the examples.
        """
        ...


@functools.cache
def find_tasks() -> Mapping[str, TaskProvider]:
    """Load all providers.

    Returns:
        The provider of every task, by name.
    """
    providers: dict[str, TaskProvider] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        provider: TaskProvider = entry.load()
        providers |= dict.fromkeys(provider.tasks, provider)
    return providers


def get_provider(task: str) -> TaskProvider:
    """Return the provider of a task.

    Raises:
        UsageError: no installed package provides it.
    """
    check_tasks([task])
    return find_tasks()[task]


def check_tasks(tasks: Iterable[str]) -> None:
    """Raise UsageError for tasks that no installed package provides."""
    names = set(tasks)
    if not names:
        return
    known = find_tasks()
    if unknown := sorted(names - set(known)):
        there_are = f"there are {', '.join(known)}" if known else "no installed package provides any; reinstall pvc-vlm"
        raise UsageError(f"unknown tasks: {', '.join(unknown)}; {there_are}")


def get_kind(task: str) -> Literal["image", "video"]:
    """Return "video" if examples of a task have a clip, otherwise "image"."""
    return get_provider(task).tasks[task]


__all__ = [
    "GROUP",
    "GeneratedExample",
    "HeldOut",
    "TaskOptions",
    "TaskProvider",
    "check_tasks",
    "find_tasks",
    "get_kind",
    "get_provider",
]
