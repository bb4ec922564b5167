"""The examples of docs/serve.md work as printed, with a running server."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")


def block(language, start):
    blocks = [code for kind, code in re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL) if kind == language]
    return next(code for code in blocks if code.startswith(start))


@pytest.fixture
def run(server):
    address, _ = server

    def run(command, code):
        code = code.replace("http://127.0.0.1:8000", address)
        process = subprocess.run([*command, code], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert process.returncode == 0, process.stderr
        return process.stdout

    return run


def test_the_python_client(run):
    assert run([sys.executable, "-c"], block("python", "import base64")).split() == ["42", "42"]


def test_a_live_video(run):
    assert run([sys.executable, "-c"], block("python", "import time")).startswith("2 frames: ")


def test_a_custom_application():
    code = block("python", "import pvc\n")
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr


def test_the_table_of_settings_is_complete():
    from pvc.server.settings import Settings

    fields = set(Settings.__dataclass_fields__)
    named = {name for row in re.findall(r"^\| (`.*?) \|", TEXT, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert {name for name in fields if name.startswith(("max_", "stream_", "decode"))} <= named


def test_curl(run):
    response = json.loads(run(["bash", "-c"], block("sh", "curl")))
    assert response["choices"][0]["message"]["content"] == "472"
    assert response["pvc"]["media"][0]["frames"] == 8
