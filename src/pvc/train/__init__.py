"""Training: recipes, data, collation and stages on transformers' Trainer.

`pvc train RECIPE.yaml` calls `run_recipe(load_recipe(path), directory)`. Needs the extra `pvc-vlm[train]`.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {"Recipe": "recipe", "load_recipe": "recipe", "run_recipe": "pipeline"}
__all__ = ["Recipe", "load_recipe", "run_recipe"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"pvc.train.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'pvc.train' has no attribute {name!r}")
