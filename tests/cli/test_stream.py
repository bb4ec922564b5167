"""`pvc live`: questions typed while a video runs, a folder that fills up, and what is refused."""

import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

import pvc
from pvc.media import Sampling, load_video, write_video
from tests.cli.helpers import run


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("stream") / "clip.mp4"
    write_video(path, np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8), fps=4)
    return path


def test_questions_from_a_pipe_and_at_the_end(clip, checkpoint):
    options = ("--model", checkpoint, "--speed", 0, "--json")
    done = run("live", clip, "--ask", "what is it?", *options, stdin="and what else?\n", check=0)
    told = {row["question"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert set(told) == {"what is it?", "and what else?"}
    # At the end it is the video, two frames a second.
    expected = pvc.load(checkpoint, device="cpu").chat().ask("what is it?", load_video(clip, Sampling(fps=2)))
    assert told["what is it?"]["answer"] == expected.text
    assert told["what is it?"]["frames_seen"] == 8
    assert told["what is it?"]["at"] == 3.5


def test_a_question_is_asked_again_as_the_video_goes_on(clip, checkpoint):
    options = ("--model", checkpoint, "--speed", 0, "--json", "--every", 1, "--ask", "now?")
    done = run("live", clip, *options, check=0)
    assert [json.loads(line)["at"] for line in done.stdout.splitlines()] == [1.0, 2.0, 3.0]


def test_a_file_runs_at_its_own_speed_and_typing_is_answered_meanwhile(clip, checkpoint):
    command = [sys.executable, "-m", "pvc", "live", str(clip), "--model", str(checkpoint), "--json"]
    process = subprocess.Popen(
        [*command, "--speed", "0.2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )  # the last frame comes after 17 seconds
    assert process.stdin is not None
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    rows = []
    while not rows or rows[-1]["frames_seen"] < 2:
        process.stdin.write("what is it?\n")
        process.stdin.flush()
        rows.append(json.loads(next(lines)))
        time.sleep(0.1)
    assert rows[-1]["frames_seen"] < 8
    process.stdin.close()  # the end of the input ends it before the video does
    assert process.wait(60) == 0


def test_a_folder_that_fills_up(checkpoint, tmp_path):
    def fill():
        for number in range(3):
            Image.new("RGB", (40, 40), ("red", "green", "blue")[number]).save(tmp_path / f"{number}.png")
            time.sleep(0.3)

    filling = threading.Thread(target=fill)
    filling.start()
    options = ("--model", checkpoint, "--seconds", 3, "--ask", "what is it?", "--json")
    done = run("live", tmp_path, *options, check=0)
    filling.join()
    (row,) = map(json.loads, done.stdout.splitlines())
    assert row["frames_seen"] == 3


def test_what_is_refused_in_one_line(clip, checkpoint, tmp_path):
    for arguments, code in (
        ((clip, "--every", 2), 2),
        ((clip, "--fps", 0, "--ask", "x"), 2),
        ((tmp_path / "nowhere.mp4",), 3),
        (("/dev/null", "--model", checkpoint), 3),
    ):
        done = run("live", *arguments, check=code)
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""
