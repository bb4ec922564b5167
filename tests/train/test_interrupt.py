"""Ctrl-C and SIGTERM end a training after the current step, with a checkpoint; checkpoints are written by time, too."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
import yaml
from safetensors.torch import load_file

from pvc.cli.main import main
from pvc.errors import Interrupted
from pvc.lab.provider import SyntheticTasks
from pvc.train import interrupt
from pvc.train import pipeline as running
from pvc.train.interrupt import Saving, StopRequest
from pvc.train.pipeline import run_recipe
from pvc.train.recipe import Recipe
from tests.train.test_run import TINY

STEPS = 100


def recipe(**changes):
    return {**TINY, "stages": [{**TINY["stages"][1], "steps": STEPS, "save_steps": 10_000, **changes}]}


def rows(out):
    return [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]


class Terminal:
    """`pvc train` in a pseudo-terminal; everything that it prints, as it comes."""

    def __init__(self, folder, *options):
        command = [sys.executable, "-m", "pvc", "train", "recipe.yaml", "--out", "run", *options]
        parent, child = pty.openpty()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "TERM": "xterm"}
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=child, stdout=child, stderr=child, start_new_session=True
        )
        os.close(child)
        self.parent, self.text = parent, ""

    def read(self, pattern=None):
        """Read until `pattern` appears, or to the end."""
        while pattern is None or not re.search(pattern, self.text):
            try:
                part = os.read(self.parent, 65536)
            except OSError:  # the other end is closed
                part = b""
            if not part:
                assert pattern is None, f"{pattern!r} did not appear: {self.text[-2000:]}"
                break
            self.text += part.decode(errors="replace")
        return self.text

    def press_ctrl_c(self):
        """A terminal sends the signal to every process in it, data workers included."""
        os.killpg(self.process.pid, signal.SIGINT)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe()))
    # In a process of its own: this one's thread settings would round in another order.
    command = [sys.executable, "-m", "pvc", "train", "recipe.yaml", "--out", "run"]
    subprocess.run(command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    return folder / "run"


def test_ctrl_c_in_a_terminal_loses_nothing(undisturbed, tmp_path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe()))
    terminal = Terminal(tmp_path, "--workers", "1")
    terminal.read(r"step 20/100")
    terminal.press_ctrl_c()
    text = terminal.read()
    assert terminal.process.wait() == 130
    assert "SIGINT: stopping after this step and its checkpoint; press Ctrl-C again to stop at once" in text
    ended = r"stage pvc ended after step (\d+) of 100; saved in run/pvc/checkpoint-\1\. Resume with: pvc"
    found = re.search(ended, text)
    assert found, text[-3000:]
    step = int(found[1])
    assert 20 <= step < STEPS
    assert (tmp_path / "run" / "pvc" / f"checkpoint-{step}").is_dir()
    assert "Traceback" not in text
    again = Terminal(tmp_path, "--workers", "1")
    text = again.read()
    assert again.process.wait() == 0
    assert f"going on from checkpoint-{step}" in text
    final = load_file(undisturbed / "pvc" / "final.safetensors")
    resumed = load_file(tmp_path / "run" / "pvc" / "final.safetensors")
    assert all(bool((final[name] == resumed[name]).all()) for name in final)
    assert rows(undisturbed)[-1]["step"] == STEPS
    assert rows(undisturbed)[-1]["loss"] == rows(tmp_path / "run")[-1]["loss"]


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    """The second one is sent while the first one's checkpoint is being written: it is not finished."""
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe(steps=1_000_000)))
    (tmp_path / "block.py").write_text(BLOCK)
    command = [sys.executable, "block.py", "recipe.yaml"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in a step\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline().startswith("SIGINT: stopping after this step")
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert not list((tmp_path / "run" / "pvc").glob("checkpoint-*"))


# A training whose first step does not end: its collator waits for a line that never comes.
BLOCK = """
import sys
from pvc.train import pipeline as running
from pvc.train.recipe import load_recipe

class Waiting(running.ChatCollator):
    def __call__(self, items):
        print("in a step", flush=True)
        sys.stdin.readline()

running.ChatCollator = Waiting
running.run_recipe(load_recipe(sys.argv[1]), "run", report=lambda line: "SIG" in line and print(line, flush=True))
"""


def test_sigterm_in_a_library_call(tmp_path):
    """`run_recipe` raises `Interrupted`, and the same call goes on."""
    lines = []

    def report(line):
        lines.append(line)
        if "step 2/" in line:
            os.kill(os.getpid(), signal.SIGTERM)

    settings = Recipe.model_validate(recipe(steps=40))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match=r"SIGTERM: stage pvc ended after step \d+ of 40; saved in ") as caught:
        run_recipe(settings, tmp_path, report=report)
    assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGTERM) is before
    assert "SIGTERM: stopping after this step and its checkpoint" in lines
    run_recipe(settings, tmp_path, report=lambda line: None)
    assert rows(tmp_path)[-1]["step"] == 40


