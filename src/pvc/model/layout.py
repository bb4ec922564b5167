"""ClipLayout: where the steps of every clip of a batch lie in one packed tensor.

Clips with equally many steps form a group that is stored time-major, so that attention over time reads strided
views and copies nothing. Leaves out tensors of the network: indices only. Called by `vision.py` and `modeling.py`.

B batch, C clips, F stored frames, T steps, R packed rows (sum of all clips' steps), N positions, D width, K tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pvc.errors import MismatchError, UsageError


@dataclass(frozen=True)
class Group:
    """`clips` clips of `steps` steps each, at rows `start + t * clips + c`; `members` are the clips' numbers."""

    start: int
    steps: int
    clips: int
    members: tuple[int, ...]

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + self.steps * self.clips)


@dataclass(frozen=True)
class ClipLayout:
    """Order of packed rows.

    Attributes:
        groups: groups in packed order.
        frame_of_row: `(R,)` list, the stored frame behind each packed row.
        step_of_row: `(R,)` list, the step's number within its clip, counted from `offset`.
        steps_of_clip: `(C,)` tuple, steps of every clip in this call.
        offset: steps that were encoded before this call.
        total_steps: steps of the whole clips where it is known in advance (for relative timesteps), else None.
    """

    groups: tuple[Group, ...]
    frame_of_row: tuple[int, ...]
    step_of_row: tuple[int, ...]
    steps_of_clip: tuple[int, ...]
    num_frames: int
    offset: int = 0
    total_steps: int | None = None

    @classmethod
    def build(
        cls,
        frames: Sequence[int],
        steps: Sequence[int],
        *,
        offset: int = 0,
        total_steps: int | None = None,
    ) -> ClipLayout:
        """Lay out clips of `frames[c]` stored frames and `steps[c]` steps (one frame may serve many steps).

        Raises:
            MismatchError: the two lists differ in length, or a clip has neither one frame nor as many as steps.
            UsageError: a clip without frames or steps.
        """
        if len(frames) != len(steps):
            raise MismatchError(f"{len(frames)} clips have frames, but {len(steps)} have steps")
        starts, position = [], 0
        for clip, (count, length) in enumerate(zip(frames, steps, strict=True)):
            if count < 1 or length < 1:
                raise UsageError(f"clip {clip} has {count} frames and {length} steps; both must be at least 1")
            if count not in (1, length):
                raise MismatchError(f"clip {clip} has {count} frames, but {length} steps")
            starts.append(position)
            position += count
        by_length: dict[int, list[int]] = {}
        for clip, length in enumerate(steps):
            by_length.setdefault(length, []).append(clip)
        groups, frame_of_row, step_of_row, row = [], [], [], 0
        for length, members in by_length.items():
            groups.append(Group(row, length, len(members), tuple(members)))
            for step in range(length):
                for clip in members:
                    frame_of_row.append(starts[clip] + (step if frames[clip] > 1 else 0))
                    step_of_row.append(offset + step)
            row += length * len(members)
        return cls(tuple(groups), tuple(frame_of_row), tuple(step_of_row), tuple(steps), position, offset, total_steps)

    @property
    def num_rows(self) -> int:
        return len(self.frame_of_row)

    @property
    def num_clips(self) -> int:
        return len(self.steps_of_clip)

    @property
    def is_identity(self) -> bool:
        """Whether every packed row is its own stored frame, in order (nothing to gather)."""
        return self.num_rows == self.num_frames and self.frame_of_row == tuple(range(self.num_frames))

    def gather(self, hidden: torch.Tensor) -> torch.Tensor:
        """Stored frames `(F, ...)` to packed rows `(R, ...)`; static clips are repeated here."""
        if self.is_identity:
            return hidden
        return hidden.index_select(0, torch.tensor(self.frame_of_row, device=hidden.device))

    def split(self, packed: torch.Tensor) -> list[torch.Tensor]:
        """Packed rows `(R, ...)` to one `(T, ...)` view per clip, in the callers' order of clips."""
        clips: list[torch.Tensor | None] = [None] * self.num_clips
        for group in self.groups:
            block = packed[group.rows].unflatten(0, (group.steps, group.clips))
            for place, clip in enumerate(group.members):
                clips[clip] = block[:, place]
        return clips  # type: ignore[return-value]  # every clip belongs to exactly one group


__all__ = ["ClipLayout", "Group"]
