"""`pvc train RECIPE.yaml`: train a model as a recipe says, with checkpoints; calling it again goes on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pvc.cli.progress import Journal
from pvc.extras import require


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe file, for example recipes/nano.yaml.")],
    out: Annotated[Path | None, typer.Option(help="Directory of the run; by default runs/NAME.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU cores to use.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the recipe and stop.")] = False,
) -> None:
    """Train a model from a recipe. A run that was interrupted goes on; what it does is in OUT/log.txt."""
    for module in ("pydantic", "yaml", "accelerate", "matplotlib"):  # all of them before hours of work, not after
        require(module, "train")

    from pvc.train.build import check_recipe
    from pvc.train.recipe import load_recipe

    loaded = load_recipe(recipe)
    check_recipe(loaded)
    if dry_run:
        print(f"{recipe}: ok, {len(loaded.stages)} stages: {', '.join(stage.name for stage in loaded.stages)}")
        return

    from pvc.train.run import run_recipe

    directory = out or Path("runs") / loaded.name
    finished = run_recipe(loaded, directory, report=Journal(directory / "log.txt"), threads=threads)
    if os.environ.get("RANK", "0") == "0":  # under torchrun every process comes here
        print(finished)


__all__ = ["train"]
