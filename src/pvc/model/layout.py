"""ClipLayout: the rows of every clip's steps in one packed tensor, as indices only.

Clips with equally many steps form a group. A group is stored time-major, so that attention over time reads strided
views and copies nothing. Called by `vision.py` and `temporal.py`.

C clips, F stored frames, T steps, R packed rows (sum of all clips' steps).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pvc.errors import MismatchError, UsageError


@dataclass(frozen=True)
class Group:
    """Clips of equal length; step t of the c-th clip is at row `start + t * clips + c`.

    Attributes:
        start: first row of the group.
        steps: steps T of each clip.
        clips: number of clips in the group.
        members: indices of the clips, in the caller's order.
    """

    start: int
    steps: int
    clips: int
    members: tuple[int, ...]

    @property
    def rows(self) -> slice:
        """Packed rows of the group."""
        return slice(self.start, self.start + self.steps * self.clips)


@dataclass(frozen=True)
class ClipLayout:
    """Order of the packed rows of a batch of clips.

    Attributes:
        groups: groups in packed order.
        frame_of_row: `(R,)` index of the stored frame of each packed row.
        step_of_row: `(R,)` number of each row's step, counted from `offset` and from the clip's entry in `starts`.
        steps_of_clip: `(C,)` steps of every clip in this call.
        num_frames: number of stored frames F.
        offset: steps that were encoded before this call.
        total_steps: steps of the whole clips if known in advance (for relative timesteps), else None.
        window: number of steps that a step attends to, itself included; None means all steps before it.
        starts: `(C,)` number of every clip's first step; empty if all clips start at 0.
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
        """Lay out clips.

        Args:
            frames: `(C,)` stored frames of every clip.
            steps: `(C,)` steps of every clip.
            repeats: `(F,)` consecutive steps of every stored frame. By default the frame of a one-frame clip has all
                steps of the clip, and any other frame has one.
            offset: steps that were encoded before this call.
            total_steps: steps of the whole clips, or None if unknown.
            window: number of steps that a step attends to, or None.
            starts: `(C,)` number of every clip's first step; empty if all clips start at 0.

        Returns:
            The layout.

        Raises:
            MismatchError: the lists differ in length, or the repeats of a clip do not sum to its steps.
            UsageError: a clip has no frames or no steps, or a frame has no steps.
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
        frame_of_step = cls._expand_repeats(frames, steps, firsts, repeats)
        by_length: dict[int, list[int]] = {}
        for clip, length in enumerate(steps):
            by_length.setdefault(length, []).append(clip)
        groups, frame_of_row, step_of_row, row = [], [], [], 0
        for length, members in by_length.items():
            groups.append(Group(row, length, len(members), tuple(members)))
            for step in range(length):
                for clip in members:
                    frame_of_row.append(frame_of_step[clip][step])
                    step_of_row.append(offset + step + (starts[clip] if starts else 0))
            row += length * len(members)
        rows = (tuple(frame_of_row), tuple(step_of_row))
        return cls(tuple(groups), *rows, tuple(steps), position, offset, total_steps, window, tuple(starts))

    @staticmethod
    def _expand_repeats(
        frames: Sequence[int], steps: Sequence[int], firsts: Sequence[int], repeats: Sequence[int] | None
    ) -> list[list[int]]:
        """List, for every clip, the stored frame of each step; `firsts` has the first stored frame of every clip."""
        if repeats is None:
            per_clip = [[length] if count == 1 else [1] * count for count, length in zip(frames, steps, strict=True)]
        elif len(repeats) != sum(frames):
            raise MismatchError(f"repeats has {len(repeats)} entries, but there are {sum(frames)} frames")
        else:
            per_clip = [list(repeats[first : first + count]) for first, count in zip(firsts, frames, strict=True)]
        frame_of_step = []
        for clip, (first, counts) in enumerate(zip(firsts, per_clip, strict=True)):
            if min(counts) < 1:
                raise UsageError(f"clip {clip} has a frame with {min(counts)} repeats; there must be at least 1")
            if sum(counts) != steps[clip]:
                raise MismatchError(f"the repeats of clip {clip} sum to {sum(counts)}, but it has {steps[clip]} steps")
            frame_of_step.append([first + frame for frame, count in enumerate(counts) for _ in range(count)])
        return frame_of_step

    @property
    def num_rows(self) -> int:
        """Number of packed rows R."""
        return len(self.frame_of_row)

    @property
    def num_clips(self) -> int:
        """Number of clips C."""
        return len(self.steps_of_clip)

    @property
    def is_identity(self) -> bool:
        """Whether the packed rows are the stored frames in their order, so that `gather` has nothing to do."""
        return self.num_rows == self.num_frames and self.frame_of_row == tuple(range(self.num_frames))

    def gather(self, hidden: torch.Tensor) -> torch.Tensor:
        """Gather stored frames `(F, ...)` to packed rows `(R, ...)`; static clips are repeated here."""
        if self.is_identity:
            return hidden
        return hidden.index_select(0, torch.tensor(self.frame_of_row, device=hidden.device))

    def split(self, packed: torch.Tensor) -> list[torch.Tensor]:
        """Split packed rows `(R, ...)` into one `(T, ...)` view per clip, in the caller's order of clips."""
        clips: list[torch.Tensor | None] = [None] * self.num_clips
        for group in self.groups:
            block = packed[group.rows].unflatten(0, (group.steps, group.clips))
            for index, clip in enumerate(group.members):
                clips[clip] = block[:, index]
        return clips  # type: ignore[return-value]  # every clip belongs to exactly one group


__all__ = ["ClipLayout", "Group"]
