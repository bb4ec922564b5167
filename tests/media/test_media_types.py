"""Values validate themselves: limits, pictures, videos."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pvc.errors import MediaError, MismatchError, UsageError
from pvc.media import DEFAULT_LIMITS, Limits, Picture, Video

FRAMES = np.zeros((3, 4, 6, 3), np.uint8)


@pytest.mark.parametrize(
    "wrong", [{"max_pixels": 0}, {"max_frames": -1}, {"max_bytes": 1.5}, {"max_aspect": "2"}, {"max_frames": True}]
)
def test_limits_are_positive_numbers(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Limits(**wrong)


@pytest.mark.parametrize(
    ("size", "code"),
    [
        ((0, 5), "corrupt_media"),
        ((8192, 4097), "too_many_pixels"),
        ((201, 1), "aspect_ratio"),
        ((1, 201), "aspect_ratio"),
    ],
)
def test_sizes_outside_the_limits(size, code):
    with pytest.raises(MediaError, match=r"^x\.png: ") as caught:
        DEFAULT_LIMITS.check_size(*size, "x.png")
    assert caught.value.code == code


@pytest.mark.parametrize("size", [(8192, 4096), (200, 1), (1, 1)])
def test_sizes_at_the_limits(size):
    DEFAULT_LIMITS.check_size(*size, "x.png")


def test_a_picture_is_rgb():
    assert Picture(Image.new("RGB", (2, 2))).kind == "image"
    for wrong in (Image.new("L", (2, 2)), Image.new("RGB", (0, 2)), FRAMES):
        with pytest.raises(UsageError):
            Picture(wrong)


def test_a_video_needs_a_timestamp_for_each_frame():
    with pytest.raises(MismatchError, match="3 frames but 2 timestamps"):
        Video(FRAMES, (0.0, 1.0))


@pytest.mark.parametrize("times", [(0.0, 2.0, 1.0), (-1.0, 0.0, 1.0), (0.0, 1.0, float("nan"))])
def test_timestamps_do_not_decrease(times):
    with pytest.raises(UsageError):
        Video(FRAMES, times)


@pytest.mark.parametrize(
    "frames", [FRAMES[0], FRAMES[..., :2], FRAMES[:0], FRAMES.astype(np.float32), [1], FRAMES[:, :0]]
)
def test_frames_have_one_shape_and_type(frames):
    with pytest.raises(UsageError):
        Video(frames, (0.0, 1.0, 2.0))


def test_a_duration_reaches_the_last_frame():
    with pytest.raises(UsageError, match="duration"):
        Video(FRAMES, (0.0, 1.0, 2.0), duration=1.5)


def test_from_frames_without_times_is_one_a_second():
    video = Video.from_frames(FRAMES)
    assert video.kind == "video"
    assert video.timestamps == (0.0, 1.0, 2.0)
    assert video.duration == 3.0
    assert video.source_frames == 3
    assert video.frames is FRAMES


def test_from_frames_with_a_rate_or_times():
    assert Video.from_frames(FRAMES, fps=4).timestamps == (0.0, 0.25, 0.5)
    assert Video.from_frames(FRAMES, fps=4).duration == 0.75
    video = Video.from_frames(FRAMES, timestamps=[0, 0.1, 7])
    assert video.timestamps == (0.0, 0.1, 7.0)
    assert video.duration is None
    with pytest.raises(UsageError, match="not both"):
        Video.from_frames(FRAMES, fps=1, timestamps=[0, 1, 2])
    with pytest.raises(MismatchError, match="3 frames but 1 timestamps"):
        Video.from_frames(FRAMES, timestamps=[0])


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), "2", True])
def test_from_frames_refuses_a_wrong_rate(fps):
    with pytest.raises(UsageError):
        Video.from_frames(FRAMES, fps=fps)


def test_from_frames_takes_lists_of_arrays_and_pictures():
    red = Image.new("RGB", (6, 4), "red")
    video = Video.from_frames([FRAMES[0], red, np.full((4, 6), 0.5, np.float32), red.convert("RGBA")])
    assert video.frames.shape == (4, 4, 6, 3)
    assert video.frames[:, 0, 0].tolist() == [[0, 0, 0], [255, 0, 0], [128, 128, 128], [255, 0, 0]]


def test_from_frames_takes_floats_and_other_channel_counts():
    assert Video.from_frames(np.ones((2, 4, 6, 3))).frames.max() == 255
    grey = Video.from_frames(np.full((2, 4, 6, 1), 9, np.uint8))
    assert grey.frames.shape == (2, 4, 6, 3)
    assert (grey.frames == 9).all()
    clear = Video.from_frames(np.zeros((2, 4, 6, 4), np.uint8))
    assert (clear.frames == 255).all()  # fully transparent: white


def test_from_frames_names_both_sizes():
    with pytest.raises(MismatchError, match=r"frame 1 is 5x4, frame 0 is 6x4"):
        Video.from_frames([FRAMES[0], FRAMES[1][:, :5]])


@pytest.mark.parametrize("frames", [[], "abc", 7, [7], FRAMES[0], np.zeros((2, 4, 6, 3), np.int32), {}])
def test_from_frames_refuses_what_is_no_video(frames):
    with pytest.raises(UsageError):
        Video.from_frames(frames)
