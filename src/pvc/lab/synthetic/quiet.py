"""Puts frames without content before the clips of a sample and delays the clips, as live video does.

Called by training through `pvc.lab.provider`, and by measurements of live video.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pvc.lab.synthetic.scene import Medium, Sample

_TIMES = re.compile(r"\b\d+(\.\d+)? ?(s|sec|seconds?)\b|\bwhen\b|\bat which time\b", re.IGNORECASE)
_MAX_NOISE = 4.0  # grey levels


def has_times(sample: Sample) -> bool:
    """Return whether a question or answer of a sample names a time, which a later start would make wrong."""
    texts = [(sample.question, sample.answer), *sample.more, *((turn.question, turn.answer) for turn in sample.turns)]
    return any(_TIMES.search(text) for pair in texts for text in pair)


def delayed(sample: Sample, quiet: int, start: float, seed: int) -> Sample:
    """Return a sample whose clips begin with frames without content, and at a later time.

    A sample whose questions or answers name times is returned unchanged.

    Args:
        sample: the sample.
        quiet: number of frames to put before every clip: one colour with noise, at the interval of the clip.
        start: seconds of the first frame, added to the clip's times.
        seed: seed of the colour and the noise.
    """
    if has_times(sample) or (not quiet and not start):
        return sample
    rng = np.random.default_rng(seed)
    turns = tuple(replace(turn, media=_delay_media(turn.media, quiet, start, rng)) for turn in sample.turns)
    return replace(sample, media=_delay_media(sample.media, quiet, start, rng), turns=turns)


def _delay_media(media: tuple[Medium, ...], quiet: int, start: float, rng: np.random.Generator) -> tuple[Medium, ...]:
    return tuple(medium if medium.kind == "image" else _delay_medium(medium, quiet, start, rng) for medium in media)


def _delay_medium(medium: Medium, quiet: int, start: float, rng: np.random.Generator) -> Medium:
    times = medium.timestamps
    step = times[1] - times[0] if len(times) > 1 else 0.5
    before = [start + step * i for i in range(quiet)]
    after = [start + step * quiet + time for time in times]
    frames = (
        np.concatenate([_sample_quiet_frames(medium.frames[0], quiet, rng), medium.frames]) if quiet else medium.frames
    )
    return Medium("video", frames, tuple(round(time, 2) for time in (*before, *after)))


def _sample_quiet_frames(like: NDArray[np.uint8], count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return uint8 `(count, H, W, 3)`: one colour, sometimes that of a frame's rim, with noise that changes."""
    if rng.random() < 0.5:
        rim = np.concatenate([like[0], like[-1], like[:, 0], like[:, -1]])
        colour = np.median(rim, axis=0)
    else:
        level = rng.integers(0, 256)
        colour = np.clip(level + rng.integers(-40, 41, 3), 0, 255)
    noise = rng.random() * _MAX_NOISE
    frames = colour + noise * rng.standard_normal((count, *like.shape), np.float32)
    return np.clip(frames, 0, 255).astype(np.uint8)


__all__ = ["delayed", "has_times"]
