"""Schemas of the request bodies. A field that is not declared here or in `compat.py` is rejected, not ignored.

There is no field for chat templates or embeddings, and processor options are limited. Used by `app.py` and
`chat_completions.py`.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from pvc.server.compat import (
    MediaUrlFields,
    MessageFields,
    PartFields,
    RequestFields,
    RequestModel,
    StreamOptionsFields,
    TemplateOptions,
)
from pvc.server.media_options import (
    MediaFields,
    MediaIOOptions,
    Preparation,
    ProcessorOptions,
    PVCOptions,
    VideoIOOptions,
)

PART_TYPES = ("text", "image_url", "video_url", "stream")
MAX_LIST_ITEMS = 4096  # for every list and every setting of the server; checked before the items are
MIN_TEMPERATURE = 0.01  # lower temperatures are greedy: they would differ by rounding only
NO_TOKEN_LIMIT = -1  # llama.cpp's value


class MediaUrl(MediaUrlFields):
    """URL of a picture or video. A plain string stands for an object with this `url`.

    Attributes:
        url: a `data:` URL, or another one that the server's settings allow.
        detail: "low" prepares a picture as one tile.
    """

    url: str = Field(min_length=1)
    detail: Literal["auto", "low", "high"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _wrap_string(cls, data: Any) -> Any:
        return {"url": data} if isinstance(data, str) else data


class TextPart(PartFields):
    """A text in a message."""

    type: Literal["text"]
    text: str


class ImagePart(PartFields):
    """A picture in a message."""

    type: Literal["image_url"]
    image_url: MediaUrl


class VideoPart(PartFields):
    """A video in a message."""

    type: Literal["video_url"]
    video_url: MediaUrl


class StreamPart(PartFields):
    """A live video in a message, which was opened with POST /v1/streams.

    Attributes:
        stream_id: the id in the response to POST /v1/streams.
    """

    type: Literal["stream"]
    stream_id: str = Field(min_length=1, max_length=64)


def _get_part_tag(value: Any) -> str | None:
    part_type = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"<{part_type}>" if part_type in PART_TYPES else None


Part = Annotated[
    Annotated[TextPart, Tag("<text>")]
    | Annotated[ImagePart, Tag("<image_url>")]
    | Annotated[VideoPart, Tag("<video_url>")]
    | Annotated[StreamPart, Tag("<stream>")],
    Discriminator(
        _get_part_tag,
        custom_error_type="part_type",
        custom_error_message="a part is an object whose type is text, image_url, video_url or stream",
    ),
]
Content = Annotated[
    Annotated[str, Tag("<words>")]
    | Annotated[list[Part], Tag("<parts>"), Field(min_length=1, max_length=MAX_LIST_ITEMS, fail_fast=True)],
    Discriminator(
        lambda value: "<words>" if isinstance(value, str) else "<parts>" if isinstance(value, list) else None,
        custom_error_type="content_type",
        custom_error_message="content is a text or a list of parts",
    ),
]


class Message(MessageFields):
    """A message of the conversation.

    Attributes:
        role: its author; "developer" is treated as "system".
        content: a text, or a list of parts. Only messages of a user have media.
        name: ignored.
    """

    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    name: str | None = Field(None, max_length=64)

    @model_validator(mode="before")
    @classmethod
    def _fill_empty_content(cls, data: Any) -> Any:
        """Replace an assistant's content that is null or missing by an empty text."""
        if isinstance(data, dict) and data.get("role") == "assistant" and data.get("content") is None:
            return {**data, "content": ""}
        return data

    @model_validator(mode="after")
    def _check_media_role(self) -> Message:
        if self.role != "user" and any(part.type != "text" for part in self.parts):
            raise ValueError("only a user's message may show pictures and videos")
        return self

    @property
    def parts(self) -> list[Any]:
        """The content as a list of parts."""
        if isinstance(self.content, str):
            return [TextPart(type="text", text=self.content)]
        return self.content


class StreamOptions(StreamOptionsFields):
    """Options of a streamed answer.

    Attributes:
        include_usage: send the usage in an additional last chunk.
        continuous_usage_stats: send the usage so far in every chunk.
    """

    include_usage: bool = False
    continuous_usage_stats: bool = False


class StreamRequest(RequestModel):
    """Body of POST /v1/streams.

    Attributes:
        window: maximum number of frames that the live video retains; by default the server's maximum.
    """

    display_name: ClassVar[str] = "such a request"
    window: int | None = Field(None, ge=8)


TokenLimit = Annotated[int, Field(ge=NO_TOKEN_LIMIT)]
Stop = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[str], Tag("<texts>"), Field(max_length=4, fail_fast=True)],
    Discriminator(lambda value: "<text>" if isinstance(value, str) else "<texts>"),
]


