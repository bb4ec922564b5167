"""Pictures and videos written out as text: OpenAI's parts, `data:` addresses and base64 are decoded, not fetched."""

import base64
import io
from urllib.parse import quote_from_bytes

import numpy as np
import pytest
import torch
from PIL import Image

from pvc.errors import ForbiddenError, MediaError, UsageError
from pvc.media import write_video
from pvc.processing.data_urls import decode_base64, read_data_url
from pvc.testing import tiny_processor

PROCESSOR = tiny_processor()
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
TEXT = {"type": "text", "text": "x"}


@pytest.fixture(scope="module")
def png():
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "PNG")
    return stream.getvalue()


def encode(part):
    return PROCESSOR.apply_chat_template([{"role": "user", "content": [part, TEXT]}], tokenize=True)


def test_every_form_of_a_picture(png, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png)
    text = base64.b64encode(png).decode()
    url = f"data:image/png;base64,{text}"
    expected = encode({"type": "image", "image": Image.fromarray(PIXELS)})
    for part in (
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
        {"type": "image_url", "image_url": url},
        {"type": "image_url", "image_url": {"url": str(path)}},
        {"type": "image", "url": url},
        {"type": "image", "image": url},
        {"type": "image", "base64": text},
        {"type": "image", "base64": url},
        {"type": "image", "base64": "\n".join(text[at : at + 76] for at in range(0, len(text), 76)).rstrip("=")},
        {"type": "image", "image": f"DATA:image/png;name=a.png;BASE64,{text}"},
        {"type": "image", "image": f"data:image/png,{quote_from_bytes(png)}"},
    ):
        assert torch.equal(encode(part)["pixel_values"], expected["pixel_values"]), str(part)[:60]
    raw = PROCESSOR(text="<IMG_CONTEXT>", images=[url], return_tensors="pt")
    assert torch.equal(raw["pixel_values"], expected["pixel_values"])


def test_a_video(tmp_path):
    write_video(tmp_path / "a.mp4", np.stack([PIXELS] * 4), fps=2)
    url = f"data:video/mp4;base64,{base64.b64encode((tmp_path / 'a.mp4').read_bytes()).decode()}"
    expected = encode({"type": "video", "path": str(tmp_path / "a.mp4")})
    for part in ({"type": "video", "url": url}, {"type": "video_url", "video_url": {"url": url}}):
        assert torch.equal(encode(part)["pixel_values_videos"], expected["pixel_values_videos"])


@pytest.mark.parametrize(
    ("part", "error", "message"),
    [
        ({"type": "image", "base64": "not base64!"}, UsageError, "base64 of message 0 is malformed"),
        ({"type": "image", "base64": b"x"}, UsageError, "must be a string, not a bytes"),
        ({"type": "image", "url": "data:image/png;base64,??"}, UsageError, "data: address is malformed"),
        ({"type": "image", "url": "data:image/png;base64"}, UsageError, "needs a comma"),
        ({"type": "image", "url": "data:,words"}, MediaError, "unknown format"),
        ({"type": "image", "url": "https://example.org/a.png"}, ForbiddenError, "not fetched"),
        ({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}, ForbiddenError, "not fetched"),
        ({"type": "image_url", "image_url": {}}, UsageError, "must have a 'url' in its 'image_url'"),
        ({"type": "image_url"}, UsageError, "must have a 'url'"),
    ],
)
def test_what_is_no_picture(part, error, message):
    with pytest.raises(error, match=message):
        encode(part)


def test_too_many_bytes_are_refused_before_decoding(monkeypatch):
    from pvc import media

    monkeypatch.setattr(media, "DEFAULT_LIMITS", media.Limits(max_bytes=30))
    with pytest.raises(MediaError, match="100 characters of base64; the limit is 30 bytes"):
        decode_base64("A" * 100, "this")
    assert decode_base64("AAAA", "this") == b"\0\0\0"


def test_other_values_are_left_alone():
    for value in ("a.png", b"data:,x", None, 3):
        assert read_data_url(value) is value
