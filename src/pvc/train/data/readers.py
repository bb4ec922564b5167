"""Where rows of conversations come from: JSON lines, tar shards, and tables that `datasets` reads.

A table gives its rows by number, so that a training can stop anywhere and go on exactly; one that is streamed gives
them in order. Leaves out which of them are bad and how many may be (`records.py`). Used by training and `data check`.
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
SHUFFLED = 1000  # rows that a stream holds to shuffle


class RecordTable(Protocol):
    """Rows by number.

    Attributes:
        rows: those that are known to be well formed, or None where they are only read when they are asked for.
        bad: those that are known not to be.
        total: how many there are; None of a stream.
    """

    rows: list[Record] | None
    bad: list[BadRecord]
    total: int | None

    def row(self, number: int) -> Record:
        """Row `number`, from 0; of a stream the `number`th that it gives. Raises ConfigError for one that is bad."""


@dataclass(frozen=True)
class ShardMember:
    """A file inside a tar shard; `read` gives its bytes. Raises UsageError when the shard is gone."""

    shard: str
    name: str
    offset: int
    size: int

    def read(self) -> bytes:
        try:
            with open(self.shard, "rb") as file:
                file.seek(self.offset)
                return file.read(self.size)
        except OSError as error:
            raise UsageError(f"cannot read {self.shard}: {error.strerror}") from error


class JsonRecords:
    """A table that is known as a whole: a file of JSON lines, or tar shards."""

    def __init__(self, rows: list[Record], bad: list[BadRecord]) -> None:
        self.found = rows
        self.rows: list[Record] | None = rows
        self.bad = bad
        self.total: int | None = len(rows) + len(bad)

    def row(self, number: int) -> Record:
        return self.found[number]


def open_table(path: str, *, split: str = "train", subset: str | None = None, stream: int | None = None) -> RecordTable:
    """The rows under a name: `x.jsonl`, tar shards (`x.tar`, `x-*.tar`), parquet (`x.parquet`, `x/*.parquet`), a
    directory that `datasets` saved, or `hub:owner/name`.

    `split` and `subset` are those of a dataset; `stream`: a seed, and rows are read in order, shuffled a thousand at a
    time, instead of being copied to a cache first.

    Raises:
        UsageError: it cannot be read. ConfigError: a stream of what is not streamed.
    """
    tabular = path.startswith(HUB) or path.endswith(".parquet") or Path(path).is_dir()
    if stream is not None and not tabular:
        raise ConfigError(f"{path}: parquet files and datasets are streamed, nothing else is")
    if tabular:
        return _dataset(path, split, subset, stream)
    if path.endswith(".tar"):
        return _shards(path)
    return JsonRecords(*scan_records(path))


def expanded(path: str) -> list[str]:
    """Files that a name with `*` or `?` stands for; raises UsageError if there is none."""
    if not set("*?") & set(path):
        return [path]
    found = sorted(glob.glob(path))
    if not found:
        raise UsageError(f"no file is named like {path}")
    return found


# Tar shards: WebDataset's form, files of one sample under one name with different extensions.


def _shards(path: str) -> JsonRecords:
    rows: list[Record] = []
    bad: list[BadRecord] = []
    number = 0
    for shard in expanded(path):
        for key, files in _samples(shard):
            number += 1
            try:
                row = _sample_row(files, number)
            except ConfigError as error:
                bad.append(BadRecord(number, f"{key} in {shard}: {error}"))
            else:
                rows.append(Record(f"{key}", number, row.messages))
    return JsonRecords(rows, bad)


def _samples(shard: str) -> Iterator[tuple[str, dict[str, ShardMember]]]:
    """Members of a shard that follow each other under one name, by extension."""
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


def _sample_row(files: dict[str, ShardMember], number: int) -> Record:
    """A sample's conversation (`json`), or its picture with a caption (`txt`)."""
    media = {
        kind: [member for extension, member in files.items() if extension.rpartition(".")[2] in extensions]
        for kind, extensions in zip(KINDS, (PICTURES, VIDEOS), strict=True)
    }
    if "json" in files:
        data = _object(files["json"].read())
        if "messages" in data or "conversations" in data:
            # Media without a name of their own are those beside the text, in the shard's order.
            named = any(data.get(key) is not None for kind in KINDS for key in (kind, f"{kind}s"))
            own = {} if named else {f"{kind}s": list(found) for kind, found in media.items() if found}
            return parse_record({**data, **own}, number, _inside(files))
    if "txt" not in files:
        raise ConfigError("neither a json with 'conversations' or 'messages' nor a txt")
    try:
        caption = files["txt"].read().decode()
    except UnicodeDecodeError as error:
        raise ConfigError("not UTF-8 text") from error
    shown = [{"type": kind, kind: member} for kind, found in media.items() for member in found]
    answer = {"role": "assistant", "content": [{"type": "text", "text": caption.strip()}]}
    return parse_record({"messages": [{"role": "user", "content": shown}, answer]}, number, _inside(files))


