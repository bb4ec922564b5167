"""PVCProcessor: pictures, videos and text (or chat messages) to everything that `PVCForConditionalGeneration` takes.

`apply_chat_template(tokenize=True)` keeps user text apart from control tokens (`chat_tokens.py`); the raw `__call__`
trusts its text, as transformers' processors do.

K tokens per frame and step.
"""

import json
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from PIL import Image
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import MultiModalData, ProcessingKwargs, ProcessorMixin

from pvc.errors import MismatchError, UsageError
from pvc.processing.chat_tokens import ChatTokens, as_conversations, encode_rendered, mark_messages
from pvc.processing.frame_prefix import check_frame_prefix, write_frame_prefix
from pvc.processing.image import PVCImageProcessor, PVCImageProcessorKwargs
from pvc.processing.options import check_chat_text, sort_options
from pvc.processing.padding import TextOptions, pad, truncate
from pvc.processing.plain import PlainEncoder
from pvc.processing.template import Rendering, TemplateEncoder, template_variables
from pvc.processing.video import PVCVideoProcessor, PVCVideosKwargs

IMAGE_OPTIONS = ("image_steps", "min_patches", "max_patches", "crop_to_patches", "use_thumbnail")
_FLAT = ("return_mm_token_type_ids", "return_text_replacement_offsets")


class PVCProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]  # a TypedDict
    """Defaults: left padding, as generation needs it."""

    images_kwargs: PVCImageProcessorKwargs
    videos_kwargs: PVCVideosKwargs
    _defaults = {"text_kwargs": {"padding_side": "left"}}  # the form transformers reads


