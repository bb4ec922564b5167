"""Whether a head on a picture's step-0 tokens can tell how many steps it deserves: accuracy against mean steps.

    python benchmarks/adaptive_steps.py                                    the bundled model, tables as Markdown
    python benchmarks/adaptive_steps.py --plot curve.png --count 200

Every picture is asked about with 1, 2 and 4 steps. Ridge regression from its step-0 tokens (all of them, the mean and
the standard deviation over positions) to the three accuracies is fitted on one half of the samples and judged on the
other; a price per step turns the predictions into a choice, and raising it draws the curve. Beside it: one number of
steps for all, mixtures of two such numbers drawn by chance, the same choice by the mean of the task and level (what a
user knows who knows the kind of picture), and a seer who knows which answers will be right.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pvc.engine.engine import Engine
from pvc.evaluate.accuracy import BATCH, Held, Score, answers
from pvc.synthetic import Sample

TASKS = ("rows", "page", "read", "locate", "receipt", "chart", "shape", "count", "place", "describe")
LEVELS = (1, 2, 3)
STEPS = (1, 2, 4)
PRICES = np.concatenate([[0.0], np.geomspace(1e-3, 1.0, 60)])
RIDGES = (1.0, 10.0, 100.0, 1000.0, 10000.0)
Array = np.ndarray


def share_right(sample: Sample, answer: str) -> float:
    """1 for an exact answer; part of it for `rows` and `page`, whose answers are lines that are read."""
    score = Score()
    score.add(sample, answer)
    return score.characters_right / score.characters if sample.task in ("rows", "page") else float(score.right)


def collect(engine: Engine, task: str, count: int) -> tuple[Array, Array]:
    """Features `(count, F)` of the step-0 tokens, and accuracies `(count, 3)` with 1, 2 and 4 steps."""
    side = int(dict(engine.processor.video_processor.size)["height"])
    kept: list[torch.Tensor] = []
    features, right = [], []
    held = Held(levels=LEVELS)
    for start in range(0, count, BATCH):
        samples = held.samples(task, start, min(start + BATCH, count), side)
        row = []
        for steps in STEPS:
            kept.clear()
            hook = engine.model.model.multi_modal_projector.register_forward_hook(lambda m, i, out: kept.append(out))
            given = answers(engine, samples, steps)
            hook.remove()
            if steps == 1:
                tokens = torch.cat(kept).float()
                assert len(tokens) == len(samples), "one row of tokens a picture"
                pooled = torch.cat([tokens.flatten(1), tokens.mean(1), tokens.std(1)], 1)
                features.append(pooled.numpy())
            row.append([share_right(sample, answer) for sample, answer in zip(samples, given, strict=True)])
        right.append(np.array(row).T)
    return np.concatenate(features), np.concatenate(right)


def ridge(x: Array, y: Array, strength: float) -> Callable[[Array], Array]:
    """Linear regression with standardised inputs and an L2 penalty."""
    middle, spread, mean = x.mean(0), x.std(0) + 1e-6, y.mean(0)
    z = (x - middle) / spread
    weights = np.linalg.solve(z.T @ z + strength * np.eye(z.shape[1]), z.T @ (y - mean))
    return lambda new: (new - middle) / spread @ weights + mean


def fitted(x: Array, y: Array) -> Callable[[Array], Array]:
    """Ridge regression whose strength is chosen on a quarter of the fitting half."""
    last = np.arange(len(x)) % 4 == 3
    errors = [((ridge(x[~last], y[~last], s)(x[last]) - y[last]) ** 2).mean() for s in RIDGES]
    return ridge(x, y, RIDGES[int(np.argmin(errors))])


def curve(predicted: Array, true: Array) -> Array:
    """(mean steps, accuracy) of the choice at every price."""
    steps = np.array(STEPS)
    chosen = [(predicted - price * steps).argmax(1) for price in PRICES]
    rows = np.arange(len(true))
    return np.array([(steps[c].mean(), true[rows, c].mean()) for c in chosen])


def at(points: Array, mean_steps: float) -> float:
    """Best accuracy for at most `mean_steps` by mixing two points of a curve by chance."""
    best = max((a for s, a in points if s <= mean_steps + 1e-9), default=float("nan"))
    for s0, a0 in points:
        for s1, a1 in points:
            if s0 < mean_steps < s1:
                best = np.nanmax([best, a0 + (a1 - a0) * (mean_steps - s0) / (s1 - s0)])
    return float(best)


def cheapest(points: Array, accuracy: float) -> float:
    """Fewest mean steps of a mixture that is at least so accurate."""
    for mean_steps in np.arange(1.0, 4.001, 0.01):
        if at(points, mean_steps) >= accuracy - 1e-9:
            return float(mean_steps)
    return float("nan")


def main() -> None:
    """Collect, fit, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="directory; the bundled model by default")
    parser.add_argument("--count", type=int, default=120, help="samples a task")
    parser.add_argument("--plot", type=Path)
    chosen = parser.parse_args()
    engine = Engine.load(chosen.model)
    parts = []
    for task in TASKS:
        parts.append(collect(engine, task, chosen.count))
        print(f"<!-- {task}: {np.round(parts[-1][1].mean(0) * 100, 1)} -->", flush=True)
    x = np.concatenate([p[0] for p in parts])
    y = np.concatenate([p[1] for p in parts])
    kind = np.repeat(np.arange(len(TASKS)), chosen.count) * 10 + np.tile(
        np.arange(chosen.count) % len(LEVELS), len(TASKS)
    )
    # Halves that both hold every level of every task.
    fit = (np.arange(len(x)) // len(LEVELS)) % 2 == 0
    known = np.stack([y[fit & (kind == k)].mean(0) for k in kind[~fit]])
    seer = y[~fit] - 1e-6 * np.array(STEPS)
    fixed = np.array([(s, y[~fit][:, i].mean()) for i, s in enumerate(STEPS)])
    curves = {
        "one number for all": fixed,
        "head on step-0 tokens": np.concatenate([curve(fitted(x[fit], y[fit])(x[~fit]), y[~fit]), fixed[:1]]),
        "mean of task and level": np.concatenate([curve(known, y[~fit]), fixed[:1]]),
        "seer": np.concatenate([curve(seer, y[~fit]), fixed[:1]]),
    }
    print(f"\n{int((~fit).sum())} pictures judged, {int(fit.sum())} fitted on.\n")
    print("| choice | 1.5 steps | 2 steps | 2.5 steps | 3 steps | 4 steps | steps for that of 4, less 1 point |")
    print("|---|---|---|---|---|---|---|")
    for name, points in curves.items():
        cells = " | ".join(f"{at(points, s) * 100:.1f}" for s in (1.5, 2, 2.5, 3, 4))
        print(f"| {name} | {cells} | {cheapest(points, fixed[-1, 1] - 0.01):.2f} |")
    print("\n| task | 1 step | 2 steps | 4 steps | best number known beforehand |\n|---|---|---|---|---|")
    for task, (_, right) in zip(TASKS, parts, strict=True):
        cells = " | ".join(f"{v * 100:.0f}" for v in right.mean(0))
        print(f"| {task} | {cells} | {right.max(1).mean() * 100:.0f} |")
    if chosen.plot:
        plot(curves, chosen.plot)


def plot(curves: dict[str, Array], target: Path) -> None:
    """Accuracy against mean steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for name, points in curves.items():
        ordered = points[np.argsort(points[:, 0])]
        axes.plot(ordered[:, 0], ordered[:, 1] * 100, "o-", markersize=3, label=name)
    axes.set(xlabel="mean steps a picture", ylabel="accuracy, %", xlim=(0.9, 4.1))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    main()
