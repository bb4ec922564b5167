"""Free-running accuracy on synthetic samples that training never saw: the model generates, the answer is compared.

Samples go through the same processor as everything else, in batches with left padding. Leaves out plots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from typing import Any

import torch

from pvc.engine.engine import Engine
from pvc.errors import UsageError
from pvc.evaluate.intervals import wilson
from pvc.media import Video
from pvc.synthetic import TASKS, Sample, make

BATCH = 25


def answers(engine: Engine, samples: Sequence[Sample], image_steps: int | None = None) -> list[str]:
    """The model's greedy answers to samples of one kind."""
    conversations = []
    for sample in samples:
        if sample.kind == "image":
            part: dict[str, Any] = {"type": "image", "image": sample.frames[0]}
        else:
            part = {"type": "video", "video": Video.from_frames(sample.frames, timestamps=sample.timestamps)}
        text = {"type": "text", "text": sample.question}
        conversations.append([{"role": "user", "content": [part, text]}])
    batch = engine.processor.apply_chat_template(
        conversations, tokenize=True, add_generation_prompt=True, do_sample_frames=False, image_steps=image_steps
    ).to(engine.model.device)
    with torch.inference_mode():
        ids = engine.model.generate(**batch, do_sample=False)
    return engine.processor.tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def measure(
    engine: Engine,
    tasks: Sequence[str] | None = None,
    count: int = 200,
    seed: int = 0,
    image_steps: int | None = None,
    threads: int = 2,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, Any]]:
    """Per task: `accuracy` (answers exactly right), `interval` (95 %), `characters` (share read in order), `count`.

    Raises:
        UsageError: an unknown task.
    """
    unknown = sorted(set(tasks or ()) - set(TASKS))
    if unknown:
        raise UsageError(f"unknown tasks: {', '.join(unknown)}; there are {', '.join(TASKS)}")
    torch.set_num_threads(threads)
    side = int(dict(engine.processor.video_processor.size)["height"])
    results = {}
    for task in tasks or TASKS:
        right, characters = 0, 0.0
        wrong: list[dict[str, str]] = []
        for start in range(0, count, BATCH):
            indices = range(start, min(start + BATCH, count))
            samples = [make(task, seed * 1_000_003 + index, size=side, split="test") for index in indices]
            for sample, answer in zip(samples, answers(engine, samples, image_steps), strict=True):
                right += answer == sample.answer
                characters += SequenceMatcher(None, sample.answer, answer, autojunk=False).ratio()
                if answer != sample.answer and len(wrong) < 5:
                    wrong.append({"question": sample.question, "expected": sample.answer, "answer": answer})
        low, high = wilson(right, count)
        results[task] = {
            "accuracy": right / count,
            "interval": [round(low, 4), round(high, 4)],
            "characters": characters / count,
            "count": count,
            "wrong": wrong,
        }
        report(f"{task}: {right}/{count}")
    return results


__all__ = ["answers", "measure"]
