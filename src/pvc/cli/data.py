"""`pvc data check FILE...`: counts, lengths and bad rows of training files, before a GPU is paid for.

Called by `main.py`; the work is `pvc.train.data.check`'s.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pvc.cli.progress import counting
from pvc.extras import require

if TYPE_CHECKING:
    from pvc.train.data.check import FileReport

data = typer.Typer(help="Files of conversations to train on.", no_args_is_help=True)
SHOWN = 20


@data.callback()
def _group() -> None:
    """Files of conversations to train on."""


@data.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="JSON-lines files of conversations.")],
    model: Annotated[Path | None, typer.Option(help="Whose tokenizer and tiling count; the bundled one's.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames of a video; by default the model's own.")] = None,
    max_seq_len: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum of tokens of a row; by default the positions of the language model."),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Read every row and its media as training would: how many, how long, and which are bad. Exit code 3 if any is."""
    require("pydantic", "train")
    from pvc.checkpoint.files import CheckpointFiles
    from pvc.checkpoint.loading import load_config, load_processor
    from pvc.train.data.check import check_file

    checkpoint = CheckpointFiles(model)
    processor = load_processor(checkpoint)
    limit = max_seq_len or getattr(load_config(checkpoint).text_config, "max_position_embeddings", None)
    taken = frames or processor.video_processor.num_frames
    reports = []
    for path in files:
        with counting(path.name) as progress:
            reports.append(check_file(str(path), processor, frames=taken, longest=limit, progress=progress))
    if json_output:
        print(json.dumps({"files": [report.describe() for report in reports]}))
    else:
        for report in reports:
            _tell(report)
    if any(report.bad for report in reports):
        raise typer.Exit(3)


def _tell(report: FileReport) -> None:
    facts = report.describe()
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(facts["kinds"].items()))
    print(f"{report.path}: {facts['rows']:,} rows, {facts['good']:,} good{f' ({kinds})' if kinds else ''}")
    for name in ("tokens", "visual_tokens", "answer_tokens"):
        print(f"  {name.replace('_', ' '):<14}{_spread(facts[name])}")
    if report.bad:
        print(f"  {len(report.bad):,} bad:")
    for line, reason in sorted(report.bad.items())[:SHOWN]:
        print(f"  line {line}: {reason}")
    if len(report.bad) > SHOWN:
        print(f"  and {len(report.bad) - SHOWN:,} more (--json has them all)")


def _spread(values: dict[str, Any]) -> str:
    return (
        f"{values['total']:>12,} in all; a row {values['least']:,} to {values['most']:,}, median {values['median']:,}"
    )


__all__ = ["data"]
