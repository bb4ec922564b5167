"""Files on the command line: how they are opened and sampled before a model is there. Used by several commands."""

from __future__ import annotations

from typing import Any

from pvc import media as pvc_media
from pvc.checkpoint.state_file import is_state_path, open_state
from pvc.errors import UsageError


def open_one(path: str, sampling: pvc_media.Sampling, side: int) -> Any:
    """A file as it can be opened before a model is there: a picture, a video, or the header of a visual state."""
    return open_state(path) if is_state_path(path) else pvc_media.load(path, sampling=sampling, size=(side, side))


def refuse_for_states(paths: list[str], **chosen: Any) -> None:
    """Raise UsageError for options of encoding where everything was encoded before."""
    given = [f"--{name.replace('_', '-')}" for name, value in chosen.items() if value is not None]
    if given and paths and all(is_state_path(path) for path in paths):
        raise UsageError(
            f"{', '.join(given)}: {', '.join(paths)} is encoded already; encode the media anew to change that"
        )


def sampling_of(frames: int, fps: float | None, times: str | None) -> pvc_media.Sampling:
    """How videos are sampled, from the command line's options; raises UsageError for what makes no sense."""
    if fps is not None and times is not None:
        raise UsageError("--fps and --times exclude each other")
    if times is not None:
        try:
            seconds = tuple(float(text) for text in times.split(","))
        except ValueError as error:
            raise UsageError(f"--times must be seconds separated by commas, not {times!r}") from error
        return pvc_media.Sampling(times=seconds)
    return pvc_media.Sampling(fps=fps) if fps is not None else pvc_media.Sampling(frames=frames)


__all__ = ["open_one", "refuse_for_states", "sampling_of"]
