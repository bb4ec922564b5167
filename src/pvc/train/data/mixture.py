"""Training samples of a stage, by index, and their collation into model inputs.

Sample `i` depends on the seed and on `i` alone, so a training can stop anywhere and go on exactly. Batches hold
one kind of media, and videos of one length, so that nothing is padded for nothing. Leaves out samples that were
drawn before (`sample_cache.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from pvc import media
from pvc.errors import PVCError
from pvc.processing.conversations import Record
from pvc.processing.processor import PVCProcessor
from pvc.train.data.collate import IGNORED, ChatCollator, Example, encode
from pvc.train.data.readers import ShardMember
from pvc.train.data.records import BadRowLog, RecordSource
from pvc.train.data.tasks import TaskOptions, kind_of, provider_of
from pvc.train.recipe import FileMix, Stage


def weighted_choice(rng: np.random.Generator, weights: Mapping[Any, float]) -> Any:
    """One key, drawn by weight."""
    keys = list(weights)
    total = np.cumsum(np.fromiter(weights.values(), dtype=np.float64))
    return keys[int(np.searchsorted(total, rng.random() * total[-1], side="right"))]


def choose_steps(stage: Stage, seed: int, batch: int) -> int:
    """Steps of the pictures of one batch."""
    return int(weighted_choice(np.random.default_rng((seed, 2, batch)), stage.image_steps))


def choose_offset(stage: Stage, seed: int, index: int) -> int | None:
    """The number of the first step of a sample's clips; None where the stage draws none."""
    if not stage.max_step_offset:
        return None
    return int(np.random.default_rng((seed, 3, index)).integers(stage.max_step_offset + 1))


def choose_delay(stage: Stage, rng: np.random.Generator) -> tuple[int, float]:
    """Frames without content before a sample's clips, and the seconds that they begin at."""
    quiet = int(weighted_choice(rng, stage.quiet_frames))
    if not stage.latest_start or rng.random() < 0.5:
        return quiet, 0.0
    # As many clips begin between 1 and 10 seconds as between 10 and 100.
    return quiet, round(float(np.exp(rng.random() * np.log1p(stage.latest_start)) - 1), 1)


def _source(found: Any) -> Any:
    return found.read() if isinstance(found, ShardMember) else found


def open_media(messages: Sequence[dict[str, Any]], frames: int, size: int) -> list[dict[str, Any]]:
    """Messages with their media read: pictures, and videos of so many frames; raises PVCError for what cannot be."""
    done = []
    for message in messages:
        parts: list[dict[str, Any]] = []
        for part in message["content"]:
            if part["type"] == "image":
                parts.append({"type": "image", "image": media.load_image(_source(part["image"])).image})
            elif part["type"] == "video":
                sampling = media.Sampling(frames=frames)
                video = media.load(_source(part["video"]), kind="video", sampling=sampling, size=(size, size))
                parts.append({"type": "video", "video": video})
            else:
                parts.append(part)
        done.append({**message, "content": parts})
    return done


