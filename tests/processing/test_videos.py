"""Frames of videos: sampled with their times, squashed to one square, normalised like a picture of one tile."""

import numpy as np
import pytest
import torch
from PIL import Image

from pvc.errors import MismatchError, UsageError
from pvc.media import Video, write_video
from pvc.processing.image import PVCImageProcessor
from pvc.processing.video import PVCVideoProcessor

SIZE = {"height": 32, "width": 32}


@pytest.fixture
def processor():
    return PVCVideoProcessor(size=SIZE, num_frames=4)


def clip(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 24, 40, 3), dtype=np.uint8)


def test_pixels_equal_a_picture_of_one_tile(processor):
    frames = clip(3)
    ours = processor(frames, return_tensors="pt")
    pictures = PVCImageProcessor(size=SIZE, max_patches=1)(list(map(Image.fromarray, frames)), return_tensors="pt")
    assert ours["video_grid_thw"].tolist() == [[3, 1, 1]]
    assert torch.allclose(ours["pixel_values_videos"], pictures["pixel_values"], atol=1e-6)


def test_times_come_from_the_file(processor, tmp_path):
    write_video(tmp_path / "a.mp4", clip(10), fps=5)
    batch = processor(str(tmp_path / "a.mp4"), return_tensors="pt")
    assert batch["video_grid_thw"].tolist() == [[4, 1, 1]]
    assert batch["timestamps"] == [pytest.approx([0.2, 0.6, 1.2, 1.6], abs=0.21)]
    batch = processor(str(tmp_path / "a.mp4"), times=[0.0, 1.0])
    assert batch["timestamps"] == [pytest.approx([0.0, 1.0])]
    batch = processor(str(tmp_path / "a.mp4"), fps=1)
    assert batch["timestamps"] == [pytest.approx([0.0, 1.0])]


def test_arrays_with_metadata(processor):
    metadata = [{"fps": 2.0, "frames_indices": [0, 3, 6]}]
    batch = processor([clip(3)], video_metadata=metadata)
    assert batch["timestamps"] == [[0.0, 1.5, 3.0]]
    assert processor([clip(3)], timestamps=[[0.0, 0.5, 4.0]])["timestamps"] == [[0.0, 0.5, 4.0]]
    with pytest.raises(MismatchError, match="1 videos, but there are 2 videos"):
        processor([clip(3), clip(2)], video_metadata=metadata)


def test_long_arrays_are_sampled_unless_told_not_to(processor):
    assert len(processor([clip(12)])["timestamps"][0]) == 4
    assert len(processor([clip(12)], do_sample_frames=False)["timestamps"][0]) == 12
    assert len(processor([clip(12)], num_frames=6)["timestamps"][0]) == 6


def test_several_videos_of_any_kind(processor):
    pictures = [Image.fromarray(frame) for frame in clip(2)]
    batch = processor([clip(3), Video.from_frames(clip(2), fps=4), pictures], return_tensors="pt")
    assert batch["video_grid_thw"].tolist() == [[3, 1, 1], [2, 1, 1], [2, 1, 1]]
    assert batch["timestamps"] == [[0.0, 1.0, 2.0], [0.0, 0.25], [0.0, 1.0]]
    assert batch["pixel_values_videos"].shape == (7, 3, 32, 32)


def test_times_need_not_start_at_zero(processor):
    metadata = [{"fps": 10.0, "frames_indices": [5, 15, 25]}]
    assert processor([clip(3)], video_metadata=metadata)["timestamps"] == [[0.5, 1.5, 2.5]]
    times = [[1.0 + 0.5 * number for number in range(12)]]
    assert processor([clip(12)], timestamps=times)["timestamps"] == [pytest.approx([1.5, 3.0, 4.5, 6.0], abs=0.5)]


def test_options_that_exclude_each_other(processor):
    with pytest.raises(UsageError, match="num_frames and fps"):
        processor([clip(3)], num_frames=2, fps=1)
    with pytest.raises(UsageError, match="do_normalize"):
        processor([clip(3)], do_normalize=False)
    with pytest.raises(UsageError, match="no videos"):
        processor([])


def test_unknown_options_are_errors(processor):
    with pytest.raises(UsageError, match="frame_count"):
        processor([clip(3)], frame_count=2)


def test_all_frames_of_a_file_or_an_error(processor, tmp_path):
    write_video(tmp_path / "a.mp4", clip(30), fps=10)
    path = str(tmp_path / "a.mp4")
    batch = processor(path, do_sample_frames=False, return_tensors="pt")
    assert batch["video_grid_thw"].tolist() == [[30, 1, 1]]
    assert batch["timestamps"] == [pytest.approx([index / 10 for index in range(30)])]
    assert len(PVCVideoProcessor(size=SIZE, do_sample_frames=False)(path)["timestamps"][0]) == 30
    write_video(tmp_path / "b.mp4", np.zeros((800, 16, 16, 3), np.uint8), fps=100)
    with pytest.raises(UsageError, match="do_sample_frames is False, but it has 800 frames; the limit is 768"):
        processor(str(tmp_path / "b.mp4"), do_sample_frames=False)


def test_the_size_of_one_call(processor, tmp_path):
    write_video(tmp_path / "a.mp4", clip(6), fps=3)
    for item in (str(tmp_path / "a.mp4"), clip(4)):
        for size in ({"height": 16, "width": 16}, 16, (16, 16)):
            assert processor([item], size=size, return_tensors="pt")["pixel_values_videos"].shape[2:] == (16, 16)
    assert processor([clip(4)], return_tensors="pt")["pixel_values_videos"].shape[2:] == (32, 32)


def test_a_call_that_asks_for_frames_samples_videos_in_memory_too(processor):
    video = Video.from_frames(clip(12), fps=4)
    assert len(processor([video])["timestamps"][0]) == 12
    assert processor([video], fps=1)["timestamps"] == [[0.0, 1.0, 2.0]]
    assert len(processor([video], num_frames=3)["timestamps"][0]) == 3
    assert len(processor([video], do_sample_frames=True)["timestamps"][0]) == 4
    assert processor([video], times=[0.5, 2.0])["timestamps"] == [[0.5, 2.0]]
