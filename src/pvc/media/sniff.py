"""The format of a file from its first bytes.

Names, extensions and declared types are ignored. What is not on the list is unknown, however well some
decoder would cope: playlists and scripts open other files, SVG and HTML are programs, TIFF, ICO, JPEG 2000,
AVIF and HEIC widen what an attacker can reach, raw H.264 has no times. Called by the loaders and `probe`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pvc.errors import MediaError

HEAD_BYTES = 1024
"""How many bytes `sniff` looks at; more do no harm."""

READABLE = "PNG, JPEG, WebP, GIF or BMP pictures and MP4, MOV, Matroska, WebM, AVI or MPEG-TS videos are read"


@dataclass(frozen=True)
class Format:
    """A format that is read. `reader`: Pillow's plugin for a picture, FFmpeg's demuxer for a video."""

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

# "BM" alone starts many a text; these are the sizes a bitmap's second header can have.
_BMP_HEADERS = frozenset((12, 16, 40, 52, 56, 64, 108, 124))
# Still pictures in an MP4 wrapper, which FFmpeg's demuxer would otherwise take for a video.
_STILL_BRANDS = frozenset((b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
# Movies older than the ftyp box start with one of these.
_OLD_MOVIE_BOXES = frozenset((b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"))
# Packet length and offset of the first sync byte: plain, Blu-ray, with error correction.
_TS_LAYOUTS = ((188, 0), (192, 4), (204, 0))


def sniff(head: bytes) -> Format | None:
    """The format of a file that starts with `head` (`HEAD_BYTES` suffice), None when it is none of ours.

    Raises MediaError `empty_media` when there is not a single byte.
    """
    if not head:
        raise MediaError("the file is empty", code="empty_media")
    return _image(head) or _video(head)


def _image(head: bytes) -> Format | None:
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


def _video(head: bytes) -> Format | None:
    box = head[4:8]
    if box == b"ftyp":
        brand = head[8:12]
        if brand in _STILL_BRANDS:
            return None
        return _MOV if brand == b"qt  " else _MP4
    if box in _OLD_MOVIE_BOXES:
        return _MOV
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return _ebml(head)
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return _AVI
    if any(_is_transport_stream(head, length, start) for length, start in _TS_LAYOUTS):
        return _MPEGTS
    return None


def _ebml(head: bytes) -> Format | None:
    """Matroska and WebM share a container and differ in its DocType element (id 0x4282)."""
    at = head.find(b"\x42\x82", 4, 128)
    if at < 0 or at + 3 > len(head):
        return None
    length = head[at + 2] & 0x7F
    doctype = head[at + 3 : at + 3 + length].rstrip(b"\0")
    return {b"matroska": _MATROSKA, b"webm": _WEBM}.get(doctype)


def _is_transport_stream(head: bytes, length: int, start: int) -> bool:
    """Four sync bytes in a row: one alone is the letter G."""
    return len(head) > start + 3 * length and all(head[start + i * length] == 0x47 for i in range(4))
