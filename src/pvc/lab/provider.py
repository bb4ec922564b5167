"""Provider of the synthetic tasks for training: a `pvc.train.data.tasks.TaskProvider`, loaded by an entry point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pvc.lab.evaluate.accuracy import HeldOutSet, measure
from pvc.lab.synthetic import PATCH_CLASSES, TASKS, Sample, make, messages_of
from pvc.lab.synthetic.quiet import delayed
from pvc.lab.synthetic.scene import Kind
from pvc.lab.synthetic.trimming import trimmed
from pvc.train.data.tasks import GeneratedExample, HeldOut, TaskOptions

_TEXTS = 200  # examples per task for training a tokenizer


class SyntheticTasks:
    """Provider of all tasks of `pvc.lab.synthetic`."""

    @property
    def tasks(self) -> Mapping[str, Kind]:
        """Kind of media ("image" or "video") of every task, by name."""
        return {name: task.kind for name, task in TASKS.items()}

    @property
    def num_patch_classes(self) -> int:
        """Number of patch classes."""
        return PATCH_CLASSES

    def has_patch_classes(self, task: str) -> bool:
        """Return whether the examples of `task` have the class of every patch; those of pages do not."""
        return not TASKS[task].pages

    def texts(self, tasks: Iterable[str]) -> list[str]:
        """Return questions and answers of tasks, for training a tokenizer."""
        texts = []
        for task in sorted(tasks):
            for seed in range(_TEXTS):
                sample = make(task, seed, frames=6 if TASKS[task].kind == "video" else None)
                texts += [sample.question, " " + sample.answer.lower(), sample.answer]
                texts += [turn.question for turn in sample.turns]
        return texts

    def generate(self, task: str, seed: int, options: TaskOptions) -> GeneratedExample:
        """Generate one example.

        Args:
            task: name of the task.
            seed: determines the example, together with the options.
            options: size, level, frames and other settings.

        Raises:
            UsageError: the task does not have one of the options.
        """
        choice: dict[str, Any] = {} if options.level is None else {"level": options.level}
        choice |= {} if options.tiles is None else {"tiles": options.tiles}
        sample = make(task, seed, size=options.size, split=options.split, frames=options.frames, **choice)
        sample = trimmed(sample, options.questions, options.characters)
        if sample.kind == "video":
            sample = delayed(sample, options.quiet_frames, options.start, seed)
        return to_example(sample)

    def measure(self, engine: Any, task: str, held_out: HeldOut) -> float:
        """Measure the share of held-out examples that a model answers exactly, in free-running generation.

        Args:
            engine: model to measure.
            task: name of the task.
            held_out: number and settings of the examples.

        Returns:
            Accuracy in [0, 1].
        """
        held = HeldOutSet(levels=held_out.levels, tiles=held_out.tiles, frames=held_out.frames)
        rows = measure(engine, [task], held_out.count, held, image_steps=held_out.image_steps, threads=None)
        return float(rows[0]["accuracy"])


def to_example(sample: Sample) -> GeneratedExample:
    """Convert a sample to training's type of example; its `origin` is the sample."""
    patches = tuple((m.frames, m.patch_labels) for m in sample.media if m.patch_labels is not None)
    return GeneratedExample(messages_of(sample), patches, sample)


PROVIDER = SyntheticTasks()

__all__ = ["PROVIDER", "SyntheticTasks", "to_example"]
