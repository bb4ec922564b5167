"""Fits the head that chooses how many steps a picture gets (`pvc.engine.adaptive`) to a model's own answers.

Held-out pictures are asked about with every number of steps; ridge regression from the tokens of their first step to
how well each answer is gives the head. Its price per step is chosen on predictions for samples that were not fitted on.
Used by `pvc fit-steps` and by `benchmarks/adaptive_steps.py`.

n samples, F features, O numbers of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pvc.engine.adaptive import StepHead
from pvc.engine.engine import Engine
from pvc.engine.visual_state import fingerprint
from pvc.errors import UsageError
from pvc.lab.evaluate.accuracy import BATCH, HeldOutSet, Score, answers, first_steps
from pvc.lab.synthetic import TASKS, Sample, make

PICTURE_TASKS = ("rows", "page", "read", "locate", "receipt", "chart", "shape", "count", "place", "describe")
PRICES = np.concatenate([[0.0], np.geomspace(1e-3, 1.0, 60)])
RIDGES = (1.0, 10.0, 100.0, 1000.0, 10000.0, 100000.0)
FOLDS = 4
# Answers that are text to be read: the part that was read counts.
_READ = ("rows", "page")
Array = np.ndarray


@dataclass(frozen=True)
class Collected:
    """Features `(n, F)` float32 of first steps; `right` `(n, O)`, how well each was answered; `kind` `(n,)` names.

    `kind` is what a user knows who knows what a picture is of: task, level and zoom.
    """

    features: Array
    right: Array
    kind: Array

    def part(self, which: Array) -> Collected:
        return Collected(self.features[which], self.right[which], self.kind[which])


def collect(
    engine: Engine,
    steps: Sequence[int],
    tasks: Sequence[str] = PICTURE_TASKS,
    count: int = 120,
    levels: Sequence[int] = (1, 2, 3),
    zooms: Sequence[int] = (1, 2),
    seed: int = 0,
    report: Callable[[str, Array], None] = lambda task, accuracy: None,
) -> Collected:
    """`count` held-out pictures a task, levels and zooms in turn, each answered with each number of steps.

    Raises:
        UsageError: an unknown task, or one of videos or of several pictures.
    """
    for task in tasks:
        if task not in TASKS:
            raise UsageError(f"unknown task {task!r}; there are {', '.join(TASKS)}")
        if TASKS[task].kind != "image":
            raise UsageError(f"steps are for pictures; {task!r} is about a video")
        if len(make(task, 0, size=64).media) != 1:
            raise UsageError(f"steps are chosen for one picture; {task!r} has several")
    side = int(dict(engine.processor.video_processor.size)["height"])
    features, right, kinds = [], [], []
    for task in tasks:
        rows: list[list[float]] = []
        for zoom in zooms:
            held = HeldOutSet(seed=seed, levels=tuple(levels), zoom=zoom)
            own = -(-count // len(zooms))
            for start in range(0, own, BATCH):
                samples = held.samples(task, start, min(start + BATCH, own), side)
                given = [answers(engine, samples, number) for number in steps]
                rows += [
                    [share_right(sample, answer) for answer in each]
                    for sample, *each in zip(samples, *given, strict=True)
                ]
                features.append(first_steps(engine, [sample.frames[0] for sample in samples]).numpy())
                kinds += [f"{task} {sample.level} x{zoom}" for sample in samples]
        right.append(np.array(rows))
        report(task, right[-1].mean(0))
    return Collected(np.concatenate(features), np.concatenate(right), np.array(kinds))


def share_right(sample: Sample, answer: str) -> float:
    """1 for an exact answer, else 0; of text that is read, the part of the characters that is right."""
    score = Score()
    score.add(sample, answer)
    return score.characters_right / score.characters if sample.task in _READ else float(score.right)


def ridge(x: Array, y: Array, strength: float) -> tuple[Array, Array]:
    """Weight `(F, O)` and bias `(O,)` of linear regression on standardised inputs with an L2 penalty.

    Solved over samples where there are more features, as the tokens of a large model are.
    """
    x = x.astype(np.float64)
    middle, spread, mean = x.mean(0), x.std(0) + 1e-6, y.mean(0)
    z = (x - middle) / spread
    if z.shape[1] <= len(z):
        weight = np.linalg.solve(z.T @ z + strength * np.eye(z.shape[1]), z.T @ (y - mean))
    else:
        weight = z.T @ np.linalg.solve(z @ z.T + strength * np.eye(len(z)), y - mean)
    weight /= spread[:, None]
    return weight, mean - middle @ weight


def fitted(x: Array, y: Array) -> tuple[Array, Array]:
    """Ridge regression of what steps gain, by a strength that is chosen on a quarter of the samples.

    Gains, `y` less its mean over steps: how hard a question is does not matter to the choice, and predicting it is
    most of what an error of absolute accuracies would be about.
    """
    y = y - y.mean(1, keepdims=True)
    last = np.arange(len(x)) % 4 == 3
    errors = []
    for strength in RIDGES:
        weight, bias = ridge(x[~last], y[~last], strength)
        errors.append(((x[last] @ weight + bias - y[last]) ** 2).mean())
    return ridge(x, y, RIDGES[int(np.argmin(errors))])


def crossed(data: Collected, folds: int = FOLDS) -> Array:
    """Predictions `(n, O)` for every sample by a head that was fitted without it."""
    predicted = np.zeros_like(data.right)
    fold = np.random.default_rng(0).permutation(len(data.right)) % folds
    for number in range(folds):
        weight, bias = fitted(data.features[fold != number], data.right[fold != number])
        predicted[fold == number] = data.features[fold == number] @ weight + bias
    return predicted


def curve(predicted: Array, true: Array, steps: Sequence[int]) -> Array:
    """(mean steps, accuracy) of the choice at every one of `PRICES`."""
    numbers, rows = np.array(steps), np.arange(len(true))
    chosen = [(predicted - price * numbers).argmax(1) for price in PRICES]
    return np.array([(numbers[which].mean(), true[rows, which].mean()) for which in chosen])


def fit(engine: Engine, data: Collected, steps: Sequence[int], loss: float) -> StepHead:
    """The head of a model, whose price loses at most `loss` of the accuracy that most steps for all pictures have.

    Of the prices that keep to it the one with the fewest steps is taken; what it gives on samples that were not fitted
    on is kept in `facts`.
    """
    points = curve(crossed(data), data.right, steps)
    fixed = data.right.mean(0)
    kept = np.flatnonzero(points[:, 1] >= fixed[-1] - loss)
    best = kept[points[kept, 0].argmin()] if len(kept) else int(points[:, 1].argmax())
    weight, bias = fitted(data.features, data.right)
    facts: dict[str, Any] = {
        "samples": len(data.right),
        "mean_steps": round(float(points[best, 0]), 3),
        "accuracy": round(float(points[best, 1]), 4),
        "fixed": {str(number): round(float(value), 4) for number, value in zip(steps, fixed, strict=True)},
    }
    return StepHead(
        torch.tensor(weight, dtype=torch.float32),
        torch.tensor(bias, dtype=torch.float32),
        tuple(steps),
        float(PRICES[best]),
        fingerprint(engine.model, rounded=True),
        facts,
    )


__all__ = ["PICTURE_TASKS", "Collected", "collect", "crossed", "curve", "fit", "fitted", "ridge", "share_right"]
