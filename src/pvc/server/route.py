"""Routes that look at a body before it is parsed: a megabyte of braces is a gigabyte of Python objects."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from pvc.server.errors import ApiError

# Objects, lists and their items: of the largest conversation that is allowed a small part, and of commas in its texts,
# which are counted too, more than it may have characters.
MOST_ITEMS = 300_000


class BoundedRoute(APIRoute):
    """A route whose JSON has a bounded number of items."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, which looks first."""
        inner = super().get_route_handler()

        async def handler(request: Request) -> Response:
            if "json" in request.headers.get("content-type", ""):
                data = await request.body()
                if data.count(b",") + data.count(b"{") + data.count(b"[") > MOST_ITEMS:
                    raise ApiError(400, "too_many", "The body has too many items.")
            return await inner(request)

        return handler


__all__ = ["BoundedRoute"]
