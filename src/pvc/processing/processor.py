"""PVCProcessor: pictures, videos and text (or chat messages) to everything that `PVCForConditionalGeneration` takes.

`apply_chat_template(tokenize=True)` keeps user text apart from control tokens (`chat.py`); the raw `__call__`
trusts its text, as transformers' processors do.

K tokens per frame and step.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import MultiModalData, ProcessingKwargs, ProcessorMixin

from pvc.errors import MismatchError, UsageError
from pvc.processing.chat import ChatTokens, PlainEncoder, encode_rendered, mark_messages
from pvc.processing.image import PVCImageProcessor
from pvc.processing.video import PVCVideoProcessor

IMAGE_OPTIONS = ("image_steps", "min_patches", "max_patches", "crop_to_patches")
VIDEO_OPTIONS = ("num_frames", "fps", "times", "do_sample_frames", "timestamps", "video_metadata")


class PVCProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]  # a TypedDict
    """Defaults: left padding, as generation needs it."""

    _defaults = {"text_kwargs": {"padding_side": "left"}}  # the form transformers reads


class PVCProcessor(ProcessorMixin):
    """Image processor, video processor and tokenizer in one.

    Args:
        tokens_per_frame: `K`, visual tokens of one frame and step; must equal the model's.
    """

    valid_processor_kwargs = PVCProcessorKwargs
    unused_input_names = ["num_patches", "timestamps"]

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        video_processor: Any = None,
        tokens_per_frame: int = 64,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.tokens_per_frame = tokens_per_frame
        self.start_image_token = tokenizer.start_image_token
        self.end_image_token = tokenizer.end_image_token
        self.image_token = tokenizer.context_image_token
        self.video_token = tokenizer.video_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        super().__init__(image_processor, tokenizer, video_processor, chat_template=chat_template, **kwargs)

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        """transformers looks video processors up through torchvision; ours needs none."""
        own = {"image_processor": PVCImageProcessor, "video_processor": PVCVideoProcessor}
        if argument_name not in own:
            return super().check_argument_for_proper_class(argument_name, argument)
        if not isinstance(argument, own[argument_name]):
            raise TypeError(f"{argument_name} must be a {own[argument_name].__name__}, not {type(argument).__name__}")
        return own[argument_name]

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> Any:
        """As transformers does it, and where vLLM looks for whose videos these are (`pvc.integrations.vllm`)."""
        written = super().save_pretrained(save_directory, **kwargs)
        # The settings are in processor_config.json, which goes before; this file only has the name.
        named = {"video_processor_type": type(self.video_processor).__name__}
        Path(save_directory, "video_preprocessor_config.json").write_text(json.dumps(named) + "\n", encoding="utf-8")
        return written

    @property
    def model_input_names(self) -> list[str]:
        names = [*self.tokenizer.model_input_names, *self.image_processor.model_input_names]
        return [*names, *self.video_processor.model_input_names]

    # What a placeholder stands for

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """Text of one image: start, `tiles * steps * K` placeholders, end."""
        tiles = [int(row[0]) for row in image_inputs["image_grid_thw"]]
        steps = int(image_inputs["image_steps"][sum(tiles[:image_idx])])
        count = tiles[image_idx] * steps * self.tokens_per_frame
        return f"{self.start_image_token}{self.image_token * count}{self.end_image_token}"

    def replace_video_token(self, video_inputs: dict[str, Any], video_idx: int, **kwargs: Any) -> str:
        """Text of one video: every frame announced with its time in seconds, e.g. `0.5s: <img>...</img>`."""
        return self.video_text(video_inputs["timestamps"][video_idx])

    def video_text(self, timestamps: list[float]) -> str:
        """Text that stands for frames shown at `timestamps` (seconds)."""
        return "\n".join(self.frame_text(time) for time in timestamps)

    def frame_text(self, timestamp: float) -> str:
        """Text that stands for one frame shown at `timestamp` (seconds)."""
        visual = self.video_token * self.tokens_per_frame
        return f"{timestamp:.1f}s: {self.start_image_token}{visual}{self.end_image_token}"

    # The raw call: text with placeholders

    def validate_inputs(self, images: Any = None, text: Any = None, videos: Any = None, **kwargs: Any) -> None:
        """Raise MismatchError when placeholders in the text and media passed differ in number."""
        if text is None:
            if images is None and videos is None:
                raise UsageError("nothing to process: pass text, images or videos")
            return
        samples = [text] if isinstance(text, str) else text
        for kind, token, items in (
            ("image", self.image_token, 0 if images is None else len(_flat_images(images))),
            ("video", self.video_token, 0 if videos is None else len(self.video_processor.listed(videos))),
        ):
            found = sum(sample.count(token) for sample in samples)
            if kind == "image" and _is_nested(images) and len(images) == len(samples):
                for number, (sample, own) in enumerate(zip(samples, images, strict=True)):
                    if sample.count(token) != len(own):
                        raise MismatchError(
                            f"text {number} has {sample.count(token)} image placeholders, but {len(own)} images"
                        )
            if found != items:
                raise MismatchError(f"the text has {found} {kind} placeholders, but {items} {kind}s were passed")

    def _process_videos(self, videos: Any, **kwargs: Any) -> tuple[Any, list[str]]:
        processed = self.video_processor(videos, **kwargs)
        return processed, [self.replace_video_token(processed, index) for index in range(len(processed["timestamps"]))]

    def _get_num_multimodal_tokens(
        self, image_sizes: Any = None, video_sizes: Any = None, **kwargs: Any
    ) -> MultiModalData:
        """Tokens, start and end included, for media of the given sizes (vLLM plans with it).

        `image_sizes`: (height, width) pairs; `video_sizes`: (frames, height, width) triples.
        """
        data: dict[str, Any] = {}
        if image_sizes is not None:
            options = {key: kwargs[key] for key in IMAGE_OPTIONS if key in kwargs}
            steps = options.get("image_steps", self.image_processor.image_steps)
            tiles = [
                self.image_processor.get_number_of_image_patches(height, width, options)
                for height, width in image_sizes
            ]
            data["num_image_tokens"] = [2 + count * steps * self.tokens_per_frame for count in tiles]
            data["num_image_patches"] = tiles
        if video_sizes is not None:
            data["num_video_tokens"] = [self.tokens_per_frame * int(size[0]) for size in video_sizes]
        return MultiModalData(**data)

    # Chat messages

    @property
    def plain(self) -> PlainEncoder:
        """Encoder of user text, made anew when the tokenizer has grown: a new token must not be matched either."""
        known = self.__dict__.get("_plain")
        if known is None or known[0] != len(self.tokenizer):
            known = self.__dict__["_plain"] = (len(self.tokenizer), PlainEncoder(self.tokenizer))
        return known[1]

    def to_dict(self) -> dict[str, Any]:
        kept = self.__dict__.pop("_plain", None)
        try:
            return super().to_dict()
        finally:
            if kept is not None:
                self.__dict__["_plain"] = kept

    def apply_chat_template(self, conversation: Any, *args: Any, tokenize: bool = False, **kwargs: Any) -> Any:
        """Conversation to text (`tokenize=False`, transformers' own way) or, safely, to model inputs.

        With `tokenize=True`: `return_dict`, `return_tensors`, `add_generation_prompt`, `return_assistant_tokens_mask`,
        `processor_kwargs` and the options of the image and video processors are understood. A list of conversations
        is padded on the left. Raises UsageError for malformed messages, MismatchError for a template that drops some.
        """
        if not tokenize:
            return super().apply_chat_template(conversation, *args, tokenize=False, **kwargs)
        options = {**kwargs.pop("processor_kwargs", {}), **kwargs}
        batched = bool(conversation) and isinstance(conversation[0], (list, tuple))
        conversations = conversation if batched else [conversation]
        tensors = options.pop("return_tensors", "pt")
        as_dict, mask = options.pop("return_dict", True), options.pop("return_assistant_tokens_mask", False)
        prompt = options.pop("add_generation_prompt", False)
        template = options.pop("chat_template", args[0] if args else None)
        known = {key: options.pop(key) for key in (*IMAGE_OPTIONS, *VIDEO_OPTIONS) if key in options}
        options.pop("padding", None)
        if options:
            raise UsageError(f"unknown options for apply_chat_template: {', '.join(sorted(options))}")
        marked = [mark_messages(messages) for messages in conversations]
        media = self.process_media(
            [image for chat in marked for image in chat.images],
            [video for chat in marked for video in chat.videos],
            **known,
        )
        tokens = self._encode(marked, media, template, prompt)
        data = self.pad(tokens, mask=mask)
        data.update({key: value for key, value in media.items() if key not in self.unused_input_names})
        batch = BatchFeature(data, tensor_type=tensors)
        return batch if as_dict else batch["input_ids"]

    def process_media(self, images: list[Any], videos: list[Any], **options: Any) -> dict[str, Any]:
        """Tensors of all images and videos, with the grids, steps and timestamps that placeholders are made from."""
        media: dict[str, Any] = {}
        if images:
            chosen = {key: options[key] for key in IMAGE_OPTIONS if options.get(key) is not None}
            media.update(self.image_processor(images, return_tensors="pt", **chosen))
        if videos:
            chosen = {key: options[key] for key in VIDEO_OPTIONS if options.get(key) is not None}
            media.update(self.video_processor(videos, return_tensors="pt", **chosen))
        return media

    def encode_chat(
        self, messages: Any, media: dict[str, Any], add_generation_prompt: bool = True, chat_template: str | None = None
    ) -> ChatTokens:
        """Ids of one conversation whose media were processed before (`media`: grids, steps and timestamps)."""
        return self._encode([mark_messages(messages)], media, chat_template, add_generation_prompt)[0]

    def _encode(self, marked: list[Any], media: dict[str, Any], template: str | None, prompt: bool) -> list[ChatTokens]:
        images = iter(range(len(media.get("image_grid_thw", ()))))
        videos = iter(range(len(media.get("timestamps", ()))))

        def tokenize(text: str) -> list[int]:
            # A placeholder in what the template wrote stands for the next image or video of its kind.
            text = _replace(text, self.image_token, lambda: self.replace_image_token(media, next(images)))
            text = _replace(text, self.video_token, lambda: self.replace_video_token(media, next(videos)))
            return self.tokenizer(text, add_special_tokens=False)["input_ids"]

        tokens = []
        for kind, given, wanted in (
            ("image", len(media.get("image_grid_thw", ())), sum(len(chat.images) for chat in marked)),
            ("video", len(media.get("timestamps", ())), sum(len(chat.videos) for chat in marked)),
        ):
            if given != wanted:
                raise MismatchError(f"the messages have {wanted} {kind}s, but {given} were processed")
        for chat in marked:
            self._refuse_placeholders(chat.texts)
            rendered = super().apply_chat_template(
                chat.messages, chat_template=template, tokenize=False, add_generation_prompt=prompt
            )
            for kind, token, items in (
                ("image", self.image_token, chat.images),
                ("video", self.video_token, chat.videos),
            ):
                if rendered.count(token) != len(items):
                    raise MismatchError(
                        f"the chat template placed {rendered.count(token)} {kind}s, but the messages have {len(items)}"
                    )
            tokens.append(encode_rendered(rendered, chat, tokenize, self.plain, self.tokenizer.eos_token_id))
        return tokens

    def _refuse_placeholders(self, texts: list[str | list[int]]) -> None:
        for ids in texts:
            if isinstance(ids, list) and {self.image_token_id, self.video_token_id}.intersection(ids):
                raise UsageError("a part of type 'tokens' must not hold placeholder ids")

    def pad(self, tokens: list[ChatTokens], mask: bool = False) -> dict[str, list[list[int]]]:
        """Ids and attention masks of several conversations, padded on the left to the longest."""
        longest = max(len(chat.ids) for chat in tokens)
        gaps = [longest - len(chat.ids) for chat in tokens]
        pad_id = self.tokenizer.pad_token_id or 0
        data = {
            "input_ids": [[pad_id] * gap + chat.ids for gap, chat in zip(gaps, tokens, strict=True)],
            "attention_mask": [[0] * gap + [1] * len(chat.ids) for gap, chat in zip(gaps, tokens, strict=True)],
        }
        if mask:
            data["assistant_masks"] = [[0] * gap + chat.assistant for gap, chat in zip(gaps, tokens, strict=True)]
        return data


def _replace(text: str, token: str, replacement: Any) -> str:
    pieces = text.split(token)
    return pieces[0] + "".join(replacement() + piece for piece in pieces[1:])


def _is_nested(images: Any) -> bool:
    return isinstance(images, (list, tuple)) and bool(images) and all(isinstance(own, (list, tuple)) for own in images)


def _flat_images(images: Any) -> list[Any]:
    if isinstance(images, (list, tuple)):
        return [image for item in images for image in _flat_images(item)]
    if isinstance(images, np.ndarray) and images.ndim == 4:
        return list(images)
    assert images is None or isinstance(images, (Image.Image, np.ndarray, str, bytes)) or hasattr(images, "shape")
    return [] if images is None else [images]


__all__ = ["PVCProcessor"]