class StageDataset(Dataset[Example]):
    """`steps * batch_size` samples of a stage's tasks and files.

    `frames`: of a file's video where the stage does not say how many. `processor`: rows of files are encoded with it
    here, so that those of more than `longest` tokens can be passed over. `report` is told of rows that are passed over,
    `bad_row_log` keeps them.

    Raises:
        UsageError, ConfigError: as `RecordSource` does.
    """

    def __init__(
        self,
        stage: Stage,
        seed: int,
        size: int,
        frames: int = 8,
        report: Callable[[str], None] = lambda line: None,
        *,
        processor: PVCProcessor | None = None,
        longest: int | None = None,
        bad_row_log: BadRowLog | None = None,
    ) -> None:
        self.stage, self.seed, self.size, self.frames = stage, seed, size, frames
        self.processor, self.longest = processor, longest
        self.kinds: dict[str, dict[str, float]] = {}
        for task, mix in stage.tasks.items():
            self.kinds.setdefault(kind_of(task), {})[task] = mix.weight
        self.kind_weights = {kind: sum(tasks.values()) for kind, tasks in self.kinds.items()}
        self.rows: dict[str, tuple[RecordSource, str]] = {}
        for path, mixed, file in self._open(report, bad_row_log):
            known = {group: 1 if numbers is None else len(numbers) for group, numbers in file.groups.items()}
            for group, count in known.items():
                self.rows[f"{path} ({group})"] = file, group
                self.kind_weights[f"{path} ({group})"] = mixed.weight * count / sum(known.values())
        self.drawn: list[str] = []  # the kind of every batch so far
        self.before: list[int] = []  # and how many earlier batches had it
        self.counts: dict[str, int] = {}

    def _open(
        self, report: Callable[[str], None], bad_row_log: BadRowLog | None
    ) -> Iterator[tuple[str, FileMix, RecordSource]]:
        """The stage's files, with their weights."""
        for place, (path, mixed) in enumerate(self.stage.files.items()):
            own = self.seed * 100 + place
            yield (
                path,
                mixed,
                RecordSource(path, self.stage.bad_rows, report, mix=mixed, seed=own, bad_row_log=bad_row_log),
            )

    def __len__(self) -> int:
        return self.stage.steps * self.stage.batch_size

    def _kind(self, number: int) -> tuple[str, int, np.random.Generator]:
        """The kind of a batch, how many batches before it had that kind, and the batch's lot after that draw."""
        for earlier in range(len(self.drawn), number + 1):
            kind = weighted_choice(np.random.default_rng((self.seed, 0, earlier)), self.kind_weights)
            self.drawn.append(kind)
            self.before.append(self.counts.get(kind, 0))
            self.counts[kind] = self.before[-1] + 1
        lot = np.random.default_rng((self.seed, 0, number))
        return weighted_choice(lot, self.kind_weights), self.before[number], lot

    def named(self, batch: int) -> str:
        """What is in a batch, for people: lines of a file, or the tasks of its kind."""
        kind, before, _ = self._kind(batch)
        if kind not in self.rows:
            return f"samples {batch * self.stage.batch_size} and on, drawn ({kind}: {', '.join(self.kinds[kind])})"
        file, group = self.rows[kind]
        places = range(before * self.stage.batch_size, (before + 1) * self.stage.batch_size)
        return f"{file.path}, {file.named(*(file.line_at(group, place) for place in places))}"

    def __getitem__(self, index: int) -> Example:
        number, place = divmod(index, self.stage.batch_size)
        kind, before, lot = self._kind(number)
        if kind in self.rows:
            drawn = self.stage.file_frames
            shown = self.frames if drawn is None else int(weighted_choice(lot, drawn))
            return self._row(kind, before * self.stage.batch_size + place, index, shown)
        frames = int(weighted_choice(lot, self.stage.video_frames)) if kind == "video" else None
        # The whole batch has one size, so that none of its pictures is padded to the tiles of another.
        size = self.size * (int(weighted_choice(lot, self.stage.zoom)) if kind == "image" else 1)
        own = np.random.default_rng((self.seed, 1, index))
        task = weighted_choice(own, self.kinds[kind])
        mix = self.stage.tasks[task]
        level = None if mix.levels is None else int(own.choice(mix.levels))
        tiles = None if mix.tiles == (1,) else int(own.choice(mix.tiles))
        seed = int(own.integers(2**62))
        quiet, start = choose_delay(self.stage, own) if kind == "video" else (0, 0.0)
        options = TaskOptions(
            size=size,
            split=self.stage.split,
            frames=frames,
            level=level,
            tiles=tiles,
            questions=self.stage.questions,
            characters=self.stage.characters,
            quiet_frames=quiet,
            start=start,
        )
        generated = provider_of(task).generate(task, seed, options)
        offset = choose_offset(self.stage, self.seed, index)
        steps = choose_steps(self.stage, self.seed, number)
        return Example(generated.messages, steps, generated, step_offset=offset)

    def _row(self, kind: str, place: int, index: int, frames: int) -> Example:
        """The row whose turn it is; another one where it is bad, the same one every time."""
        file, group = self.rows[kind]
        rng = np.random.default_rng((self.seed, 1, index))
        steps = choose_steps(self.stage, self.seed, index // self.stage.batch_size)
        while True:
            line = file.line_at(group, place)
            if line not in file.bad:
                try:
                    row = file.draw(group, place)
                    offset = choose_offset(self.stage, self.seed, index)
                    item = Example(open_media(self._messages(row, index), frames, self.size), steps, step_offset=offset)
                    return item if self.processor is None else replace(item, encoded=self._encoded(item))
                except PVCError as error:
                    file.note(line, str(error))
            place = file.substitute(group, place, rng)

    def _messages(self, row: Record, index: int) -> Sequence[dict[str, Any]]:
        """The conversation about a row's media in sample `index`."""
        return row.messages

    def _encoded(self, item: Example) -> dict[str, torch.Tensor]:
        assert self.processor is not None
        encoded = encode(self.processor, item)
        if self.longest is not None and (length := encoded["input_ids"].shape[1]) > self.longest:
            raise PVCError(f"too long: {length} tokens; the limit is {self.longest}")
        return encoded


class PatchCollator:
    """Samples to the pixels of single frames and the class of every patch."""

    def __init__(self, processor: PVCProcessor) -> None:
        self.processor = processor

    def __call__(self, items: Sequence[Example]) -> dict[str, torch.Tensor]:
        patches = [pair for item in items if item.generated for pair in item.generated.patches]
        frames, labels = (np.concatenate(values) for values in zip(*patches, strict=True))
        pixels = self.processor.video_processor(frames, do_sample_frames=False, return_tensors="pt")
        return {"pixel_values": pixels["pixel_values_videos"], "labels": torch.from_numpy(labels).flatten(1)}


__all__ = [
    "IGNORED",
    "ChatCollator",
    "Example",
    "PatchCollator",
    "StageDataset",
    "choose_steps",
    "weighted_choice",
]
