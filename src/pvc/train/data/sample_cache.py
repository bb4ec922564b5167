"""Examples that are generated once into memory-mapped files, and their collation; this is for training on a CPU.

The files contain the output of the processor. Every run of placeholders is stored as one id and the number of frames
that it stands for, so that one file serves any number of steps and any compression. The batches are equal to those of
`ChatCollator` (tested). Called by `pipeline.py` and `pvc.lab`.

F frames, S pixels a side.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from pvc.errors import CheckpointError
from pvc.processing.processor import PVCProcessor
from pvc.train.data.mixture import IGNORED, StageDataset, choose_steps
from pvc.train.data.tasks import GeneratedExample
from pvc.train.recipe import Stage

FORMAT = 1
KINDS = ("image", "video")


@dataclass(frozen=True)
class PackedExample:
    """One conversation with its media, to be collated.

    Attributes:
        ids: int32 `(n,)`, one placeholder for every run of them.
        frames_of: int32 `(n,)`: number of frames that a placeholder stands for, 0 for other ids.
        answer: uint8 `(n,)`, 1 for ids with a loss.
        media: kind and uint8 pixels `(F, 3, S, S)`, in order; F tiles of a picture or frames of a video.
        image_steps: steps that pictures are encoded in.
    """

    ids: NDArray[np.int32]
    frames_of: NDArray[np.int32]
    answer: NDArray[np.uint8]
    media: tuple[tuple[str, NDArray[np.uint8]], ...]
    image_steps: int = 1


def pack(messages: list[dict[str, Any]], processor: PVCProcessor) -> PackedExample:
    """Process a conversation to the form that is stored.

    Args:
        messages: the conversation, with decoded media.
        processor: of the model.
    """
    batch = processor.apply_chat_template(
        [messages], tokenize=True, return_assistant_tokens_mask=True, image_steps=1, do_sample_frames=False
    )
    ids = batch["input_ids"][0].numpy().astype(np.int32)
    answer = batch["assistant_masks"][0].numpy().astype(np.uint8)
    placeholder = (ids == processor.image_token_id) | (ids == processor.video_token_id)
    first = placeholder & ~(np.concatenate(([False], placeholder[:-1])) & (ids == np.roll(ids, 1)))
    run = np.cumsum(first)[placeholder]
    lengths = np.bincount(run, minlength=int(first.sum()) + 1)[1:]
    frames_of = np.zeros(len(ids), np.int32)
    frames_of[first] = lengths // processor.tokens_per_frame
    is_stored = ~placeholder | first
    media: list[tuple[str, NDArray[np.uint8]]] = []
    for kind, key, name in (("image", "pixel_values", "image"), ("video", "pixel_values_videos", "video")):
        if key in batch:
            media_processor = processor.image_processor if kind == "image" else processor.video_processor
            pixels = _denormalize(batch[key], media_processor)
            sizes = [int(grid[0]) for grid in batch[f"{name}_grid_thw"]]
            media += [(kind, part) for part in np.split(pixels, np.cumsum(sizes)[:-1])]
    return PackedExample(ids[is_stored], frames_of[is_stored], answer[is_stored], tuple(media))


def _get_mean_and_std(media_processor: Any) -> tuple[torch.Tensor, torch.Tensor]:
    mean, std = (
        torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)
        for values in (media_processor.image_mean, media_processor.image_std)
    )
    return mean, std


def _denormalize(pixels: torch.Tensor, media_processor: Any) -> NDArray[np.uint8]:
    """Convert normalised pixels to bytes: exact for frames that were not resized, otherwise to half a grey level."""
    mean, std = _get_mean_and_std(media_processor)
    return ((pixels * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def write_cache(
    dataset: StageDataset,
    processor: PVCProcessor,
    directory: Path,
    report: Callable[[str], None],
    change: Callable[[GeneratedExample], GeneratedExample] | None = None,
) -> None:
    """Generate `stage.cache` examples into a directory, completely or not at all; do nothing if they are there.

    Args:
        dataset: examples of the stage.
        processor: of the model.
        directory: to write.
        report: gets lines about the progress.
        change: is applied to every example before it is stored. It is not part of the check of an existing directory.

    Raises:
        CheckpointError: the directory has other examples.
    """
    stage, size = dataset.stage, dataset.size
    count = stage.cache or 0
    stamp = _compute_stamp(stage, dataset.seed, size, processor)
    if directory.exists():
        info = json.loads((directory / "cache.json").read_text(encoding="utf-8"))
        if info["stamp"] != stamp:
            raise CheckpointError(f"{directory} has examples of another recipe; remove it to generate them again")
        return
    staging = directory.with_name(directory.name + ".part")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    columns: dict[str, list[Any]] = {key: [] for key in ("ids", "frames_of", "answer", "kinds", "frames")}
    lengths, media_counts = [], []
    with (staging / "frames.u8").open("wb") as out:
        for index in range(count):
            example = dataset[index].generated
            assert example is not None  # a stage with files has no cache
            packed = pack(list((change(example) if change else example).messages), processor)
            lengths.append(len(packed.ids))
            media_counts.append(len(packed.media))
            for key in ("ids", "frames_of", "answer"):
                columns[key].append(getattr(packed, key))
            for kind, pixels in packed.media:
                columns["kinds"].append(KINDS.index(kind))
                columns["frames"].append(len(pixels))
                out.write(pixels.tobytes())
            if (index + 1) % max(1, count // 20) == 0:
                report(f"{stage.name}: {index + 1}/{count} examples generated")
    np.savez(
        staging / "index.npz",
        ids=np.concatenate(columns["ids"]),
        frames_of=np.concatenate(columns["frames_of"]),
        answer=np.concatenate(columns["answer"]),
        ends=np.cumsum(lengths),
        media_ends=np.cumsum(media_counts),
        kinds=np.array(columns["kinds"], np.uint8),
        frames=np.array(columns["frames"], np.int64),
    )
    (staging / "cache.json").write_text(json.dumps({"stamp": stamp, "count": count, "size": size}), encoding="utf-8")
    staging.rename(directory)


def _compute_stamp(stage: Stage, seed: int, size: int, processor: PVCProcessor) -> str:
    """Return a hash of everything that the examples depend on."""
    values = stage.model_dump(
        mode="json", include={"tasks", "video_frames", "batch_size", "cache", "questions", "characters"}
    )
    if set(stage.zoom) != {1}:  # only if it is used, so that files of earlier versions stay valid
        values["zoom"] = stage.zoom
    parts = [FORMAT, values, seed, size, sorted(processor.tokenizer.get_vocab().items())]
    pictures = processor.image_processor
    settings = (processor.frame_prefix, pictures.use_thumbnail, pictures.pad2square)
    if settings != ("timestamp", True, False):  # as above
        parts.append(settings)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class CachedDataset(Dataset[PackedExample]):
    """`steps * batch_size` examples from a cache: every epoch has all of them, in a different order.

    Only examples with media of the same kind and length are exchanged, so that a batch has one kind and length.

    Args:
        directory: written by `write_cache`.
        stage: of the recipe.
        seed: of the order.
    """

    def __init__(self, directory: Path, stage: Stage, seed: int) -> None:
        self.stage = stage
        self.seed = seed
        info = json.loads((directory / "cache.json").read_text(encoding="utf-8"))
        index = np.load(directory / "index.npz")
        self._columns = {key: index[key] for key in index.files}
        side = info["size"]
        self._pixels = np.memmap(directory / "frames.u8", dtype=np.uint8, mode="r").reshape(-1, 3, side, side)
        self._frame_ends = np.cumsum(self._columns["frames"])
        # Only complete batches: the last one of an epoch would mix kinds.
        self._count = info["count"] // stage.batch_size * stage.batch_size
        self._groups = self._find_groups()
        self._epoch: tuple[int, NDArray[np.int64]] = (-1, np.zeros(0, np.int64))

    def _find_groups(self) -> list[NDArray[np.int64]]:
        """Return groups of examples whose media have the same kinds and lengths."""
        ends = self._columns["media_ends"]
        groups: dict[bytes, list[int]] = {}
        for number in range(self._count):
            part = slice(ends[number - 1] if number else 0, ends[number])
            key = self._columns["kinds"][part].tobytes() + self._columns["frames"][part].tobytes()
            groups.setdefault(key, []).append(number)
        return [np.array(members, np.int64) for members in groups.values()]

    def __len__(self) -> int:
        return self.stage.steps * self.stage.batch_size

    def _get_order(self, epoch: int) -> NDArray[np.int64]:
        """Return the numbers of the examples in the order of an epoch."""
        if self._epoch[0] != epoch:
            rng = np.random.default_rng((self.seed, 3, epoch))
            order = np.arange(self._count)
            for group in self._groups:
                order[group] = group[rng.permutation(len(group))]
            batches = order.reshape(-1, self.stage.batch_size)
            self._epoch = (epoch, batches[rng.permutation(len(batches))].ravel())
        return self._epoch[1]

    def __getitem__(self, index: int) -> PackedExample:
        number = int(self._get_order(index // self._count)[index % self._count])
        steps = choose_steps(self.stage, self.seed, index // self.stage.batch_size)
        return self.read_example(number, steps)

    def read_example(self, number: int, image_steps: int) -> PackedExample:
        """Read an example in the order in which they were written.

        Args:
            number: of the example, from 0.
            image_steps: steps of its pictures.
        """
        columns = self._columns
        part = slice(columns["ends"][number - 1] if number else 0, columns["ends"][number])
        first = columns["media_ends"][number - 1] if number else 0
        media = []
        for medium in range(first, columns["media_ends"][number]):
            end = self._frame_ends[medium]
            pixels = self._pixels[end - columns["frames"][medium] : end]
            media.append((KINDS[columns["kinds"][medium]], pixels))
        return PackedExample(
            columns["ids"][part], columns["frames_of"][part], columns["answer"][part], tuple(media), image_steps
        )


class PackedCollator:
    """Collate packed examples to the batches that `ChatCollator` builds from the original examples.

    Args:
        processor: of the model.
    """

    def __init__(self, processor: PVCProcessor) -> None:
        self.image_token_id = processor.image_token_id
        self.tokens_per_frame = processor.tokens_per_frame
        self.pad_id = processor.tokenizer.pad_token_id or 0
        self.media_processors = {"image": processor.image_processor, "video": processor.video_processor}

    def __call__(self, examples: Sequence[PackedExample]) -> dict[str, torch.Tensor]:
        """Return inputs, `labels` `(B, Q)` and media inputs of a batch."""
        rows = [self._expand(example) for example in examples]
        max_length = max(len(ids) for ids, _ in rows)
        ids = np.full((len(rows), max_length), self.pad_id, np.int64)
        labels = np.full((len(rows), max_length), IGNORED, np.int64)
        mask = np.zeros((len(rows), max_length), np.int64)
        for row, (row_ids, answer) in enumerate(rows):
            start = max_length - len(row_ids)
            ids[row, start:], mask[row, start:] = row_ids, 1
            labels[row, start:] = np.where(answer == 1, row_ids, IGNORED)
        batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        tensors = {key: torch.from_numpy(value) for key, value in batch.items()}
        for kind, suffix in (("image", ""), ("video", "_videos")):
            media = [
                (pixels, example.image_steps)
                for example in examples
                for medium_kind, pixels in example.media
                if medium_kind == kind
            ]
            if media:
                tensors[f"pixel_values{suffix}"] = self._normalize(kind, [pixels for pixels, _ in media])
                tensors[f"{kind}_grid_thw"] = torch.tensor([[len(pixels), 1, 1] for pixels, _ in media])
            if media and kind == "image":
                tensors["image_steps"] = torch.tensor([steps for pixels, steps in media for _ in pixels])
        return tensors

    def _expand(self, example: PackedExample) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Repeat placeholders as often as the example has visual tokens; return ids and answer marks."""
        counts = example.frames_of.astype(np.int64) * self.tokens_per_frame
        counts[example.ids == self.image_token_id] *= example.image_steps
        counts[example.frames_of == 0] = 1
        return np.repeat(example.ids.astype(np.int64), counts), np.repeat(example.answer, counts)

    def _normalize(self, kind: str, media: list[NDArray[np.uint8]]) -> torch.Tensor:
        mean, std = _get_mean_and_std(self.media_processors[kind])
        pixels = torch.from_numpy(np.concatenate(media))
        return (pixels.to(torch.float32) * (1 / 255) - mean) / std


__all__ = ["CachedDataset", "PackedCollator", "PackedExample", "pack", "write_cache"]
