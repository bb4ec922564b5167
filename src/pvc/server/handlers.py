"""Handlers that turn every exception of a route into a response in OpenAI's form. Called by `app.py`.

The text of an error names the field and what to change.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pvc.errors import PVCError
from pvc.server.errors import ApiError, to_api_error

ROUTES = "POST /v1/chat/completions, GET /v1/models, POST /v1/streams, GET /health, /ready and /metrics"
MAX_MESSAGE_LENGTH = 600  # characters
NO_OBJECT = "The body must be a JSON object, sent with content-type: application/json."


def add_handlers(app: FastAPI) -> None:
    """Register the handlers of all errors with an application."""

    def respond(request: Request, error: ApiError) -> JSONResponse:
        request.state.error = error  # `guard.py` logs it
        return JSONResponse(error.body(request.state.request_id), error.status, error.headers)

    @app.exception_handler(ApiError)
    async def handle_api_error(request: Request, error: ApiError) -> JSONResponse:
        return respond(request, error)

    @app.exception_handler(PVCError)
    async def handle_pvc_error(request: Request, error: PVCError) -> JSONResponse:
        return respond(request, to_api_error(error))

    @app.exception_handler(RequestValidationError)
    async def handle_validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        return respond(request, _convert_validation_error(error))

    @app.exception_handler(HTTPException)
    async def handle_http_exception(request: Request, error: HTTPException) -> JSONResponse:
        return respond(request, _convert_http_exception(error))


def _convert_validation_error(error: RequestValidationError) -> ApiError:
    first = error.errors()[0]
    is_whole_body = tuple(first["loc"]) == ("body",)
    if first["type"] == "json_invalid":
        return ApiError(400, "invalid_request", "The body is not JSON.")
    if is_whole_body and first["type"] in ("missing", "model_attributes_type", "model_type", "dict_type"):
        return ApiError(400, "invalid_request", NO_OBJECT)
    path = _format_location(first["loc"])
    context: dict[str, str] = first.get("ctx", {}) if first["type"] == "refused" else {}
    message = str(first["msg"]).removeprefix("Value error, ")
    text, log_reason = (
        (f"{path}: {part}" if path else part)[:MAX_MESSAGE_LENGTH] for part in (message, context.get("log", message))
    )
    return ApiError(400, "invalid_request", text, path or context.get("field") or None, log_reason=log_reason)


def _format_location(location: tuple[Any, ...]) -> str:
    """Return a path such as `messages.0.content.1.image_url`, without FastAPI's prefix and the names of union tags."""
    parts = [str(part) for part in location[1:]]
    return ".".join(part for part in parts if not part.startswith("<"))[:100]


def _convert_http_exception(error: HTTPException) -> ApiError:
    codes = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
    texts = {404: f"There is no such route. There are {ROUTES}."}
    headers = dict(error.headers or {})
    texts[405] = f"This route takes {headers.get('allow', headers.get('Allow', 'another method'))}."
    text = texts.get(error.status_code, "The request cannot be read.")
    return ApiError(error.status_code, codes.get(error.status_code, "invalid_request"), text, headers=headers)


__all__ = ["add_handlers"]
