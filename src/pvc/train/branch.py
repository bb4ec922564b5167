"""Start a run from a checkpoint of another run (the trunk) to decay its learning rate to zero.

Weights, optimizer state, EMA and the order of examples are copied. The trunk is only read and may continue meanwhile.
Called by `pipeline.py` and `pvc train --branch`.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from pvc.errors import ConfigError, UsageError
from pvc.train.recipe import Recipe, Stage, written_from
from pvc.train.stage_log import Report
from pvc.train.stage_model import FINAL
from pvc.train.trainer import checkpoint_step, complete, publish

BRANCH_FILE = "branch.json"
MAX_ATTEMPTS = 5  # a running trunk may delete the checkpoint that is being copied


@dataclass(frozen=True)
class Branch:
    """Where a run branches off.

    Attributes:
        trunk: directory of the other run.
        decay_steps: steps until the learning rate is zero; by default those of the stage's decay.
    """

    trunk: Path
    decay_steps: int | None = None


def branched(recipe: Recipe, directory: Path) -> Recipe:
    """Return the recipe of the branch in a directory, or the recipe unchanged if there is no branch.

    Args:
        recipe: of the trunk.
        directory: of the new run.
    """
    path = directory / BRANCH_FILE
    if not path.exists():
        return recipe
    values = json.loads(path.read_text(encoding="utf-8"))
    number = [stage.name for stage in recipe.stages].index(values["stage"])
    update = {"steps": values["step"] + values["decay_steps"], "decay_steps": values["decay_steps"]}
    last = recipe.stages[number].model_copy(update=update)
    return recipe.model_copy(update={"stages": [*recipe.stages[:number], last]})


def start_branch(recipe: Recipe, branch: Branch, directory: Path, report: Report) -> None:
    """Copy what a branch starts from into `directory`, completely or not at all; do nothing if it is there already.

    Args:
        recipe: of the trunk.
        branch: where to branch off.
        directory: of the new run; it must not exist, or be empty, or have this branch.
        report: gets a line with the step of the checkpoint.

    Raises:
        UsageError: the trunk is not a run of this recipe, or `directory` has other contents.
        ConfigError: the trunk has no checkpoint with a constant learning rate.
    """
    trunk = branch.trunk
    if (directory / BRANCH_FILE).exists():
        steps = json.loads((directory / BRANCH_FILE).read_text(encoding="utf-8"))["decay_steps"]
        if branch.decay_steps not in (None, steps):
            raise UsageError(
                f"{directory} holds a branch of {steps} steps, not {branch.decay_steps}; choose another --out"
            )
        return
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"{directory} exists and holds no branch; choose another --out")
    if not (trunk / "recipe.json").exists():
        raise UsageError(f"{trunk} holds no run (it has no recipe.json)")
    if not written_from((trunk / "recipe.json").read_text(encoding="utf-8"), recipe):
        raise UsageError(f"{trunk} holds a run of another recipe; pass the run's recipe and its options")
    staging = directory.with_name(f"{directory.name}.part")
    stage, checkpoint = _copy_checkpoint(recipe, trunk, staging)
    step, steps = checkpoint_step(checkpoint), branch.decay_steps or stage.decay_length
    _copy_rest(recipe, stage, trunk, staging)
    values = {"trunk": str(trunk), "stage": stage.name, "step": step, "decay_steps": steps}
    (staging / BRANCH_FILE).write_text(json.dumps(values) + "\n", encoding="utf-8")
    directory.parent.mkdir(parents=True, exist_ok=True)
    if directory.exists():
        directory.rmdir()
    publish(staging, directory)
    report(f"{stage.name}: branched from {trunk} at step {step}, to decay over {steps} steps")


def _copy_checkpoint(recipe: Recipe, trunk: Path, staging: Path) -> tuple[Stage, Path]:
    """Copy the last checkpoint of the last stage that has one; return the stage and the original."""
    for _ in range(MAX_ATTEMPTS):
        stage, checkpoint = _find_last_checkpoint(recipe, trunk)
        _check_learning_rate(stage, checkpoint)
        shutil.rmtree(staging, ignore_errors=True)
        try:
            shutil.copytree(checkpoint, staging / stage.name / checkpoint.name)
        except (shutil.Error, OSError):
            if checkpoint.exists():
                raise
            continue  # it was deleted meanwhile: search again
        return stage, checkpoint
    raise UsageError(f"{trunk}: checkpoints are deleted before they can be copied; raise save_steps")


def _find_last_checkpoint(recipe: Recipe, trunk: Path) -> tuple[Stage, Path]:
    for stage in reversed(recipe.stages):
        checkpoint = next(iter(complete(trunk / stage.name)), None)
        if checkpoint is not None:
            return stage, checkpoint
    raise ConfigError(f"{trunk} has no checkpoint yet; wait for the first one (save_steps, save_minutes)")


def _check_learning_rate(stage: Stage, checkpoint: Path) -> None:
    """Raise ConfigError unless the learning rate after `checkpoint` is the constant one of schedule wsd."""
    if stage.schedule != "wsd":
        raise ConfigError(f"stage {stage.name}: only schedule wsd can be branched, not {stage.schedule}")
    if (checkpoint.parent / "clock.json").exists():
        raise ConfigError(f"stage {stage.name}: a run with --minutes follows the clock and cannot be branched")
    first, last, step = stage.warmup_steps, stage.steps - stage.decay_length, checkpoint_step(checkpoint)
    if not first <= step <= last:
        raise ConfigError(
            f"stage {stage.name}: the last checkpoint is from step {step}, but the learning rate is constant "
            f"from step {first} to {last}; branch while the run is between them"
        )


def _copy_rest(recipe: Recipe, stage: Stage, trunk: Path, staging: Path) -> None:
    """Copy what a run needs besides the checkpoint: processor, earlier stages, curve, bad records, cached examples."""
    shutil.copytree(trunk / "processor", staging / "processor")
    for path in trunk.glob("*.jsonl"):
        shutil.copy2(path, staging / path.name)
    if (trunk / "cache" / stage.name).is_dir():
        shutil.copytree(trunk / "cache" / stage.name, staging / "cache" / stage.name)
    for earlier in recipe.stages[: recipe.stages.index(stage)]:
        (staging / earlier.name).mkdir()
        for name in (FINAL, "done.json"):
            shutil.copy2(trunk / earlier.name / name, staging / earlier.name / name)


__all__ = ["BRANCH_FILE", "Branch", "branched", "start_branch"]
