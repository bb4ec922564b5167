"""Training of the step predictor (`pvc.lab.step_predictor`) on a model's answers.

The model answers questions about held-out pictures with every number of steps. Ridge regression predicts the score of
each answer from the tokens of the first step. The price per step is chosen on predictions for samples that were not
used to fit. Called by `pvc lab fit-steps` and `benchmarks/adaptive_steps.py`.
n samples, F features, O numbers of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pvc.engine.engine import Engine
from pvc.engine.visual_state import fingerprint
from pvc.errors import UsageError
from pvc.lab.evaluate.accuracy import BATCH_SIZE, HeldOutSet, Score, first_steps, generate_answers
from pvc.lab.step_predictor import StepPredictor
from pvc.lab.synthetic import TASKS, Sample, make

PICTURE_TASKS = ("rows", "page", "read", "locate", "receipt", "chart", "shape", "count", "place", "describe")
PRICES = np.concatenate([[0.0], np.geomspace(1e-3, 1.0, 60)])
RIDGES = (1.0, 10.0, 100.0, 1000.0, 10000.0, 100000.0)
FOLDS = 4
# Tasks whose answers are text: the share of right characters counts.
_READ = ("rows", "page")
Array = np.ndarray


@dataclass(frozen=True)
class Collected:
    """Data to fit the step predictor to.

    Attributes:
        features: `(n, F)` float32, from the first step of each picture.
        right: `(n, O)`, score of the answer with each number of steps.
        kind: `(n,)` names of task, level and zoom: what a user knows if the type of a picture is known.
    """

    features: Array
    right: Array
    kind: Array

    def part(self, which: Array) -> Collected:
        """Select the samples of an index or mask `which`, `(m,)` or `(n,)`."""
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
    """Answer questions about held-out pictures with every number of steps, with levels and zooms in turn.

    Args:
        engine: model to answer with.
        steps: `O` numbers of steps.
        tasks: tasks with one picture per sample.
        count: pictures per task.
        levels: difficulties.
        zooms: factors of the tower's image size.
        seed: of the samples.
        report: called with a task and its `(O,)` mean scores.

    Raises:
        UsageError: a task that is unknown, has videos, or has several pictures.
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
            per_zoom = -(-count // len(zooms))
            for start in range(0, per_zoom, BATCH_SIZE):
                samples = held.samples(task, start, min(start + BATCH_SIZE, per_zoom), side)
                by_steps = [generate_answers(engine, samples, number) for number in steps]
                rows += [
                    [compute_score(sample, answer) for answer in answers]
                    for sample, *answers in zip(samples, *by_steps, strict=True)
                ]
                features.append(first_steps(engine, [sample.frames[0] for sample in samples]).numpy())
                kinds += [f"{task} {sample.level} x{zoom}" for sample in samples]
        right.append(np.array(rows))
        report(task, right[-1].mean(0))
    return Collected(np.concatenate(features), np.concatenate(right), np.array(kinds))


def compute_score(sample: Sample, answer: str) -> float:
    """Score an answer: for text tasks the share of right characters, else 1 if the answer is exactly right."""
    score = Score()
    score.add(sample, answer)
    return score.characters_right / score.characters if sample.task in _READ else float(score.right)


def ridge(x: Array, y: Array, strength: float) -> tuple[Array, Array]:
    """Fit a linear regression with an L2 penalty on standardised inputs.

    If there are more features than samples, as for large models, the system is solved over samples.

    Args:
        x: `(n, F)` features.
        y: `(n, O)` targets.
        strength: of the penalty.

    Returns:
        Weight `(F, O)` and bias `(O,)` for inputs that are not standardised.
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
    """Fit a ridge regression of the gain per number of steps; a quarter of the samples choose its strength.

    The gain is `y` less its mean over steps. The difficulty of a question does not matter to the choice, but would
    dominate the error of a prediction of absolute scores.

    Args:
        x: `(n, F)` features.
        y: `(n, O)` scores.

    Returns:
        Weight `(F, O)` and bias `(O,)`.
    """
    y = y - y.mean(1, keepdims=True)
    last = np.arange(len(x)) % 4 == 3
    errors = []
    for strength in RIDGES:
        weight, bias = ridge(x[~last], y[~last], strength)
        errors.append(((x[last] @ weight + bias - y[last]) ** 2).mean())
    return ridge(x, y, RIDGES[int(np.argmin(errors))])


def crossed(data: Collected, folds: int = FOLDS) -> Array:
    """Predict the gains of every sample by cross-validation.

    Args:
        data: samples.
        folds: number of folds.

    Returns:
        `(n, O)` predictions, each by a regression that was fitted without the sample.
    """
    predicted = np.zeros_like(data.right)
    fold = np.random.default_rng(0).permutation(len(data.right)) % folds
    for number in range(folds):
        weight, bias = fitted(data.features[fold != number], data.right[fold != number])
        predicted[fold == number] = data.features[fold == number] @ weight + bias
    return predicted


def curve(predicted: Array, true: Array, steps: Sequence[int]) -> Array:
    """Compute the mean steps and the accuracy that result from every price per step.

    Args:
        predicted: `(n, O)` predictions.
        true: `(n, O)` scores.
        steps: `O` numbers of steps.

    Returns:
        `(len(PRICES), 2)`: mean steps, mean score.
    """
    numbers, rows = np.array(steps), np.arange(len(true))
    choices = [(predicted - price * numbers).argmax(1) for price in PRICES]
    return np.array([(numbers[choice].mean(), true[rows, choice].mean()) for choice in choices])


def fit(engine: Engine, data: Collected, steps: Sequence[int], loss: float) -> StepPredictor:
    """Fit the step predictor of a model.

    The price per step is the one with the fewest mean steps among those that lose at most `loss`. If none does, it is
    the one with the highest score. `facts` of the result has the cross-validated accuracy and mean steps.

    Args:
        engine: model that the data were collected with.
        data: result of `collect`.
        steps: `O` numbers of steps; the last one is the reference.
        loss: accepted loss of accuracy against the reference for all pictures, in [0, 1].
    """
    points = curve(crossed(data), data.right, steps)
    fixed = data.right.mean(0)
    allowed = np.flatnonzero(points[:, 1] >= fixed[-1] - loss)
    best = allowed[points[allowed, 0].argmin()] if len(allowed) else int(points[:, 1].argmax())
    weight, bias = fitted(data.features, data.right)
    facts: dict[str, Any] = {
        "samples": len(data.right),
        "mean_steps": round(float(points[best, 0]), 3),
        "accuracy": round(float(points[best, 1]), 4),
        "fixed": {str(number): round(float(value), 4) for number, value in zip(steps, fixed, strict=True)},
    }
    return StepPredictor(
        torch.tensor(weight, dtype=torch.float32),
        torch.tensor(bias, dtype=torch.float32),
        tuple(steps),
        float(PRICES[best]),
        fingerprint(engine.model, rounded=True),
        facts,
    )


__all__ = ["PICTURE_TASKS", "Collected", "collect", "compute_score", "crossed", "curve", "fit", "fitted", "ridge"]
