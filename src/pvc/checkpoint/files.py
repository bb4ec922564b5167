"""A checkpoint directory as files: its configuration, its tensors' names and shapes, its media settings.

Reads JSON and safetensors headers only, so it needs neither torch nor transformers; a directory that cannot work
is refused here, before anything heavy is imported. Loading is `loading.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pvc.errors import CheckpointError

BUNDLED = Path(__file__).resolve().parent.parent / "nano"

_MAX_HEADER = 100 * 2**20  # the safetensors format's own limit
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


PARTS = ("vision", "temporal", "compressor", "language")


def part_of(name: str) -> str:
    """Which of PARTS a tensor belongs to, by its name."""
    if ".temporal." in name or ".timestep_embedding." in name:
        return "temporal"
    if "vision_tower." in name:
        return "vision"
    return "compressor" if "multi_modal_projector." in name else "language"


@dataclass(frozen=True)
class MediaSettings:
    """What has to be known to decode media for a checkpoint.

    Attributes:
        image_size: side of a frame or tile in pixels.
        num_frames: frames taken from a video when nothing else is asked for.
    """

    image_size: int
    num_frames: int


@dataclass(frozen=True)
class Tensor:
    """Name, dtype and shape of a stored tensor, and the byte of its file at which its values start."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int = 0

    @property
    def count(self) -> int:
        count = 1
        for side in self.shape:
            count *= side
        return count

    @property
    def nbytes(self) -> int:
        return self.count * _BYTES.get(self.dtype, 1)


class CheckpointFiles:
    """A model directory that has what a model needs.

    Raises:
        CheckpointError: the directory, its configuration or its weights are missing, unreadable or not PVC's.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        self.directory = BUNDLED if directory is None else Path(directory)
        if not self.directory.is_dir():
            raise CheckpointError(f"no model directory at {self.directory}")
        self.config = self._json("config.json")
        kind = self.config.get("model_type")
        if kind != "pvc":
            raise CheckpointError(f"{self.directory} holds a model of type {kind!r}, not 'pvc'")
        self._refuse_code()
        self.shards = find_shards(self.directory)

    def _json(self, name: str) -> dict[str, Any]:
        return read_json(self.directory / name)

    def _refuse_code(self) -> None:
        """Refuse a directory that asks for code of its own to be run, and JSON that cannot be read.

        transformers would ask on the terminal whether to run it; here the answer is no.
        """
        for path in sorted(self.directory.glob("*.json")):
            if path.name.endswith("config.json") and _mentions(self._json(path.name), "auto_map"):
                raise CheckpointError(f"{path} asks for code of its own to be run (auto_map); that is never done")

    def tensors(self) -> list[Tensor]:
        """Every stored tensor, from the shards' headers."""
        return [tensor for shard in self.shards for tensor in read_header(shard)[0]]

    def optional_json(self, name: str) -> dict[str, Any]:
        """A JSON object, or an empty one when the file is not there."""
        return self._json(name) if (self.directory / name).exists() else {}

    @property
    def media_settings(self) -> MediaSettings:
        """Frame size and default number of frames, from the processor's configuration."""
        processor = self._json("processor_config.json")
        video = processor.get("video_processor")
        size = video.get("size") if isinstance(video, dict) else None
        size = size.get("height") if isinstance(size, dict) else None
        frames = video.get("num_frames") if isinstance(video, dict) else None
        if not isinstance(size, int) or not isinstance(frames, int) or size < 1 or frames < 1:
            raise CheckpointError(f"{self.directory}/processor_config.json has no video_processor size and num_frames")
        return MediaSettings(image_size=size, num_frames=frames)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises CheckpointError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} has no {path.name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} does not hold a JSON object")
    return data


def find_shards(directory: Path) -> list[Path]:
    """The safetensors files of a model directory, by its index or its one file; raises CheckpointError."""
    index = directory / "model.safetensors.index.json"
    if index.exists():
        places = read_json(index).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
            raise CheckpointError(f"{index} has no weight_map from tensors to files")
        names = sorted(set(places.values()))
    else:
        names = ["model.safetensors"]
    for name in names:
        if Path(name).name != name:
            raise CheckpointError(f"{index} names a file outside the directory: {name!r}")
    missing = [name for name in names if not (directory / name).is_file()]
    if missing or not names:
        raise CheckpointError(f"{directory} has no weights: {', '.join(missing) or 'empty index'} is missing")
    return [directory / name for name in names]


def _mentions(value: Any, key: str) -> bool:
    """Whether `key` is a key anywhere in nested JSON values."""
    if isinstance(value, dict):
        return key in value or any(_mentions(item, key) for item in value.values())
    return isinstance(value, list) and any(_mentions(item, key) for item in value)


def read_header(path: Path) -> tuple[list[Tensor], dict[str, str]]:
    """Tensors and metadata of one safetensors file: 8 bytes of header length, then a JSON header.

    Raises:
        CheckpointError: no safetensors file, or one that is cut short.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if not 0 < length <= min(_MAX_HEADER, size - 8):
                raise CheckpointError(f"{path} is not a safetensors file, or is cut short")
            header = json.loads(file.read(length))
        entries = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
        end = max((entry["data_offsets"][1] for _, entry in entries), default=0)
        if 8 + length + end != size:
            raise CheckpointError(f"{path} is cut short: {size} bytes, but its header needs {8 + length + end}")
        metadata = {str(key): str(value) for key, value in header.get("__metadata__", {}).items()}
        tensors = [
            Tensor(name, entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
            for name, entry in entries
        ]
        return tensors, metadata
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"cannot read the header of {path}: {error}") from error


__all__ = [
    "BUNDLED",
    "PARTS",
    "CheckpointFiles",
    "MediaSettings",
    "Tensor",
    "find_shards",
    "part_of",
    "read_header",
    "read_json",
]
