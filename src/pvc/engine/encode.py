"""Media to visual tokens: processed and encoded once, in chunks of bounded size, and kept with their bookkeeping.

Leaves out prompts and answers (`chat.py`). Called by the engine.

K tokens per frame and step, L language width.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from pvc.media import Picture, Video
from pvc.model.cache import TemporalCache
from pvc.model.inputs import steps_per_tile
from pvc.model.modeling import PVCForConditionalGeneration
from pvc.model.order import order_image_tokens
from pvc.processing.processor import PVCProcessor

FRAMES_PER_CHUNK = 32
TILES_PER_CHUNK = 16

OnChunk = Callable[[], None]  # called after every chunk; what it raises ends the encoding

_serial = itertools.count(1)


@dataclass(frozen=True)
class EncodedMedia:
    """One image or video as the language model sees it.

    Attributes:
        kind: "image" or "video".
        name: where it came from.
        tokens: `(frames * K, L)` for a video, `(steps * tiles * K, L)` for an image (see `pvc.model.order`).
        timestamps: seconds of every frame; empty for an image.
        tiles, steps: of an image; 1 and the number of frames for a video.
        warnings: what the reader had to say.
        prepare_s: seconds of the encoding in which frames were made pixels for the tower, or were waited for.
        serial: unique in this process; it distinguishes two media with equal placeholders.
    """

    kind: str
    name: str
    tokens: torch.Tensor
    timestamps: tuple[float, ...] = ()
    tiles: int = 1
    steps: int = 1
    warnings: tuple[str, ...] = ()
    prepare_s: float = 0.0
    serial: int = field(default_factory=lambda: next(_serial))

    def describe(self) -> dict[str, Any]:
        """What `pvc ask --json` says of it."""
        return {
            "path": self.name,
            "kind": self.kind,
            "frames": len(self.timestamps) if self.kind == "video" else 1,
            "timestamps": [round(time, 3) for time in self.timestamps],
            "tiles": self.tiles,
            "steps": self.steps,
            "tokens": len(self.tokens),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class PreparedPicture:
    """A picture's tiles `(tiles, 3, S, S)` float32, ready for the tower, and the steps of each `(tiles,)`."""

    pixels: torch.Tensor
    image_steps: torch.Tensor
    name: str
    warnings: tuple[str, ...] = ()


def prepare_picture(processor: PVCProcessor, picture: Picture, options: dict[str, Any]) -> PreparedPicture:
    """A picture cut into tiles; `options` are the image processor's (`image_steps`, `max_patches`).

    Touches no model: a server does it outside the thread that owns one.
    """
    batch = processor.image_processor([picture.image], return_tensors="pt", **options)
    return PreparedPicture(batch["pixel_values"], batch["image_steps"], picture.name, tuple(picture.warnings))


@torch.inference_mode()
def encode_picture(
    model: PVCForConditionalGeneration,
    processor: PVCProcessor,
    picture: Picture | PreparedPicture,
    options: dict[str, Any],
    on_chunk: OnChunk | None = None,
) -> EncodedMedia:
    """Encode one picture, cut into tiles, in chunks of `TILES_PER_CHUNK`.

    Args:
        model: whose tower and compressor are used.
        processor: of the model.
        picture: opened, or prepared by `prepare_picture`.
        options: as for `prepare_picture`; without effect on a prepared picture.
        on_chunk: called after every chunk; an error that it raises ends the encoding.
    """
    started = time.perf_counter()
    ready = picture if isinstance(picture, PreparedPicture) else prepare_picture(processor, picture, options)
    prepare_s = time.perf_counter() - started
    pixels = ready.pixels.split(TILES_PER_CHUNK)
    steps = steps_per_tile(ready.image_steps, [len(ready.pixels)], model.config)[0]
    tiles: list[torch.Tensor] = []
    for chunk in pixels:
        clips, _ = model.model.encode_clips(chunk.to(model.device), steps=[steps] * len(chunk))
        tiles += clips
        if on_chunk is not None:
            on_chunk()
    tokens = order_image_tokens(tiles, [len(tiles)], model.config)[0]
    return EncodedMedia(
        "image",
        picture.name,
        tokens,
        tiles=len(tiles),
        steps=steps,
        warnings=tuple(picture.warnings),
        prepare_s=prepare_s,
    )


