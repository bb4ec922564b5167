"""Kills a training again and again, from outside, many times inside a save; a program of its own, for `test_killed.py`.

    python -m tests.train.kill_often RECIPE DIRECTORY KILLS SEED

Children are forked from a process that has imported everything, so that thirty deaths take a minute. Prints JSON:
{"kills", "inside", "done"}; after every kill each checkpoint that has its final name is read to the end.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from pvc.train.pipeline import run_recipe
from pvc.train.recipe import load_recipe


def start(recipe, directory):
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        run_recipe(recipe, directory, report=lambda line: None)
        code = 0
    finally:
        os._exit(code)


def ended(child):
    return os.waitpid(child, os.WNOHANG)[0] != 0


def read_all(directory):
    """Every checkpoint under its own name must be whole; raises where it is not."""
    for path in directory.glob("*/checkpoint-*"):
        load_file(path / "model.safetensors")
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            torch.load(path / name, weights_only=False)
        json.loads((path / "trainer_state.json").read_text())


def saving(directory):
    return any(directory.glob("*/saving/checkpoint-*"))


def main(recipe, directory, kills, seed):
    recipe, directory, lot = load_recipe(recipe), Path(directory), random.Random(seed)
    inside = done = 0
    for number in range(kills):
        child = start(recipe, directory)
        if number % 2:  # at any moment
            until = time.monotonic() + lot.uniform(0.02, 1.0)
            while time.monotonic() < until and not ended(child):
                time.sleep(0.002)
        else:  # while a checkpoint is written
            until = time.monotonic() + 60
            while time.monotonic() < until and not saving(directory) and not (finished := ended(child)):
                time.sleep(0.0005)
            if not finished:
                time.sleep(lot.uniform(0, 0.012))
        try:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        inside += saving(directory)
        read_all(directory)
        if (directory / "model").exists():
            done += 1
    print(json.dumps({"kills": kills, "inside": inside, "done": done}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
