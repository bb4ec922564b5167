"""ASGI middleware around the application: request id, API key, limits on body size and upload time, request log.

It is plain ASGI, so that nothing of a request is read before its key is checked. Added by `app.py`.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pvc.server.errors import ApiError, build_busy_error
from pvc.server.metrics import Metrics
from pvc.server.settings import Settings

PUBLIC_ROUTES = ("/health", "/ready", "/metrics")  # need no key and are not logged
METHODS = ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH")
BODY_SECONDS = 30.0
MAX_REASON_LENGTH = 200  # characters, in the log
CONTROL_CHARACTERS = dict.fromkeys((*range(32), 127), "?")

logger = logging.getLogger("pvc.server")


class RequestGuard:
    """The outermost middleware. Puts `request_id` and `tenant` into the scope's state.

    Args:
        app: the application inside.
        settings: API keys and limits.
        metrics: counts the requests.
        body_seconds: maximum time for the arrival of a body, in seconds.

    Attributes:
        inflight_bytes: size of all bodies that are held at present, in bytes.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, body_seconds: float = BODY_SECONDS) -> None:
        self.app, self.settings, self.metrics, self.body_seconds = app, settings, metrics, body_seconds
        self.inflight_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection: check and log an HTTP request, pass the lifespan on, ignore others."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        request_id = f"req-{secrets.token_hex(8)}"
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        sender, started_at = _ResponseSender(send, request_id), time.monotonic()
        try:
            state["tenant"] = self._authenticate(scope)
            self._check_length(scope)
            await self.app(scope, self._bound_receive(receive, sender), sender)
        except ApiError as error:
            state["error"] = error
            await sender.reject(error)
        except Exception as error:
            logger.error("%s: an unexpected error", request_id, exc_info=error)
            state["error"] = ApiError(500, "internal_error", "Something went wrong here.")
            await sender.reject(state["error"])
        finally:
            self.inflight_bytes -= sender.body_size
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, str(sender.status)).inc()
            if route not in PUBLIC_ROUTES:
                _log_request(scope["method"], route, sender.status, time.monotonic() - started_at, state)

    def _authenticate(self, scope: Scope) -> str:
        """Return the tenant of a request, which is named by the number of its key. Raises ApiError 401."""
        if not self.settings.keys or scope["path"] in PUBLIC_ROUTES:
            return "everybody"
        header = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, key = header.partition(b" ")
        # Compare with all keys: the time must not reveal which one was nearly right.
        matches = [hmac.compare_digest(key.strip(), valid.encode()) for valid in self.settings.keys]
        if scheme.lower() != b"bearer" or not any(matches):
            headers = {"WWW-Authenticate": "Bearer"}
            text = "The API key is not known here." if key.strip() else "An API key is needed, as a bearer token."
            raise ApiError(401, "invalid_api_key", text, headers=headers)
        return f"key-{matches.index(True)}"

    def _check_length(self, scope: Scope) -> None:
        """Raise ApiError 413 if the content-length header is too large, before the body is read."""
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > self.settings.max_body:
            raise ApiError(413, "body_too_large", "The request is too large.")

    def _bound_receive(self, receive: Receive, sender: _ResponseSender) -> Receive:
        """Wrap `receive` with limits on the size of the body and on the time of its arrival."""
        loop = asyncio.get_running_loop()
        deadline, size, is_complete = loop.time() + self.body_seconds, 0, False

        async def receive_bounded() -> Message:
            nonlocal size, is_complete
            if is_complete:  # only a disconnect can follow, which has no deadline
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                await sender.reject(slow := ApiError(408, "slow_body", "The request took too long to arrive."))
                raise slow from None
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                self.inflight_bytes += size - sender.body_size
                sender.body_size = size
                is_complete = not message.get("more_body", False)
                if size > self.settings.max_body:
                    await sender.reject(large := ApiError(413, "body_too_large", "The request is too large."))
                    raise large
                if self.inflight_bytes > self.settings.max_flying:
                    await sender.reject(busy := build_busy_error())
                    raise busy
            return message

        return receive_bounded


def _log_request(method: str, route: str, status: int, seconds: float, state: dict[str, Any]) -> None:
    """Log one line for a request. For an error it has the code and a reason without any text of the client."""
    error: ApiError | None = state.get("error")
    words = [method if method in METHODS else "OTHER", route, str(status or "gone"), f"{seconds:.3f} s"]
    words += [state["request_id"], state.get("tenant", "nobody")]
    if error is not None:
        words += [error.code, f"({_to_printable(error.log_reason or error.message)})"]
    logger.info("%s", " ".join(word for word in words if word))


def _to_printable(text: str) -> str:
    """Return `text` as one line of ASCII: a field's name may contain any character."""
    return text[:MAX_REASON_LENGTH].encode("ascii", "backslashreplace").decode().translate(CONTROL_CHARACTERS)


class _ResponseSender:
    """ASGI `send` that adds headers and sends one response only: a rejection, or the application's response."""

    def __init__(self, send: Send, request_id: str) -> None:
        self.send, self.request_id = send, request_id
        self.status = self.body_size = 0
        self.is_rejected = False

    async def __call__(self, message: Message) -> None:
        if self.is_rejected:  # the application may still respond to the body that it could not read
            return
        await self._send(message)

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = {b"x-request-id": self.request_id.encode(), b"x-content-type-options": b"nosniff"}
            headers[b"cache-control"] = b"no-store"
            message["headers"] = [*message.get("headers", []), *headers.items()]
        await self.send(message)

    async def reject(self, error: ApiError) -> None:
        """Send an error unless a response has begun. Close the connection: the rest of the body is not read."""
        if self.status:
            return
        self.is_rejected = True
        body = json.dumps(error.body(self.request_id)).encode()
        headers: list[Any] = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers += [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
        headers.append((b"connection", b"close"))
        await self._send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


__all__ = ["BODY_SECONDS", "RequestGuard"]