def test_what_was_to_be_measured_is_measured_after_the_resume(tmp_path, monkeypatch):
    measured = []

    def measure(self, engine, task, held_out):
        measured.append(task)
        if len(measured) == 1:
            stops[-1].name = "SIGINT"
        return 0.5

    stops = []

    class Recorded(StopRequest):
        def __init__(self, *args):
            super().__init__(*args)
            stops.append(self)

    monkeypatch.setattr(SyntheticTasks, "measure", measure)
    monkeypatch.setattr(running, "StopRequest", Recorded)
    settings = Recipe.model_validate(recipe(steps=4, evaluate_every=2))
    with pytest.raises(Interrupted, match="after step 2 of 4"):
        run_recipe(settings, tmp_path, report=lambda line: None)
    assert not [row for row in rows(tmp_path) if "accuracy" in row]
    run_recipe(settings, tmp_path, report=lambda line: None)
    assert [row["step"] for row in rows(tmp_path) if "accuracy" in row] == [2, 2, 4, 4]


def test_a_stop_at_the_last_step_goes_on_with_what_follows(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "StopRequest", lambda *args: stopped)
    stopped = StopRequest()
    stopped.name = "SIGTERM"
    settings = Recipe.model_validate(recipe(steps=1))
    with pytest.raises(Interrupted, match="after step 1 of 1"):
        run_recipe(settings, tmp_path, report=lambda line: None)
    stopped.name = None
    assert (run_recipe(settings, tmp_path, report=lambda line: None) / "config.json").exists()


def test_stop_after_leaves_the_schedule_as_it_is(tmp_path):
    settings = Recipe.model_validate(recipe(steps=6, save_steps=100))
    whole = run_recipe(settings, tmp_path / "whole", report=lambda line: None)
    lines, cut = [], tmp_path / "cut"
    with pytest.raises(Interrupted, match="--stop-after: stage pvc ended after step 1 of 6; saved in ") as caught:
        run_recipe(settings, cut, report=lines.append, stop_after=1e-6)
    assert caught.value.exit_code == 130
    assert "--stop-after: stopping after this step and its checkpoint" in lines
    assert not (cut / "model").exists()
    resumed = run_recipe(settings, cut, report=lambda line: None, stop_after=1000)
    assert [row["lr"] for row in rows(cut)] == [row["lr"] for row in rows(tmp_path / "whole")]
    first, second = (load_file(model / "model.safetensors") for model in (whole, resumed))
    assert all(bool((first[name] == second[name]).all()) for name in first)


def test_the_command_stops_after_its_minutes(tmp_path, capsys):
    path, out = tmp_path / "recipe.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(recipe(steps=2)))
    assert main(["train", str(path), "--out", str(out), "--stop-after", "0.00001"]) == 130
    error = capsys.readouterr().err
    assert f"pvc: --stop-after: stage pvc ended after step 1 of 2; saved in {out}/pvc/checkpoint-1. Resume" in error
    assert main(["train", str(path), "--out", str(out)]) == 0
    assert main(["train", str(path), "--out", str(out), "--stop-after", "-1"]) == 2


def test_a_signal_after_the_time_is_up_is_the_first(monkeypatch):
    ended, lines = [], []
    monkeypatch.setattr(interrupt.os, "_exit", ended.append)
    monkeypatch.setattr(interrupt, "SAME_REQUEST_SECONDS", 0.0)
    request = StopRequest(lines.append, until=time.monotonic())
    request.check_time()
    request.check_time()
    assert request.name == interrupt.TIME_UP and len(lines) == 1
    request._receive(signal.SIGINT)
    assert request.name == interrupt.TIME_UP and ended == []
    request._receive(signal.SIGINT)
    assert ended == [130]
    waiting = StopRequest(until=time.monotonic() + 1000)
    waiting.check_time()
    assert waiting.name is None


class Control:
    should_save = should_training_stop = should_log = False


def saved_at(minutes, seconds):
    """Steps at these seconds that ask for a checkpoint."""
    now, out = [0.0], []
    saving = Saving(minutes, StopRequest(), clock=lambda: now[0])
    saving.on_train_begin(None, None, None)
    for second in seconds:
        now[0] = second
        control = Control()
        saving.on_step_end(None, None, control)
        assert not control.should_training_stop
        if control.should_save:
            saving.on_save(None, None, control)
            out.append(second)
    return out


def test_checkpoints_by_time():
    assert saved_at(10, [100, 599, 600, 700, 1199, 1201, 1800, 1801]) == [600, 1201, 1801]
    assert saved_at(None, [100, 100_000]) == []
    assert Recipe.model_validate(recipe()).stages[0].save_minutes == 10
    assert Recipe.model_validate(recipe(save_minutes=None)).stages[0].save_minutes is None


def test_a_launcher_s_copy_of_a_signal_is_the_same_request(monkeypatch):
    ended = []
    monkeypatch.setattr(interrupt.os, "_exit", ended.append)
    for same, count in ((60.0, 0), (0.0, 1)):
        monkeypatch.setattr(interrupt, "SAME_REQUEST_SECONDS", same)
        ended.clear()
        lines = []
        request = StopRequest(lines.append)
        request._receive(signal.SIGINT)
        request._receive(signal.SIGINT)
        assert len(lines) == 1 and ended == [130] * count


def test_signals_are_left_alone_outside_of_the_main_thread():
    before = [signal.getsignal(number) for number in interrupt.SIGNALS]
    seen = []

    def body():
        with StopRequest().watch():
            seen.extend(signal.getsignal(number) for number in interrupt.SIGNALS)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == before
