"""GIF and WebP animations as videos."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pvc.errors import MediaError, UsageError
from pvc.media import Limits, Sampling, load, load_video


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
def test_durations_are_true(make_animation, numbers, name):
    video = load_video(make_animation(name, [100, 250, 40, 600]))
    assert numbers(video.frames) == [0, 1, 2, 3]
    assert video.timestamps == (0.0, 0.1, 0.35, 0.39)
    assert video.duration == 0.99
    assert video.source_frames == 4
    assert video.format == name[2:]
    assert video.warnings == ()
    assert video.frames.shape == (4, 24, 32, 3)


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
def test_no_duration_is_a_tenth_of_a_second(make_animation, name):
    assert load_video(make_animation(name, [0, 0, 50])).timestamps == (0.0, 0.1, 0.2)


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
def test_sampling_by_time(make_animation, numbers, name):
    path = make_animation(name, [100] * 10 + [1000] * 2)
    assert numbers(load_video(path, Sampling(frames=3)).frames) == [5, 10, 11]
    assert numbers(load_video(path, Sampling(fps=1.0)).frames) == [0, 10, 11]
    assert numbers(load_video(path, Sampling(times=(0.45, 2.5))).frames) == [4, 11]
    with pytest.raises(UsageError):
        load_video(path, Sampling(times=(3.5,)))


def test_frames_are_resized_at_once(make_animation):
    assert load_video(make_animation("a.gif", [100] * 3), size=(8, 10)).frames.shape == (3, 8, 10, 3)


def test_differences_are_composed_on_white(tmp_path):
    """A frame that covers only a part leaves the rest of the one before; what is clear everywhere is white."""
    first = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    first.paste((255, 0, 0, 255), (0, 0, 8, 16))
    first.putpixel((15, 15), (0, 0, 0, 255))  # without it Pillow writes a WebP that forgets about its clear half
    first.putpixel((14, 14), (0, 0, 0, 128))
    second = first.copy()
    second.paste((0, 0, 255, 255), (4, 4, 8, 8))
    for name, options in (("a.gif", {"disposal": 1}), ("a.webp", {"lossless": True})):
        first.save(tmp_path / name, save_all=True, append_images=[second], duration=100, **options)
        frames = load_video(tmp_path / name).frames
        assert frames[0, 8, 12].tolist() == [255, 255, 255]
        assert frames[1, 8, 12].tolist() == [255, 255, 255]
        assert frames[0, 5, 5].tolist() == [255, 0, 0]
        assert frames[1, 5, 5].tolist() == [0, 0, 255]
        assert frames[1, 12, 2].tolist() == [255, 0, 0]


def test_a_still_gif_is_a_video_of_one_frame(make_animation):
    video = load(make_animation("a.gif", [100]), kind="video")
    assert video.kind == "video"
    assert video.frames.shape == (1, 24, 32, 3)
    assert video.timestamps == (0.0,)


def noise(count: int) -> list[Image.Image]:
    return [Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 40, 3), np.uint8)) for i in range(count)]


def test_a_cut_gif_gives_what_is_there(tmp_path):
    frames = noise(6)
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    data = (tmp_path / "a.gif").read_bytes()
    video = load_video(data[: len(data) * 5 // 9])
    assert len(video.frames) == 3
    assert video.warnings[0].startswith("partial_decode: got 3 of 4 frames: ")


def test_a_cut_webp_is_corrupt(tmp_path):
    frames = noise(6)
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=100)
    data = (tmp_path / "a.webp").read_bytes()
    with pytest.raises(MediaError) as caught:
        load_video(data[: len(data) * 2 // 3])
    assert caught.value.code == "corrupt_media"


def test_walking_is_bounded(make_animation):
    with pytest.raises(MediaError, match="more than 3 animation frames") as caught:
        load_video(make_animation("a.gif", [100] * 4), limits=Limits(max_source_frames=3))
    assert caught.value.code == "too_many_frames"


def test_time_is_bounded(make_animation):
    with pytest.raises(MediaError, match="longer than") as caught:
        load_video(make_animation("a.gif", [100] * 4), limits=Limits(max_decode_seconds=1e-9))
    assert caught.value.code == "too_many_frames"


def test_a_frame_beyond_the_canvas_is_refused_before_decoding(make_animation):
    data = bytearray(make_animation("a.gif", [100] * 2).read_bytes())
    # The last image descriptor: move its right and bottom edges far out.
    at = data.rindex(b",\0\0\0\0")
    data[at + 1 : at + 9] = b"\0\0\0\0" + b"\xff\xff\xff\xff"
    with pytest.raises(MediaError, match="65535x65535") as caught:
        load_video(bytes(data))
    assert caught.value.code == "too_many_pixels"


def test_an_animated_png_stays_a_picture(make_animation):
    picture = load(make_animation("a.png", [100, 100]))
    assert picture.kind == "image"
    assert picture.format == "png"


def test_more_frames_than_memory_should_hold():
    small = [Image.new("L", (8, 8), i) for i in range(2)]
    file = io.BytesIO()
    small[0].save(file, "GIF", save_all=True, append_images=small[1:], duration=100)
    with pytest.raises(MediaError, match="the limit is") as caught:
        load_video(file.getvalue(), size=(30_000, 30_000))
    assert caught.value.code == "too_many_pixels"
