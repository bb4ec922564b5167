"""The command line's surface: commands and options as they are. Change it on purpose only."""

import typer

from pvc.cli.main import app

MAX_OPTIONS = {"ask": 16, "serve": 16}  # options; 12 elsewhere
SURFACE = {
    "ask": [
        "--budget",
        "--device",
        "--dtype",
        "--fps",
        "--frames",
        "--image-steps",
        "--json",
        "--max-new-tokens",
        "--max-tiles",
        "--model",
        "--seed",
        "--temperature",
        "--times",
    ],
    "bench": [
        "--baseline",
        "--device",
        "--dtype",
        "--frames",
        "--image-steps",
        "--max-tiles",
        "--model",
        "--out",
        "--repeats",
        "--threads",
        "--tokens",
    ],
    "convert": [
        "--check",
        "--image-steps",
        "--init",
        "--map",
        "--num-frames",
        "--ratio",
        "--report",
        "--temporal-layers",
        "--timestep",
        "--timestep-limit",
        "--to",
        "--window",
    ],
    "data check": ["--frames", "--json", "--max-seq-len", "--model"],
    "distill": [
        "--batch-size",
        "--data",
        "--dry-run",
        "--eval-data",
        "--learning-rate",
        "--loss",
        "--out",
        "--steps",
        "--target",
        "--teacher",
        "--threads",
        "--workers",
    ],
    "encode": [
        "--append",
        "--device",
        "--dtype",
        "--fps",
        "--frames",
        "--image-steps",
        "--max-tiles",
        "--model",
        "--no-cache",
        "--output",
        "--time-offset",
        "--times",
    ],
    "info": ["--json"],
    "lab ablate": ["--arm", "--dry-run", "--out", "--report-only", "--seed", "--study", "--threads", "--work"],
    "lab eval": [
        "--count",
        "--dtype",
        "--image-steps",
        "--json",
        "--level",
        "--model",
        "--record",
        "--seed",
        "--split",
        "--task",
        "--threads",
        "--zoom",
    ],
    "lab fit-steps": ["--count", "--dry-run", "--dtype", "--json", "--loss", "--seed", "--task", "--threads"],
    "lab synth": [
        "--count",
        "--force",
        "--frames",
        "--level",
        "--list",
        "--seed",
        "--size",
        "--split",
        "--task",
        "--tiles",
    ],
    "live": [
        "--ask",
        "--device",
        "--dtype",
        "--every",
        "--fps",
        "--json",
        "--max-new-tokens",
        "--model",
        "--recent",
        "--seconds",
        "--speed",
        "--window",
    ],
    "serve": [
        "--allow-host",
        "--batch",
        "--dtype",
        "--engine",
        "--host",
        "--keys",
        "--max-new-tokens",
        "--model",
        "--name",
        "--port",
        "--queue",
        "--root",
        "--unsafe-decode",
    ],
    "train": [
        "--branch",
        "--decay-steps",
        "--dry-run",
        "--dtype",
        "--export",
        "--init-from",
        "--minutes",
        "--out",
        "--stage",
        "--stop-after",
        "--threads",
        "--workers",
    ],
}


def commands():
    """Every command by its name, those of groups with the group's name before theirs."""
    for name, command in typer.main.get_command(app).commands.items():
        inner = getattr(command, "commands", None)
        yield from ([(name, command)] if inner is None else [(f"{name} {own}", one) for own, one in inner.items()])


def test_surface():
    found = {
        name: sorted(option for parameter in command.params for option in parameter.opts if option.startswith("--"))
        for name, command in commands()
    }
    found = {name: [option for option in options if option != "--help"] for name, options in found.items()}
    assert found == SURFACE
    assert {name: len(options) for name, options in found.items() if len(options) > MAX_OPTIONS.get(name, 12)} == {}


def test_every_option_has_help():
    for name, command in commands():
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None), (name, parameter.name)
