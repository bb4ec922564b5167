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
        step_of_row: `(R,)` list, the step's number: counted from `offset`, and from where the clip starts (`starts`).
        steps_of_clip: `(C,)` tuple, steps of every clip in this call.
        offset: steps that were encoded before this call.
        total_steps: steps of the whole clips where it is known in advance (for relative timesteps), else None.
        window: steps that a step attends to, itself included; None for all before it.
        starts: `(C,)` tuple, the number of every clip's first step; empty where all start at 0.
    """

    groups: tuple[Group, ...]
    frame_of_row: tuple[int, ...]
    step_of_row: tuple[int, ...]
    steps_of_clip: tuple[int, ...]
    num_frames: int
    offset: int = 0
    total_steps: int | None = None
    window: int | None = None
    starts: tuple[int, ...] = ()

    @classmethod
    def build(
        cls,
        frames: Sequence[int],
        steps: Sequence[int],
        *,
        repeats: Sequence[int] | None = None,
        offset: int = 0,
        total_steps: int | None = None,
        window: int | None = None,
        starts: Sequence[int] = (),
    ) -> ClipLayout:
        """Lay out clips of `frames[c]` stored frames and `steps[c]` steps (one frame may serve many steps).

        `repeats` has a number for every stored frame, the steps in a row that show it; by default 1, and all of its
        steps for a clip of one frame.

        `starts` has the number of every clip's first step, or is empty: all start at 0.

        Raises:
            MismatchError: the lists differ in length, or a clip's frames are shown for more or fewer steps than it has.
            UsageError: a clip without frames or steps, or a frame that is never shown.
        """
        if len(frames) != len(steps):
            raise MismatchError(f"{len(frames)} clips have frames, but {len(steps)} have steps")
        if starts and len(starts) != len(steps):
            raise MismatchError(f"step_offset has {len(starts)} entries, but there are {len(steps)} clips")
        if min(starts, default=0) < 0:
            raise UsageError(f"step_offset must be at least 0, not {min(starts)}")
        firsts, position = [], 0
        for clip, (count, length) in enumerate(zip(frames, steps, strict=True)):
            if count < 1 or length < 1:
                raise UsageError(f"clip {clip} has {count} frames and {length} steps; both must be at least 1")
            if repeats is None and count not in (1, length):
                raise MismatchError(f"clip {clip} has {count} frames, but {length} steps")
            firsts.append(position)
            position += count
        shown = cls._shown(frames, steps, firsts, repeats)
        by_length: dict[int, list[int]] = {}
        for clip, length in enumerate(steps):
            by_length.setdefault(length, []).append(clip)
        groups, frame_of_row, step_of_row, row = [], [], [], 0
        for length, members in by_length.items():
            groups.append(Group(row, length, len(members), tuple(members)))
            for step in range(length):
                for clip in members:
                    frame_of_row.append(shown[clip][step])
                    step_of_row.append(offset + step + (starts[clip] if starts else 0))
            row += length * len(members)
        rows = (tuple(frame_of_row), tuple(step_of_row))
        return cls(tuple(groups), *rows, tuple(steps), position, offset, total_steps, window, tuple(starts))

    @staticmethod
    def _shown(
        frames: Sequence[int], steps: Sequence[int], starts: Sequence[int], repeats: Sequence[int] | None
    ) -> list[list[int]]:
        """For every clip, the stored frame behind each of its steps."""
        if repeats is None:
            each = [[length] if count == 1 else [1] * count for count, length in zip(frames, steps, strict=True)]
        elif len(repeats) != sum(frames):
            raise MismatchError(f"repeats has {len(repeats)} entries, but there are {sum(frames)} frames")
        else:
            each = [list(repeats[start : start + count]) for start, count in zip(starts, frames, strict=True)]
        shown = []
        for clip, (start, own) in enumerate(zip(starts, each, strict=True)):
            if min(own) < 1:
                raise UsageError(f"clip {clip} has a frame that is shown for {min(own)} steps; it must be at least 1")
            if sum(own) != steps[clip]:
                raise MismatchError(
                    f"the frames of clip {clip} are shown for {sum(own)} steps, but it has {steps[clip]}"
                )
            shown.append([start + frame for frame, count in enumerate(own) for _ in range(count)])
        return shown

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
