"""Pictures and videos without text as training examples: folders, media of conversations, and generated examples.

Records are chosen in `data/mixture.py` and `data/records.py`. Called by `setup.py`; `answer_data.py` adds questions.
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
    """All pictures and videos of a folder and its subfolders, as records of one medium each.

    A file is recognised by its first bytes, not by its name. A file with a medium's extension that is not recognised is
    a bad record. Other files are ignored.

    Args:
        path: of the folder.

    Attributes:
        records: media that are recognised.
        bad: files that are not.
        total: number of both.
        names: paths relative to the folder; record `line` is `names[line - 1]`.

    Raises:
        UsageError: the folder does not exist, or has no media.
    """

    def __init__(self, path: str | Path) -> None:
        folder = Path(path)
        if not folder.is_dir():
            raise UsageError(f"{path} is not a folder")
        records: list[Record] = []
        self.bad: list[BadRecord] = []
        self.names: list[str] = []
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = file.relative_to(folder).as_posix()
            if any(part.startswith(".") for part in name.split("/")):
                continue
            try:
                kind = _detect_kind(file)
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
                records.append(Record(name, line, ({"role": "user", "content": [part]},)))
        if not self.names:
            raise UsageError(f"{path} has no pictures or videos; {READABLE}")
        self.records: list[Record] | None = records
        self._records = records
        self.total: int | None = len(self.names)

    def get_record(self, number: int) -> Record:
        """Return recognised medium `number`, from 0."""
        return self._records[number]


def _detect_kind(path: Path) -> str | None:
    """Return "image" or "video", as `media.load` detects it; None for another file."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    media_format = media.sniff(head)
    if media_format is None:
        return None
    return media.probe(path).kind if media_format.name in ANIMATED else media_format.kind


def find_missing_media(record: Record) -> str | None:
    """Return what is wrong with a record without media; None if it has some."""
    has_media = any(part["type"] != "text" for message in record.messages for part in message["content"])
    return None if has_media else NO_MEDIA


class MediaDataset(StageDataset):
    """Examples of a stage of kind distill: media of folders and of conversations, without their text."""

    def _open(
        self, report: Callable[[str], None], bad_row_log: BadRowLog | None
    ) -> Iterator[tuple[str, FileMix, RecordSource]]:
        yield from open_sources(self.stage, self.seed, report, bad_row_log)

    def _encode(self, example: Example) -> dict[str, torch.Tensor]:
        assert self.processor is not None
        return encode_media(self.processor, example)


def open_sources(
    stage: Stage, seed: int = 0, report: Callable[[str], None] = lambda line: None, bad_row_log: BadRowLog | None = None
) -> Iterator[tuple[str, FileMix, RecordSource]]:
    """Open a stage's files and folders of media, in this order.

    Args:
        stage: of kind distill.
        seed: of the order of records.
        report: gets a line for every bad record.
        bad_row_log: where bad records are logged.

    Yields:
        Path, mix and source.

    Raises:
        UsageError: a file or folder cannot be read.
        ConfigError: too many of its records are bad.
    """
    assert stage.distill is not None
    options: dict[str, Any] = {"check_record": find_missing_media, "bad_row_log": bad_row_log}
    for number, (path, mix) in enumerate({**stage.files, **stage.distill.media}.items()):
        table = MediaFolder(path) if path in stage.distill.media else None
        yield (
            path,
            mix,
            RecordSource(path, stage.bad_rows, report, mix=mix, seed=seed * 100 + number, table=table, **options),
        )


def encode_media(processor: PVCProcessor, example: Example) -> dict[str, torch.Tensor]:
    """Encode the media of an example.

    Args:
        processor: of the model.
        example: example with decoded media.

    Returns:
        Media inputs of the model, images first; `media_weights`, which sum to 1; `num_images`. There is a `step_offset`
        if the example has one and videos.
    """
    parts = [
        part for message in example.messages if not isinstance(message["content"], str) for part in message["content"]
    ]
    images, videos = ([part[kind] for part in parts if part["type"] == kind] for kind in ("image", "video"))
    batch: dict[str, Any] = {}
    if images:
        batch.update(processor.image_processor(images, image_steps=example.image_steps, return_tensors="pt"))
    if videos:
        batch.update(processor.video_processor(videos, do_sample_frames=False, return_tensors="pt"))
        batch.pop("timestamps")
        if example.step_offset is not None:
            batch["step_offset"] = torch.full((len(videos),), example.step_offset)
    count = len(images) + len(videos)
    batch["media_weights"] = torch.full((count,), 1 / count)
    batch["num_images"] = torch.tensor([len(images)])
    return batch


class MediaCollator:
    """Collate examples to a batch of pixels: the images of all examples, then their videos.

    Args:
        processor: of the model.
    """

    def __init__(self, processor: PVCProcessor) -> None:
        self.processor = processor

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return the inputs of `TokenDistiller.forward`."""
        encoded = [dict(example.encoded or encode_media(self.processor, example)) for example in examples]
        batch = {}
        for key in MEDIA:
            if parts := [sample[key] for sample in encoded if key in sample]:
                batch[key] = torch.cat(parts)
        weights = [sample["media_weights"].tensor_split([int(sample["num_images"])]) for sample in encoded]
        batch["media_weights"] = torch.cat([pair[kind] for kind in (0, 1) for pair in weights])
        return batch


def load_eval_batches(
    folder: str, processor: PVCProcessor, count: int, frames: int, steps: Sequence[int]
) -> dict[str, list[dict[str, torch.Tensor]]]:
    """Encode held-out media of a folder.

    Args:
        folder: of media.
        processor: of the model.
        count: maximum number of pictures and of videos, of which unreadable ones are skipped.
        frames: number of frames of a video.
        steps: numbers of steps in which every picture is encoded.

    Returns:
        Encoded examples by name: "clips", "pictures in 1 step", "pictures in 2 steps" and so on.
    """
    size = int(dict(processor.video_processor.size)["height"])
    batches: dict[str, list[dict[str, torch.Tensor]]] = {}
    for kind in ("image", "video"):
        records = [record for record in MediaFolder(folder).records or () if record.kind == kind][:count]
        for number in steps if kind == "image" else (1,):
            encoded = []
            for record in records:
                try:
                    messages = open_media(record.messages, frames, size)
                except PVCError:
                    continue
                encoded.append(encode_media(processor, Example(messages, number)))
            if encoded:
                name = "clips" if kind == "video" else f"pictures in {number} step{'s'[: number != 1]}"
                batches[name] = encoded
    return batches


__all__ = [
    "MediaCollator",
    "MediaDataset",
    "MediaFolder",
    "encode_media",
    "find_missing_media",
    "load_eval_batches",
    "open_sources",
]
