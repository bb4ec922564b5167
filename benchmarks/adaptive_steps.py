"""Measure the step predictor: accuracy against mean steps, when a head on step-0 tokens chooses the steps.

    python benchmarks/adaptive_steps.py                                    the bundled model, tables as Markdown
    python benchmarks/adaptive_steps.py --plot curve.png --count 200

The model answers about every picture with 1, 2 and 4 steps. The head (`pvc.lab.evaluate.steps`) is fitted on one half
of the samples and evaluated on the other. A price per step turns predictions into choices; varying the price gives the
curve. Baselines: one number of steps for all pictures, random mixtures of two such numbers, the choice by the mean of
task, level and zoom (for a user who knows the kind of picture), and an oracle that knows which answers are right.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from pvc.engine.engine import Engine
from pvc.lab.evaluate.steps import PICTURE_TASKS, Array, collect, curve, fitted

STEPS = (1, 2, 4)


def interpolate_accuracy(points: Array, mean_steps: float) -> float:
    """Compute the best accuracy that random mixtures of two points of a curve reach.

    Args:
        points: `(n, 2)`, mean steps and accuracy.
        mean_steps: maximum of the mean steps.
    """
    best = max((a for s, a in points if s <= mean_steps + 1e-9), default=float("nan"))
    for s0, a0 in points:
        for s1, a1 in points:
            if s0 < mean_steps < s1:
                best = np.nanmax([best, a0 + (a1 - a0) * (mean_steps - s0) / (s1 - s0)])
    return float(best)


def find_min_steps(points: Array, accuracy: float) -> float:
    """Find the fewest mean steps with which random mixtures of two points of a curve reach an accuracy.

    Args:
        points: `(n, 2)`, mean steps and accuracy.
        accuracy: the required accuracy, 0 to 1.
    """
    for mean_steps in np.arange(1.0, 4.001, 0.01):
        if interpolate_accuracy(points, mean_steps) >= accuracy - 1e-9:
            return float(mean_steps)
    return float("nan")


def main() -> None:
    """Collect answers, fit the head and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="directory; the bundled model by default")
    parser.add_argument("--count", type=int, default=240, help="samples per task")
    parser.add_argument("--plot", type=Path, help="write the curves to this PNG file")
    options = parser.parse_args()
    engine = Engine.load(options.model)
    means: list[Array] = []

    def report(task: str, accuracy: Array) -> None:
        means.append(accuracy)
        print(f"<!-- {task}: {np.round(accuracy * 100, 1)} -->", flush=True)

    data = collect(engine, STEPS, PICTURE_TASKS, options.count, report=report)
    half = np.random.default_rng(1).permutation(len(data.right)) % 2 == 0
    train, test = data.part(half), data.part(~half)
    weight, bias = fitted(train.features, train.right)
    kind_means = np.stack([train.right[train.kind == kind].mean(0) for kind in test.kind])
    fixed = np.array([(s, test.right[:, i].mean()) for i, s in enumerate(STEPS)])
    curves = {"one number for all": fixed}
    for name, predictions in (
        ("head on step-0 tokens", test.features @ weight + bias),
        ("mean of task, level and zoom", kind_means),
        ("oracle", test.right - 1e-6 * np.array(STEPS)),
    ):
        curves[name] = np.concatenate([curve(predictions, test.right, STEPS), fixed[:1]])
    print(f"\n{len(test.right)} pictures evaluated, {len(train.right)} fitted on.\n")
    print("| choice | 1.5 steps | 2 steps | 2.5 steps | 3 steps | 4 steps | steps for that of 4, less 1 point |")
    print("|---|---|---|---|---|---|---|")
    for name, points in curves.items():
        cells = " | ".join(f"{interpolate_accuracy(points, s) * 100:.1f}" for s in (1.5, 2, 2.5, 3, 4))
        print(f"| {name} | {cells} | {find_min_steps(points, fixed[-1, 1] - 0.01):.2f} |")
    print("\n| task | 1 step | 2 steps | 4 steps |\n|---|---|---|---|")
    for task, mean in zip(PICTURE_TASKS, means, strict=True):
        print(f"| {task} | {' | '.join(f'{value * 100:.0f}' for value in mean)} |")
    if options.plot:
        plot(curves, options.plot)


def plot(curves: dict[str, Array], target: Path) -> None:
    """Plot accuracy against mean steps.

    Args:
        curves: `(n, 2)` points by name, mean steps and accuracy.
        target: the PNG file to write.
    """
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
