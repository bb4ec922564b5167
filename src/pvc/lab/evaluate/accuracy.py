"""Accuracy on held-out synthetic samples: free-running (the model generates) and teacher-forced.

Samples pass the model's processor in batches with left padding. Called by `pvc lab eval`, `pvc.lab.provider`,
`pvc.lab.ablation` and benchmarks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import torch

from pvc.engine.engine import Engine
from pvc.errors import UsageError
from pvc.lab.evaluate.intervals import wilson
from pvc.lab.evaluate.metrics import characters_right
from pvc.lab.step_predictor import StepPredictor, predictor_for, step_features
from pvc.lab.synthetic import TASKS, Sample, make, messages_of
from pvc.lab.synthetic.seeding import Split

BATCH_SIZE = 25
MAX_WRONG = 5  # wrong answers that are stored for inspection


@dataclass(frozen=True)
class HeldOutSet:
    """Choice of held-out samples.

    Attributes:
        split: split of the samples.
        seed: other seeds give other samples.
        level: difficulty; None: as generated.
        levels: difficulties to use in turn, if `level` is None.
        frames: frames of a clip; None: as generated.
        tiles: tiles of a picture.
        zoom: factor of the tower's image size in pixels; larger pictures are cut into tiles.
        change: applied to every sample, for example to drop frames.
    """

    split: Split = "test"
    seed: int = 0
    level: int | None = None
    levels: tuple[int, ...] | None = None
    frames: int | None = None
    tiles: int = 1
    zoom: int = 1
    change: Callable[[Sample], Sample] | None = None

    def samples(self, task: str, start: int, stop: int, size: int) -> list[Sample]:
        """Generate samples of a task.

        Args:
            task: name of the task.
            start: number of the first sample.
            stop: number after that of the last sample.
            size: pixels per side.
        """
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
    """Counts of answers and of their characters.

    Attributes:
        count: answers.
        right: answers that are exactly right.
        characters: characters of all expected answers.
        characters_right: characters that the answers have right.
        wrong: question, expected answer and answer of the first wrong ones, at most `MAX_WRONG`.
        steps: steps of every picture, if the step predictor chose them.
    """

    count: int = 0
    right: int = 0
    characters: int = 0
    characters_right: int = 0
    wrong: list[dict[str, str]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    def add(self, sample: Sample, answer: str) -> None:
        """Count the model's `answer` to the last question of `sample`."""
        self.count += 1
        expected = sample.last_answer
        self.right += answer == expected
        self.characters += len(expected)
        self.characters_right += characters_right(expected, answer)
        if answer != expected and len(self.wrong) < MAX_WRONG:
            question = sample.turns[-1].question if sample.turns else sample.question
            self.wrong.append({"question": question, "expected": expected, "answer": answer})

    def row(self) -> dict[str, Any]:
        """Return the scores as a JSON object.

        Returns:
            `accuracy` (share of exactly right answers), its 95 % `interval`, `characters` (share of right characters),
            `count` and `wrong`; also `mean_steps` if the step predictor chose the steps.
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
def evaluation_mode(model: Any) -> Iterator[None]:
    """Turn dropout and gradients off inside the block, and restore the model's mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def first_steps(engine: Engine, pictures: Sequence[Any]) -> torch.Tensor:
    """Compute the inputs of the step predictor, from the first step of each picture.

    Args:
        engine: model to encode with.
        pictures: `n` images.

    Returns:
        `(n, F)` features.
    """
    batch = engine.processor.image_processor(list(pictures), return_tensors="pt")
    tiles = [int(row[0]) for row in batch["image_grid_thw"]]
    with evaluation_mode(engine.model):
        clips, _ = engine.model.model.encode_clips(batch["pixel_values"].to(engine.model.device))
    return torch.stack([step_features(tokens) for tokens in torch.cat(clips).split(tiles)])


def predict_steps(engine: Engine, samples: Sequence[Sample], predictor: StepPredictor) -> list[int]:
    """Predict the steps of every picture of the samples, in order."""
    pictures = [medium.frames[0] for sample in samples for medium in sample.all_media if medium.kind == "image"]
    return [predictor.choose(row) for row in first_steps(engine, pictures)] if pictures else []


