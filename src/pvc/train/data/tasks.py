"""Tasks whose examples are generated: the protocol of whatever provides them, and how training finds it.

A package offers tasks through an entry point of the group `pvc.tasks`; `pvc.lab` offers the synthetic ones. Training on
files alone needs none. Called by `mixture.py`, `sample_cache.py`, `model_init.py` and `pipeline.py`.

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
        split: "train", or "train_all" with what "train" holds out.
        frames: of a clip; None for pictures.
        level: of difficulty; None for any.
        tiles: of a picture, one or several.
        questions: asked about its media at most, each in a turn; None for all.
        characters: of all questions and answers together, beyond the first; None for any number.
        quiet_frames: without content before every clip.
        start: seconds of the first frame of every clip.
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
        origin: what the provider made it of, for the provider alone.
    """

    messages: Sequence[dict[str, Any]]
    patches: tuple[tuple[NDArray[np.uint8], NDArray[np.int64]], ...] = ()
    origin: Any = None


@dataclass(frozen=True)
class HeldOut:
    """Examples to measure accuracy on: how many, their levels in turn, their tiles, frames and steps of a picture."""

    count: int
    levels: tuple[int, ...] | None
    tiles: int
    frames: int
    image_steps: int


class TaskProvider(Protocol):
    """Generates examples of tasks. All of it depends on its arguments alone."""

    @property
    def tasks(self) -> Mapping[str, Literal["image", "video"]]:
        """Names of all tasks, and whether an example shows pictures or has a clip."""
        ...

    @property
    def num_patch_classes(self) -> int:
        """Classes of patches, 0 if no task has any."""
        ...

    def has_patch_classes(self, task: str) -> bool:
        """Return whether the examples of a task name the class of every patch."""
        ...

    def texts(self, tasks: Iterable[str]) -> list[str]:
        """Return questions and answers of tasks, for a tokenizer to learn from."""
        ...

    def generate(self, task: str, seed: int, options: TaskOptions) -> GeneratedExample:
        """Return one example; raises PVCError for options that the task does not have."""
        ...

    def measure(self, engine: Any, task: str, held_out: HeldOut) -> float:
        """Return the part of held-out examples that the model answers exactly, in free-running generation."""
        ...


@functools.cache
def find_tasks() -> Mapping[str, TaskProvider]:
    """Load all providers.

    Returns:
        The provider of every task, by name.
    """
    found: dict[str, TaskProvider] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        provider: TaskProvider = entry.load()
        found |= dict.fromkeys(provider.tasks, provider)
    return found


def provider_of(task: str) -> TaskProvider:
    """Return the provider of a task.

    Raises:
        UsageError: no installed package provides it.
    """
    check_tasks([task])
    return find_tasks()[task]


def check_tasks(tasks: Iterable[str]) -> None:
    """Raise UsageError for tasks that no installed package provides."""
    wanted = set(tasks)
    if not wanted:
        return
    known = find_tasks()
    if unknown := sorted(wanted - set(known)):
        there_are = f"there are {', '.join(known)}" if known else "no installed package provides any; reinstall pvc-vlm"
        raise UsageError(f"unknown tasks: {', '.join(unknown)}; {there_are}")


def kind_of(task: str) -> Literal["image", "video"]:
    """Return "video" if examples of a task have a clip, otherwise "image"."""
    return provider_of(task).tasks[task]


__all__ = [
    "GROUP",
    "GeneratedExample",
    "HeldOut",
    "TaskOptions",
    "TaskProvider",
    "check_tasks",
    "find_tasks",
    "kind_of",
    "provider_of",
]
