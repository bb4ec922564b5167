"""`pvc lab eval`: accuracy per task on the synthetic held-out set, with 95 % intervals."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from pvc.checkpoint.files import CheckpointFiles
from pvc.cli.options import Dtype, DtypeOption
from pvc.errors import UsageError


def evaluate(
    model: Annotated[Path | None, typer.Option(help="Model directory; the bundled one by default.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Held-out samples per task.")] = 200,
    task: Annotated[list[str] | None, typer.Option(help="Only this task; may be given several times.")] = None,
    seed: Annotated[int, typer.Option(help="Which held-out samples.")] = 0,
    split: Annotated[str, typer.Option(help="Held-out samples: test, fonts, colours or layouts.")] = "test",
    level: Annotated[list[int] | None, typer.Option(help="Only this difficulty, 1 to 4; may be repeated.")] = None,
    image_steps: Annotated[str | None, typer.Option(metavar="N|auto", help="Steps of pictures.")] = None,
    zoom: Annotated[
        int, typer.Option(min=1, max=4, help="Pictures of so many times a tile's side; they are cut into tiles.")
    ] = 1,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    record: Annotated[bool, typer.Option("--record", help="Write the result into the model's training.json.")] = False,
    dtype: DtypeOption = Dtype.auto,
    threads: Annotated[int, typer.Option(min=1, help="CPU cores to use.")] = 2,
) -> None:
    """Measure how often the model's free-running answers are exactly right, on the tasks it was trained for."""
    from pvc.engine.engine import Engine
    from pvc.lab.evaluate.accuracy import HeldOutSet, measure
    from pvc.lab.synthetic.seeding import Split

    steps = _steps(image_steps)
    files = CheckpointFiles(model)
    training = files.optional_json("training.json")
    stages = training.get("recipe", {}).get("stages", [])
    engine = Engine.load(model, dtype=dtype)
    rows = measure(
        engine,
        tasks=task or (list(stages[-1]["tasks"]) if stages else None),
        count=count,
        held=HeldOutSet(cast(Split, split), seed, zoom=zoom),
        levels=level or (None,),
        image_steps=steps,
        threads=threads,
        report=lambda line: print(line, file=sys.stderr) if sys.stderr.isatty() else None,
    )
    if record:
        training["accuracy"] = recorded(training.get("accuracy", []), rows)
        path = files.directory / "training.json"
        path.write_text(json.dumps(training, indent=1) + "\n", encoding="utf-8")
    if json_output:
        print(json.dumps(rows))
        return
    print(f"{'task':<10} {'level':>5} {'right':>7}   95 % interval     characters   n")
    for row in rows:
        low, high = row["interval"]
        print(
            f"{row['task']:<10} {row['level'] or 'all':>5} {row['accuracy']:>7.1%}   {low:>6.1%} to {high:>6.1%}   "
            f"{row['characters']:>10.1%}   {row['count']}"
            + (f"   {row['mean_steps']:.2f} steps" if "mean_steps" in row else "")
        )


def _steps(text: str | None) -> int | Literal["auto"] | None:
    """Parse --image-steps. Raises UsageError unless it is a number of at least 1, or "auto"."""
    if text is None:
        return None
    if text == "auto":
        return "auto"
    if not text.isascii() or not text.isdigit() or not 1 <= len(text) <= 6 or int(text) < 1:
        raise UsageError(f"--image-steps must be a number of at least 1, or auto, not {text!r}")
    return int(text)


def recorded(before: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a model's record says after a measurement: new rows take the place of those about the same."""

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["task"], row["level"], row["split"], row["image_steps"], row.get("zoom", 1)

    new = {key(row) for row in rows}
    kept = [{name: value for name, value in row.items() if name != "wrong"} for row in rows]
    return [row for row in before if key(row) not in new] + kept


__all__ = ["evaluate", "recorded"]
