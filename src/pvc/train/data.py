"""Training samples of a stage, by index, and their collation into model inputs.

Sample `i` depends on the seed and on `i` alone, so a training can stop anywhere and go on exactly. Batches hold
one kind of media, and videos of one length, so that nothing is padded for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from pvc.media import Video
from pvc.processing.processor import PVCProcessor
from pvc.synthetic import TASKS, Sample, make
from pvc.train.recipe import Stage

IGNORED = -100  # what the loss skips


def pick(rng: np.random.Generator, weights: Mapping[Any, float]) -> Any:
    """One key, drawn by weight."""
    keys = list(weights)
    total = np.cumsum(np.fromiter(weights.values(), dtype=np.float64))
    return keys[int(np.searchsorted(total, rng.random() * total[-1], side="right"))]


class SyntheticSamples(Dataset[Sample]):
    """`steps * batch_size` samples of a stage's tasks."""

    def __init__(self, stage: Stage, seed: int, size: int) -> None:
        self.stage = stage
        self.seed = seed
        self.size = size
        self.kinds: dict[str, dict[str, float]] = {}
        for task, weight in stage.tasks.items():
            self.kinds.setdefault(TASKS[task].kind, {})[task] = weight
        self.kind_weights = {kind: sum(tasks.values()) for kind, tasks in self.kinds.items()}

    def __len__(self) -> int:
        return self.stage.steps * self.stage.batch_size

    def __getitem__(self, index: int) -> Sample:
        batch = np.random.default_rng((self.seed, 0, index // self.stage.batch_size))
        kind = pick(batch, self.kind_weights)
        frames = int(pick(batch, self.stage.video_frames)) if kind == "video" else None
        own = np.random.default_rng((self.seed, 1, index))
        task = pick(own, self.kinds[kind])
        return make(task, int(own.integers(2**62)), size=self.size, split="train", frames=frames)


def messages_of(sample: Sample) -> list[dict[str, Any]]:
    """A sample as a conversation: its question and answer, then the further ones about the same frames."""
    if sample.kind == "image":
        part = {"type": "image", "image": sample.frames[0]}
    else:
        part = {"type": "video", "video": Video.from_frames(sample.frames, timestamps=sample.timestamps)}
    messages: list[dict[str, Any]] = [{"role": "user", "content": [part, {"type": "text", "text": sample.question}]}]
    messages.append({"role": "assistant", "content": sample.answer})
    for question, answer in sample.more:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages


class ChatCollator:
    """Samples to inputs and labels; only the assistant's tokens and the end of its turn count."""

    def __init__(self, processor: PVCProcessor, image_steps: int) -> None:
        self.processor = processor
        self.image_steps = image_steps

    def __call__(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        batch = self.processor.apply_chat_template(
            [messages_of(sample) for sample in samples],
            tokenize=True,
            return_assistant_tokens_mask=True,
            image_steps=self.image_steps,
            do_sample_frames=False,
        )
        mask = batch.pop("assistant_masks")
        return {**batch, "labels": batch["input_ids"].masked_fill(mask == 0, IGNORED)}


class PatchCollator:
    """Samples to the pixels of single frames and the class of every patch."""

    def __init__(self, processor: PVCProcessor) -> None:
        self.processor = processor

    def __call__(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        frames = np.concatenate([sample.frames for sample in samples])
        labels = np.concatenate([sample.patch_labels for sample in samples])
        pixels = self.processor.video_processor(frames, do_sample_frames=False, return_tensors="pt")
        return {"pixel_values": pixels["pixel_values_videos"], "labels": torch.from_numpy(labels).flatten(1)}


__all__ = ["IGNORED", "ChatCollator", "PatchCollator", "SyntheticSamples", "messages_of", "pick"]
