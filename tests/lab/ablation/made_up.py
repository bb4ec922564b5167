"""Synthetic studies and runs for the tests of the report: plausible figures without training."""

import math
import random
from itertools import combinations

from pvc.lab.ablation.records import RunRecord, Study

STILLS = Study(
    study="stills",
    title="Dense text in one picture",
    arms={
        "A": "one frame, ratio 1/2, continued",
        "B": "one frame, ratio 1/4",
        "D": "PVC: 4 steps, temporal attention and AdaLN",
        "E": "AdaLN only",
        "F": "temporal attention only",
        "G": "four learned heads",
    },
    seeds=(0, 1, 2, 3, 4),
    tasks=("rows",),
    default_steps={"A": 1, "B": 1, "D": 4, "E": 4, "F": 4, "G": 4},
    kind="image",
    notes="64 px, 8 characters a token at ratio 1/4.",
)
VIDEO = Study(
    study="video",
    title="Clips of 8 frames",
    arms={"B": "plain", "D": "PVC", "E": "AdaLN only", "F": "temporal attention only", "H": "1/2, a quarter of frames"},
    seeds=(0, 1, 2, 3, 4),
    tasks=("direction", "events", "pieces"),
    default_steps={"B": 8, "D": 8, "E": 8, "F": 8, "H": 2},
    kind="video",
    chance={"direction": 0.25, "events": 1 / 6},
)
COUNT, CHARACTERS = 500, 2000


def result(task, share, steps, level=3, split="test"):
    """A result whose characters and answers are both right in `share` of the cases."""
    return {
        "task": task,
        "level": level,
        "split": split,
        "steps": steps,
        "count": COUNT,
        "right": round(share * COUNT),
        "characters": CHARACTERS,
        "characters_right": round(share * CHARACTERS),
        "teacher_forced_tokens": CHARACTERS,
        "teacher_forced_right": min(CHARACTERS, round((share + 0.01) * CHARACTERS)),
    }


def subsets(share_of, task="rows", steps=4):
    """All non-empty subsets, each with the accuracy that `share_of(kept)` gives."""
    sets = [kept for size in range(1, steps + 1) for kept in combinations(range(steps), size)]
    return [
        {
            "task": task,
            "kept": list(kept),
            "characters": CHARACTERS,
            "characters_right": round(share_of(kept) * CHARACTERS),
        }
        for kept in sets
    ]


def data(study, arm, seed, results, **change):
    """The JSON data of a run."""
    generator = random.Random(f"{study}{arm}{seed}")
    noise = [generator.gauss(0, 0.04) for _ in range(60)]
    first = results[0]
    share = first["right"] / first["count"] if results else 0.5
    return {
        "study": study,
        "arm": arm,
        "seed": seed,
        "commit": "abc1234",
        "machine": "x86_64, 2 cores, CPU",
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "parameters": {
            "tower": 300_000,
            "temporal": 210_000 if arm in "DF" else 0,
            "projector": 50_000,
            "language": 420_000,
            "total": 980_000 if arm in "DF" else 770_000,
        },
        "tokens": 16 if arm in "DEFG" else 4,
        "train": {"steps": 1200, "batch_size": 32, "samples": 38_400, "cpu_seconds": 431.5, "start": "base"},
        "curve": [
            {"step": 20 * k, "loss": 0.05 + 2.5 * math.exp(-k / 12) * math.exp(noise[k - 1])} for k in range(1, 61)
        ],
        "evals": [
            {"step": step, "task": task, "teacher_forced": share * (1 - math.exp(-step / 250))}
            for task in sorted({row["task"] for row in results})
            for step in (250, 500, 750, 1000)
        ],
        "results": results,
        "subsets": [],
        **change,
    }


def run(study, arm, seed, results, **change):
    return RunRecord.model_validate(data(study, arm, seed, results, **change))


def stills(level=3):
    """A full study of stills: D about as good as A, B clearly worse; the steps of D are a partition."""
    means = {"A": 0.955, "B": 0.70, "D": 0.958, "E": 0.90, "F": 0.66, "G": 0.87}
    runs = []
    for arm, mean in means.items():
        for seed in STILLS.seeds:
            generator = random.Random(f"{arm}{seed}")
            share = mean + generator.uniform(-0.01, 0.01)
            steps = (1, 2, 3, 4) if STILLS.default_steps[arm] == 4 else (1,)
            results = [result("rows", share * (k / steps[-1]) ** 0.9, k, level) for k in steps]
            extra = {"subsets": subsets(lambda kept, share=share: share * len(kept) / 4)} if arm in "DG" else {}
            runs.append(run("stills", arm, seed, results, **extra))
    return runs


def video(seeds=(0, 1, 2)):
    """Part of a video study."""
    means = {"B": (0.28, 0.80, 0.72), "D": (0.48, 0.86, 0.78), "E": (0.47, 0.84, 0.75), "H": (0.30, 0.55, 0.50)}
    runs = []
    for arm, by_task in means.items():
        for seed in seeds:
            generator = random.Random(f"v{arm}{seed}")
            steps = VIDEO.default_steps[arm]
            rows = [
                result(t, m + generator.uniform(-0.02, 0.02), steps, level=0)
                for t, m in zip(VIDEO.tasks, by_task, strict=True)
            ]
            runs.append(run("video", arm, seed, rows))
    return runs
