"""A decoder: a process that reads pictures and videos, and can do nothing else. Started by `pool.py`.

A medium comes as bytes, or as the descriptor of a file that the parent opened for reading only. The process is told
what to read in JSON and answers with JSON and raw pixels: nothing it sends is ever unpickled, for it has touched
hostile bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import TYPE_CHECKING, Any

from pvc.server.sandbox.seccomp import isolate, seal

if TYPE_CHECKING:
    import numpy as np

CPU_SECONDS = 3600  # a child is replaced long before, by its wall clock


def main(handle: int, memory: int) -> None:
    """Say how this process was cut off, then serve one request after another until the connection closes."""
    spaced = isolate()  # before numpy, which starts threads
    _import_everything()
    sealed = seal(memory, CPU_SECONDS)
    network = "namespace" if spaced else "seccomp" if sealed else None
    connection = Connection(handle)
    connection.send_bytes(json.dumps({"network": network, "sealed": sealed}).encode())
    while True:
        try:
            asked = json.loads(connection.recv_bytes())
            data = recv_handle(connection) if asked["is_file"] else connection.recv_bytes()
        except (EOFError, OSError):
            return
        told, pixels = _read(asked, data)
        with contextlib.suppress(OSError):
            connection.send_bytes(json.dumps(told).encode())
            if pixels is not None:
                connection.send_bytes(pixels.data.cast("B"))


def _import_everything() -> None:
    """All that reading may need: no file can be opened afterwards. A small example of each kind finds what is lazy."""
    import io

    import av
    import numpy as np
    import PIL.features
    import PIL.Image

    from pvc import media

    PIL.Image.init()
    av.codec.codecs_available  # noqa: B018
    picture = PIL.Image.new("RGB", (8, 8))
    for name in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        out = io.BytesIO()
        with contextlib.suppress(OSError, KeyError):  # a Pillow without it
            picture.save(out, name, exif=PIL.Image.Exif())
            media.load(out.getvalue(), kind="image")
    out = io.BytesIO()
    frames = [PIL.Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 99, 200)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=100)
    media.load(out.getvalue(), kind="video", sampling=media.Sampling(frames=2), size=(4, 4))
    media.load(_clip(np), kind="video", sampling=media.Sampling(fps=2.0), size=(4, 4))


def _clip(np: Any) -> bytes:
    """A few frames as a video file."""
    import io

    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for shade in range(6):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 40 * shade, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def _read(asked: dict[str, Any], data: bytes | int) -> tuple[dict[str, Any], np.ndarray[Any, Any] | None]:
    import numpy as np
    from PIL import Image

    from pvc import media
    from pvc.errors import PVCError
    from pvc.media.limits import Limits
    from pvc.media.source import Source

    try:
        source = Source(os.fdopen(data, "rb"), "file", os.fstat(data).st_size) if isinstance(data, int) else data
        limits = Limits(**asked["limits"])
        sampling = media.Sampling(**asked["sampling"]) if asked["sampling"] else media.Sampling()
        size = tuple(asked["size"]) if asked["size"] else None
        found = media.load(source, kind=asked["kind"], sampling=sampling, size=size, limits=limits)
    except PVCError as error:
        return {"error": error.code, "status": error.exit_code}, None
    except MemoryError:
        return {"error": "too_many_pixels", "status": 3}, None
    except Exception:  # a bug, ours or a library's: the bytes are at fault as far as the caller is concerned
        return {"error": "corrupt_media", "status": 3}, None
    if isinstance(found, media.Picture):
        # A frame of a live video: made as small as the model takes it, the way its processor would do it.
        resized = found.image.resize(size, Image.Resampling(asked["resample"])) if size else found.image
        pixels = np.asarray(resized)
        return {"kind": "image", "shape": pixels.shape, "warnings": found.warnings}, np.ascontiguousarray(pixels)
    told = {"kind": "video", "shape": found.frames.shape, "warnings": found.warnings}
    told |= {"timestamps": found.timestamps, "duration": found.duration, "source_frames": found.source_frames}
    return told, np.ascontiguousarray(found.frames)


__all__ = ["main"]
