"""Fields of a request that say how media are prepared: `pvc`, `media_io_kwargs` and `mm_processor_kwargs`.

vLLM's clients send the last two. They are read as far as `pvc` has a field for the same thing. Called by `schemas.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator, model_validator

from pvc.server.compat import ANY_BOOL, ANY_STRING, EMPTY_OBJECT, FALSE, ONE, OneOf, RequestModel

EVERY_FRAME_FPS = 1e5  # above the rate of any video; stands for num_frames = -1
NO_LIMIT = -1


class PVCOptions(RequestModel):
    """How media are prepared, within the server's limits. By default as the checkpoint says.

    Attributes:
        frames: number of frames of a video; excludes `fps`.
        fps: frames per second of a video.
        image_steps: steps of a picture.
        max_tiles: maximum number of tiles of a picture.
    """

    display_name: ClassVar[str] = "pvc"
    frames: int | None = Field(default=None, ge=1)
    fps: float | None = Field(default=None, gt=0, le=1000)
    image_steps: int | None = Field(default=None, ge=1)
    max_tiles: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _check_one_sampling(self) -> PVCOptions:
        if self.frames is not None and self.fps is not None:
            raise ValueError("frames and fps exclude each other")
        return self


class _VideoSampling(RequestModel):
    """Frame sampling in vLLM's form; -1 is no limit.

    Attributes:
        num_frames: number of frames; together with `fps`, their maximum number.
        fps: frames per second.
    """

    num_frames: int | None = Field(default=None, ge=NO_LIMIT)
    fps: float | None = Field(default=None, ge=NO_LIMIT, le=1000)

    @field_validator("num_frames")
    @classmethod
    def _check_not_zero(cls, value: int | None) -> int | None:
        if value == 0:
            raise ValueError("must be at least 1, or -1 for every frame")
        return value

    @property
    def rate(self) -> float | None:
        """Frames per second, or None if the fields do not give a rate."""
        if self.fps is not None and self.fps > 0:
            return self.fps
        return EVERY_FRAME_FPS if self.num_frames == NO_LIMIT else None

    @property
    def frames(self) -> int | None:
        """Number of frames, or their maximum if there is a rate; None for no limit."""
        return None if self.num_frames == NO_LIMIT else self.num_frames


class VideoIOOptions(_VideoSampling):
    """`media_io_kwargs.video`."""

    display_name: ClassVar[str] = "media_io_kwargs.video"
    backend: Annotated[Any, ANY_STRING] = None
    frame_recovery: Annotated[Any, ANY_BOOL] = None
    video_backend: Annotated[Any, ANY_STRING] = None


class ImageIOOptions(RequestModel):
    """`media_io_kwargs.image`."""

    display_name: ClassVar[str] = "media_io_kwargs.image"
    image_mode: Annotated[Any, OneOf("RGB")] = None


class MediaIOOptions(RequestModel):
    """`media_io_kwargs`, by kind of medium."""

    display_name: ClassVar[str] = "media_io_kwargs"
    audio: Annotated[Any, EMPTY_OBJECT] = None
    image: ImageIOOptions | None = None
    video: VideoIOOptions | None = None


class ProcessorOptions(_VideoSampling):
    """`mm_processor_kwargs`, with the names that the processors of PVC, InternVL and Qwen-VL use.

    Attributes:
        image_steps: steps of a picture.
        max_dynamic_patch: maximum number of tiles of a picture, as InternVL names it.
        max_frames: maximum number of frames of a video.
        max_patches: maximum number of tiles of a picture.
    """

    display_name: ClassVar[str] = "mm_processor_kwargs"
    do_sample_frames: Annotated[Any, ANY_BOOL] = None  # frames are sampled once, when the video is read
    dynamic_image_size: Annotated[Any, OneOf(True)] = None
    image_steps: int | None = Field(default=None, ge=1)
    images_kwargs: Annotated[Any, EMPTY_OBJECT] = None
    max_dynamic_patch: int | None = Field(default=None, ge=1)
    max_frames: int | None = Field(default=None, ge=1)
    max_patches: int | None = Field(default=None, ge=1)
    min_dynamic_patch: Annotated[Any, ONE] = None
    use_audio_in_video: Annotated[Any, FALSE] = None
    videos_kwargs: Annotated[Any, EMPTY_OBJECT] = None


@dataclass(frozen=True)
class Preparation:
    """How media are prepared, from all fields of a request together. None stands for the checkpoint's setting.

    Attributes:
        frames: number of frames of a video.
        fps: frames per second of a video; never together with `frames`.
        max_frames: maximum number of frames of a video, however it is sampled.
        image_steps: steps of a picture.
        max_tiles: maximum number of tiles of a picture.
    """

    frames: int | None = None
    fps: float | None = None
    max_frames: int | None = None
    image_steps: int | None = None
    max_tiles: int | None = None


@dataclass(frozen=True)
class MediaFields:
    """The three fields as a client sent them.

    Attributes:
        pvc: the `pvc` object.
        video_io: the `media_io_kwargs.video` object.
        processor: the `mm_processor_kwargs` object.
    """

    pvc: PVCOptions
    video_io: VideoIOOptions
    processor: ProcessorOptions

    @property
    def frames(self) -> dict[str, int | None]:
        """Numbers of frames by path of the field."""
        return {
            "pvc.frames": self.pvc.frames,
            "media_io_kwargs.video.num_frames": self.video_io.frames,
            "mm_processor_kwargs.num_frames": self.processor.frames,
        }

    @property
    def image_steps(self) -> dict[str, int | None]:
        """Steps of pictures by path of the field."""
        return {"pvc.image_steps": self.pvc.image_steps, "mm_processor_kwargs.image_steps": self.processor.image_steps}

    @property
    def max_tiles(self) -> dict[str, int | None]:
        """Maximum numbers of tiles by path of the field."""
        return {
            "pvc.max_tiles": self.pvc.max_tiles,
            "mm_processor_kwargs.max_patches": self.processor.max_patches,
            "mm_processor_kwargs.max_dynamic_patch": self.processor.max_dynamic_patch,
        }

    def merge(self) -> Preparation:
        """Merge the three fields. Raises ValueError if two of them contradict each other."""
        sampling = self._merge_sampling()
        if self.pvc.frames is not None or self.pvc.fps is not None:
            pvc_sampling = Preparation(self.pvc.frames, self.pvc.fps)
            if sampling not in (Preparation(), pvc_sampling):
                raise ValueError("pvc and vLLM's fields disagree on how a video is sampled: send one of them")
            sampling = pvc_sampling
        steps, tiles = _get_single_value(self.image_steps), _get_single_value(self.max_tiles)
        return replace(sampling, image_steps=steps, max_tiles=tiles)

    def _merge_sampling(self) -> Preparation:
        """Merge vLLM's two stages: the reader takes frames of the file, and the processor takes some of those."""
        counts = [count for count in (self.video_io.frames, self.processor.frames) if count is not None]
        deciding = self.processor if self.processor.rate or self.processor.frames else self.video_io
        limits = [self.processor.max_frames] if self.processor.max_frames is not None else []
        if deciding.rate is None and counts:
            return Preparation(frames=min(counts + limits))
        limits += counts
        return Preparation(fps=deciding.rate, max_frames=min(limits) if limits else None)


def _get_single_value(values: dict[str, Any]) -> Any:
    """Return the value that was sent under any of the names, or None. Raises ValueError for two that differ."""
    sent = [(path, value) for path, value in values.items() if value is not None]
    for path, value in sent[1:]:
        if value != sent[0][1]:
            raise ValueError(f"{sent[0][0]} is {sent[0][1]}, but {path} is {value}: send one of them")
    return sent[0][1] if sent else None


__all__ = ["MediaFields", "MediaIOOptions", "PVCOptions", "Preparation", "ProcessorOptions", "VideoIOOptions"]
