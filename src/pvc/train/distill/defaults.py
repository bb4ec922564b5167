"""Build the recipe of `pvc distill`: one stage of kind distill, with defaults from `recipe.DISTILL_DEFAULTS`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pvc.errors import UsageError
from pvc.train.recipe import DISTILL_DEFAULTS, Recipe

NUM_EVALUATIONS = 10


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
        student: directory of the model.
        teacher: directory of the model.
        data: folders of media and files of conversations, with equal weights.
        name: of the run; characters that are not allowed in a name become "-".
        loss: as in `recipe.Distill`.
        target: as in `recipe.Distill`.
        steps: as in `recipe.Stage`.
        batch_size: as in `recipe.Stage`.
        learning_rate: as in `recipe.Stage`; by default that of `DISTILL_DEFAULTS`.
        eval_media: as in `recipe.Distill`; it is measured `NUM_EVALUATIONS` times.

    Raises:
        UsageError: a value is not allowed.
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
        stage["evaluate_every"] = max(1, steps // NUM_EVALUATIONS)
    name = re.sub(r"[^a-z0-9_-]", "-", name.lower()) or "distill"
    try:
        return Recipe.model_validate({"name": name, "start": str(student), "stages": [stage]})
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"--{str(first['loc'][-1]).replace('_', '-')}: {first['msg']}") from error


__all__ = ["build_recipe"]
