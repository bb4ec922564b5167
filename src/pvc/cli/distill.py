"""`pvc distill STUDENT --teacher TEACHER`: improve a converted checkpoint without labels, on a folder of media.

Called by `main.py`; the work is `pvc.train`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pvc.cli.train import print_dry_run, run_with_journal
from pvc.extras import require

_TRAIN_MODULES = ("pydantic", "yaml", "accelerate", "matplotlib")


def distill(
    student: Annotated[Path, typer.Argument(help="Directory that `pvc convert SOURCE STUDENT` wrote.")],
    teacher: Annotated[
        Path, typer.Option(help="Directory that `pvc convert SOURCE TEACHER --ratio 1/2 --image-steps 1` wrote.")
    ],
    data: Annotated[
        list[str],
        typer.Option(help="Folder of pictures and videos, or a file of conversations (x.jsonl); may be repeated."),
    ],
    out: Annotated[Path, typer.Option(help="Directory of the run; the distilled checkpoint is OUT/model.")],
    loss: Annotated[
        str, typer.Option(help="tokens (the language model is not run) or answers (the teacher's own).")
    ] = "tokens",
    target: Annotated[
        str, typer.Option(help="What fewer steps learn by --loss tokens: map, mean or block; see docs/distill.md.")
    ] = "map",
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = 2000,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures or videos of a step, over all processes.")] = 32,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate; by default the recipe's.")] = None,
    eval_data: Annotated[Path | None, typer.Option(help="Folder of media to measure on, ten times in a run.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU cores to use.")] = 1,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode beside the training.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check data and checkpoints, print memory and cost, and stop.")
    ] = False,
) -> None:
    """Distill a converted checkpoint from its own base, without labels.

    The student learns pictures in fewer steps, and memory over frames. Ctrl-C saves; the same command resumes.
    """
    for module in _TRAIN_MODULES:
        require(module, "train")

    from pvc.train.distill.defaults import build_recipe
    from pvc.train.model_init import check_recipe, resolve_recipe

    recipe = resolve_recipe(
        build_recipe(
            student,
            teacher,
            data,
            name=out.name,
            loss=loss,
            target=target,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            eval_media=eval_data,
        )
    )
    check_recipe(recipe)
    if dry_run:
        print_dry_run(recipe, str(student))
        return
    run_with_journal(recipe, out, threads=threads, workers=workers)


__all__ = ["distill"]
