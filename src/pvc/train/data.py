"""Training samples of a stage, by index, and their collation into model inputs.

Sample `i` depends on the seed and on `i` alone, so a training can stop anywhere and go on exactly. Batches hold
one kind of media, and videos of one length, so that nothing is padded for nothing. Leaves out samples that were
drawn before (`cache.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from pvc.errors import ConfigError
from pvc.processing.processor import PVCProcessor
from pvc.processing.rows import Row, read_rows
from pvc.synthetic import TASKS, Sample, make, messages_of
from pvc.train.recipe import Stage

IGNORED = -100  # what the loss skips


def pick(rng: np.random.Generator, weights: Mapping[Any, float]) -> Any:
    """One key, drawn by weight."""
    keys = list(weights)
    total = np.cumsum(np.fromiter(weights.values(), dtype=np.float64))
    return keys[int(np.searchsorted(total, rng.random() * total[-1], side="right"))]


def drawn_steps(stage: Stage, seed: int, batch: int) -> int:
    """Steps of the pictures of one batch."""
    return int(pick(np.random.default_rng((seed, 2, batch)), stage.image_steps))


def shortened(sample: Sample, questions: int | None, characters: int | None = None) -> Sample:
    """A sample with at most so many questions, and further ones only as long as all of the text is no longer."""
    more = sample.more[: None if questions is None else questions - 1]
    if characters is not None:
        left, kept = characters - len(sample.question) - len(sample.answer), []
        for question, answer in more:
            left -= len(question) + len(answer)
            if left < 0:
                break
            kept.append((question, answer))
        more = tuple(kept)
    return replace(sample, more=more)


@dataclass(frozen=True)
class Item:
    """One conversation to train on, and the steps that its pictures are encoded in; `sample` where it was drawn."""

    messages: Sequence[dict[str, Any]]
    image_steps: int
    sample: Sample | None = None


class StageSamples(Dataset[Item]):
    """`steps * batch_size` samples of a stage's tasks and files.

    Raises:
        UsageError, ConfigError: a file that cannot be read, or a row without an answer.
    """

    def __init__(self, stage: Stage, seed: int, size: int) -> None:
        self.stage = stage
        self.seed = seed
        self.size = size
        self.kinds: dict[str, dict[str, float]] = {}
        for task, mix in stage.tasks.items():
            self.kinds.setdefault(TASKS[task].kind, {})[task] = mix.weight
        self.kind_weights = {kind: sum(tasks.values()) for kind, tasks in self.kinds.items()}
        self.rows: dict[str, list[Row]] = {}
        for path, weight in stage.files.items():
            rows = read_rows(path)
            for row in rows:
                if all(message["role"] != "assistant" for message in row.messages):
                    raise ConfigError(f"{path}, line {row.line}: no answer that could be learned")
            for kind in ("image", "video"):
                if own := [row for row in rows if row.kind == kind]:
                    self.rows[f"{path} ({kind})"] = own
                    self.kind_weights[f"{path} ({kind})"] = weight * len(own) / len(rows)

    def __len__(self) -> int:
        return self.stage.steps * self.stage.batch_size

    def __getitem__(self, index: int) -> Item:
        number = index // self.stage.batch_size
        batch = np.random.default_rng((self.seed, 0, number))
        kind = pick(batch, self.kind_weights)
        if kind in self.rows:
            return self._row(kind, index, number)
        frames = int(pick(batch, self.stage.video_frames)) if kind == "video" else None
        # The whole batch has one size, so that none of its pictures is padded to the tiles of another.
        size = self.size * (int(pick(batch, self.stage.zoom)) if kind == "image" else 1)
        own = np.random.default_rng((self.seed, 1, index))
        task = pick(own, self.kinds[kind])
        mix = self.stage.tasks[task]
        options: dict[str, Any] = {}
        if mix.levels is not None:
            options["level"] = int(own.choice(mix.levels))
        if mix.tiles != (1,):
            options["tiles"] = int(own.choice(mix.tiles))
        sample = make(task, int(own.integers(2**62)), size=size, split="train", frames=frames, **options)
        sample = shortened(sample, self.stage.questions, self.stage.characters)
        return Item(messages_of(sample), drawn_steps(self.stage, self.seed, number), sample)

    def _row(self, kind: str, index: int, number: int) -> Item:
        rows = self.rows[kind]
        row = rows[int(np.random.default_rng((self.seed, 1, index)).integers(len(rows)))]
        return Item(row.messages, drawn_steps(self.stage, self.seed, number))


class ChatCollator:
    """Samples to inputs and labels; only the assistant's tokens and the end of its turn count."""

    def __init__(self, processor: PVCProcessor) -> None:
        self.processor = processor

    def __call__(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        batch = self.processor.apply_chat_template(
            [item.messages for item in items],
            tokenize=True,
            return_assistant_tokens_mask=True,
            image_steps=items[0].image_steps,
            # Drawn clips are what they are; a file is sampled as the model's users will have it sampled.
            do_sample_frames=None if items[0].sample is None else False,
        )
        mask = batch.pop("assistant_masks")
        return {**batch, "labels": batch["input_ids"].masked_fill(mask == 0, IGNORED)}


class PatchCollator:
    """Samples to the pixels of single frames and the class of every patch."""

    def __init__(self, processor: PVCProcessor) -> None:
        self.processor = processor

    def __call__(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        media = [medium for item in items if item.sample for medium in item.sample.media]
        frames = np.concatenate([medium.frames for medium in media])
        labels = np.concatenate([medium.patch_labels for medium in media])
        pixels = self.processor.video_processor(frames, do_sample_frames=False, return_tensors="pt")
        return {"pixel_values": pixels["pixel_values_videos"], "labels": torch.from_numpy(labels).flatten(1)}


__all__ = ["IGNORED", "ChatCollator", "Item", "PatchCollator", "StageSamples", "drawn_steps", "pick", "shortened"]
