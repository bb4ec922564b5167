"""Read records of conversations: JSON lines, tar shards, and tables that `datasets` reads.

A table returns its records by number, so that a training can stop anywhere and resume exactly. A stream returns them in
order. Bad records are counted and limited in `records.py`, which calls this file.
"""

from __future__ import annotations

import glob
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pvc.errors import ConfigError, UsageError
from pvc.extras import require
from pvc.processing.conversations import KINDS, BadRecord, Record, beside, parse_record, scan_records

HUB = "hub:"
PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
VIDEOS = ("mp4", "webm", "mkv", "avi", "mov", "m4v")
SHUFFLE_BUFFER = 1000  # records that a stream buffers to shuffle


class RecordTable(Protocol):
    """Records by number.

    Attributes:
        records: all well-formed records, or None if they are read on request.
        bad: malformed records, as far as they are known.
        total: number of records; None for a stream.
    """

    records: list[Record] | None
    bad: list[BadRecord]
    total: int | None

    def get_record(self, number: int) -> Record:
        """Return record `number`, from 0, in the order of the file or stream; raise ConfigError if it is malformed."""


@dataclass(frozen=True)
class ShardMember:
    """A file inside a tar shard.

    Attributes:
        shard: path of the shard.
        name: of the file.
        offset: of its first byte in the shard.
        size: in bytes.
    """

    shard: str
    name: str
    offset: int
    size: int

    def read(self) -> bytes:
        """Read the file; raise UsageError if the shard cannot be read."""
        try:
            with open(self.shard, "rb") as file:
                file.seek(self.offset)
                return file.read(self.size)
        except OSError as error:
            raise UsageError(f"cannot read {self.shard}: {error.strerror}") from error


class JsonRecords:
    """Table whose records are all in memory: a file of JSON lines, or tar shards.

    Args:
        records: well-formed records.
        bad: malformed records.
    """

    def __init__(self, records: list[Record], bad: list[BadRecord]) -> None:
        self._records = records
        self.records: list[Record] | None = records
        self.bad = bad
        self.total: int | None = len(records) + len(bad)

    def get_record(self, number: int) -> Record:
        """Return well-formed record `number`, from 0."""
        return self._records[number]


def open_table(path: str, *, split: str = "train", subset: str | None = None, stream: int | None = None) -> RecordTable:
    """Open a table of records.

    Args:
        path: `x.jsonl`, tar shards (`x.tar`, `x-*.tar`), parquet (`x.parquet`, `x/*.parquet`), a directory that
            `datasets` saved, or `hub:owner/name`.
        split: of a dataset.
        subset: of a dataset.
        stream: seed of a stream: a dataset is read in order, shuffled a thousand records at a time, instead of copied
            to a cache first.

    Raises:
        UsageError: the path cannot be read.
        ConfigError: `stream` is set, but the path is not a dataset.
    """
    is_dataset = path.startswith(HUB) or path.endswith(".parquet") or Path(path).is_dir()
    if stream is not None and not is_dataset:
        raise ConfigError(f"{path}: only parquet files and datasets can be streamed; remove stream: true")
    if is_dataset:
        return _open_dataset(path, split, subset, stream)
    if path.endswith(".tar"):
        return _read_shards(path)
    return JsonRecords(*scan_records(path))


def expand_pattern(path: str) -> list[str]:
    """Return the files that match a path with `*` or `?`; raise UsageError if there is none."""
    if not set("*?") & set(path):
        return [path]
    files = sorted(glob.glob(path))
    if not files:
        raise UsageError(f"no file is named like {path}")
    return files


# Tar shards in WebDataset's form: files of one example have one name with different extensions.


def _read_shards(path: str) -> JsonRecords:
    records: list[Record] = []
    bad: list[BadRecord] = []
    number = 0
    for shard in expand_pattern(path):
        for key, files in _iterate_examples(shard):
            number += 1
            try:
                record = _parse_shard_example(files, number)
            except ConfigError as error:
                bad.append(BadRecord(number, f"{key} in {shard}: {error}"))
            else:
                records.append(Record(f"{key}", number, record.messages))
    return JsonRecords(records, bad)


def _iterate_examples(shard: str) -> Iterator[tuple[str, dict[str, ShardMember]]]:
    """Yield consecutive members of a shard that share a name: the name, and the members by extension."""
    name: str | None = None
    files: dict[str, ShardMember] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for entry in tar:
                if not entry.isreg():
                    continue
                folder, _, base = entry.name.rpartition("/")
                stem, _, extension = base.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if key != name and name is not None:
                    yield name, files
                    files = {}
                name = key
                files[extension.lower()] = ShardMember(shard, entry.name, entry.offset_data, entry.size)
    except (OSError, tarfile.TarError) as error:
        raise UsageError(f"cannot read {shard}: {getattr(error, 'strerror', None) or error}") from error
    if name is not None:
        yield name, files


