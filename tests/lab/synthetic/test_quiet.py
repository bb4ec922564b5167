"""Frames without content before clips: times continue evenly, and samples about times are not changed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pvc.lab.synthetic import Sample, make
from pvc.lab.synthetic.quiet import delayed, has_times
from pvc.lab.synthetic.scene import Medium, Turn


def _clips(sample: Sample) -> list[Medium]:
    return [medium for medium in sample.all_media if medium.kind == "video"]


@pytest.mark.parametrize("task", ["captions", "motion", "digits", "direction", "reels", "match"])
@pytest.mark.parametrize(("quiet", "start"), [(0, 7.3), (5, 0.0), (16, 61.9)])
def test_frames_come_before_and_times_go_on(task: str, quiet: int, start: float) -> None:
    changed = 0
    for seed in range(8):
        sample = make(task, seed)
        late = delayed(sample, quiet, start, seed)
        if late is sample:
            assert has_times(sample)
            continue
        changed += 1
        assert (late.question, late.answer, late.more, late.description) == (
            sample.question,
            sample.answer,
            sample.more,
            sample.description,
        )
        assert [(turn.question, turn.answer) for turn in late.turns] == [(t.question, t.answer) for t in sample.turns]
        assert [medium.kind for medium in late.all_media] == [medium.kind for medium in sample.all_media]
        for before, after in zip(_clips(sample), _clips(late), strict=True):
            assert after.frames.dtype == np.uint8 and np.array_equal(after.frames[quiet:], before.frames)
            times = after.timestamps
            assert len(times) == len(after.frames) == quiet + len(before.frames)
            assert times[0] == pytest.approx(start + (before.timestamps[0] if not quiet else 0.0), abs=0.01)
            assert all(a < b for a, b in itertools.pairwise(times))
            steps = [b - a for a, b in itertools.pairwise(before.timestamps)]
            assert [b - a for a, b in itertools.pairwise(times[quiet:])] == pytest.approx(steps, abs=0.02)
        for before, after in zip(sample.all_media, late.all_media, strict=True):
            assert before.kind == "video" or after is before
    assert changed >= 4


def test_frames_before_show_nothing() -> None:
    """They have one colour and at most a little noise; colours differ from sample to sample."""
    colours = set()
    for seed in range(20):
        frames = delayed(make("captions", seed), 6, 0.0, seed).media[0].frames[:6].astype(float)
        middle = np.median(frames.reshape(-1, 3), axis=0)
        # Noise is at most 4 grey levels; its extremes over a frame are some five times as far.
        assert np.abs(frames - middle).max() < 24 and frames.std((0, 1, 2)).max() < 4.5
        colours.add(tuple(np.round(middle / 16)))
    assert len(colours) > 8


def test_samples_repeat_and_depend_on_the_seed() -> None:
    sample = make("motion", 3)
    one, same, other = (delayed(sample, 4, 2.0, seed).media[0].frames for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_without_frames_and_delay_nothing_changes() -> None:
    sample, picture = make("motion", 0), make("sign", 0)
    assert delayed(sample, 0, 0.0, 0) is sample
    assert delayed(picture, 5, 9.0, 0).media[0] is picture.media[0]


def test_samples_that_ask_for_times_do_not_change() -> None:
    for seed in range(12):
        sample = make("when", seed, frames=8)
        assert has_times(sample) and delayed(sample, 8, 30.0, seed) is sample
    for task in ("captions", "motion", "reels"):
        assert not any(has_times(make(task, seed)) for seed in range(20))


def test_a_time_in_any_turn_counts() -> None:
    clip = make("motion", 0).media[0]
    plain = Sample("motion", (clip,), "What is it?", "a red star", 1, {})
    assert not has_times(plain)
    for turns, more in (
        ((Turn((), "When does it appear?", "first"),), ()),
        ((Turn((), "What happens?", "it appears at 2.5s"),), ()),
        ((), (("At which time does it flash?", "the second one"),)),
        ((), (("What happens after 3 seconds?", "it moves"),)),
    ):
        assert has_times(Sample("motion", (clip,), "What is it?", "a red star", 1, {}, more, turns))
