"""`pvc eval`: accuracy per task on the synthetic held-out set, with 95 % intervals."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from pvc.checkpoint.files import CheckpointFiles


def evaluate(
    model: Annotated[Path | None, typer.Option(help="Model directory; the bundled one by default.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Held-out samples per task.")] = 200,
    task: Annotated[list[str] | None, typer.Option(help="Only this task; may be given several times.")] = None,
    seed: Annotated[int, typer.Option(help="Which held-out samples.")] = 0,
    split: Annotated[str, typer.Option(help="Held-out samples: test, fonts, colours or layouts.")] = "test",
    level: Annotated[int | None, typer.Option(min=1, help="Only this difficulty.")] = None,
    image_steps: Annotated[int | None, typer.Option(min=1, help="Steps of pictures.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    record: Annotated[bool, typer.Option("--record", help="Write the result into the model's training.json.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="CPU cores to use.")] = 2,
) -> None:
    """Measure how often the model's free-running answers are exactly right, on the tasks it was trained for."""
    from pvc.engine.engine import Engine
    from pvc.evaluate.accuracy import Held, measure
    from pvc.synthetic.seeding import Split

    files = CheckpointFiles(model)
    training = files.optional_json("training.json")
    stages = training.get("recipe", {}).get("stages", [])
    engine = Engine.load(model)
    results = measure(
        engine,
        tasks=task or (list(stages[-1]["tasks"]) if stages else None),
        count=count,
        held=Held(cast(Split, split), seed, level),
        image_steps=image_steps,
        threads=threads,
        report=lambda line: print(line, file=sys.stderr) if sys.stderr.isatty() else None,
    )
    if record:
        kept = {name: {k: v for k, v in result.items() if k != "wrong"} for name, result in results.items()}
        training["accuracy"] = {**training.get("accuracy", {}), **kept}
        path = files.directory / "training.json"
        path.write_text(json.dumps(training, indent=2) + "\n", encoding="utf-8")
    if json_output:
        print(json.dumps(results))
        return
    print(f"{'task':<12} {'right':>7}   95 % interval     characters   n")
    for name, result in results.items():
        low, high = result["interval"]
        print(
            f"{name:<12} {result['accuracy']:>7.1%}   {low:>6.1%} to {high:>6.1%}   {result['characters']:>10.1%}   "
            f"{result['count']}"
        )


__all__ = ["evaluate"]
