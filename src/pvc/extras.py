"""Guarded import of optional dependencies; its error names the extra to install.

Called by every module that needs a package of an optional extra (train, serve, convert, vllm, fonts).
"""

from __future__ import annotations

import importlib
from types import ModuleType

from pvc.errors import MissingExtraError


def require(module: str, extra: str) -> ModuleType:
    """Import a module of an optional dependency.

    Args:
        module: dotted name of the module.
        extra: extra of `pvc-vlm` that installs the module.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: the module is not installed; the message names `pip install 'pvc-vlm[extra]'`.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{module.split('.')[0]} is not installed; install it with: pip install 'pvc-vlm[{extra}]'"
        ) from error
