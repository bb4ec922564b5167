"""An OpenAI-compatible server with pictures, videos and live streams, safe enough to put a port on: `pvc serve`.

`create_app(engine, settings)` makes the application; nothing here is global.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pvc.server.app import create_app
    from pvc.server.settings import Settings


def __getattr__(name: str) -> Any:
    """On demand: the application's libraries are an extra."""
    if name == "create_app":
        from pvc.server.app import create_app

        return create_app
    if name == "Settings":
        from pvc.server.settings import Settings

        return Settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Settings", "create_app"]
