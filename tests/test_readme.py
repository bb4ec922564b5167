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
BLOCK = re.compile(r"<!-- test -->\n```(\w+)\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
BLOCKS = BLOCK.findall(README)


def run(*words):
    environment = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def is_printed(expected, output):
    """Compare line by line; "..." and "[...]" stand for whatever differs from run to run."""
    pattern = (
        re.escape(expected.strip()).replace(re.escape("[...]"), r"\[[^\n]*\]").replace(re.escape("..."), r"[^\n]*")
    )
    return re.fullmatch(pattern, "\n".join(line.rstrip() for line in output.strip().splitlines()))


def test_there_are_blocks():
    assert [language for language, _, _ in BLOCKS] == ["sh", "sh", "python", "python", "python"]
    assert sum(bool(printed) for _, _, printed in BLOCKS) == 4


@pytest.mark.parametrize(("language", "code", "printed"), BLOCKS)
def test_blocks_print_what_the_readme_says(language, code, printed):
    if language == "python":
        output = run("-c", code)
    else:
        lines = [shlex.split(line, comments=True) for line in code.splitlines() if line.strip()]
        assert all(words[0] == "pvc" for words in lines)
        output = "".join(run("-m", *words) for words in lines)
    assert output.strip()
    if printed:
        assert is_printed(printed, output), output


def test_the_comparison_can_fail():
    assert is_printed("[...] 42\na ... c\n", "[ 3.0 s] 42\na b c\n")
    assert not is_printed("42", "43") and not is_printed("a", "a\nb") and not is_printed("x ... y", "x\ny")


def test_links_lead_somewhere():
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (ROOT / target).exists(), f"{name}: {target}"
