"""The README's marked blocks run as printed, from the root of the checkout, with the bundled model."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"<!-- test -->\n```(\w+)\n(.*?)```", README, re.DOTALL)


def test_there_are_blocks():
    assert sorted({language for language, _ in BLOCKS}) == ["python", "sh"]
    assert len(BLOCKS) >= 5


@pytest.mark.parametrize("code", [code for language, code in BLOCKS if language == "python"])
def test_python_blocks_run(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize(
    "line",
    [line for language, code in BLOCKS if language == "sh" for line in code.splitlines() if line.strip()],
)
def test_shell_lines_run(line):
    words = shlex.split(line, comments=True)
    assert words[0] == "pvc"
    done = subprocess.run(
        [sys.executable, "-m", "pvc", *words[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_links_lead_somewhere():
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (ROOT / target).exists(), f"{name}: {target}"
