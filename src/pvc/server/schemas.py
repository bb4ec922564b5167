"""Requests as they may be, checked by pydantic: what is not named here is refused, not ignored.

A client's templates, processor options and embeddings have no field, so they cannot get in.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from pvc.server import tolerated

KINDS = ("text", "image_url", "video_url", "stream")
MOST = 4096  # of anything in a list, whatever a server allows: checked before the list is looked into


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=False)
    passes: ClassVar[tuple[dict[str, tolerated.Means], str]] = ({}, "")

    @model_validator(mode="before")
    @classmethod
    def _without_what_asks_for_nothing(cls, data: Any) -> Any:
        means, where = cls.passes
        return tolerated.without(data, means, set(cls.model_fields), where) if where else data


class _Part(_Strict):
    passes: ClassVar[tuple[dict[str, tolerated.Means], str]] = (tolerated.PART, "such a part")


class Address(_Strict):
    """Where a picture or video is: `data:`, and what the server allows besides."""

    url: str = Field(min_length=1)
    detail: Literal["auto", "low", "high"] | None = None


class TextPart(_Part):
    type: Literal["text"]
    text: str


class ImagePart(_Part):
    type: Literal["image_url"]
    image_url: Address


class VideoPart(_Part):
    type: Literal["video_url"]
    video_url: Address


class StreamPart(_Part):
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


class Message(_Strict):
    passes: ClassVar[tuple[dict[str, tolerated.Means], str]] = (tolerated.MESSAGE, "a message")
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


class StreamOptions(_Strict):
    passes: ClassVar[tuple[dict[str, tolerated.Means], str]] = (tolerated.STREAM_OPTIONS, "stream_options")
    include_usage: bool = False


class Wishes(_Strict):
    """How media are prepared, within the server's ceilings, and by default the checkpoint's own."""

    frames: int | None = Field(None, ge=1)
    fps: float | None = Field(None, gt=0, le=1000)
    image_steps: int | Literal["auto"] | None = None
    max_tiles: int | None = Field(None, ge=1)

    @field_validator("image_steps")
    @classmethod
    def _some(cls, value: int | str | None) -> int | str | None:
        if isinstance(value, int) and value < 1:
            raise ValueError("image_steps must be at least 1")
        return value

    @model_validator(mode="after")
    def _one_sampling(self) -> Wishes:
        if self.frames is not None and self.fps is not None:
            raise ValueError("frames and fps exclude each other")
        return self


class StreamRequest(_Strict):
    """POST /v1/streams."""

    window: int | None = Field(None, ge=8)


class ChatRequest(_Strict):
    """POST /v1/chat/completions. `pvc` says how media are prepared."""

    passes: ClassVar[tuple[dict[str, tolerated.Means], str]] = (tolerated.REQUEST, "a request")
    model: str | None = Field(None, max_length=256)
    messages: list[Message] = Field(min_length=1, max_length=MOST, fail_fast=True)
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: str | Annotated[list[str], Field(max_length=4, fail_fast=True)] | None = None
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    n: int = Field(1, ge=1)
    pvc: Wishes | None = None

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {name: value for name, value in data.items() if value is not None}
        return data

    @field_validator("stop")
    @classmethod
    def _stops(cls, stop: str | list[str] | None) -> str | list[str] | None:
        texts = [stop] if isinstance(stop, str) else stop or []
        if len(texts) > 4 or any(not 1 <= len(text) <= 100 for text in texts):
            raise ValueError("stop may be up to four texts of 1 to 100 characters")
        return stop

    @model_validator(mode="after")
    def _makes_sense(self) -> ChatRequest:
        last = self.messages[-1]
        if last.role != "user":
            raise ValueError("the last message must be a user's")
        if all(part.type == "text" and not part.text.strip() for part in last.parts):
            raise ValueError("the last message is empty")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream")
        if self.temperature and self.temperature < 0.01:
            raise ValueError("temperature must be 0 or at least 0.01")
        sampled = self.pvc is not None and (self.pvc.frames or self.pvc.fps)
        if sampled and "stream" in self.kinds and "video_url" not in self.kinds:
            raise ValueError("pvc.frames and pvc.fps say how a video_url is sampled; a stream has its frames")
        return self

    @property
    def kinds(self) -> set[str]:
        """Types of parts that the conversation has."""
        return {part.type for message in self.messages for part in message.parts}

    @property
    def wanted(self) -> int | None:
        """Most tokens of an answer, under either of the names that it has."""
        return self.max_completion_tokens or self.max_tokens

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
    "Wishes",
]
