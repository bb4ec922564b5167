"""Errors in the form that OpenAI's clients read: a fixed text, a code and a status. Used by all of `pvc.server`.

A response never contains a path, an address or a traceback.
"""

from __future__ import annotations

import logging
from typing import Any

from pvc.engine.batch import TooLongError
from pvc.errors import ForbiddenError, MediaError, MismatchError, PVCError, UsageError

STATUS_BY_CODE = {
    "empty_media": 400,
    "aspect_ratio": 400,
    "too_many_pixels": 413,
    "too_many_bytes": 413,
    "too_many_frames": 413,
    "unsupported_format": 415,
}
MESSAGE_BY_CODE = {
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
    """An error that is sent to the client as a response.

    Attributes:
        status: HTTP status.
        code: machine-readable code.
        message: text for the client.
        param: field of the request that is wrong, or None.
        headers: headers of the response.
        log_reason: text for the server's log, where it replaces `message`; empty to log `message`.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        headers: dict[str, str] | None = None,
        log_reason: str = "",
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param, self.headers = status, code, message, param, headers or {}
        self.log_reason = log_reason

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the JSON object of the response."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        fields = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": {**fields, "request_id": request_id}}


def build_busy_error() -> ApiError:
    """Build the error of a request for which the queue has no place."""
    return ApiError(429, "busy", "Too many requests are waiting.", headers={"Retry-After": "2"})


def build_shutdown_error() -> ApiError:
    """Build the error of a request that the server does not finish before it exits."""
    return ApiError(503, "shutting_down", "The server is shutting down.", headers={"Retry-After": "10"})


def to_api_error(error: Exception) -> ApiError:
    """Convert any exception to the error that a client gets; an unexpected one becomes an internal error."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, MediaError) and error.code == "no_decoder":
        return ApiError(503, "no_decoder", "Media cannot be decoded now.", headers={"Retry-After": "5"})
    if isinstance(error, MediaError):
        code = error.code if error.code in MESSAGE_BY_CODE else "corrupt_media"
        return ApiError(STATUS_BY_CODE.get(code, 422), code, MESSAGE_BY_CODE[code])
    if isinstance(error, ForbiddenError):
        return ApiError(403, "forbidden", "That source is not allowed here.")
    if isinstance(error, TooLongError):
        return ApiError(400, "context_length_exceeded", _get_public_text(error), "messages")
    if isinstance(error, (UsageError, MismatchError)):
        return ApiError(400, "invalid_request", _get_public_text(error))
    # The details go to the log only, not to the client.
    logging.getLogger("pvc.server").error("an unexpected error", exc_info=error)
    return ApiError(500, "internal_error", "Something went wrong here.")


def _get_public_text(error: PVCError) -> str:
    """Return the error's text if it only repeats numbers and options of the request, else a fixed text.

    A text that is long or contains a slash may hold a path.
    """
    text = str(error)
    return text if len(text) < 300 and "/" not in text else "The request asks for something that makes no sense."


__all__ = ["ApiError", "build_busy_error", "build_shutdown_error", "to_api_error"]
