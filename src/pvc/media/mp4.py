"""Read the index of an MP4 before FFmpeg does, and reject one that declares absurdly many samples.

A table of constant sample size takes 20 bytes whatever its count, and FFmpeg allocates 24 bytes a sample while opening:
4 kB of file can cost 4 GB. Tables count where the standard has them: in moov/trak/mdia/minf/stbl and moof/traf. FFmpeg
would also read a table in place of a title, so demuxer.py hides all other tags of tables. Text, chapters and covers
are ignored. Called by container.py for every MP4 and MOV.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from pvc.errors import MediaError
from pvc.media.boxes import Box, read_boxes
from pvc.media.orientation import UPRIGHT, Orientation
from pvc.media.source import Source

MAX_SAMPLES = 4_000_000
"""Samples of video and audio in one file: a day of both, about 100 MB of index."""

MAX_EDITED_SAMPLES = 16_000_000
"""Samples after edit lists, which may repeat every sample once per entry: about 500 MB of index."""

_MAX_BOXES = 2_000_000  # a day in fragments of a second has half of that
_MAX_STRAY_TAGS = 100_000  # by chance, a tag of four letters occurs once in 4 GB

# Boxes that contain boxes, and the boxes that they must be in; "" is the file itself.
_PARENTS = {
    b"moov": (b"",),
    b"moof": (b"",),
    b"trak": (b"", b"moov"),
    b"edts": (b"trak",),
    b"mdia": (b"trak",),
    b"minf": (b"mdia",),
    b"stbl": (b"minf",),
    b"traf": (b"moof",),
}
# Tables that determine the size of FFmpeg's index, and the boxes that they must be in.
_TABLES = {
    b"cmov": (b"moov",),
    b"elst": (b"edts",),
    b"hdlr": (b"mdia", b"minf"),
    b"stts": (b"stbl",),
    b"stsc": (b"stbl",),
    b"stco": (b"stbl",),
    b"co64": (b"stbl",),
    b"stsz": (b"stbl",),
    b"stz2": (b"stbl",),
    b"trun": (b"traf",),
}
_HEADERS = {b"mvhd": b"moov", b"tkhd": b"trak"}
# A lookahead, since the end of one tag can be the beginning of another.
_TAGS = re.compile(b"(?=" + b"|".join(_TABLES) + b")")
# Outermost boxes that FFmpeg ignores; they contain the samples, or nothing.
_OPAQUE = frozenset((b"mdat", b"free", b"skip", b"wide"))

_MAX_BUFFERED_BYTES = 2**22  # smaller boxes are read at once, since a file may have 100,000 fragments
_CHUNK_BYTES = 2**20
_TABLE_HEAD = 32  # bytes that are read even if the box is shorter, as FFmpeg does


@dataclass
class Mp4Index:
    """Contents of the header of an MP4.

    Attributes:
        stray_tags: file offsets of table tags that are not tables, sorted.
        orientations: orientations of tracks by track number, which is FFmpeg's stream id; upright ones are left out.
    """

    stray_tags: list[int] = field(default_factory=list)
    orientations: dict[int, Orientation] = field(default_factory=dict)


def read_index(source: Source) -> Mp4Index:
    """Read the index of an open MP4 or MOV, once for all views of a source.

    Raises:
        MediaError: `corrupt_media`, the index is out of proportion or compressed.
    """
    if "mp4" not in source.headers:
        source.headers["mp4"] = _IndexReader(source).read()
    index: Mp4Index = source.headers["mp4"]
    return index


@dataclass
class _Track:
    """Counts that the header and the tables of one track declare."""

    variable: int = 0  # samples of tables that list every size
    constant: list[tuple[int, int]] = field(default_factory=list)  # (sample size, count)
    handlers: set[bytes] = field(default_factory=set)
    unit_steps: list[bool] = field(default_factory=list)
    chunks: int = 0
    runs: list[bytes] = field(default_factory=list)  # contents of `stsc`
    edits: int = 0

    def count_samples(self, file_size: int) -> int:
        """Count the index entries that FFmpeg will build for this track, before edits."""
        # In uncompressed audio every value of the wave is a sample. If these are really in the file and one unit of
        # time apart, FFmpeg stores one entry for 1,024 of them.
        is_raw_audio = b"soun" in self.handlers and b"vide" not in self.handlers and bool(self.unit_steps)
        if is_raw_audio and all(self.unit_steps) and sum(size * count for size, count in self.constant) <= file_size:
            return self.variable + sum(map(self._count_chunk_entries, self.runs))
        return self.variable + sum(count for _, count in self.constant)

    def _count_chunk_entries(self, runs: bytes) -> int:
        """Count the entries for audio in chunks: of each run the number of chunks and the samples per chunk."""
        table = np.frombuffer(runs, ">u4", len(runs) // 12 * 3).reshape(-1, 3).astype(np.float64)
        if not len(table):
            return 0
        chunks = np.append(table[1:, 0], self.chunks + 1) - table[:, 0]
        return int((np.maximum(chunks, 0) * np.ceil(table[:, 1] / 1024)).sum())


class _IndexReader:
    """One pass over the boxes of a file, and over the bytes between its tables."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._stray_tags: list[int] = []
        self._movie: tuple[int, ...] = ()
        self._matrices: dict[int, tuple[int, ...]] = {}
        self._tracks: list[_Track] = []  # of the box that is being read
        self._boxes = self._samples = self._edited = 0
        # The part of the file that is being read, and where it begins.
        self._part: BinaryIO = source.file
        self._base = 0

    def read(self) -> Mp4Index:
        for box in read_boxes(self._source.file, 0, self._source.size):
            kind = b"moov" if self._is_free_movie(box) else box.kind
            if kind in _OPAQUE:
                self._count_box()
                continue
            part_box = self._select_part(box, kind)
            tables: list[Box] = []
            self._walk(part_box, b"", tables)
            self._find_stray_tags(part_box, tables)
            self._check_samples()
        tracks = {number: _combine_matrices(matrix, self._movie) for number, matrix in self._matrices.items()}
        return Mp4Index(
            self._stray_tags, {number: orientation for number, orientation in tracks.items() if orientation != UPRIGHT}
        )

    def _select_part(self, box: Box, kind: bytes) -> Box:
        """Select an outermost box as the part to read. Return the box with offsets in that part."""
        file = self._source.file
        self._part, self._base = file, 0
        if box.end - box.offset <= _MAX_BUFFERED_BYTES:
            file.seek(box.offset)
            self._part, self._base = io.BytesIO(file.read(box.end - box.offset + _TABLE_HEAD)), box.offset
        return Box(kind, box.offset - self._base, box.start - self._base, box.end - self._base)

    def _is_free_movie(self, box: Box) -> bool:
        """Return whether a box is a movie that was marked as free; FFmpeg reads it if it finds no other one."""
        if box.kind not in (b"free", b"hoov"):
            return False
        file = self._source.file
        file.seek(box.start + 4)
        return file.read(4) in (b"mvhd", b"cmov")

    def _count_box(self) -> None:
        self._boxes += 1
        if self._boxes > _MAX_BOXES:
            raise self._error(f"more than {_MAX_BOXES} boxes")

    def _walk(self, box: Box, parent: bytes, tables: list[Box]) -> None:
        """Read a box and those inside it; `tables` collects the tables."""
        self._count_box()
        if parent in _PARENTS.get(box.kind, ()):
            if box.kind == b"trak":
                self._tracks.append(_Track())
            for inner in read_boxes(self._part, box.start, box.end):
                self._walk(inner, box.kind, tables)
            return
        is_table = parent in _TABLES.get(box.kind, ())
        if is_table:
            tables.append(box)
        if is_table or _HEADERS.get(box.kind) == parent:
            self._read_table(box, parent)

    def _read_table(self, box: Box, parent: bytes) -> None:
        """Read a table or a header. Its first word is version and flags."""
        kind = box.kind
        self._part.seek(box.start)
        head = self._part.read(_TABLE_HEAD)

        def read_word(index: int) -> int:
            return int.from_bytes(head[4 * index : 4 * index + 4], "big")

        if kind == b"cmov":
            raise self._error("compressed MP4 headers are not read")
        if kind == b"mvhd":
            self._movie = self._movie or self._read_matrix(box, 36, 48)
            return
        if kind == b"trun":
            self._samples += read_word(1)
            return
        track = self._tracks[-1]
        if kind == b"hdlr":
            track.handlers.add(head[8:12])
        elif kind == b"stts":
            track.unit_steps.append(read_word(1) == 1 and read_word(3) == 1)
        elif kind == b"stsz" and read_word(1):
            track.constant.append((read_word(1), read_word(2)))
        elif kind in (b"stsz", b"stz2"):
            track.variable += read_word(2)
        elif kind in (b"stco", b"co64"):
            track.chunks += read_word(1)
        elif kind == b"elst":
            track.edits += read_word(1)
        elif kind == b"stsc":
            if read_word(1) > MAX_SAMPLES:
                raise self._error(f"the index declares {read_word(1)} runs of chunks; the limit is {MAX_SAMPLES}")
            self._part.seek(box.start + 8)
            track.runs.append(self._part.read(min(12 * read_word(1), max(0, box.end - box.start - 8))))
        elif kind == b"tkhd":
            matrix = self._read_matrix(box, 40, 52)
            if matrix:
                self._matrices[read_word(5 if head[:1] == b"\1" else 3)] = matrix

    def _read_matrix(self, box: Box, offset_v0: int, offset_v1: int) -> tuple[int, ...]:
        """Read (a, b, c, d) of the display matrix in a header. Its offset depends on the version of the header."""
        self._part.seek(box.start)
        data = self._part.read(offset_v1 + 36)
        offset = offset_v1 if data[:1] == b"\1" else offset_v0
        if len(data) < offset + 36:
            return ()
        return tuple(np.frombuffer(data, ">i4", 5, offset)[[0, 1, 3, 4]].tolist())

    def _check_samples(self) -> None:
        """Add the samples of the tracks that were read. Raise MediaError if there are too many by now."""
        for track in self._tracks:
            count = track.count_samples(self._source.size)
            self._samples += count
            self._edited += count * max(1, track.edits)
        self._tracks.clear()
        if self._samples > MAX_SAMPLES:
            raise self._error(f"the index declares {self._samples} samples; the limit is {MAX_SAMPLES}")
        if self._edited > MAX_EDITED_SAMPLES:
            raise self._error(f"the edit lists show {self._edited} samples; the limit is {MAX_EDITED_SAMPLES}")

    def _find_stray_tags(self, box: Box, tables: list[Box]) -> None:
        """Collect the table tags in `box` outside `tables`, which are in order."""
        offset = box.offset
        for table in [*tables, Box(b"", box.end, box.end, box.end)]:
            self._stray_tags += (self._base + tag for tag in self._iter_tags(offset, table.offset))
            if len(self._stray_tags) > _MAX_STRAY_TAGS:
                raise self._error(f"more than {_MAX_STRAY_TAGS} tags of tables outside the index")
            offset = max(offset, table.end)

    def _iter_tags(self, start: int, end: int) -> Iterator[int]:
        """Iterate over the offsets from `start` up to `end` at which a tag begins."""
        while start < end:
            self._part.seek(start)
            chunk = self._part.read(min(_CHUNK_BYTES, end - start) + 3)
            yield from (start + match.start() for match in _TAGS.finditer(chunk))
            start += _CHUNK_BYTES

    def _error(self, reason: str) -> MediaError:
        return MediaError(f"{self._source.name}: {reason}", code="corrupt_media")


def _combine_matrices(track: tuple[int, ...], movie: tuple[int, ...]) -> Orientation:
    """Build the orientation of the matrix of the track followed by that of the movie."""
    a, b, c, d = track
    e, f, g, h = movie or (1, 0, 0, 1)
    return Orientation.from_matrix(a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h)


__all__ = ["MAX_EDITED_SAMPLES", "MAX_SAMPLES", "Mp4Index", "read_index"]
