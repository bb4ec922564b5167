"""`pvc train RECIPE.yaml`: train a model as a recipe says, with checkpoints; calling it again goes on."""

from __future__ import annotations

import math
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pvc.cli.options import Dtype
from pvc.cli.progress import Journal, status
from pvc.errors import Interrupted, UsageError
from pvc.extras import require

if TYPE_CHECKING:
    from pvc.train.branch import Branch
    from pvc.train.recipe import Recipe

ENDLESS = 100_000_000

MinutesOption = Annotated[
    float | None, typer.Option(help="End the last stage after so long, whatever its steps; the schedule is shorter.")
]
StopAfterOption = Annotated[
    float | None, typer.Option(help="Save and stop after so many minutes, as Ctrl-C does; the schedule stays as it is.")
]
BranchOption = Annotated[
    Path | None,
    typer.Option(help="Run of this recipe: go on from its last checkpoint in OUT, and decay the learning rate."),
]
DecayStepsOption = Annotated[
    int | None, typer.Option(min=1, help="Steps of the decay of --branch. Default: those of the recipe's stage.")
]
ExportOption = Annotated[
    Path | None, typer.Option(help="Write OUT's last checkpoint as a model to this directory, with EMA, and stop.")
]
ExportDtypeOption = Annotated[
    Dtype | None, typer.Option("--dtype", help="Precision of the weights that --export writes. Default: bfloat16.")
]


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe file, for example recipes/nano.yaml.")],
    out: Annotated[Path | None, typer.Option(help="Directory of the run; by default runs/NAME.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU cores to use.")] = 1,
    workers: Annotated[int, typer.Option(min=0, help="Processes that draw samples beside the training.")] = 0,
    init_from: Annotated[
        str | None, typer.Option(help="Model directory to start from, or nano; else the recipe's.")
    ] = None,
    stage: Annotated[list[str] | None, typer.Option(help="Only this stage; may be given several times.")] = None,
    minutes: MinutesOption = None,
    stop_after: StopAfterOption = None,
    branch: BranchOption = None,
    decay_steps: DecayStepsOption = None,
    export: ExportOption = None,
    dtype: ExportDtypeOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the recipe, estimate memory, and stop.")] = False,
) -> None:
    """Train a model from a recipe. Ctrl-C saves and ends it; the same command resumes it. OUT/log.txt has its log."""
    for module in ("pydantic", "yaml", "accelerate", "matplotlib"):  # all of them before hours of work, not after
        require(module, "train")

    from pvc.train.branch import Branch
    from pvc.train.model_init import check_recipe, resolve_recipe
    from pvc.train.recipe import load_recipe

    check_options(minutes, stop_after, branch, decay_steps, export, dtype)
    loaded = resolve_recipe(changed(load_recipe(recipe), init_from, stage or [], minutes))
    directory = out or Path("runs") / loaded.name
    if export is not None:
        print_export(loaded, directory, export, dtype)
        return
    check_recipe(loaded)
    if dry_run:
        print_dry_run(loaded, str(recipe))
        return
    run_with_journal(
        loaded,
        directory,
        threads=threads,
        workers=workers,
        minutes=minutes,
        stop_after=stop_after,
        branch=None if branch is None else Branch(branch, decay_steps),
    )


def check_options(
    minutes: float | None,
    stop_after: float | None,
    branch: Path | None,
    decay_steps: int | None,
    export: Path | None,
    dtype: Dtype | None,
) -> None:
    """Raise UsageError for values, and for options that do not go together."""
    for name, value in (("--minutes", minutes), ("--stop-after", stop_after)):
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"{name} must be a number above 0, not {value}")
    if decay_steps is not None and branch is None:
        raise UsageError("--decay-steps is for --branch; the decay of a run is decay_steps of the recipe's stage")
    if branch is not None and minutes is not None:
        raise UsageError("--branch decays over --decay-steps: leave out --minutes")
    if dtype is not None and export is None:
        raise UsageError("--dtype is for --export; training has precision in the recipe's stage")
    if export is not None and branch is not None:
        raise UsageError("--export writes a model of OUT and --branch trains: use one of them")


def run_with_journal(
    recipe: Recipe,
    directory: Path,
    *,
    threads: int = 1,
    workers: int = 0,
    minutes: float | None = None,
    stop_after: float | None = None,
    branch: Branch | None = None,
) -> None:
    """Run a recipe with its log in `directory`/log.txt, and print where the model is."""
    from pvc.train.pipeline import run_recipe

    journal = Journal(directory / "log.txt")
    try:
        finished = run_recipe(
            recipe,
            directory,
            report=journal,
            threads=threads,
            workers=workers,
            minutes=minutes,
            stop_after=stop_after,
            branch=branch,
        )
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


def print_export(recipe: Recipe, directory: Path, target: Path, dtype: Dtype | None) -> None:
    """Write the last checkpoint of the run in `directory` as a model, and print what it is."""
    import torch

    from pvc.train.branch import branched
    from pvc.train.export import export_checkpoint

    chosen = None if dtype in (None, Dtype.auto) else getattr(torch, str(dtype))
    exported = export_checkpoint(branched(recipe, directory), directory, target, chosen)
    print(f"{exported.target}: {exported.describe()}")


def print_dry_run(recipe: Recipe, name: str) -> None:
    """Print what every stage would take, on one process and (its weights spread) on eight."""
    from pvc.train.memory import stage_memory
    from pvc.train.model_init import build_processor, initial_processor

    names = [stage.name for stage in recipe.stages]
    print(f"{name}: ok, {len(names)} stage{'s'[: len(names) != 1]}: {', '.join(names)}")
    with status("Drawing batches"):
        processor = build_processor(recipe) if recipe.start is None else initial_processor(recipe)
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
    kept = [stage for stage in recipe.stages if not stages or stage.name in stages]
    if minutes is not None:
        # Steps no longer say when to stop, only how many samples there are to draw from.
        kept[-1] = kept[-1].model_copy(update={"steps": ENDLESS})
    return recipe.model_copy(update={"stages": kept, **({"start": init_from} if init_from else {})})


__all__ = ["changed", "print_dry_run", "run_with_journal", "train"]
