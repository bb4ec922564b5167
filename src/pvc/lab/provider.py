"""The synthetic tasks as training finds them: `pvc.train.data.tasks.TaskProvider`, through an entry point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pvc.lab.evaluate.accuracy import HeldOutSet, measure
from pvc.lab.synthetic import PATCH_CLASSES, TASKS, Sample, make, messages_of
from pvc.lab.synthetic.quiet import delayed
from pvc.lab.synthetic.scene import Kind
from pvc.lab.synthetic.trimming import trimmed
from pvc.train.data.tasks import GeneratedExample, HeldOut, TaskOptions

_TEXTS = 200  # examples of a task that a tokenizer learns from


class SyntheticTasks:
    """Provides every task of `pvc.lab.synthetic`."""

    @property
    def tasks(self) -> Mapping[str, Kind]:
        """Names of all tasks, and whether an example shows pictures or has a clip."""
        return {name: task.kind for name, task in TASKS.items()}

    @property
    def num_patch_classes(self) -> int:
        """Classes of patches."""
        return PATCH_CLASSES

    def has_patch_classes(self, task: str) -> bool:
        """Return whether the examples of a task name the class of every patch; pages do not."""
        return not TASKS[task].pages

    def texts(self, tasks: Iterable[str]) -> list[str]:
        """Return questions and answers of tasks, for a tokenizer to learn from."""
        texts = []
        for task in sorted(tasks):
            for seed in range(_TEXTS):
                sample = make(task, seed, frames=6 if TASKS[task].kind == "video" else None)
                texts += [sample.question, " " + sample.answer.lower(), sample.answer]
                texts += [turn.question for turn in sample.turns]
        return texts

    def generate(self, task: str, seed: int, options: TaskOptions) -> GeneratedExample:
        """Return one example; raises UsageError for options that the task does not have."""
        choice: dict[str, Any] = {} if options.level is None else {"level": options.level}
        choice |= {} if options.tiles is None else {"tiles": options.tiles}
        sample = make(task, seed, size=options.size, split=options.split, frames=options.frames, **choice)
        sample = trimmed(sample, options.questions, options.characters)
        if sample.kind == "video":
            sample = delayed(sample, options.quiet_frames, options.start, seed)
        return to_example(sample)

    def measure(self, engine: Any, task: str, held_out: HeldOut) -> float:
        """Return the part of held-out examples that the model answers exactly, in free-running generation."""
        held = HeldOutSet(levels=held_out.levels, tiles=held_out.tiles, frames=held_out.frames)
        rows = measure(engine, [task], held_out.count, held, image_steps=held_out.image_steps, threads=None)
        return float(rows[0]["accuracy"])


def to_example(sample: Sample) -> GeneratedExample:
    """Return a sample as training takes it; its `origin` is the sample."""
    patches = tuple((m.frames, m.patch_labels) for m in sample.media if m.patch_labels is not None)
    return GeneratedExample(messages_of(sample), patches, sample)


PROVIDER = SyntheticTasks()

__all__ = ["PROVIDER", "SyntheticTasks", "to_example"]
