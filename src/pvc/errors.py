"""Every error that PVC raises on purpose.

One base class, so that callers can catch one thing and the command line can turn any of them into one
line and an exit code. What is not a PVCError is a bug of ours. Imports nothing.
"""

from __future__ import annotations


class PVCError(Exception):
    """Base class. `exit_code` is what `pvc` ends with; `code` is a stable machine-readable name."""

    exit_code = 1
    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class UsageError(PVCError, ValueError):
    """A caller asked for something that makes no sense (exit code 2)."""

    exit_code = 2
    code = "usage"


class ConfigError(UsageError):
    """A configuration value that is wrong, or a key that nobody knows."""

    exit_code = 5
    code = "config"


class MismatchError(PVCError, ValueError):
    """Two counts that must agree do not; the message names both (property P6: nothing is repaired silently)."""

    exit_code = 2
    code = "mismatch"


class MediaError(PVCError):
    """A picture or a video that is refused or cannot be read (exit code 3).

    Codes: `empty_media`, `unsupported_format`, `corrupt_media`, `too_many_pixels`, `too_many_bytes`,
    `too_many_frames`, `aspect_ratio`, `no_video_stream`, `no_video_frames`, `not_found`.
    """

    exit_code = 3
    code = "corrupt_media"


class ForbiddenError(PVCError):
    """Something this program refuses to touch: an address on the network, a device, a pipe (exit code 4)."""

    exit_code = 4
    code = "forbidden"


class CheckpointError(PVCError):
    """A model directory that is missing, incomplete or does not fit together (exit code 5)."""

    exit_code = 5
    code = "checkpoint"


class MissingExtraError(PVCError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    exit_code = 2
    code = "missing_extra"


class Interrupted(PVCError):
    """A signal ended the work early, and what was done is saved (exit code 130)."""

    exit_code = 130
    code = "interrupted"