class ChatRequest(RequestFields):
    """Body of POST /v1/chat/completions. `docs/serve.md` describes the fields.

    Attributes:
        model: name of the model; may be left out.
        messages: the conversation; the last message is a user's.
        stream: whether the answer is sent in pieces.
        stream_options: what the pieces contain.
        temperature: 0 always takes the likeliest token.
        top_p: samples among the likeliest tokens whose probabilities add up to this; 0 takes the likeliest token.
        seed: of the random generator.
        max_tokens: maximum number of tokens of an answer; -1 for as many as the server allows.
        max_completion_tokens: the same; goes before `max_tokens`.
        n_predict: the same, as llama.cpp names it; goes after `max_tokens`.
        ignore_eos: whether an answer continues after the model's end of it.
        stop: texts that end an answer.
        logprobs: whether the log probability of every token is returned.
        top_logprobs: number of alternatives to return for every token.
        n: number of answers.
        cache_salt: visual tokens are reused only between requests with equal `cache_salt` and `extra_key`.
        extra_key: see `cache_salt`.
        pvc: how media are prepared.
        media_io_kwargs: the same, as vLLM names it.
        mm_processor_kwargs: the same, as vLLM names it.
        chat_template_kwargs: only neutral values are accepted.
    """

    model: str | None = Field(None, max_length=256)
    messages: list[Message] = Field(min_length=1, max_length=MAX_LIST_ITEMS, fail_fast=True)
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float = Field(1.0, ge=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    max_tokens: TokenLimit | None = None
    max_completion_tokens: TokenLimit | None = None
    n_predict: TokenLimit | None = None
    ignore_eos: bool = False
    stop: Stop | None = None
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    n: int = Field(1, ge=1)
    cache_salt: str | None = Field(None, min_length=1, max_length=1024)
    extra_key: str | None = Field(None, min_length=1, max_length=1024)
    pvc: PVCOptions | None = None
    media_io_kwargs: MediaIOOptions | None = None
    mm_processor_kwargs: ProcessorOptions | None = None
    chat_template_kwargs: TemplateOptions | None = None

    @classmethod
    def simplify(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Remove tools that may not be called. Set the temperature to 0 if `top_k` is 1."""
        unused = {
            name
            for name, choice in (("tools", "tool_choice"), ("functions", "function_call"))
            if data.get(choice) == "none"
        }
        greedy = {"temperature": 0.0} if data.get("top_k") == 1 else {}
        return {name: value for name, value in data.items() if name not in unused} | greedy

    @field_validator("max_tokens", "max_completion_tokens", "n_predict")
    @classmethod
    def _check_not_zero(cls, value: int | None) -> int | None:
        if value == 0:
            raise ValueError("must be at least 1, or -1 for as many tokens as the server allows")
        return value

    @field_validator("stop")
    @classmethod
    def _check_stop(cls, stop: str | list[str] | None) -> str | list[str] | None:
        texts = [stop] if isinstance(stop, str) else stop or []
        if any(not 1 <= len(text) <= 100 for text in texts):
            raise ValueError("stop may be up to four texts of 1 to 100 characters")
        return stop

    @model_validator(mode="after")
    def _check_consistency(self) -> ChatRequest:
        last = self.messages[-1]
        if last.role != "user":
            raise ValueError("the last message must be a user's")
        if all(part.type == "text" and not part.text.strip() for part in last.parts):
            raise ValueError("the last message is empty")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream")
        preparation = self.preparation  # raises ValueError for fields that contradict each other
        has_sampling = preparation.frames or preparation.fps or preparation.max_frames
        if has_sampling and "stream" in self.part_types and "video_url" not in self.part_types:
            raise ValueError("frames and fps say how a video_url is sampled; a stream has its frames")
        return self

    @property
    def media_fields(self) -> MediaFields:
        """The fields that say how media are prepared."""
        video_io = self.media_io_kwargs.video if self.media_io_kwargs is not None else None
        return MediaFields(
            self.pvc or PVCOptions(), video_io or VideoIOOptions(), self.mm_processor_kwargs or ProcessorOptions()
        )

    @cached_property
    def preparation(self) -> Preparation:
        """How media are prepared, from all fields together."""
        return self.media_fields.merge()

    @property
    def part_types(self) -> set[str]:
        """Types of the parts in the conversation."""
        return {part.type for message in self.messages for part in message.parts}

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature < MIN_TEMPERATURE or self.top_p == 0

    def get_max_tokens(self, default: int, limit: int) -> int:
        """Return the maximum number of tokens of an answer.

        Args:
            default: the number if the request has none.
            limit: the server's maximum, which the result never exceeds.
        """
        requested = (self.max_completion_tokens, self.max_tokens, self.n_predict)
        count = next((count for count in requested if count is not None), default)
        return limit if count == NO_TOKEN_LIMIT else min(count, limit)

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """Texts that end the answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


__all__ = [
    "ChatRequest",
    "ImagePart",
    "MediaUrl",
    "Message",
    "StreamPart",
    "StreamRequest",
    "TextPart",
    "VideoPart",
]
