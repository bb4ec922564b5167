"""What a file is, how large and how long, without decoding a pixel.

Reads headers and, for videos and animations, walks the packets or blocks, because what files declare about
their length often lies. Leaves out metadata and sound. Called by whoever has to budget before loading.
"""

from __future__ import annotations

from pvc.media.animation import is_animation, read_times
from pvc.media.image import PILLOW_ERRORS, open_pillow, orientation
from pvc.media.limits import DEFAULT_LIMITS, Limits
from pvc.media.source import FileSource, Source, open_source
from pvc.media.types import MediaInfo


def probe(source: FileSource, limits: Limits = DEFAULT_LIMITS) -> MediaInfo:
    """MediaInfo for a path or bytes, of the kind that `load` would return.

    Raises MediaError and ForbiddenError like the loaders, except for damage that only decoding brings to light.
    """
    with open_source(source, limits) as opened:
        if opened.format.kind == "video":
            return _video(opened, limits)
        return _image(opened, limits)


def _image(source: Source, limits: Limits) -> MediaInfo:
    image = open_pillow(source, limits)
    width, height = image.size
    form = source.format.name
    try:
        # To find EXIF data behind the picture data of a PNG, Pillow would decode it; few programs put it there.
        sideways = (form != "png" or "exif" in image.info) and orientation(image) >= 5
    except PILLOW_ERRORS:
        sideways = False
    if is_animation(source):
        times, duration = read_times(source, limits)
        return MediaInfo("video", form, width, height, len(times), duration)
    return MediaInfo("image", form, *((height, width) if sideways else (width, height)), 1, None)


def _video(source: Source, limits: Limits) -> MediaInfo:
    from pvc.media.container import open_container, pick_stream, read_timeline, shown_size

    with open_container(source) as container:
        stream = pick_stream(container, source.name, limits)
        timeline = read_timeline(source, container, stream, limits)
        width, height = shown_size(source, container, stream)
        return MediaInfo("video", source.format.name, width, height, len(timeline.ticks), timeline.duration)
