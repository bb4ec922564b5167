"""`pvc lab`: studies of the method at small scale. Called by `main.py`; one file a command."""

from __future__ import annotations

import typer

from pvc.cli.lab.ablate import ablate
from pvc.cli.lab.evaluate import evaluate
from pvc.cli.lab.fit_steps import fit_steps
from pvc.cli.lab.synth import synth

lab = typer.Typer(no_args_is_help=True, help="Study the method at small scale: synthetic tasks, accuracy, ablation.")
lab.command()(ablate)
lab.command("eval")(evaluate)
lab.command("fit-steps")(fit_steps)
lab.command()(synth)

__all__ = ["lab"]
