"""The files of a checkpoint directory: configuration, names and shapes of tensors, media settings.

Reads JSON and safetensors headers only, without torch and transformers. An unusable directory is therefore rejected
before slow imports. Called by `loading.py`, the command line, conversion and training.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pvc.errors import CheckpointError

BUNDLED = Path(__file__).resolve().parent.parent / "nano"

_MAX_HEADER = 100 * 2**20  # bytes; the limit of the safetensors format
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


PARTS = ("vision", "temporal", "compressor", "language")


def part_of(name: str) -> str:
    """Return the entry of PARTS that a tensor belongs to, by its name."""
    if ".temporal." in name or ".timestep_embedding." in name:
        return "temporal"
    if "vision_tower." in name:
        return "vision"
    return "compressor" if "multi_modal_projector." in name else "language"


@dataclass(frozen=True)
class MediaSettings:
    """The settings that decoding media for a checkpoint requires.

    Attributes:
        image_size: side of a frame or tile in pixels.
        num_frames: default number of frames of a video.
    """

    image_size: int
    num_frames: int


@dataclass(frozen=True)
class Tensor:
    """A stored tensor, as its file's header describes it.

    Attributes:
        name: name in the checkpoint.
        dtype: dtype in the notation of safetensors, for example "BF16".
        shape: size of each dimension.
        start: offset of the values in the file, in bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int = 0

    @property
    def count(self) -> int:
        """Number of values."""
        count = 1
        for side in self.shape:
            count *= side
        return count

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.count * _BYTES.get(self.dtype, 1)


class CheckpointFiles:
    """A model directory that contains all files of a model.

    Args:
        directory: the directory; by default that of the bundled model.

    Attributes:
        directory: the directory.
        config: content of `config.json`.
        shards: paths of the safetensors files.

    Raises:
        CheckpointError: the directory, its configuration or its weights are missing, unreadable or not of PVC.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        self.directory = BUNDLED if directory is None else Path(directory)
        if not self.directory.is_dir():
            raise CheckpointError(f"no model directory at {self.directory}")
        self.config = self._read_json("config.json")
        model_type = self.config.get("model_type")
        if model_type != "pvc":
            raise CheckpointError(f"{self.directory} holds a model of type {model_type!r}, not 'pvc'")
        self._check_remote_code()
        self.shards = find_shards(self.directory)

    def _read_json(self, name: str) -> dict[str, Any]:
        return read_json(self.directory / name)

    def _check_remote_code(self) -> None:
        """Reject a directory whose configurations contain remote code or cannot be read.

        transformers would ask on the terminal whether to run the code. PVC never runs it.
        """
        for path in sorted(self.directory.glob("*.json")):
            if path.name.endswith("config.json") and _contains_key(self._read_json(path.name), "auto_map"):
                raise CheckpointError(f"{path} contains remote code (auto_map), which pvc never runs; remove auto_map")

    def tensors(self) -> list[Tensor]:
        """Read the entries of all stored tensors from the headers of the shards."""
        return [tensor for shard in self.shards for tensor in read_header(shard)[0]]

    def optional_json(self, name: str) -> dict[str, Any]:
        """Read a JSON object of the directory; the result is empty if the file does not exist."""
        return self._read_json(name) if (self.directory / name).exists() else {}

    @property
    def media_settings(self) -> MediaSettings:
        """Frame size and default number of frames, from the processor's configuration.

        Raises:
            CheckpointError: the configuration is missing, or lacks one of the two.
        """
        processor = self._read_json("processor_config.json")
        video = processor.get("video_processor")
        size = video.get("size") if isinstance(video, dict) else None
        size = size.get("height") if isinstance(size, dict) else None
        frames = video.get("num_frames") if isinstance(video, dict) else None
        if not isinstance(size, int) or not isinstance(frames, int) or size < 1 or frames < 1:
            raise CheckpointError(f"{self.directory}/processor_config.json has no video_processor size and num_frames")
        return MediaSettings(image_size=size, num_frames=frames)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        CheckpointError: the file is missing, unreadable or not a JSON object.
    """
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
    """List the safetensors files of a model directory, from its index, or its single file.

    Raises:
        CheckpointError: a file is missing, or the index is invalid.
    """
    index = directory / "model.safetensors.index.json"
    if index.exists():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise CheckpointError(f"{index} has no weight_map from tensors to files")
        names = sorted(set(weight_map.values()))
    else:
        names = ["model.safetensors"]
    for name in names:
        if Path(name).name != name:
            raise CheckpointError(f"{index} names a file outside the directory: {name!r}")
    missing = [name for name in names if not (directory / name).is_file()]
    if missing or not names:
        raise CheckpointError(f"{directory} has no weights: {', '.join(missing) or 'empty index'} is missing")
    return [directory / name for name in names]


def _contains_key(value: Any, key: str) -> bool:
    """Check whether `key` is a key anywhere in nested JSON values."""
    if isinstance(value, dict):
        return key in value or any(_contains_key(item, key) for item in value.values())
    return isinstance(value, list) and any(_contains_key(item, key) for item in value)


def read_header(path: Path) -> tuple[list[Tensor], dict[str, str]]:
    """Read the header of a safetensors file: 8 bytes of header length, then the header as JSON.

    Returns:
        The tensors and the metadata.

    Raises:
        CheckpointError: the file is not a safetensors file, or is cut short.
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
