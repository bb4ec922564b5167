"""Refuses an MP4 whose index declares absurdly many samples, before FFmpeg expands it.

A table of constant sample size takes 20 bytes whatever its count, and FFmpeg allocates 24 bytes a sample while
opening: 4 kB of file can cost 4 GB. Leaves out all other boxes, and reads those few without trusting the nesting
that a hostile file declares. Called by container.py for every MP4 and MOV.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from pvc.errors import MediaError

from .source import Source

MAX_SAMPLES = 4_000_000
"""Pictures and pieces of sound in one file: a day of both, and about 100 MB of index."""

_MOST_TABLES = 1_000_000  # a day in fragments of a second has a fifth of that

# Boxes that hold no boxes; for the others it is safer to look everywhere than to follow lengths.
_OPAQUE = frozenset((b"mdat", b"free", b"skip", b"wide"))
# Looked for ahead, so that a made-up tag cannot hide the beginning of a real one.
_TAGS = re.compile(rb"(?=(trak|hdlr|stts|stsz|stz2|trun|cmov))")


def check_index(source: Source) -> None:
    """Raise MediaError `corrupt_media` when the index of an open MP4 or MOV is out of proportion or compressed."""
    total, tags = 0, 0
    for data in _boxes(source):
        track = _Track()
        for match in _TAGS.finditer(data):
            tag, at = match[1], match.end() + 4
            tags += 1
            if tags > _MOST_TABLES:
                raise MediaError(f"{source.name}: more than {_MOST_TABLES} index tables", code="corrupt_media")
            if tag == b"cmov":
                raise MediaError(f"{source.name}: compressed MP4 headers are not read", code="corrupt_media")
            if tag == b"trak":
                total += track.samples(source.size)
                track = _Track()
            else:
                track.note(tag, data, at)
        total += track.samples(source.size)
        if total > MAX_SAMPLES:
            raise MediaError(
                f"{source.name}: the index declares {total} samples; the limit is {MAX_SAMPLES}", code="corrupt_media"
            )


@dataclass
class _Track:
    """What the tables between one `trak` tag and the next declare."""

    tables: int = 0
    constant: list[tuple[int, int]] = field(default_factory=list)  # (sample size, count)
    handlers: set[bytes] = field(default_factory=set)
    unit_steps: list[bool] = field(default_factory=list)

    def note(self, tag: bytes, data: bytes, at: int) -> None:
        """Read the table whose tag ends at `at`."""

        def word(index: int) -> int:
            return int.from_bytes(data[at + 4 * index : at + 4 * index + 4], "big")

        if tag == b"hdlr":
            self.handlers.add(data[at + 8 : at + 12])
        elif tag == b"stts":
            self.unit_steps.append(word(1) == 1 and word(3) == 1)
        elif tag == b"trun":
            self.tables += word(1)
        elif tag == b"stsz" and word(1):
            self.constant.append((word(1), word(2)))
        else:
            self.tables += word(2)

    def samples(self, file_size: int) -> int:
        """How many index entries FFmpeg will make of this track."""
        # Uncompressed sound counts single values of the wave as samples: as long as they are really in the file and
        # follow each other one unit of time apart, FFmpeg keeps one entry for a whole chunk of them.
        wave = b"soun" in self.handlers and b"vide" not in self.handlers and bool(self.unit_steps)
        if wave and all(self.unit_steps) and sum(size * count for size, count in self.constant) <= file_size:
            return self.tables
        return self.tables + sum(count for _, count in self.constant)


def _boxes(source: Source) -> Iterator[bytes]:
    """The contents of the outermost boxes that may hold an index; from where the lengths make no sense, the rest."""
    file, at = source.file, 0
    while at < source.size:
        file.seek(at)
        head = file.read(16)
        size, header = int.from_bytes(head[:4], "big"), 8
        if size == 1:
            size, header = int.from_bytes(head[8:16], "big"), 16
        if size < header or size > source.size - at:
            size = source.size - at
        if head[4:8] not in _OPAQUE:
            file.seek(at)
            yield file.read(size)
        at += size
