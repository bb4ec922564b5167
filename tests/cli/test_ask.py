"""`pvc ask`: arguments, answers, JSON, conversations and exit codes."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from pvc.cli.ask import sort_arguments
from pvc.errors import ForbiddenError, MediaError, UsageError
from pvc.media import write_video
from tests.cli.helpers import run


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 90, 3), dtype=np.uint8)).save(folder / "a picture.png")
    write_video(folder / "clip.mp4", rng.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8), fps=4)
    return folder


def test_arguments_are_sorted(media):
    picture, clip = str(media / "a picture.png"), str(media / "clip.mp4")
    assert sort_arguments([picture, clip, "what?"]) == ([picture, clip], "what?")
    assert sort_arguments(["what?", picture]) == ([picture], "what?")
    assert sort_arguments([picture]) == ([picture], None)
    assert sort_arguments(["Is it 3.5 or 4.2?"]) == ([], "Is it 3.5 or 4.2?")
    assert sort_arguments(["Is a.png or b.png shown?"]) == ([], "Is a.png or b.png shown?")
    assert sort_arguments(["x" * 5000]) == ([], "x" * 5000)
    for missing in ("b.png", "B.MP4", "my holiday film.mov", "./somewhere/x", "x.pvc"):
        with pytest.raises(MediaError, match="no such file"):
            sort_arguments([missing, "what?"])
    for address in ("http://x/a.png", "file:///etc/passwd", "rtsp://cam"):
        with pytest.raises(ForbiddenError):
            sort_arguments([address, "what?"])
    with pytest.raises(UsageError, match="'what', 'is'"):
        sort_arguments([picture, "what", "is"])
    with pytest.raises(UsageError, match="empty"):
        sort_arguments([picture, " "])


def test_json(checkpoint, media):
    done = run(
        "ask",
        media / "a picture.png",
        media / "clip.mp4",
        "what?",
        "--frames",
        "12",
        "--model",
        checkpoint,
        "--json",
        check=0,
    )
    answer = json.loads(done.stdout)
    assert set(answer) == {"answer", "model", "media", "usage", "timing"}
    picture, clip = answer["media"]
    assert set(picture) == {"path", "kind", "frames", "timestamps", "tiles", "steps", "tokens", "warnings"}
    assert (picture["kind"], picture["tiles"], picture["steps"], picture["tokens"]) == ("image", 3, 4, 12)
    assert (clip["kind"], clip["frames"], clip["tokens"]) == ("video", 12, 12)
    assert clip["timestamps"] == pytest.approx([0.25 * number for number in range(12)])
    assert answer["usage"]["visual_tokens"] == 24
    assert answer["timing"]["decode_s"] > 0


def test_options_reach_the_model(checkpoint, media):
    options = ["--image-steps", "2", "--max-tiles", "1", "--frames", "4", "--max-new-tokens", "3", "--json"]
    done = run("ask", media / "a picture.png", media / "clip.mp4", "what?", "--model", checkpoint, *options, check=0)
    answer = json.loads(done.stdout)
    assert [(m["frames"], m["steps"], m["tokens"]) for m in answer["media"]] == [(1, 2, 2), (4, 4, 4)]
    assert answer["usage"]["completion_tokens"] <= 3
    done = run("ask", media / "clip.mp4", "what?", "--model", checkpoint, "--times", "0,1.3", "--json", check=0)
    assert json.loads(done.stdout)["media"][0]["timestamps"] == [0.0, 1.25]
    done = run("ask", media / "clip.mp4", "what?", "--model", checkpoint, "--fps", "1", "--json", check=0)
    assert json.loads(done.stdout)["media"][0]["timestamps"] == [0.0, 1.0, 2.0]


def test_plain_answer_equals_json_answer(checkpoint, media):
    plain = run("ask", media / "clip.mp4", "what?", "--model", checkpoint, check=0)
    data = run("ask", media / "clip.mp4", "what?", "--model", checkpoint, "--json", check=0)
    assert plain.stdout == json.loads(data.stdout)["answer"] + "\n"
    assert plain.stderr == ""


def test_conversation_from_a_pipe(checkpoint, media):
    lines = [
        "what?",
        f"/add {media / 'clip.mp4'}",
        "and this?",
        # A terminal writes the names of files that are dragged into it with quotes or escaped blanks.
        f'/add "{media / "a picture.png"}"',
        f"/add {str(media / 'a picture.png').replace(' ', chr(92) + ' ')} {media / 'clip.mp4'}",
        f"/add {media / 'a picture.png'}",
        "/add",
        "/add 'half",
        "/add nowhere.png",
        "/reset",
        "hello",
        "/quit",
        "unread",
    ]
    done = run("ask", media / "a picture.png", "--model", checkpoint, stdin="\n".join(lines), check=0)
    assert "visual tokens" not in done.stderr, "progress is for terminals"
    assert len(done.stdout.splitlines()) >= 3
    errors = [line for line in done.stderr.splitlines() if line.startswith("pvc: ")]
    assert len(errors) == 3 and "needs a file" in errors[0] and "quotation" in errors[1] and "nowhere.png" in errors[2]
    assert "(forgotten)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere.png", "what?"], 3, "nowhere.png"),
        (["http://127.0.0.1/a.png", "what?"], 4, "fetched"),
        (["{folder}", "what?"], 4, "directory"),
        (["/dev/null", "what?"], 4, "device"),
        (["{picture}", "what", "else"], 2, "one question"),
        (["{picture}", ""], 2, "empty"),
        (["{picture}", "what?", "--model", "nowhere"], 5, "no model directory"),
        (["{picture}", "what?", "--frames", "0"], 2, "frames"),
        (["{picture}", "what?", "--framse", "1"], 2, "--framse"),
        (["{picture}", "what?", "--dtype", "half"], 2, "--dtype"),
        (["{picture}", "what?", "--fps", "1", "--times", "2"], 2, "exclude"),
        (["{clip}", "what?", "--times", "99"], 2, "99"),
        (["{clip}", "what?", "--fps", "-1"], 2, "-1"),
        (["{clip}", "--json"], 2, "question"),
        (["{text}", "what?"], 3, "notes.txt"),
        (["{huge}", "what?"], 3, "40000"),
    ],
)
def test_wrong_input_is_one_clear_line_and_imports_no_torch(arguments, code, message, media, tmp_path):
    import struct
    import zlib

    (tmp_path / "notes.txt").write_text("hello")
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    (tmp_path / "huge.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )
    names = {
        "folder": media,
        "picture": media / "a picture.png",
        "clip": media / "clip.mp4",
        "text": tmp_path / "notes.txt",
        "huge": tmp_path / "huge.png",
    }
    # A module that cannot be imported stands in for torch and transformers: touching them would be exit code 1.
    for name in ("torch", "transformers"):
        (tmp_path / f"{name}.py").write_text("raise SystemError('imported')")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = run("ask", *[str(argument).format(**names) for argument in arguments], env=env, check=code)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_help_and_import_are_light(tmp_path):
    for name in ("torch", "transformers"):
        (tmp_path / f"{name}.py").write_text("raise SystemError('imported')")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for arguments in (["--help"], ["ask", "--help"], ["--version"], ["train", "--help"], ["lab", "eval", "--help"]):
        run(*arguments, env=env, check=0)
    subprocess.run([sys.executable, "-c", "import pvc; import pvc.media; pvc.__version__"], env=env, check=True)


class Terminal:
    """What a program prints on a pseudo-terminal; reading until a word keeps what comes after it for the next time."""

    def __init__(self, master):
        self.master, self.seen = master, b""

    def more(self, count, seconds=60):
        end = time.monotonic() + seconds
        while len(self.seen) < count:
            assert time.monotonic() < end, f"only {self.seen!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                self.seen += os.read(self.master, 4096)

    def until(self, wanted, seconds=60):
        end = time.monotonic() + seconds
        while wanted not in self.seen:
            assert time.monotonic() < end, f"{wanted!r} not in {self.seen!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                self.seen += os.read(self.master, 4096)
        self.seen = self.seen.split(wanted, 1)[1]


def test_ctrl_c_stops_an_answer_and_not_the_program(checkpoint, media):
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "pvc", "ask", str(media / "clip.mp4"), "--model", str(checkpoint)]
    process = subprocess.Popen(
        [*command, "--max-new-tokens", "6000"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        close_fds=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # whoever runs the tests may ignore it
    )
    os.close(slave)
    terminal = Terminal(master)
    try:
        terminal.until(b"visual tokens)")
        terminal.until(b"> ")
        os.write(master, b"tell me everything\n")
        terminal.until(b"tell me everything\r\n")
        terminal.more(20)  # the answer has begun
        process.send_signal(signal.SIGINT)
        terminal.until(b"(stopped)")
        terminal.until(b"> ")
        os.write(master, b"/reset\n")
        terminal.until(b"(forgotten)")
        os.write(master, b"/quit\n")
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        os.close(master)