def _parse_shard_example(files: dict[str, ShardMember], number: int) -> Record:
    """Parse an example's conversation (`json`), or its picture with a caption (`txt`)."""
    media = {
        kind: [member for extension, member in files.items() if extension.rpartition(".")[2] in extensions]
        for kind, extensions in zip(KINDS, (PICTURES, VIDEOS), strict=True)
    }
    if "json" in files:
        data = _parse_object(files["json"].read())
        if "messages" in data or "conversations" in data:
            # If the JSON does not refer to media, they are the other members, in the shard's order.
            has_media_keys = any(data.get(key) is not None for kind in KINDS for key in (kind, f"{kind}s"))
            added = {} if has_media_keys else {f"{kind}s": list(members) for kind, members in media.items() if members}
            return parse_record({**data, **added}, number, _make_shard_resolver(files))
    if "txt" not in files:
        raise ConfigError("neither a json with 'conversations' or 'messages' nor a txt")
    try:
        caption = files["txt"].read().decode()
    except UnicodeDecodeError as error:
        raise ConfigError("not UTF-8 text") from error
    content = [{"type": kind, kind: member} for kind, members in media.items() for member in members]
    answer = {"role": "assistant", "content": [{"type": "text", "text": caption.strip()}]}
    return parse_record(
        {"messages": [{"role": "user", "content": content}, answer]}, number, _make_shard_resolver(files)
    )


def _make_shard_resolver(files: dict[str, ShardMember]) -> Callable[[str, Any], ShardMember]:
    """Return a function that finds a medium of an example by extension or by name."""

    def resolve(kind: str, value: Any) -> ShardMember:
        if isinstance(value, ShardMember):
            return value
        for extension, member in files.items():
            if value in (extension, member.name, member.name.rpartition("/")[2]):
                return member
        raise ConfigError(f"'{kind}' names {value!r}, which is not in the sample")

    return resolve


def _parse_object(text: bytes) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError("not an object")
    return data


# Tables that `datasets` reads


class HubRecords:
    """Memory-mapped table of `datasets`, whose records are read on request.

    Args:
        data: a `datasets.Dataset`.
        folder: to which paths of media are relative.
    """

    records: list[Record] | None = None
    bad: list[BadRecord] = []

    def __init__(self, data: Any, folder: Path) -> None:
        self._data, self._resolve = data, _make_cell_resolver(folder)
        self.total: int | None = len(data)

    def get_record(self, number: int) -> Record:
        """Read record `number`, from 0; raise ConfigError if it is malformed."""
        return parse_record(self._data[number], number + 1, self._resolve)


class StreamedRecords:
    """Dataset that is read in order, epoch after epoch, shuffled a thousand records at a time.

    To go back, it is read from the start again. To go forward, the records in between are read.

    Args:
        data: a `datasets.IterableDataset`.
        folder: to which paths of media are relative.
        seed: of the order.
    """

    records: list[Record] | None = None
    bad: list[BadRecord] = []
    total: int | None = None

    def __init__(self, data: Any, folder: Path, seed: int) -> None:
        self._data, self._resolve = data.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER), _make_cell_resolver(folder)
        self._position, self._epoch = 0, 0
        self._iterator: Iterator[Any] | None = None

    def _next(self) -> Any:
        """Return the next row of the epoch; None at its end."""
        if self._iterator is None:
            self._data.set_epoch(self._epoch)
            self._iterator = iter(self._data)
        row = next(self._iterator, None)
        if row is None:
            self._iterator, self._epoch = None, self._epoch + 1
        return row

    def get_record(self, number: int) -> Record:
        """Read record `number`, from 0, of all epochs; raise ConfigError if it is malformed."""
        if number < self._position:
            self._position, self._epoch, self._iterator = 0, 0, None
        while True:
            row = self._next()
            if row is None and (row := self._next()) is None:
                raise UsageError("the stream has no records")
            self._position += 1
            if self._position > number:
                return parse_record(row, number + 1, self._resolve)


def _open_dataset(path: str, split: str, subset: str | None, stream: int | None) -> RecordTable:
    require("datasets", "train")
    import datasets

    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    try:
        if path.startswith(HUB):
            data = datasets.load_dataset(path.removeprefix(HUB), subset, split=split, streaming=stream is not None)
        elif path.endswith(".parquet"):
            files = expand_pattern(path)
            data = datasets.load_dataset("parquet", data_files=files, split="train", streaming=stream is not None)
        else:
            data = datasets.load_from_disk(path)
            data = data[split] if isinstance(data, datasets.DatasetDict) else data
            data = data.to_iterable_dataset() if stream is not None else data
        data = _disable_decoding(data, datasets)
    except Exception as error:  # hub, disk and Arrow raise many kinds of errors
        raise UsageError(f"cannot read {path}: {' '.join(str(error).split())[:300]}") from error
    return HubRecords(data, folder) if stream is None else StreamedRecords(data, folder, stream)


def _disable_decoding(data: Any, datasets: Any) -> Any:
    """Leave media as bytes and paths, so that `pvc.media` decodes them with its limits."""
    for name, feature in (data.features or {}).items():
        inner = getattr(feature, "feature", None)
        for kind in ("Image", "Video"):
            cls = getattr(datasets, kind, None)
            if cls is not None and isinstance(feature, cls):
                data = data.cast_column(name, cls(decode=False))
            elif cls is not None and isinstance(inner, cls):
                data = data.cast_column(name, datasets.List(cls(decode=False)))
    return data


def _make_cell_resolver(folder: Path) -> Callable[[str, Any], Any]:
    """Return a function that finds the medium of a cell: bytes, {"bytes", "path"} as in `datasets`, or a path."""
    paths = beside(folder)

    def resolve(kind: str, value: Any) -> Any:
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        return value if isinstance(value, bytes) else paths(kind, value)

    return resolve


__all__ = ["RecordTable", "ShardMember", "expand_pattern", "open_table"]
