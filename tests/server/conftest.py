"""Fixtures: a server in this process, and one in a separate process. Helpers to build requests."""

import base64
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

import pvc
from pvc.server.app import create_app
from pvc.server.settings import Settings


@pytest.fixture(scope="session")
def engine():
    return pvc.load(device="cpu")


@pytest.fixture(scope="session")
def app(engine):
    return create_app(engine, Settings(max_new_tokens=64, batch=8, queue=16, max_streams=3, stream_window=8))


@pytest.fixture(scope="session")
def client(app):
    with TestClient(app, raise_server_exceptions=False) as test_client:
        yield test_client


def data_url(path):
    kind = "video/mp4" if path.suffix in (".mp4", ".mkv", ".webm", ".avi") else "image/png"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def media_content(path, text="what does the sign say?", kind=None):
    """Build the content of a message: a medium and a question."""
    kind = kind or ("video_url" if path.suffix in (".mp4", ".mkv", ".webm", ".avi", ".m4a") else "image_url")
    return [{"type": kind, kind: {"url": data_url(path)}}, {"type": "text", "text": text}]


def chat_body(content, **fields):
    """Build the body of a request with one message."""
    return {"messages": [{"role": "user", "content": content}], **fields}


def wait_until(condition, seconds=60):
    """Wait until another thread or process makes a condition true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.01)


def get_child_pids(process):
    """Return the ids of the processes that a process has started: the decoding workers of a server."""
    stats = (path.read_text() for path in Path("/proc").glob("[0-9]*/stat"))
    fields = [(int(text.split()[0]), text.rpartition(")")[2].split()) for text in stats]
    return [number for number, rest in fields if int(rest[1]) == process.pid]


class StderrLines(list):
    """Lines that a process writes to stderr, added as they arrive."""

    def __init__(self, process):
        super().__init__()
        self.thread = threading.Thread(target=lambda: self.extend(line.decode() for line in process.stderr))
        self.thread.start()


def start_server(*options, **popen_options):
    """Start `pvc serve` in a separate process, wait until it is ready, and return its address and process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "pvc", "serve", "--port", str(port), "--queue", "16", *options]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}, **popen_options
    )
    address = f"http://127.0.0.1:{port}"

    def is_ready():
        assert process.poll() is None, process.stderr.read().decode()
        try:
            return httpx.get(f"{address}/ready").status_code == 200
        except httpx.TransportError:
            return False

    wait_until(is_ready, 180)  # on a busy machine imports alone take most of a minute
    return address, process


@pytest.fixture(scope="module")
def server():
    address, process = start_server("--max-new-tokens", "4096")
    try:
        yield address, process
    finally:
        process.terminate()
        process.wait(30)
