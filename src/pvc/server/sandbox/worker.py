"""Program of a worker: a sandboxed process that decodes pictures and videos. Started by `pool.py`.

A medium arrives as bytes, or as the descriptor of a file that the server has opened for reading only. Requests are
JSON, responses are JSON and raw pixels. The server never unpickles a response, because the worker has read hostile
bytes.
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

CPU_SECONDS = 3600  # long before, the pool replaces a worker by wall-clock time


def main(descriptor: int, memory_bytes: int) -> None:
    """Sandbox this process, report how, and serve requests until the connection closes.

    Args:
        descriptor: file descriptor of the connection to the server.
        memory_bytes: maximum address space, in bytes.
    """
    is_isolated = isolate()  # before numpy, which starts threads
    _preload_libraries()
    is_sealed = seal(memory_bytes, CPU_SECONDS)
    network = "namespace" if is_isolated else "seccomp" if is_sealed else None
    connection = Connection(descriptor)
    connection.send_bytes(json.dumps({"network": network, "sealed": is_sealed}).encode())
    while True:
        try:
            params = json.loads(connection.recv_bytes())
            data = recv_handle(connection) if params["is_file"] else connection.recv_bytes()
        except (EOFError, OSError):
            return
        response, pixels = _decode(params, data)
        with contextlib.suppress(OSError):
            connection.send_bytes(json.dumps(response).encode())
            if pixels is not None:
                connection.send_bytes(pixels.data.cast("B"))


def _preload_libraries() -> None:
    """Import all that decoding may need, because no file can be opened later.

    Decoding a small example of each kind also loads what is imported lazily.
    """
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
        buffer = io.BytesIO()
        with contextlib.suppress(OSError, KeyError):  # this Pillow may lack the format
            picture.save(buffer, name, exif=PIL.Image.Exif())
            media.load(buffer.getvalue(), kind="image")
    buffer = io.BytesIO()
    frames = [PIL.Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 99, 200)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=100)
    media.load(buffer.getvalue(), kind="video", sampling=media.Sampling(frames=2), size=(4, 4))
    media.load(_encode_clip(np), kind="video", sampling=media.Sampling(fps=2.0), size=(4, 4))


def _encode_clip(np: Any) -> bytes:
    """Encode a few frames as a video file."""
    import io

    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for shade in range(6):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 40 * shade, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def _decode(params: dict[str, Any], data: bytes | int) -> tuple[dict[str, Any], np.ndarray[Any, Any] | None]:
    """Decode one medium. Return the response, and the pixels unless it is an error."""
    import numpy as np
    from PIL import Image

    from pvc import media
    from pvc.errors import PVCError
    from pvc.media.limits import Limits
    from pvc.media.source import Source

    try:
        source = Source(os.fdopen(data, "rb"), "file", os.fstat(data).st_size) if isinstance(data, int) else data
        limits = Limits(**params["limits"])
        sampling = media.Sampling(**params["sampling"]) if params["sampling"] else media.Sampling()
        size = tuple(params["size"]) if params["size"] else None
        medium = media.load(source, kind=params["kind"], sampling=sampling, size=size, limits=limits)
    except PVCError as error:
        return {"error": error.code, "status": error.exit_code}, None
    except MemoryError:
        return {"error": "too_many_pixels", "status": 3}, None
    except Exception:  # a bug of this library or of a decoder; the client can only send another medium
        return {"error": "corrupt_media", "status": 3}, None
    if isinstance(medium, media.Picture):
        # A frame of a live video is resized here, in the way the video processor would do it.
        resized = medium.image.resize(size, Image.Resampling(params["resample"])) if size else medium.image
        pixels = np.asarray(resized)
        return {"kind": "image", "shape": pixels.shape, "warnings": medium.warnings}, np.ascontiguousarray(pixels)
    response = {"kind": "video", "shape": medium.frames.shape, "warnings": medium.warnings}
    response |= {"timestamps": medium.timestamps, "duration": medium.duration, "source_frames": medium.source_frames}
    return response, np.ascontiguousarray(medium.frames)


__all__ = ["main"]
