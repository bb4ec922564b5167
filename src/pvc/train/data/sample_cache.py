"""Samples drawn once into memory-mapped files, and their collation: training on a CPU spends its time on the model.

What is kept is what the processor made of a sample, with every run of placeholders as one id and the number of
frames it stands for, so that the same file serves any number of steps and any compression. The batches are equal to
those of `data.ChatCollator` (a test says so). Leaves out how they are generated (`tasks.py`).

F frames, S their size.
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
    """One conversation with its media, ready to be collated.

    Attributes:
        ids: int32 `(n,)`, one placeholder for every run of them.
        frames_of: int32 `(n,)`: frames that a placeholder stands for, 0 for everything else.
        answer: uint8 `(n,)`, 1 where training predicts the id.
        media: kind and uint8 pixels `(F, 3, S, S)`, in order; F tiles of a picture or frames of a video.
        image_steps: steps that pictures are encoded in.
    """

    ids: NDArray[np.int32]
    frames_of: NDArray[np.int32]
    answer: NDArray[np.uint8]
    media: tuple[tuple[str, NDArray[np.uint8]], ...]
    image_steps: int = 1


def pack(messages: list[dict[str, Any]], processor: PVCProcessor) -> PackedExample:
    """A conversation through the processor, in the form that is kept."""
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
    kept = ~placeholder | first
    media: list[tuple[str, NDArray[np.uint8]]] = []
    for kind, key, name in (("image", "pixel_values", "image"), ("video", "pixel_values_videos", "video")):
        if key in batch:
            owner = processor.image_processor if kind == "image" else processor.video_processor
            stored = _to_bytes(batch[key], owner)
            sizes = [int(row[0]) for row in batch[f"{name}_grid_thw"]]
            media += [(kind, part) for part in np.split(stored, np.cumsum(sizes)[:-1])]
    return PackedExample(ids[kept], frames_of[kept], answer[kept], tuple(media))


def _scale(owner: Any) -> tuple[torch.Tensor, torch.Tensor]:
    mean, std = (
        torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1) for values in (owner.image_mean, owner.image_std)
    )
    return mean, std


def _to_bytes(pixels: torch.Tensor, owner: Any) -> NDArray[np.uint8]:
    """Normalised pixels back to bytes: exact for frames that were not resized, else to half a grey level."""
    mean, std = _scale(owner)
    return ((pixels * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def write_cache(
    samples: StageDataset,
    processor: PVCProcessor,
    directory: Path,
    report: Callable[[str], None],
    change: Callable[[GeneratedExample], GeneratedExample] | None = None,
) -> None:
    """Draw `stage.cache` samples into `directory`, whole or not at all; nothing is done when they are there.

    `change` is applied to every sample before it is kept (it is not part of what the directory is checked for).

    Raises:
        CheckpointError: the directory holds other samples.
    """
    stage, size = samples.stage, samples.size
    count = stage.cache or 0
    stamp = _stamp(stage, samples.seed, size, processor)
    if directory.exists():
        found = json.loads((directory / "cache.json").read_text(encoding="utf-8"))
        if found["stamp"] != stamp:
            raise CheckpointError(f"{directory} holds samples of another recipe; remove it to draw them anew")
        return
    staging = directory.with_name(directory.name + ".part")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    columns: dict[str, list[Any]] = {key: [] for key in ("ids", "frames_of", "answer", "kinds", "frames")}
    lengths, owned = [], []
    with (staging / "frames.u8").open("wb") as out:
        for index in range(count):
            example = samples[index].generated
            assert example is not None  # a stage with files has no cache
            packed = pack(list((change(example) if change else example).messages), processor)
            lengths.append(len(packed.ids))
            owned.append(len(packed.media))
            for key in ("ids", "frames_of", "answer"):
                columns[key].append(getattr(packed, key))
            for kind, pixels in packed.media:
                columns["kinds"].append(KINDS.index(kind))
                columns["frames"].append(len(pixels))
                out.write(pixels.tobytes())
            if (index + 1) % max(1, count // 20) == 0:
                report(f"{stage.name}: {index + 1}/{count} samples drawn")
    np.savez(
        staging / "index.npz",
        ids=np.concatenate(columns["ids"]),
        frames_of=np.concatenate(columns["frames_of"]),
        answer=np.concatenate(columns["answer"]),
        ends=np.cumsum(lengths),
        media_ends=np.cumsum(owned),
        kinds=np.array(columns["kinds"], np.uint8),
        frames=np.array(columns["frames"], np.int64),
    )
    (staging / "cache.json").write_text(json.dumps({"stamp": stamp, "count": count, "size": size}), encoding="utf-8")
    staging.rename(directory)


def _stamp(stage: Stage, seed: int, size: int, processor: PVCProcessor) -> str:
    """What the samples depend on, hashed."""
    drawn = stage.model_dump(
        mode="json", include={"tasks", "video_frames", "batch_size", "cache", "questions", "characters"}
    )
    if set(stage.zoom) != {1}:  # said only where it is used: files of earlier versions stay good
        drawn["zoom"] = stage.zoom
    parts = [FORMAT, drawn, seed, size, sorted(processor.tokenizer.get_vocab().items())]
    pictures = processor.image_processor
    settings = (processor.frame_prefix, pictures.use_thumbnail, pictures.pad2square)
    if settings != ("timestamp", True, False):  # as above
        parts.append(settings)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class CachedDataset(Dataset[PackedExample]):
    """`steps * batch_size` samples from a cache: every round has all of them, in another order.

    Samples trade places only with those of the same kind and length of media, so that batches stay even.
    """

    def __init__(self, directory: Path, stage: Stage, seed: int) -> None:
        self.stage = stage
        self.seed = seed
        about = json.loads((directory / "cache.json").read_text(encoding="utf-8"))
        index = np.load(directory / "index.npz")
        self.columns = {key: index[key] for key in index.files}
        side = about["size"]
        self.pixels = np.memmap(directory / "frames.u8", dtype=np.uint8, mode="r").reshape(-1, 3, side, side)
        self.frame_ends = np.cumsum(self.columns["frames"])
        # Whole batches only: the last one of a round would mix kinds.
        self.count = about["count"] // stage.batch_size * stage.batch_size
        self.groups = self._groups()
        self.round: tuple[int, NDArray[np.int64]] = (-1, np.zeros(0, np.int64))

    def _groups(self) -> list[NDArray[np.int64]]:
        """Indices of samples whose media have the same kinds and lengths."""
        ends = self.columns["media_ends"]
        found: dict[bytes, list[int]] = {}
        for sample in range(self.count):
            own = slice(ends[sample - 1] if sample else 0, ends[sample])
            key = self.columns["kinds"][own].tobytes() + self.columns["frames"][own].tobytes()
            found.setdefault(key, []).append(sample)
        return [np.array(members, np.int64) for members in found.values()]

    def __len__(self) -> int:
        return self.stage.steps * self.stage.batch_size

    def _order(self, number: int) -> NDArray[np.int64]:
        """Sample at every place of a round."""
        if self.round[0] != number:
            rng = np.random.default_rng((self.seed, 3, number))
            order = np.arange(self.count)
            for group in self.groups:
                order[group] = group[rng.permutation(len(group))]
            batches = order.reshape(-1, self.stage.batch_size)
            self.round = (number, batches[rng.permutation(len(batches))].ravel())
        return self.round[1]

    def __getitem__(self, index: int) -> PackedExample:
        sample = int(self._order(index // self.count)[index % self.count])
        steps = choose_steps(self.stage, self.seed, index // self.stage.batch_size)
        return self.sample_at(sample, steps)

    def sample_at(self, sample: int, image_steps: int) -> PackedExample:
        """Sample `sample` as it was written."""
        columns = self.columns
        own = slice(columns["ends"][sample - 1] if sample else 0, columns["ends"][sample])
        first = columns["media_ends"][sample - 1] if sample else 0
        media = []
        for number in range(first, columns["media_ends"][sample]):
            end = self.frame_ends[number]
            pixels = self.pixels[end - columns["frames"][number] : end]
            media.append((KINDS[columns["kinds"][number]], pixels))
        return PackedExample(
            columns["ids"][own], columns["frames_of"][own], columns["answer"][own], tuple(media), image_steps
        )


class PackedCollator:
    """Packed samples to inputs and labels, as `ChatCollator` makes them from samples."""

    def __init__(self, processor: PVCProcessor) -> None:
        self.image_token_id = processor.image_token_id
        self.tokens_per_frame = processor.tokens_per_frame
        self.pad_id = processor.tokenizer.pad_token_id or 0
        self.owners = {"image": processor.image_processor, "video": processor.video_processor}

    def __call__(self, items: Sequence[PackedExample]) -> dict[str, torch.Tensor]:
        rows = [self._expand(item) for item in items]
        longest = max(len(ids) for ids, _ in rows)
        ids = np.full((len(rows), longest), self.pad_id, np.int64)
        labels = np.full((len(rows), longest), IGNORED, np.int64)
        mask = np.zeros((len(rows), longest), np.int64)
        for row, (own, answer) in enumerate(rows):
            start = longest - len(own)
            ids[row, start:], mask[row, start:] = own, 1
            labels[row, start:] = np.where(answer == 1, own, IGNORED)
        batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        tensors = {key: torch.from_numpy(value) for key, value in batch.items()}
        for kind, suffix in (("image", ""), ("video", "_videos")):
            media = [(pixels, item.image_steps) for item in items for own, pixels in item.media if own == kind]
            if media:
                tensors[f"pixel_values{suffix}"] = self._pixels(kind, [pixels for pixels, _ in media])
                tensors[f"{kind}_grid_thw"] = torch.tensor([[len(pixels), 1, 1] for pixels, _ in media])
            if media and kind == "image":
                tensors["image_steps"] = torch.tensor([steps for pixels, steps in media for _ in pixels])
        return tensors

    def _expand(self, item: PackedExample) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        counts = item.frames_of.astype(np.int64) * self.tokens_per_frame
        counts[item.ids == self.image_token_id] *= item.image_steps
        counts[item.frames_of == 0] = 1
        return np.repeat(item.ids.astype(np.int64), counts), np.repeat(item.answer, counts)

    def _pixels(self, kind: str, media: list[NDArray[np.uint8]]) -> torch.Tensor:
        mean, std = _scale(self.owners[kind])
        stored = torch.from_numpy(np.concatenate(media))
        return (stored.to(torch.float32) * (1 / 255) - mean) / std


__all__ = ["CachedDataset", "PackedCollator", "PackedExample", "pack", "write_cache"]
