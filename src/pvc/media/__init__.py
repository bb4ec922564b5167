"""Bytes to frames with timestamps: pictures and videos, hostile ones included.

This is the public list. Every error that leaves here, for any bytes whatsoever, is a `pvc.errors.PVCError`.
Importing it imports neither PyAV nor Pillow; the first video, or picture, does. Called by pvc.processing,
pvc.engine, pvc.synthetic and the command line.
"""

from .image import load_image
from .limits import DEFAULT_LIMITS, Limits
from .load import load
from .probe import probe
from .sampling import Sampling, choose
from .sniff import Format, sniff
from .types import MediaInfo, Picture, Video
from .video import load_video
from .write import write_image, write_video

__all__ = [
    "DEFAULT_LIMITS",
    "Format",
    "Limits",
    "MediaInfo",
    "Picture",
    "Sampling",
    "Video",
    "choose",
    "load",
    "load_image",
    "load_video",
    "probe",
    "sniff",
    "write_image",
    "write_video",
]
