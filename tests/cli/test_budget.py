"""`pvc ask --budget`: what it takes, what it says, what it refuses, and that headers alone decide before torch."""

import json
import os
import pty
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from pvc.cli.budget import Spending, spending_of
from pvc.errors import UsageError
from pvc.media import write_video
from tests.cli.helpers import run


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 90, 3), dtype=np.uint8)).save(folder / "wide.png")
    write_video(folder / "clip.mp4", rng.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8), fps=4)
    return folder


def test_spending():
    assert spending_of(None) is None
    assert spending_of("512") == Spending(512)
    assert spending_of("2GB") == Spending(None, 2 * 10**9)
    assert spending_of("512, 1.5 GiB") == spending_of("1.5gib,512") == Spending(512, 3 * 2**29)
    for wrong in ("", "many", "-1", "0", "0MB", "512,512", "1GB,2GB", "5 tokens", "1e3", "2G", "\u0663"):
        with pytest.raises(UsageError, match="--budget"):
            spending_of(wrong)


def test_json_shows_the_plan(checkpoint, media):
    picture, clip = media / "wide.png", media / "clip.mp4"
    options = ["--model", checkpoint, "--frames", "12", "--budget", "9", "--json"]
    answer = json.loads(run("ask", picture, clip, "what?", *options, check=0).stdout)
    assert answer["usage"]["visual_tokens"] == answer["plan"]["tokens"] == 9
    assert [m["tokens"] for m in answer["media"]] == [m["tokens"] for m in answer["plan"]["media"]]
    assert answer["plan"]["media"][1]["asked"] == {"frames": 12}
    assert answer["plan"]["reduced"] and answer["plan"]["budget"] == 9
    whole = json.loads(run("ask", picture, clip, "what?", *options[:4], "--budget", "1GB", "--json", check=0).stdout)
    assert not whole["plan"]["reduced"] and whole["usage"]["visual_tokens"] == 24
    assert 0 < whole["plan"]["memory_bytes"] < whole["plan"]["memory"] == 10**9
    plain = json.loads(run("ask", picture, clip, "what?", *options[:4], "--json", check=0).stdout)
    assert plain["answer"] == whole["answer"] and "plan" not in plain


def test_other_samplings_within_a_budget(checkpoint, media):
    for option, allowed in (("--fps=2", {0.0, 0.5, 1.0, 1.5, 2.0, 2.5}), ("--times=0,0.5,2", {0.0, 0.5, 2.0})):
        arguments = [media / "clip.mp4", "what?", "--model", checkpoint, option, "--budget", "2", "--json"]
        (clip,) = json.loads(run("ask", *arguments, check=0).stdout)["media"]
        assert clip["tokens"] == 2 and set(clip["timestamps"]) < allowed


def test_nothing_is_said_where_no_terminal_is(checkpoint, media):
    done = run("ask", media / "clip.mp4", "what?", "--model", checkpoint, "--budget", "3", check=0)
    assert done.stderr == ""


@pytest.mark.parametrize(("budget", "said"), [("3", True), ("1000", False)])
def test_a_terminal_is_told_what_is_reduced(checkpoint, media, budget, said):
    master, slave = pty.openpty()
    arguments = ["ask", media / "clip.mp4", "what?", "--frames", "12", "--model", checkpoint, "--budget", budget]
    command = [sys.executable, "-m", "pvc", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=slave, timeout=120)
    os.close(slave)
    heard = b""
    try:
        while piece := os.read(master, 65536):
            heard += piece
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(master)
    assert done.returncode == 0
    assert (b"3 of 12 frames; 3 visual tokens (budget 3)" in heard) == said
    assert (b" of 12 frames" in heard) == said


def test_too_small_a_budget_is_refused(checkpoint, media):
    done = run("ask", media / "wide.png", media / "clip.mp4", "?!", "--model", checkpoint, "--budget", "1", check=2)
    assert "budget of 1 visual tokens" in done.stderr and "is 2 visual tokens" in done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{clip}", "what?", "--budget", "much"], 2, "--budget"),
        (["{clip}", "--budget", "100"], 2, "one question"),
        (["{folder}", "what?", "--budget", "100"], 4, "directory"),
        (["{text}", "what?", "--budget", "100"], 3, "notes.txt"),
        (["{clip}", "what?", "--budget", "100", "--times", "99"], 2, "99"),
    ],
)
def test_refused_before_torch(arguments, code, message, media, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    for name in ("torch", "transformers"):
        (tmp_path / f"{name}.py").write_text("raise SystemError('imported')")
    names = {"clip": media / "clip.mp4", "folder": media, "text": tmp_path / "notes.txt"}
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = run("ask", *[argument.format(**names) for argument in arguments], env=env, check=code)
    assert done.stderr.count("\n") == 1 and message in done.stderr
