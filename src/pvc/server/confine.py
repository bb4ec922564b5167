"""Cuts this process off: no network, bounded memory and time, no new privileges. Called by a decoder when it starts.

No network is a network namespace of its own where the system allows one to unprivileged users, else a seccomp filter
that refuses sockets (Linux on x86-64 and arm64).
"""

from __future__ import annotations

import ctypes
import platform
import resource
import struct
import sys

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
ALLOW, EPERM = 0x7FFF0000, 0x00050000 | 1
# Architecture as seccomp names it, and the number of its system call `socket`.
SYSTEMS = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}


def without_network() -> str | None:
    """Take the network away; returns how ("namespace" or "seccomp"), or None where neither can be had."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # Both, where both can be had: a namespace has no route, and the filter keeps a process from using other kinds of
    # socket (to a container's daemon, say) that a namespace leaves.
    filtered = _refuse_sockets(libc)
    spaced = libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0
    return "namespace" if spaced else "seccomp" if filtered else None


def _refuse_sockets(libc: ctypes.CDLL) -> bool:
    known = SYSTEMS.get(platform.machine())
    if known is None:
        return False
    architecture, socket = known

    def instruction(code: int, jump_true: int, jump_false: int, value: int) -> bytes:
        return struct.pack("HBBI", code, jump_true, jump_false, value)

    load, jump_equal, back = 0x20, 0x15, 0x06
    program = b"".join(
        [
            instruction(load, 0, 0, 4),  # the architecture of the call
            instruction(jump_equal, 1, 0, architecture),
            instruction(back, 0, 0, EPERM),  # calls of another one have other numbers
            instruction(load, 0, 0, 0),  # the number of the call
            instruction(jump_equal, 0, 1, socket),
            instruction(back, 0, 0, EPERM),
            instruction(back, 0, 0, ALLOW),
        ]
    )
    code = ctypes.create_string_buffer(program)

    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    asked = Filter(len(program) // 8, ctypes.addressof(code))
    return libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(asked), 0, 0) == 0


def bound(memory: int, seconds: int) -> None:
    """Bound address space (bytes), processor time (seconds, of all that follows), files written and core dumps."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


__all__ = ["bound", "without_network"]