def _inside(files: dict[str, ShardMember]) -> Callable[[str, Any], ShardMember]:
    """Media of a sample by extension or by name."""

    def resolve(kind: str, value: Any) -> ShardMember:
        if isinstance(value, ShardMember):
            return value
        for extension, member in files.items():
            if value in (extension, member.name, member.name.rpartition("/")[2]):
                return member
        raise ConfigError(f"'{kind}' names {value!r}, which is not in the sample")

    return resolve


def _object(text: bytes) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError("not an object")
    return data


# Tables that `datasets` reads


class HubRecords:
    """A table of `datasets`, memory-mapped: rows are read when they are asked for."""

    rows: list[Record] | None = None
    bad: list[BadRecord] = []

    def __init__(self, data: Any, folder: Path) -> None:
        self.data, self.resolve = data, _cell(folder)
        self.total: int | None = len(data)

    def row(self, number: int) -> Record:
        return parse_record(self.data[number], number + 1, self.resolve)


class StreamedRecords:
    """A dataset that is read in order, again and again, each time shuffled otherwise, a thousand rows at a time.

    Going back means reading from the start, and going forward reading what lies between.
    """

    rows: list[Record] | None = None
    bad: list[BadRecord] = []
    total: int | None = None

    def __init__(self, data: Any, folder: Path, seed: int) -> None:
        self.data, self.resolve = data.shuffle(seed=seed, buffer_size=SHUFFLED), _cell(folder)
        self.place, self.round = 0, 0
        self.rest: Iterator[Any] | None = None

    def _next(self) -> Any:
        if self.rest is None:
            self.data.set_epoch(self.round)
            self.rest = iter(self.data)
        found = next(self.rest, None)
        if found is None:
            self.rest, self.round = None, self.round + 1
        return found

    def row(self, number: int) -> Record:
        if number < self.place:
            self.place, self.round, self.rest = 0, 0, None
        while True:
            found = self._next()
            if found is None and (found := self._next()) is None:
                raise UsageError("the stream has no rows")
            self.place += 1
            if self.place > number:
                return parse_record(found, number + 1, self.resolve)


def _dataset(path: str, split: str, subset: str | None, stream: int | None) -> RecordTable:
    require("datasets", "train")
    import datasets

    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    try:
        if path.startswith(HUB):
            data = datasets.load_dataset(path.removeprefix(HUB), subset, split=split, streaming=stream is not None)
        elif path.endswith(".parquet"):
            files = expanded(path)
            data = datasets.load_dataset("parquet", data_files=files, split="train", streaming=stream is not None)
        else:
            data = datasets.load_from_disk(path)
            data = data[split] if isinstance(data, datasets.DatasetDict) else data
            data = data.to_iterable_dataset() if stream is not None else data
        data = _undecoded(data, datasets)
    except Exception as error:  # whatever a hub, a disk and Arrow may say
        raise UsageError(f"cannot read {path}: {' '.join(str(error).split())[:300]}") from error
    return HubRecords(data, folder) if stream is None else StreamedRecords(data, folder, stream)


def _undecoded(data: Any, datasets: Any) -> Any:
    """Media as they are stored: bytes and paths are for `pvc.media`, whose limits hold for all."""
    for name, feature in (data.features or {}).items():
        inner = getattr(feature, "feature", None)
        for kind in ("Image", "Video"):
            cls = getattr(datasets, kind, None)
            if cls is not None and isinstance(feature, cls):
                data = data.cast_column(name, cls(decode=False))
            elif cls is not None and isinstance(inner, cls):
                data = data.cast_column(name, datasets.List(cls(decode=False)))
    return data


def _cell(folder: Path) -> Callable[[str, Any], Any]:
    """Media in a cell: bytes, {"bytes", "path"} as `datasets` stores pictures, or a path."""
    paths = beside(folder)

    def resolve(kind: str, value: Any) -> Any:
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        return value if isinstance(value, bytes) else paths(kind, value)

    return resolve


__all__ = ["RecordTable", "ShardMember", "expanded", "open_table"]
