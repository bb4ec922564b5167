"""Files below the media directory are passed to the workers as descriptors, whatever their size."""

import asyncio
import gc
import json
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from pvc.media import DEFAULT_LIMITS, write_video
from pvc.server.app import create_app
from pvc.server.errors import ApiError
from pvc.server.media_fetch import LocalFile, fetch_media
from pvc.server.settings import Settings
from tests.server.conftest import chat_body

HOLE = 300 * 2**20


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def client(engine, root):
    with TestClient(create_app(engine, Settings(root=root, decoders=1))) as client:
        yield client


def video(path, shade=0):
    """Write a clip of eight frames."""
    write_video(path, np.full((8, 48, 64, 3), shade, np.uint8), fps=4)
    return path


def ask(client, name, kind="video_url"):
    content = [{"type": kind, kind: {"url": f"file:///{name}"}}, {"type": "text", "text": "what is this?"}]
    return client.post("/v1/chat/completions", json=chat_body(content, max_tokens=1))


def read_bytes():
    """Return the bytes that this process has read from files and pipes so far."""
    with open("/proc/self/io") as file:
        return int(next(line for line in file if line.startswith("rchar")).split()[1])


def test_a_large_video(client, root):
    """It is larger than the limit for the network, and the server's process does not read it."""
    path = video(root / "long.mp4")
    with open(path, "ab") as file:
        file.write(struct.pack(">I4s", HOLE, b"free"))
        file.truncate(file.tell() + HOLE - 8)
    assert path.stat().st_size > DEFAULT_LIMITS.max_bytes > Settings().media.max_bytes
    before = read_bytes()
    response = ask(client, "long.mp4")
    assert response.status_code == 200, response.text
    assert read_bytes() - before < 32 * 2**20
    assert response.json()["pvc"]["media"][0]["cached"] is False
    assert ask(client, "long.mp4").json()["pvc"]["media"][0]["cached"] is True


def test_a_file_that_changes_is_read_again(client, root):
    path = video(root / "changing.mp4")
    assert ask(client, "changing.mp4").json()["pvc"]["media"][0]["cached"] is False
    size = path.stat().st_size
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"x")  # of the same length, in the same place
    assert path.stat().st_size == size
    assert ask(client, "changing.mp4").json()["pvc"]["media"][0]["cached"] is False
    os.replace(video(root / "other.mp4", 200), path)
    assert ask(client, "changing.mp4").json()["pvc"]["media"][0]["cached"] is False


def test_a_large_photo(client, root):
    """Its header has more pixels than the limit; it is decoded at a reduced size in the sandbox too."""
    Image.new("RGB", (8064, 6048), "red").save(root / "photo.jpg", quality=30)
    os.truncate(root / "photo.jpg", Settings().media.max_bytes + 1)  # bytes behind the picture do not matter
    assert ask(client, "photo.jpg", "image_url").status_code == 200
    header = b"IHDR" + struct.pack(">IIBBBBB", 8064, 6048, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (root / "photo.png").write_bytes(png)
    response = ask(client, "photo.png", "image_url")
    assert (response.status_code, response.json()["error"]["code"]) == (413, "too_many_pixels")


def test_damaged_files_and_no_leak(client, root, app):
    (root / "text.mp4").write_text("no video")
    (root / "empty.mp4").write_bytes(b"")
    (root / "cut.mp4").write_bytes(video(root / "whole.mp4").read_bytes()[:300])
    codes = {"text.mp4": 415, "empty.mp4": 400, "cut.mp4": 422, "none.mp4": 403, "whole.mp4": 200}
    for name, status in codes.items():
        assert ask(client, name).status_code == status, name
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        for name in codes:
            ask(client, name)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before
    workers = client.app.state.parts.workers
    assert workers.counts["died"] == workers.counts["killed"] == 0
    for worker in workers._workers:
        names = os.listdir(f"/proc/{worker.process.pid}/fd")
        links = [os.readlink(f"/proc/{worker.process.pid}/fd/{name}") for name in names]
        assert not any(str(root) in link for link in links), "the file is closed when it has been decoded"


def test_a_descriptor_is_closed_with_its_file(root):
    path = video(root / "closed.mp4")
    file = asyncio.run(fetch_media(f"file://{path}", Settings(root=root)))
    assert isinstance(file, LocalFile)
    descriptor, identity = file.descriptor, file.identity
    os.fstat(descriptor)
    with pytest.raises(OSError, match=r"(?i)bad file descriptor|not open for writing"):
        os.write(descriptor, b"x")
    del file
    gc.collect()
    with pytest.raises(OSError, match="(?i)bad file descriptor"):
        os.fstat(descriptor)
    again = asyncio.run(fetch_media(f"file://{path}", Settings(root=root)))
    assert again.identity == identity


def test_data_from_the_network_keep_their_limit(root):
    limit = Settings().media.max_bytes
    with pytest.raises(ApiError) as caught:
        asyncio.run(fetch_media("data:video/mp4;base64," + "A" * (limit * 4 // 3 + 8), Settings(root=root)))
    assert (caught.value.status, caught.value.code) == (413, "too_many_bytes")


SEALED = """
import ctypes, json, os, resource, sys
descriptor, results = int(sys.argv[1]), {}
def attempt(name, call):
    try:
        call()
        results[name] = "done"
    except Exception as error:
        results[name] = type(error).__name__
from pvc.server.sandbox.seccomp import isolate, seal
isolate()
sealed = seal(2**31, 60)
attempt("read", lambda: os.read(descriptor, 10))
attempt("seek", lambda: os.lseek(descriptor, 100, os.SEEK_SET))
attempt("write", lambda: os.write(descriptor, b"x"))
attempt("cut", lambda: os.ftruncate(descriptor, 0))
attempt("mode", lambda: os.fchmod(descriptor, 0o777))
attempt("owner", lambda: os.fchown(descriptor, 0, 0))
attempt("times", lambda: os.utime(descriptor))
attempt("attribute", lambda: os.setxattr(descriptor, "user.x", b"x"))
attempt("open again", lambda: os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR))
attempt("open beside", lambda: os.open("secret", os.O_RDONLY, dir_fd=descriptor))
attempt("pass on", lambda: __import__("socket").socketpair())
print(json.dumps({"results": results, "sealed": sealed}))
"""


def test_a_sandboxed_process_can_only_read_a_file(root):
    path = video(root / "precious.mp4")
    data, status = path.read_bytes(), path.stat()
    file = asyncio.run(fetch_media(f"file://{path}", Settings(root=root)))
    command = [sys.executable, "-c", SEALED, str(file.descriptor)]
    process = subprocess.run(command, capture_output=True, text=True, pass_fds=[file.descriptor])
    assert process.returncode == 0, process.stderr
    report = json.loads(process.stdout)
    assert report["sealed"] is True
    results = report["results"]
    assert (results.pop("read"), results.pop("seek")) == ("done", "done")
    assert set(results.values()) <= {"PermissionError", "OSError", "NotADirectoryError"}, results
    assert len(results) == 9
    assert path.read_bytes() == data
    assert (path.stat().st_mode, path.stat().st_mtime_ns) == (status.st_mode, status.st_mtime_ns)
