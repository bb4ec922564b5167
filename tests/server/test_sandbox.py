"""What code could do in a decoder that hostile bytes have taken over: compute, and answer."""

import json
import os
import subprocess
import sys
import time

import pytest

TRY = """
import ctypes, json, os, signal, socket, subprocess, sys, threading
go, told = threading.Event(), {}
def attempt(name, call):
    try:
        call()
        told[name] = "done"
    except Exception as error:
        told[name] = type(error).__name__
from pvc.server.sandbox.seccomp import isolate, seal
spaced = isolate()
import numpy as np
libc = ctypes.CDLL(None, use_errno=True)
def system(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")
def everything(where):
    parent = int(sys.argv[1])
    attempt(where + "read a file", lambda: open("/etc/hostname").read())
    attempt(where + "read the parent's environment", lambda: open(f"/proc/{parent}/environ", "rb").read())
    attempt(where + "read the parent's memory", lambda: open(f"/proc/{parent}/mem", "rb"))
    attempt(where + "write a file", lambda: open(sys.argv[2], "w"))
    attempt(where + "remove a file", lambda: os.unlink(sys.argv[3]))
    attempt(where + "cut a file", lambda: os.truncate(sys.argv[3], 0))
    attempt(where + "link", lambda: os.symlink("/", sys.argv[2]))
    attempt(where + "rename", lambda: os.rename(sys.argv[3], sys.argv[2]))
    attempt(where + "socket", lambda: socket.socket())
    attempt(where + "unix socket", lambda: socket.socket(socket.AF_UNIX))
    attempt(where + "run", lambda: subprocess.run(["/bin/true"]))
    attempt(where + "fork", lambda: os.fork() or os._exit(0))
    attempt(where + "signal the parent", lambda: os.kill(parent, 0))
    attempt(where + "io_uring", lambda: system(425, 1, ctypes.create_string_buffer(200)))
    attempt(where + "ptrace", lambda: system({"x86_64": 101, "aarch64": 117}[os.uname().machine], 0x4206, parent, 0, 0))
    attempt(where + "limits of the parent", lambda: __import__("resource").prlimit(parent, 7, (1, 1)))
def other():
    go.wait()
    everything("thread: ")
thread = threading.Thread(target=other)
thread.start()
sealed = seal(2**31, 60)
go.set()
thread.join()
everything("")
def compute():
    late = threading.Thread(target=lambda: np.ones((64, 64)) @ np.ones((64, 64)))
    late.start()
    late.join()
attempt("compute", compute)
print(json.dumps({"told": told, "spaced": spaced, "sealed": sealed}))
"""


