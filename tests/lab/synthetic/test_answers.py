"""Properties of all tasks: the form of a sample, distances between objects, different further questions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pvc.lab.synthetic import TASKS, Sample, make
from tests.lab.synthetic.kinds import SCENES

Samples = dict[str, list[Sample]]


def _first_frame(item: dict[str, Any]) -> int:
    return next(i for i, point in enumerate(item["track"]) if point is not None)


@pytest.mark.parametrize("task", SCENES)
def test_form(samples: Samples, task: str) -> None:
    for s in samples[task]:
        assert s.kind == TASKS[task].kind and s.task == task
        assert s.description["answer"] == s.answer and s.description["question"] == s.question
        scenes = [s.description, *s.description.get("further", ())]
        for medium, scene in zip(s.media, scenes, strict=True):
            frames = len(medium.frames)
            assert medium.frames.shape == (frames, 64, 64, 3) and medium.frames.dtype == np.uint8
            assert medium.patch_labels.shape == (frames, 8, 8) and medium.patch_labels.dtype == np.int64
            if medium.kind == "image":
                assert frames == 1 and medium.timestamps == ()
            else:
                assert len(medium.timestamps) == frames and medium.timestamps[0] >= 0
                assert all(a < b for a, b in zip(medium.timestamps[:-1], medium.timestamps[1:], strict=True))
            for item in (*scene["figures"], *scene["texts"]):
                assert len(item["track"]) == frames


def test_mixed_strings_can_be_read_in_one_way_only(samples: Samples) -> None:
    for s in samples["read"]:
        if s.description["asked"]["style"] == "code":
            text = s.description["texts"][0]["text"]
            assert not set("OI") & set(text) and set("23456789") & set(text)


@pytest.mark.parametrize("task", ["shape", "count", "place", "describe", "appear"])
def test_objects_do_not_touch(samples: Samples, task: str) -> None:
    gap = 0 if task == "place" else 1
    for s in samples[task]:
        boxes = [(*f["track"][_first_frame(f)], f["w"], f["h"]) for f in s.description["figures"]]
        for i, (x, y, w, h) in enumerate(boxes):
            assert min(x - w / 2, y - h / 2) >= 0 and max(x + w / 2, y + h / 2) <= 64
            for x2, y2, w2, h2 in boxes[:i]:
                assert abs(x - x2) >= (w + w2) / 2 + gap or abs(y - y2) >= (h + h2) / 2 + gap


@pytest.mark.parametrize("task", sorted(SCENES))
def test_further_questions_differ_from_the_first_and_agree_with_it(task: str) -> None:
    """No further question repeats the first; equal questions in other words have equal answers."""
    count = 0
    for seed in range(150):
        sample = make(task, seed)
        assert sample.question not in [question for question, _ in sample.more]
        assert all(question and answer for question, answer in sample.more)
        count += len(sample.more)
        for question, answer in sample.more:
            if question.replace("colour", "color") == sample.question.replace("colour", "color"):
                assert answer == sample.answer
    assert count > 0
