"""Compare timesteps for live video: accuracy after N quiet frames, with four ways to number the steps.

    python benchmarks/timesteps.py OUT [--seeds 0 1 2] [--steps 300]     train and measure (resumable)
    python benchmarks/timesteps.py OUT --report                          tables and plot of the results so far

Every arm starts from the bundled weights, and is trained on the same samples for the same number of steps. Clips in
training are shorter than the temporal window, so one training run serves the arms with and without it.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pvc
from pvc.engine.live import FrameRetention, LiveSession
from pvc.lab.ablation.stats import t_interval
from pvc.lab.evaluate.accuracy import HeldOutSet
from pvc.train.pipeline import run_recipe
from pvc.train.recipe import Recipe

ARMS: dict[str, dict[str, Any]] = {
    "index": {"vision": {"timestep": "index", "timestep_limit": 63}},
    "index, offsets": {"vision": {"timestep": "index", "timestep_limit": None}, "max_step_offset": 600},
    "cyclic 4": {"vision": {"timestep": "cyclic", "timestep_period": 4, "timestep_limit": None}},
    "cyclic 8": {"vision": {"timestep": "cyclic", "timestep_period": 8, "timestep_limit": None}},
}
WINDOWS = {"16": 16, "none": 10**6}
TASKS = {"direction": (1, 2), "digits": (1, 2), "pieces": (1,)}
QUIET = (0, 8, 24, 56, 120, 500)
CLIP_FRAMES = 8
# The language model's input is as long as in training, so that only the timesteps differ from training.
KEEP = FrameRetention(first=0, middle=0, recent=16, batch=8)
QUIET_INTERVAL = 0.1  # seconds


def build_recipe(arm: str, seed: int, steps: int) -> Recipe:
    """Build the recipe of an arm: the bundled model's shape and weights with the arm's timesteps.

    Args:
        arm: a key of ARMS.
        seed: seed of the training.
        steps: number of training steps.
    """
    bundled = json.loads((Path(pvc.__file__).parent / "nano" / "training.json").read_text(encoding="utf-8"))["recipe"]
    model = bundled["model"]
    model["vision"] |= ARMS[arm]["vision"]
    stage = {
        "name": "clips",
        "kind": "chat",
        "steps": steps,
        "batch_size": 16,
        "learning_rate": 6e-4,
        "warmup_steps": 20,
        "downsample_ratio": 0.25,
        "image_steps": {1: 1, 2: 1, 4: 2},
        "questions": 3,
        "characters": 90,
        "max_step_offset": ARMS[arm].get("max_step_offset", 0),
        "tasks": {name: {"weight": 1, "levels": list(levels)} for name, levels in TASKS.items()},
        "video_frames": {4: 1, 6: 1, 8: 3, 12: 1, 16: 1},
        "save_steps": 100,
    }
    return Recipe.model_validate(
        {"name": "timesteps", "seed": seed, "start": "nano", "model": model, "stages": [stage]}
    )


def generate_quiet_frames(seed: int, count: int, side: int) -> Iterator[np.ndarray[Any, Any]]:
    """Generate plain grey frames with a little noise, `(side, side, 3)` uint8.

    Args:
        seed: seed of the noise.
        count: number of frames.
        side: width and height in pixels.
    """
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield np.clip(rng.normal(128, 2, (side, side, 3)), 0, 255).astype(np.uint8)


def copy_session(stream: LiveSession) -> LiveSession:
    """Copy a live session, so that changes of the copy leave the original unchanged."""
    duplicate = copy.copy(stream)
    duplicate._frames = list(stream._frames)
    duplicate._cache = copy.deepcopy(stream._cache)
    duplicate._ids = list(stream._ids)
    return duplicate


def measure_accuracy(
    stream: LiveSession,
    count: int,
    seed: int,
    tasks: Mapping[str, tuple[int, ...]] = TASKS,
    quiets: Sequence[int] = QUIET,
) -> list[dict[str, Any]]:
    """Measure the right answers per task after each number of quiet frames.

    Args:
        stream: the live session; the quiet frames are pushed into it.
        count: samples per task.
        seed: seed of the samples and quiet frames.
        tasks: levels by task.
        quiets: numbers of quiet frames before the clip, ascending.

    Returns:
        Rows with task, quiet frames, right answers and their total.
    """
    side = int(dict(stream.encoder.processor.video_processor.size)["height"])
    rows, pushed = [], 0
    frames = generate_quiet_frames(seed, max(quiets), side)
    for quiet in quiets:
        while pushed < quiet:
            stream.push(next(frames), pushed * QUIET_INTERVAL)
            pushed += 1
        for task, levels in tasks.items():
            held_out = HeldOutSet(levels=levels, frames=CLIP_FRAMES, seed=seed)
            right = 0
            for sample in held_out.samples(task, 0, count, side):
                right += push_and_ask(copy_session(stream), sample, quiet * QUIET_INTERVAL) == sample.answer
            rows.append({"task": task, "quiet": quiet, "right": right, "count": count})
    return rows


def push_and_ask(stream: LiveSession, sample: Any, start: float) -> str:
    """Push the clip of a sample and ask its question.

    Args:
        stream: the live session.
        sample: the sample.
        start: time of the first frame in seconds.

    Returns:
        The answer.
    """
    medium = sample.media[0]
    for frame, seconds in zip(medium.frames, medium.timestamps, strict=True):
        stream.push(frame, start + seconds)
    return stream.ask(sample.question).text.strip()


def run(options: argparse.Namespace) -> None:
    """Train and measure every arm and seed that has no results yet."""
    torch.set_num_threads(1)
    for seed in options.seeds:
        for arm in ARMS:
            name = f"{arm.replace(', ', '-').replace(' ', '')}-{seed}"
            target = options.out / f"{name}.json"
            if target.exists():
                continue
            started = time.monotonic()
            directory = options.out / "runs" / name
            recipe = build_recipe(arm, seed, options.steps)
            model = run_recipe(recipe, directory, report=lambda line, n=name: print(n, line))
            train_seconds = time.monotonic() - started
            engine = pvc.load(model, device="cpu", dtype="float32")
            rows = []
            with torch.inference_mode():
                for window, size in WINDOWS.items():
                    stream = LiveSession(engine, window=size, keep=KEEP)
                    rows += [{**row, "window": window} for row in measure_accuracy(stream, options.count, seed)]
            summary = {"arm": arm, "seed": seed, "steps": options.steps, "train_s": round(train_seconds)}
            summary["measure_s"] = round(time.monotonic() - started - train_seconds)
            target.write_text(json.dumps({**summary, "rows": rows}, indent=1) + "\n", encoding="utf-8")
            print(name, json.dumps(summary), flush=True)


def compute_interval(values: list[float]) -> tuple[float, float, float]:
    """Compute mean and 95 % interval over seeds; the interval of one seed is NaN."""
    estimate = t_interval(values)
    low, high = (math.nan if end is None else end for end in (estimate.lower, estimate.upper))
    return estimate.mean, low, high


def report(options: argparse.Namespace) -> None:
    """Write the tables and the plot of all results."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.out.glob("*.json"))]
    lines = [f"{len(runs)} runs; seeds {sorted({run['seed'] for run in runs})}; steps {runs[0]['steps']}", ""]
    lines += [f"| task | window | arm | {' | '.join(map(str, QUIET))} |", f"|---|---|---|{'---|' * len(QUIET)}"]
    curves: dict[tuple[str, str, str], list[tuple[float, float, float]]] = {}
    for task in (*TASKS, "mean"):
        for window in WINDOWS:
            for arm in ARMS:
                points = [list_accuracies(runs, arm, window, task, quiet) for quiet in QUIET]
                curves[task, window, arm] = [compute_interval(values) for values in points if values]
                cells = [
                    f"{100 * mean:.0f} ({100 * low:.0f} to {100 * high:.0f})"
                    for mean, low, high in curves[task, window, arm]
                ]
                lines.append(f"| {task} | {window} | {arm} | {' | '.join(cells)} |")
    (options.out / "timesteps.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    plot(curves, options.out / "timesteps.png")


def list_accuracies(runs: list[dict[str, Any]], arm: str, window: str, task: str, quiet: int) -> list[float]:
    """List the accuracy of an arm, one value per seed.

    Args:
        runs: results of all runs.
        arm: a key of ARMS.
        window: a key of WINDOWS.
        task: a key of TASKS, or "mean" for all tasks.
        quiet: number of quiet frames.
    """
    accuracies = []
    for result in runs:
        rows = [row for row in result["rows"] if row["window"] == window and row["quiet"] == quiet]
        rows = [row for row in rows if task in ("mean", row["task"])]
        if result["arm"] == arm and rows:
            accuracies.append(sum(row["right"] for row in rows) / sum(row["count"] for row in rows))
    return accuracies


def plot(curves: dict[tuple[str, str, str], list[tuple[float, float, float]]], path: Path) -> None:
    """Plot accuracy over quiet frames.

    Args:
        curves: mean and interval by task, window and arm, one entry per number of quiet frames.
        path: the PNG file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(WINDOWS), 1 + len(TASKS), figsize=(16, 7), sharey=True, layout="constrained")
    for row, window in zip(axes, WINDOWS, strict=True):
        for axis, task in zip(row, (*TASKS, "mean"), strict=True):
            for arm in ARMS:
                points = np.array(curves[task, window, arm])
                if not len(points):
                    continue
                positions = range(len(points))
                axis.plot(positions, 100 * points[:, 0], marker="o", label=arm)
                axis.fill_between(positions, 100 * points[:, 1], 100 * points[:, 2], alpha=0.12)
            axis.set(title=f"{task}, window {window}", xlabel="quiet frames before the clip", ylim=(0, 100))
            axis.set_xticks(range(len(QUIET)), map(str, QUIET))
        row[0].set_ylabel("right answers, %")
    axes[0][-1].legend(loc="upper right")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Train and measure, or write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="directory of runs and results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--count", type=int, default=30, help="samples per task and number of quiet frames")
    parser.add_argument("--report", action="store_true", help="write tables and plot only")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    (report if options.report else run)(options)


if __name__ == "__main__":
    main()
