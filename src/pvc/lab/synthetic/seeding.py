"""The source of randomness: one generator per (split, task, seed), and the assignment of strings to splits.

Python's salted hash() is never used, so that every process and platform generates the same scenes. Called by the task
modules, `make` and the stream.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Literal, TypeVar, get_args

import numpy as np

from pvc.errors import UsageError

Split = Literal["train", "train_all", "test", "fonts", "colours", "layouts"]
"""All splits but "train" and "train_all" are held out: their seeds and strings differ. In "fonts", "colours" and
"layouts", the objects in question also have fonts, colour pairs or layouts that are in neither "train" nor "test".
"train_all" has all colour pairs and layouts."""
SPLITS: tuple[Split, ...] = get_args(Split)
T = TypeVar("T")

_MASK = (1 << 64) - 1
_BLOCK = 96  # floats sampled at a time: sampling one with numpy costs 2 us, and a scene usually needs one block


@functools.lru_cache(maxsize=1024)
def stable_hash(text: str) -> int:
    """Return a 64-bit hash of a string that is the same on every platform."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


def mix(*values: int) -> int:
    """Return a 64-bit mix of integers (the finaliser of SplitMix64, Steele et al. 2014), for cheap random access."""
    state = 0x9E3779B97F4A7C15
    for value in values:
        state = (state ^ (value & _MASK)) & _MASK
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def get_string_split(text: str) -> Literal["train", "test"]:
    """Return the split of a string, ignoring case. One in ten is held out of training in all tasks."""
    digest = hashlib.blake2b(b"string:" + text.upper().encode("utf-8"), digest_size=8).digest()
    return "test" if int.from_bytes(digest, "little") % 10 == 0 else "train"


def is_text_allowed(text: str, split: Split) -> bool:
    """Return whether a question of a split may have a string as its answer.

    Args:
        text: the string.
        split: "train" and "train_all" take training strings, all other splits take the held-out ones.
    """
    return (get_string_split(text) == "train") == (split in ("train", "train_all"))


class Rng:
    """A random generator for one sample.

    Floats are rounded to 1/1000, so that descriptions are short and exact.

    Args:
        split: one of SPLITS.
        task: name of the task.
        seed: number of the sample, from 0.

    Raises:
        UsageError: The split does not exist or the seed is negative.
    """

    def __init__(self, split: str, task: str, seed: int) -> None:
        if split not in SPLITS:
            raise UsageError(f"split is {split!r}; it must be one of {', '.join(SPLITS)}")
        if seed < 0:
            raise UsageError(f"seed is {seed}; it must not be negative")
        entropy = [stable_hash(f"pvc.synthetic:{split}:{task}"), seed]
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
        self._block: list[float] = []

    def random(self) -> float:
        """Return a float, uniform in [0, 1)."""
        if not self._block:
            self._block = self._generator.random(_BLOCK).tolist()
        return self._block.pop()

    def uniform(self, low: float, high: float) -> float:
        """Return a float, uniform between two bounds, rounded to three decimals.

        Args:
            low: lower bound.
            high: upper bound.
        """
        return round(low + (high - low) * self.random(), 3)

    def integer(self, low: int, high: int) -> int:
        """Return an integer, uniform between two bounds.

        Args:
            low: smallest value.
            high: largest value.
        """
        return low + int(self.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.random() < probability

    def choice(self, options: Sequence[T]) -> T:
        """Return one of the options, all equally likely."""
        return options[int(self.random() * len(options))]

    def weighted(self, options: dict[T, float]) -> T:
        """Return one of the keys, with a probability in proportion to its value."""
        remaining = self.random() * sum(options.values())
        for option, weight in options.items():
            remaining -= weight
            if remaining < 0:
                return option
        return next(reversed(options))

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """Return different options in random order.

        Args:
            options: what to choose from.
            count: number of options to return.
        """
        pool = list(options)
        for i in range(count):
            j = self.integer(i, len(pool) - 1)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:count]
