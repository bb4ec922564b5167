"""Every error as a response in OpenAI's shape, with a text that names the field and what to change."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pvc.errors import PVCError
from pvc.server.errors import ApiError, api_error

ROUTES = "POST /v1/chat/completions, GET /v1/models, POST /v1/streams, GET /health, /ready and /metrics"
LONGEST = 600  # characters of a message
NO_OBJECT = "The body must be a JSON object, sent with content-type: application/json."


def add_handlers(app: FastAPI) -> None:
    """Have an application answer all errors so."""

    def told(request: Request, error: ApiError) -> JSONResponse:
        request.state.error = error  # for the log
        return JSONResponse(error.body(request.state.request_id), error.status, error.headers)

    @app.exception_handler(ApiError)
    async def known(request: Request, error: ApiError) -> JSONResponse:
        return told(request, error)

    @app.exception_handler(PVCError)
    async def ours(request: Request, error: PVCError) -> JSONResponse:
        return told(request, api_error(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return told(request, _invalid(error))

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:
        return told(request, _plain(error))


def _invalid(error: RequestValidationError) -> ApiError:
    first = error.errors()[0]
    whole = tuple(first["loc"]) == ("body",)
    if first["type"] == "json_invalid":
        return ApiError(400, "invalid_request", "The body is not JSON.")
    if whole and first["type"] in ("missing", "model_attributes_type", "model_type", "dict_type"):
        return ApiError(400, "invalid_request", NO_OBJECT)
    place = _place(first["loc"])
    refused: dict[str, str] = first.get("ctx", {}) if first["type"] == "refused" else {}
    message = str(first["msg"]).removeprefix("Value error, ")
    text, log = ((f"{place}: {part}" if place else part)[:LONGEST] for part in (message, refused.get("log", message)))
    return ApiError(400, "invalid_request", text, place or refused.get("field") or None, why=log)


def _place(location: tuple[Any, ...]) -> str:
    """`messages.0.content.1.image_url`: without where FastAPI found it, and without names of alternatives."""
    parts = [str(part) for part in location[1:]]
    return ".".join(part for part in parts if not part.startswith("<"))[:100]


def _plain(error: HTTPException) -> ApiError:
    codes = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
    texts = {404: f"There is no such route. There are {ROUTES}."}
    headers = dict(error.headers or {})
    texts[405] = f"This route takes {headers.get('allow', headers.get('Allow', 'another method'))}."
    text = texts.get(error.status_code, "The request cannot be read.")
    return ApiError(error.status_code, codes.get(error.status_code, "invalid_request"), text, headers=headers)


__all__ = ["add_handlers"]
