"""Trim the questions of a sample, so that the text of a batch has one length. Used by training and the ablation."""

from __future__ import annotations

from dataclasses import replace

from pvc.lab.synthetic.scene import Sample


def trimmed(sample: Sample, questions: int | None, characters: int | None = None) -> Sample:
    """Return a sample with fewer further questions.

    Args:
        questions: that are asked at most, the first one included; None for all.
        characters: that all questions and answers may have together; the first question is always kept.
    """
    more = sample.more[: None if questions is None else questions - 1]
    if characters is not None:
        left, kept = characters - len(sample.question) - len(sample.answer), []
        for question, answer in more:
            left -= len(question) + len(answer)
            if left < 0:
                break
            kept.append((question, answer))
        more = tuple(kept)
    return replace(sample, more=more)


__all__ = ["trimmed"]
