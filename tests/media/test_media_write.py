"""Writing pictures and videos, and reading them back."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from pvc.errors import MismatchError, UsageError
from pvc.media import Picture, Sampling, Video, load_image, load_video, probe, write_image, write_video

CLIP = np.stack([np.full((48, 64, 3), i * 8, np.uint8) for i in range(12)])


def listing(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("fps", [1, 10, 29.97, 30000 / 1001, 0.5, Fraction(25), 1000])
def test_a_video_comes_back_with_its_times(tmp_path, numbers, fps):
    write_video(tmp_path / "a.mp4", CLIP, fps)
    video = load_video(tmp_path / "a.mp4", Sampling(frames=12))
    assert numbers(video.frames) == list(range(12))
    assert video.warnings == ()
    assert video.timestamps == pytest.approx([i / float(fps) for i in range(12)], abs=1e-3 / min(float(fps), 1))
    assert listing(tmp_path) == ["a.mp4"]


def test_every_kind_of_frames(tmp_path):
    for frames in (CLIP, CLIP / 255, list(CLIP), [Image.fromarray(frame) for frame in CLIP], Video.from_frames(CLIP)):
        write_video(tmp_path / "a.mp4", frames, 10)
        assert probe(tmp_path / "a.mp4").frames == 12


def test_odd_sizes_are_padded_with_their_edge(tmp_path):
    picture = np.zeros((49, 65, 3), np.uint8)
    picture[-1:, :] = picture[:, -1:] = 255
    write_video(tmp_path / "a.mp4", picture[None], 1, crf=0)
    frame = load_video(tmp_path / "a.mp4").frames[0]
    assert frame.shape == (50, 66, 3)
    assert frame[-1].mean() > 200
    assert frame[:, -1].mean() > 200
    assert frame[20, 20, 0] < 20


def test_the_bytes_are_the_same_each_time(tmp_path):
    write_video(tmp_path / "a.mp4", CLIP, 10)
    write_video(tmp_path / "b.mp4", CLIP, 10)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_crf_trades_size(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), np.uint8)
    write_video(tmp_path / "good.mp4", noise, 10, crf=5)
    write_video(tmp_path / "poor.mp4", noise, 10, crf=45)
    assert (tmp_path / "good.mp4").stat().st_size > 2 * (tmp_path / "poor.mp4").stat().st_size


@pytest.mark.parametrize("wrong", [{"fps": 0}, {"fps": -1}, {"fps": float("nan")}, {"fps": "10"}, {"fps": 1e6}])
def test_wrong_rates(tmp_path, wrong):
    with pytest.raises(UsageError, match="fps"):
        write_video(tmp_path / "a.mp4", CLIP, **wrong)
    with pytest.raises(UsageError, match="crf"):
        write_video(tmp_path / "a.mp4", CLIP, 10, crf=52)
    assert listing(tmp_path) == []


def test_wrong_frames(tmp_path):
    with pytest.raises(MismatchError):
        write_video(tmp_path / "a.mp4", [CLIP[0], CLIP[0][:-2]], 10)
    with pytest.raises(UsageError):
        write_video(tmp_path / "a.mp4", CLIP[0], 10)
    assert listing(tmp_path) == []


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".PNG"])
def test_pictures(tmp_path, suffix):
    for picture in (CLIP[5], Image.fromarray(CLIP[5]), Picture(Image.fromarray(CLIP[5])), CLIP[5] / 255):
        write_image(tmp_path / f"a{suffix}", picture)
        assert np.abs(np.asarray(load_image(tmp_path / f"a{suffix}").image).astype(int) - 40).max() <= 2
    assert listing(tmp_path) == [f"a{suffix}"]


def test_wrong_pictures(tmp_path):
    for name, picture in (("a.tif", CLIP[0]), ("a", CLIP[0]), ("a.png", CLIP), ("a.png", "text"), ("a.png", None)):
        with pytest.raises(UsageError):
            write_image(tmp_path / name, picture)
    with pytest.raises(UsageError, match="cannot be written"):
        write_image(tmp_path / "a.webp", np.zeros((20_000, 1), np.uint8))  # WebP ends at 16383
    with pytest.raises(UsageError, match="cannot be written"):
        write_image(tmp_path / "missing" / "a.png", CLIP[0])
    assert listing(tmp_path) == []


def test_a_failure_keeps_what_was_there(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", CLIP, 10)
    before = (tmp_path / "a.mp4").read_bytes()

    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("numpy.pad", fail)
    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", CLIP * 2, 10)
    assert (tmp_path / "a.mp4").read_bytes() == before
    assert listing(tmp_path) == ["a.mp4"]


def test_frames_at_uneven_times(tmp_path):
    times = [0, 0.2, 0.3, 1.0, 1.5, 2.345][: len(CLIP)]
    write_video(tmp_path / "a.mp4", CLIP[: len(times)], 10, times=times)
    assert load_video(tmp_path / "a.mp4", Sampling(fps=1000)).timestamps == pytest.approx(times, abs=1e-6)
    for wrong in (times[:-1], [0.1, *times[1:]], [0.0, *times[:-1]]):
        with pytest.raises(UsageError, match="times"):
            write_video(tmp_path / "b.mp4", CLIP[: len(times)], 10, times=wrong)
