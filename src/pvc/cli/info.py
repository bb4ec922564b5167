"""`pvc info [DIR]`: what a checkpoint is, read from its JSON and its tensors' headers (no torch)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pvc.checkpoint.files import PARTS, CheckpointFiles, Tensor, part_of
from pvc.checkpoint.precision import default_dtype
from pvc.errors import CheckpointError


def describe(files: CheckpointFiles) -> dict[str, Any]:
    """The facts of a checkpoint, as `pvc info --json` prints them.

    Raises:
        CheckpointError: the configuration lacks what every PVC model has.
    """
    tensors: list[Tensor] = files.tensors()
    try:
        vision, text = files.config["vision_config"], files.config["text_config"]
        grid = vision["image_size"][0] // vision["patch_size"][0]
        tokens = round((grid * files.config["downsample_ratio"]) ** 2)
        shape = {
            "frame": f"{vision['image_size'][0]} x {vision['image_size'][0]} px, {grid} x {grid} patches",
            "vision_layers": vision["num_hidden_layers"],
            "temporal_layers": vision["num_temporal_layers"],
            "vision_width": vision["hidden_size"],
            "timestep": f"{vision['timestep']} x {vision['timestep_scale']:g}",
            "temporal_window": vision["temporal_window"],
            "downsample_ratio": files.config["downsample_ratio"],
            "image_steps": files.config["image_steps"],
            "language_model": f"{text['model_type']}, {text['num_hidden_layers']} layers x {text['hidden_size']}",
            "vocabulary": text["vocab_size"],
        }
    except (KeyError, TypeError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(f"{files.directory}/config.json lacks or garbles {error}") from error
    parameters = {part: sum(t.count for t in tensors if part_of(t.name) == part) for part in PARTS}
    training = files.optional_json("training.json")
    return {
        "directory": str(files.directory),
        "shape": shape,
        "tokens_per_frame": tokens,
        "parameters": {**parameters, "total": sum(parameters.values())},
        "weights_bytes": sum(t.nbytes for t in tensors),
        "dtypes": sorted({t.dtype for t in tensors}),
        "dtype_on_this_cpu": default_dtype(tensors, "cpu"),
        "frames_by_default": files.media_settings.num_frames,
        "training": training,
    }


def info(
    directory: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Model directory; the bundled model by default.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Show a checkpoint: shapes, parameters by part, tokens per frame, how it was trained."""
    facts = describe(CheckpointFiles(directory))
    if json_output:
        print(json.dumps(facts))
        return

    from rich.console import Console
    from rich.table import Table

    table = Table(title=facts["directory"], show_header=False, title_justify="left", box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in facts["shape"].items():
        table.add_row(name.replace("_", " "), "none" if value is None else str(value))
    table.add_row("tokens per frame", str(facts["tokens_per_frame"]))
    for part, count in facts["parameters"].items():
        table.add_row(f"parameters, {part}", f"{count:,}")
    table.add_row("weights", f"{facts['weights_bytes'] / 2**20:.1f} MiB, {', '.join(facts['dtypes'])}")
    table.add_row("computed in, on this CPU", facts["dtype_on_this_cpu"])
    table.add_row("frames by default", str(facts["frames_by_default"]))
    _training_rows(table, facts["training"])
    Console().print(table)


def _training_rows(table: Any, training: dict[str, Any]) -> None:
    if not training:
        table.add_row("training", "not recorded")
        return
    for stage in training.get("recipe", {}).get("stages", []):
        what = f"{stage['kind']}, {stage['steps']:,} steps x {stage['batch_size']}, ratio {stage['downsample_ratio']}"
        table.add_row(f"trained, {stage['name']}", what)
    for row in training.get("accuracy", []):
        if row["split"] != "test" or row["image_steps"] is not None:
            continue
        low, high = row["interval"]
        what = f"{row['task']}" + (f" {row['level']}" if row["level"] else "")
        table.add_row(f"held-out, {what}", f"{row['accuracy']:.1%} ({low:.1%} to {high:.1%}), n = {row['count']}")


__all__ = ["describe", "info"]
