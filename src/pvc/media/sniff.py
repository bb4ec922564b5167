"""Detect the format of a file from its first bytes.

Names, extensions and declared types are ignored. Formats that are not listed here are rejected on purpose:
playlists and scripts open other files, SVG and HTML are programs, TIFF, ICO, JPEG 2000, AVIF and HEIC widen the
attack surface, raw H.264 has no times. Called by the loaders and `probe`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pvc.errors import MediaError

HEAD_BYTES = 1024
"""Number of bytes that `sniff` needs; more are allowed."""

READABLE = "PNG, JPEG, WebP, GIF or BMP pictures and MP4, MOV, Matroska, WebM, AVI or MPEG-TS videos are read"


@dataclass(frozen=True)
class Format:
    """A supported format.

    Attributes:
        kind: "image" or "video".
        name: such as "png" or "webm".
        reader: Pillow's plugin for a picture, FFmpeg's demuxer for a video.
    """

    kind: Literal["image", "video"]
    name: str
    reader: str


_PNG = Format("image", "png", "PNG")
_JPEG = Format("image", "jpeg", "JPEG")
_WEBP = Format("image", "webp", "WEBP")
_GIF = Format("image", "gif", "GIF")
_BMP = Format("image", "bmp", "BMP")
_MP4 = Format("video", "mp4", "mp4")
_MOV = Format("video", "mov", "mp4")
_MATROSKA = Format("video", "matroska", "matroska")
_WEBM = Format("video", "webm", "matroska")
_AVI = Format("video", "avi", "avi")
_MPEGTS = Format("video", "mpegts", "mpegts")

# Text can start with "BM" too, so the size of the second header of a bitmap must be one of these.
_BMP_HEADERS = frozenset((12, 16, 40, 52, 56, 64, 108, 124))
# Still pictures in an MP4 container, which FFmpeg's demuxer would open as a video.
_STILL_BRANDS = frozenset((b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
# Movies older than the ftyp box start with one of these.
_OLD_MOVIE_BOXES = frozenset((b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"))
# Packet length and offset of the first sync byte: plain, Blu-ray, with error correction.
_TS_LAYOUTS = ((188, 0), (192, 4), (204, 0))


def sniff(head: bytes) -> Format | None:
    """Detect the format of a file from its first `HEAD_BYTES` bytes.

    Args:
        head: the first bytes of the file; more than `HEAD_BYTES` are allowed.

    Returns:
        The Format, or None if it is not supported.

    Raises:
        MediaError: `empty_media`, there is not a single byte.
    """
    if not head:
        raise MediaError("the file is empty", code="empty_media")
    return _sniff_image(head) or _sniff_video(head)


def _sniff_image(head: bytes) -> Format | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _PNG
    if head.startswith(b"\xff\xd8\xff"):
        return _JPEG
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _WEBP
    if head.startswith((b"GIF87a", b"GIF89a")):
        return _GIF
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return _BMP
    return None


def _sniff_video(head: bytes) -> Format | None:
    box = head[4:8]
    if box == b"ftyp":
        brand = head[8:12]
        if brand in _STILL_BRANDS:
            return None
        return _MOV if brand == b"qt  " else _MP4
    if box in _OLD_MOVIE_BOXES:
        return _MOV
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return _sniff_ebml(head)
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return _AVI
    if any(_is_transport_stream(head, length, start) for length, start in _TS_LAYOUTS):
        return _MPEGTS
    return None


def _sniff_ebml(head: bytes) -> Format | None:
    """Distinguish Matroska and WebM: they share a container and differ in the DocType element (id 0x4282)."""
    offset = head.find(b"\x42\x82", 4, 128)
    if offset < 0 or offset + 3 > len(head):
        return None
    length = head[offset + 2] & 0x7F
    doctype = head[offset + 3 : offset + 3 + length].rstrip(b"\0")
    return {b"matroska": _MATROSKA, b"webm": _WEBM}.get(doctype)


def _is_transport_stream(head: bytes, length: int, start: int) -> bool:
    """Require four sync bytes in a row: a single one is the letter G."""
    return len(head) > start + 3 * length and all(head[start + i * length] == 0x47 for i in range(4))
