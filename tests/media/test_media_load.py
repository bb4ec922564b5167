"""`load` decides what a source is, `probe` tells without decoding, and importing stays cheap."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pvc.media
from pvc.errors import MediaError, UsageError
from pvc.media import Limits, MediaInfo, Picture, Sampling, Video, load, probe

SOURCE = Path(pvc.media.__file__).parents[2]
RED = Image.new("RGB", (6, 4), "red")
CLIP = np.zeros((3, 4, 6, 3), np.uint8)


def test_files_by_their_first_bytes(make_video, make_animation, tmp_path):
    RED.save(tmp_path / "named.mp4", "PNG")  # names are ignored
    assert load(tmp_path / "named.mp4").kind == "image"
    assert load(make_video("a.mp4")).kind == "video"
    assert load(make_video("b.avi").read_bytes()).kind == "video"
    for name in ("a.gif", "a.webp"):
        path = make_animation(name, [100, 100])
        assert load(path).kind == "video"
        assert load(path, kind="image").kind == "image"
        still = make_animation(name, [100])
        assert load(still).kind == "image"
        assert load(still, kind="video").kind == "video"


def test_values_by_their_type_and_shape():
    assert isinstance(load(RED), Picture)
    assert isinstance(load(CLIP[0]), Picture)
    assert isinstance(load(CLIP[0, ..., 0]), Picture)
    assert isinstance(load(CLIP), Video)
    assert isinstance(load([RED, CLIP[0]]), Video)
    assert load(RED.convert("P")).image.getpixel((0, 0)) == (255, 0, 0)
    clip = load(CLIP, sampling=Sampling(frames=1))
    assert len(clip.frames) == 3
    assert clip.timestamps == (0.0, 1.0, 2.0)


def test_what_is_loaded_passes_through():
    picture, video = load(RED), load(CLIP)
    assert load(picture) is picture
    assert load(video) is video
    assert load(video, kind="video") is video
    with pytest.raises(UsageError):
        load(picture, kind="video")
    with pytest.raises(UsageError):
        load(video, kind="image")


def test_a_still_as_video():
    for source in (RED, np.asarray(RED)):
        video = load(source, kind="video", size=(8, 10))
        assert isinstance(video, Video)
        assert video.frames.shape == (1, 8, 10, 3)
        assert video.timestamps == (0.0,)
        assert video.frames[0, 0, 0].tolist() == [255, 0, 0]
        assert video.duration is None


def test_a_still_file_as_video(tmp_path):
    RED.save(tmp_path / "a.png")
    video = load(tmp_path / "a.png", kind="video", sampling=Sampling(fps=5.0), size=(8, 10))
    assert video.frames.shape == (1, 8, 10, 3)
    assert video.format == "png"
    with pytest.raises(UsageError, match="outside"):
        load(tmp_path / "a.png", kind="video", sampling=Sampling(times=(1.0,)))


def test_kind_and_size_are_checked():
    for wrong in ({"kind": "audio"}, {"size": (1,)}, {"size": (0, 1)}):
        with pytest.raises(UsageError):
            load(RED, **wrong)
    with pytest.raises(UsageError):
        load(CLIP, kind="image")


def test_a_video_as_image_is_refused(make_video):
    with pytest.raises(MediaError, match="this is a video") as caught:
        load(make_video("a.mp4"), kind="image")
    assert caught.value.code == "unsupported_format"


def test_limits_hold_for_frames_in_memory():
    with pytest.raises(MediaError, match="3 frames; the limit is 2") as caught:
        load(CLIP, limits=Limits(max_frames=2))
    assert caught.value.code == "too_many_frames"
    with pytest.raises(MediaError, match="24 pixels"):
        load(CLIP, limits=Limits(max_pixels=20))
    assert load(CLIP, size=(9, 7)).frames.shape == (3, 9, 7, 3)


def test_probe(make_video, make_animation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    RED.save(tmp_path / "a.jpg", exif=exif)
    assert probe(tmp_path / "a.jpg") == MediaInfo("image", "jpeg", 4, 6, 1, None)
    assert probe(make_animation("a.gif", [100, 250])) == MediaInfo("video", "gif", 32, 24, 2, 0.35)
    assert probe(make_animation("a.png", [100, 250])).kind == "image"
    info = probe(make_video("a.mkv", times=[0, 100, 900]))
    assert (info.kind, info.format, info.width, info.height, info.frames) == ("video", "matroska", 64, 48, 3)


def test_probe_decodes_nothing(make_video, make_png, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded"))
    assert probe(make_png(8, 8, 8, 0, [b"rubbish"])).width == 8
    data = bytearray(make_video("a.mkv").read_bytes())
    assert probe(bytes(data)) == probe(make_video("b.mkv"))
    with pytest.raises(MediaError):
        probe(make_png(9000, 9000, 8, 0, [b""]))


def run(code: str, *arguments: object) -> str:
    """The output of `code` in a fresh interpreter."""
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


SHOW = "print([name for name in ('av', 'PIL.Image', 'torch', 'transformers') if name in sys.modules])"


def test_importing_is_light(tmp_path):
    assert run(f"import sys, pvc.media; {SHOW}") == "[]\n"
    RED.save(tmp_path / "a.png")
    assert run(f"import sys, pvc.media; pvc.media.load(sys.argv[1]); {SHOW}", tmp_path / "a.png") == "['PIL.Image']\n"


def test_refusing_imports_no_decoder(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"#EXTM3U\nfile:///etc/hostname\n")
    code = f"""
import sys, pvc.media
try:
    pvc.media.load(sys.argv[1])
except pvc.errors.MediaError as error:
    print(error.code)
{SHOW}"""
    assert run(code, tmp_path / "a.mp4") == "unsupported_format\n[]\n"


def test_the_public_list():
    for name in pvc.media.__all__:
        assert getattr(pvc.media, name).__doc__
    assert callable(pvc.media.load)
    assert callable(pvc.media.probe)
