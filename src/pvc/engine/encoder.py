"""Encoder: a loaded model and its processor, from files to visual tokens and visual states.

The bottom of the engine: conversations (`chat.py`), live sessions (`live.py`), batches (`batch.py`) and budgets
(`budget.py`) are built on it. Leaves out answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image

from pvc import media
from pvc.checkpoint.loading import load_checkpoint
from pvc.checkpoint.state_file import StateFile, is_state_path
from pvc.engine.encode import (
    EncodedMedia,
    OnChunk,
    PreparedPicture,
    encode_picture,
    encode_video,
    prepare_picture,
)
from pvc.engine.options import MediaOptions
from pvc.engine.visual_state import (
    VisualState,
    check_state,
    continue_state,
    encode_state,
    file_digest,
    fingerprint,
    load_state,
)
from pvc.errors import MismatchError, UsageError
from pvc.model.modeling import PVCForConditionalGeneration
from pvc.processing.processor import PVCProcessor


class Encoder:
    """A loaded model and its processor: from a file to visual tokens and visual states.

    Attributes:
        model: `PVCForConditionalGeneration` in eval mode.
        processor: its `PVCProcessor`.
        directory: from which it was loaded; None for the bundled model.
    """

    def __init__(self, model: PVCForConditionalGeneration, processor: PVCProcessor, directory: Path | None) -> None:
        self.model = model
        self.processor = processor
        self.directory = directory

    def __repr__(self) -> str:
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        dtype = str(self.model.dtype).removeprefix("torch.")
        return (
            f"<{type(self).__name__} {self.name}: {parameters / 1e6:,.1f} M parameters, {dtype}, {self.model.device}>"
        )

    @classmethod
    def load(
        cls,
        directory: str | Path | None = None,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> Self:
        """Load a checkpoint directory.

        Args:
            directory: by default the bundled model.
            device: by default the GPU if there is one, else the CPU.
            dtype: "float32", "bfloat16", "float16" or torch's own; by default "auto". On a GPU that is bfloat16. On a
                CPU it is float32, or bfloat16 for a large bfloat16 checkpoint where the CPU has instructions for it.

        Returns:
            The engine. Its `model.dtype` is the precision that was chosen.

        Raises:
            CheckpointError: something is missing, left over, misshapen or does not fit together; no such dtype.
            UsageError: a device that does not exist here.
        """
        model, processor = load_checkpoint(directory, device=device, dtype=dtype)
        return cls(model, processor, Path(directory) if directory is not None else None)

    @property
    def name(self) -> str:
        """Name of the checkpoint."""
        return self.directory.name if self.directory is not None else "pvc-nano (bundled)"

    def open(self, source: Any, options: MediaOptions | None = None) -> media.Picture | media.Video | VisualState:
        """Read one picture or video (a path, bytes, PIL picture, array, list of pictures) within the limits.

        Videos are sampled as `options` say, also those in memory; a Picture or Video is taken as it is (but for
        `max_frames`), and so is a visual state; a path that ends in .pvc is one.
        """
        options = options or MediaOptions()
        if isinstance(source, VisualState):
            check_state(self, source)
            return source
        if isinstance(source, StateFile) or is_state_path(source):
            return load_state(self, source)
        if isinstance(source, (media.Picture, media.Video)):
            return self._within(source, options.max_frames)
        side = int(dict(self.processor.video_processor.size)["height"])
        sampling = options.sampling(self.processor.video_processor.num_frames)
        opened = media.load(source, sampling=sampling, size=(side, side))
        in_memory = not isinstance(source, (str, bytes, bytearray)) and not hasattr(source, "__fspath__")
        if in_memory and isinstance(opened, media.Video):
            opened = self.processor.video_processor.sampled(opened, sampling)
        return self._within(opened, options.max_frames)

    def _within(self, opened: media.Picture | media.Video, frames: int | None) -> media.Picture | media.Video:
        if frames is None or isinstance(opened, media.Picture) or len(opened.timestamps) <= frames:
            return opened
        return self.processor.video_processor.sampled(opened, media.Sampling(frames=frames))

    def prepare(self, picture: media.Picture, options: MediaOptions | None = None) -> PreparedPicture:
        """A picture cut into tiles, for `encode`; needs no model, and may run in any thread."""
        return prepare_picture(self.processor, picture, (options or MediaOptions()).image_options)

    def encode(
        self,
        items: Sequence[media.Picture | PreparedPicture | media.Video | VisualState],
        options: MediaOptions | Sequence[MediaOptions] | None = None,
        on_chunk: OnChunk | None = None,
    ) -> list[EncodedMedia]:
        """Visual tokens of opened media, each encoded once; those of a visual state are there already.

        `options` are for all of them, or one for each. `on_chunk` is called after every chunk of frames or tiles, for
        progress or for other work; what it raises ends the encoding.
        """
        encoded = []
        for item, own in zip(items, self.resolve_options(options, len(items)), strict=True):
            chosen = own.image_options
            if isinstance(item, VisualState):
                encoded.append(item.media)
            elif isinstance(item, (media.Picture, PreparedPicture)):
                encoded.append(encode_picture(self.model, self.processor, item, chosen, on_chunk))
            else:
                encoded.append(encode_video(self.model, self.processor, item, on_chunk))
        return encoded

    @staticmethod
    def resolve_options(options: MediaOptions | Sequence[MediaOptions] | None, count: int) -> list[MediaOptions]:
        """Options of `count` media, from one for all of them or one for each; raises MismatchError."""
        if options is None or isinstance(options, MediaOptions):
            return [options or MediaOptions()] * count
        if len(options) != count:
            raise MismatchError(f"there are options for {len(options)} media, but {count} media")
        return list(options)

    # Visual states: encoded once, kept, continued

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what visual tokens come from (tower, compressor, their configuration), computed once."""
        return fingerprint(self.model)

    def encode_state(self, source: Any, options: MediaOptions | None = None) -> VisualState:
        """Encode one picture or video to a `VisualState`, which can be saved, asked about and continued."""
        opened = self.open(source, options)
        if isinstance(opened, VisualState):
            return opened
        return encode_state(self, opened, options or MediaOptions(), _digest_of(source))

    def continue_state(self, state: VisualState, source: Any, options: MediaOptions | None = None) -> VisualState:
        """`state` with the frames of another video after its own; they must be shown later than the ones it has.

        Raises as `pvc.engine.visual_state.continue_state` does.
        """
        opened = self.open(source, options)
        if not isinstance(opened, media.Video):
            raise UsageError(f"{state.name} is continued with the frames of a video, not with an {opened.kind}")
        return continue_state(self, state, opened, _digest_of(source))

    def load_state(self, path: str | Path) -> VisualState:
        """Read a visual state from a file; refused where it is of another checkpoint or other settings."""
        return load_state(self, path)


def as_list(sources: Any) -> list[Any]:
    """Return one medium, or several, as a list."""
    values = (media.Picture, media.Video, VisualState, StateFile)
    single = isinstance(sources, (str, bytes, bytearray, Image.Image, *values))
    if single or hasattr(sources, "__fspath__") or hasattr(sources, "__array__"):
        return [sources]
    return list(sources)


def _digest_of(source: Any) -> str | None:
    """SHA-256 of a file's bytes; None for values in memory."""
    if isinstance(source, (bytes, bytearray)):
        return hashlib.sha256(source).hexdigest()
    return file_digest(source) if isinstance(source, str) or hasattr(source, "__fspath__") else None


__all__ = ["Encoder", "as_list"]
