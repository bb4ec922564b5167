"""`pvc train RECIPE.yaml`: train a model as a recipe says, with checkpoints; calling it again goes on."""

from __future__ import annotations

import math
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pvc.cli.progress import Journal, status
from pvc.errors import Interrupted, UsageError
from pvc.extras import require

if TYPE_CHECKING:
    from pvc.train.recipe import Recipe

ENDLESS = 100_000_000


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe file, for example recipes/nano.yaml.")],
    out: Annotated[Path | None, typer.Option(help="Directory of the run; by default runs/NAME.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU cores to use.")] = 1,
    workers: Annotated[int, typer.Option(min=0, help="Processes that draw samples beside the training.")] = 0,
    init_from: Annotated[
        str | None, typer.Option(help="Model directory to start from, or nano; else the recipe's.")
    ] = None,
    stage: Annotated[list[str] | None, typer.Option(help="Only this stage; may be given several times.")] = None,
    minutes: Annotated[float | None, typer.Option(help="End the last stage after so long, whatever its steps.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the recipe, estimate memory, and stop.")] = False,
) -> None:
    """Train a model from a recipe. Ctrl-C saves and ends it; the same command resumes it. OUT/log.txt has its log."""
    for module in ("pydantic", "yaml", "accelerate", "matplotlib"):  # all of them before hours of work, not after
        require(module, "train")

    from pvc.train.build import check_recipe, resolved
    from pvc.train.recipe import load_recipe

    loaded = resolved(changed(load_recipe(recipe), init_from, stage or [], minutes))
    check_recipe(loaded)
    if dry_run:
        print_dry_run(loaded, str(recipe))
        return
    run_with_journal(loaded, out or Path("runs") / loaded.name, threads=threads, workers=workers, minutes=minutes)


def run_with_journal(
    recipe: Recipe, directory: Path, *, threads: int = 1, workers: int = 0, minutes: float | None = None
) -> None:
    """Run a recipe with its log in `directory`/log.txt, and print where the model is."""
    from pvc.train.run import run_recipe

    journal = Journal(directory / "log.txt")
    try:
        finished = run_recipe(recipe, directory, report=journal, threads=threads, workers=workers, minutes=minutes)
    except Interrupted as error:
        raise Interrupted(f"{error}. {_how_to_resume()}") from error
    finally:
        journal.close()
    if os.environ.get("RANK", "0") == "0":  # under torchrun every process comes here
        print(finished)


def _how_to_resume() -> str:
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "To resume, launch it again with the same command"
    return f"Resume with: {shlex.join(['pvc', *sys.argv[1:]])}"


def print_dry_run(recipe: Recipe, name: str) -> None:
    """Print what every stage would take, on one process and (its weights spread) on eight."""
    from pvc.train.build import build_processor, start_processor
    from pvc.train.memory import stage_memory

    names = [stage.name for stage in recipe.stages]
    print(f"{name}: ok, {len(names)} stage{'s'[: len(names) != 1]}: {', '.join(names)}")
    with status("Drawing batches"):
        processor = build_processor(recipe) if recipe.start is None else start_processor(recipe)
    for stage in recipe.stages:
        if stage.kind == "chat":
            with status(f"Working out the memory of {stage.name}"):
                memory = stage_memory(recipe, stage, processor)
            print(f"{stage.name}: {memory.describe(8)}")
        elif stage.is_token_distillation:
            from pvc.train.distill.cost import stage_cost

            with status(f"Working out the cost of {stage.name}"):
                cost = stage_cost(recipe, stage, processor)
            print(f"{stage.name}: {cost.describe()}")
        elif stage.kind == "distill":
            print(f"{stage.name}: memory and cost are worked out for the token loss only")


def changed(recipe: Recipe, init_from: str | None, stages: list[str], minutes: float | None) -> Recipe:
    """The recipe as the command line changes it; raises UsageError for stages that it has not."""
    names = [stage.name for stage in recipe.stages]
    if unknown := [name for name in stages if name not in names]:
        raise UsageError(f"the recipe has no stage {', '.join(unknown)}; it has {', '.join(names)}")
    if minutes is not None and not 0 < minutes < math.inf:
        raise UsageError(f"--minutes must be a number above 0, not {minutes}")
    kept = [stage for stage in recipe.stages if not stages or stage.name in stages]
    if minutes is not None:
        # Steps no longer say when to stop, only how many samples there are to draw from.
        kept[-1] = kept[-1].model_copy(update={"steps": ENDLESS})
    return recipe.model_copy(update={"stages": kept, **({"start": init_from} if init_from else {})})


__all__ = ["changed", "print_dry_run", "run_with_journal", "train"]
