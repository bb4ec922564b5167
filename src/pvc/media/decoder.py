"""How a decoder is set up, and what can go wrong in one.

Leaves out which packets it gets. Called by decode.py (all of them) and gop_decode.py (those of a plan).
"""

from __future__ import annotations

from dataclasses import dataclass

from av.video.stream import VideoStream


@dataclass
class DecodeErrors:
    """What went wrong in one pass: packets that failed, pictures the decoder flagged, and the first error."""

    failed: int = 0
    flagged: int = 0
    first: BaseException | None = None

    def __bool__(self) -> bool:
        return bool(self.failed or self.flagged)

    def note(self, error: BaseException) -> None:
        self.failed += 1
        self.first = self.first or error


def configure_decoder(stream: VideoStream, max_pixels: int, threads: int) -> None:
    """Before the first packet: a bound of the decoder's own on the pixels of a frame, and its threads."""
    context = stream.codec_context
    context.options = {"max_pixels": str(max_pixels)}
    if context.codec.canonical_name == "h264":
        # Opening decoded nothing, so the decoder has not yet seen how far pictures are reordered. Strict, it goes
        # by what the stream's level allows, and not by a guess that loses the first pictures when it is too low.
        context.options["strict"] = "1"
    context.thread_type = "AUTO"
    context.thread_count = threads
