"""Where randomness comes from: one independent generator per (split, task, seed), and the split of strings.

Nothing here uses Python's salted hash(), so that every process and platform draws the same scenes. It leaves out what
the numbers are used for. Used by the task modules, `make` and the stream.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Literal, TypeVar, get_args

import numpy as np

from pvc.errors import UsageError

Split = Literal["train", "train_all", "test", "fonts", "colours", "layouts"]
"""All but "train" and "train_all" are held out: seeds and strings are others. "fonts", "colours" and "layouts" also
show, for what is asked about, only fonts, colour pairs or layouts that neither "train" nor "test" shows; "train_all"
shows all colour pairs and layouts."""
SPLITS: tuple[Split, ...] = get_args(Split)
T = TypeVar("T")

_MASK = (1 << 64) - 1
_BLOCK = 96  # floats drawn at a time: most scenes need one block, and a scalar draw from numpy costs 2 us


@functools.lru_cache(maxsize=1024)
def stable_hash(text: str) -> int:
    """64-bit hash of a string, the same everywhere."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


def mix(*values: int) -> int:
    """64-bit mix of integers (the finaliser of SplitMix64, Steele et al. 2014): cheap random access for the stream."""
    state = 0x9E3779B97F4A7C15
    for value in values:
        state = (state ^ (value & _MASK)) & _MASK
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def string_split(text: str) -> Literal["train", "test"]:
    """Which splits a string belongs to, in any case: one in ten is never seen in training, whatever task shows it."""
    digest = hashlib.blake2b(b"string:" + text.upper().encode("utf-8"), digest_size=8).digest()
    return "test" if int.from_bytes(digest, "little") % 10 == 0 else "train"


def is_for(text: str, split: Split) -> bool:
    """Whether a string may be what a split asks for: training strings in "train", the others everywhere else."""
    return (string_split(text) == "train") == (split in ("train", "train_all"))


class Rng:
    """Draws for one sample, rounded to 1/1000 where they are floats so that descriptions are short and exact."""

    def __init__(self, split: str, task: str, seed: int) -> None:
        if split not in SPLITS:
            raise UsageError(f"split is {split!r}; it must be one of {', '.join(SPLITS)}")
        if seed < 0:
            raise UsageError(f"seed is {seed}; it must not be negative")
        entropy = [stable_hash(f"pvc.synthetic:{split}:{task}"), seed]
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
        self._block: list[float] = []

    def random(self) -> float:
        """Uniform in [0, 1)."""
        if not self._block:
            self._block = self._generator.random(_BLOCK).tolist()
        return self._block.pop()

    def uniform(self, low: float, high: float) -> float:
        """Uniform between two bounds, rounded to three decimals."""
        return round(low + (high - low) * self.random(), 3)

    def integer(self, low: int, high: int) -> int:
        """Uniform over low..high, both included."""
        return low + int(self.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.random() < probability

    def choice(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[int(self.random() * len(options))]

    def weighted(self, options: dict[T, float]) -> T:
        """One of the keys, with probability in proportion to its value."""
        mark = self.random() * sum(options.values())
        for option, weight in options.items():
            mark -= weight
            if mark < 0:
                return option
        return next(reversed(options))

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """`count` different options in random order."""
        pool = list(options)
        for i in range(count):
            j = self.integer(i, len(pool) - 1)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:count]
