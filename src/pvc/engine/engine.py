"""Engine: a loaded model and its processor, and the way from a file to visual tokens.

Leaves out conversations (`chat.py`). Called by `pvc.load`, the command line and the server.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from pvc import media
from pvc.checkpoint.loading import load_checkpoint
from pvc.checkpoint.state_file import StateFile, is_state_path
from pvc.engine.adaptive import AUTO, StepHead, load_head
from pvc.engine.budget import Plan, plan_budget
from pvc.engine.chat import Chat, listed
from pvc.engine.encode import (
    EncodedMedia,
    OnChunk,
    PreparedPicture,
    encode_picture,
    encode_video,
    prepare_picture,
)
from pvc.engine.live import LiveSession
from pvc.engine.memory_model import Rates, measure
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


@dataclass(frozen=True)
class MediaOptions:
    """How media are prepared; None means the checkpoint's own setting.

    Attributes:
        frames, fps, times: how a video is sampled (a number of frames, frames per second, or seconds).
        image_steps: steps of a picture; "auto" lets its first step decide, by the checkpoint's own head.
        max_tiles: most tiles a picture is cut into, its thumbnail not counted.
        max_frames: most frames of a video, whichever way it is sampled: of more, so many are kept, evenly in time.
    """

    frames: int | None = None
    fps: float | None = None
    times: tuple[float, ...] | None = None
    image_steps: int | Literal["auto"] | None = None
    max_tiles: int | None = None
    max_frames: int | None = None

    def __post_init__(self) -> None:
        for name in ("frames", "image_steps", "max_tiles", "max_frames"):
            value = getattr(self, name)
            if name == "image_steps" and value == AUTO:
                continue
            if isinstance(value, str):
                raise UsageError(f"{name} must be a number{' or auto' * (name == 'image_steps')}, not {value!r}")
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")
        given = [name for name in ("frames", "fps", "times") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} exclude each other")

    @property
    def image_options(self) -> dict[str, Any]:
        """Those that are the image processor's, under its names."""
        named = {"image_steps": None if self.adaptive else self.image_steps, "max_patches": self.max_tiles}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def adaptive(self) -> bool:
        """Whether pictures decide their steps themselves."""
        return self.image_steps == AUTO

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
        """Load a checkpoint directory.

        Args:
            directory: by default the bundled model.
            device: by default the GPU if there is one, else the CPU.
            dtype: "float32", "bfloat16", "float16" or torch's own; by default "auto". On a GPU that is bfloat16. On a
                CPU it is float32, or bfloat16 for a large bfloat16 checkpoint where the CPU has instructions for it.

        Returns:
            The engine; its `model.dtype` is the precision that was chosen.

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

    def chat(self, system: str | None = None) -> Chat:
        """A new conversation, with a system message if one is given."""
        return Chat(self, system)

    def stream(self, **options: Any) -> LiveSession:
        """Return a new live video; `options` are those of `LiveSession`: window, keep, bounded, total_steps."""
        return LiveSession(self, **options)

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
                encoded.append(encode_picture(self.model, self.processor, item, chosen, self.head_of(own), on_chunk))
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

    @cached_property
    def step_head(self) -> StepHead:
        """What chooses steps for `image_steps="auto"`; raises UsageError where the checkpoint has none."""
        made_for = fingerprint(self.model, rounded=True)
        return load_head(self.directory, made_for, self.model.config.text_config.hidden_size)

    def head_of(self, options: MediaOptions) -> StepHead | None:
        """`step_head` where `options` leave the steps to it."""
        return self.step_head if options.adaptive else None

    # Budgets

    @cached_property
    def rates(self) -> Rates:
        """How fast this machine runs single layers of this model, measured once; see `costs.measure`."""
        return measure(self.model, self.processor)

    def plan(
        self,
        sources: Any,
        *,
        budget: int | None = None,
        memory: int | None = None,
        options: MediaOptions | None = None,
    ) -> Plan:
        """What to take of media, from their headers alone, so that they fit; and what encoding them will cost.

        Args:
            sources: one medium or several, as `open` takes them.
            budget: most visual tokens of all of them together; None: no limit.
            memory: most bytes at the peak of `encode`, in the memory of the model's device; the weights, the opened
                media and the language model are not counted. None: no limit.
            options: what would be taken without a limit; nothing gets more than this.

        Returns:
            A `Plan`. Open and encode with its `options`, or give them to a conversation as `media_options`.

        Raises:
            UsageError: not even one frame of every video and one tile and step of every picture fits.
            MediaError, ForbiddenError: a file that would be refused.
        """
        return plan_budget(self, listed(sources), options or MediaOptions(), budget, memory)

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


def _digest_of(source: Any) -> str | None:
    """SHA-256 of a file's bytes; None for values in memory."""
    if isinstance(source, (bytes, bytearray)):
        return hashlib.sha256(source).hexdigest()
    return file_digest(source) if isinstance(source, str) or hasattr(source, "__fspath__") else None


__all__ = ["Engine", "MediaOptions"]
