"""Optional dependencies: one guarded import, whose error names the extra to install."""

from __future__ import annotations

import importlib
from types import ModuleType

from pvc.errors import MissingExtraError


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or raise MissingExtraError that says `pip install 'pvc-vlm[extra]'`."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{module.split('.')[0]} is not installed; it comes with: pip install 'pvc-vlm[{extra}]'"
        ) from error
