"""Budgets of the house: file and function lengths, file headers, and no import of torchvision anywhere."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MAX_FILE, MAX_FUNCTION, MAX_MODELING, MAX_HEADER = 450, 60, 220, 10


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_budgets(path):
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    limit = MAX_MODELING if path.name == "modeling.py" else MAX_FILE
    assert len(lines) <= limit, f"{len(lines)} lines"
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            assert length <= MAX_FUNCTION, f"{node.name}: {length} lines"
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not any(name.split(".")[0] in ("torchvision", "torchaudio") for name in names)
    if lines:
        header = ast.get_docstring(tree, clean=False)
        assert header, "every file says what it does"
        assert len(header.splitlines()) <= MAX_HEADER
