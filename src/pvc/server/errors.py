"""Errors as OpenAI's clients read them: fixed texts, a code and a status; never a path, an address or a trace."""

from __future__ import annotations

import logging
from typing import Any

from pvc.engine.batch import TooLongError
from pvc.errors import ForbiddenError, MediaError, MismatchError, PVCError, UsageError

STATUS = {
    "empty_media": 400,
    "aspect_ratio": 400,
    "too_many_pixels": 413,
    "too_many_bytes": 413,
    "too_many_frames": 413,
    "unsupported_format": 415,
}
TEXTS = {
    "empty_media": "A picture or video is empty.",
    "aspect_ratio": "A picture or video is too elongated.",
    "too_many_pixels": "A picture or video has too many pixels.",
    "too_many_bytes": "A picture or video has too many bytes.",
    "too_many_frames": "A video is too long to be read in time.",
    "unsupported_format": "A picture or video has a format that is not read here, or a video came as an image_url or a "
    "picture as a video_url.",
    "corrupt_media": "A picture or video cannot be decoded.",
    "no_video_stream": "A file has no video in it.",
    "no_video_frames": "A video has no frames.",
}


class ApiError(Exception):
    """A response with an error. `headers` go with it; `why` is for the server's log, where it replaces the message."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        headers: dict[str, str] | None = None,
        why: str = "",
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param, self.headers = status, code, message, param, headers or {}
        self.why = why

    def body(self, request_id: str) -> dict[str, Any]:
        """The JSON object of a response."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        told = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": {**told, "request_id": request_id}}


def busy() -> ApiError:
    """All places are taken."""
    return ApiError(429, "busy", "Too many requests are waiting.", headers={"Retry-After": "2"})


def stopping() -> ApiError:
    """The server ends before the answer does."""
    return ApiError(503, "shutting_down", "The server is shutting down.", headers={"Retry-After": "10"})


def api_error(error: Exception) -> ApiError:
    """What an exception means to a client; anything unexpected is an internal error."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, MediaError) and error.code == "no_decoder":
        return ApiError(503, "no_decoder", "Media cannot be decoded now.", headers={"Retry-After": "5"})
    if isinstance(error, MediaError):
        code = error.code if error.code in TEXTS else "corrupt_media"
        return ApiError(STATUS.get(code, 422), code, TEXTS[code])
    if isinstance(error, ForbiddenError):
        return ApiError(403, "forbidden", "That source is not allowed here.")
    if isinstance(error, TooLongError):
        return ApiError(400, "context_length_exceeded", _public(error), "messages")
    if isinstance(error, (UsageError, MismatchError)):
        return ApiError(400, "invalid_request", _public(error))
    # The client is told nothing of it; whoever runs the server is told everything.
    logging.getLogger("pvc.server").error("an unexpected error", exc_info=error)
    return ApiError(500, "internal_error", "Something went wrong here.")


def _public(error: PVCError) -> str:
    """Texts about numbers and options are the caller's own words back; anything with a path in it is not."""
    text = str(error)
    return text if len(text) < 300 and "/" not in text else "The request asks for something that makes no sense."


__all__ = ["ApiError", "api_error", "busy", "stopping"]
