"""Tasks about time: answers follow from the tracks, hidden things are invisible, held-out things stay held out."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest

from pvc.errors import UsageError
from pvc.lab.synthetic import TASKS, Sample, clips, fonts, make, palette
from pvc.lab.synthetic.draw import render
from pvc.lab.synthetic.scene import LEVELS, SceneOptions
from pvc.lab.synthetic.seeding import Rng, Split, is_text_allowed
from pvc.lab.synthetic.sequence_tasks import build_flicker
from pvc.lab.synthetic.veils import merge_equal_frames
from tests.lab.synthetic import oracle
from tests.lab.synthetic.kinds import HELD_OUT_SPLITS, SCENES

MIN_FRAMES = {
    "direction": 2, "appear": 2, "events": 3, "digits": 2, "pieces": 2, "flicker": 2, "board": 4, "static": 2,
    "change": 2, "when": 2, "long": 4, "match": 3, "turns": 3,
}  # fmt: skip
LEVEL_RANGE = range(1, LEVELS + 1)
ABOUT_SHAPES = ("direction", "appear", "events", "change", "match")


def _some(task: str, seeds: int, **options: Any) -> list[Sample]:
    return [make(task, seed, size=32, level=level, **options) for level in LEVEL_RANGE for seed in range(seeds)]


def _scenes(sample: Sample) -> list[dict[str, Any]]:
    return [sample.description, *sample.description.get("further", ())]


def _items(sample: Sample, kind: str) -> list[dict[str, Any]]:
    return [item for scene in _scenes(sample) for item in scene[kind]]


def test_every_clip_task_is_tested() -> None:
    assert set(MIN_FRAMES) == {name for name in SCENES if TASKS[name].kind == "video"}


@pytest.mark.parametrize("task", [task for task in MIN_FRAMES if task != "static"])
@pytest.mark.parametrize("frames", [None, 8])
def test_answers_follow_from_the_tracks(task: str, frames: int | None) -> None:
    for sample in _some(task, 6 if task == "long" and frames is None else 25, frames=frames):
        oracle.check(sample)


@pytest.mark.parametrize("task", MIN_FRAMES)
def test_lengths_and_sizes(task: str) -> None:
    with pytest.raises(UsageError, match="frames"):
        make(task, 1, frames=MIN_FRAMES[task] - 1)
    for frames in (MIN_FRAMES[task], 3 if MIN_FRAMES[task] < 4 else 5, 31, 512):
        for level in (1, 4) if frames == MIN_FRAMES[task] else (2,):
            sample = make(task, 1, size=32, frames=frames, level=level)
            assert sample.media[-1].frames.shape == (frames, 32, 32, 3) and sample.level == level
            assert len(sample.media[-1].timestamps) == frames
    assert make(task, 1, size=96, frames=8).media[-1].frames.shape == (8, 96, 96, 3)


@pytest.mark.parametrize("task", MIN_FRAMES)
def test_every_level_occurs_and_samples_have_further_questions(task: str) -> None:
    samples = [make(task, seed, size=32, frames=8) for seed in range(60)]
    assert {sample.level for sample in samples} == set(LEVEL_RANGE)
    assert all(len(sample.more) <= 7 for sample in samples)
    assert sum(len(sample.more) for sample in samples) >= 2 * len(samples)


@pytest.mark.parametrize("task", MIN_FRAMES)
@pytest.mark.parametrize("split", ["train", *HELD_OUT_SPLITS])
def test_held_out_things_stay_held_out(task: str, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts: list[tuple[Any, ...]] = []
    is_for_it = palette.is_layout_allowed

    def listening(split: Split, *parts: object) -> bool:
        accepted = is_for_it(split, *parts)
        if accepted:
            layouts.append(parts)
        return accepted

    monkeypatch.setattr(palette, "is_layout_allowed", listening)
    for seed in range(12):
        layouts.clear()
        sample = make(task, seed, size=32, split=split, frames=8)
        families = {text["font"] for text in _items(sample, "texts")}
        if task != "static":
            assert families <= set(fonts.get_families(split))
            assert layouts and all(
                (palette.get_layout_split(*parts) == "layouts") is (split == "layouts") for parts in layouts
            )
        pairs = {(f["shape"], f["colour"]) for f in _items(sample, "figures")}
        if split != "colours":
            assert not pairs & palette.HELD_OUT_PAIRS
        elif task in ABOUT_SHAPES:
            facts = sample.description["asked"]
            pair = (facts.get("shape") or facts["shapes"][0], facts.get("colour") or facts["colours"][0])
            assert pair in palette.HELD_OUT_PAIRS
        for text in _whole_texts(sample):
            assert is_text_allowed(text, split)


def _whole_texts(sample: Sample) -> list[str]:
    """Return the texts that a question may ask for as a whole."""
    if sample.task in ("digits", "pieces"):
        return [sample.description["asked"]["text"]]
    if sample.task == "static" and sample.description["asked"]["of"] == "count":
        return []
    return [text["text"] for text in _items(sample, "texts")]


@pytest.mark.parametrize("task", ["digits", "pieces", "flicker", "board"])
def test_answers_of_training_are_not_in_held_out_splits(task: str) -> None:
    texts = {
        split: {text for s in range(60) for text in _whole_texts(make(task, s, size=32, split=split))}
        for split in ("train", *HELD_OUT_SPLITS)
    }
    assert all(not texts["train"] & texts[split] for split in HELD_OUT_SPLITS)


def test_directions_are_balanced_and_levels_slow_down() -> None:
    ways, speeds = Counter[str](), dict[int, float]()
    for level in LEVEL_RANGE:
        samples = [make("direction", seed, size=32, level=level, frames=4) for seed in range(80)]
        moved = [(s.description["figures"][-1], s.description["asked"]["direction"]) for s in samples]
        ways.update(way for _, way in moved if level < 3)
        assert all(oracle.way(figure) == way for figure, way in moved)
        speeds[level] = float(np.mean([oracle.speed(figure) for figure, _ in moved]))
    assert set(ways) == {"left", "right", "up", "down"} and min(ways.values()) > 20
    assert speeds[1] > speeds[2] > speeds[3] > speeds[4] > 8


def test_events_are_countable_in_the_pixels() -> None:
    """The colour at the middle of a flashing shape changes as often as the answer says."""
    seen = Counter[str]()
    for seed in range(60):
        sample = make("events", seed, level=1, frames=12)
        facts = sample.description["asked"]
        if facts["kind"] != "flash":
            continue
        x, y = (round(v) for v in sample.description["figures"][0]["track"][0])
        middle = sample.frames[:, y - 1 : y + 2, x - 1 : x + 2].astype(float).mean((1, 2))
        lit = np.abs(middle - middle[0]).max(-1) > 45
        assert oracle.runs(lit.tolist()) == facts["counts"][0]
        seen[str(facts["counts"][0])] += 1
    assert set(seen) == set("1234")


def test_events_do_not_touch_each_other() -> None:
    for seed in range(40):
        starts = clips.sample_event_starts(Rng("train", "events", seed), 13, 1 + seed % 6)
        assert starts[0] >= 1 and starts[-1] <= 12
        assert all(b - a >= 2 for a, b in itertools.pairwise(starts))


def _another(character: str) -> str:
    return "n" if character.islower() and character != "n" else "X" if character != "X" else "K"


def test_hidden_text_leaves_no_trace() -> None:
    """Another text in its place gives the same picture in all frames where it is not legible."""
    for seed in range(40):
        scene = build_flicker(Rng("train", "flicker", seed), SceneOptions("train", 8)).scene
        (text,) = scene.texts
        other = dataclasses.replace(text, text="".join(_another(c) for c in text.text))
        effects = dataclasses.replace(scene.look, jpeg=0, noise=0.0)
        clean = dataclasses.replace(scene, look=effects)
        a, b = (render(dataclasses.replace(clean, texts=(t,)), 64)[0].astype(int) for t in (text, other))
        differs = np.abs(a - b).reshape(8, -1).max(1)
        for f in range(8):
            if f in scene.asked["legible"]:
                assert differs[f] > 60
            else:
                # A smear differs with the amount of ink under it.
                assert differs[f] < 70 and np.abs(a[f] - b[f]).mean() < 9


def test_hidden_text_has_no_label() -> None:
    for seed in range(40):
        sample = make("flicker", seed, frames=8)
        legible = set(sample.description["asked"]["legible"])
        assert {f for f in range(8) if sample.patch_labels[f].any()} == legible


def test_every_line_of_a_board_is_in_two_frames_or_more() -> None:
    for sample in _some("board", 20, frames=8):
        for text in sample.description["texts"]:
            assert sum(point is not None for point in text["track"]) >= 2


def test_static_clips_change_by_noise_only() -> None:
    for sample in _some("static", 10, frames=4):
        for item in _items(sample, "texts") + _items(sample, "figures"):
            assert len({tuple(point) for point in item["track"]}) == 1
        assert (sample.frames[0] != sample.frames[1]).any()
        assert (sample.patch_labels == sample.patch_labels[0]).all()


def test_times_are_those_that_the_model_reads() -> None:
    starts, uneven = set(), 0
    for seed in range(80):
        sample = make("when", seed, size=32, frames=8)
        stamps = [f"{time:.1f}s" for time in sample.timestamps]
        assert len(set(stamps)) == 8, "two frames must not have the same time"
        assert all(float(stamp[:-1]) == time for stamp, time in zip(stamps, sample.timestamps, strict=True))
        starts.add(sample.timestamps[0])
        uneven += len({round(b - a, 3) for a, b in itertools.pairwise(sample.timestamps)}) > 1
    assert 0.0 in starts and len(starts) > 20 and uneven > 5


def test_long_clips_have_the_length_of_their_level() -> None:
    assert [len(make("long", 3, size=32, level=level).frames) for level in LEVEL_RANGE] == [64, 128, 256, 512]
    assert {64 <= len(make("long", seed, size=32).frames) <= 128 for seed in range(12)} == {True}


def test_equal_frames_are_rendered_once() -> None:
    scene_qa = TASKS["long"].build(Rng("train", "long", 2), SceneOptions("train", 256, 3))
    shorter, order = merge_equal_frames(scene_qa.scene)
    assert shorter.frames <= 100 and len(order) == 256
    for items, merged in ((scene_qa.scene.figures, shorter.figures), (scene_qa.scene.texts, shorter.texts)):
        for whole, part in zip(items, merged, strict=True):
            assert tuple(part.track[i] for i in order) == whole.track
    sample = make("long", 2, frames=256, level=3)
    pixels, labels = render(scene_qa.scene, 64)
    assert np.array_equal(sample.patch_labels, labels)
    assert np.abs(sample.frames.astype(int) - pixels).mean() < 12


def test_a_match_is_a_picture_and_a_clip() -> None:
    answers = Counter[str]()
    for sample in _some("match", 25, frames=8):
        assert [medium.kind for medium in sample.media] == ["image", "video"]
        facts = sample.description["asked"]
        (figure,) = sample.description["figures"]
        there = {(f["shape"], f["colour"]) for f in sample.description["further"][0]["figures"]}
        assert ((figure["shape"], figure["colour"]) in there) is facts["there"]
        answers[facts["mode"] + str(facts["there"])] += 1
    assert set(answers) == {"thereTrue", "thereFalse", "timeTrue", "wayTrue", "textTrue"}


@pytest.mark.parametrize("task", MIN_FRAMES)
def test_texts_stay_in_the_picture(task: str) -> None:
    for sample in _some(task, 10, frames=8):
        for text in _items(sample, "texts"):
            tail = 0.25 * text["h"] if set("QJgjpqy") & set(text["text"]) else 0.0
            for x, y in filter(None, text["track"]):
                assert text["w"] / 2 - 0.01 <= x <= 64.01 - text["w"] / 2
                assert text["h"] / 2 - 0.01 <= y <= 64.01 - text["h"] / 2 - (tail if task != "static" else 0)


@pytest.mark.parametrize("task", ["direction", "match", "turns"])
def test_no_object_is_hidden_for_the_whole_clip(task: str) -> None:
    for sample in _some(task, 15, frames=8):
        figures = _scenes(sample)[-1]["figures"]
        for i, figure in enumerate(figures):
            clear = [
                f
                for f, place in enumerate(figure["track"])
                if place
                and all(
                    not other["track"][f] or max(abs(a - b) for a, b in zip(place, other["track"][f], strict=True)) > 5
                    for other in figures[i + 1 :]
                )
            ]
            assert clear


def test_objects_that_appear_do_not_touch() -> None:
    for task in ("appear", "change", "when"):
        for sample in _some(task, 10, frames=8):
            for f in range(8):
                boxes = [(*i["track"][f], i["w"], i["h"]) for i in sample.description["figures"] if i["track"][f]]
                for i, (x, y, w, h) in enumerate(boxes):
                    assert min(x - w / 2, y - h / 2) >= -0.01 and max(x + w / 2, y + h / 2) <= 64.01
                    for x2, y2, w2, h2 in boxes[:i]:
                        gap = max(abs(x - x2) - (w + w2) / 2, abs(y - y2) - (h + h2) / 2)
                        assert gap >= 0.3
