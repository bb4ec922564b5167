"""The recipe that `pvc distill` runs: one stage of kind distill, with defaults from `recipe.DISTILL_DEFAULTS`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pvc.errors import UsageError
from pvc.train.recipe import DISTILL_DEFAULTS, Recipe

MEASUREMENTS = 10


def build_recipe(
    student: str | Path,
    teacher: str | Path,
    data: Sequence[str],
    *,
    name: str = "distill",
    loss: str = "tokens",
    target: str = "map",
    steps: int = 2000,
    batch_size: int = 32,
    learning_rate: float | None = None,
    eval_media: str | Path | None = None,
) -> Recipe:
    """Build a recipe of one stage.

    Args:
        student, teacher: directories.
        data: folders of media and files of conversations, in equal parts.
        name: of the run; characters that a recipe's name cannot have become "-".
        loss, target, steps, batch_size, learning_rate, eval_media: as `recipe.Distill` and `recipe.Stage` have them.

    Raises:
        UsageError: a value that is not allowed.
    """
    folders = {path: 1.0 for path in data if Path(path).is_dir()}
    distill: dict[str, Any] = {"teacher": str(teacher), "media": folders, "loss": loss, "target": target}
    stage: dict[str, Any] = {
        "name": "distill",
        "kind": "distill",
        "steps": steps,
        "batch_size": batch_size,
        "warmup_steps": min(DISTILL_DEFAULTS["warmup_steps"], steps // 10),
        "files": {path: 1.0 for path in data if path not in folders},
        "distill": distill,
    }
    if learning_rate is not None:
        stage["learning_rate"] = learning_rate
    if eval_media is not None:
        distill["eval_media"] = str(eval_media)
        stage["evaluate_every"] = max(1, steps // MEASUREMENTS)
    name = re.sub(r"[^a-z0-9_-]", "-", name.lower()) or "distill"
    try:
        return Recipe.model_validate({"name": name, "start": str(student), "stages": [stage]})
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"--{str(first['loc'][-1]).replace('_', '-')}: {first['msg']}") from error


__all__ = ["build_recipe"]
