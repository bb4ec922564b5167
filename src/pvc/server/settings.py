"""All limits of a server, in one dataclass that is checked on construction. Built by `pvc serve`."""

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
    """Limits of a server.

    Raises:
        UsageError: a number is not above 0, or an API key is too short or does not fit into a header.
    """

    name: str | None = None
    """Name of the model for clients. By default the name of its directory."""

    keys: tuple[str, ...] = field(default=(), repr=False)
    """API keys; each is a separate tenant. Without keys all clients are served, as one tenant."""

    hosts: tuple[str, ...] = ()
    """Names of hosts that media may be fetched from. By default none."""

    root: Path | None = None
    """Directory below which `file:` URLs may name files. By default none."""

    max_body: int = 32 * MIB
    """Maximum size of a request's body, in bytes."""

    max_flying: int = 512 * MIB
    """Maximum size of the bodies of all requests that are being read or answered, in bytes."""

    max_pixels: int = 64_000_000
    """Maximum number of pixels of one request's decoded media."""

    holding: int = 8
    """Maximum number of requests that hold decoded media at a time."""

    max_parts: int = 256
    """Maximum number of parts of a request's messages."""

    max_media: int = 32
    """Maximum number of pictures and videos of a request."""

    max_text: int = 200_000
    """Maximum number of characters of a request's texts."""

    max_frames: int = 128
    """Maximum number of frames of a video that a request may ask for."""

    max_steps: int = 4
    """Maximum number of steps of a picture that a request may ask for."""

    max_tiles: int = 12
    """Maximum number of tiles of a picture that a request may ask for."""

    max_new_tokens: int = 1024
    """Maximum number of tokens of an answer. A request for more gets this number."""

    max_answers: int = 4
    """Maximum number of answers that a request may ask for (`n`)."""

    media: Limits = Limits(max_bytes=24 * MIB, max_frames=256, max_source_frames=200_000, max_decode_seconds=10.0)  # noqa: RUF009
    """Limits of one picture or video."""

    queue: int = 128
    """Maximum number of requests that wait."""

    batch: int = 16
    """Maximum number of answers that are generated together."""

    cache_bytes: int = 256 * MIB
    """Size of the visual cache, which all tenants share, in bytes. It serves further questions about the same media."""

    decoders: int = 2
    """Number of worker processes that decode media at a time."""

    decode_seconds: float = 15.0
    """Maximum time that a worker takes for one medium, in seconds."""

    decode_bytes: int = 2048 * MIB
    """Address space of a worker, in bytes."""

    max_streams: int = 16
    """Maximum number of live videos that are open at a time."""

    stream_window: int = 64
    """Maximum number of frames that a live video retains."""

    stream_idle_s: float = 600.0
    """Time without use after which a live video is closed, in seconds."""

    fetch_seconds: float = 10.0
    """Maximum time to fetch one medium from another host, in seconds."""

    unsafe_decode: bool = False
    """Whether to serve even where workers cannot be sandboxed."""

    def get_tenant_share(self, slots: int) -> int:
        """Return how many of `slots` one tenant may take: with several keys, never the last quarter."""
        return slots if len(self.keys) < 2 else max(1, slots * 3 // 4)

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):
            value = getattr(self, setting.name)
            if type(value) in (int, float) and value <= 0:
                raise UsageError(f"{setting.name} must be above 0, not {value}")
        if any(len(key) < 16 for key in self.keys):
            raise UsageError("an API key must have at least 16 characters")
        if any(not re.fullmatch("[!-~]+", key) for key in self.keys):
            raise UsageError("an API key must be printable ASCII without spaces: others do not fit into a header")


__all__ = ["MIB", "Settings"]
