"""An endless mixture of samples with exact random access, so that a training can stop and go on.

Sample i depends on (seed, i), the weights and the options only, never on what was read before. It leaves out batches
and worker processes: give each worker its own stride of indices. Used by training and evaluation.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Mapping

from pvc.errors import UsageError
from pvc.lab.synthetic.scene import Sample
from pvc.lab.synthetic.seeding import Split, mix
from pvc.lab.synthetic.tasks import check_size, make, task_named


class SampleStream:
    """Samples start, start + 1, ...; `position` is the index of the next one, and is all there is to save."""

    def __init__(
        self,
        tasks_with_weights: Mapping[str, float],
        seed: int,
        start: int = 0,
        *,
        size: int = 64,
        split: Split = "train",
        frames: int | None = None,
    ) -> None:
        if not tasks_with_weights or any(w <= 0 for w in tasks_with_weights.values()):
            raise UsageError(f"tasks need weights above zero; got {dict(tasks_with_weights)}")
        if seed < 0 or start < 0:
            raise UsageError(f"seed {seed} and start {start} must not be negative")
        check_size(size)
        self._tasks = [task_named(name) for name in tasks_with_weights]
        self._marks = list(itertools.accumulate(tasks_with_weights.values()))
        self._seed, self._size, self._split, self._frames = seed, size, split, frames
        self.position = start

    def task_at(self, index: int) -> str:
        """Name of the task of sample `index`, without drawing it."""
        return self._tasks[self._which(index)].name

    def sample_at(self, index: int) -> Sample:
        """Sample `index`; does not move `position`."""
        if index < 0:
            raise UsageError(f"index is {index}; it must not be negative")
        task = self._tasks[self._which(index)]
        frames = self._frames if task.kind == "video" else None
        return make(task.name, mix(2, self._seed, index) >> 1, size=self._size, split=self._split, frames=frames)

    def _which(self, index: int) -> int:
        mark = (mix(1, self._seed, index) / 2**64) * self._marks[-1]
        return min(bisect_right(self._marks, mark), len(self._marks) - 1)

    def __iter__(self) -> Iterator[Sample]:
        return self

    def __next__(self) -> Sample:
        sample = self.sample_at(self.position)
        self.position += 1
        return sample


def stream(
    tasks_with_weights: Mapping[str, float],
    seed: int,
    start: int = 0,
    *,
    size: int = 64,
    split: Split = "train",
    frames: int | None = None,
) -> SampleStream:
    """An endless iterator of samples of several tasks, drawn in proportion to their weights; see SampleStream."""
    return SampleStream(tasks_with_weights, seed, start, size=size, split=split, frames=frames)
