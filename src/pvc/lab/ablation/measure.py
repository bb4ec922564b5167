"""Measurements of an arm: free-running answers, teacher forcing, and answers from subsets of the steps.

Statistics are in `stats.py`. Called by `run.py`.
"""

from __future__ import annotations

import itertools
from typing import Any

from pvc.engine.engine import Engine
from pvc.lab.ablation.plan import StudyPlan
from pvc.lab.evaluate.accuracy import BATCH_SIZE, HeldOutSet, Score, count_forced, evaluation_mode, score
from pvc.lab.synthetic import Sample, messages_of


def compute_forced_accuracy(engine: Engine, task: str, held: HeldOutSet, count: int, steps: int) -> float:
    """Measure the share of answer tokens that are predicted right with teacher forcing.

    Args:
        engine: arm to measure.
        task: name of the task.
        held: choice of the held-out samples.
        count: number of samples.
        steps: steps of a picture.
    """
    right, total = count_forced_tokens(engine, task, held, count, steps)
    return right / total


def count_forced_tokens(engine: Engine, task: str, held: HeldOutSet, count: int, steps: int) -> tuple[int, int]:
    """Count answer tokens that are predicted right with teacher forcing, and all answer tokens.

    Args:
        engine: arm to measure.
        task: name of the task.
        held: choice of the held-out samples.
        count: number of samples.
        steps: steps of a picture.
    """
    side = int(dict(engine.processor.video_processor.size)["height"])
    pairs = [
        count_forced(engine, held.samples(task, start, min(start + BATCH_SIZE, count), side), steps)
        for start in range(0, count, BATCH_SIZE)
    ]
    return sum(right for right, _ in pairs), sum(total for _, total in pairs)


def measure_result(
    engine: Engine, task: str, held: HeldOutSet, study: StudyPlan, steps: int, frames: int
) -> dict[str, Any]:
    """Measure one row of `RunRecord.results`.

    Args:
        engine: arm to measure.
        task: name of the task.
        held: choice of the held-out samples.
        study: study of the arm.
        steps: steps of a picture.
        frames: frames of a clip.
    """
    total: Score = score(engine, task, study.count, held, steps)
    forced_right, forced_total = count_forced_tokens(engine, task, held, study.count, steps)
    return {
        "task": task,
        "level": study.level or 0,
        "split": held.split,
        "steps": frames if study.kind == "video" else steps,
        "count": total.count,
        "right": total.right,
        "characters": total.characters,
        "characters_right": total.characters_right,
        "teacher_forced_tokens": forced_total,
        "teacher_forced_right": forced_right,
    }


def measure_subsets(engine: Engine, study: StudyPlan, held: HeldOutSet, steps: int = 4) -> list[dict[str, Any]]:
    """Measure answers from the tokens of every subset of the steps.

    Args:
        engine: arm to measure.
        study: study of the arm.
        held: choice of the held-out samples.
        steps: steps of a picture.

    Returns:
        One row of `RunRecord.subsets` per task and subset.
    """
    kept_sets = [kept for size in range(1, steps + 1) for kept in itertools.combinations(range(steps), size)]
    side = int(dict(engine.processor.video_processor.size)["height"])
    rows = []
    for task in study.stage.tasks:
        for kept in kept_sets:
            total = Score()
            for start in range(0, study.subset_count, BATCH_SIZE):
                samples = held.samples(task, start, min(start + BATCH_SIZE, study.subset_count), side)
                for sample, answer in zip(samples, _answers_from(engine, samples, kept, steps), strict=True):
                    total.add(sample, answer)
            counts = {"characters": total.characters, "characters_right": total.characters_right}
            rows.append({"task": task, "kept": kept, **counts})
    return rows


def _answers_from(engine: Engine, samples: list[Sample], kept: tuple[int, ...], steps: int) -> list[str]:
    """Answer questions about pictures of one tile from the tokens of the steps `kept`; all `steps` are encoded."""
    messages = [messages_of(sample, answers=False) for sample in samples]
    batch = engine.processor.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, image_steps=len(kept)
    ).to(engine.model.device)
    with evaluation_mode(engine.model):
        features = engine.model.get_image_features(
            batch["pixel_values"], image_grid_thw=batch["image_grid_thw"], image_steps=steps
        )
        per_step = [tokens.unflatten(0, (steps, -1)) for tokens in features.pooler_output]
        features.pooler_output = [tokens[list(kept)].flatten(0, 1) for tokens in per_step]
        ids = engine.model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            mm_encoder_outputs={"image": features},
            do_sample=False,
        )
    return engine.processor.tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


__all__ = [
    "compute_forced_accuracy",
    "count_forced_tokens",
    "measure_result",
    "measure_subsets",
]
