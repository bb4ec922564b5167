"""PVCProcessor: convert pictures, videos and text or chat messages to the inputs of `PVCForConditionalGeneration`.

`apply_chat_template(tokenize=True)` separates user text from control tokens (`chat_tokens.py`). The raw `__call__`
trusts its text, as transformers' processors do. Called by pvc.engine, pvc.train, vLLM and transformers.

K: tokens per frame and step.
"""

import json
from pathlib import Path
from typing import Any, Unpack

from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import MultiModalData, ProcessingKwargs, ProcessorMixin

from pvc.errors import MismatchError, UsageError
from pvc.processing.chat_tokens import ChatTokens, encode_rendered, list_conversations, mark_messages
from pvc.processing.frame_prefix import check_frame_prefix, write_frame_prefix
from pvc.processing.image import PVCImageProcessor, PVCImageProcessorKwargs, flatten_images, is_nested
from pvc.processing.options import check_chat_text, sort_options
from pvc.processing.padding import TextOptions, pad, truncate
from pvc.processing.plain import PlainEncoder
from pvc.processing.template import Rendering, TemplateEncoder, find_template, template_variables
from pvc.processing.video import PVCVideoProcessor, PVCVideosKwargs

IMAGE_OPTIONS = ("image_steps", "min_patches", "max_patches", "crop_to_patches", "use_thumbnail")
_TEXT_FLAGS = ("return_mm_token_type_ids", "return_text_replacement_offsets")


class PVCProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]  # a TypedDict
    """Options of `PVCProcessor.__call__` by part. By default, padding is on the left, as generation needs it.

    Attributes:
        images_kwargs: options of the image processor.
        videos_kwargs: options of the video processor.
    """

    images_kwargs: PVCImageProcessorKwargs
    videos_kwargs: PVCVideosKwargs
    _defaults = {"text_kwargs": {"padding_side": "left"}}  # the form that transformers reads


