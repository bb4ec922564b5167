"""Reads the index of an MP4 before FFmpeg does: refuses one that declares absurdly many samples.

A table of constant sample size takes 20 bytes whatever its count, and FFmpeg allocates 24 bytes a sample while
opening: 4 kB of file can cost 4 GB. Tables count where the standard has them, along moov/trak/mdia/minf/stbl and
moof/traf. FFmpeg would also read one in place of a title, so all other tags of tables are hidden from it (demuxer.py):
free text, chapters and covers count for nothing. Leaves out samples. Called by container.py for every MP4 and MOV.
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
"""Pictures and pieces of sound in one file: a day of both, and about 100 MB of index."""

MAX_EDITED_SAMPLES = 16_000_000
"""The same after an edit list, which may show every sample once for each of its entries: about 500 MB of index."""

_MOST_BOXES = 2_000_000  # a day in fragments of a second has half of that
_MOST_STRAY_TAGS = 100_000  # outside tables, four given letters stand once in 4 GB by chance

# Boxes that hold boxes, by the box that they must be in; "" is the file itself.
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
# Tables that decide how large FFmpeg's index becomes, by the box that they must be in.
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
# Looked for ahead, since the end of one tag can be the beginning of another.
_TAGS = re.compile(b"(?=" + b"|".join(_TABLES) + b")")
# Boxes of a movie's outermost level that FFmpeg passes over; they hold the samples, or nothing.
_OPAQUE = frozenset((b"mdat", b"free", b"skip", b"wide"))

_SMALL = 2**22  # bytes; what is smaller is read at once, for a file may have 100,000 fragments
_PIECE = 2**20
_TABLE_HEAD = 32  # a table's head is read whole also where its box is shorter, as FFmpeg does


@dataclass
class Index:
    """What the header of an MP4 says.

    `stray`: offsets of tags that are no tables, sorted. `orientations`: of tracks by their number, which is FFmpeg's
    number of the stream; upright ones are left out.
    """

    stray: list[int] = field(default_factory=list)
    orientations: dict[int, Orientation] = field(default_factory=dict)


def read_index(source: Source) -> Index:
    """The Index of an open MP4 or MOV, which is read once for all views of a source.

    Raises MediaError `corrupt_media` if the index is out of proportion or compressed.
    """
    if "mp4" not in source.headers:
        source.headers["mp4"] = _Reader(source).read()
    index: Index = source.headers["mp4"]
    return index


@dataclass
class _Track:
    """What the header and the tables of one track declare."""

    variable: int = 0  # samples of tables that list every size
    constant: list[tuple[int, int]] = field(default_factory=list)  # (sample size, count)
    handlers: set[bytes] = field(default_factory=set)
    unit_steps: list[bool] = field(default_factory=list)
    chunks: int = 0
    runs: list[bytes] = field(default_factory=list)  # contents of `stsc`
    edits: int = 0

    def samples(self, file_size: int) -> int:
        """How many index entries FFmpeg will make of this track, before edits."""
        # Uncompressed sound counts single values of the wave as samples: as long as they are really in the file and
        # follow each other one unit of time apart, FFmpeg keeps one entry for 1,024 of them.
        wave = b"soun" in self.handlers and b"vide" not in self.handlers and bool(self.unit_steps)
        if wave and all(self.unit_steps) and sum(size * count for size, count in self.constant) <= file_size:
            return self.variable + sum(map(self._pieces, self.runs))
        return self.variable + sum(count for _, count in self.constant)

    def _pieces(self, runs: bytes) -> int:
        """Entries for sound that lies in chunks: of each run its first chunk, and how many values a chunk has."""
        table = np.frombuffer(runs, ">u4", len(runs) // 12 * 3).reshape(-1, 3).astype(np.float64)
        if not len(table):
            return 0
        chunks = np.append(table[1:, 0], self.chunks + 1) - table[:, 0]
        return int((np.maximum(chunks, 0) * np.ceil(table[:, 1] / 1024)).sum())


class _Reader:
    """One pass over the boxes of a file, and over the bytes between its tables."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._stray: list[int] = []
        self._movie: tuple[int, ...] = ()
        self._matrices: dict[int, tuple[int, ...]] = {}
        self._tracks: list[_Track] = []  # of the box that is being read
        self._boxes = self._samples = self._edited = 0
        # The part of the file that is being read, and where it begins.
        self._part: BinaryIO = source.file
        self._base = 0

    def read(self) -> Index:
        for box in read_boxes(self._source.file, 0, self._source.size):
            kind = b"moov" if self._is_free_movie(box) else box.kind
            if kind in _OPAQUE:
                self._count_box()
                continue
            here = self._open(box, kind)
            tables: list[Box] = []
            self._walk(here, b"", tables)
            self._find_stray_tags(here, tables)
            self._account()
        tracks = {number: _orientation(matrix, self._movie) for number, matrix in self._matrices.items()}
        return Index(self._stray, {number: way for number, way in tracks.items() if way != UPRIGHT})

    def _open(self, box: Box, kind: bytes) -> Box:
        """Make an outermost box the part that is read; the same box with offsets in that part."""
        file = self._source.file
        self._part, self._base = file, 0
        if box.end - box.at <= _SMALL:
            file.seek(box.at)
            self._part, self._base = io.BytesIO(file.read(box.end - box.at + _TABLE_HEAD)), box.at
        return Box(kind, box.at - self._base, box.start - self._base, box.end - self._base)

    def _is_free_movie(self, box: Box) -> bool:
        """Whether a box is a movie that was marked as free; FFmpeg reads it if it finds no other one."""
        if box.kind not in (b"free", b"hoov"):
            return False
        file = self._source.file
        file.seek(box.start + 4)
        return file.read(4) in (b"mvhd", b"cmov")

    def _count_box(self) -> None:
        self._boxes += 1
        if self._boxes > _MOST_BOXES:
            raise self._refusal(f"more than {_MOST_BOXES} boxes")

    def _walk(self, box: Box, parent: bytes, tables: list[Box]) -> None:
        """Take note of a box and of those inside it; `tables` collects the tables."""
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
            self._note(box, parent)

    def _note(self, box: Box, parent: bytes) -> None:
        """Read a table or a header. Its first word is version and flags."""
        kind = box.kind
        self._part.seek(box.start)
        head = self._part.read(_TABLE_HEAD)

        def word(place: int) -> int:
            return int.from_bytes(head[4 * place : 4 * place + 4], "big")

        if kind == b"cmov":
            raise self._refusal("compressed MP4 headers are not read")
        if kind == b"mvhd":
            self._movie = self._movie or self._matrix(box, 36, 48)
            return
        if kind == b"trun":
            self._samples += word(1)
            return
        track = self._tracks[-1]
        if kind == b"hdlr":
            track.handlers.add(head[8:12])
        elif kind == b"stts":
            track.unit_steps.append(word(1) == 1 and word(3) == 1)
        elif kind == b"stsz" and word(1):
            track.constant.append((word(1), word(2)))
        elif kind in (b"stsz", b"stz2"):
            track.variable += word(2)
        elif kind in (b"stco", b"co64"):
            track.chunks += word(1)
        elif kind == b"elst":
            track.edits += word(1)
        elif kind == b"stsc":
            if word(1) > MAX_SAMPLES:
                raise self._refusal(f"the index declares {word(1)} runs of chunks; the limit is {MAX_SAMPLES}")
            self._part.seek(box.start + 8)
            track.runs.append(self._part.read(min(12 * word(1), max(0, box.end - box.start - 8))))
        elif kind == b"tkhd":
            matrix = self._matrix(box, 40, 52)
            if matrix:
                self._matrices[word(5 if head[:1] == b"\1" else 3)] = matrix

    def _matrix(self, box: Box, place: int, long_place: int) -> tuple[int, ...]:
        """(a, b, c, d) of the display matrix in a header, whose place depends on the header's version."""
        self._part.seek(box.start)
        data = self._part.read(long_place + 36)
        at = long_place if data[:1] == b"\1" else place
        if len(data) < at + 36:
            return ()
        return tuple(np.frombuffer(data, ">i4", 5, at)[[0, 1, 3, 4]].tolist())

    def _account(self) -> None:
        """Add the tracks that were read. Raise MediaError if there are too many samples by now."""
        for track in self._tracks:
            count = track.samples(self._source.size)
            self._samples += count
            self._edited += count * max(1, track.edits)
        self._tracks.clear()
        if self._samples > MAX_SAMPLES:
            raise self._refusal(f"the index declares {self._samples} samples; the limit is {MAX_SAMPLES}")
        if self._edited > MAX_EDITED_SAMPLES:
            raise self._refusal(f"the edit lists show {self._edited} samples; the limit is {MAX_EDITED_SAMPLES}")

    def _find_stray_tags(self, box: Box, tables: list[Box]) -> None:
        """Collect the tags of tables that stand in `box` outside `tables`, which are in order."""
        at = box.at
        for table in [*tables, Box(b"", box.end, box.end, box.end)]:
            self._stray += (self._base + offset for offset in self._tags_between(at, table.at))
            if len(self._stray) > _MOST_STRAY_TAGS:
                raise self._refusal(f"more than {_MOST_STRAY_TAGS} tags of tables outside the index")
            at = max(at, table.end)

    def _tags_between(self, start: int, end: int) -> Iterator[int]:
        """The offsets from `start` up to `end` at which a tag begins."""
        while start < end:
            self._part.seek(start)
            piece = self._part.read(min(_PIECE, end - start) + 3)
            yield from (start + match.start() for match in _TAGS.finditer(piece))
            start += _PIECE

    def _refusal(self, reason: str) -> MediaError:
        return MediaError(f"{self._source.name}: {reason}", code="corrupt_media")


def _orientation(track: tuple[int, ...], movie: tuple[int, ...]) -> Orientation:
    """That of the track's matrix followed by the movie's."""
    a, b, c, d = track
    e, f, g, h = movie or (1, 0, 0, 1)
    return Orientation.from_matrix(a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h)


__all__ = ["MAX_EDITED_SAMPLES", "MAX_SAMPLES", "Index", "read_index"]
