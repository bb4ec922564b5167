"""Code that has taken over a worker can compute and respond, and nothing else."""

import json
import os
import subprocess
import sys
import time

import pytest

TRY = """
import ctypes, json, os, signal, socket, subprocess, sys, threading
go, results = threading.Event(), {}
def attempt(name, call):
    try:
        call()
        results[name] = "done"
    except Exception as error:
        results[name] = type(error).__name__
from pvc.server.sandbox.seccomp import isolate, seal
is_isolated = isolate()
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
print(json.dumps({"results": results, "is_isolated": is_isolated, "sealed": sealed}))
"""


@pytest.mark.parametrize("threads", ["1", "4"])
def test_a_worker_can_do_nothing_else(tmp_path, threads):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    arguments = [str(os.getpid()), str(tmp_path / "new"), str(precious)]
    process = subprocess.run([sys.executable, "-c", TRY, *arguments], capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stderr
    report = json.loads(process.stdout)
    assert report["sealed"] is True
    results = report["results"]
    assert results.pop("compute") == "done"
    assert len(results) == 32
    assert set(results.values()) <= {"PermissionError", "OSError"}, results
    assert precious.read_text() == "precious" and not (tmp_path / "new").exists()


def test_a_worker_environment_holds_no_secrets(app, client, monkeypatch):
    for worker in app.state.parts.workers._workers:
        with open(f"/proc/{worker.process.pid}/environ", "rb") as file:
            names = {entry.partition(b"=")[0] for entry in file.read().split(b"\0") if entry}
        assert names <= {b"LANG", b"OMP_NUM_THREADS", b"OPENBLAS_NUM_THREADS", b"LD_LIBRARY_PATH"}
        deadline = time.monotonic() + 20
        while not worker.is_ready and time.monotonic() < deadline:
            if worker.connection.poll(0.1):  # it has reported that it is ready, and has no request yet
                break
        for task in os.listdir(f"/proc/{worker.process.pid}/task"):
            with open(f"/proc/{worker.process.pid}/task/{task}/status") as file:
                status = dict(line.split(":\t") for line in file.read().splitlines() if ":\t" in line)
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


class FakeWorker:
    """A worker with a fixed response."""

    network, is_ready, num_served, is_alive = "namespace", True, 0, True

    def __init__(self, response):
        self.response, self.process = response, self

    def wait_ready(self):
        pass

    def request(self, *arguments):
        if isinstance(self.response, Exception):
            raise self.response
        return self.response

    def kill(self):
        self.is_alive = False


@pytest.mark.parametrize(
    "response",
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
def test_a_malformed_response_is_a_media_error(response):
    import asyncio

    from pvc.errors import MediaError
    from pvc.server.sandbox.pool import WorkerPool
    from pvc.server.settings import Settings

    workers = WorkerPool(Settings(decoders=1))
    workers._workers.add(fake := FakeWorker(response))
    workers._workers.add(FakeWorker(response))  # the maximum, so that none is started
    workers._idle.put(fake)
    with pytest.raises(MediaError):
        asyncio.run(workers.decode(b"x", "image"))
    workers.close()


def test_texts_of_a_worker_are_not_passed_on():
    from pvc.server.sandbox.pool import _build_media

    response = {"shape": [1, 1, 3], "warnings": ["sk-secret: x", "partial_decode: sk-secret", "size_changed"]}
    picture = _build_media(response, b"abc", "image")
    assert picture.warnings == (
        "partial_decode: frames are missing or damaged",
        "size_changed: some frames have another size than the first one; they were resized",
    )


def test_a_worker_without_sandbox_does_not_decode(monkeypatch):
    import asyncio

    from pvc.errors import ConfigError, MediaError
    from pvc.server.sandbox import pool as module
    from pvc.server.settings import Settings

    no_sandbox = (
        "from pvc.server.sandbox import worker; worker.isolate = lambda: False; worker.seal = lambda *x: False; "
    )
    monkeypatch.setattr(
        module,
        "PROGRAM",
        module.PROGRAM.replace("from pvc.server.sandbox.worker import main; ", no_sandbox + "main = worker.main; "),
    )
    pool = module.WorkerPool(Settings(decoders=1))
    with pytest.raises(ConfigError, match="--unsafe-decode"):
        pool.start()
    late = module.WorkerPool(Settings(decoders=1))  # without `start`: as if only later workers had no sandbox
    with pytest.raises(MediaError):
        asyncio.run(late.decode(b"x", "image"))
    late.close()
    unsafe = module.WorkerPool(Settings(decoders=1, unsafe_decode=True))
    unsafe.start()
    assert unsafe.network is None
    unsafe.close()
    # Cut off from the network, but without a filter of system calls: the worker could open files.
    monkeypatch.setattr(module, "PROGRAM", module.PROGRAM.replace("isolate = lambda: False", "isolate = lambda: True"))
    half = module.WorkerPool(Settings(decoders=1))
    with pytest.raises(ConfigError, match="--unsafe-decode"):
        half.start()


def test_workers_are_restarted(monkeypatch):
    """The system may be unable to start a process for a while."""
    import asyncio

    from pvc.errors import MediaError
    from pvc.server.sandbox import pool as module
    from pvc.server.settings import Settings

    workers = module.WorkerPool(Settings(decoders=1, decode_seconds=1))
    workers.start()
    worker_class = module._Worker

    def fail(settings):
        raise OSError(24, "too many open files")

    monkeypatch.setattr(module, "_Worker", fail)
    for worker in list(workers._workers):
        worker.process.kill()
        worker.process.wait()
    with pytest.raises(MediaError) as caught:
        asyncio.run(workers.decode(b"x", "image"))
    assert caught.value.code == "no_decoder" and not workers.is_alive
    monkeypatch.setattr(module, "_Worker", worker_class)
    object.__setattr__(workers.settings, "decode_seconds", 30)
    with pytest.raises(MediaError) as caught:
        asyncio.run(workers.decode(b"x", "image"))
    assert caught.value.code == "unsupported_format" and workers.is_alive
    workers.close()
