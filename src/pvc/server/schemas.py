"""Requests as they may be, checked by pydantic: what is not named here is refused, not ignored.

A client's templates, processor options and embeddings have no field, so they cannot get in.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from pvc.server.compat import (
    AddressFields,
    MessageFields,
    PartFields,
    RequestFields,
    StreamOptionsFields,
    StrictModel,
    TemplateOptions,
)
from pvc.server.media_options import (
    MediaFields,
    MediaReading,
    Preparation,
    ProcessorOptions,
    PVCOptions,
    VideoReading,
)

KINDS = ("text", "image_url", "video_url", "stream")
MOST = 4096  # of anything in a list, whatever a server allows: checked before the list is looked into
COLDEST = 0.01  # lower temperatures are greedy, as they would be but for rounding
AS_MANY_AS_ALLOWED = -1  # llama.cpp's way to ask for no limit


class Address(AddressFields):
    """Where a picture or video is: `data:`, and what the server allows besides. A string is its `url`."""

    url: str = Field(min_length=1)
    detail: Literal["auto", "low", "high"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _string(cls, data: Any) -> Any:
        return {"url": data} if isinstance(data, str) else data


class TextPart(PartFields):
    type: Literal["text"]
    text: str


class ImagePart(PartFields):
    type: Literal["image_url"]
    image_url: Address


class VideoPart(PartFields):
    type: Literal["video_url"]
    video_url: Address


class StreamPart(PartFields):
    """A live video that was opened with POST /v1/streams."""

    type: Literal["stream"]
    stream_id: str = Field(min_length=1, max_length=64)


def _kind(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"<{kind}>" if kind in KINDS else None


Part = Annotated[
    Annotated[TextPart, Tag("<text>")]
    | Annotated[ImagePart, Tag("<image_url>")]
    | Annotated[VideoPart, Tag("<video_url>")]
    | Annotated[StreamPart, Tag("<stream>")],
    Discriminator(
        _kind,
        custom_error_type="part_type",
        custom_error_message="a part is an object whose type is text, image_url, video_url or stream",
    ),
]
Content = Annotated[
    Annotated[str, Tag("<words>")]
    | Annotated[list[Part], Tag("<parts>"), Field(min_length=1, max_length=MOST, fail_fast=True)],
    Discriminator(
        lambda value: "<words>" if isinstance(value, str) else "<parts>" if isinstance(value, list) else None,
        custom_error_type="content_type",
        custom_error_message="content is a text or a list of parts",
    ),
]


class Message(MessageFields):
    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    name: str | None = Field(None, max_length=64)

    @model_validator(mode="before")
    @classmethod
    def _nothing_was_said(cls, data: Any) -> Any:
        """An assistant's content may be null, or left out."""
        if isinstance(data, dict) and data.get("role") == "assistant" and data.get("content") is None:
            return {**data, "content": ""}
        return data

    @model_validator(mode="after")
    def _media_are_a_users(self) -> Message:
        if self.role != "user" and any(part.type != "text" for part in self.parts):
            raise ValueError("only a user's message may show pictures and videos")
        return self

    @property
    def parts(self) -> list[Any]:
        """The content as parts."""
        if isinstance(self.content, str):
            return [TextPart(type="text", text=self.content)]
        return self.content


class StreamOptions(StreamOptionsFields):
    include_usage: bool = False
    continuous_usage_stats: bool = False


class StreamRequest(StrictModel):
    """POST /v1/streams."""

    called: ClassVar[str] = "such a request"
    window: int | None = Field(None, ge=8)


Tokens = Annotated[int, Field(ge=AS_MANY_AS_ALLOWED)]
Stop = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[str], Tag("<texts>"), Field(max_length=4, fail_fast=True)],
    Discriminator(lambda value: "<text>" if isinstance(value, str) else "<texts>"),
]


class ChatRequest(RequestFields):
    """POST /v1/chat/completions. `pvc` says how media are prepared."""

    model: str | None = Field(None, max_length=256)
    messages: list[Message] = Field(min_length=1, max_length=MOST, fail_fast=True)
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float = Field(1.0, ge=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    n_predict: Tokens | None = None
    ignore_eos: bool = False
    stop: Stop | None = None
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    n: int = Field(1, ge=1)
    cache_salt: str | None = Field(None, min_length=1, max_length=1024)
    extra_key: str | None = Field(None, min_length=1, max_length=1024)
    pvc: PVCOptions | None = None
    media_io_kwargs: MediaReading | None = None
    mm_processor_kwargs: ProcessorOptions | None = None
    chat_template_kwargs: TemplateOptions | None = None

    @classmethod
    def simplified(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Leave out tools that may not be called. With `top_k` 1 the likeliest token is taken."""
        without = {
            name
            for name, choice in (("tools", "tool_choice"), ("functions", "function_call"))
            if data.get(choice) == "none"
        }
        greedy = {"temperature": 0.0} if data.get("top_k") == 1 else {}
        return {name: value for name, value in data.items() if name not in without} | greedy

    @field_validator("max_tokens", "max_completion_tokens", "n_predict")
    @classmethod
    def _some(cls, value: int | None) -> int | None:
        if value == 0:
            raise ValueError("must be at least 1, or -1 for as many tokens as the server allows")
        return value

    @field_validator("stop")
    @classmethod
    def _stops(cls, stop: str | list[str] | None) -> str | list[str] | None:
        texts = [stop] if isinstance(stop, str) else stop or []
        if any(not 1 <= len(text) <= 100 for text in texts):
            raise ValueError("stop may be up to four texts of 1 to 100 characters")
        return stop

    @model_validator(mode="after")
    def _makes_sense(self) -> ChatRequest:
        last = self.messages[-1]
        if last.role != "user":
            raise ValueError("the last message must be a user's")
        if all(part.type == "text" and not part.text.strip() for part in last.parts):
            raise ValueError("the last message is empty")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream")
        preparation = self.preparation  # raises what the fields contradict each other in
        sampled = preparation.frames or preparation.fps or preparation.most_frames
        if sampled and "stream" in self.kinds and "video_url" not in self.kinds:
            raise ValueError("frames and fps say how a video_url is sampled; a stream has its frames")
        return self

    @property
    def media_fields(self) -> MediaFields:
        """The fields that say how media are prepared."""
        reading = self.media_io_kwargs.video if self.media_io_kwargs is not None else None
        return MediaFields(
            self.pvc or PVCOptions(), reading or VideoReading(), self.mm_processor_kwargs or ProcessorOptions()
        )

    @cached_property
    def preparation(self) -> Preparation:
        """How media are prepared."""
        return self.media_fields.merged()

    @property
    def kinds(self) -> set[str]:
        """Types of parts that the conversation has."""
        return {part.type for message in self.messages for part in message.parts}

    @property
    def greedy(self) -> bool:
        """Whether every token is the likeliest one."""
        return self.temperature < COLDEST or self.top_p == 0

    def answer_tokens(self, default: int, most: int) -> int:
        """Return the most tokens of an answer: what was asked for, else `default`, and never more than `most`."""
        asked = (self.max_completion_tokens, self.max_tokens, self.n_predict)
        wanted = next((count for count in asked if count is not None), default)
        return most if wanted == AS_MANY_AS_ALLOWED else min(wanted, most)

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end the answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


__all__ = [
    "Address",
    "ChatRequest",
    "ImagePart",
    "Message",
    "StreamPart",
    "StreamRequest",
    "TextPart",
    "VideoPart",
]
