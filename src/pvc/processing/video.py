"""PVCVideoProcessor: convert videos to frames, one square picture each, with the times at which they are displayed.

`pvc.media` decodes and samples. torchvision is not needed, and nothing is fetched from the network. Called by
PVCProcessor.

F: frames, S: frame size in pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling
from transformers.processing_utils import VideosKwargs
from transformers.video_processing_utils import VideoProcessorMixin

from pvc import media
from pvc.errors import MismatchError, UsageError
from pvc.processing.data_urls import read_data_url
from pvc.processing.fixed import check_fixed, parse_size
from pvc.processing.metadata import compute_frame_times, list_metadata


class PVCVideosKwargs(VideosKwargs, total=False):  # type: ignore[call-arg]  # a TypedDict
    """Options that transformers' processor does not have.

    Attributes:
        times: seconds at which to take frames.
        timestamps: one list of seconds per video that is passed as an array.
    """

    times: list[float]
    timestamps: list[list[float]]


class PVCVideoProcessor(VideoProcessorMixin, PilBackend):
    """Converts videos (paths, bytes, arrays `(F, H, W, 3)`, lists of pictures, `pvc.media.Video`) to frames.

    Output: `pixel_values_videos` `(sum of frames, 3, S, S)` float32, `video_grid_thw` `(videos, 3)` with rows
    `[frames, 1, 1]`, and `timestamps`, one list of seconds per video.

    Frames are sampled when a file is decoded. Frames of arrays are sampled if there are more than `num_frames`, or if
    `fps` is set. `do_sample_frames=False` takes all frames. Times of an array's frames come from `timestamps` or
    `video_metadata`; without either they are one second apart. `live_frames` is not an option of a call: it is the
    default number of latest frames of a live video that the language model sees (`pvc.engine.live`).
    """

    valid_kwargs = PVCVideosKwargs
    model_input_names = ["pixel_values_videos", "video_grid_thw"]
    size = {"height": 448, "width": 448}
    resample = PILImageResampling.BICUBIC
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    do_sample_frames = True
    num_frames: int | None = 16
    fps: float | None = None
    live_frames: int | None = None

    def __init__(self, **kwargs: Any) -> None:
        VideoProcessorMixin.__init__(self, **kwargs)
        self._set_attributes(**kwargs)

    def preprocess(self, videos: Any, **kwargs: Any) -> BatchFeature:
        """Convert videos to frames.

        Args:
            videos: one video or several, as in `load_videos`.
            kwargs: the options in `valid_kwargs`; by default those of the processor.

        Returns:
            A BatchFeature; see the class.

        Raises:
            UsageError: unknown options, or values that are not supported.
            MismatchError: metadata or times of another number of videos or frames.
            MediaError: a video that is damaged or beyond the limits.
        """
        unknown = sorted(set(kwargs) - set(self.valid_kwargs.__annotations__) - {"return_tensors"})
        if unknown:
            raise UsageError(f"unknown video options: {', '.join(unknown)}")
        unchangeable = [
            name
            for name in (
                "do_resize",
                "do_rescale",
                "rescale_factor",
                "do_normalize",
                "image_mean",
                "image_std",
                "resample",
            )
            if kwargs.get(name) is not None and kwargs[name] != getattr(self, name)
        ]
        if unchangeable:
            raise UsageError(
                f"{', '.join(unchangeable)} cannot be changed from call to call; set it when making the processor"
            )
        check_fixed(kwargs, "video")
        height, width = parse_size(kwargs.pop("size", None) or self.size)
        clips = self.load_videos(videos, size=(height, width), **kwargs)
        pixels = [self._to_pixels(video.frames, height, width) for video in clips]
        data: dict[str, Any] = {
            "pixel_values_videos": np.concatenate(pixels),
            "video_grid_thw": [[len(video.frames), 1, 1] for video in clips],
        }
        batch = BatchFeature(data, tensor_type=kwargs.get("return_tensors"))
        batch["timestamps"] = [list(video.timestamps) for video in clips]
        return batch

    def load_videos(self, videos: Any, size: tuple[int, int] | None = None, **kwargs: Any) -> list[media.Video]:
        """Decode and sample every video.

        Args:
            videos: one video or several, as `preprocess` takes them.
            size: height and width of the frames of files.
            kwargs: options of `preprocess`. `num_frames`, `fps`, `times` and `do_sample_frames=True` of a call apply to
                every video; without them a `pvc.media.Video` is used unchanged.

        Raises:
            UsageError: options that exclude each other, or times for a video that already has times.
            MismatchError: metadata or times of another number of videos or frames.
        """
        items = [read_data_url(item) for item in self.flatten_videos(videos)]
        if not items:
            raise UsageError("no videos to process")
        timestamps = kwargs.get("timestamps")
        if timestamps is not None and len(timestamps) != len(items):
            raise MismatchError(f"timestamps are given for {len(timestamps)} videos, but there are {len(items)} videos")
        entries = list_metadata(kwargs.get("video_metadata"), len(items))
        if timestamps is not None:
            entries = [
                entry if times is None else {"timestamps": times}
                for entry, times in zip(entries, timestamps, strict=True)
            ]
        requested = [name for name in ("num_frames", "fps", "times") if kwargs.get(name) is not None]
        sample = kwargs.get("do_sample_frames")
        if sample is False and requested:
            raise UsageError(f"do_sample_frames is False, but {' and '.join(requested)} ask for some of the frames")
        is_requested = bool(requested) or sample is True
        sample = self.do_sample_frames if sample is None else sample
        sampling = self._build_sampling(kwargs) if sample else None
        return [
            self._load_video(item, entry, number, sampling, size, is_requested)
            for number, (item, entry) in enumerate(zip(items, entries, strict=True))
        ]

    def _load_video(
        self,
        item: Any,
        entry: dict[str, Any],
        number: int,
        sampling: media.Sampling | None,
        size: tuple[int, int] | None,
        is_requested: bool,
    ) -> media.Video:
        """Load one video.

        `entry` has times of frames in memory. If `is_requested`, a `pvc.media.Video` is sampled too.
        """
        is_file = isinstance(item, (str, bytes, bytearray, memoryview)) or hasattr(item, "__fspath__")
        if entry and (is_file or isinstance(item, media.Video)):
            what = "a file" if is_file else "a pvc.media.Video"
            raise UsageError(f"video {number} is {what}, which has its times; video_metadata is for frames in memory")
        if is_file:
            limit = media.DEFAULT_LIMITS.max_frames
            video = media.load(item, kind="video", sampling=sampling or media.Sampling(frames=limit), size=size)
            assert isinstance(video, media.Video)
            if sampling is None and (video.source_frames or 0) > len(video.timestamps):
                raise UsageError(
                    f"{video.name}: do_sample_frames is False, but it has {video.source_frames} frames; the limit is "
                    f"{limit}, pass num_frames, fps or times"
                )
            return video
        if isinstance(item, media.Video):
            return self.sampled(item, sampling) if sampling is not None and is_requested else item
        video = media.Video.from_frames(item)
        times = compute_frame_times(entry, len(video.frames), number)
        if times is not None:
            video = media.Video.from_frames(video.frames, timestamps=times)
        return video if sampling is None else self.sampled(video, sampling)

    @staticmethod
    def flatten_videos(videos: Any) -> list[Any]:
        """Return one video or several (also nested, one list per sample) as a flat list of videos."""

        def is_frame(item: Any) -> bool:
            return isinstance(item, Image.Image) or getattr(item, "ndim", 0) in (2, 3)

        if not isinstance(videos, (list, tuple)):
            return [videos] if getattr(videos, "ndim", 4) == 4 else list(videos)
        if videos and all(is_frame(item) for item in videos):
            return [list(videos)]
        flat: list[Any] = []
        for item in videos:
            flat += PVCVideoProcessor.flatten_videos(item) if isinstance(item, (list, tuple)) else [item]
        return flat

    def _build_sampling(self, kwargs: dict[str, Any]) -> media.Sampling:
        requested = [name for name in ("num_frames", "fps", "times") if kwargs.get(name) is not None]
        if len(requested) > 1:
            raise UsageError(f"{' and '.join(requested)} exclude each other")
        if kwargs.get("times") is not None:
            return media.Sampling(times=tuple(kwargs["times"]))
        fps = kwargs.get("fps")
        if fps is not None or (kwargs.get("num_frames") is None and self.fps is not None):
            return media.Sampling(fps=fps if fps is not None else self.fps)
        frames = kwargs.get("num_frames")
        return media.Sampling(frames=frames if frames is not None else self.num_frames)

    @staticmethod
    def sampled(video: media.Video, sampling: media.Sampling) -> media.Video:
        """Sample the frames of a loaded video.

        Args:
            video: the video.
            sampling: which frames to take.

        Returns:
            `video` itself if it has no more frames than requested, else a Video with some of its frames.
        """
        if sampling.fps is None and sampling.times is None and (sampling.frames or 0) >= len(video.frames):
            return video
        start = video.timestamps[0]
        relative_times = [time - start for time in video.timestamps]
        duration = None if video.duration is None else max(video.duration - start, relative_times[-1])
        indices, warnings = media.choose(relative_times, duration, sampling, media.DEFAULT_LIMITS)
        times = [video.timestamps[index] for index in indices]
        return media.Video(
            frames=video.frames[indices],
            timestamps=tuple(times),
            duration=video.duration,
            name=video.name,
            format=video.format,
            warnings=(*video.warnings, *warnings),
            source_frames=len(video.timestamps),
        )

    def _to_pixels(self, frames: np.ndarray, height: int, width: int) -> np.ndarray:
        """Convert `(F, H, W, 3)` uint8 to `(F, 3, S, S)` float32, resized by PIL's bicubic filter and normalised."""
        if frames.shape[1:3] != (height, width):
            resized = [Image.fromarray(frame).resize((width, height), int(self.resample)) for frame in frames]
            frames = np.stack([np.asarray(frame) for frame in resized])
        mean = np.asarray(self.image_mean, dtype=np.float32)
        std = np.asarray(self.image_std, dtype=np.float32)
        scaled = frames.astype(np.float32) * np.float32(self.rescale_factor)
        return np.ascontiguousarray(((scaled - mean) / std).transpose(0, 3, 1, 2))


__all__ = ["PVCVideoProcessor"]
