"""The parts of the vLLM plugin that need no vLLM; `make test-vllm` tests the others."""

import contextlib
import importlib.metadata
import json
import os
import sys
from pathlib import Path

import pytest
from transformers import AutoProcessor

import pvc
from pvc import media
from pvc.cli.main import main
from pvc.integrations import vllm

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_vllm_finds_the_plugin():
    (entry,) = importlib.metadata.entry_points(group="vllm.general_plugins", name="pvc")
    assert entry.load() is vllm.register
    with pytest.raises(AttributeError):
        vllm.anything_else  # noqa: B018


def test_videos_are_read_with_their_true_times():
    data = (EXAMPLES / "digits.mp4").read_bytes()
    frames, metadata = vllm.read_video(data, num_frames=8, size=64, max_duration=300)
    assert frames.shape == (8, 64, 64, 3)
    expected = media.load(data, kind="video", sampling=media.Sampling(frames=8), size=(64, 64))
    assert tuple(metadata["timestamps"]) == expected.timestamps
    processor = pvc.load(device="cpu").processor.video_processor
    inputs = processor([frames], video_metadata=[metadata], do_sample_frames=metadata["do_sample_frames"])
    assert inputs["timestamps"] == [list(expected.timestamps)]
    with pytest.raises(ValueError, match="corrupt_media|unsupported"):
        vllm.read_video(b"nothing of the kind")


def test_checkpoints_say_whose_videos_they_take(tmp_path):
    """The processor name that vLLM looks up is in the bundled model and in every saved one."""
    processor = pvc.load(device="cpu").processor
    processor.save_pretrained(tmp_path)
    for folder in (tmp_path, Path(pvc.__file__).parent / "nano"):
        named = json.loads((folder / "video_preprocessor_config.json").read_text())
        assert named == {"video_processor_type": type(processor.video_processor).__name__}
    assert AutoProcessor.from_pretrained(tmp_path).video_processor.num_frames == processor.video_processor.num_frames


def test_without_vllm_the_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)  # as if vLLM were not installed
    assert main(["serve", "--engine", "vllm"]) == 2
    assert "vllm" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "sglang"], "--engine must be pvc or vllm"),
        (["--engine", "vllm", "--root", "."], "--root is for --engine pvc"),
        (["--keys", "none.txt"], "cannot read --keys"),
        (["--root", "none"], "is not a directory"),
    ],
)
def test_what_serve_refuses(options, message, capsys):
    assert main(["serve", *options]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_keys_of_a_file(tmp_path, monkeypatch):
    from pvc.cli.serve import read_keys
    from pvc.errors import UsageError

    path = tmp_path / "keys.txt"
    path.write_text("# ours\nfirst-key-of-twenty\n\nsecond-key-of-twenty\n")
    assert read_keys(path) == ("first-key-of-twenty", "second-key-of-twenty")
    path.write_text("# nothing\n")
    with pytest.raises(UsageError, match="holds no key"):
        read_keys(path)
    assert read_keys(None) == ()
    monkeypatch.setenv("PVC_API_KEYS", "first-key-of-twenty, second-key-of-twenty")
    assert read_keys(None) == ("first-key-of-twenty", "second-key-of-twenty")
    assert "PVC_API_KEYS" not in os.environ
    for keys in (" , ", "short", "nine-keys-of-twenty with space"):
        monkeypatch.setenv("PVC_API_KEYS", keys)
        with pytest.raises(UsageError, match="PVC_API_KEYS"):
            read_keys(None)


def test_what_vllm_is_started_with(monkeypatch, capsys):
    """Keys are not in the command line, which other users can list; frames are the checkpoint's."""
    from pvc.cli import serve

    commands = []

    def record_command(program, command):
        commands.append((command, os.environ.get("VLLM_API_KEY")))
        raise SystemExit(0)

    monkeypatch.setattr(serve, "require", lambda *names: None)
    monkeypatch.setattr("os.execv", record_command)
    monkeypatch.setenv("PVC_API_KEYS", "--trust-remote-code")
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    with contextlib.suppress(SystemExit):
        main(["serve", "--engine", "vllm", "--name", "eyes", "--dtype", "float32", "--host", "0.0.0.0"])
    command, key = commands[0]
    assert key == "--trust-remote-code" and key not in command
    options = dict(zip(command[3::2], command[4::2], strict=True))
    assert json.loads(options["--media-io-kwargs"]) == {"video": {"num_frames": 8, "size": 64}}
    assert json.loads(options["--override-generation-config"]) == {"max_new_tokens": 1024}
    assert (options["--served-model-name"], options["--dtype"]) == ("eyes", "float32")
    monkeypatch.setenv("PVC_API_KEYS", "first-key-of-twenty second-key-of-twenty")
    assert main(["serve", "--engine", "vllm"]) == 2
    assert "one API key" in capsys.readouterr().err
