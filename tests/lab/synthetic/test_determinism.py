"""The same (task, seed, split) gives the same sample in every process; train and test have no string in common."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import features

import pvc.lab.synthetic
from pvc.errors import UsageError
from pvc.lab.synthetic import TASKS, Sample, make, stream
from pvc.lab.synthetic.seeding import Rng, get_string_split

_PRINT_HASHES = """
import json
from pvc.lab.synthetic import TASKS, make
pairs = [(s, p) for s in range(4) for p in ("train", "test")]
scenes = {t: [make(t, s, split=p).description_hash for s, p in pairs] for t in TASKS}
print(json.dumps({"scenes": scenes, "pixels": {t: pixel_hash(t) for t in TASKS}}))
"""

_PIXEL_HASH = """
import hashlib
from pvc.lab.synthetic import make

def pixel_hash(task):
    total = hashlib.sha256()
    for seed in range(3):
        for medium in make(task, seed).all_media:
            total.update(medium.frames.tobytes())
    return total.hexdigest()[:16]
"""
_namespace: dict[str, Any] = {}
exec(_PIXEL_HASH, _namespace)
pixel_hash = _namespace["pixel_hash"]

# FreeType and the codecs change pixels between versions, so the stored hashes hold for these versions only.
PAGE_FONTS = ("font-lato", "font-roboto", "font-source-sans-pro")
PINNED = Path(__file__).with_name("pixels.json")


def get_versions() -> dict[str, str]:
    return {
        "numpy": np.__version__.rpartition(".")[0],
        "Pillow": PIL.__version__,
        "FreeType": str(features.version("freetype2")),
        "JPEG": str(features.version("libjpeg_turbo")),
        "fonts": "matplotlib " + importlib.metadata.version("matplotlib").rpartition(".")[0],
        "page fonts": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PAGE_FONTS),
    }


def _hashes_in_a_process(hash_seed: str) -> dict[str, Any]:
    source = str(Path(pvc.lab.synthetic.__file__).parents[3])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path}
    run = subprocess.run(
        [sys.executable, "-c", _PIXEL_HASH + _PRINT_HASHES], env=environment, capture_output=True, text=True, check=True
    )
    hashes: dict[str, Any] = json.loads(run.stdout)
    return hashes


def test_processes_agree() -> None:
    first, second = _hashes_in_a_process("1"), _hashes_in_a_process("2")
    here = {t: [make(t, s, split=p).description_hash for s in range(4) for p in ("train", "test")] for t in TASKS}
    assert first["scenes"] == second["scenes"] == here
    flat = [h for hashes in here.values() for h in hashes]
    assert len(set(flat)) == len(flat)
    assert first["pixels"] == second["pixels"] == {task: pixel_hash(task) for task in TASKS}


def test_pixels_equal_the_stored_hashes_for_these_versions() -> None:
    """To write them again, run `python tests/lab/synthetic/test_determinism.py` after checking the sheets in docs."""
    pinned = json.loads(PINNED.read_text())
    if pinned["versions"] != get_versions():
        pytest.skip(f"pixels are stored for {pinned['versions']}, installed are {get_versions()}")
    assert {task: pixel_hash(task) for task in TASKS} == pinned["pixels"]


# PCG64 is the same on every platform; other numbers here would change every data set.
def test_first_random_numbers_are_stable() -> None:
    rng = Rng("train", "read", 0)
    assert [rng.integer(0, 999) for _ in range(6)] == [161, 754, 762, 601, 840, 492]


@pytest.mark.parametrize("task", TASKS)
def test_pixels_repeat(task: str) -> None:
    a, b = make(task, 5), make(task, 5)
    for one, other in zip(a.all_media, b.all_media, strict=True):
        assert np.array_equal(one.frames, other.frames)
        if TASKS[task].pages:
            assert one.patch_labels is None and other.patch_labels is None
        else:
            assert one.patch_labels is not None and other.patch_labels is not None
            assert np.array_equal(one.patch_labels, other.patch_labels)


@pytest.mark.parametrize("task", TASKS)
def test_the_scene_does_not_depend_on_the_size(task: str) -> None:
    small, large = make(task, 3).description, make(task, 3, size=128).description
    assert {k: v for k, v in small.items() if k != "size"} == {k: v for k, v in large.items() if k != "size"}


def test_strings_are_in_one_split_only(samples: dict[str, list[Sample]]) -> None:
    seen: dict[str, set[str]] = {"train": set(), "test": set()}
    for task in ("read", "digits"):
        seen["train"] |= {s.description["asked"]["text"] for s in samples[task]}
        seen["test"] |= {make(task, seed, split="test").description["asked"]["text"] for seed in range(60)}
    assert not seen["train"] & seen["test"]
    assert all(get_string_split(text) == split for split, texts in seen.items() for text in texts)


def test_one_string_in_ten_is_for_test() -> None:
    held_out = sum(get_string_split(f"S{i}") == "test" for i in range(5000))
    assert 420 <= held_out <= 580


@pytest.mark.parametrize("task", TASKS)
def test_splits_have_different_random_streams(task: str) -> None:
    train, test = Rng("train", task, 1), Rng("test", task, 1)
    assert [train.random() for _ in range(4)] != [test.random() for _ in range(4)]


def test_random_access_equals_iteration() -> None:
    weights = {"read": 2.0, "count": 1.0, "digits": 1.0}
    whole = stream(weights, 9)
    expected = [next(whole).description_hash for _ in range(12)]
    fresh = stream(weights, 9)
    assert [fresh.sample_at(i).description_hash for i in reversed(range(12))] == expected[::-1]
    assert fresh.position == 0
    resumed = stream(weights, 9, start=7)
    assert [next(resumed).description_hash for _ in range(5)] == expected[7:]
    assert resumed.position == 12
    assert stream(weights, 10).sample_at(0).description_hash != expected[0]


def test_tasks_occur_in_proportion_to_weights() -> None:
    mixture = stream({"read": 3.0, "place": 1.0}, 0)
    reads = sum(mixture.task_at(i) == "read" for i in range(4000))
    assert 2880 <= reads <= 3120


def test_frames_apply_to_clips_only() -> None:
    mixture = stream({"shape": 1.0, "appear": 1.0}, 0, frames=5)
    assert {len(mixture.sample_at(i).frames) for i in range(12)} == {1, 5}


def test_invalid_arguments_are_rejected() -> None:
    for call in (
        lambda: make("poem", 0),
        lambda: make("read", -1),
        lambda: make("read", 0, size=60),
        lambda: make("read", 0, split="dev"),  # type: ignore[arg-type]
        lambda: make("read", 0, frames=4),
        lambda: make("digits", 0, frames=1),
        lambda: make("sign", 0, level=2),
        lambda: make("sign", 0, tiles=2),
        lambda: make("captions", 0, frames=3),
        lambda: make("motion", 0, frames=3),
        lambda: stream({}, 0),
        lambda: stream({"read": 0.0}, 0),
    ):
        with pytest.raises(UsageError):
            call()


if __name__ == "__main__":
    written = {"versions": get_versions(), "pixels": {task: pixel_hash(task) for task in TASKS}}
    PINNED.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
