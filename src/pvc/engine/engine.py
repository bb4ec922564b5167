"""Engine: a loaded model and its processor, and the way from a file to visual tokens.

Leaves out conversations (`chat.py`). Called by `pvc.load`, the command line and the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pvc import media
from pvc.checkpoint.loading import load_checkpoint
from pvc.engine.chat import Chat
from pvc.engine.encode import EncodedMedia, encode_picture, encode_video
from pvc.errors import UsageError
from pvc.model.modeling import PVCForConditionalGeneration
from pvc.processing.processor import PVCProcessor


@dataclass(frozen=True)
class MediaOptions:
    """How media are prepared; None means the checkpoint's own setting.

    Attributes:
        frames, fps, times: how a video is sampled (a number of frames, frames per second, or seconds).
        image_steps: steps of a picture.
        max_tiles: most tiles a picture is cut into, its thumbnail not counted.
    """

    frames: int | None = None
    fps: float | None = None
    times: tuple[float, ...] | None = None
    image_steps: int | None = None
    max_tiles: int | None = None

    def __post_init__(self) -> None:
        for name in ("frames", "image_steps", "max_tiles"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")
        given = [name for name in ("frames", "fps", "times") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} exclude each other")

    def sampling(self, default_frames: int) -> media.Sampling:
        if self.times is not None:
            return media.Sampling(times=self.times)
        if self.fps is not None:
            return media.Sampling(fps=self.fps)
        return media.Sampling(frames=self.frames if self.frames is not None else default_frames)


class Engine:
    """A model ready to answer.

    Attributes:
        model: `PVCForConditionalGeneration` in eval mode.
        processor: its `PVCProcessor`.
        directory: where it was loaded from.
    """

    def __init__(self, model: PVCForConditionalGeneration, processor: PVCProcessor, directory: Path | None) -> None:
        self.model = model
        self.processor = processor
        self.directory = directory

    @classmethod
    def load(
        cls,
        directory: str | Path | None = None,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> Engine:
        """Load a checkpoint directory; by default the bundled model, on a GPU in bfloat16 or on the CPU in float32."""
        model, processor = load_checkpoint(directory, device=device, dtype=dtype)
        return cls(model, processor, Path(directory) if directory is not None else None)

    @property
    def name(self) -> str:
        """Name of the checkpoint."""
        return self.directory.name if self.directory is not None else "pvc-nano (bundled)"

    def chat(self, system: str | None = None) -> Chat:
        """A new conversation, with a system message if one is given."""
        return Chat(self, system)

    def open(self, source: Any, options: MediaOptions | None = None) -> media.Picture | media.Video:
        """Read one picture or video (a path, bytes, PIL picture, array, list of pictures) within the limits.

        Videos are sampled as `options` say, also those in memory; a Picture or Video is taken as it is.
        """
        if isinstance(source, (media.Picture, media.Video)):
            return source
        options = options or MediaOptions()
        side = int(dict(self.processor.video_processor.size)["height"])
        sampling = options.sampling(self.processor.video_processor.num_frames)
        opened = media.load(source, sampling=sampling, size=(side, side))
        in_memory = not isinstance(source, (str, bytes, bytearray)) and not hasattr(source, "__fspath__")
        if in_memory and isinstance(opened, media.Video):
            return self.processor.video_processor.sampled(opened, sampling)
        return opened

    def encode(
        self, items: Sequence[media.Picture | media.Video], options: MediaOptions | None = None
    ) -> list[EncodedMedia]:
        """Visual tokens of opened media, each encoded once."""
        options = options or MediaOptions()
        chosen: dict[str, Any] = {}
        if options.image_steps is not None:
            chosen["image_steps"] = options.image_steps
        if options.max_tiles is not None:
            chosen["max_patches"] = options.max_tiles
        encoded = []
        for item in items:
            if isinstance(item, media.Picture):
                encoded.append(encode_picture(self.model, self.processor, item, chosen))
            else:
                encoded.append(encode_video(self.model, self.processor, item))
        return encoded


__all__ = ["Engine", "MediaOptions"]
