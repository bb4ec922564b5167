"""Whether a head on a picture's step-0 tokens can tell how many steps it deserves: accuracy against mean steps.

    python benchmarks/adaptive_steps.py                                    the bundled model, tables as Markdown
    python benchmarks/adaptive_steps.py --plot curve.png --count 200

Every picture is asked about with 1, 2 and 4 steps. The head is the library's (`pvc.lab.evaluate.steps`), fitted on one
half of the samples and judged on the other; a price per step turns the predictions into a choice, and raising it draws
the curve. Beside it: one number of steps for all, mixtures of two such numbers drawn by chance, the same choice by the
mean of the task, level and zoom (what a user knows who knows the kind of picture), and a seer who knows which answers
will be right.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from pvc.engine.engine import Engine
from pvc.lab.evaluate.steps import PICTURE_TASKS, Array, collect, curve, fitted

STEPS = (1, 2, 4)


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
    parser.add_argument("--count", type=int, default=240, help="samples a task")
    parser.add_argument("--plot", type=Path)
    chosen = parser.parse_args()
    engine = Engine.load(chosen.model)
    means: list[Array] = []

    def report(task: str, accuracy: Array) -> None:
        means.append(accuracy)
        print(f"<!-- {task}: {np.round(accuracy * 100, 1)} -->", flush=True)

    data = collect(engine, STEPS, PICTURE_TASKS, chosen.count, report=report)
    half = np.random.default_rng(1).permutation(len(data.right)) % 2 == 0
    fit, judged = data.part(half), data.part(~half)
    weight, bias = fitted(fit.features, fit.right)
    known = np.stack([fit.right[fit.kind == kind].mean(0) for kind in judged.kind])
    fixed = np.array([(s, judged.right[:, i].mean()) for i, s in enumerate(STEPS)])
    curves = {"one number for all": fixed}
    for name, predicted in (
        ("head on step-0 tokens", judged.features @ weight + bias),
        ("mean of task, level and zoom", known),
        ("seer", judged.right - 1e-6 * np.array(STEPS)),
    ):
        curves[name] = np.concatenate([curve(predicted, judged.right, STEPS), fixed[:1]])
    print(f"\n{len(judged.right)} pictures judged, {len(fit.right)} fitted on.\n")
    print("| choice | 1.5 steps | 2 steps | 2.5 steps | 3 steps | 4 steps | steps for that of 4, less 1 point |")
    print("|---|---|---|---|---|---|---|")
    for name, points in curves.items():
        cells = " | ".join(f"{at(points, s) * 100:.1f}" for s in (1.5, 2, 2.5, 3, 4))
        print(f"| {name} | {cells} | {cheapest(points, fixed[-1, 1] - 0.01):.2f} |")
    print("\n| task | 1 step | 2 steps | 4 steps |\n|---|---|---|---|")
    for task, mean in zip(PICTURE_TASKS, means, strict=True):
        print(f"| {task} | {' | '.join(f'{value * 100:.0f}' for value in mean)} |")
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
