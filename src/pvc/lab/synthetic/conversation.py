"""Converts a sample to chat messages, the form that the processor, training and evaluation take.

Called by `pvc.lab`, tests and benchmarks.
"""

from __future__ import annotations

from typing import Any

from pvc.lab.synthetic.scene import Medium, Sample
from pvc.media import Video


def messages_of(sample: Sample, answers: bool = True) -> list[dict[str, Any]]:
    """Return a sample as chat messages.

    Args:
        sample: the sample.
        answers: whether to include the answers. If false, the messages end with the last question and leave out the
            further questions in `sample.more`.

    Returns:
        Messages with "role" and "content". The content is a string, or a list of parts of type "image" (uint8
        `(H, W, 3)`), "video" (`pvc.media.Video`) and "text".
    """
    turns = [(sample.media, sample.question, sample.answer)]
    # Only training uses the further questions about the first media.
    turns += [((), question, answer) for question, answer in sample.more] if answers else []
    turns += [(turn.media, turn.question, turn.answer) for turn in sample.turns]
    messages: list[dict[str, Any]] = []
    for media, question, answer in turns:
        parts = [_build_part(medium) for medium in media]
        content: Any = [*parts, {"type": "text", "text": question}] if parts or not messages else question
        messages += [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    return messages if answers else messages[:-1]


def _build_part(medium: Medium) -> dict[str, Any]:
    if medium.kind == "image":
        return {"type": "image", "image": medium.frames[0]}
    return {"type": "video", "video": Video.from_frames(medium.frames, timestamps=medium.timestamps)}


__all__ = ["messages_of"]
