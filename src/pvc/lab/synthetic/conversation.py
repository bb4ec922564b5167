"""A sample as chat messages, the form that the processor, training and evaluation take.

It leaves out tokens and pixels as tensors (`pvc.processing`). Used by `pvc.train` and `pvc.evaluate`.
"""

from __future__ import annotations

from typing import Any

from pvc.lab.synthetic.scene import Medium, Sample
from pvc.media import Video


def messages_of(sample: Sample, answers: bool = True) -> list[dict[str, Any]]:
    """Return a sample as messages; without `answers` up to its last question, the further ones left out."""
    asked = [(sample.media, sample.question, sample.answer)]
    # The further questions about the first media are training's alone.
    asked += [((), question, answer) for question, answer in sample.more] if answers else []
    asked += [(turn.media, turn.question, turn.answer) for turn in sample.turns]
    messages: list[dict[str, Any]] = []
    for media, question, answer in asked:
        parts = [_part(medium) for medium in media]
        content: Any = [*parts, {"type": "text", "text": question}] if parts or not messages else question
        messages += [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    return messages if answers else messages[:-1]


def _part(medium: Medium) -> dict[str, Any]:
    if medium.kind == "image":
        return {"type": "image", "image": medium.frames[0]}
    return {"type": "video", "video": Video.from_frames(medium.frames, timestamps=medium.timestamps)}


__all__ = ["messages_of"]
