"""A decoder: a process that reads pictures and videos from bytes, and can do nothing else. Started by `decoders.py`.

It is told what to read in JSON and answers with JSON and raw pixels: nothing it sends is ever unpickled, for it has
touched hostile bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from pvc import media
from pvc.errors import PVCError
from pvc.media.limits import Limits
from pvc.server.confine import bound, without_network

CPU_SECONDS = 3600  # a child is replaced long before, by its wall clock


def main(connection: Connection, memory: int) -> None:
    """Say how the network was taken away, then serve one request after another until the connection closes."""
    with open(os.devnull, "w") as nothing:  # decoders' libraries have much to say
        os.dup2(nothing.fileno(), sys.stderr.fileno())
    _import_everything()
    how = without_network()
    bound(memory, CPU_SECONDS)
    connection.send_bytes(json.dumps({"network": how}).encode())
    while True:
        try:
            asked = json.loads(connection.recv_bytes())
            data = connection.recv_bytes()
        except (EOFError, OSError):
            return
        told, pixels = _read(asked, data)
        with contextlib.suppress(OSError):
            connection.send_bytes(json.dumps(told).encode())
            if pixels is not None:
                connection.send_bytes(pixels.data.cast("B"))


def _import_everything() -> None:
    """Libraries before the bounds: files cannot be opened as freely afterwards, and the first request is not slow."""
    import av
    import PIL.Image

    PIL.Image.init()
    av.codec.codecs_available  # noqa: B018


def _read(asked: dict[str, Any], data: bytes) -> tuple[dict[str, Any], np.ndarray[Any, Any] | None]:
    try:
        limits = Limits(**asked["limits"])
        sampling = media.Sampling(**asked["sampling"]) if asked["sampling"] else media.Sampling()
        size = tuple(asked["size"]) if asked["size"] else None
        found = media.load(data, kind=asked["kind"], sampling=sampling, size=size, limits=limits)
    except PVCError as error:
        return {"error": error.code, "status": error.exit_code}, None
    except MemoryError:
        return {"error": "too_many_pixels", "status": 3}, None
    except Exception:  # a bug, ours or a library's: the bytes are at fault as far as the caller is concerned
        return {"error": "corrupt_media", "status": 3}, None
    if isinstance(found, media.Picture):
        pixels = np.asarray(found.image)
        return {"kind": "image", "shape": pixels.shape, "warnings": found.warnings}, np.ascontiguousarray(pixels)
    told = {"kind": "video", "shape": found.frames.shape, "warnings": found.warnings}
    told |= {"timestamps": found.timestamps, "duration": found.duration, "source_frames": found.source_frames}
    return told, np.ascontiguousarray(found.frames)


__all__ = ["main"]
