"""Frames one at a time: those of a whole video, a folder's pictures once each, and nothing but cameras as cameras."""

import os
import time

import numpy as np
import pytest
from PIL import Image

from pvc.errors import ForbiddenError, MediaError, UsageError
from pvc.media import Sampling, load_video, write_video
from pvc.media.live import SETTLED_S, Folder, camera_frames, video_frames


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("live") / "clip.mp4"
    frames = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
    write_video(path, frames, fps=8)
    return path


@pytest.mark.parametrize("fps", [None, 2.0, 3.0, 100.0])
def test_frames_and_times_are_those_of_the_whole_video(clip, fps):
    one_by_one = list(video_frames(clip, fps, (32, 32)))
    whole = load_video(clip, Sampling(fps=fps) if fps else Sampling(frames=768), size=(32, 32))
    assert [at for _, at in one_by_one] == list(whole.timestamps)
    assert np.array_equal(np.stack([frame for frame, _ in one_by_one]), whole.frames)


def test_a_video_is_decoded_only_as_far_as_it_is_asked_for(clip):
    frames = video_frames(clip)
    first, at = next(frames)
    assert (first.shape, first.dtype, at) == ((48, 64, 3), np.uint8, 0.0)
    frames.close()


def test_files_that_are_refused(tmp_path, clip):
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    for path, error in (
        (tmp_path / "x.png", MediaError),
        (tmp_path / "nowhere.mp4", MediaError),
        ("http://example.org/x.mp4", ForbiddenError),
    ):
        with pytest.raises(error):
            next(video_frames(path))
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size // 3])
    with pytest.raises(MediaError):
        list(video_frames(cut))
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UsageError):
            next(video_frames(clip, fps))


def written(path, seconds_ago, colour="red"):
    Image.new("RGB", (10, 6), colour).save(path)
    then = time.time() - seconds_ago
    os.utime(path, (then, then))


def test_a_folder_gives_every_picture_once_in_order(tmp_path):
    folder = Folder(tmp_path)
    assert list(folder.new()) == []
    written(tmp_path / "b.png", 9)
    written(tmp_path / "a.png", 10)
    (tmp_path / "notes.txt").write_text("no picture")
    first = list(folder.new())
    assert [at for _, at in first] == pytest.approx([0.0, 1.0], abs=1e-3)
    assert first[0][0].shape == (6, 10, 3)
    assert list(folder.new()) == []
    written(tmp_path / "c.png", 100)  # older than those before it: it comes right after them
    ((_, at),) = folder.new()
    assert at == pytest.approx(first[1][1] + 0.001)


def test_a_growing_file_waits_and_a_broken_one_is_named(tmp_path):
    folder = Folder(tmp_path)
    written(tmp_path / "a.png", 0)
    assert list(folder.new()) == []
    time.sleep(SETTLED_S + 0.05)
    assert len(list(folder.new())) == 1
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    then = time.time() - 5
    os.utime(tmp_path / "b.png", (then, then))
    assert list(folder.new()) == []
    assert len(folder.refused) == 1
    assert "b.png" in folder.refused[0]
    assert list(folder.new()) == []
    assert len(folder.refused) == 1
    # Neither what a link points to nor a pipe is opened as a picture.
    os.mkfifo(tmp_path / "c.png")
    os.utime(tmp_path / "c.png", (then, then))
    assert list(folder.new()) == []
    assert len(folder.refused) == 2
    with pytest.raises(MediaError, match="no such folder"):
        Folder(tmp_path / "nowhere")


def test_only_devices_are_cameras(tmp_path, clip):
    with pytest.raises(ForbiddenError, match="not a camera"):
        next(camera_frames(clip))
    with pytest.raises(MediaError):
        next(camera_frames(tmp_path / "video0"))
    # A device that is not a camera.
    with pytest.raises(MediaError, match="cannot be read"):
        next(camera_frames("/dev/null"))
