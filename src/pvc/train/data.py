"""Training samples of a stage, by index, and their collation into model inputs.

Sample `i` depends on the seed and on `i` alone, so a training can stop anywhere and go on exactly. Batches hold
one kind of media, and videos of one length, so that nothing is padded for nothing. Leaves out samples that were
drawn before (`cache.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from pvc import media
from pvc.errors import ConfigError, PVCError
from pvc.processing.processor import PVCProcessor
from pvc.processing.rows import Row, scan_rows
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


class Rows:
    """The rows of one file that can be trained on; those that cannot are counted, told once, and passed over.

    Attributes:
        bad: reasons by line. allowed: how many there may be.

    Raises:
        UsageError: the file cannot be read.
        ConfigError: no row is good, or more are bad than the stage allows; they are named.
    """

    def __init__(
        self,
        path: str,
        share: float,
        report: Callable[[str], None] = lambda line: None,
        need_good: bool = True,
    ) -> None:
        self.path, self.report = path, report
        rows, bad = scan_rows(path)
        self.total = len(rows) + len(bad)
        self.allowed = int(share * self.total)
        self.bad: dict[int, str] = {}
        for malformed in bad:
            self.note(malformed.line, malformed.reason)
        for row in rows:
            if not any(message["role"] == "assistant" and message["content"] for message in row.messages):
                self.note(row.line, "no answer that could be learned")
        self.good = [row for row in rows if row.line not in self.bad]
        if need_good and not self.good:
            raise ConfigError(f"{path} has no rows that could be trained on{self._named()}")

    def note(self, line: int, reason: str) -> None:
        """A row turned out to be bad; raises ConfigError where that is one too many."""
        if line in self.bad:
            return
        self.bad[line] = reason
        self.report(f"{self.path}, line {line}: passed over: {reason}")
        if len(self.bad) > self.allowed:
            raise ConfigError(
                f"{self.path}: {len(self.bad)} of {self.total} rows are bad, more than 'bad_rows' allows "
                f"({self.allowed}){self._named()}"
            )

    def _named(self, most: int = 5) -> str:
        told = "; ".join(f"line {line}: {reason}" for line, reason in sorted(self.bad.items())[:most])
        more = f"; and {len(self.bad) - most} more" if len(self.bad) > most else ""
        return f": {told}{more}" if told else ""


def opened(messages: Sequence[dict[str, Any]], frames: int, size: int) -> list[dict[str, Any]]:
    """Messages with their media read: pictures, and videos of so many frames; raises PVCError for what cannot be."""
    done = []
    for message in messages:
        parts: list[dict[str, Any]] = []
        for part in message["content"]:
            if part["type"] == "image":
                parts.append({"type": "image", "image": media.load_image(part["image"]).image})
            elif part["type"] == "video":
                sampling = media.Sampling(frames=frames)
                video = media.load(part["video"], kind="video", sampling=sampling, size=(size, size))
                parts.append({"type": "video", "video": video})
            else:
                parts.append(part)
        done.append({**message, "content": parts})
    return done


class StageSamples(Dataset[Item]):
    """`steps * batch_size` samples of a stage's tasks and files.

    `frames`: of a file's video where the stage does not say how many. `report` is told of rows that are passed over.

    Raises:
        UsageError, ConfigError: as `Rows` does.
    """

    def __init__(
        self,
        stage: Stage,
        seed: int,
        size: int,
        frames: int = 8,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.stage = stage
        self.seed = seed
        self.size = size
        self.frames = frames
        self.kinds: dict[str, dict[str, float]] = {}
        for task, mix in stage.tasks.items():
            self.kinds.setdefault(TASKS[task].kind, {})[task] = mix.weight
        self.kind_weights = {kind: sum(tasks.values()) for kind, tasks in self.kinds.items()}
        self.rows: dict[str, tuple[Rows, list[Row]]] = {}
        for path, weight in stage.files.items():
            file = Rows(path, stage.bad_rows, report)
            for kind in ("image", "video"):
                if own := [row for row in file.good if row.kind == kind]:
                    self.rows[f"{path} ({kind})"] = file, own
                    self.kind_weights[f"{path} ({kind})"] = weight * len(own) / len(file.good)

    def __len__(self) -> int:
        return self.stage.steps * self.stage.batch_size

    def __getitem__(self, index: int) -> Item:
        number = index // self.stage.batch_size
        batch = np.random.default_rng((self.seed, 0, number))
        kind = pick(batch, self.kind_weights)
        if kind in self.rows:
            drawn = self.stage.file_frames
            return self._row(kind, index, number, self.frames if drawn is None else int(pick(batch, drawn)))
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

    def _row(self, kind: str, index: int, number: int, frames: int) -> Item:
        """A row by lot; another one where it is bad, the same one every time."""
        file, rows = self.rows[kind]
        rng = np.random.default_rng((self.seed, 1, index))
        while True:
            row = rows[int(rng.integers(len(rows)))]
            if row.line in file.bad:
                if all(one.line in file.bad for one in rows):
                    raise ConfigError(f"{kind}: no row is left that could be trained on")
                continue
            try:
                messages = opened(row.messages, frames, self.size)
            except PVCError as error:
                file.note(row.line, str(error))
                continue
            return Item(messages, drawn_steps(self.stage, self.seed, number))


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


__all__ = [
    "IGNORED",
    "ChatCollator",
    "Item",
    "PatchCollator",
    "Rows",
    "StageSamples",
    "drawn_steps",
    "pick",
    "shortened",
]
