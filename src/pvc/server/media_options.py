"""The fields of a request that say how media are prepared: `pvc`, and what vLLM's clients send instead.

`media_io_kwargs` and `mm_processor_kwargs` are read as far as they name what `pvc` has. Called by `schemas.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from pvc.server.compat import FLAG, LABEL, NO_OBJECT, OFF, ONE, OneOf, StrictModel

EVERY_FRAME = 1e5  # frames per second, more than any video has: what num_frames = -1 means
ALL = -1

Steps = Annotated[
    Annotated[int, Tag("<number>"), Field(ge=1)] | Annotated[Literal["auto"], Tag("<word>")],
    Discriminator(lambda value: "<word>" if isinstance(value, str) else "<number>"),
]


class PVCOptions(StrictModel):
    """How media are prepared, within the server's ceilings; what is left out is the checkpoint's."""

    called: ClassVar[str] = "pvc"
    frames: int | None = Field(default=None, ge=1)
    fps: float | None = Field(default=None, gt=0, le=1000)
    image_steps: Steps | None = None
    max_tiles: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_sampling(self) -> PVCOptions:
        if self.frames is not None and self.fps is not None:
            raise ValueError("frames and fps exclude each other")
        return self


class _Sampling(StrictModel):
    """vLLM's way: with both, `num_frames` is the most frames of a video sampled at `fps`; -1 is no limit."""

    num_frames: int | None = Field(default=None, ge=ALL)
    fps: float | None = Field(default=None, ge=ALL, le=1000)

    @field_validator("num_frames")
    @classmethod
    def _some(cls, value: int | None) -> int | None:
        if value == 0:
            raise ValueError("must be at least 1, or -1 for every frame")
        return value

    @property
    def rate(self) -> float | None:
        """Frames per second, if they say how the video is sampled."""
        if self.fps is not None and self.fps > 0:
            return self.fps
        return EVERY_FRAME if self.num_frames == ALL else None

    @property
    def frames(self) -> int | None:
        """How many frames, or how many at most."""
        return None if self.num_frames == ALL else self.num_frames


class VideoReading(_Sampling):
    """`media_io_kwargs.video`."""

    called: ClassVar[str] = "media_io_kwargs.video"
    backend: Annotated[Any, LABEL] = None
    frame_recovery: Annotated[Any, FLAG] = None
    video_backend: Annotated[Any, LABEL] = None


class ImageReading(StrictModel):
    """`media_io_kwargs.image`."""

    called: ClassVar[str] = "media_io_kwargs.image"
    image_mode: Annotated[Any, OneOf("RGB")] = None


class MediaReading(StrictModel):
    """`media_io_kwargs`, by kind of medium."""

    called: ClassVar[str] = "media_io_kwargs"
    audio: Annotated[Any, NO_OBJECT] = None
    image: ImageReading | None = None
    video: VideoReading | None = None


class ProcessorOptions(_Sampling):
    """`mm_processor_kwargs`: the names that the processors of PVC, InternVL and Qwen-VL have for the same things."""

    called: ClassVar[str] = "mm_processor_kwargs"
    do_sample_frames: Annotated[Any, FLAG] = None  # frames are chosen once, when the video is read
    dynamic_image_size: Annotated[Any, OneOf(True)] = None
    image_steps: Steps | None = None
    images_kwargs: Annotated[Any, NO_OBJECT] = None
    max_dynamic_patch: int | None = Field(default=None, ge=1)
    max_frames: int | None = Field(default=None, ge=1)
    max_patches: int | None = Field(default=None, ge=1)
    min_dynamic_patch: Annotated[Any, ONE] = None
    use_audio_in_video: Annotated[Any, OFF] = None
    videos_kwargs: Annotated[Any, NO_OBJECT] = None


@dataclass(frozen=True)
class Preparation:
    """What all of these fields ask for together; None is the checkpoint's setting.

    Attributes:
        frames: number of frames of a video.
        fps: its frames per second; never with `frames`.
        most_frames: the most frames of a video, however it is sampled.
        image_steps, max_tiles: of a picture.
    """

    frames: int | None = None
    fps: float | None = None
    most_frames: int | None = None
    image_steps: int | Literal["auto"] | None = None
    max_tiles: int | None = None


@dataclass(frozen=True)
class MediaFields:
    """The three fields as a client sent them."""

    pvc: PVCOptions
    reading: VideoReading
    processor: ProcessorOptions

    @property
    def frames(self) -> dict[str, int | None]:
        """Numbers of frames by place in the request."""
        return {
            "pvc.frames": self.pvc.frames,
            "media_io_kwargs.video.num_frames": self.reading.frames,
            "mm_processor_kwargs.num_frames": self.processor.frames,
        }

    @property
    def image_steps(self) -> dict[str, int | str | None]:
        """Steps of pictures by place."""
        return {"pvc.image_steps": self.pvc.image_steps, "mm_processor_kwargs.image_steps": self.processor.image_steps}

    @property
    def max_tiles(self) -> dict[str, int | None]:
        """Most tiles of pictures by place."""
        return {
            "pvc.max_tiles": self.pvc.max_tiles,
            "mm_processor_kwargs.max_patches": self.processor.max_patches,
            "mm_processor_kwargs.max_dynamic_patch": self.processor.max_dynamic_patch,
        }

    def merged(self) -> Preparation:
        """Return what they ask for together. Raises ValueError where two of them contradict each other."""
        sampling = self._sampling()
        if self.pvc.frames is not None or self.pvc.fps is not None:
            ours = Preparation(self.pvc.frames, self.pvc.fps)
            if sampling not in (Preparation(), ours):
                raise ValueError("pvc and vLLM's fields disagree on how a video is sampled: send one of them")
            sampling = ours
        steps, tiles = _one(self.image_steps), _one(self.max_tiles)
        return replace(sampling, image_steps=steps, max_tiles=tiles)

    def _sampling(self) -> Preparation:
        """vLLM's two steps in one: the reader takes frames of the file, and the processor takes some of those."""
        numbers = [count for count in (self.reading.frames, self.processor.frames) if count is not None]
        decides = self.processor if self.processor.rate or self.processor.frames else self.reading
        limits = [self.processor.max_frames] if self.processor.max_frames is not None else []
        if decides.rate is None and numbers:
            return Preparation(frames=min(numbers + limits))
        limits += numbers
        return Preparation(fps=decides.rate, most_frames=min(limits) if limits else None)


def _one(values: dict[str, Any]) -> Any:
    """Return the one value that was sent, by any name. Raises ValueError for two that differ."""
    sent = [(place, value) for place, value in values.items() if value is not None]
    for place, value in sent[1:]:
        if value != sent[0][1]:
            raise ValueError(f"{sent[0][0]} is {sent[0][1]}, but {place} is {value}: send one of them")
    return sent[0][1] if sent else None


__all__ = ["MediaFields", "MediaReading", "PVCOptions", "Preparation", "ProcessorOptions", "VideoReading"]
