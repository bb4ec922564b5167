"""Training: recipes, data, collation and stages on transformers' Trainer.

`pvc train RECIPE.yaml` is `run_recipe(load_recipe(path), directory)`. Needs the extra `pvc-vlm[train]`.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {"Recipe": "recipe", "load_recipe": "recipe", "run_recipe": "pipeline"}
__all__ = ["Recipe", "load_recipe", "run_recipe"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"pvc.train.{_HOME[name]}"), name)
    raise AttributeError(f"module 'pvc.train' has no attribute {name!r}")
