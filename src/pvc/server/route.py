"""Route class that counts the items of a JSON body before it is parsed. Used by `app.py` for all routes.

One megabyte of braces would become one gigabyte of Python objects.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from pvc.server.errors import ApiError

# Counts objects, lists and commas. The largest allowed conversation has only a small part of this many items. Commas
# in its texts are counted too, but the limit is higher than the number of characters that it may have.
MAX_ITEMS = 300_000


class BoundedRoute(APIRoute):
    """A route that rejects a JSON body with too many items."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return a handler that checks the body, then calls the route's handler."""
        inner = super().get_route_handler()

        async def handler(request: Request) -> Response:
            if "json" in request.headers.get("content-type", ""):
                data = await request.body()
                if data.count(b",") + data.count(b"{") + data.count(b"[") > MAX_ITEMS:
                    raise ApiError(400, "too_many", "The body has too many items.")
            return await inner(request)

        return handler


__all__ = ["BoundedRoute"]