class PVCProcessor(ProcessorMixin):
    """Image processor, video processor and tokenizer in one.

    Args:
        tokens_per_frame: `K`, visual tokens of one frame and step; must equal the model's.
        frame_prefix: text before a video frame: "timestamp" (`0.5s: `), "index" (`Frame1: `, as InternVL has it),
            "none", or a template such as "[{seconds:.2f}] " with `{index}` (from 1) or `{seconds}`.

    Raises:
        UsageError: another `frame_prefix`, or one that holds a control token.
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
        frame_prefix: str = "timestamp",
        **kwargs: Any,
    ) -> None:
        check_frame_prefix(frame_prefix, tokenizer)
        self.tokens_per_frame = tokens_per_frame
        self.frame_prefix = frame_prefix
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
        """Text of one video: every frame behind its prefix, e.g. `0.5s: <img>...</img>`."""
        return self.video_text(video_inputs["timestamps"][video_idx])

    def video_text(self, timestamps: list[float]) -> str:
        """Text that stands for the frames of one video, shown at `timestamps` (seconds)."""
        return "\n".join(self.frame_text(time, number) for number, time in enumerate(timestamps, 1))

    def frame_text(self, timestamp: float, index: int) -> str:
        """Text that stands for one frame.

        Args:
            timestamp: seconds at which it is shown.
            index: its number in the video, from 1.
        """
        visual = self.video_token * self.tokens_per_frame
        prefix = write_frame_prefix(self.frame_prefix, index, timestamp)
        return f"{prefix}{self.start_image_token}{visual}{self.end_image_token}"

    # The raw call: text with placeholders

    def __call__(
        self,
        images: Any = None,
        text: Any = None,
        videos: Any = None,
        audio: Any = None,
        **kwargs: Unpack[PVCProcessorKwargs],  # type: ignore[misc]  # named as transformers does; vLLM reads the keys
    ) -> Any:
        """Encode text with placeholders, and the images and videos that stand in their place.

        The text is trusted: control tokens in it are control tokens (`apply_chat_template` keeps them apart).

        Args:
            images: one image, a list, or one list per text.
            text: a string or a list of strings.
            videos: one video, a list, or one list per text.
            audio: must be None; there is no audio.
            kwargs: transformers' ProcessingKwargs, flat or by part (`text_kwargs`, `images_kwargs`, `videos_kwargs`).

        Returns:
            A BatchFeature with one row per text.

        Raises:
            UsageError: unknown options, or values that cannot be honoured.
            MismatchError: placeholders and media differ in number, or truncation would cut through media.
        """
        options = sort_options({"audio": audio, **kwargs})
        if options["text_kwargs"].pop("sanitize_control_tokens", None):
            raise UsageError("sanitize_control_tokens is True; apply_chat_template does this, this call cannot")
        # transformers wants this one outside of text_kwargs.
        known = {key: options["text_kwargs"].pop(key) for key in _FLAT if key in options["text_kwargs"]}
        known |= {part: values for part, values in options.items() if values}
        return super().__call__(images, text, videos, **known)

    def _check_special_mm_tokens(self, text: list[str], text_inputs: Any, modalities: list[str]) -> None:
        """Refuse a truncation that removed ids of pictures or videos, or marks around them."""
        rows = [row.tolist() if hasattr(row, "tolist") else row for row in text_inputs["input_ids"]]
        names = (self.image_token, self.video_token, self.start_image_token, self.end_image_token)
        for name in names:
            token = self.tokenizer.convert_tokens_to_ids(name)
            wanted, found = [sample.count(name) for sample in text], [row.count(token) for row in rows]
            if wanted != found:
                raise MismatchError(
                    f"truncation would cut off ids of pictures or videos: {sum(wanted)} of {name} in the text, "
                    f"{sum(found)} in the ids; raise max_length, or use fewer steps, tiles or frames"
                )

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

    def apply_chat_template(
        self,
        conversation: Any,
        chat_template: str | None = None,
        tools: list[Any] | None = None,
        documents: list[Any] | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        return_assistant_tokens_mask: bool = False,
        tokenize: bool = False,
        return_tensors: Any = "auto",
        return_dict: bool = True,
        load_audio_from_video: bool = False,
        processor_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Turn a conversation into text (`tokenize=False`, transformers' way) or, safely, into model inputs.

        Args:
            conversation: messages, or a list of conversations; dictionaries, dataclasses or pydantic models.
            chat_template: source or name of a template; by default the processor's.
            tools, documents: for templates that have a place for them.
            add_generation_prompt: end with the head of an assistant's turn.
            continue_final_message: leave the last message open, so that generation continues it; a string names the
                key of the message that is continued.
            return_assistant_tokens_mask: add `assistant_masks`, 1 where an assistant's answer or its end is.
            tokenize: return model inputs, not text.
            return_tensors: "pt" (default), "np", or None for lists.
            return_dict: False returns the `input_ids` alone.
            load_audio_from_video: must be false; there is no audio.
            processor_kwargs: options of the tokenizer (padding on the left to the longest by default), the image
                processor and the video processor, flat or by part (`text_kwargs`, `images_kwargs`, `videos_kwargs`).
            kwargs: the same, and variables of the template.

        Returns:
            A string or list of strings; or a BatchFeature with one row per conversation.

        Raises:
            UsageError: malformed messages, unknown options, or values that cannot be honoured.
            MismatchError: a template that drops texts or media, or truncation that would cut through media.
        """
        source = self._template_source(chat_template)
        given = {"tools": tools, "documents": documents, "load_audio_from_video": load_audio_from_video, **kwargs}
        options = sort_options(given, processor_kwargs, template_variables(source))
        if add_generation_prompt and continue_final_message:
            raise UsageError("add_generation_prompt and continue_final_message exclude each other")
        ending = bool(add_generation_prompt), continue_final_message or False
        rendering = Rendering(source, options["template"], *ending)
        if not tokenize:
            return super().apply_chat_template(conversation, tokenize=False, **rendering.for_transformers())
        tensors = options["text_kwargs"].get("return_tensors", return_tensors)
        batch = self._encode_batch(conversation, rendering, options, tensors, bool(return_assistant_tokens_mask))
        return batch if return_dict else batch["input_ids"]

    def _encode_batch(
        self, conversation: Any, rendering: Rendering, options: dict[str, Any], return_tensors: Any, mask: bool
    ) -> BatchFeature:
        """Model inputs of one or several conversations; see `apply_chat_template`."""
        check_chat_text(options["text_kwargs"], bool(self.tokenizer("")["input_ids"]))
        conversations = as_conversations(conversation)
        marked = [mark_messages(messages, rendering.template) for messages in conversations]
        images = [image for chat in marked for image in chat.images]
        videos = [video for chat in marked for video in chat.videos]
        media = self._process_media(images, videos, options)
        tokens = self._encode(marked, media, rendering, mask)
        data = self._pad_batch(tokens, options["text_kwargs"], return_tensors)
        if not mask:
            data.pop("assistant_masks")
        data.update({key: value for key, value in media.items() if key not in self.unused_input_names})
        return BatchFeature(data, tensor_type="pt" if return_tensors == "auto" else return_tensors)

    def _template_source(self, chat_template: str | None) -> str:
        """Source of a template by its name, of one that is passed as it is, or of the processor's."""
        templates = self.chat_template
        if isinstance(templates, dict):
            if chat_template is None and "default" not in templates:
                raise UsageError(f"name the chat_template to use; there are {', '.join(sorted(templates))}")
            return str(templates.get(chat_template or "default", chat_template))
        if chat_template is None and templates is None:
            raise UsageError("the processor has no chat template; pass chat_template")
        return templates if chat_template is None else chat_template

    def _pad_batch(self, tokens: list[ChatTokens], kwargs: dict[str, Any], return_tensors: Any) -> dict[str, Any]:
        """Truncate and pad, and add or leave out what the options of texts name."""
        options = TextOptions.from_kwargs(kwargs, self.tokenizer)
        tokens = [truncate(chat, options, self._visual_ids) for chat in tokens]
        data: dict[str, Any] = pad(tokens, options, self.tokenizer.pad_token_id or 0)
        lengths = {len(row) for row in data["input_ids"]}
        if return_tensors is not None and len(lengths) > 1:
            raise UsageError(
                f"conversations have {min(lengths)} to {max(lengths)} ids and padding is {options.padding!r}; "
                "pass padding=True, or return_tensors=None for lists"
            )
        if kwargs.get("return_attention_mask") is False:
            data.pop("attention_mask")
        if kwargs.get("return_token_type_ids"):
            data["token_type_ids"] = [[0] * len(row) for row in data["input_ids"]]
        if kwargs.get("return_length"):
            data["length"] = [len(row) for row in data["input_ids"]]
        if kwargs.get("return_mm_token_type_ids"):
            data["mm_token_type_ids"] = self.create_mm_token_type_ids(data["input_ids"])
        return data

    @property
    def _visual_ids(self) -> set[int]:
        """Ids that stand for pictures and videos, the marks around them included."""
        marks = self.tokenizer.convert_tokens_to_ids([self.start_image_token, self.end_image_token])
        return {self.image_token_id, self.video_token_id, *marks}

    def process_media(self, images: list[Any], videos: list[Any], **options: Any) -> dict[str, Any]:
        """Tensors of all images and videos, with the grids, steps and timestamps that placeholders are made from."""
        return self._process_media(images, videos, sort_options(options))

    def _process_media(self, images: list[Any], videos: list[Any], options: dict[str, Any]) -> dict[str, Any]:
        media: dict[str, Any] = {}
        if images:
            media.update(self.image_processor(images, **{**options["images_kwargs"], "return_tensors": "pt"}))
        if videos:
            media.update(self.video_processor(videos, **{**options["videos_kwargs"], "return_tensors": "pt"}))
        return media

    def encode_chat(
        self, messages: Any, media: dict[str, Any], add_generation_prompt: bool = True, chat_template: str | None = None
    ) -> ChatTokens:
        """Ids of one conversation whose media were processed before (`media`: grids, steps and timestamps)."""
        source = self._template_source(chat_template)
        marked = mark_messages(messages, source)
        return self._encode([marked], media, Rendering(source, {}, add_generation_prompt, False), False)[0]

    def _encode(self, marked: list[Any], media: dict[str, Any], rendering: Rendering, mask: bool) -> list[ChatTokens]:
        for kind, given, wanted in (
            ("image", len(media.get("image_grid_thw", ())), sum(len(chat.images) for chat in marked)),
            ("video", len(media.get("timestamps", ())), sum(len(chat.videos) for chat in marked)),
        ):
            if given != wanted:
                raise MismatchError(f"the messages have {wanted} {kind}s, but {given} were processed")
        pieces = TemplateEncoder(self, media)
        tokens = []
        for chat in marked:
            self._refuse_placeholders(chat.texts)
            rendered, generated = rendering.render(chat, self.plain, self.tokenizer.special_tokens_map, mask)
            for kind, token, items in (
                ("image", self.image_token, chat.images),
                ("video", self.video_token, chat.videos),
            ):
                if rendered.count(token) != len(items):
                    raise MismatchError(
                        f"the chat template placed {rendered.count(token)} {kind}s, but the messages have {len(items)}"
                    )
            tokens.append(encode_rendered(rendered, chat, pieces, self.plain, self.tokenizer.eos_token_id, generated))
        return tokens

    def _refuse_placeholders(self, texts: list[str | list[int]]) -> None:
        for ids in texts:
            if isinstance(ids, list) and {self.image_token_id, self.video_token_id}.intersection(ids):
                raise UsageError("a part of type 'tokens' must not hold placeholder ids")


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
