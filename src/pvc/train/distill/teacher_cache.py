"""Store outputs of a teacher: its most probable tokens and last hidden states, computed once before training.

The teacher's answers as text are in `answer_data.AnswerLog`. Called by `setup.py` and `answer_data.py`.

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

TOP_K = 64
_INDICES, _LOG_PROBS, _HIDDEN, _INDEX = "indices.i32", "log_probs.f32", "hidden.f16", "index.jsonl"
_MIN_PROBABILITY = 1e-7
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
        """Select the `TOP_K` most probable tokens, and convert hidden states to float16.

        Args:
            hidden: `(R, D)` float.
            log_probs: `(P, V)` float.

        Raises:
            ConfigError: a hidden state does not fit into float16.
        """
        top, indices = log_probs.topk(min(TOP_K, log_probs.shape[-1]), -1)
        half = hidden.half()
        if not bool(torch.isfinite(half).all()):
            raise ConfigError(
                f"a hidden state of the teacher is {hidden.abs().max().item():.3g}, more than float16 can store; "
                "set distill.cache to false"
            )
        return cls(indices.cpu(), top.cpu(), half.cpu())

    def get_batch(self) -> dict[str, torch.Tensor]:
        """Return the tensors by their names in `AnswerDistiller.forward`."""
        return dict(zip(STORED, (self.indices, self.log_probs, self.hidden), strict=True))


def top_divergence(student: torch.Tensor, indices: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
    """Compute the KL divergence of a student from a teacher of which only the most probable tokens are known.

    All other tokens count as one event. The result is therefore at most the full divergence, and 0 if the two
    distributions are equal.

    Args:
        student: `(P, V)` log-probabilities.
        indices: `(P, k)` int64, most probable tokens of the teacher.
        log_probs: `(P, k)`, their log-probabilities.

    Returns:
        `(P,)`, in nats.
    """
    student_log_probs = student.gather(-1, indices)
    probs = log_probs.exp()
    divergence = (probs * (log_probs - student_log_probs)).sum(-1)
    rest = (1 - probs.sum(-1)).clamp(min=0)
    student_rest = (1 - student_log_probs.exp().sum(-1)).clamp(min=_MIN_PROBABILITY)
    return divergence + rest * (rest.clamp(min=_MIN_PROBABILITY).log() - student_rest.log())


def compute_stored_nbytes(num_answer: int, num_after: int, width: int, vocabulary: int) -> int:
    """Compute the bytes of stored outputs.

    Args:
        num_answer: number of positions that predict a token of an answer.
        num_after: number of positions of text after the media.
        width: D.
        vocabulary: V, or k.
    """
    return num_answer * min(TOP_K, vocabulary) * 8 + num_after * width * 2


class TeacherCache:
    """Outputs of a teacher in a directory, by medium, question and number of frames.

    An entry is added to the data files before the index, so that the directory stays valid if the process is killed.

    Args:
        directory: is created by the first `add`.
        top: k.
        width: D.

    Attributes:
        entries: for each key the first position and the number of positions, of answers and of text after the media.
    """

    def __init__(self, directory: Path, top: int, width: int) -> None:
        self.directory, self.top, self.width = directory, top, width
        self.entries: dict[CacheKey, tuple[int, int, int, int]] = {}
        self._ends = 0, 0
        for entry in read_json_lines(directory / _INDEX):
            first, count, first_after, after = entry["place"]
            self.entries[entry["medium"], entry["question"], entry["frames"]] = first, count, first_after, after
            self._ends = first + count, first_after + after

    def __contains__(self, key: CacheKey) -> bool:
        return key in self.entries

    @property
    def nbytes(self) -> int:
        """Bytes of all entries."""
        positions, after = self._ends
        return positions * self.top * 8 + after * self.width * 2

    def add(self, key: CacheKey, outputs: TeacherOutputs) -> None:
        """Append the outputs of one example.

        Args:
            key: medium, question and number of frames.
            outputs: of the teacher.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        first, first_after = self._ends
        count, after = len(outputs.indices), len(outputs.hidden)
        self._write(_INDICES, first * self.top * 4, outputs.indices.int().numpy())
        self._write(_LOG_PROBS, first * self.top * 4, outputs.log_probs.numpy())
        self._write(_HIDDEN, first_after * self.width * 2, outputs.hidden.numpy())
        place = first, count, first_after, after
        entry = {"medium": key[0], "question": key[1], "frames": key[2], "place": place}
        append_json_line(self.directory / _INDEX, entry)
        self.entries[key] = place
        self._ends = first + count, first_after + after

    def _write(self, name: str, offset: int, values: np.ndarray) -> None:
        path = self.directory / name
        with path.open("r+b" if path.exists() else "w+b") as file:
            file.truncate(offset)  # the rest is of an entry that is not in the index
            file.seek(0, os.SEEK_END)
            file.write(values.tobytes())

    def get(self, key: CacheKey) -> TeacherOutputs:
        """Read the outputs of one example; raise KeyError if there are none."""
        first, count, first_after, after = self.entries[key]

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
    """Compute the KL divergence of a student from a teacher.

    Args:
        student: `(P, V)` log-probabilities.
        teacher: `(P, V)` log-probabilities.

    Returns:
        `(P,)`, in nats.
    """
    return functional.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)


__all__ = [
    "STORED",
    "TOP_K",
    "CacheKey",
    "TeacherCache",
    "TeacherOutputs",
    "compute_stored_nbytes",
    "kl_divergence",
    "top_divergence",
]
