"""What is drawn is where the scene says, patch labels cover it, and files hold what the rows say."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pvc.errors import MissingExtraError, UsageError
from pvc.synthetic import (
    PATCH_CLASSES,
    TASKS,
    Sample,
    character_class,
    class_name,
    contact_sheet,
    fonts,
    make,
    shape_class,
    write_dataset,
)
from pvc.synthetic.draw import render
from pvc.synthetic.scene import Backdrop, Figure, Look, Scene, Text
from pvc.synthetic.vocabulary import CHARACTERS, COLOURS, SHAPES

CLEAN = Look(1.0, 0.0, 0.0, 0.0, 0)
GREY = Backdrop((128, 128, 128))


def _ink(frame: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Bounding box x0, y0, x1, y1 of what clearly differs from the grey ground."""
    differs = np.abs(frame.astype(int) - 128).max(-1) > 30
    rows, columns = np.flatnonzero(differs.any(1)), np.flatnonzero(differs.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [64, 224])
def test_a_shape_fills_its_box(shape: str, size: int) -> None:
    figure = Figure(shape, "black", (0, 0, 0), 20, 16, 0.0, ((40.5, 30.25),))
    frames, labels = render(Scene(GREY, CLEAN, (), (figure,)), size)
    scale = size / 64
    expected = np.array([30.5, 22.25, 50.5, 38.25]) * scale
    assert np.abs(np.array(_ink(frames[0])) - expected).max() <= 1.5
    assert set(np.unique(labels)) == {0, shape_class(shape, "black")}


@pytest.mark.parametrize("family", fonts.FAMILIES)
def test_text_fills_its_box(family: str) -> None:
    text = Text("H7K", family, (255, 255, 255), 36, 14, 0.05, 0.0, ((34.0, 20.5),))
    frames, labels = render(Scene(GREY, CLEAN, (), (), (text,)), 64)
    assert np.abs(np.array(_ink(frames[0])) - np.array([16, 13.5, 52, 27.5])).max() <= 1.5
    named = [class_name(int(c)) for c in labels[0, 2, 2:6]]
    # A patch between two characters may be background.
    assert list(dict.fromkeys(n for n in named if n != "background")) == list("H7K")


def test_turned_text_is_labelled_where_it_is() -> None:
    text = Text("ABCDEF", "sans-bold", (0, 0, 0), 52, 8, 0.0, 10.0, ((32.0, 32.0),))
    frames, labels = render(Scene(GREY, CLEAN, (), (), (text,)), 224)
    rows, columns = np.nonzero(labels[0] == character_class("A"))
    last_rows, last_columns = np.nonzero(labels[0] == character_class("F"))
    # Ten degrees against the clock: the line begins low on the left and ends high on the right.
    assert rows.mean() > last_rows.mean() + 1 and columns.mean() < last_columns.mean()
    dark = (frames[0].max(-1) < 60).reshape(28, 8, 28, 8).mean((1, 3)) > 0.35
    assert (labels[0][dark] > 0).mean() > 0.9


def test_what_lies_below_has_no_label() -> None:
    below = Figure("square", "red", (214, 26, 32), 16, 16, 0.0, ((32.0, 32.0),))
    above = Figure("square", "blue", (32, 72, 218), 20, 20, 0.0, ((32.0, 32.0),))
    _, labels = render(Scene(GREY, CLEAN, (), (below, above)), 64)
    assert set(np.unique(labels)) == {0, shape_class("square", "blue")}


def test_classes_are_one_to_one() -> None:
    ids = [character_class(c) for c in CHARACTERS] + [shape_class(s, c) for s in SHAPES for c in COLOURS]
    assert sorted(ids) == list(range(1, PATCH_CLASSES))
    assert len({class_name(i) for i in range(PATCH_CLASSES)}) == PATCH_CLASSES


