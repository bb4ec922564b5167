"""The launch lines of docs/training.md, as printed but for the number of processes and the names of files."""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from pvc.cli.main import app
from tests.train.test_processes import NEEDS_DEEPSPEED
from tests.train.test_run import TINY

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
BLOCK = TEXT[TEXT.index("### Several processes") :].split("```sh\n")[1].split("```")[0]
LINES = [line for line in BLOCK.replace("\\\n", "").splitlines() if line and not line.startswith("#")]


def flags(command):
    return [flag for parameter in command.params for flag in parameter.opts if flag.startswith("--")]


def test_no_option_is_read_as_the_launcher_s():
    """torchrun and accelerate expand prefixes of their options even behind `-m pvc`: `--start` was `--start-method`."""
    from accelerate.commands.launch import launch_command_parser
    from torch.distributed.run import get_args_parser

    train = typer.main.get_command(app).commands["train"]
    for parser in (get_args_parser(), launch_command_parser()):
        assert isinstance(parser, argparse.ArgumentParser)
        theirs = [option for action in parser._actions for option in action.option_strings]
        for flag in flags(train):
            assert not [option for option in theirs if option.startswith(flag)], flag


def test_the_lines_are_there():
    assert [("torchrun" in line, "accelerate launch" in line, "DEEPSPEED" in line) for line in LINES] == [
        (True, False, False),
        (False, True, False),
        (True, False, True),
    ]
    assert all("--init-from pvc-1b" in line for line in LINES)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        pytest.param(LINES[0], id="ddp"),
        pytest.param(LINES[1], id="fsdp2"),
        pytest.param(LINES[2], id="deepspeed", marks=NEEDS_DEEPSPEED),
    ],
)
def test_a_launch_line_trains(tmp_path, line):
    stage = {**TINY["stages"][1], "steps": 2, "tasks": {"shape": 1}, "image_steps": {1: 1, 4: 1}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"name": "launched", "stages": [stage]}))
    line = re.sub(r"(nproc_per_node|num_processes) 8", r"\1 2", line)
    line = line.replace("RECIPE", "recipe.yaml").replace("pvc-1b", "nano").replace("recipes/", f"{ROOT}/recipes/")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {
        **os.environ,
        "PATH": path,
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
    }
    if "DEEPSPEED" not in line:  # accelerate would leave DeepSpeed aside
        environment["ACCELERATE_USE_CPU"] = "true"
    done = subprocess.run(line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "runs" / "x" / "model" / "model.safetensors").exists()