@pytest.mark.parametrize("threads", ["1", "4"])
def test_a_decoder_can_do_nothing_else(tmp_path, threads):
    there = tmp_path / "there"
    there.write_text("precious")
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    arguments = [str(os.getpid()), str(tmp_path / "new"), str(there)]
    done = subprocess.run([sys.executable, "-c", TRY, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["sealed"] is True
    told = found["told"]
    assert told.pop("compute") == "done"
    assert len(told) == 32
    assert set(told.values()) <= {"PermissionError", "OSError"}, told
    assert there.read_text() == "precious" and not (tmp_path / "new").exists()


def test_what_its_environment_holds(app, client, monkeypatch):
    for child in app.state.parts.decoders._all:
        with open(f"/proc/{child.process.pid}/environ", "rb") as file:
            names = {entry.partition(b"=")[0] for entry in file.read().split(b"\0") if entry}
        assert names <= {b"LANG", b"OMP_NUM_THREADS", b"OPENBLAS_NUM_THREADS", b"LD_LIBRARY_PATH"}
        until = time.monotonic() + 20
        while not child.ready and time.monotonic() < until:
            if child.connection.poll(0.1):  # it is ready, and nobody has asked it yet
                break
        for task in os.listdir(f"/proc/{child.process.pid}/task"):
            with open(f"/proc/{child.process.pid}/task/{task}/status") as file:
                status = dict(line.split(":\t") for line in file.read().splitlines() if ":\t" in line)
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


class Fake:
    """A child that answers whatever it is told to."""

    network, ready, served, alive = "namespace", True, 0, True

    def __init__(self, told):
        self.told, self.process = told, self

    def wait_ready(self):
        pass

    def ask(self, *arguments):
        if isinstance(self.told, Exception):
            raise self.told
        return self.told

    def kill(self):
        self.alive = False


@pytest.mark.parametrize(
    "told",
    [
        (1, None),
        ([], b""),
        ({}, None),
        ({"error": 5}, None),
        ({"shape": [1, 1, 3]}, b""),
        ({"shape": [2**40, 2**40, 3]}, b"x"),
        ({"shape": "x", "warnings": 3}, b"xxx"),
        RecursionError(),
        ValueError(),
    ],
    ids=str,
)
def test_whatever_a_child_answers(told):
    import asyncio

    from pvc.errors import MediaError
    from pvc.server.sandbox.pool import WorkerPool
    from pvc.server.settings import Settings

    decoders = WorkerPool(Settings(decoders=1))
    decoders._all.add(fake := Fake(told))
    decoders._all.add(Fake(told))  # as many as there may be: none is started
    decoders.free.put(fake)
    with pytest.raises(MediaError):
        asyncio.run(decoders.decode(b"x", "image"))
    decoders.close()


def test_what_it_says_of_media_is_not_told_on():
    from pvc.server.sandbox.pool import _made

    told = {"shape": [1, 1, 3], "warnings": ["sk-secret: x", "partial_decode: sk-secret", "size_changed"]}
    made = _made(told, b"abc", "image")
    assert made.warnings == (
        "partial_decode: frames are missing or damaged",
        "size_changed: some frames have another size than the first one; they were resized",
    )


def test_one_that_cannot_be_cut_off_does_not_decode(monkeypatch):
    import asyncio

    from pvc.errors import ConfigError, MediaError
    from pvc.server.sandbox import pool as module
    from pvc.server.settings import Settings

    open_ = "from pvc.server.sandbox import worker; worker.isolate = lambda: False; worker.seal = lambda *x: False; "
    monkeypatch.setattr(
        module,
        "PROGRAM",
        module.PROGRAM.replace("from pvc.server.sandbox.worker import main; ", open_ + "main = worker.main; "),
    )
    refused = module.WorkerPool(Settings(decoders=1))
    with pytest.raises(ConfigError, match="--unsafe-decode"):
        refused.start()
    late = module.WorkerPool(Settings(decoders=1))  # whose first children were fine, and later ones are not
    with pytest.raises(MediaError):
        asyncio.run(late.decode(b"x", "image"))
    late.close()
    unsafe = module.WorkerPool(Settings(decoders=1, unsafe_decode=True))
    unsafe.start()
    assert unsafe.network is None
    unsafe.close()


def test_decoders_come_back(monkeypatch):
    """The system may have no process to give for a while."""
    import asyncio

    from pvc.errors import MediaError
    from pvc.server.sandbox import pool as module
    from pvc.server.settings import Settings

    decoders = module.WorkerPool(Settings(decoders=1, decode_seconds=1))
    decoders.start()
    real = module._Child

    def none(settings):
        raise OSError(24, "too many open files")

    monkeypatch.setattr(module, "_Worker", none)
    for child in list(decoders._all):
        child.process.kill()
        child.process.wait()
    with pytest.raises(MediaError) as caught:
        asyncio.run(decoders.decode(b"x", "image"))
    assert caught.value.code == "no_decoder" and not decoders.alive
    monkeypatch.setattr(module, "_Worker", real)
    object.__setattr__(decoders.settings, "decode_seconds", 30)
    with pytest.raises(MediaError) as caught:
        asyncio.run(decoders.decode(b"x", "image"))
    assert caught.value.code == "unsupported_format" and decoders.alive
    decoders.close()
