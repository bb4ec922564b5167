"""A training that is killed (SIGKILL, from outside) and called again ends with the same bits as one that was not."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.train.test_run import TINY

STAGES = [
    {**TINY["stages"][0], "steps": 12, "save_steps": 4},
    {
        **TINY["stages"][1],
        "steps": 60,
        "save_steps": 5,
        "image_steps": {1: 1, 2: 1, 4: 1},
        "tasks": {"shape": 1, "direction": {"weight": 1, "levels": [1, 2]}},
        "cache": 40,
        "augment": {"contrast": 0.1, "brightness": 0.1, "noise": 0.1},
        "evaluate_every": 20,
        "evaluate_count": 2,
    },
]


def command(recipe, out):
    return [sys.executable, "-m", "pvc", "train", str(recipe), "--out", str(out)]


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_bits(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**TINY, "stages": STAGES}))
    subprocess.run(command(recipe, tmp_path / "whole"), check=True, capture_output=True)
    killed, log = tmp_path / "killed", tmp_path / "killed" / "log.txt"
    kills = 0
    for mark in ("step 8/12", "step 27/60", "step 45/60"):
        process = subprocess.Popen(command(recipe, killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if log.exists() and mark in log.read_text():
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.02)
        process.wait(60)
    assert kills == 3
    subprocess.run(command(recipe, killed), check=True, capture_output=True)
    assert "going on from checkpoint" in log.read_text()
    for name in ("patches", "pvc"):
        one, two = (load_file(tmp_path / run / name / "final.safetensors") for run in ("whole", "killed"))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.slow
def test_thirty_deaths(tmp_path):
    """At any moment, and many times inside a save: never an unreadable checkpoint, and the same bits at the end."""
    stages = [
        {**STAGES[0], "steps": 40, "save_steps": 2},
        {**STAGES[1], "steps": 360, "save_steps": 3, "evaluate_every": None},
    ]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**TINY, "stages": stages}))
    subprocess.run(command(recipe, tmp_path / "whole"), check=True, capture_output=True)
    killed = tmp_path / "killed"
    often = [sys.executable, "-m", "tests.train.kill_often", str(recipe), str(killed), "30", "0"]
    done = subprocess.run(often, capture_output=True, text=True, timeout=500, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["kills"] == 30
    assert told["inside"] >= 8
    assert told["done"] == 0, "it was over before the last of them"
    subprocess.run(command(recipe, killed), check=True, capture_output=True)
    for name in ("patches", "pvc"):
        one, two = (load_file(tmp_path / run / name / "final.safetensors") for run in ("whole", "killed"))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
