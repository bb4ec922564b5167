"""Cuts this process off: no network, no files, no other processes, bounded memory and time. Called by a decoder.

`isolate` comes first, while there is one thread: a network namespace of its own, where the system allows one to
unprivileged users. `seal` comes when everything is imported: a seccomp filter for all threads, under which nothing is
opened, connected, started or signalled any more (Linux on x86-64 and arm64). Numbers of system calls are the kernel's.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys

CLONE_NEWUSER, CLONE_NEWNET, CLONE_THREAD = 0x10000000, 0x40000000, 0x00010000
PR_SET_NO_NEW_PRIVS, SECCOMP_SET_MODE_FILTER, TSYNC = 38, 1, 1
ALLOW, REFUSE, UNKNOWN = 0x7FFF0000, 0x00050000 | 1, 0x00050000 | 38  # EPERM; ENOSYS, after which libc asks otherwise
X32 = 0x40000000  # a second set of numbers for the same calls on x86-64
LOAD, EQUAL, SET, BACK = 0x20, 0x15, 0x45, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # places in what the filter sees

# Architecture as seccomp names it, and the numbers of seccomp, clone, tgkill and prlimit64.
SYSTEMS = {"x86_64": (0xC000003E, 317, 56, 234, 302), "aarch64": (0xC00000B7, 277, 220, 131, 261)}
CLONE3, OPENAT2 = 435, 437
# What is refused: (x86-64, arm64); None where a system has no such call.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    **{"socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "sendmsg": (46, 211)},
    **{"io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427)},
    **{"open": (2, None), "openat": (257, 56), "openat2": (OPENAT2, OPENAT2), "creat": (85, None)},
    **{"name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "open_tree": (428, 428)},
    **{"truncate": (76, 45), "unlink": (87, None), "unlinkat": (263, 35), "rmdir": (84, None), "mkdir": (83, None)},
    **{"mkdirat": (258, 34), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276)},
    **{"link": (86, None), "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36)},
    **{"mknod": (133, None), "mknodat": (259, 33), "chmod": (90, None), "fchmodat": (268, 53), "fchmod": (91, 52)},
    **{"chown": (92, None), "lchown": (94, None), "fchown": (93, 55), "fchownat": (260, 54), "utimensat": (280, 88)},
    **{"setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14)},
    **{"execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None)},
    **{"ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272)},
    **{"kill": (62, 129), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240)},
    **{"pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438)},
    **{"unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41)},
    **{"chroot": (161, 51), "fsopen": (430, 430), "move_mount": (429, 429), "mount_setattr": (442, 442)},
    **{"bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282)},
    **{"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "process_madvise": (440, 440)},
    **{"shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180)},
}


def isolate() -> bool:
    """Take the network away, before there are other threads; whether that could be had."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return bool(libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0)


def seal(memory: int, seconds: int) -> bool:
    """Bound this process and refuse what it needs no more; whether the filter is in place.

    `memory`: bytes of address space; `seconds`: of processor time.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    known = SYSTEMS.get(platform.machine())
    if sys.platform != "linux" or known is None:
        return False
    program = _program(platform.machine())
    code = ctypes.create_string_buffer(program)

    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    asked = Filter(len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return bool(libc.syscall(known[1], SECCOMP_SET_MODE_FILTER, TSYNC, ctypes.byref(asked)) == 0)


def _program(machine: str) -> bytes:
    """The filter, in the kernel's packet filter language: every part that does not return falls through to the next."""
    architecture, _, clone, tgkill, prlimit = SYSTEMS[machine]

    def instruction(code: int, true: int, false: int, value: int) -> bytes:
        return struct.pack("HBBI", code, true, false, value)

    def where_equal(value: int, then: list[bytes]) -> list[bytes]:
        return [instruction(EQUAL, 0, len(then), value), *then]

    back = {told: instruction(BACK, 0, 0, told) for told in (ALLOW, REFUSE, UNKNOWN)}
    argument = instruction(LOAD, 0, 0, FIRST_ARGUMENT)
    column = list(SYSTEMS).index(machine)
    parts = [instruction(LOAD, 0, 0, ARCHITECTURE), instruction(EQUAL, 1, 0, architecture), back[REFUSE]]
    parts += [instruction(LOAD, 0, 0, NUMBER)]
    if machine == "x86_64":
        parts += [instruction(SET, 0, 1, X32), back[REFUSE]]
    for numbers in REFUSED.values():
        number = numbers[column]
        if number is not None:
            parts += where_equal(number, [back[REFUSE]])
    parts += where_equal(CLONE3, [back[UNKNOWN]])  # its flags lie in memory, where no filter looks
    # Threads may be started, processes not; signals and limits may be its own, nobody else's.
    parts += where_equal(clone, [argument, instruction(SET, 0, 1, CLONE_THREAD), back[ALLOW], back[REFUSE]])
    parts += where_equal(tgkill, [argument, instruction(EQUAL, 0, 1, os.getpid()), back[ALLOW], back[REFUSE]])
    parts += where_equal(prlimit, [argument, instruction(EQUAL, 0, 1, 0), back[ALLOW], back[REFUSE]])
    return b"".join([*parts, back[ALLOW]])


__all__ = ["isolate", "seal"]
