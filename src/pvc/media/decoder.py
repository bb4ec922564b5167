"""Configure decoders and count their errors.

Called by decode.py and live.py, which decode every packet, and by gop_decode.py, which decodes those of a plan.
"""

from __future__ import annotations

from dataclasses import dataclass

from av.video.stream import VideoStream


@dataclass
class DecodeErrors:
    """Errors of one decoding pass; true if there are any.

    Attributes:
        failed_packets: number of packets that raised an error.
        corrupt_frames: number of frames that the decoder marked as corrupt.
        first_error: the first error that was raised.
    """

    failed_packets: int = 0
    corrupt_frames: int = 0
    first_error: BaseException | None = None

    def __bool__(self) -> bool:
        return bool(self.failed_packets or self.corrupt_frames)

    def add(self, error: BaseException) -> None:
        """Count a failed packet."""
        self.failed_packets += 1
        self.first_error = self.first_error or error


def configure_decoder(stream: VideoStream, max_pixels: int, threads: int) -> None:
    """Configure a decoder before its first packet.

    Args:
        stream: the video stream.
        max_pixels: limit on the pixels of a frame that the decoder itself enforces.
        threads: threads of the decoder.
    """
    context = stream.codec_context
    context.options = {"max_pixels": str(max_pixels)}
    if context.codec.canonical_name == "h264":
        # Opening decoded nothing, so the decoder does not know how far frames are reordered. In strict mode it uses
        # the maximum of the stream's level; its guess could be too low and lose the first frames.
        context.options["strict"] = "1"
    context.thread_type = "AUTO"
    context.thread_count = threads
