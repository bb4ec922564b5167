"""Load pictures and videos as RGB frames with timestamps. The input may be hostile.

This is the public interface. For any input bytes, every error raised here is a `pvc.errors.PVCError`.
Importing this package imports neither PyAV nor Pillow; the first video or picture that is loaded does.
Called by pvc.processing, pvc.engine, pvc.lab.synthetic and the command line.
"""

from pvc.media.image import load_image
from pvc.media.limits import DEFAULT_LIMITS, Limits
from pvc.media.load import load
from pvc.media.probe import probe
from pvc.media.sampling import Sampling, choose
from pvc.media.sniff import Format, sniff
from pvc.media.types import MediaInfo, Picture, Video
from pvc.media.video import load_video
from pvc.media.write import write_image, write_video

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
