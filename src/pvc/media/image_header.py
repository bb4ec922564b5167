"""Read what the first bytes of a picture, or the blocks of an animation, declare.

Sizes and frame times are read without decoding, so a decompression bomb is rejected before Pillow is imported.
If a header is truncated or invalid, the result is None or the iteration ends. Called by image.py, jpeg.py and
animation.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

# JPEG markers that carry the size (C4, C8 and CC in this range mean other things) and markers without a length.
_JPEG_SOF_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_JPEG_SCAN = 0xDA
_JPEG_MARKERS_WITHOUT_LENGTH = frozenset((0x00, 0x01, *range(0xD0, 0xD9)))
# Far more than any camera writes; files of padding or tiny blocks would otherwise take minutes.
_MAX_JPEG_STEPS = 100_000
_MAX_GIF_STEPS = 4_000_000


def read_declared_size(name: str, file: BinaryIO) -> tuple[int, int] | None:
    """Return (width, height) in pixels that the header declares, before any rotation; None if there is none.

    Args:
        name: format of the file, such as "png".
        file: a seekable file.
    """
    file.seek(0)
    if name == "jpeg":
        frame = read_jpeg_frame(file)
        return (frame.width, frame.height) if frame else None
    head = file.read(64)
    if name == "png" and len(head) >= 24 and head[12:16] == b"IHDR":
        return _parse_be(head[16:20]), _parse_be(head[20:24])
    if name == "gif" and len(head) >= 10:
        return _parse_le(head[6:8]), _parse_le(head[8:10])
    if name == "bmp" and len(head) >= 26:
        return _parse_bmp_size(head)
    if name == "webp" and len(head) >= 30:
        return _parse_webp_size(head)
    return None


def _parse_le(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _parse_be(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _parse_bmp_size(head: bytes) -> tuple[int, int]:
    if _parse_le(head[14:18]) == 12:
        return _parse_le(head[18:20]), _parse_le(head[20:22])
    # A negative height means that the rows run from top to bottom.
    return _parse_le(head[18:22]), abs(int.from_bytes(head[22:26], "little", signed=True))


def _parse_webp_size(head: bytes) -> tuple[int, int] | None:
    chunk = head[12:16]
    if chunk == b"VP8X":
        return _parse_le(head[24:27]) + 1, _parse_le(head[27:30]) + 1
    if chunk == b"VP8L":
        bits = _parse_le(head[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 ":
        return _parse_le(head[26:28]) & 0x3FFF, _parse_le(head[28:30]) & 0x3FFF
    return None


@dataclass(frozen=True)
class JpegFrame:
    """What a JPEG declares before its first scan.

    Attributes:
        marker: coding process, 0xC0 to 0xCF.
        width: pixels.
        height: pixels.
        sampling: (horizontal, vertical) factors of its components.
        scan_components: number of components in the first scan, 0 without a scan.
    """

    marker: int
    width: int
    height: int
    sampling: tuple[tuple[int, int], ...] = ()
    scan_components: int = 0

    @property
    def coefficient_bytes(self) -> int:
        """Bytes of coefficients that libjpeg holds at a time: all for several scans, almost none for one."""
        if self.marker not in _JPEG_PROGRESSIVE and self.scan_components >= len(self.sampling):
            return 0
        across = 8 * max((horizontal for horizontal, _ in self.sampling), default=1) or 8
        down = 8 * max((vertical for _, vertical in self.sampling), default=1) or 8
        blocks = sum(horizontal * vertical for horizontal, vertical in self.sampling)
        return 128 * blocks * -(-self.width // across) * -(-self.height // down)  # a block has 64 of 2 bytes


def read_jpeg_frame(file: BinaryIO) -> JpegFrame | None:
    """Read the JpegFrame of a JPEG; None if there is none."""
    file.seek(2)
    frame: JpegFrame | None = None
    for _ in range(_MAX_JPEG_STEPS):
        byte = file.read(1)
        if byte not in (b"\xff", b"\0"):  # libjpeg and Pillow skip zeros between two segments
            return frame
        marker = file.read(1) if byte == b"\xff" else byte
        if marker == b"\xff":  # a fill byte; the marker follows
            file.seek(-1, 1)
            continue
        if not marker:
            return frame
        if marker[0] in _JPEG_MARKERS_WITHOUT_LENGTH:
            continue
        segment = file.read(8)
        length = _parse_be(segment[:2])
        if marker[0] == _JPEG_SCAN and frame is not None and len(segment) > 2:
            return replace(frame, scan_components=segment[2])
        if len(segment) < 7 or length < 2 or marker[0] in (0xD9, _JPEG_SCAN):
            return frame
        if marker[0] in _JPEG_SOF_MARKERS:
            sampling = file.read(3 * segment[7]) if len(segment) == 8 else b""
            frame = JpegFrame(
                marker[0],
                _parse_be(segment[5:7]),
                _parse_be(segment[3:5]),
                tuple((factors >> 4, factors & 15) for factors in sampling[1::3]),
            )
            file.seek(-len(sampling), 1)
        file.seek(length - len(segment), 1)
    return frame


@dataclass(frozen=True)
class AnimationFrame:
    """What one frame of an animation declares.

    Attributes:
        right: pixels from the left edge of the canvas to the right edge of the frame.
        bottom: pixels from the top edge of the canvas to the bottom edge of the frame.
        duration: seconds.
    """

    right: int
    bottom: int
    duration: float


def iter_animation_frames(name: str, file: BinaryIO) -> Iterator[AnimationFrame]:
    """Iterate over the frames of a GIF or a WebP in order; there are none for other formats and for a still WebP.

    Args:
        name: format of the file, such as "gif".
        file: a seekable file.
    """
    if name == "gif":
        return _iter_gif_frames(file)
    if name == "webp":
        return _iter_webp_frames(file)
    return iter(())


def _iter_gif_frames(file: BinaryIO) -> Iterator[AnimationFrame]:
    file.seek(10)
    packed = file.read(1)
    if not packed:
        return
    file.seek(13 + _get_palette_bytes(packed[0]))
    delay = 0
    steps = 0
    while (kind := file.read(1)) and kind != b";" and steps < _MAX_GIF_STEPS:
        steps += 1  # skip bytes outside blocks, as Pillow does
        if kind == b"!":
            label = file.read(1)
            length = file.read(1)
            first = file.read(length[0]) if length else b""
            if label == b"\xf9" and len(first) >= 4:
                delay = _parse_le(first[1:3])
            if first:
                steps += _skip_gif_blocks(file, _MAX_GIF_STEPS - steps)
        elif kind == b",":
            box = file.read(9)
            if len(box) < 9:
                return
            file.seek(_get_palette_bytes(box[8]) + 1, 1)  # the palette of the frame and the code size
            yield AnimationFrame(
                _parse_le(box[0:2]) + _parse_le(box[4:6]),
                _parse_le(box[2:4]) + _parse_le(box[6:8]),
                _to_seconds(delay * 10),
            )
            delay = 0
            steps += _skip_gif_blocks(file, _MAX_GIF_STEPS - steps)


def _get_palette_bytes(packed: int) -> int:
    """Return the length of the palette that the flag byte of a GIF announces."""
    return 3 << ((packed & 7) + 1) if packed & 0x80 else 0


def _skip_gif_blocks(file: BinaryIO, max_blocks: int) -> int:
    """Move behind the next block terminator. Return the number of blocks skipped, at most `max_blocks`."""
    steps = 0
    while steps < max_blocks and (length := file.read(1)) and length[0]:
        file.seek(length[0], 1)
        steps += 1
    return steps


def _iter_webp_frames(file: BinaryIO) -> Iterator[AnimationFrame]:
    file.seek(12)
    while len(chunk := file.read(8)) == 8:
        length = _parse_le(chunk[4:8])
        if chunk[:4] == b"ANMF":
            box = file.read(16)
            if len(box) < 16:
                return
            yield AnimationFrame(
                2 * _parse_le(box[0:3]) + _parse_le(box[6:9]) + 1,
                2 * _parse_le(box[3:6]) + _parse_le(box[9:12]) + 1,
                _to_seconds(_parse_le(box[12:15])),
            )
            length -= 16
        file.seek(max(length, 0) + (length & 1), 1)


def _to_seconds(milliseconds: int) -> float:
    """Convert a duration; like browsers, show a frame without a duration for a tenth of a second."""
    return (milliseconds or 100) / 1000
