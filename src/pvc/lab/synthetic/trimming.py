"""Removes questions of a sample, so that the texts of a batch have similar lengths.

Called by training and the ablation study.
"""

from __future__ import annotations

from dataclasses import replace

from pvc.lab.synthetic.scene import Sample


def trimmed(sample: Sample, questions: int | None, characters: int | None = None) -> Sample:
    """Return a sample with fewer further questions.

    Args:
        sample: the sample.
        questions: maximum number of questions, the first one included; None for all.
        characters: maximum length of all questions and answers together; the first question always stays.
    """
    more = sample.more[: None if questions is None else questions - 1]
    if characters is not None:
        remaining, selected = characters - len(sample.question) - len(sample.answer), []
        for question, answer in more:
            remaining -= len(question) + len(answer)
            if remaining < 0:
                break
            selected.append((question, answer))
        more = tuple(selected)
    return replace(sample, more=more)


__all__ = ["trimmed"]
