"""Times of frames in memory: true ones from `video_metadata`, or an error that names what contradicts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.video_utils import VideoMetadata

from pvc.errors import MismatchError, UsageError
from pvc.media import Video, write_video
from pvc.processing.metadata import compute_frame_times, list_metadata
from pvc.processing.video import PVCVideoProcessor
from pvc.testing import tiny_processor

PROCESSOR = PVCVideoProcessor(size={"height": 32, "width": 32}, num_frames=8)


def clip(count):
    return np.zeros((count, 24, 40, 3), np.uint8)


def times_of(videos, metadata, **options):
    return PROCESSOR(videos, video_metadata=metadata, **options)["timestamps"]


@pytest.mark.parametrize(
    "entry",
    [
        {"fps": 4},
        {"fps": 4, "total_num_frames": 8},
        {"fps": 4.0, "total_num_frames": 8, "duration": 2.0},
        {"total_num_frames": 8, "duration": 2.0},
        {"duration": 2.0},
        {"fps": np.float32(4), "frames_indices": np.arange(8)},
        {"fps": 4, "frames_indices": list(range(8)), "total_num_frames": 100, "duration": 25.0},
        {"duration": 25, "total_num_frames": 100, "frames_indices": range(8)},
        {"timestamps": [index / 4 for index in range(8)], "fps": None},
    ],
)
def test_all_ways_to_say_four_frames_a_second(entry):
    expected = [index / 4 for index in range(8)]
    forms = [entry, [entry], [[entry]]]
    if "timestamps" not in entry:
        forms.append(VideoMetadata(**{"total_num_frames": None, **entry}))
    for form in forms:
        assert times_of([clip(8)], form) == [pytest.approx(expected)]
    assert times_of([clip(8)], entry, fps=2) == [pytest.approx(expected[::2])]
    assert times_of([clip(8)], entry, do_sample_frames=False) == [pytest.approx(expected)]


def test_a_rate_reaches_the_prompt():
    """D6: the prompt has the true times, and `fps=` samples half of the frames."""
    processor = tiny_processor()
    metadata = {"total_num_frames": 8, "fps": 4, "duration": 2.0}
    for options, times in (({}, ["0.0s", "0.5s", "1.8s"]), ({"fps": 2}, ["0.0s", "0.5s", "1.5s"])):
        batch = processor(text="<video>", videos=[clip(8)], video_metadata=[metadata], num_frames=None, **options)
        text = processor.tokenizer.decode(batch["input_ids"][0])
        if options:
            assert batch["video_grid_thw"][0][0] == 4
            assert all(f"{time}: " in text for time in times)
        else:
            assert "1.0s: " in text
            assert "7.0s: " not in text


def test_several_videos_and_none():
    entries = [{"fps": 2}, None, {}, {"fps": 1, "frames_indices": [3, 5]}]
    expected = [[0.0, 0.5, 1.0], [0.0, 1.0], [0.0, 1.0], [3.0, 5.0]]
    videos = [clip(3), clip(2), clip(2), clip(2)]
    assert times_of(videos, entries) == expected
    assert times_of([videos[:2], videos[2:]], [entries[:2], entries[2:]]) == expected
    assert times_of(videos, None, timestamps=[[0.0, 0.5, 1.0], None, None, [3.0, 5.0]]) == expected
    assert times_of([clip(1)], {"total_num_frames": 1}) == [[0.0]]


@pytest.mark.parametrize(
    ("entry", "error", "message"),
    [
        ({"fps": 25, "total_num_frames": 100}, MismatchError, "total_num_frames 100, but 8 frames were passed"),
        ({"total_num_frames": 8}, UsageError, "has no fps; pass fps, or duration and total_num_frames"),
        ({"frames_indices": list(range(8))}, UsageError, "has no fps"),
        ({"frames_indices": list(range(8)), "duration": 4.0}, UsageError, "has no fps"),
        ({"fps": 4, "frames_indices": [0, 1]}, MismatchError, "2 frames_indices, but 8 frames"),
        ({"fps": 4, "frames_indices": [*range(7), 90], "total_num_frames": 80}, MismatchError, "index 90.* is 80"),
        ({"fps": 4, "frames_indices": [7, *range(7)]}, UsageError, "must not decrease"),
        ({"fps": 4, "frames_indices": [-1, *range(7)]}, UsageError, "0 or more"),
        ({"fps": 4, "frames_indices": 8}, UsageError, "list of numbers"),
        ({"fps": 0}, UsageError, "fps .* above 0, not 0"),
        ({"fps": float("nan")}, UsageError, "fps .* above 0"),
        ({"fps": "4"}, UsageError, "fps .* above 0, not '4'"),
        ({"fps": True}, UsageError, "fps"),
        ({"fps": 4, "duration": -2}, UsageError, "duration"),
        ({"fps": 4, "total_num_frames": 8, "duration": 60.0}, MismatchError, "8 frames at 4 fps do not last 60 s"),
        ({"timestamps": [0.0, 1.0]}, MismatchError, "2 timestamps, but 8 frames"),
        ({"timestamps": [3.0, *range(7)]}, UsageError, "must not decrease"),
        ({"fps": 4, "frame_indices": [0]}, UsageError, "'frame_indices'; did you mean 'frames_indices'"),
        ("4 fps", UsageError, "must be a dictionary, not a str"),
        ([{"fps": 4}, {"fps": 4}], MismatchError, "describes 2 videos, but there are 1"),
    ],
)
def test_never_silently_wrong(entry, error, message):
    with pytest.raises(error, match=message):
        times_of([clip(8)], entry if isinstance(entry, list) else [entry])


def test_files_and_videos_have_their_times(tmp_path):
    write_video(tmp_path / "a.mp4", clip(6), fps=3)
    for item, what in (
        (str(tmp_path / "a.mp4"), "a file"),
        (Video.from_frames(clip(6), fps=3), r"a pvc\.media\.Video"),
    ):
        with pytest.raises(UsageError, match=f"video 0 is {what}, which has its times"):
            times_of([item], [{"fps": 30}])
        with pytest.raises(UsageError, match="has its times"):
            times_of([item], None, timestamps=[[0.0]])
        assert times_of([item], [{}]) == [pytest.approx([index / 3 for index in range(6)])]


@given(st.integers(1, 40), st.floats(0.01, 1000), st.booleans())
def test_index_over_rate(count, fps, has_total):
    entry = {"fps": fps, "total_num_frames": count} if has_total else {"fps": fps}
    (metadata,) = list_metadata(entry, 1)
    assert compute_frame_times(metadata, count, 0) == [index / fps for index in range(count)]
