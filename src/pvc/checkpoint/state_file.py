"""A visual state as a file: safetensors whose metadata is a manifest of what was encoded, how, and by whom.

Reads headers only, without torch, so that a file that cannot be used is refused before a model is loaded. Leaves out
tensors (`pvc.engine.visual_state`). Called by the command line and by the engine.

n visual tokens, L language width, K tokens per frame and step.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pvc.checkpoint.files import Tensor, read_header
from pvc.errors import CheckpointError, MediaError

SUFFIX = ".pvc"
FORMAT = 1
KEY = "pvc_state"  # of safetensors' metadata; its value is the manifest as JSON
TOKENS = "tokens"
_MOST_LAYERS = 1024  # a number in a file must not decide how long its check takes


@dataclass(frozen=True)
class StateFile:
    """A state file whose header has been read and found to agree with itself.

    Attributes:
        path: the file.
        manifest: what is written about it; see docs/state.md.
        tensors: its tensors by name.
    """

    path: Path
    manifest: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def kind(self) -> str:
        return str(self.manifest["kind"])

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(str(text) for text in self.manifest["warnings"])


def is_state_path(source: Any) -> bool:
    """Whether `source` is a path that says it is a state file."""
    return not isinstance(source, (bytes, bytearray)) and str(source).lower().endswith(SUFFIX)


def open_state(path: str | Path) -> StateFile:
    """Read and check a state file's header.

    Raises:
        MediaError: there is no such file, or it is no state file, or it contradicts itself (`corrupt_media`).
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
        raise MediaError(f"{path}: its manifest is no JSON") from error
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
    """Everything that the manifest says and that the tensors' shapes must bear out."""

    def wrong(what: str) -> MediaError:
        return MediaError(f"{state.path}: a damaged visual state: {what}")

    manifest = state.manifest
    if not isinstance(manifest, dict):
        raise wrong("its manifest is no JSON object")
    if manifest.get("format") != FORMAT:
        raise MediaError(
            f"{state.path}: a visual state of format {manifest.get('format')!r}; this version of pvc reads {FORMAT}"
        )
    for key, kind in _TYPES.items():
        value = manifest.get(key, ...)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise wrong(f"{key} is {'missing' if value is ... else repr(value)[:60]}")
    if manifest["kind"] not in ("image", "video"):
        raise wrong(f"kind is {manifest['kind']!r}")
    per_frame = manifest["settings"].get("tokens_per_frame")
    if not isinstance(per_frame, int) or per_frame < 1 or manifest["steps"] < 1 or manifest["tiles"] < 1:
        raise wrong("counts below 1")
    tokens = state.tensors.get(TOKENS)
    wanted = per_frame * manifest["steps"] * manifest["tiles"]
    if tokens is None or len(tokens.shape) != 2:
        raise wrong("it has no visual tokens")
    if tokens.shape[0] != wanted:
        raise wrong(f"it has {tokens.shape[0]} visual tokens, but its manifest speaks of {wanted}")
    if not manifest["sources"] or not all(isinstance(source, dict) for source in manifest["sources"]):
        raise wrong("it does not say what it is of")
    if not all(isinstance(text, str) for text in manifest["warnings"]):
        raise wrong("warnings that are no texts")
    if manifest["kind"] == "video":
        _check_video(manifest, wrong)
    others = set(state.tensors) - {TOKENS}
    if manifest["cache"] is None:
        if others:
            raise wrong(f"it has a cache of {len(others)} tensors, but its manifest speaks of none")
        return
    layers, steps, window = (manifest["cache"].get(key) for key in ("layers", "steps", "window"))
    if type(layers) is not int or others != {
        f"cache.{part}.{n}" for part in ("keys", "values") for n in _up_to(layers)
    }:
        raise wrong(f"its cache should have {layers!r} layers")
    if steps != manifest["steps"] or (window is not None and (type(window) is not int or window < 1)):
        raise wrong(
            f"its cache is of {steps!r} steps and a window of {window!r}, its tokens of {manifest['steps']} steps"
        )


def _up_to(layers: int) -> range:
    return range(min(layers, _MOST_LAYERS))


def _check_video(manifest: dict[str, Any], wrong: Any) -> None:
    times = manifest["timestamps"]
    if not all(type(time) in (int, float) and math.isfinite(time) and time >= 0 for time in times):
        raise wrong("timestamps that are no times")
    if len(times) != manifest["steps"] or any(later < earlier for earlier, later in pairwise(times)):
        raise wrong(f"{len(times)} timestamps for {manifest['steps']} frames, or out of order")
    if not all(type(count) is int for count in manifest["chunks"]) or sum(manifest["chunks"]) != manifest["steps"]:
        raise wrong(f"chunks of {manifest['chunks']!r:.60} frames for {manifest['steps']}")


__all__ = ["FORMAT", "KEY", "SUFFIX", "TOKENS", "StateFile", "is_state_path", "open_state"]
