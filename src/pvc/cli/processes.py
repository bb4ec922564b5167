"""What a failure looks like when the program is one of several processes of a launcher (torchrun, accelerate launch).

Every line names its process, the launcher's report gets the message, and a process that failed only because another
one ended says so. Called by `main.py`; a single process is left as it is.
"""

from __future__ import annotations

import os

# How gloo and NCCL say that the other end of a connection is gone.
_LOST = (
    "gloo/transport",
    "connection closed by peer",
    "connection reset by peer",
    "remote process exited",
    "broken pipe",
)


def rank() -> int | None:
    """Return the number of this process, or None where it is the only one."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return None
    return int(os.environ.get("RANK", "0"))


def name() -> str:
    """Return what error lines start with: `pvc`, or `pvc [rank 1]` among several processes."""
    number = rank()
    return "pvc" if number is None else f"pvc [rank {number}]"


def lost_peer(error: BaseException) -> bool:
    """Return whether an error only says that another process of the run has ended."""
    text = str(error).lower()
    return rank() is not None and isinstance(error, RuntimeError) and any(part in text for part in _LOST)


def record(error: BaseException) -> None:
    """Write an error where torchrun looks for it, so that its report names the cause."""
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)


__all__ = ["lost_peer", "name", "rank", "record"]
