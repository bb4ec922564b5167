"""Reads what the first bytes of a picture, or the blocks of an animation, declare.

Sizes and frame times without any decoding, so that a bomb is refused before Pillow is even imported.
Leaves out everything else a header says. Called by image.py, animation.py and probe.py. A header cut
short or without sense gives None or ends the iteration.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

# JPEG markers that carry the size (C4, C8 and CC in this range mean other things) and markers without a length.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_JPEG_SCAN = 0xDA
_JPEG_BARE = frozenset((0x00, 0x01, *range(0xD0, 0xD9)))
# Far more than any camera writes; files made of padding or of tiny blocks end here and not after minutes.
_JPEG_STEPS = 100_000
_GIF_STEPS = 4_000_000


def declared_size(name: str, file: BinaryIO) -> tuple[int, int] | None:
    """(width, height) in pixels that the header declares, before any rotation; None when there is none to be found."""
    file.seek(0)
    if name == "jpeg":
        frame = jpeg_frame(file)
        return (frame.width, frame.height) if frame else None
    head = file.read(64)
    if name == "png" and len(head) >= 24 and head[12:16] == b"IHDR":
        return _be(head[16:20]), _be(head[20:24])
    if name == "gif" and len(head) >= 10:
        return _le(head[6:8]), _le(head[8:10])
    if name == "bmp" and len(head) >= 26:
        return _bmp_size(head)
    if name == "webp" and len(head) >= 30:
        return _webp_size(head)
    return None


def _le(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _be(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _bmp_size(head: bytes) -> tuple[int, int]:
    if _le(head[14:18]) == 12:
        return _le(head[18:20]), _le(head[20:22])
    # A negative height means that the rows run from top to bottom.
    return _le(head[18:22]), abs(int.from_bytes(head[22:26], "little", signed=True))


def _webp_size(head: bytes) -> tuple[int, int] | None:
    chunk = head[12:16]
    if chunk == b"VP8X":
        return _le(head[24:27]) + 1, _le(head[27:30]) + 1
    if chunk == b"VP8L":
        bits = _le(head[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 ":
        return _le(head[26:28]) & 0x3FFF, _le(head[28:30]) & 0x3FFF
    return None


@dataclass(frozen=True)
class JpegFrame:
    """What a JPEG declares before its first scan.

    `marker`: how it is coded, 0xC0 to 0xCF. `width`, `height` in pixels. `sampling`: (horizontal, vertical) factors of
    its components. `scan_components`: how many of them the first scan has, 0 when there is no scan.
    """

    marker: int
    width: int
    height: int
    sampling: tuple[tuple[int, int], ...] = ()
    scan_components: int = 0

    @property
    def coefficient_bytes(self) -> int:
        """Bytes of coefficients that libjpeg holds at a time: all of them for several scans, next to none for one."""
        if self.marker not in _JPEG_PROGRESSIVE and self.scan_components >= len(self.sampling):
            return 0
        across = 8 * max((horizontal for horizontal, _ in self.sampling), default=1) or 8
        down = 8 * max((vertical for _, vertical in self.sampling), default=1) or 8
        blocks = sum(horizontal * vertical for horizontal, vertical in self.sampling)
        return 128 * blocks * -(-self.width // across) * -(-self.height // down)  # a block has 64 of 2 bytes


def jpeg_frame(file: BinaryIO) -> JpegFrame | None:
    """The JpegFrame of a JPEG; None when there is none to be found."""
    file.seek(2)
    frame: JpegFrame | None = None
    for _ in range(_JPEG_STEPS):
        byte = file.read(1)
        if byte not in (b"\xff", b"\0"):  # zeros may stand between two segments: libjpeg and Pillow skip them
            return frame
        marker = file.read(1) if byte == b"\xff" else byte
        if marker == b"\xff":  # a fill byte: the marker is still to come
            file.seek(-1, 1)
            continue
        if not marker:
            return frame
        if marker[0] in _JPEG_BARE:
            continue
        segment = file.read(8)
        length = _be(segment[:2])
        if marker[0] == _JPEG_SCAN and frame is not None and len(segment) > 2:
            return replace(frame, scan_components=segment[2])
        if len(segment) < 7 or length < 2 or marker[0] in (0xD9, _JPEG_SCAN):
            return frame
        if marker[0] in _JPEG_FRAMES:
            sampling = file.read(3 * segment[7]) if len(segment) == 8 else b""
            frame = JpegFrame(
                marker[0],
                _be(segment[5:7]),
                _be(segment[3:5]),
                tuple((factors >> 4, factors & 15) for factors in sampling[1::3]),
            )
            file.seek(-len(sampling), 1)
        file.seek(length - len(segment), 1)
    return frame


@dataclass(frozen=True)
class AnimationFrame:
    """What one frame of an animation declares: its `right` and `bottom` edge in pixels, its `duration` in seconds."""

    right: int
    bottom: int
    duration: float


def animation_frames(name: str, file: BinaryIO) -> Iterator[AnimationFrame]:
    """The frames of a GIF or a WebP in order; none for other formats and for a still WebP."""
    if name == "gif":
        return _gif_frames(file)
    if name == "webp":
        return _webp_frames(file)
    return iter(())


def _gif_frames(file: BinaryIO) -> Iterator[AnimationFrame]:
    file.seek(10)
    packed = file.read(1)
    if not packed:
        return
    file.seek(13 + _palette_bytes(packed[0]))
    delay = 0
    steps = 0
    while (kind := file.read(1)) and kind != b";" and steps < _GIF_STEPS:
        steps += 1  # bytes that belong to no block are skipped, as Pillow does
        if kind == b"!":
            label = file.read(1)
            length = file.read(1)
            first = file.read(length[0]) if length else b""
            if label == b"\xf9" and len(first) >= 4:
                delay = _le(first[1:3])
            if first:
                steps += _skip_gif_blocks(file, _GIF_STEPS - steps)
        elif kind == b",":
            box = file.read(9)
            if len(box) < 9:
                return
            file.seek(_palette_bytes(box[8]) + 1, 1)  # the frame's own palette and the code size
            yield AnimationFrame(_le(box[0:2]) + _le(box[4:6]), _le(box[2:4]) + _le(box[6:8]), _seconds(delay * 10))
            delay = 0
            steps += _skip_gif_blocks(file, _GIF_STEPS - steps)


def _palette_bytes(packed: int) -> int:
    """The length of the palette that a GIF's flag byte announces."""
    return 3 << ((packed & 7) + 1) if packed & 0x80 else 0


def _skip_gif_blocks(file: BinaryIO, most: int) -> int:
    """Move behind the next block terminator; the number of blocks skipped, at most `most`."""
    steps = 0
    while steps < most and (length := file.read(1)) and length[0]:
        file.seek(length[0], 1)
        steps += 1
    return steps


def _webp_frames(file: BinaryIO) -> Iterator[AnimationFrame]:
    file.seek(12)
    while len(chunk := file.read(8)) == 8:
        length = _le(chunk[4:8])
        if chunk[:4] == b"ANMF":
            box = file.read(16)
            if len(box) < 16:
                return
            yield AnimationFrame(
                2 * _le(box[0:3]) + _le(box[6:9]) + 1,
                2 * _le(box[3:6]) + _le(box[9:12]) + 1,
                _seconds(_le(box[12:15])),
            )
            length -= 16
        file.seek(max(length, 0) + (length & 1), 1)


def _seconds(milliseconds: int) -> float:
    """Browsers show a frame without a duration for a tenth of a second, and authors have come to rely on it."""
    return (milliseconds or 100) / 1000
