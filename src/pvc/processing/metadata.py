"""Compute the times of frames from the `video_metadata` of transformers and vLLM. Called by PVCVideoProcessor."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from pvc.errors import MismatchError, UsageError

_KEYS = ("total_num_frames", "fps", "width", "height", "duration", "video_backend", "frames_indices", "timestamps")


def list_metadata(metadata: Any, videos: int) -> list[dict[str, Any]]:
    """List the metadata of every video; an empty entry means that there is none.

    Args:
        metadata: None, one entry, a list of entries (None for none), or one such list per sample. An entry is a
            dictionary or transformers' VideoMetadata.
        videos: number of videos.

    Raises:
        MismatchError: another number of entries than videos.
        UsageError: an entry of another type, or with a misspelt key.
    """
    if metadata is None:
        return [{}] * videos
    entries: list[Any] = list(metadata) if isinstance(metadata, (list, tuple)) else [metadata]
    if any(isinstance(entry, (list, tuple)) for entry in entries):
        entries = [item for entry in entries for item in (entry if isinstance(entry, (list, tuple)) else [entry])]
    if len(entries) != videos:
        raise MismatchError(f"video_metadata describes {len(entries)} videos, but there are {videos} videos")
    return [_to_dict(entry, number) for number, entry in enumerate(entries)]


def _to_dict(entry: Any, number: int) -> dict[str, Any]:
    if entry is None:
        return {}
    if not isinstance(entry, Mapping):
        raise UsageError(f"video_metadata of video {number} must be a dictionary, not a {type(entry).__name__}")
    for key in entry:
        close = difflib.get_close_matches(str(key), _KEYS, n=1, cutoff=0.8)
        if key not in _KEYS and close:
            raise UsageError(f"video_metadata of video {number} has the key {key!r}; did you mean {close[0]!r}?")
    return {key: entry[key] for key in entry if key in _KEYS and entry[key] is not None}


def compute_frame_times(entry: Mapping[str, Any], count: int, number: int) -> list[float] | None:
    """Compute the time of every frame in seconds; None if the entry is empty.

    `timestamps` are used unchanged. Otherwise the time of a frame is its index divided by `fps`; without
    `frames_indices`, the frames must be all of the video's.

    Args:
        entry: an entry of `list_metadata`.
        count: number of frames that were passed.
        number: number of the video, for error messages.

    Raises:
        MismatchError: numbers of frames or times that contradict each other.
        UsageError: invalid times, or no rate to compute times with.
    """
    if not entry:
        return None
    where = f"video_metadata of video {number}"
    if "timestamps" in entry:
        times = _parse_numbers(entry["timestamps"], f"timestamps in the {where}")
        if len(times) != count:
            raise MismatchError(f"{where} has {len(times)} timestamps, but {count} frames were passed")
        return times
    fps, total, duration = (_parse_positive(entry, key, where) for key in ("fps", "total_num_frames", "duration"))
    if fps and total and duration and abs(duration * fps - total) > max(2.0, 0.1 * total):
        raise MismatchError(f"{where} contradicts itself: {total:g} frames at {fps:g} fps do not last {duration:g} s")
    if "frames_indices" in entry:
        indices = _parse_numbers(entry["frames_indices"], f"frames_indices in the {where}")
        if len(indices) != count:
            raise MismatchError(f"{where} has {len(indices)} frames_indices, but {count} frames were passed")
        if total and indices and max(indices) >= total:
            raise MismatchError(f"{where} has the frame index {max(indices):g}, but total_num_frames is {total:g}")
    else:
        if total and total != count:
            raise MismatchError(
                f"{where} has total_num_frames {total:g}, but {count} frames were passed; frames_indices must name them"
            )
        indices = [float(index) for index in range(count)]
    if not fps:
        num_frames = total or (count if "frames_indices" not in entry else None)
        if num_frames and duration:
            fps = num_frames / duration
        elif max(indices, default=0) > 0:
            raise UsageError(f"{where} has no fps; pass fps, or duration and total_num_frames")
    return [index / fps if fps else 0.0 for index in indices]


def _parse_positive(entry: Mapping[str, Any], key: str, where: str) -> float | None:
    value = entry.get(key)
    if value is None:
        return None
    if not _is_number(value) or value <= 0:
        raise UsageError(f"{key} in the {where} must be a number above 0, not {value!r}")
    return float(value)


def _parse_numbers(values: Any, what: str) -> list[float]:
    numbers = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(numbers, Sequence) or isinstance(numbers, (str, bytes)):
        raise UsageError(f"{what} must be a list of numbers, not {str(values)[:80]!r}")
    if not all(_is_number(value) and value >= 0 for value in numbers):
        raise UsageError(f"{what} must be finite numbers of 0 or more")
    if any(later < earlier for earlier, later in pairwise(numbers)):
        raise UsageError(f"{what} must not decrease")
    return [float(value) for value in numbers]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and math.isfinite(value)


__all__ = ["compute_frame_times", "list_metadata"]
