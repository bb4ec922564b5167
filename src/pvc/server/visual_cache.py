"""Visual tokens of media that were seen before, so that the next question about them is neither decoded nor encoded.

Keyed by the bytes, the settings and who asks: one tenant learns nothing of what another has shown. Bounded in bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import mmap
import threading
from collections import OrderedDict

import torch

from pvc.engine.encode import EncodedMedia
from pvc.engine.engine import MediaOptions
from pvc.server.media_fetch import LocalFile

PAGES = 2**15  # bytes; smaller things would be too many mappings


def _apart(tokens: torch.Tensor) -> torch.Tensor:
    """A copy in pages of its own, which go back to the system with it.

    In the heap, things that stay for as long as these keep what lies between them from being given back.
    """
    if tokens.device.type != "cpu" or tokens.nbytes < PAGES:
        return tokens
    return torch.frombuffer(mmap.mmap(-1, tokens.nbytes), dtype=tokens.dtype).view(tokens.shape).copy_(tokens)


class VisualCache:
    """The most recently used media; for several threads."""

    def __init__(self, most: int) -> None:
        self.most, self.nbytes = most, 0
        self._kept: OrderedDict[str, EncodedMedia] = OrderedDict()
        self._lock = threading.Lock()

    @staticmethod
    def key(tenant: str, data: bytes | LocalFile, kind: str, options: MediaOptions) -> str:
        """Of one medium, prepared in one way, shown by one tenant. A file, which may be large, is not read for it."""
        content = data.identity if isinstance(data, LocalFile) else hashlib.sha256(data).hexdigest()
        text = f"{tenant}\0{kind}\0{options}\0{content}"
        return hashlib.sha256(text.encode()).hexdigest()

    def get(self, key: str) -> EncodedMedia | None:
        """What is kept under a key, if it is."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: str, encoded: EncodedMedia) -> None:
        """Keep it, and forget what has not been used for longest until the bytes fit."""
        size = encoded.tokens.nbytes
        if size > self.most:
            return
        kept = dataclasses.replace(encoded, tokens=_apart(encoded.tokens))
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = kept
            self.nbytes += size
            while self.nbytes > self.most:
                self.nbytes -= self._kept.popitem(last=False)[1].tokens.nbytes


__all__ = ["VisualCache"]
