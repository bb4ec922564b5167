"""OpenAI-compatible server for pictures, videos and live videos, safe for untrusted clients. Started by `pvc serve`.

`create_app(engine, settings)` builds the application. The package has no global state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pvc.server.app import create_app
    from pvc.server.settings import Settings


def __getattr__(name: str) -> Any:
    """Import on first use: the libraries that the application needs are an optional extra."""
    if name == "create_app":
        from pvc.server.app import create_app

        return create_app
    if name == "Settings":
        from pvc.server.settings import Settings

        return Settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Settings", "create_app"]
