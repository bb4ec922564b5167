"""What can be known of the vLLM plugin without vLLM; with it: `make test-vllm`."""

import importlib.metadata
import sys

import pytest

from pvc.cli.main import main
from pvc.integrations import vllm


def test_vllm_finds_the_plugin():
    (entry,) = importlib.metadata.entry_points(group="vllm.general_plugins", name="pvc")
    assert entry.load() is vllm.register
    with pytest.raises(AttributeError):
        vllm.anything_else  # noqa: B018


def test_without_vllm_the_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)  # as if it were not installed, wherever it is
    assert main(["serve", "--engine", "vllm"]) == 2
    assert "vllm" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--engine", "sglang"], "--engine must be pvc or vllm"),
        (["--engine", "vllm", "--root", "."], "--root is for --engine pvc"),
        (["--keys", "none.txt"], "cannot read --keys"),
        (["--root", "none"], "is not a directory"),
    ],
)
def test_what_serve_refuses(options, told, capsys):
    assert main(["serve", *options]) == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_keys_of_a_file(tmp_path, monkeypatch):
    from pvc.cli.serve import read_keys
    from pvc.errors import UsageError

    path = tmp_path / "keys.txt"
    path.write_text("# ours\nfirst-key-of-twenty\n\nsecond-key-of-twenty\n")
    assert read_keys(path) == ("first-key-of-twenty", "second-key-of-twenty")
    path.write_text("# nothing\n")
    with pytest.raises(UsageError, match="holds no key"):
        read_keys(path)
    monkeypatch.setenv("PVC_API_KEYS", "a, b")
    assert read_keys(None) == ("a", "b")
