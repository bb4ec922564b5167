"""Accuracy on synthetic samples that training never saw: free-running (the model generates) and teacher-forced.

Samples go through the same processor as everything else, in batches with left padding. Leaves out plots.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from pvc.engine.adaptive import step_features
from pvc.engine.engine import Engine
from pvc.errors import UsageError
from pvc.lab.evaluate.intervals import wilson
from pvc.lab.evaluate.metrics import characters_right
from pvc.lab.synthetic import TASKS, Sample, make, messages_of
from pvc.lab.synthetic.seeding import Split

BATCH = 25
SHOWN = 5  # wrong answers kept to be looked at


@dataclass(frozen=True)
class HeldOutSet:
    """Which held-out samples: their split, seed, level, frames of clips and tiles of pictures (None: as drawn).

    `levels`: instead of one level, these in turn. `zoom`: pictures with so many times the tower's pixels a side, which
    are cut into tiles.
    """

    split: Split = "test"
    seed: int = 0
    level: int | None = None
    levels: tuple[int, ...] | None = None
    frames: int | None = None
    tiles: int = 1
    zoom: int = 1
    change: Callable[[Sample], Sample] | None = None  # applied to every sample, for example to drop frames

    def samples(self, task: str, start: int, stop: int, size: int) -> list[Sample]:
        """Samples `start` to `stop` of a task at `size` pixels."""
        options: dict[str, Any] = {} if self.tiles == 1 else {"tiles": self.tiles}
        frames = self.frames if TASKS[task].kind == "video" else None
        zoom = self.zoom if TASKS[task].kind == "image" else 1
        options.update(size=size * zoom, split=self.split, frames=frames)
        samples = [
            # Page tasks have no levels.
            make(task, self.seed * 1_000_003 + i, level=None if TASKS[task].pages else self._level(i), **options)
            for i in range(start, stop)
        ]
        return [self.change(sample) for sample in samples] if self.change else samples

    def _level(self, index: int) -> int | None:
        return self.levels[index % len(self.levels)] if self.levels and self.level is None else self.level


@dataclass
class Score:
    """Answers counted: exactly right ones, characters, and for teacher forcing tokens."""

    count: int = 0
    right: int = 0
    characters: int = 0
    characters_right: int = 0
    wrong: list[dict[str, str]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)  # those that pictures were given, where they decided themselves

    def add(self, sample: Sample, answer: str) -> None:
        self.count += 1
        expected = sample.last_answer
        self.right += answer == expected
        self.characters += len(expected)
        self.characters_right += characters_right(expected, answer)
        if answer != expected and len(self.wrong) < SHOWN:
            question = sample.turns[-1].question if sample.turns else sample.question
            self.wrong.append({"question": question, "expected": expected, "answer": answer})

    def row(self) -> dict[str, Any]:
        """`accuracy` (answers exactly right), its 95 % `interval`, `characters` (share right), `count`, `wrong`.

        `mean_steps` where pictures decided how many they get.
        """
        low, high = wilson(self.right, self.count)
        steps = {"mean_steps": round(sum(self.steps) / len(self.steps), 3)} if self.steps else {}
        return {
            **steps,
            "accuracy": self.right / max(1, self.count),
            "interval": [round(low, 4), round(high, 4)],
            "characters": self.characters_right / max(1, self.characters),
            "count": self.count,
            "wrong": self.wrong,
        }


@contextlib.contextmanager
def measuring(model: Any) -> Iterator[None]:
    """No dropout and no gradients; afterwards the model is in the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def first_steps(engine: Engine, pictures: Sequence[Any]) -> torch.Tensor:
    """`(n, F)`: what the head that chooses steps sees of pictures, from their first step alone."""
    batch = engine.processor.image_processor(list(pictures), return_tensors="pt")
    tiles = [int(row[0]) for row in batch["image_grid_thw"]]
    with measuring(engine.model):
        clips, _ = engine.model.model.encode_clips(batch["pixel_values"].to(engine.model.device))
    return torch.stack([step_features(own) for own in torch.cat(clips).split(tiles)])