def generate_answers(
    engine: Engine, samples: Sequence[Sample], image_steps: int | Sequence[int] | None = None
) -> list[str]:
    """Generate greedy answers to samples of one task.

    Args:
        engine: model to evaluate.
        samples: samples of one task.
        image_steps: steps of all pictures, or of each in order; None for the model's default.
    """
    batch = engine.processor.apply_chat_template(
        [messages_of(sample, answers=False) for sample in samples],
        tokenize=True,
        add_generation_prompt=True,
        do_sample_frames=False,
        image_steps=image_steps,
    ).to(engine.model.device)
    with evaluation_mode(engine.model):
        ids = engine.model.generate(**batch, do_sample=False)
    return engine.processor.tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def count_forced(engine: Engine, samples: Sequence[Sample], image_steps: int | None = None) -> tuple[int, int]:
    """Count the answer tokens that the model predicts right with teacher forcing.

    Args:
        engine: model to evaluate.
        samples: samples of one task.
        image_steps: steps of all pictures; None for the model's default.

    Returns:
        Number of right tokens, and number of all answer tokens.
    """
    batch = engine.processor.apply_chat_template(
        [messages_of(sample) for sample in samples],
        tokenize=True,
        return_assistant_tokens_mask=True,
        do_sample_frames=False,
        image_steps=image_steps,
    ).to(engine.model.device)
    is_answer = batch.pop("assistant_masks")[:, 1:].bool()
    with evaluation_mode(engine.model):
        predicted = engine.model(**batch).logits[:, :-1].argmax(-1)
    right = (predicted == batch["input_ids"][:, 1:]) & is_answer
    return int(right.sum()), int(is_answer.sum())


def score(
    engine: Engine,
    task: str,
    count: int,
    held: HeldOutSet | None = None,
    image_steps: int | Literal["auto"] | None = None,
) -> Score:
    """Score free-running answers to held-out samples of one task.

    Args:
        engine: model to evaluate.
        task: name of the task.
        count: number of samples.
        held: choice of the samples; None for the defaults.
        image_steps: steps of a picture; None for the model's default, "auto" for the step predictor.
    """
    held = held or HeldOutSet()
    side = int(dict(engine.processor.video_processor.size)["height"])
    total = Score()
    predictor = predictor_for(engine) if isinstance(image_steps, str) else None
    for start in range(0, count, BATCH_SIZE):
        samples = held.samples(task, start, min(start + BATCH_SIZE, count), side)
        steps: int | list[int] | None
        if predictor is not None:
            steps = predict_steps(engine, samples, predictor)
            total.steps += steps
        else:
            steps = cast("int | None", image_steps)
        for sample, answer in zip(samples, generate_answers(engine, samples, steps), strict=True):
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
    """Measure the accuracy on held-out samples of several tasks.

    Args:
        engine: model to evaluate.
        tasks: names of the tasks; None for all.
        count: samples per task and level.
        held: choice of the samples; None for the defaults.
        levels: difficulties; None generates them as training does by default.
        image_steps: steps of a picture; None for the model's default, "auto" for the step predictor.
        threads: CPU threads of PyTorch; None leaves the setting.
        report: called with a line per task and level.

    Returns:
        One row per task and level: `task`, `level`, `split`, `image_steps`, `zoom` unless it is 1, and `Score.row`.

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
            fields = {"task": task, "level": level, "split": held.split, "image_steps": image_steps}
            if held.zoom != 1:
                fields["zoom"] = held.zoom
            rows.append({**fields, **total.row()})
            report(f"{task}{'' if level is None else f', level {level}'}: {total.right}/{count}")
    return rows


__all__ = [
    "BATCH_SIZE",
    "HeldOutSet",
    "Score",
    "count_forced",
    "evaluation_mode",
    "first_steps",
    "generate_answers",
    "measure",
    "predict_steps",
    "score",
]