@pytest.mark.parametrize("task", TASKS)
def test_labels_name_what_is_shown_and_only_that(samples: dict[str, list[Sample]], task: str) -> None:
    missing = shown = 0
    for s in samples[task]:
        assert s.patch_labels is not None
        for f, labels in enumerate(s.patch_labels):
            there = {shape_class(i["shape"], i["colour"]) for i in s.description["figures"] if i["track"][f]}
            there |= {character_class(c) for t in s.description["texts"] if t["track"][f] for c in t["text"]}
            found = set(labels.ravel().tolist()) - {0}
            assert found <= there
            if any(veil["shown"][f] for veil in s.description["veils"]):
                continue
            missing, shown = missing + len(there - found), shown + len(there)
    # A narrow I between two wide neighbours may win no patch, and a mover may hide what it passes.
    assert missing <= 0.06 * shown


def test_text_stays_in_the_picture(samples: dict[str, list[Sample]]) -> None:
    for s in (*samples["read"], *samples["digits"]):
        for t in s.description["texts"]:
            for point in filter(None, t["track"]):
                assert t["w"] / 2 <= point[0] <= 64 - t["w"] / 2 and t["h"] / 2 <= point[1] <= 64 - t["h"] / 2


def test_pictures_differ_from_frame_to_frame_by_noise(samples: dict[str, list[Sample]]) -> None:
    noisy = [s for s in samples["digits"] if s.description["look"]["noise"] > 2]
    assert noisy and all((s.frames[0] != s.frames[1]).any() for s in noisy)


def test_contact_sheet_shows_all() -> None:
    sheet = contact_sheet(["read", "appear"], 3, zoom=1)
    assert sheet.mode == "RGB" and sheet.width >= 4 * 64 and sheet.height > 2 * 64


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    fonts._dejavu_folder.cache_clear()
    fonts.font.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    yield
    fonts._dejavu_folder.cache_clear()


def test_missing_fonts_are_named(no_fonts: None) -> None:
    with pytest.raises(MissingExtraError, match="matplotlib"):
        fonts.font("serif", 33)
    with pytest.raises(UsageError, match="comic"):
        fonts.font("comic", 33)


@pytest.mark.parametrize("task", ["read", "digits"])
def test_files_hold_what_the_rows_say(tmp_path: Path, task: str) -> None:
    pytest.importorskip("pvc.media.write", reason="writes the files", exc_type=ImportError)
    rows = write_dataset(tmp_path / "set", task, 3, 4, "test", 64)
    kind = TASKS[task].kind
    lines = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 3 and len({row["id"] for row in lines}) == 3
    for i, row in enumerate(lines):
        sample = make(task, 4 + i, split="test")
        assert set(row) == {"id", "task", kind, "question", "answer"}
        assert (row["task"], row["question"], row["answer"]) == (task, sample.question, sample.answer)
        file = rows.parent / row[kind]
        assert file.stat().st_size > 0
        if kind == "image":
            assert np.array_equal(np.asarray(Image.open(file).convert("RGB")), sample.frames[0])


def test_clips_are_written_at_the_rate_of_their_timestamps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[str, tuple[Any, ...]] = {}
    writer: Any = ModuleType("pvc.media.write")
    writer.write_video = lambda path, frames, fps: written.update({Path(path).name: (frames, fps)})
    writer.write_image = lambda path, picture: written.update({Path(path).name: (picture,)})
    monkeypatch.setitem(sys.modules, "pvc.media.write", writer)
    for task in ("direction", "shape"):
        rows = write_dataset(tmp_path / task, task, 4, 0)
        for i, line in enumerate(rows.read_text(encoding="utf-8").splitlines()):
            row, sample = json.loads(line), make(task, i)
            what = written[row[sample.kind]]
            if sample.kind == "image":
                assert np.array_equal(what[0], sample.frames[0])
            else:
                assert np.array_equal(what[0], sample.frames) and what[1] == 1 / sample.timestamps[1]
