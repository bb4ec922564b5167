"""Sandbox of a worker process: no network, files or other processes, limited memory and time. Called by `worker.py`.

`isolate` comes first, while there is one thread: it enters a separate network namespace, if the system allows that to
unprivileged users. `seal` comes after all imports: it installs a seccomp filter for all threads. Under the filter
nothing can be opened, connected, started or signalled (Linux on x86-64 and arm64). Numbers of system calls are those
of the kernel.
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
MAX_OPEN_FILES = 64
# Results of the filter. After ENOSYS the C library tries an older call.
ALLOW, DENY_EPERM, DENY_ENOSYS = 0x7FFF0000, 0x00050000 | 1, 0x00050000 | 38
X32_BIT = 0x40000000  # marks a second set of numbers for the same calls on x86-64
BPF_LOAD, BPF_JUMP_IF_EQUAL, BPF_JUMP_IF_SET, BPF_RETURN = 0x20, 0x15, 0x45, 0x06
NUMBER_OFFSET, ARCHITECTURE_OFFSET, FIRST_ARGUMENT_OFFSET = 0, 4, 16  # in the kernel's `seccomp_data`

# Architecture as seccomp names it, and the numbers of seccomp, clone, tgkill and prlimit64.
ARCHITECTURES = {"x86_64": (0xC000003E, 317, 56, 234, 302), "aarch64": (0xC00000B7, 277, 220, 131, 261)}
CLONE3, OPENAT2 = 435, 437
# Denied calls: numbers on (x86-64, arm64); None if the architecture has no such call.
DENIED_CALLS: dict[str, tuple[int | None, int | None]] = {
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
    """Move this process to a network namespace without interfaces, before other threads exist.

    Returns:
        Whether the system allowed it.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return bool(libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0)


def seal(memory_bytes: int, cpu_seconds: int) -> bool:
    """Set resource limits and install the seccomp filter for all threads of this process.

    Args:
        memory_bytes: maximum address space, in bytes.
        cpu_seconds: maximum processor time, in seconds.

    Returns:
        Whether the filter is installed. The resource limits always are.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_OPEN_FILES, MAX_OPEN_FILES))
    numbers = ARCHITECTURES.get(platform.machine())
    if sys.platform != "linux" or numbers is None:
        return False
    program = _build_filter(platform.machine())
    code = ctypes.create_string_buffer(program)

    class FilterProgram(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    filter_program = FilterProgram(len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return bool(libc.syscall(numbers[1], SECCOMP_SET_MODE_FILTER, TSYNC, ctypes.byref(filter_program)) == 0)


def _build_filter(machine: str) -> bytes:
    """Build the filter as a program of the kernel's packet filter. A block that does not return continues at the next.

    A jump has two distances: how many instructions to skip if the condition is true, and if it is false.
    """
    architecture, _, clone, tgkill, prlimit = ARCHITECTURES[machine]

    def build_instruction(code: int, skip_if_true: int, skip_if_false: int, value: int) -> bytes:
        return struct.pack("HBBI", code, skip_if_true, skip_if_false, value)

    def build_if_equal(value: int, block: list[bytes]) -> list[bytes]:
        return [build_instruction(BPF_JUMP_IF_EQUAL, 0, len(block), value), *block]

    allow, deny_eperm, deny_enosys = (
        build_instruction(BPF_RETURN, 0, 0, result) for result in (ALLOW, DENY_EPERM, DENY_ENOSYS)
    )
    load_argument = build_instruction(BPF_LOAD, 0, 0, FIRST_ARGUMENT_OFFSET)
    column = list(ARCHITECTURES).index(machine)
    program = [
        build_instruction(BPF_LOAD, 0, 0, ARCHITECTURE_OFFSET),
        build_instruction(BPF_JUMP_IF_EQUAL, 1, 0, architecture),
        deny_eperm,
        build_instruction(BPF_LOAD, 0, 0, NUMBER_OFFSET),
    ]
    if machine == "x86_64":
        program += [build_instruction(BPF_JUMP_IF_SET, 0, 1, X32_BIT), deny_eperm]
    for numbers in DENIED_CALLS.values():
        number = numbers[column]
        if number is not None:
            program += build_if_equal(number, [deny_eperm])
    program += build_if_equal(CLONE3, [deny_enosys])  # its flags lie in memory, which a filter cannot read
    # Threads may be started, processes may not. Signals and limits may only concern this process.
    is_thread = build_instruction(BPF_JUMP_IF_SET, 0, 1, CLONE_THREAD)
    is_self = build_instruction(BPF_JUMP_IF_EQUAL, 0, 1, os.getpid())
    is_zero = build_instruction(BPF_JUMP_IF_EQUAL, 0, 1, 0)
    program += build_if_equal(clone, [load_argument, is_thread, allow, deny_eperm])
    program += build_if_equal(tgkill, [load_argument, is_self, allow, deny_eperm])
    program += build_if_equal(prlimit, [load_argument, is_zero, allow, deny_eperm])
    return b"".join([*program, allow])


__all__ = ["isolate", "seal"]
