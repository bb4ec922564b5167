"""What a server allows: every bound in one place, checked when it is made."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path

from pvc.errors import UsageError
from pvc.media.limits import Limits

MIB = 2**20


@dataclass(frozen=True)
class Settings:
    """Bounds of a server. Numbers must be above 0; raises UsageError where they are not.

    Attributes:
        name: what clients call the model; by default the name of its directory.
        keys: API keys, each a tenant of its own; without one everybody is served, as one.
        hosts: names of hosts that pictures may be fetched from; nobody by default.
        root: directory that `file:` addresses may name files in; none by default.
        max_body, max_parts, max_media, max_text: bytes of a request, parts of its messages, pictures and videos of
            them, characters of their text.
        max_flying: bytes of bodies of all requests that are being read or answered.
        max_pixels, holding: pixels of one request's decoded media, and requests that may hold decoded media at a time.
        max_frames, max_steps, max_tiles, max_answers: ceilings of what a request may ask for.
        max_new_tokens: the most tokens of an answer; a request that asks for more gets as many.
        media: bounds on one picture or video.
        queue, batch: requests that wait, and answers that are generated together.
        cache_bytes: visual tokens that are kept for the next question about the same media, of all tenants together.
        decoders: child processes that decode; decode_seconds, decode_bytes: what one may take for one medium.
        max_streams, stream_window, stream_idle_s: live videos at a time, frames that each keeps, seconds until one is
            closed that nobody uses.
        unsafe_decode: serve even where children cannot be cut off from the network.
    """

    name: str | None = None
    keys: tuple[str, ...] = field(default=(), repr=False)
    hosts: tuple[str, ...] = ()
    root: Path | None = None
    max_body: int = 32 * MIB
    max_flying: int = 512 * MIB
    max_pixels: int = 64_000_000
    holding: int = 8
    max_parts: int = 256
    max_media: int = 32
    max_text: int = 200_000
    max_frames: int = 128
    max_steps: int = 4
    max_tiles: int = 12
    max_new_tokens: int = 1024
    max_answers: int = 4
    media: Limits = Limits(max_bytes=24 * MIB, max_frames=256, max_source_frames=200_000, max_decode_seconds=10.0)  # noqa: RUF009
    queue: int = 128
    batch: int = 16
    cache_bytes: int = 256 * MIB
    decoders: int = 2
    decode_seconds: float = 15.0
    decode_bytes: int = 2048 * MIB
    max_streams: int = 16
    stream_window: int = 64
    stream_idle_s: float = 600.0
    fetch_seconds: float = 10.0
    unsafe_decode: bool = False

    def share(self, places: int) -> int:
        """How many of so many places one tenant may take: with several keys never the last ones."""
        return places if len(self.keys) < 2 else max(1, places * 3 // 4)

    def __post_init__(self) -> None:
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if type(value) in (int, float) and value <= 0:
                raise UsageError(f"{one.name} must be above 0, not {value}")
        if any(len(key) < 16 for key in self.keys):
            raise UsageError("an API key must have at least 16 characters")
        if any(not re.fullmatch("[!-~]+", key) for key in self.keys):
            raise UsageError("an API key must be plain characters without spaces: others do not fit into a header")


__all__ = ["MIB", "Settings"]
