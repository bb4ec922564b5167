"""Answers follow from what the description says is shown, found here by other means than the tasks use."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from pvc.synthetic import TASKS, Sample, make
from pvc.synthetic.vocabulary import COLOURS, DIRECTIONS, PLURALS, SHAPES

Samples = dict[str, list[Sample]]


def _named(sample: Sample) -> list[dict[str, Any]]:
    """The figures that the words of the question fit."""
    words = set(re.findall(r"[a-z]+", sample.question.lower()))
    shapes = {s for s in SHAPES if s in words or PLURALS[s] in words}
    colours = {c for c in COLOURS if c in words}
    figures: list[dict[str, Any]] = sample.description["figures"]
    return [f for f in figures if (not shapes or f["shape"] in shapes) and (not colours or f["colour"] in colours)]


def _first_frame(item: dict[str, Any]) -> int:
    return next(i for i, point in enumerate(item["track"]) if point is not None)


@pytest.mark.parametrize("task", TASKS)
def test_form(samples: Samples, task: str) -> None:
    for s in samples[task]:
        frames = len(s.frames)
        assert s.frames.shape == (frames, 64, 64, 3) and s.frames.dtype == np.uint8
        assert s.patch_labels is not None and s.patch_labels.dtype == np.int64
        assert s.patch_labels.shape == (frames, 8, 8)
        assert s.kind == TASKS[task].kind and s.task == task
        assert s.description["answer"] == s.answer and s.description["question"] == s.question
        if s.kind == "image":
            assert frames == 1 and s.timestamps == ()
        else:
            steps = {b - a for a, b in zip(s.timestamps[:-1], s.timestamps[1:], strict=True)}
            assert s.timestamps[0] == 0.0 and len(s.timestamps) == frames and 4 <= frames <= 16
            assert len(steps) == 1 and steps <= {0.25, 0.5, 1.0}
        for item in (*s.description["figures"], *s.description["texts"]):
            assert len(item["track"]) == frames


def test_read(samples: Samples) -> None:
    for s in samples["read"]:
        (text,) = s.description["texts"]
        assert text["text"] == s.answer and re.fullmatch("[A-Z0-9]{1,6}", s.answer)


def test_mixed_strings_can_be_read_in_one_way_only(samples: Samples) -> None:
    for s in samples["read"]:
        if s.description["asked"]["style"] == "code":
            assert not set("OI") & set(s.answer) and set("23456789") & set(s.answer)


def test_shape(samples: Samples) -> None:
    for s in samples["shape"]:
        (figure,) = _named(s)
        assert s.answer == (figure["colour"] if "colo" in s.question else figure["shape"])


def test_count(samples: Samples) -> None:
    for s in samples["count"]:
        assert s.answer == str(len(_named(s)))
    assert {s.answer for s in samples["count"]} == set("123456")


def test_place(samples: Samples) -> None:
    for s in samples["place"]:
        (figure,) = _named(s)
        x, y = figure["track"][0]
        if s.answer == "center":
            assert abs(x - 32) <= 3 and abs(y - 32) <= 3
        else:
            assert s.answer == f"{'top' if y < 32 else 'bottom'} {'left' if x < 32 else 'right'}"
            assert min(abs(x - 32), abs(y - 32)) > 10


def test_direction(samples: Samples) -> None:
    for s in samples["direction"]:
        (figure,) = _named(s)
        moved = np.subtract(figure["track"][-1], figure["track"][0])
        assert moved @ np.array(DIRECTIONS[s.answer]) >= 19.99
        assert abs(moved @ np.array(DIRECTIONS[s.answer])[::-1]) <= 3.01
    assert {s.answer for s in samples["direction"]} == set(DIRECTIONS)


def test_digits(samples: Samples) -> None:
    for s in samples["digits"]:
        texts = s.description["texts"]
        assert "".join(t["text"] for t in sorted(texts, key=_first_frame)) == s.answer
        shown = [sum(t["track"][f] is not None for t in texts) for f in range(len(s.frames))]
        assert max(shown) == 1
        assert s.answer.isdigit() == ("digit" in s.question)
        assert all(a != b for a, b in zip(s.answer[:-1], s.answer[1:], strict=True))


def test_appear(samples: Samples) -> None:
    for s in samples["appear"]:
        order = sorted(s.description["figures"], key=_first_frame)
        assert len({_first_frame(f) for f in order}) == len(order)
        figure = order[0] if "first" in s.question else order[-1]
        assert s.answer == (figure["colour"] if "colo" in s.question else figure["shape"])


@pytest.mark.parametrize("task", ["shape", "count", "appear"])
def test_objects_do_not_touch(samples: Samples, task: str) -> None:
    for s in samples[task]:
        boxes = [(*f["track"][_first_frame(f)], f["w"], f["h"]) for f in s.description["figures"]]
        for i, (x, y, w, h) in enumerate(boxes):
            assert min(x - w / 2, y - h / 2) >= 0 and max(x + w / 2, y + h / 2) <= 64
            for x2, y2, w2, h2 in boxes[:i]:
                assert abs(x - x2) >= (w + w2) / 2 + 1 or abs(y - y2) >= (h + h2) / 2 + 1


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if task.kind == "video"])
def test_clips_have_the_length_that_is_asked_for(task: str) -> None:
    for frames in (2, 3, 16):
        assert len(make(task, 1, frames=frames).frames) == frames
    lengths = {len(make(task, seed, size=32).frames) for seed in range(60)}
    assert {8, 16} <= lengths


@pytest.mark.parametrize("task", sorted(TASKS))
def test_further_questions_are_others_and_agree_with_the_first(task: str) -> None:
    """No further question repeats the first; where the same thing is asked in other words, the answer is the same."""
    asked = 0
    for seed in range(150):
        sample = make(task, seed)
        assert sample.question not in [question for question, _ in sample.more]
        assert all(question and answer for question, answer in sample.more)
        asked += len(sample.more)
        for question, answer in sample.more:
            if question.replace("colour", "color") == sample.question.replace("colour", "color"):
                assert answer == sample.answer
    assert (asked > 0) is (task not in ("read", "digits"))
