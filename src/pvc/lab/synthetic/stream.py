"""An endless mixture of samples with exact random access, so that training can stop and resume.

Sample i depends only on (seed, i), the weights and the options, never on samples read before. Give each of several
worker processes a different stride of indices. Exported by `pvc.lab.synthetic`.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Mapping

from pvc.errors import UsageError
from pvc.lab.synthetic.scene import Sample
from pvc.lab.synthetic.seeding import Split, mix
from pvc.lab.synthetic.tasks import check_size, get_task, make


class SampleStream:
    """An iterator over the samples start, start + 1, ... of a mixture of tasks.

    Its only state is `position`, the index of the next sample.

    Args:
        tasks_with_weights: names of tasks and their weights, all above zero.
        seed: seed of the mixture, from 0.
        start: index of the first sample.
        size: pixels of a side, a multiple of 8.
        split: what samples may show.
        frames: length of clips; sampled if None. Tasks of pictures ignore it.

    Raises:
        UsageError: There are no tasks, a weight is not above zero, a number is negative, or a name or size is not
            allowed.
    """

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
        self._tasks = [get_task(name) for name in tasks_with_weights]
        self._cumulative = list(itertools.accumulate(tasks_with_weights.values()))
        self._seed, self._size, self._split, self._frames = seed, size, split, frames
        self.position = start

    def task_at(self, index: int) -> str:
        """Return the name of the task of sample `index` without generating the sample."""
        return self._tasks[self._get_task_index(index)].name

    def sample_at(self, index: int) -> Sample:
        """Return sample `index` without moving `position`.

        Raises:
            UsageError: The index is negative.
        """
        if index < 0:
            raise UsageError(f"index is {index}; it must not be negative")
        task = self._tasks[self._get_task_index(index)]
        frames = self._frames if task.kind == "video" else None
        return make(task.name, mix(2, self._seed, index) >> 1, size=self._size, split=self._split, frames=frames)

    def _get_task_index(self, index: int) -> int:
        """Return the position in the task list of the task of a sample."""
        threshold = (mix(1, self._seed, index) / 2**64) * self._cumulative[-1]
        return min(bisect_right(self._cumulative, threshold), len(self._cumulative) - 1)

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
    """Return an endless iterator of samples of several tasks, in proportion to their weights.

    Args:
        tasks_with_weights: names of tasks and their weights.
        seed: seed of the mixture.
        start: index of the first sample.
        size: pixels of a side.
        split: what samples may show.
        frames: length of clips.

    Raises:
        UsageError: An argument is not allowed; see `SampleStream`.
    """
    return SampleStream(tasks_with_weights, seed, start, size=size, split=split, frames=frames)
