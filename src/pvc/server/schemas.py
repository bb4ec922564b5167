"""Requests as they may be, checked by pydantic: what is not named here is refused, not ignored.

A client's templates, processor options and embeddings have no field, so they cannot get in.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=False)


class Address(_Strict):
    """Where a picture or video is: `data:`, and what the server allows besides."""

    url: str = Field(min_length=1)
    detail: Literal["auto", "low", "high"] | None = None


class TextPart(_Strict):
    type: Literal["text"]
    text: str


class ImagePart(_Strict):
    type: Literal["image_url"]
    image_url: Address


class VideoPart(_Strict):
    type: Literal["video_url"]
    video_url: Address


class StreamPart(_Strict):
    """A live video that was opened with POST /v1/streams."""

    type: Literal["stream"]
    stream_id: str = Field(min_length=1, max_length=64)


Part = Annotated[TextPart | ImagePart | VideoPart | StreamPart, Field(discriminator="type")]


class Message(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]
    name: str | None = Field(None, max_length=64)

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
    include_usage: bool = False


class Wishes(_Strict):
    """How media are prepared; within the server's ceilings, and by default the checkpoint's own."""

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


class ChatRequest(_Strict):
    """POST /v1/chat/completions. `pvc` says how media are prepared."""

    model: str | None = Field(None, max_length=256)
    messages: list[Message] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = Field(None, ge=0, lt=2**32)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: str | list[str] | None = None
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    n: int = Field(1, ge=1)
    pvc: Wishes | None = None
    # What clients send of themselves, in the one meaning that it has here.
    user: str | None = Field(None, max_length=256)
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None

    @field_validator("temperature", "top_p", mode="before")
    @classmethod
    def _null_is_the_default(cls, value: Any, info: Any) -> Any:
        return cls.model_fields[info.field_name].default if value is None else value

    @field_validator("stop")
    @classmethod
    def _stops(cls, stop: str | list[str] | None) -> str | list[str] | None:
        texts = [stop] if isinstance(stop, str) else stop or []
        if len(texts) > 4 or any(not 1 <= len(text) <= 100 for text in texts):
            raise ValueError("stop may be up to four texts of 1 to 100 characters")
        return stop

    @model_validator(mode="after")
    def _a_user_comes_last(self) -> ChatRequest:
        if self.messages[-1].role != "user":
            raise ValueError("the last message must be a user's")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs")
        if self.temperature and self.temperature < 0.01:
            raise ValueError("temperature must be 0 or at least 0.01")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end the answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


__all__ = ["Address", "ChatRequest", "ImagePart", "Message", "StreamPart", "TextPart", "VideoPart", "Wishes"]
