"""Pictures and videos without text as training samples: folders, the media of conversations, drawn samples.

Called by `setup.py`; how rows are chosen and passed over is `pvc.train.data.mixture` and `pvc.train.data.records`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from pvc import media
from pvc.errors import PVCError, UsageError
from pvc.media.sniff import HEAD_BYTES, READABLE
from pvc.processing.conversations import BadRecord, Record
from pvc.processing.processor import PVCProcessor
from pvc.train.data.collate import MEDIA, Example
from pvc.train.data.mixture import StageDataset, open_media
from pvc.train.data.readers import PICTURES, VIDEOS
from pvc.train.data.records import BadRowLog, RecordSource
from pvc.train.recipe import FileMix, Stage

NO_MEDIA = "neither a picture nor a video"
ANIMATED = ("gif", "webp")


class MediaFolder:
    """All pictures and videos of a folder and of the folders in it, as rows of one medium each.

    A file counts by its first bytes, whatever its name. One with a medium's name that cannot be recognised is a bad
    row; other files are left out.

    Attributes:
        names: paths relative to the folder, by line from 1.

    Raises:
        UsageError: no folder, or no medium in it.
    """

    def __init__(self, path: str | Path) -> None:
        folder = Path(path)
        if not folder.is_dir():
            raise UsageError(f"{path} is not a folder")
        found: list[Record] = []
        self.bad: list[BadRecord] = []
        self.names: list[str] = []
        for file in sorted(one for one in folder.rglob("*") if one.is_file()):
            name = file.relative_to(folder).as_posix()
            if any(part.startswith(".") for part in name.split("/")):
                continue
            try:
                kind = _kind(file)
            except (PVCError, OSError) as error:
                kind, reason = None, str(error)
            else:
                reason = "its format is not known"
            if kind is None and file.suffix.lower().lstrip(".") not in (*PICTURES, *VIDEOS):
                continue
            self.names.append(name)
            line = len(self.names)
            if kind is None:
                self.bad.append(BadRecord(line, reason))
            else:
                part = {"type": kind, kind: file}
                found.append(Record(name, line, ({"role": "user", "content": [part]},)))
        if not self.names:
            raise UsageError(f"{path} has no pictures or videos; {READABLE}")
        self.rows: list[Record] | None = found
        self._found = found
        self.total: int | None = len(self.names)

    def row(self, number: int) -> Record:
        """Row `number`, from 0."""
        return self._found[number]


def _kind(path: Path) -> str | None:
    """ "image" or "video", as `media.load` would have it; None for another file."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    form = media.sniff(head)
    if form is None:
        return None
    return media.probe(path).kind if form.name in ANIMATED else form.kind


def without_media(row: Record) -> str | None:
    """Say what is wrong with a row that shows nothing."""
    shown = any(part["type"] != "text" for message in row.messages for part in message["content"])
    return None if shown else NO_MEDIA


class MediaDataset(StageDataset):
    """Samples of a stage of kind distill: media of folders and of conversations, without their text."""

    def _open(
        self, report: Callable[[str], None], bad_row_log: BadRowLog | None
    ) -> Iterator[tuple[str, FileMix, RecordSource]]:
        yield from open_rows(self.stage, self.seed, report, bad_row_log)

    def _encoded(self, item: Example) -> dict[str, torch.Tensor]:
        assert self.processor is not None
        return encode_media(self.processor, item)


def open_rows(
    stage: Stage, seed: int = 0, report: Callable[[str], None] = lambda line: None, bad_row_log: BadRowLog | None = None
) -> Iterator[tuple[str, FileMix, RecordSource]]:
    """Open a stage's files and folders of media, in this order.

    Raises:
        UsageError: one cannot be read. ConfigError: too many of its rows are bad.
    """
    assert stage.distill is not None
    options: dict[str, Any] = {"refuse": without_media, "bad_row_log": bad_row_log}
    for place, (path, mix) in enumerate({**stage.files, **stage.distill.media}.items()):
        table = MediaFolder(path) if path in stage.distill.media else None
        yield (
            path,
            mix,
            RecordSource(path, stage.bad_rows, report, mix=mix, seed=seed * 100 + place, table=table, **options),
        )


def encode_media(processor: PVCProcessor, item: Example) -> dict[str, torch.Tensor]:
    """Pixels of an item's media, as the model takes them, with `media_weights` that sum to 1.

    Images come first; `step_offset` is there if the item has one and videos.
    """
    parts = [
        part for message in item.messages if not isinstance(message["content"], str) for part in message["content"]
    ]
    images, videos = ([part[kind] for part in parts if part["type"] == kind] for kind in ("image", "video"))
    batch: dict[str, Any] = {}
    if images:
        batch.update(processor.image_processor(images, image_steps=item.image_steps, return_tensors="pt"))
    if videos:
        batch.update(processor.video_processor(videos, do_sample_frames=False, return_tensors="pt"))
        batch.pop("timestamps")
        if item.step_offset is not None:
            batch["step_offset"] = torch.full((len(videos),), item.step_offset)
    count = len(images) + len(videos)
    batch["media_weights"] = torch.full((count,), 1 / count)
    batch["num_images"] = torch.tensor([len(images)])
    return batch


class MediaCollator:
    """Items to a batch of pixels: the images of all items, then their videos."""

    def __init__(self, processor: PVCProcessor) -> None:
        self.processor = processor

    def __call__(self, items: Sequence[Example]) -> dict[str, torch.Tensor]:
        samples = [dict(item.encoded or encode_media(self.processor, item)) for item in items]
        batch = {}
        for key in MEDIA:
            if parts := [sample[key] for sample in samples if key in sample]:
                batch[key] = torch.cat(parts)
        weights = [sample["media_weights"].tensor_split([int(sample["num_images"])]) for sample in samples]
        batch["media_weights"] = torch.cat([pair[kind] for kind in (0, 1) for pair in weights])
        return batch


def eval_items(
    folder: str, processor: PVCProcessor, count: int, frames: int, steps: Sequence[int]
) -> dict[str, list[dict[str, torch.Tensor]]]:
    """Encode the first `count` readable pictures (in each number of steps) and videos of a folder, by what they are."""
    size = int(dict(processor.video_processor.size)["height"])
    found: dict[str, list[dict[str, torch.Tensor]]] = {}
    for kind in ("image", "video"):
        rows = [row for row in MediaFolder(folder).rows or () if row.kind == kind][:count]
        for number in steps if kind == "image" else (1,):
            encoded = []
            for row in rows:
                try:
                    opened_row = open_media(row.messages, frames, size)
                except PVCError:
                    continue
                encoded.append(encode_media(processor, Example(opened_row, number)))
            if encoded:
                name = "clips" if kind == "video" else f"pictures in {number} step{'s'[: number != 1]}"
                found[name] = encoded
    return found


__all__ = ["MediaCollator", "MediaDataset", "MediaFolder", "encode_media", "eval_items", "open_rows", "without_media"]
