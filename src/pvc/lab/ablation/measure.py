"""What an arm is measured by: free-running answers, teacher forcing, and answers from some of the steps only.

Used by `run.py`. Leaves out statistics (`stats.py`).
"""

from __future__ import annotations

import itertools
from typing import Any

from pvc.engine.engine import Engine
from pvc.lab.ablation.plan import StudyPlan
from pvc.lab.evaluate.accuracy import BATCH, HeldOutSet, Score, forced, measuring, score
from pvc.lab.synthetic import Sample, messages_of


def forced_share(engine: Engine, task: str, held: HeldOutSet, count: int, steps: int) -> float:
    """Share of the answers' tokens that are named right when all before them are given."""
    right, asked = forced_counts(engine, task, held, count, steps)
    return right / asked


def forced_counts(engine: Engine, task: str, held: HeldOutSet, count: int, steps: int) -> tuple[int, int]:
    """Tokens of the answers that are named right, and how many there are."""
    side = int(dict(engine.processor.video_processor.size)["height"])
    pairs = [
        forced(engine, held.samples(task, start, min(start + BATCH, count), side), steps)
        for start in range(0, count, BATCH)
    ]
    return sum(right for right, _ in pairs), sum(asked for _, asked in pairs)


def result(engine: Engine, task: str, held: HeldOutSet, study: StudyPlan, steps: int, frames: int) -> dict[str, Any]:
    """One row of `RunRecord.results`."""
    total: Score = score(engine, task, study.count, held, steps)
    right, asked = forced_counts(engine, task, held, study.count, steps)
    return {
        "task": task,
        "level": study.level or 0,
        "split": held.split,
        "steps": frames if study.kind == "video" else steps,
        "count": total.count,
        "right": total.right,
        "characters": total.characters,
        "characters_right": total.characters_right,
        "teacher_forced_tokens": asked,
        "teacher_forced_right": right,
    }


def subsets(engine: Engine, study: StudyPlan, held: HeldOutSet, steps: int = 4) -> list[dict[str, Any]]:
    """What the language model reads when it sees the tokens of some of the steps only."""
    kept_sets = [kept for size in range(1, steps + 1) for kept in itertools.combinations(range(steps), size)]
    side = int(dict(engine.processor.video_processor.size)["height"])
    rows = []
    for task in study.stage.tasks:
        for kept in kept_sets:
            total = Score()
            for start in range(0, study.subset_count, BATCH):
                samples = held.samples(task, start, min(start + BATCH, study.subset_count), side)
                for sample, answer in zip(samples, _answers_from(engine, samples, kept, steps), strict=True):
                    total.add(sample, answer)
            counts = {"characters": total.characters, "characters_right": total.characters_right}
            rows.append({"task": task, "kept": kept, **counts})
    return rows


def _answers_from(engine: Engine, samples: list[Sample], kept: tuple[int, ...], steps: int) -> list[str]:
    """Answers to pictures of one tile that are encoded in `steps` steps, of which only `kept` are shown."""
    messages = [messages_of(sample, answers=False) for sample in samples]
    batch = engine.processor.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, image_steps=len(kept)
    ).to(engine.model.device)
    with measuring(engine.model):
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


__all__ = ["forced_counts", "forced_share", "result", "subsets"]
