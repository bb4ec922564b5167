"""Training examples of a stage, by index, and their collation into model inputs.

Example `i` depends on the seed and on `i` alone, so that a training can stop anywhere and resume exactly. A batch has
one kind of media, and videos of one length, so that there is little padding. Called by `pipeline.py` and `pvc.lab`.
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
from pvc.train.data.tasks import TaskOptions, get_kind, get_provider
from pvc.train.recipe import FileMix, Stage


def weighted_choice(rng: np.random.Generator, weights: Mapping[Any, float]) -> Any:
    """Sample one key.

    Args:
        rng: generator.
        weights: of the keys.
    """
    keys = list(weights)
    total = np.cumsum(np.fromiter(weights.values(), dtype=np.float64))
    return keys[int(np.searchsorted(total, rng.random() * total[-1], side="right"))]


def choose_steps(stage: Stage, seed: int, batch: int) -> int:
    """Sample the steps of the pictures of one batch.

    Args:
        stage: with the weights of `image_steps`.
        seed: of the stage.
        batch: number of the batch.
    """
    return int(weighted_choice(np.random.default_rng((seed, 2, batch)), stage.image_steps))


def choose_offset(stage: Stage, seed: int, index: int) -> int | None:
    """Sample the number of the first step of an example's clips.

    Args:
        stage: with `max_step_offset`.
        seed: of the stage.
        index: of the example.

    Returns:
        The number, or None if the stage has no offsets.
    """
    if not stage.max_step_offset:
        return None
    return int(np.random.default_rng((seed, 3, index)).integers(stage.max_step_offset + 1))


def choose_delay(stage: Stage, rng: np.random.Generator) -> tuple[int, float]:
    """Sample the number of frames without content before an example's clips, and their start in seconds.

    Args:
        stage: with `quiet_frames` and `latest_start`.
        rng: of the example.
    """
    num_quiet = int(weighted_choice(rng, stage.quiet_frames))
    if not stage.latest_start or rng.random() < 0.5:
        return num_quiet, 0.0
    # Log-uniform: about as many clips start between 1 and 10 seconds as between 10 and 100.
    return num_quiet, round(float(np.exp(rng.random() * np.log1p(stage.latest_start)) - 1), 1)


def _read_member(medium: Any) -> Any:
    """Return the bytes of a member of a shard; other media unchanged."""
    return medium.read() if isinstance(medium, ShardMember) else medium


def open_media(messages: Sequence[dict[str, Any]], frames: int, size: int) -> list[dict[str, Any]]:
    """Decode the media of a conversation.

    Args:
        messages: the conversation.
        frames: number of frames of a video.
        size: pixels a side of the frames of a video.

    Returns:
        The messages with images as arrays and videos as `pvc.media.Video`.

    Raises:
        PVCError: a medium cannot be decoded.
    """
    opened = []
    for message in messages:
        parts: list[dict[str, Any]] = []
        for part in message["content"]:
            if part["type"] == "image":
                parts.append({"type": "image", "image": media.load_image(_read_member(part["image"])).image})
            elif part["type"] == "video":
                sampling = media.Sampling(frames=frames)
                video = media.load(_read_member(part["video"]), kind="video", sampling=sampling, size=(size, size))
                parts.append({"type": "video", "video": video})
            else:
                parts.append(part)
        opened.append({**message, "content": parts})
    return opened


class StageDataset(Dataset[Example]):
    """`steps * batch_size` examples of a stage's tasks and files.

    Args:
        stage: with the weights of tasks and files.
        seed: of the stage.
        size: pixels a side of a tile or frame.
        frames: number of frames of videos in files, unless the stage sets it.
        report: gets a line for every bad record.
        processor: if given, records of files are encoded here, so that those of more than `longest` tokens are
            skipped.
        longest: maximum number of tokens of a record.
        bad_row_log: where bad records are logged.

    Raises:
        UsageError: a file cannot be read.
        ConfigError: too many records of a file are bad.
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
        self._tasks_by_kind: dict[str, dict[str, float]] = {}
        for task, mix in stage.tasks.items():
            self._tasks_by_kind.setdefault(get_kind(task), {})[task] = mix.weight
        self.kind_weights = {kind: sum(tasks.values()) for kind, tasks in self._tasks_by_kind.items()}
        self.sources: dict[str, tuple[RecordSource, str]] = {}
        for path, file_mix, source in self._open(report, bad_row_log):
            sizes = {group: 1 if numbers is None else len(numbers) for group, numbers in source.groups.items()}
            for group, count in sizes.items():
                self.sources[f"{path} ({group})"] = source, group
                self.kind_weights[f"{path} ({group})"] = file_mix.weight * count / sum(sizes.values())
        self._batch_kinds: list[str] = []  # of all batches so far
        self._previous_counts: list[int] = []  # of each batch: how many earlier batches have its kind
        self._kind_counts: dict[str, int] = {}

    def _open(
        self, report: Callable[[str], None], bad_row_log: BadRowLog | None
    ) -> Iterator[tuple[str, FileMix, RecordSource]]:
        """Open the stage's files; yield each path, mix and source."""
        for number, (path, mix) in enumerate(self.stage.files.items()):
            seed = self.seed * 100 + number
            yield (
                path,
                mix,
                RecordSource(path, self.stage.bad_rows, report, mix=mix, seed=seed, bad_row_log=bad_row_log),
            )

    def __len__(self) -> int:
        return self.stage.steps * self.stage.batch_size

    def _choose_kind(self, number: int) -> tuple[str, int, np.random.Generator]:
        """Return a batch's kind, the number of earlier batches of that kind, and the batch's generator after that."""
        for earlier in range(len(self._batch_kinds), number + 1):
            kind = weighted_choice(np.random.default_rng((self.seed, 0, earlier)), self.kind_weights)
            self._batch_kinds.append(kind)
            self._previous_counts.append(self._kind_counts.get(kind, 0))
            self._kind_counts[kind] = self._previous_counts[-1] + 1
        rng = np.random.default_rng((self.seed, 0, number))
        return weighted_choice(rng, self.kind_weights), self._previous_counts[number], rng

    def describe_batch(self, batch: int) -> str:
        """Return the contents of a batch as text: lines of a file, or the tasks of its kind."""
        kind, previous, _ = self._choose_kind(batch)
        size = self.stage.batch_size
        if kind not in self.sources:
            tasks = ", ".join(self._tasks_by_kind[kind])
            return f"examples {batch * size} to {(batch + 1) * size - 1}, generated ({kind}: {tasks})"
        source, group = self.sources[kind]
        lines = (source.get_line(group, position) for position in range(previous * size, (previous + 1) * size))
        return f"{source.path}, {source.describe_lines(*lines)}"

    def __getitem__(self, index: int) -> Example:
        number, place = divmod(index, self.stage.batch_size)
        kind, previous, batch_rng = self._choose_kind(number)
        if kind in self.sources:
            weights = self.stage.file_frames
            num_frames = self.frames if weights is None else int(weighted_choice(batch_rng, weights))
            return self._read_example(kind, previous * self.stage.batch_size + place, index, num_frames)
        frames = int(weighted_choice(batch_rng, self.stage.video_frames)) if kind == "video" else None
        # The whole batch has one size, so that no picture is padded to the number of tiles of another.
        size = self.size * (int(weighted_choice(batch_rng, self.stage.zoom)) if kind == "image" else 1)
        rng = np.random.default_rng((self.seed, 1, index))
        task = weighted_choice(rng, self._tasks_by_kind[kind])
        mix = self.stage.tasks[task]
        level = None if mix.levels is None else int(rng.choice(mix.levels))
        tiles = None if mix.tiles == (1,) else int(rng.choice(mix.tiles))
        seed = int(rng.integers(2**62))
        num_quiet, start = choose_delay(self.stage, rng) if kind == "video" else (0, 0.0)
        options = TaskOptions(
            size=size,
            split=self.stage.split,
            frames=frames,
            level=level,
            tiles=tiles,
            questions=self.stage.questions,
            characters=self.stage.characters,
            quiet_frames=num_quiet,
            start=start,
        )
        generated = get_provider(task).generate(task, seed, options)
        offset = choose_offset(self.stage, self.seed, index)
        steps = choose_steps(self.stage, self.seed, number)
        return Example(generated.messages, steps, generated, step_offset=offset)

    def _read_example(self, kind: str, position: int, index: int, frames: int) -> Example:
        """Return example `index` from the record at a position; a bad record always has the same substitute."""
        source, group = self.sources[kind]
        rng = np.random.default_rng((self.seed, 1, index))
        steps = choose_steps(self.stage, self.seed, index // self.stage.batch_size)
        while True:
            line = source.get_line(group, position)
            if line not in source.bad:
                try:
                    messages = self._build_messages(source.get_record(group, position), index)
                    offset = choose_offset(self.stage, self.seed, index)
                    example = Example(open_media(messages, frames, self.size), steps, step_offset=offset)
                    return example if self.processor is None else replace(example, encoded=self._encode(example))
                except PVCError as error:
                    source.add_bad(line, str(error))
            position = source.choose_substitute(group, position, rng)

    def _build_messages(self, record: Record, index: int) -> Sequence[dict[str, Any]]:
        """Return the conversation about a record's media in example `index`."""
        return record.messages

    def _encode(self, example: Example) -> dict[str, torch.Tensor]:
        """Encode an example of a file; raise PVCError if it is too long."""
        assert self.processor is not None
        encoded = encode(self.processor, example)
        if self.longest is not None and (length := encoded["input_ids"].shape[1]) > self.longest:
            raise PVCError(f"too long: {length} tokens; the limit is {self.longest}")
        return encoded


class PatchCollator:
    """Collate examples to single frames and the class of every patch.

    Args:
        processor: of the model.
    """

    def __init__(self, processor: PVCProcessor) -> None:
        self.processor = processor

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return `pixel_values` `(F, 3, S, S)` and `labels` `(F, patches)` of all frames."""
        patches = [pair for example in examples if example.generated for pair in example.generated.patches]
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
