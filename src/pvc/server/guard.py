"""What every request passes first: an id, a key, a bound on its body and on the time that sending it takes.

Plain ASGI, around the application, so that nothing of a request is read before its key was.
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

from pvc.server.errors import ApiError
from pvc.server.metrics import Metrics
from pvc.server.settings import Settings

OPEN = ("/health", "/ready", "/metrics")
METHODS = ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH")
BODY_SECONDS = 30.0
LONGEST_REASON = 200  # characters, in the log
CONTROLS = dict.fromkeys((*range(32), 127), "?")

logger = logging.getLogger("pvc.server")


class RequestGuard:
    """The outermost layer. Puts `request_id` and `tenant` into the scope's state."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, body_seconds: float = BODY_SECONDS) -> None:
        self.app, self.settings, self.metrics, self.body_seconds = app, settings, metrics, body_seconds
        self.flying = 0  # bytes of bodies that are held now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        request_id = f"req-{secrets.token_hex(8)}"
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        reply, began = _Reply(send, request_id), time.monotonic()
        try:
            state["tenant"] = self._tenant(scope)
            self._check_length(scope)
            await self.app(scope, self._bounded(receive, reply), reply)
        except ApiError as error:
            state["error"] = error
            await reply.refuse(error)
        except Exception as error:
            logger.error("%s: an unexpected error", request_id, exc_info=error)
            state["error"] = ApiError(500, "internal_error", "Something went wrong here.")
            await reply.refuse(state["error"])
        finally:
            self.flying -= reply.body
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, str(reply.status)).inc()
            if route not in OPEN:
                _log(scope["method"], route, reply.status, time.monotonic() - began, state)

    def _tenant(self, scope: Scope) -> str:
        """Whose request it is: the number of the key. Raises ApiError 401."""
        if not self.settings.keys or scope["path"] in OPEN:
            return "everybody"
        given = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, key = given.partition(b" ")
        # All of them, whatever is found: how long it takes must not tell which one was nearly right.
        found = [hmac.compare_digest(key.strip(), own.encode()) for own in self.settings.keys]
        if scheme.lower() != b"bearer" or not any(found):
            headers = {"WWW-Authenticate": "Bearer"}
            text = "The API key is not known here." if key.strip() else "An API key is needed, as a bearer token."
            raise ApiError(401, "invalid_api_key", text, headers=headers)
        return f"key-{found.index(True)}"

    def _check_length(self, scope: Scope) -> None:
        """Refuse what says itself that it is too large, before any of it is read."""
        told = dict(scope["headers"]).get(b"content-length", b"0")
        if not told.isdigit() or int(told[:20]) > self.settings.max_body:
            raise ApiError(413, "body_too_large", "The request is too large.")

    def _bounded(self, receive: Receive, reply: _Reply) -> Receive:
        """`receive` that gives a body only so many bytes and so much time."""
        loop = asyncio.get_running_loop()
        until, size, whole = loop.time() + self.body_seconds, 0, False

        async def bounded() -> Message:
            nonlocal size, whole
            if whole:  # from now on only the client's going is waited for
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                await reply.refuse(slow := ApiError(408, "slow_body", "The request took too long to arrive."))
                raise slow from None
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                self.flying += size - reply.body
                reply.body = size
                whole = not message.get("more_body", False)
                if size > self.settings.max_body:
                    await reply.refuse(large := ApiError(413, "body_too_large", "The request is too large."))
                    raise large
                if self.flying > self.settings.max_flying:
                    headers = {"Retry-After": "2"}
                    await reply.refuse(busy := ApiError(429, "busy", "Too many requests are waiting.", headers=headers))
                    raise busy
            return message

        return bounded


def _log(method: str, route: str, status: int, seconds: float, state: dict[str, Any]) -> None:
    """Log one line of a request: for an error its code and the reason, which has no text or value of the client."""
    error: ApiError | None = state.get("error")
    words = [method if method in METHODS else "OTHER", route, str(status or "gone"), f"{seconds:.3f} s"]
    words += [state["request_id"], state.get("tenant", "nobody")]
    if error is not None:
        words += [error.code, f"({_printable(error.why or error.message)})"]
    logger.info("%s", " ".join(word for word in words if word))


def _printable(text: str) -> str:
    """Return `text` in one line: a field's name may hold anything."""
    return text[:LONGEST_REASON].encode("ascii", "backslashreplace").decode().translate(CONTROLS)


class _Reply:
    """`send` that puts headers on a response, and sends one response only: a refusal, or the application's."""

    def __init__(self, send: Send, request_id: str) -> None:
        self.send, self.request_id = send, request_id
        self.status = self.body = 0
        self.refused = False

    async def __call__(self, message: Message) -> None:
        if self.refused:  # whatever the application makes of a body that it could not read
            return
        await self._send(message)

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = {b"x-request-id": self.request_id.encode(), b"x-content-type-options": b"nosniff"}
            own[b"cache-control"] = b"no-store"
            message["headers"] = [*message.get("headers", []), *own.items()]
        await self.send(message)

    async def refuse(self, error: ApiError) -> None:
        """Send an error, unless something was sent, and close: the rest of the body is not wanted."""
        if self.status:
            return
        self.refused = True
        body = json.dumps(error.body(self.request_id)).encode()
        headers: list[Any] = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers += [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
        headers.append((b"connection", b"close"))
        await self._send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


__all__ = ["BODY_SECONDS", "RequestGuard"]