class PVCProcessor(ProcessorMixin):
    """Image processor, video processor and tokenizer in one.

    Args:
        image_processor: a PVCImageProcessor.
        tokenizer: has the placeholder and image tokens as attributes, such as `context_image_token`.
        video_processor: a PVCVideoProcessor.
        tokens_per_frame: `K`, visual tokens of one frame and step; must equal the model's.
        chat_template: source of the chat template, or a dictionary of templates by name.
        frame_prefix: text before a video frame: "timestamp" (`0.5s: `), "index" (`Frame1: `, as in InternVL), "none",
            or a template such as "[{seconds:.2f}] " with `{index}` (from 1) or `{seconds}`.
        kwargs: further options of transformers' ProcessorMixin.

    Raises:
        UsageError: another `frame_prefix`, or one that contains a control token.
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
        """Return the expected class of a sub-processor; transformers would look it up through torchvision.

        Args:
            argument_name: name of the sub-processor.
            argument: the sub-processor.

        Raises:
            TypeError: `argument` is of another class.
        """
        classes = {"image_processor": PVCImageProcessor, "video_processor": PVCVideoProcessor}
        if argument_name not in classes:
            return super().check_argument_for_proper_class(argument_name, argument)
        if not isinstance(argument, classes[argument_name]):
            raise TypeError(
                f"{argument_name} must be a {classes[argument_name].__name__}, not {type(argument).__name__}"
            )
        return classes[argument_name]

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> Any:
        """Save the processor as transformers does, and a file in which vLLM finds the class of the video processor.

        Args:
            save_directory: where to write the files.
            kwargs: options of transformers' `save_pretrained`.
        """
        result = super().save_pretrained(save_directory, **kwargs)
        # The settings are in processor_config.json, which has priority; this file has only the name.
        content = {"video_processor_type": type(self.video_processor).__name__}
        Path(save_directory, "video_preprocessor_config.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
        return result

    @property
    def model_input_names(self) -> list[str]:
        """Names of all tensors that a call may return."""
        names = [*self.tokenizer.model_input_names, *self.image_processor.model_input_names]
        return [*names, *self.video_processor.model_input_names]

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """Build the text of one image: start, `tiles * steps * K` placeholders, end.

        Args:
            image_inputs: output of the image processor.
            image_idx: number of the image.
            kwargs: ignored.
        """
        tiles = [int(row[0]) for row in image_inputs["image_grid_thw"]]
        steps = int(image_inputs["image_steps"][sum(tiles[:image_idx])])
        count = tiles[image_idx] * steps * self.tokens_per_frame
        return f"{self.start_image_token}{self.image_token * count}{self.end_image_token}"

    def replace_video_token(self, video_inputs: dict[str, Any], video_idx: int, **kwargs: Any) -> str:
        """Build the text of video `video_idx`, e.g. `0.5s: <img>...</img>` for a frame; called by transformers."""
        return self.video_text(video_inputs["timestamps"][video_idx])

    def video_text(self, timestamps: list[float]) -> str:
        """Build the text that stands for the frames of one video, displayed at `timestamps` (seconds)."""
        return "\n".join(self.frame_text(time, number) for number, time in enumerate(timestamps, 1))

    def frame_text(self, timestamp: float, index: int) -> str:
        """Build the text that stands for one frame.

        Args:
            timestamp: seconds at which it is displayed.
            index: its number in the video, from 1.
        """
        visual = self.video_token * self.tokens_per_frame
        prefix = write_frame_prefix(self.frame_prefix, index, timestamp)
        return f"{prefix}{self.start_image_token}{visual}{self.end_image_token}"

    def __call__(
        self,
        images: Any = None,
        text: Any = None,
        videos: Any = None,
        audio: Any = None,
        **kwargs: Unpack[PVCProcessorKwargs],  # type: ignore[misc]  # named as transformers does; vLLM reads the keys
    ) -> Any:
        """Encode text with placeholders, and the images and videos that replace them.

        The text is trusted: control tokens in it become control tokens (`apply_chat_template` prevents this).

        Args:
            images: one image, a list, or one list per text.
            text: a string or a list of strings.
            videos: one video, a list, or one list per text.
            audio: must be None; audio is not supported.
            kwargs: transformers' ProcessingKwargs, flat or by part (`text_kwargs`, `images_kwargs`, `videos_kwargs`).

        Returns:
            A BatchFeature with one row per text.

        Raises:
            UsageError: unknown options, or values that are not supported.
            MismatchError: placeholders and media differ in number, or truncation would cut through media.
        """
        options = sort_options({"audio": audio, **kwargs})
        if options["text_kwargs"].pop("sanitize_control_tokens", None):
            raise UsageError("sanitize_control_tokens is True; apply_chat_template does this, this call cannot")
        # transformers expects these outside of text_kwargs.
        arguments = {key: options["text_kwargs"].pop(key) for key in _TEXT_FLAGS if key in options["text_kwargs"]}
        arguments |= {part: values for part, values in options.items() if values}
        return super().__call__(images, text, videos, **arguments)

    def _check_special_mm_tokens(self, text: list[str], text_inputs: Any, modalities: list[str]) -> None:
        """Raise MismatchError if truncation removed ids of pictures or videos, or the marks around them."""
        rows = [row.tolist() if hasattr(row, "tolist") else row for row in text_inputs["input_ids"]]
        names = (self.image_token, self.video_token, self.start_image_token, self.end_image_token)
        for name in names:
            token = self.tokenizer.convert_tokens_to_ids(name)
            expected, actual = [sample.count(name) for sample in text], [row.count(token) for row in rows]
            if expected != actual:
                raise MismatchError(
                    f"truncation would cut off ids of pictures or videos: {sum(expected)} of {name} in the text, "
                    f"{sum(actual)} in the ids; raise max_length, or use fewer steps, tiles or frames"
                )

    def validate_inputs(self, images: Any = None, text: Any = None, videos: Any = None, **kwargs: Any) -> None:
        """Check that placeholders and media agree in number.

        Args:
            images: one image, a list, or one list per text.
            text: a string or a list of strings.
            videos: one video, a list, or one list per text.
            kwargs: ignored.

        Raises:
            UsageError: there is nothing to process.
            MismatchError: the numbers differ.
        """
        if text is None:
            if images is None and videos is None:
                raise UsageError("nothing to process: pass text, images or videos")
            return
        samples = [text] if isinstance(text, str) else text
        for kind, token, items in (
            ("image", self.image_token, 0 if images is None else len(flatten_images(images))),
            ("video", self.video_token, 0 if videos is None else len(self.video_processor.flatten_videos(videos))),
        ):
            count = sum(sample.count(token) for sample in samples)
            if kind == "image" and is_nested(images) and len(images) == len(samples):
                for number, (sample, sample_images) in enumerate(zip(samples, images, strict=True)):
                    if sample.count(token) != len(sample_images):
                        raise MismatchError(
                            f"text {number} has {sample.count(token)} image placeholders, "
                            f"but {len(sample_images)} images"
                        )
            if count != items:
                raise MismatchError(f"the text has {count} {kind} placeholders, but {items} {kind}s were passed")

    def _process_videos(self, videos: Any, **kwargs: Any) -> tuple[Any, list[str]]:
        processed = self.video_processor(videos, **kwargs)
        return processed, [self.replace_video_token(processed, index) for index in range(len(processed["timestamps"]))]

    def _get_num_multimodal_tokens(
        self, image_sizes: Any = None, video_sizes: Any = None, **kwargs: Any
    ) -> MultiModalData:
        """Count tokens, including start and end, for media of the given sizes; vLLM uses this to reserve memory.

        `image_sizes` are (height, width) pairs, `video_sizes` (frames, height, width) triples.
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

    @property
    def plain(self) -> PlainEncoder:
        """Encoder of user text, rebuilt if the tokenizer has grown: a new token must not be matched either."""
        cached = self.__dict__.get("_plain")
        if cached is None or cached[0] != len(self.tokenizer):
            cached = self.__dict__["_plain"] = (len(self.tokenizer), PlainEncoder(self.tokenizer))
        return cached[1]

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as a dictionary, without the cached encoder of user text."""
        cached = self.__dict__.pop("_plain", None)
        try:
            return super().to_dict()
        finally:
            if cached is not None:
                self.__dict__["_plain"] = cached

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
        """Convert a conversation to text (`tokenize=False`, as in transformers) or, safely, to model inputs.

        Args:
            conversation: messages, or a list of conversations; dictionaries, dataclasses or pydantic models.
            chat_template: source or name of a template; by default the processor's.
            tools: tools, for templates that have a place for them.
            documents: documents, for templates that have a place for them.
            add_generation_prompt: end with the head of an assistant's turn.
            continue_final_message: leave the last message open, so that generation continues it; a string names the key
                of the message that is continued.
            return_assistant_tokens_mask: add `assistant_masks`, 1 where an assistant's answer or its end is.
            tokenize: return model inputs, not text.
            return_tensors: "pt" (default), "np", or None for lists.
            return_dict: False returns the `input_ids` alone.
            load_audio_from_video: must be false; audio is not supported.
            processor_kwargs: options of the tokenizer (by default padding on the left to the longest), the image
                processor and the video processor, flat or by part (`text_kwargs`, `images_kwargs`, `videos_kwargs`).
            kwargs: the same, and variables of the template.

        Returns:
            A string or list of strings; or a BatchFeature with one row per conversation.

        Raises:
            UsageError: malformed messages, unknown options, or values that are not supported.
            MismatchError: a template that drops texts or media, or truncation that would cut through media.
        """
        source = find_template(self.chat_template, chat_template)
        arguments = {"tools": tools, "documents": documents, "load_audio_from_video": load_audio_from_video, **kwargs}
        options = sort_options(arguments, processor_kwargs, template_variables(source))
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
        """Encode one or several conversations to model inputs; see `apply_chat_template`."""
        check_chat_text(options["text_kwargs"], bool(self.tokenizer("")["input_ids"]))
        conversations = list_conversations(conversation)
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

    def _pad_batch(self, tokens: list[ChatTokens], kwargs: dict[str, Any], return_tensors: Any) -> dict[str, Any]:
        """Truncate and pad, and add or leave out tensors as the text options request."""
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
        """Ids that stand for pictures and videos, including the marks around them."""
        marks = self.tokenizer.convert_tokens_to_ids([self.start_image_token, self.end_image_token])
        return {self.image_token_id, self.video_token_id, *marks}

    def process_media(self, images: list[Any], videos: list[Any], **options: Any) -> dict[str, Any]:
        """Convert images and videos to tensors, with the grids, steps and timestamps from which placeholders are built.

        Args:
            images: images as the image processor takes them.
            videos: videos as the video processor takes them.
            options: options of both processors, flat or by part.

        Returns:
            The outputs of both processors in one dictionary.
        """
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
        """Encode one conversation whose media were processed before.

        Args:
            messages: messages as in `apply_chat_template`.
            media: grids, steps and timestamps of its media, from `process_media`.
            add_generation_prompt: end with the head of an assistant's turn.
            chat_template: source or name of a template; by default the processor's.

        Returns:
            Ids, and which of them an assistant wrote.

        Raises:
            UsageError: malformed messages.
            MismatchError: messages and `media` differ in number, or the template drops texts or media.
        """
        source = find_template(self.chat_template, chat_template)
        marked = mark_messages(messages, source)
        return self._encode([marked], media, Rendering(source, {}, add_generation_prompt, False), False)[0]

    def _encode(self, marked: list[Any], media: dict[str, Any], rendering: Rendering, mask: bool) -> list[ChatTokens]:
        for kind, num_processed, num_expected in (
            ("image", len(media.get("image_grid_thw", ())), sum(len(chat.images) for chat in marked)),
            ("video", len(media.get("timestamps", ())), sum(len(chat.videos) for chat in marked)),
        ):
            if num_processed != num_expected:
                raise MismatchError(f"the messages have {num_expected} {kind}s, but {num_processed} were processed")
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


__all__ = ["PVCProcessor"]