@torch.inference_mode()
def encode_video(
    model: PVCForConditionalGeneration, processor: PVCProcessor, video: Video, on_chunk: OnChunk | None = None
) -> EncodedMedia:
    """Visual tokens of one video whose frames were sampled before; long ones go through in chunks, with a cache."""
    total = len(video.timestamps)
    if total > FRAMES_PER_CHUNK:
        return encode_frames(model, processor, video, None, total, on_chunk)[0]
    started = time.perf_counter()
    pixels, repeats = _stored(processor, video, slice(0, total))
    prepare_s = time.perf_counter() - started
    clips, _ = model.model.encode_clips(pixels.to(model.device), frames=[len(pixels)], steps=[total], repeats=repeats)
    return _encoded(video, clips[0], prepare_s)


@torch.inference_mode()
def encode_frames(
    model: PVCForConditionalGeneration,
    processor: PVCProcessor,
    video: Video,
    cache: TemporalCache | None,
    total_steps: int | None,
    on_chunk: OnChunk | None = None,
) -> tuple[EncodedMedia, TemporalCache, list[int]]:
    """The (next) frames of a video in chunks, what the temporal blocks remember afterwards, and the chunks' lengths.

    Only one chunk's frames are pixels at a time; with a temporal window the cache does not grow either.
    """
    pieces: list[torch.Tensor] = []
    prepare_s, started = 0.0, time.perf_counter()
    # On a CPU both would take the same cores, and another chunk's pixels their memory.
    for pixels, repeats in _chunks(processor, video, ahead=model.device.type != "cpu"):
        prepare_s += time.perf_counter() - started
        window = None if cache is None else cache.window  # a stream's state may have one of its own
        tokens, cache = model.model.encode_frames(pixels.to(model.device), cache, total_steps, repeats, window)
        pieces.append(tokens)
        if on_chunk is not None:
            on_chunk()
        started = time.perf_counter()
    assert cache is not None  # a video has at least one frame
    return _encoded(video, torch.cat(pieces), prepare_s), cache, [len(piece) for piece in pieces]


def _chunks(processor: PVCProcessor, video: Video, ahead: bool) -> Iterator[tuple[torch.Tensor, list[int]]]:
    """Pixels and repeats of a video's chunks; `ahead`: the next one is prepared while the caller has this one."""
    parts = [slice(start, start + FRAMES_PER_CHUNK) for start in range(0, len(video.timestamps), FRAMES_PER_CHUNK)]
    if not ahead:
        yield from (_stored(processor, video, part) for part in parts)
        return
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(_stored, processor, video, parts[0])
        for part in parts[1:]:
            made, waiting = waiting.result(), pool.submit(_stored, processor, video, part)
            yield made
        yield waiting.result()


def _stored(processor: PVCProcessor, video: Video, part: slice) -> tuple[torch.Tensor, list[int]]:
    """Pixels of a part of a video with equal neighbours stored once, and how many steps show each of them.

    Slides and screen recordings stand still: the layers below the first temporal one then run once per picture.
    """
    frames, times = video.frames[part], video.timestamps[part]
    fresh = [
        index for index in range(len(frames)) if index == 0 or not np.array_equal(frames[index], frames[index - 1])
    ]
    kept = Video(frames if len(fresh) == len(frames) else frames[fresh], tuple(times[index] for index in fresh))
    batch = processor.video_processor([kept], do_sample_frames=False, return_tensors="pt")
    return batch["pixel_values_videos"], np.diff([*fresh, len(frames)]).tolist()


def _encoded(video: Video, tokens: torch.Tensor, prepare_s: float) -> EncodedMedia:
    """`(T, K, L)` tokens with the video's bookkeeping."""
    return EncodedMedia(
        "video",
        video.name,
        tokens.flatten(0, 1),
        timestamps=tuple(video.timestamps),
        steps=len(tokens),
        warnings=tuple(video.warnings),
        prepare_s=prepare_s,
    )


def placeholders(media: list[EncodedMedia]) -> dict[str, Any]:
    """What the processor needs to write the placeholders of encoded media: grids, steps and timestamps."""
    images = [item for item in media if item.kind == "image"]
    return {
        "image_grid_thw": [[item.tiles, 1, 1] for item in images],
        "image_steps": [item.steps for item in images for _ in range(item.tiles)],
        "timestamps": [list(item.timestamps) for item in media if item.kind == "video"],
    }


__all__ = [
    "EncodedMedia",
    "PreparedPicture",
    "encode_frames",
    "encode_picture",
    "encode_video",
    "placeholders",
    "prepare_picture",
]
