"""Pixels match the scene, and patch labels match what is visible."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pvc.errors import MissingExtraError, UsageError
from pvc.lab.synthetic import PATCH_CLASSES, Sample, character_class, class_name, contact_sheet, fonts, shape_class
from pvc.lab.synthetic.camera import compress_jpeg
from pvc.lab.synthetic.draw import render
from pvc.lab.synthetic.scene import Backdrop, CameraEffects, Curve, Figure, Scene, Text
from pvc.lab.synthetic.vocabulary import CHARACTERS, COLOURS, PUNCTUATION, SHAPES
from tests.lab.synthetic.kinds import SCENES

CLEAN = CameraEffects(1.0, 0.0, 0.0, 0.0, 0)
GREY = Backdrop((128, 128, 128))


def _ink(frame: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Return the bounding box x0, y0, x1, y1 of what clearly differs from the grey ground."""
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
    # Rotated by ten degrees, the line begins low on the left and ends high on the right.
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


def _classes(scene: dict[str, Any], frame: int, min_height: float) -> set[int]:
    """Return the classes in a frame of items of a minimum height in units; marks such as a point are always small."""
    shapes = [i for i in scene["figures"] if i["track"][frame] and min(i["w"], i["h"]) >= min_height]
    texts = [t["text"] for t in scene["texts"] if t["track"][frame] and t["h"] >= min_height]
    characters = {c for text in texts for c in text if c != " " and (min_height == 0 or c not in PUNCTUATION)}
    return {shape_class(i["shape"], i["colour"]) for i in shapes} | {character_class(c) for c in characters}


@pytest.mark.parametrize("task", SCENES)
def test_labels_name_what_is_visible_and_nothing_else(samples: dict[str, list[Sample]], task: str) -> None:
    missing = total = 0
    for s in samples[task]:
        for f, labels in enumerate(s.patch_labels):
            labelled, expected = set(labels.ravel().tolist()) - {0}, _classes(s.description, f, 8.5)
            assert labelled <= _classes(s.description, f, 0)
            if any(veil["shown"][f] for veil in s.description["veils"]):
                continue
            missing, total = missing + len(expected - labelled), total + len(expected)
    # A narrow I between two wide neighbours may label no patch, and a moving shape may hide others.
    assert missing <= 0.06 * total


def test_text_stays_in_the_picture(samples: dict[str, list[Sample]]) -> None:
    for s in (*samples["read"], *samples["page"], *samples["receipt"], *samples["locate"]):
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
    fonts._find_font_folder.cache_clear()
    fonts.load_font.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    yield
    fonts._find_font_folder.cache_clear()


def test_missing_fonts_are_named(no_fonts: None) -> None:
    with pytest.raises(MissingExtraError, match="matplotlib"):
        fonts.load_font("serif", 33)
    with pytest.raises(UsageError, match="comic"):
        fonts.load_font("comic", 33)


@pytest.mark.parametrize("texture", ["ramp", "clouds", "blobs", "stripes", "paper", "checks"])
def test_a_texture_only_mixes_its_two_colours(texture: str) -> None:
    backdrop = Backdrop((40, 90, 200), (100, 60, 220), 33.0, 0.0, texture, 4711)
    (large,), _ = render(Scene(backdrop, CLEAN, extent=(128.0, 64.0)), 96)
    assert large.shape == (96, 192, 3)
    (frame,), _ = render(Scene(backdrop, CLEAN), 64)
    for channel in range(3):
        low, high = sorted((backdrop.colour[channel], (100, 60, 220)[channel]))
        values = frame[..., channel]
        assert low <= values.min() and values.max() <= high and np.ptp(values) > 0.4 * (high - low)
    other, _ = render(Scene(dataclasses.replace(backdrop, texture_seed=4712), CLEAN), 64)
    assert texture == "ramp" or (frame != other[0]).any()


def test_jpeg_changes_pixels_a_little_and_repeats(samples: dict[str, list[Sample]]) -> None:
    sample = samples["shape"][0]
    rough = compress_jpeg(np.repeat(sample.frames, 3, 0), 30)
    assert (rough[0] == rough[2]).all() and (rough[0] != sample.frames[0]).any()
    assert np.abs(rough[0].astype(int) - sample.frames[0].astype(int)).mean() < 12


def test_a_curve_goes_through_its_points() -> None:
    curve = Curve(((10.0, 50.0), (32.0, 14.0), (54.0, 40.0)), (255, 255, 255), 1.2, 2.2)
    (frame,), _ = render(Scene(GREY, CLEAN, curves=(curve,)), 64)
    assert all(frame[int(y), int(x)].min() > 230 for x, y in curve.points)
    assert _ink(frame) == (8, 12, 56, 52)


def test_named_colours_match_the_pixels(samples: dict[str, list[Sample]]) -> None:
    samples_of_colour = [
        (figure["colour"], sample.frames[0][int(figure["track"][0][1]), int(figure["track"][0][0])])
        for sample in samples["place"]
        if sample.level < 4
        for figure in sample.description["figures"]
    ]
    nearest = [
        min(COLOURS, key=lambda c: float(np.sum((np.array(COLOURS[c]) - pixel) ** 2.0)))
        for _, pixel in samples_of_colour
    ]
    assert sum(
        nearest_name == colour for nearest_name, (colour, _) in zip(nearest, samples_of_colour, strict=True)
    ) >= 0.97 * len(samples_of_colour)
