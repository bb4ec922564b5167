"""Options of the engine: how media are prepared, and how tokens are sampled.

Command line, server and vLLM convert their own options to these two classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pvc import media
from pvc.errors import UsageError

SEED_STRIDE = 0x9E3779B97F4A7C15  # odd, and far from seeds that people choose
MAX_TOP_LOGPROBS = 20  # alternatives to report for a token


@dataclass(frozen=True)
class MediaOptions:
    """How media are prepared. None stands for the checkpoint's setting.

    Attributes:
        frames: of a video, evenly spaced.
        fps: frames per second of a video; excludes `frames`.
        times: seconds of a video's frames; excludes `frames` and `fps`.
        image_steps: steps of a picture.
        max_tiles: maximum of tiles of a picture, not counting its thumbnail.
        max_frames: maximum of frames of a video, however it is sampled; of more frames, some are left out evenly.

    Raises:
        UsageError: a value below 1, or two ways of sampling.
    """

    frames: int | None = None
    fps: float | None = None
    times: tuple[float, ...] | None = None
    image_steps: int | None = None
    max_tiles: int | None = None
    max_frames: int | None = None

    def __post_init__(self) -> None:
        for name in ("frames", "image_steps", "max_tiles", "max_frames"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise UsageError(f"{name} must be a number, not {value!r}")
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")
        requested = [name for name in ("frames", "fps", "times") if getattr(self, name) is not None]
        if len(requested) > 1:
            raise UsageError(f"{' and '.join(requested)} exclude each other")

    @property
    def image_options(self) -> dict[str, Any]:
        """Options of the image processor, under its names."""
        named = {"image_steps": self.image_steps, "max_patches": self.max_tiles}
        return {name: value for name, value in named.items() if value is not None}

    def sampling(self, default_frames: int) -> media.Sampling:
        """Return how a video is sampled: `default_frames` frames unless the options say otherwise."""
        if self.times is not None:
            return media.Sampling(times=self.times)
        if self.fps is not None:
            return media.Sampling(fps=self.fps)
        return media.Sampling(frames=self.frames if self.frames is not None else default_frames)


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are sampled, and when an answer ends.

    Attributes:
        max_new_tokens: maximum of tokens of an answer.
        temperature: 0 always takes the likeliest token; otherwise 0.01 to 100.
        top_p: samples among the likeliest tokens whose probabilities add up to this, above 0 and at most 1.
        seed: of the random generator, any integer; None for a seed of the system.
        stop: texts that end an answer and are not part of it.
        logprobs: number of alternatives to report for every token, up to `MAX_TOP_LOGPROBS`; None for none.
        ignore_eos: continue after the model's end-of-turn token.

    Raises:
        UsageError: a value out of range.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        sampling_options(self.max_new_tokens, self.temperature, self.top_p, None)  # any number is a seed here
        if any(not text for text in self.stop):
            raise UsageError("a stop text must not be empty")
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_TOP_LOGPROBS:
            raise UsageError(f"logprobs must be 0 to {MAX_TOP_LOGPROBS}, not {self.logprobs}")

    def generator(self, number: int) -> torch.Generator | None:
        """Return the random generator of answer `number`; None if the likeliest token is always taken."""
        if self.temperature == 0:
            return None
        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        else:
            # Answer 0 uses the request's seed. The others are spread so that seed + 1 does not repeat one of them.
            generator.manual_seed((self.seed + number * SEED_STRIDE) % 2**64)
        return generator


def sampling_options(max_new_tokens: int | None, temperature: float, top_p: float, seed: int | None) -> dict[str, Any]:
    """Return keyword arguments of transformers' `generate` for sampling.

    Raises:
        UsageError: a value out of range; the message names it.
    """
    if max_new_tokens is not None and max_new_tokens < 1:
        raise UsageError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
    if not (temperature == 0 or 0.01 <= temperature <= 100):
        raise UsageError(f"temperature must be 0 (always the likeliest token) or 0.01 to 100, not {temperature}")
    if not 0 < top_p <= 1:
        raise UsageError(f"top_p must be above 0 and at most 1, not {top_p}")
    if seed is not None and not 0 <= seed < 2**32:
        raise UsageError(f"seed must be 0 to 4294967295, not {seed}")
    options: dict[str, Any] = {"do_sample": temperature > 0}
    if temperature > 0:
        options |= {"temperature": temperature, "top_p": top_p}
    if max_new_tokens is not None:
        options["max_new_tokens"] = max_new_tokens
    return options


__all__ = ["MAX_TOP_LOGPROBS", "SEED_STRIDE", "MediaOptions", "SamplingParams", "sampling_options"]
