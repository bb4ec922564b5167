"""Stored outputs of a teacher: its most probable tokens and last hidden states, computed once before training.

Called by `setup.py` and `answer_data.py`. Leaves out the teacher's answers as text (`answer_data.AnswerLog`).

P answer positions, R positions of text after the media, k stored tokens a position, D hidden width.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from pvc.errors import ConfigError
from pvc.train.json_lines import append_json_line, read_json_lines

TOP = 64
_INDICES, _LOG_PROBS, _HIDDEN, _INDEX = "indices.i32", "log_probs.f32", "hidden.f16", "index.jsonl"
_SMALLEST = 1e-7
STORED = ("teacher_indices", "teacher_log_probs", "teacher_hidden")
CacheKey = tuple[str, str, int]


@dataclass(frozen=True)
class TeacherOutputs:
    """Outputs of a teacher for one sample.

    Attributes:
        indices: `(P, k)` int64, the most probable tokens.
        log_probs: `(P, k)` float32, their log-probabilities.
        hidden: `(R, D)` float16, last hidden states.
    """

    indices: torch.Tensor
    log_probs: torch.Tensor
    hidden: torch.Tensor

    @classmethod
    def from_run(cls, hidden: torch.Tensor, log_probs: torch.Tensor) -> TeacherOutputs:
        """Keep the `TOP` most probable tokens of `(P, V)` log-probabilities, and `(R, D)` hidden states in float16.

        Raises:
            ConfigError: a hidden state does not fit into float16.
        """
        top, indices = log_probs.topk(min(TOP, log_probs.shape[-1]), -1)
        half = hidden.half()
        if not bool(torch.isfinite(half).all()):
            raise ConfigError(
                f"a hidden state of the teacher is {hidden.abs().max().item():.3g}, more than float16 can store; "
                "set distill.cache to false"
            )
        return cls(indices.cpu(), top.cpu(), half.cpu())

    def named(self) -> dict[str, torch.Tensor]:
        """Return the tensors under the names that `AnswerDistiller.forward` has."""
        return dict(zip(STORED, (self.indices, self.log_probs, self.hidden), strict=True))


def top_divergence(student: torch.Tensor, indices: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
    """KL divergence of a student from a teacher of which only the most probable tokens are known.

    All other tokens count as one event. The result is therefore at most the whole divergence, and 0 where the two
    distributions are equal.

    Args:
        student: `(P, V)` log-probabilities.
        indices, log_probs: `(P, k)`, of the teacher.

    Returns:
        `(P,)`, in nats.
    """
    ours = student.gather(-1, indices)
    chances = log_probs.exp()
    inside = (chances * (log_probs - ours)).sum(-1)
    rest = (1 - chances.sum(-1)).clamp(min=0)
    our_rest = (1 - ours.exp().sum(-1)).clamp(min=_SMALLEST)
    return inside + rest * (rest.clamp(min=_SMALLEST).log() - our_rest.log())


def stored_nbytes(answer_positions: int, after_positions: int, width: int, vocabulary: int) -> int:
    """Bytes of the outputs for so many positions."""
    return answer_positions * min(TOP, vocabulary) * 8 + after_positions * width * 2


class TeacherCache:
    """Outputs of a teacher in a directory, by medium, question and number of frames.

    An entry is added to its data files before the index names it, so that a process that is killed leaves a directory
    that can be continued.

    Args:
        directory: is created by the first `add`.
        top, width: k and D.
    """

    def __init__(self, directory: Path, top: int, width: int) -> None:
        self.directory, self.top, self.width = directory, top, width
        self.places: dict[CacheKey, tuple[int, int, int, int]] = {}
        self._ends = 0, 0
        for entry in read_json_lines(directory / _INDEX):
            first, count, first_after, after = entry["place"]
            self.places[entry["medium"], entry["question"], entry["frames"]] = first, count, first_after, after
            self._ends = first + count, first_after + after

    def __contains__(self, key: CacheKey) -> bool:
        return key in self.places

    @property
    def nbytes(self) -> int:
        """Bytes of all entries."""
        positions, after = self._ends
        return positions * self.top * 8 + after * self.width * 2

    def add(self, key: CacheKey, outputs: TeacherOutputs) -> None:
        """Append the outputs of one sample."""
        self.directory.mkdir(parents=True, exist_ok=True)
        first, first_after = self._ends
        count, after = len(outputs.indices), len(outputs.hidden)
        self._write(_INDICES, first * self.top * 4, outputs.indices.int().numpy())
        self._write(_LOG_PROBS, first * self.top * 4, outputs.log_probs.numpy())
        self._write(_HIDDEN, first_after * self.width * 2, outputs.hidden.numpy())
        place = first, count, first_after, after
        entry = {"medium": key[0], "question": key[1], "frames": key[2], "place": place}
        append_json_line(self.directory / _INDEX, entry)
        self.places[key] = place
        self._ends = first + count, first_after + after

    def _write(self, name: str, offset: int, values: np.ndarray) -> None:
        path = self.directory / name
        with path.open("r+b" if path.exists() else "w+b") as file:
            file.truncate(offset)  # what lies behind belongs to no entry
            file.seek(0, os.SEEK_END)
            file.write(values.tobytes())

    def get(self, key: CacheKey) -> TeacherOutputs:
        """Read the outputs of one sample; raises KeyError where there are none."""
        first, count, first_after, after = self.places[key]

        def read(name: str, dtype: Any, start: int, rows: int, columns: int) -> torch.Tensor:
            size = np.dtype(dtype).itemsize * columns
            values = np.fromfile(self.directory / name, dtype, rows * columns, offset=start * size)
            return torch.from_numpy(values.reshape(rows, columns))

        return TeacherOutputs(
            read(_INDICES, np.int32, first, count, self.top).long(),
            read(_LOG_PROBS, np.float32, first, count, self.top),
            read(_HIDDEN, np.float16, first_after, after, self.width),
        )


def kl_divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """KL divergence `(P,)` of a student from a teacher; both `(P, V)` log-probabilities."""
    return functional.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)


__all__ = [
    "STORED",
    "TOP",
    "CacheKey",
    "TeacherCache",
    "TeacherOutputs",
    "kl_divergence",
    "stored_nbytes",
    "top_divergence",
]
