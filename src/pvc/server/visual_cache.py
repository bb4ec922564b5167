"""Cache of visual tokens, so that a further question about the same medium needs no decoding and no encoding.

The key holds the medium, the options and the tenant: no tenant can detect what another one has sent. Used by
`chat_completions.py`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import mmap
import threading
from collections import OrderedDict

import torch

from pvc.engine.encode import EncodedMedia
from pvc.engine.options import MediaOptions
from pvc.server.media_fetch import LocalFile

MIN_MAPPED_BYTES = 2**15  # smaller tensors would need too many mappings


def _copy_to_pages(tokens: torch.Tensor) -> torch.Tensor:
    """Copy a tensor on the CPU to separate pages, which go back to the system with it.

    In the heap, tensors that live this long would prevent the release of the memory between them.
    """
    if tokens.device.type != "cpu" or tokens.nbytes < MIN_MAPPED_BYTES:
        return tokens
    return torch.frombuffer(mmap.mmap(-1, tokens.nbytes), dtype=tokens.dtype).view(tokens.shape).copy_(tokens)


class VisualCache:
    """Visual tokens of the most recently used media, up to a number of bytes; thread-safe.

    Attributes:
        max_bytes: maximum size of all tokens, in bytes.
        nbytes: present size of all tokens, in bytes.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.nbytes = max_bytes, 0
        self._entries: OrderedDict[str, EncodedMedia] = OrderedDict()
        self._lock = threading.Lock()

    @staticmethod
    def compute_key(tenant: str, data: bytes | LocalFile, kind: str, options: MediaOptions) -> str:
        """Compute the key of one medium.

        Args:
            tenant: the tenant that sent it.
            data: its bytes, or a file. A file may be large: its identity is used and its bytes are not read.
            kind: "image" or "video".
            options: how it is prepared.

        Returns:
            SHA-256 in hexadecimal digits.
        """
        content = data.identity if isinstance(data, LocalFile) else hashlib.sha256(data).hexdigest()
        text = f"{tenant}\0{kind}\0{options}\0{content}"
        return hashlib.sha256(text.encode()).hexdigest()

    def get(self, key: str) -> EncodedMedia | None:
        """Return the entry of a key, or None."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
            return entry

    def put(self, key: str, encoded: EncodedMedia) -> None:
        """Store a medium, then remove the least recently used ones until the bytes fit.

        A medium that is larger than the whole cache is not stored.

        Args:
            key: result of `compute_key`.
            encoded: the medium; its tokens are copied.
        """
        size = encoded.tokens.nbytes
        if size > self.max_bytes:
            return
        entry = dataclasses.replace(encoded, tokens=_copy_to_pages(encoded.tokens))
        with self._lock:
            if key in self._entries:
                return
            self._entries[key] = entry
            self.nbytes += size
            while self.nbytes > self.max_bytes:
                self.nbytes -= self._entries.popitem(last=False)[1].tokens.nbytes


__all__ = ["VisualCache"]
