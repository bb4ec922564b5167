"""The choice of frames, on numbers alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvc.errors import MediaError, UsageError
from pvc.media import DEFAULT_LIMITS, Limits, Sampling, choose

TEN = [i / 10 for i in range(30)]  # 3 s at 10 frames a second


def pick(frame_times, duration, limits=DEFAULT_LIMITS, /, **rule):
    return choose(frame_times, duration, Sampling(**rule), limits)


def test_default_is_sixteen_frames():
    assert len(pick(TEN, 3.0)[0]) == 16


@pytest.mark.parametrize(
    "rule",
    [
        {"fps": 2.0, "times": (1.0,)},
        {"frames": None},
        {"frames": 0},
        {"frames": True},
        {"frames": 2.0},
        {"fps": 0.0},
        {"fps": -1.0},
        {"fps": float("nan")},
        {"fps": float("inf")},
        {"fps": "2"},
        {"times": ()},
        {"times": [1.0]},
        {"times": (-1.0,)},
        {"times": (float("nan"),)},
        {"times": (2.0, 1.0)},
        {"times": (1.0, 1.0)},
    ],
)
def test_wrong_rules_are_refused(rule):
    with pytest.raises(UsageError):
        Sampling(**rule)


def test_uniform_takes_the_middle_of_equal_parts():
    # Parts of 0.75 s; their middles 0.375, 1.125, 1.875 and 2.625 show the frames of 0.3, 1.1, 1.8 and 2.6 s.
    assert pick(TEN, 3.0, frames=4) == ([3, 11, 18, 26], ())
    assert pick(TEN, 3.0, frames=1) == ([15], ())


def test_uniform_goes_by_time_and_not_by_count():
    crowded = [0.0, *(9 + i / 100 for i in range(99))]  # one frame for 9 s, then 99 frames in 1 s
    indices, _ = pick(crowded, 10.0, frames=10)
    assert indices == [0, 51]  # 0.5 ... 8.5 s show frame 0; 9.5 s shows the frame of 9.5 s


def test_fewer_frames_than_asked_gives_all():
    assert pick([0.0, 5.0, 5.1], 6.0, frames=8) == ([0, 1, 2], ())
    assert pick([0.0], None, frames=8) == ([0], ())


def test_unknown_duration_lets_the_last_frame_stay_an_average_time():
    assert pick([0.0, 1.0, 2.0, 3.0], None, frames=2) == ([1, 3], ())


def test_fps_takes_what_is_on_display():
    assert pick(TEN, 3.0, fps=2.0) == ([0, 5, 10, 15, 20, 25], ())
    assert pick(TEN, 3.0, fps=10.0)[0] == list(range(30))
    assert pick(TEN, 3.0, fps=0.1)[0] == [0]
    assert pick([0.0, 0.4, 1.7], 3.0, fps=1.0) == ([0, 1, 2], ())  # 0 s, 1 s, 2 s


def test_fps_above_the_source_rate_does_not_repeat_frames():
    assert pick(TEN, 3.0, fps=1e9)[0] == list(range(30))


def test_fps_is_thinned_to_the_limit_evenly_and_says_so():
    times = [i / 10 for i in range(1000)]
    indices, warnings = pick(times, 100.0, Limits(max_frames=100), fps=10.0)
    assert len(indices) == 100
    assert set(np.diff(indices)) == {10}
    assert len(warnings) == 1
    assert warnings[0].startswith("fps_reduced: ")
    assert "1000" in warnings[0]


def test_fps_does_not_depend_on_a_lying_duration():
    assert pick(TEN, 1e15, fps=1000.0)[0] == list(range(30))


def test_times_take_what_is_on_display():
    assert pick(TEN, 3.0, times=(0.0, 0.3, 1.26, 2.99)) == ([0, 3, 12, 29], ())
    assert pick(TEN, 3.0, times=(3.0,)) == ([29], ())


def test_times_on_one_frame_are_merged_with_a_warning():
    indices, warnings = pick(TEN, 3.0, times=(1.0, 1.05, 2.0))
    assert indices == [10, 20]
    assert warnings[0].startswith("times_merged: ")


@pytest.mark.parametrize("time", [3.1, 1e9])
def test_a_time_outside_the_video_is_refused(time):
    with pytest.raises(UsageError, match="outside"):
        pick(TEN, 3.0, times=(time,))


def test_more_frames_than_the_limit_are_refused():
    for rule in ({"frames": 769}, {"times": tuple(float(i) for i in range(769))}):
        with pytest.raises(MediaError, match=r"769.*768") as caught:
            pick(TEN, 3.0, **rule)
        assert caught.value.code == "too_many_frames"


@pytest.mark.parametrize("times", [[], [1.0, 2.0], [0.0, 2.0, 1.0]])
def test_times_that_are_no_timeline_are_refused(times):
    with pytest.raises(UsageError):
        pick(times, 3.0)


@st.composite
def timelines(draw):
    gaps = draw(st.lists(st.integers(1, 5000), max_size=60))
    times = [0.0, *(int(total) / 1000 for total in np.cumsum(gaps))] if gaps else [0.0]
    tail = draw(st.none() | st.integers(1, 5000))
    return times, None if tail is None else times[-1] + tail / 1000


@given(timelines(), st.integers(1, 40))
def test_uniform_equals_the_definition(timeline, count):
    times, duration = timeline
    indices, _ = pick(times, duration, frames=count)
    if len(times) <= count:
        assert indices == list(range(len(times)))
        return
    end = duration if duration is not None else times[-1] + times[-1] / (len(times) - 1)
    displayed = set()
    for part in range(count):
        middle = (part + 0.5) * end / count
        displayed.add(max(i for i, time in enumerate(times) if time <= middle + 1e-6))
    assert indices == sorted(displayed)


@given(timelines(), st.floats(0.01, 50))
def test_fps_equals_the_definition(timeline, fps):
    times, duration = timeline
    end = duration if duration is not None else times[-1] + times[-1] / max(len(times) - 1, 1)
    indices, _ = pick(times, duration, Limits(max_frames=10_000), fps=fps)
    moments = np.arange(int(end * fps) + 2) / fps
    displayed = np.searchsorted(times, moments[moments < max(end - 2e-6, 1e-9)] + 1e-6, side="right") - 1
    doubtful = sum(abs(round(t * fps) / fps - t) < 3e-6 for t in [*times, end])  # a moment on a frame's very edge
    assert len(set(indices) ^ {int(i) for i in displayed}) <= doubtful
