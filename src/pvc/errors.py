"""The errors that PVC raises on purpose.

They have one base class: callers can catch that class, and the command line turns each of them into one line and an
exit code. Any other exception is a bug of PVC. Raised in every package of PVC; imports nothing.
"""

from __future__ import annotations


class PVCError(Exception):
    """Base class of PVC's errors.

    Args:
        message: text for the user.
        code: replaces the class's `code`.

    Attributes:
        exit_code: the code with which `pvc` exits.
        code: a stable machine-readable name.
    """

    exit_code = 1
    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class UsageError(PVCError, ValueError):
    """A caller passed an invalid value, or values that contradict each other (exit code 2)."""

    exit_code = 2
    code = "usage"


class ConfigError(UsageError):
    """An invalid configuration value, or an unknown key (exit code 5)."""

    exit_code = 5
    code = "config"


class MismatchError(PVCError, ValueError):
    """Two counts that must agree do not, and the message names both (exit code 2).

    This is property P6: nothing is repaired silently.
    """

    exit_code = 2
    code = "mismatch"


class MediaError(PVCError):
    """A picture or video that is rejected or cannot be read (exit code 3).

    Codes: `empty_media`, `unsupported_format`, `corrupt_media`, `too_many_pixels`, `too_many_bytes`,
    `too_many_frames`, `aspect_ratio`, `no_video_stream`, `no_video_frames`, `not_found`.
    """

    exit_code = 3
    code = "corrupt_media"


class ForbiddenError(PVCError):
    """A forbidden source: a network address, a device or a pipe (exit code 4)."""

    exit_code = 4
    code = "forbidden"


class CheckpointError(PVCError):
    """A model directory that is missing, incomplete or inconsistent (exit code 5)."""

    exit_code = 5
    code = "checkpoint"


class MissingExtraError(PVCError, ImportError):
    """An optional dependency is not installed; the message names the extra to install (exit code 2)."""

    exit_code = 2
    code = "missing_extra"


class Interrupted(PVCError):
    """A signal ended the work early; finished work is saved (exit code 130)."""

    exit_code = 130
    code = "interrupted"
