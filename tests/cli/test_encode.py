"""`pvc encode`: a state that is asked and continued in other processes, and what is refused in one line."""

import json

import numpy as np
import pytest
from PIL import Image

from pvc.media import write_video
from tests.cli.helpers import run


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    frames = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    write_video(folder / "whole.mp4", frames, fps=4)
    write_video(folder / "second.mp4", frames[6:], fps=4)
    Image.fromarray(frames[0]).save(folder / "picture.png")
    return folder


def test_a_video_is_encoded_once_asked_and_continued(clips, checkpoint):
    model = ("--model", checkpoint)
    state = clips / "state.pvc"
    done = run("encode", clips / "whole.mp4", "-o", state, "--times", "0,0.5,1", *model, check=0)
    told = json.loads(done.stdout)
    assert (told["frames"], told["timestamps"], told["can_be_continued"]) == (3, [0.0, 0.5, 1.0], True)
    question = "what is it?"
    direct = run("ask", clips / "whole.mp4", question, "--times", "0,0.5,1", *model, check=0)
    assert run("ask", state, question, *model, check=0).stdout == direct.stdout
    # The same file again: what is there already is passed over.
    done = run("encode", clips / "whole.mp4", "--append", state, "--times", "0.5,1.5,2", *model, check=0)
    assert "1 frames up to 1 s are there already" in done.stderr
    assert json.loads(done.stdout)["timestamps"] == [0.0, 0.5, 1.0, 1.5, 2.0]
    direct = run("ask", clips / "whole.mp4", question, "--times", "0,0.5,1,1.5,2", "--json", *model, check=0)
    kept = run("ask", state, question, "--json", *model, check=0)
    assert json.loads(kept.stdout)["answer"] == json.loads(direct.stdout)["answer"]
    # A file that begins at 0 again, into another file.
    longer = clips / "longer.pvc"
    options = ("--append", state, "-o", longer, "--time-offset", "10", "--times", "0,0.25", "--no-cache")
    told = json.loads(run("encode", clips / "second.mp4", *options, *model, check=0).stdout)
    assert (told["frames"], told["timestamps"][-1], told["can_be_continued"]) == (7, 10.25, False)
    assert "without its cache" in run("encode", clips / "second.mp4", "--append", longer, *model, check=2).stderr


def test_pictures_and_what_is_refused_in_one_line(clips, checkpoint, tmp_path):
    model = ("--model", checkpoint)
    picture = clips / "picture.png"
    told = json.loads(run("encode", picture, "--image-steps", 2, *model, check=0).stdout)
    assert told["file"].endswith("picture.png.pvc")
    assert (told["kind"], told["steps"], told["can_be_continued"]) == ("image", 2, False)
    state = told["file"]
    assert "encoded already" in run("ask", state, "what?", "--image-steps", 1, *model, check=2).stderr
    assert "visual state already" in run("encode", state, check=2).stderr
    assert "--time-offset is for --append" in run("encode", picture, "--time-offset", 1, check=2).stderr
    assert "ends in .pvc" in run("encode", picture, "-o", tmp_path / "x.bin", check=2).stderr
    assert "No such file" in run("encode", tmp_path / "nowhere.mp4", check=3).stderr
    assert "is a picture" in run("encode", clips / "whole.mp4", "--append", state, *model, check=2).stderr
    # Of another checkpoint (the bundled one), with both fingerprints.
    error = run("ask", state, "what?", check=5).stderr
    assert error.count("\n") == 1
    assert "other settings" in error or "another checkpoint" in error
    (tmp_path / "bad.pvc").write_bytes(b"x" * 100)
    assert "no visual state" in run("ask", tmp_path / "bad.pvc", "what?", check=3).stderr


def test_a_state_in_a_conversation(clips, checkpoint):
    state = clips / "talk.pvc"
    run("encode", clips / "whole.mp4", "-o", state, "--frames", 3, "--model", checkpoint, check=0)
    script = f"/add {state}\nwhat is it?\n"
    done = run("ask", "--model", checkpoint, stdin=script, check=0)
    assert done.stdout == run("ask", state, "what is it?", "--model", checkpoint, check=0).stdout


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_precision_of_a_state_is_the_one_asked_for(clips, checkpoint, tmp_path, dtype):
    model, state = ("--model", checkpoint), tmp_path / "state.pvc"
    run("encode", clips / "picture.png", "-o", state, "--dtype", dtype, *model, check=0)
    plain = run("ask", clips / "picture.png", "what is it?", "--dtype", dtype, *model, check=0).stdout
    assert run("ask", state, "what is it?", "--dtype", dtype, *model, check=0).stdout == plain
    other = "float32" if dtype != "float32" else "bfloat16"
    done = run("ask", state, "what is it?", "--dtype", other, *model, check=5)
    assert f"load the model in {dtype} (--dtype)" in done.stderr
