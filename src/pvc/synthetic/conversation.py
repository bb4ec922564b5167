"""A sample as chat messages, the form that the processor, training and evaluation take.

It leaves out tokens and pixels as tensors (`pvc.processing`). Used by `pvc.train` and `pvc.evaluate`.
"""

from __future__ import annotations

from typing import Any

from pvc.media import Video
from pvc.synthetic.scene import Sample


def messages_of(sample: Sample, answers: bool = True) -> list[dict[str, Any]]:
    """A sample's media and question; with `answers` its answer too, and the further questions about the same media."""
    parts: list[dict[str, Any]] = []
    for medium in sample.media:
        if medium.kind == "image":
            parts.append({"type": "image", "image": medium.frames[0]})
        else:
            video = Video.from_frames(medium.frames, timestamps=medium.timestamps)
            parts.append({"type": "video", "video": video})
    parts.append({"type": "text", "text": sample.question})
    messages: list[dict[str, Any]] = [{"role": "user", "content": parts}]
    if not answers:
        return messages
    messages.append({"role": "assistant", "content": sample.answer})
    for question, answer in sample.more:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages


__all__ = ["messages_of"]