def adaptive_steps(engine: Engine, samples: Sequence[Sample]) -> list[int]:
    """Steps that the head gives every picture of the samples, in order."""
    pictures = [medium.frames[0] for sample in samples for medium in sample.all_media if medium.kind == "image"]
    return [engine.step_head.choose(row) for row in first_steps(engine, pictures)] if pictures else []


def answers(engine: Engine, samples: Sequence[Sample], image_steps: int | Sequence[int] | None = None) -> list[str]:
    """The model's greedy answers to samples of one task; `image_steps` for all pictures or for each, in order."""
    batch = engine.processor.apply_chat_template(
        [messages_of(sample, answers=False) for sample in samples],
        tokenize=True,
        add_generation_prompt=True,
        do_sample_frames=False,
        image_steps=image_steps,
    ).to(engine.model.device)
    with measuring(engine.model):
        ids = engine.model.generate(**batch, do_sample=False)
    return engine.processor.tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def forced(engine: Engine, samples: Sequence[Sample], image_steps: int | None = None) -> tuple[int, int]:
    """Tokens of the answers that the model names right when all before them are given, and how many there are."""
    batch = engine.processor.apply_chat_template(
        [messages_of(sample) for sample in samples],
        tokenize=True,
        return_assistant_tokens_mask=True,
        do_sample_frames=False,
        image_steps=image_steps,
    ).to(engine.model.device)
    asked = batch.pop("assistant_masks")[:, 1:].bool()
    with measuring(engine.model):
        named = engine.model(**batch).logits[:, :-1].argmax(-1)
    right = (named == batch["input_ids"][:, 1:]) & asked
    return int(right.sum()), int(asked.sum())


def score(
    engine: Engine,
    task: str,
    count: int,
    held: HeldOutSet | None = None,
    image_steps: int | Literal["auto"] | None = None,
) -> Score:
    """Free-running answers to `count` held-out samples of one task."""
    held = held or HeldOutSet()
    side = int(dict(engine.processor.video_processor.size)["height"])
    total = Score()
    for start in range(0, count, BATCH):
        samples = held.samples(task, start, min(start + BATCH, count), side)
        chosen: int | list[int] | None
        if isinstance(image_steps, str):
            chosen = adaptive_steps(engine, samples)
            total.steps += chosen
        else:
            chosen = image_steps
        for sample, answer in zip(samples, answers(engine, samples, chosen), strict=True):
            total.add(sample, answer)
    return total


def measure(
    engine: Engine,
    tasks: Sequence[str] | None = None,
    count: int = 200,
    held: HeldOutSet | None = None,
    levels: Sequence[int | None] = (None,),
    image_steps: int | Literal["auto"] | None = None,
    threads: int | None = 2,
    report: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Rows, one per task and level: `task`, `level`, `split`, `image_steps`, `zoom` unless it is 1, and `Score.row`.

    `levels`: of difficulty; None draws them as training does without being told. `image_steps`: None for the model's
    own, "auto" to let pictures decide. `threads` is the number of cores (None: as it is set).

    Raises:
        UsageError: an unknown task or level.
    """
    held = held or HeldOutSet()
    unknown = sorted(set(tasks or ()) - set(TASKS))
    if unknown:
        raise UsageError(f"unknown tasks: {', '.join(unknown)}; there are {', '.join(TASKS)}")
    if threads is not None:
        torch.set_num_threads(threads)
    rows = []
    for task in tasks or TASKS:
        for level in (None,) if TASKS[task].pages else levels:
            total = score(engine, task, count, replace(held, level=level), image_steps)
            about = {"task": task, "level": level, "split": held.split, "image_steps": image_steps}
            if held.zoom != 1:
                about["zoom"] = held.zoom
            rows.append({**about, **total.row()})
            report(f"{task}{'' if level is None else f', level {level}'}: {total.right}/{count}")
    return rows


__all__ = ["HeldOutSet", "Score", "adaptive_steps", "answers", "first_steps", "forced", "measure", "measuring", "score"]
