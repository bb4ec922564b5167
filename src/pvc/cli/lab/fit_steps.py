"""`pvc lab fit-steps`: measures what steps of a picture bring a checkpoint, and leaves it a head that chooses them.

Called by `main.py`. The measuring is `pvc.lab.evaluate.steps`, the head `pvc.lab.step_predictor`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pvc.checkpoint.files import CheckpointFiles
from pvc.cli.options import Dtype, DtypeOption
from pvc.errors import UsageError


def fit_steps(
    model: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Model directory; the bundled model by default.")
    ] = None,
    count: Annotated[int, typer.Option(min=8, help="Held-out pictures per task.")] = 240,
    task: Annotated[list[str] | None, typer.Option(help="Only this task; may be given several times.")] = None,
    loss: Annotated[
        float, typer.Option(min=0.0, help="Points of accuracy that may be lost against all steps for every picture.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Which held-out samples.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure, and write nothing.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    dtype: DtypeOption = Dtype.auto,
    threads: Annotated[int, typer.Option(min=1, help="CPU cores to use.")] = 2,
) -> None:
    """Train the step predictor, which `pvc lab eval --image-steps auto` uses, on the answers of the model.

    Pictures of the synthetic world are asked about with 1, 2, 4, ... steps. The result lies beside the weights, which
    must not be changed afterwards.
    """
    import torch

    from pvc.engine.engine import Engine
    from pvc.lab.evaluate.steps import PICTURE_TASKS, collect, fit

    torch.set_num_threads(threads)
    directory = CheckpointFiles(model).directory
    if not dry_run and not os.access(directory, os.W_OK):
        raise UsageError(f"{directory} cannot be written to; --dry-run measures without")
    engine = Engine.load(model, dtype=dtype)
    most = engine.processor.image_processor.image_steps
    steps = sorted({1 << power for power in range(most.bit_length())} | {most})
    if len(steps) == 1:
        raise UsageError(f"{engine.name} gives every picture one step: there is nothing to choose")

    def report(name: str, accuracy: Any) -> None:
        if sys.stderr.isatty():
            told = ", ".join(f"{number}: {value:.1%}" for number, value in zip(steps, accuracy, strict=True))
            print(f"{name}  {told}", file=sys.stderr)

    data = collect(engine, steps, task or PICTURE_TASKS, count, seed=seed, report=report)
    head = fit(engine, data, steps, loss / 100)
    path = None if dry_run else head.save(directory)
    if json_output:
        print(json.dumps({"file": str(path) if path else None, "steps": steps, "price": head.price, **head.facts}))
        return
    for number, accuracy in head.facts["fixed"].items():
        print(f"{number} step{'s' * (number != '1')} for all: {accuracy:.1%}")
    print(f"chosen: {head.facts['accuracy']:.1%} with {head.facts['mean_steps']:.2f} steps in the mean")
    print(f"written to {path}" if path else "nothing written")


__all__ = ["fit_steps"]
