"""Processes with different kinds of media at the same step: no error, no hang, and the losses of one process.

`mixed_kinds.py` is the program that runs on each process. The slow tests train by `pvc train` on a file of pictures,
clips and text, and kill one of two processes.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from pvc.media import write_image, write_video
from tests.train.test_processes import FSDP, NEEDS_DEEPSPEED, deepspeed, launch, losses
from tests.train.test_run import TINY

ROOT = Path(__file__).parents[2]
NEW_PARTS = ["temporal", "timestep_embedding", "multi_modal_projector"]
WRAPPERS = [
    pytest.param({}, id="ddp"),
    pytest.param(FSDP, id="fsdp2"),
    pytest.param(deepspeed(2), id="zero2", marks=NEEDS_DEEPSPEED),
]


def step_through(processes, wrapper, trainable, out):
    program = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        str(processes),
        "-m",
        "tests.train.mixed_kinds",
    ]
    command = [sys.executable, *program, wrapper, trainable, str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((out / "losses.json").read_text()), load_file(out / "w.safetensors")


@pytest.mark.parametrize(
    ("wrapper", "trainable"),
    [
        ("ddp", "align"),
        ("fsdp2", "all"),
        pytest.param("ddp", "checkpointing", marks=pytest.mark.slow),
        pytest.param("ddp", "all", marks=pytest.mark.slow),
        pytest.param("fsdp2", "align", marks=pytest.mark.slow),
        pytest.param("fsdp2", "checkpointing", marks=pytest.mark.slow),
    ],
)
def test_each_process_has_its_own_kinds(tmp_path, wrapper, trainable):
    alone, weights = step_through(1, wrapper, trainable, tmp_path / "one")
    together, others = step_through(2, wrapper, trainable, tmp_path / "two")
    assert together == pytest.approx(alone, rel=1e-5)
    assert max(alone) > min(alone) + 1e-3
    for name, weight in weights.items():
        assert torch.allclose(weight, others[name], atol=1e-5), name


# By `pvc train`


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight pictures, eight clips and eight texts in one file."""
    folder, rng, rows = tmp_path_factory.mktemp("mixed"), np.random.default_rng(0), []
    for number in range(8):
        write_image(folder / f"{number}.png", rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        write_video(folder / f"{number}.mp4", rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8), 4.0)
        for media, question in (
            ({"image": f"{number}.png"}, "<image>\nWhat?"),
            ({"video": f"{number}.mp4"}, "<video>\nWhich?"),
            ({}, "Say it."),
        ):
            turns = [{"from": "human", "value": question}, {"from": "gpt", "value": f"{question[-4:]}{number}"}]
            rows.append({**media, "conversations": turns})
    (folder / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_recipe(folder, name, **stage):
    files = {str(folder / "mixed.jsonl"): 1}
    stage = {**TINY["stages"][1], "save_steps": 1000, "tasks": {}, "files": files, **stage}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({**TINY, "stages": [stage]}))
    return folder / f"{name}.yaml"


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointing"])
@pytest.mark.parametrize("trained", [NEW_PARTS, []], ids=["align", "instruct"])
def test_a_file_of_all_kinds(folder, tmp_path, trained, checkpointing):
    recipe = write_recipe(folder, "matrix", steps=8, checkpointing=checkpointing, trained=trained)
    launch(recipe, tmp_path / "one")
    environments = [{}, FSDP] + ([] if NEEDS_DEEPSPEED.args[0] else [deepspeed(2)])
    for number, environment in enumerate(environments):
        out = tmp_path / f"two-{number}"
        launch(recipe, out, 2, environment)
        (steps, alone), (others, together) = (zip(*losses(run), strict=True) for run in (tmp_path / "one", out))
        assert steps == others and together == pytest.approx(alone, rel=1e-5)


@pytest.mark.slow
def test_a_file_of_all_kinds_with_adapters(folder, tmp_path):
    lora = {"rank": 2, "alpha": 4, "targets": ["q_proj", "down_proj"]}
    recipe = write_recipe(folder, "lora", steps=8, lora=lora, trained=NEW_PARTS, checkpointing=True)
    launch(recipe, tmp_path / "one")
    launch(recipe, tmp_path / "two", 2)
    assert dict(losses(tmp_path / "two")) == pytest.approx(dict(losses(tmp_path / "one")), rel=1e-5)


def start(folder, recipe, out, environment, wait=True):
    """Launch two processes and wait until they have written a line of the curve; returns launcher, workers, output."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "-m",
        "pvc",
        "train",
        str(recipe),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    launcher = subprocess.Popen(
        [*command, "--out", str(out)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = []
    launcher.reader = threading.Thread(target=lambda: lines.extend(launcher.stdout), daemon=True)
    launcher.reader.start()
    while wait and not (out / "curve.jsonl").exists():
        assert launcher.poll() is None, "".join(lines)[-3000:]
        time.sleep(0.1)
    workers = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    return launcher, [int(worker) for worker in workers], lines


@pytest.mark.slow
@pytest.mark.parametrize("environment", WRAPPERS)
def test_the_run_ends_when_a_process_is_killed(folder, tmp_path, environment):
    recipe = write_recipe(folder, "endless", steps=1_000_000)
    launcher, workers, lines = start(folder, recipe, tmp_path / "run", environment)
    os.kill(workers[1], signal.SIGKILL)
    try:
        assert launcher.wait(60) != 0
    finally:
        launcher.kill()
    launcher.reader.join(30)
    text = "".join(lines)
    assert "Signal 9 (SIGKILL) received" in text
    assert "internal error" not in text


@pytest.mark.slow
def test_the_run_ends_when_a_process_fails(folder, tmp_path):
    """One process finds a picture that cannot be read, the other does not: the first one's error is shown."""
    lines = (folder / "mixed.jsonl").read_text().splitlines()
    rows = [line for line in lines if "image" in line] * 40
    rows[157] = rows[157].replace(".png", "-is-missing.png")
    (folder / "broken.jsonl").write_text("\n".join(rows) + "\n")
    recipe = write_recipe(folder, "broken", steps=400, files={str(folder / "broken.jsonl"): 1}, bad_rows=0)
    launcher, _, output = start(folder, recipe, tmp_path / "run", {}, wait=False)
    try:
        assert launcher.wait(120) != 0
    finally:
        launcher.kill()
    launcher.reader.join(30)
    text = "".join(output)
    assert "-is-missing.png" in text, text[-2000:]
    assert text.index("-is-missing.png") < text.index("Root Cause")


@pytest.mark.slow
@pytest.mark.parametrize("environment", WRAPPERS[:2])
def test_an_interrupted_run_saves_and_goes_on(folder, tmp_path, environment):
    """SIGINT as torchrun sees it from a terminal: to the launcher and to every worker."""
    recipe, out = write_recipe(folder, "stopped", steps=1_000_000), tmp_path / "run"
    launcher, workers, lines = start(folder, recipe, out, environment)
    for process in (launcher.pid, *workers):
        os.kill(process, signal.SIGINT)
    try:
        assert launcher.wait(120) != 0
    finally:
        launcher.kill()
    launcher.reader.join(30)
    text = "".join(lines)
    said = [line for line in text.splitlines() if "ended after step" in line]
    assert len(said) == 1 and said[0].startswith("pvc [rank 0]: SIGINT: stage pvc ended after step "), text[-3000:]
    step = int(said[0].split("step ")[1].split()[0])
    assert (out / "pvc" / f"checkpoint-{step}" / "trainer_state.json").exists()
