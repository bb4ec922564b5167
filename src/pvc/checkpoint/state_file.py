"""The file of a visual state: safetensors whose metadata is a manifest of the media, the settings and the checkpoint.

Reads headers only, without torch, so that an unusable file is rejected before a model is loaded. Tensors are read and
written in `pvc.engine.visual_state`. Called by the command line and by the engine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pvc.checkpoint.files import Tensor, read_header
from pvc.errors import CheckpointError, MediaError

SUFFIX = ".pvc"
FORMAT = 1
KEY = "pvc_state"  # key in the safetensors metadata; its value is the manifest as JSON
TOKENS = "tokens"
_MAX_LAYERS = 1024  # limits the time of a check, whatever number the file contains


@dataclass(frozen=True)
class StateFile:
    """A state file whose header has been read and checked.

    Attributes:
        path: the file.
        manifest: description of the state; see docs/state.md.
        tensors: entries of its tensors, by name.
    """

    path: Path
    manifest: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def name(self) -> str:
        """The path as text."""
        return str(self.path)

    @property
    def kind(self) -> str:
        """Kind of the encoded medium: "image" or "video"."""
        return str(self.manifest["kind"])

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings of the decoder, stored in the manifest."""
        return tuple(str(text) for text in self.manifest["warnings"])


def is_state_path(source: Any) -> bool:
    """Check whether `source` is a path with the suffix of state files."""
    return not isinstance(source, (bytes, bytearray)) and str(source).lower().endswith(SUFFIX)


def open_state(path: str | Path) -> StateFile:
    """Read and check the header of a state file.

    Raises:
        MediaError: the file does not exist (`not_found`), is not a state file, or contradicts itself (`corrupt_media`).
    """
    path = Path(path)
    if not path.is_file():
        raise MediaError(f"{path}: no such file", code="not_found")
    try:
        tensors, metadata = read_header(path)
    except CheckpointError as error:
        raise MediaError(f"{path}: no visual state: {error}") from error
    if KEY not in metadata:
        raise MediaError(f"{path}: a safetensors file, but no visual state that `pvc encode` wrote")
    try:
        manifest = json.loads(metadata[KEY])
    except (ValueError, RecursionError) as error:
        raise MediaError(f"{path}: its manifest is not JSON") from error
    state = StateFile(path, manifest, {tensor.name: tensor for tensor in tensors})
    _check(state)
    return state


_TYPES: dict[str, type | tuple[type, ...]] = {
    "format": int,
    "pvc": str,
    "checkpoint": str,
    "settings": dict,
    "kind": str,
    "name": str,
    "timestamps": list,
    "tiles": int,
    "steps": int,
    "sources": list,
    "chunks": list,
    "cache": (dict, type(None)),
    "warnings": list,
}


def _check(state: StateFile) -> None:
    """Check the manifest, and that it agrees with the shapes of the tensors."""

    def build_error(reason: str) -> MediaError:
        return MediaError(f"{state.path}: a damaged visual state: {reason}")

    manifest = state.manifest
    if not isinstance(manifest, dict):
        raise build_error("its manifest is not a JSON object")
    if manifest.get("format") != FORMAT:
        raise MediaError(
            f"{state.path}: a visual state of format {manifest.get('format')!r}; this version of pvc reads {FORMAT}"
        )
    for key, kind in _TYPES.items():
        value = manifest.get(key, ...)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise build_error(f"{key} is {'missing' if value is ... else repr(value)[:60]}")
    if manifest["kind"] not in ("image", "video"):
        raise build_error(f"kind is {manifest['kind']!r}")
    per_frame = manifest["settings"].get("tokens_per_frame")
    if not isinstance(per_frame, int) or per_frame < 1 or manifest["steps"] < 1 or manifest["tiles"] < 1:
        raise build_error("counts below 1")
    tokens = state.tensors.get(TOKENS)
    expected = per_frame * manifest["steps"] * manifest["tiles"]
    if tokens is None or len(tokens.shape) != 2:
        raise build_error("it has no visual tokens")
    if tokens.shape[0] != expected:
        raise build_error(f"it has {tokens.shape[0]} visual tokens, but its manifest speaks of {expected}")
    if not manifest["sources"] or not all(isinstance(source, dict) for source in manifest["sources"]):
        raise build_error("it does not say what it is of")
    if not all(isinstance(text, str) for text in manifest["warnings"]):
        raise build_error("warnings that are no texts")
    if manifest["kind"] == "video":
        _check_video(manifest, build_error)
    cache_names = set(state.tensors) - {TOKENS}
    if manifest["cache"] is None:
        if cache_names:
            raise build_error(f"it has a cache of {len(cache_names)} tensors, but its manifest speaks of none")
        return
    layers, steps, window = (manifest["cache"].get(key) for key in ("layers", "steps", "window"))
    if type(layers) is not int or cache_names != {
        f"cache.{part}.{n}" for part in ("keys", "values") for n in range(min(layers, _MAX_LAYERS))
    }:
        raise build_error(f"its cache should have {layers!r} layers")
    if steps != manifest["steps"] or (window is not None and (type(window) is not int or window < 1)):
        raise build_error(
            f"its cache is of {steps!r} steps and a window of {window!r}, its tokens of {manifest['steps']} steps"
        )


def _check_video(manifest: dict[str, Any], build_error: Callable[[str], MediaError]) -> None:
    """Check the timestamps and chunks of a video."""
    times = manifest["timestamps"]
    if not all(type(time) in (int, float) and math.isfinite(time) and time >= 0 for time in times):
        raise build_error("timestamps that are no times")
    if len(times) != manifest["steps"] or any(later < earlier for earlier, later in pairwise(times)):
        raise build_error(f"{len(times)} timestamps for {manifest['steps']} frames, or out of order")
    if not all(type(count) is int for count in manifest["chunks"]) or sum(manifest["chunks"]) != manifest["steps"]:
        raise build_error(f"chunks of {manifest['chunks']!r:.60} frames for {manifest['steps']}")


__all__ = ["FORMAT", "KEY", "SUFFIX", "TOKENS", "StateFile", "is_state_path", "open_state"]
