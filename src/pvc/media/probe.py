"""Read the kind, size and length of a file without decoding a pixel.

Headers are read and, for videos and animations, all packets or blocks are walked: declared lengths are often wrong.
Called by outline.py and by callers that plan before they load.
"""

from __future__ import annotations

from pvc.media.animation import is_animation, read_times
from pvc.media.image import PILLOW_ERRORS, open_pillow, read_orientation
from pvc.media.limits import DEFAULT_LIMITS, Limits
from pvc.media.source import FileSource, Source, open_source
from pvc.media.types import MediaInfo


def probe(source: FileSource, limits: Limits = DEFAULT_LIMITS) -> MediaInfo:
    """Read the MediaInfo of a file, of the kind that `load` would return.

    Args:
        source: path or bytes.
        limits: bounds on the file.

    Raises:
        MediaError: as the loaders do, except for damage that only decoding reveals.
        ForbiddenError: a URL, or not a regular file.
    """
    with open_source(source, limits) as media_file:
        if media_file.format.kind == "video":
            return _probe_video(media_file, limits)
        return _probe_image(media_file, limits)


def _probe_image(source: Source, limits: Limits) -> MediaInfo:
    image = open_pillow(source, limits)
    width, height = image.size
    format_name = source.format.name
    try:
        # To find EXIF data behind the pixels of a PNG, Pillow would decode them; few programs write it there.
        is_rotated = (format_name != "png" or "exif" in image.info) and read_orientation(image) >= 5
    except PILLOW_ERRORS:
        is_rotated = False
    if is_animation(source):
        times, duration = read_times(source, limits)
        return MediaInfo("video", format_name, width, height, len(times), duration)
    return MediaInfo("image", format_name, *((height, width) if is_rotated else (width, height)), 1, None)


def _probe_video(source: Source, limits: Limits) -> MediaInfo:
    from pvc.media.container import get_display_size, open_container, pick_stream, read_timeline

    with open_container(source) as container:
        stream = pick_stream(container, source.name, limits)
        timeline = read_timeline(source, container, stream, limits)
        width, height = get_display_size(source, container, stream)
        return MediaInfo("video", source.format.name, width, height, len(timeline.frame_pts), timeline.duration)
