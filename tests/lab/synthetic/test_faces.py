"""Fonts and words of other packages: if one is missing, the error names it and the command that installs it."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pvc.lab.synthetic
from pvc.cli.main import main
from pvc.errors import MissingExtraError
from pvc.lab.synthetic import make
from pvc.lab.synthetic.pages import faces, texts

CACHES = (
    faces._find_path,
    faces.load_font,
    faces.get_advance,
    faces.get_cap_height,
    texts.load_common_words,
    texts._get_doubled_words,
)
COMMAND = r"pip install 'pvc-vlm\[fonts\]'"


def _clear() -> None:
    for cached in CACHES:
        assert isinstance(cached, functools._lru_cache_wrapper)
        cached.cache_clear()


@pytest.fixture
def fresh() -> Iterator[None]:
    """Clear the caches of fonts and words before and after a test."""
    _clear()
    yield
    _clear()


@pytest.mark.parametrize("module", sorted(set(faces.FACES.values())))
def test_a_missing_font_package_is_named(fresh: None, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # find_spec then finds nothing, as an import does
    package = module.replace("_", "-")
    for face in [face for face, home in faces.FACES.items() if home == module]:
        with pytest.raises(MissingExtraError, match=f"{package}: {COMMAND}"):
            faces.load_font(face, 20)
    other = next(face for face, home in faces.FACES.items() if home != module)
    assert faces.load_font(other, 20).size == 20


def test_a_missing_word_list_is_named(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mnemonic", None)
    with pytest.raises(MissingExtraError, match=f"mnemonic: {COMMAND}"):
        for seed in range(20):
            make("sign", seed)
    assert make("read", 0).answer


def test_a_package_without_its_files_is_named(fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "font_lato").mkdir()
    (tmp_path / "font_lato" / "__init__.py").write_text("")
    monkeypatch.delitem(sys.modules, "font_lato", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingExtraError, match=r"font-lato is installed without its font Lato-Bold\.ttf"):
        faces.load_font("Lato-Bold", 20)


def test_the_command_prints_what_to_install(
    fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mnemonic", None)
    assert main(["lab", "synth", "--task", "sign", "--count", "20", str(tmp_path / "a")]) != 0
    printed = capsys.readouterr().err
    assert "pip install 'pvc-vlm[fonts]'" in printed and "Traceback" not in printed


def test_the_other_tasks_need_none_of_these_packages() -> None:
    """Run in a process where they cannot be imported."""
    missing = ("font_roboto", "font_source_sans_pro", "font_lato", "mnemonic")
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({missing}))\n"
        "from pvc.lab.synthetic import TASKS, make\n"
        "print(sum(bool(make(n, 0, frames=8 if t.kind == 'video' else None).answer) "
        "for n, t in TASKS.items() if not t.pages))"
    )
    source = str(Path(pvc.lab.synthetic.__file__).parents[3])
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONPATH": source}
    )
    assert int(run.stdout) == sum(not task.pages for task in pvc.lab.synthetic.TASKS.values())
