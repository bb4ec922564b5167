"""Live streams, clients that leave or dawdle, queues that are full, and the end of the process."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from pvc.engine.live import LiveSession
from pvc.lab.synthetic import make
from pvc.server.app import create_app
from pvc.server.live_sessions import keep_within
from pvc.server.settings import Settings
from tests.server.conftest import Lines, asked, children, shown, started, until

EXAMPLES = Path(__file__).parents[2] / "examples"


def png(frame):
    out = io.BytesIO()
    Image.fromarray(np.asarray(frame)).save(out, "PNG")
    return out.getvalue()


def push(client, name, frame, timestamp):
    return client.post(f"/v1/streams/{name}/frames", params={"timestamp": timestamp}, content=png(frame))


def about(name, text="which way does it move?"):
    return asked([{"type": "stream", "stream_id": name}, {"type": "text", "text": text}])


def test_a_stream_is_asked_about(client, engine):
    sample = make("direction", 5, size=64, frames=6, level=1)
    name = client.post("/v1/streams").json()["id"]
    for number, frame in enumerate(sample.frames):
        told = push(client, name, frame, number / 2)
        assert told.status_code == 200, told.text
    assert told.json()["frames"] == told.json()["kept"] == 6
    answer = client.post("/v1/chat/completions", json=about(name, sample.question)).json()
    stream = LiveSession(engine, window=8, keep=keep_within(8))
    for number, frame in enumerate(sample.frames):
        stream.push(np.asarray(frame), number / 2)
    assert answer["choices"][0]["message"]["content"] == stream.ask(sample.question).text
    assert answer["pvc"]["media"][0]["timestamps"] == [0, 0.5, 1, 1.5, 2, 2.5]
    again = client.post("/v1/chat/completions", json=about(name, sample.question)).json()
    assert again["choices"][0]["message"] == answer["choices"][0]["message"], "a question leaves it as it was"
    assert client.delete(f"/v1/streams/{name}").json()["deleted"] is True
    assert client.get(f"/v1/streams/{name}").status_code == 404


def test_times_go_forwards(client):
    frame = np.zeros((32, 32, 3), np.uint8)
    name = client.post("/v1/streams").json()["id"]
    assert client.post("/v1/chat/completions", json=about(name)).json()["error"]["code"] == "empty_stream"
    assert push(client, name, frame, 1.0).status_code == 200
    for timestamp in (1.0, 0.5):
        assert push(client, name, frame, timestamp).json()["error"]["code"] == "out_of_order"
    for timestamp in (-1, "nan", "inf", 1e9, "x"):
        assert push(client, name, frame, timestamp).status_code == 400
    assert client.post(f"/v1/streams/{name}/frames?timestamp=3", content=b"no picture").status_code == 415
    assert push(client, name, frame, 3.0).status_code == 200, "a frame that came to nothing took no time"
    assert push(client, "stream-none", frame, 3.0).status_code == 404
    client.delete(f"/v1/streams/{name}")


def test_only_so_many_and_only_so_long(client, app):
    names = [client.post("/v1/streams").json()["id"] for _ in range(3)]
    told = client.post("/v1/streams")
    assert (told.status_code, told.headers["retry-after"]) == (429, "30")
    app.state.parts.streams._live[names[0]].used -= 10_000
    assert client.post("/v1/streams").status_code == 201
    for name in list(app.state.parts.streams._live):
        client.delete(f"/v1/streams/{name}")


def test_streams_are_listed_and_have_windows(client):
    assert client.get("/v1/streams").json()["data"] == []
    made = client.post("/v1/streams", json={"window": 8}).json()
    assert made["window"] == 8
    assert [one["id"] for one in client.get("/v1/streams").json()["data"]] == [made["id"]]
    assert client.post("/v1/streams", json={"window": 9}).json()["error"]["code"] == "too_many"
    for wrong in ({"window": 1}, {"foo": 1}):
        assert client.post("/v1/streams", json=wrong).status_code == 400
    kept = [push(client, made["id"], np.full((16, 16, 3), n, np.uint8), n).json()["kept"] for n in range(30)]
    assert max(kept) == 8
    body = about(made["id"])
    assert client.post("/v1/chat/completions", json={**body, "pvc": {"frames": 4}}).status_code == 400
    client.delete(f"/v1/streams/{made['id']}")


def test_frames_that_come_at_once_are_shown_in_their_order(client, app):
    """A large one and small ones after it: decoding takes them differently long."""
    name = client.post("/v1/streams").json()["id"]
    live = app.state.parts.streams._live[name]
    sizes = [1500, 16, 16, 900, 16, 16]
    with ThreadPoolExecutor(6) as pool:
        told = []
        for number, size in enumerate(sizes):
            told.append(pool.submit(push, client, name, np.zeros((size, size, 3), np.uint8), float(number)))
            until(lambda: live.busy + sum(one.done() for one in told) == len(told))  # it waits for its turn, or is done
        assert [one.result().status_code for one in told] == [200] * 6
    assert client.get(f"/v1/streams/{name}").json()["frames"] == 6
    client.delete(f"/v1/streams/{name}")


def test_memory_is_bounded(client):
    name = client.post("/v1/streams").json()["id"]
    rng = np.random.default_rng(0)
    sizes = [
        push(client, name, rng.integers(0, 255, (16, 16, 3), np.uint8), float(number)).json()["bytes"]
        for number in range(60)
    ]
    assert max(sizes[40:]) <= max(sizes[20:40])
    client.delete(f"/v1/streams/{name}")


def test_a_queue_that_is_full(engine):
    app = create_app(engine, Settings(batch=1, queue=1, decoders=1, max_new_tokens=4))
    with TestClient(app) as client, ThreadPoolExecutor(12) as pool:
        body, go_on = asked("tell me everything about it"), threading.Event()
        app.state.parts.scheduler.run(go_on.wait)  # no answer goes on meanwhile
        try:
            told = [pool.submit(client.post, "/v1/chat/completions", json=body) for _ in range(12)]
            until(lambda: sum(one.done() for one in told) == 10)
            for one in told:
                if one.done():
                    refused = one.result()
                    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "busy")
                    assert refused.headers["retry-after"] == "2"
            assert client.get("/ready").json() == {"status": "busy"}
        finally:
            go_on.set()
        assert sorted(one.result().status_code for one in told) == [200] * 2 + [429] * 10
        assert client.get("/ready").status_code == 200
        assert client.post("/v1/chat/completions", json=body).status_code == 200


def open_requests(address):
    text = httpx.get(f"{address}/metrics").text
    return float(next(line for line in text.splitlines() if line.startswith("pvc_requests_open ")).split()[1])


@pytest.mark.parametrize("stream", [False, True])
def test_clients_that_leave_free_their_places(server, stream):
    address, _ = server
    host, port = address.removeprefix("http://").split(":")
    more = {"ignore_eos": True, "max_tokens": -1, "n": 4, "stream": stream}  # all of them take longer than the test
    body = json.dumps(asked("tell me everything " * 200, temperature=2.0, **more)).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}"
    clients = []
    for _ in range(14):
        clients.append(socket.create_connection((host, int(port))))
        clients[-1].sendall(head.encode() + b"\r\n\r\n" + body)
    until(lambda: open_requests(address) >= 5)
    for one in clients:
        one.close()
    until(lambda: open_requests(address) == 0, 10)  # a second on an idle machine


def test_slow_clients_are_let_go(server, monkeypatch):
    address, _ = server
    host, port = address.removeprefix("http://").split(":")
    begun = time.monotonic()
    slow = [socket.create_connection((host, int(port))) for _ in range(20)]
    for one in slow:
        one.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n")
    assert httpx.post(f"{address}/v1/chat/completions", json=asked("hello")).status_code == 200
    for one in slow:
        one.settimeout(20)
        assert one.recv(100) == b""
    assert 8 < time.monotonic() - begun < 20


@pytest.mark.slow
def test_who_does_not_read_is_let_go(server):
    """Whatever was asked for, and however often on one connection."""
    address, _ = server
    host, port = address.removeprefix("http://").split(":")
    deaf = []
    for _ in range(3):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        one.connect((host, int(port)))
        one.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 1500)
        deaf.append(one)
    end = time.monotonic() + 60
    gone = set()
    while len(gone) < 3 and time.monotonic() < end:
        time.sleep(1)
        for one in deaf:
            try:
                one.send(b"G")
            except OSError:
                gone.add(one)
    assert len(gone) == 3
    assert httpx.post(f"{address}/v1/chat/completions", json=asked("hello")).status_code == 200


def test_what_is_no_http_has_an_error_too(server):
    address, _ = server
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as one:
        one.sendall(b"nonsense\r\n\r\n")
        one.settimeout(10)
        text = b""
        while piece := one.recv(4096):
            text += piece
    head, _, body = text.partition(b"\r\n\r\n")
    assert b" 400 " in head and json.loads(body)["error"]["code"] == "malformed_http"


@pytest.mark.slow
def test_a_slow_body_is_let_go(server):
    address, _ = server
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as one:
        one.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        one.settimeout(50)
        assert one.recv(1000).startswith(b"HTTP/1.1 408")


def asking(address, bodies):
    """Threads that ask, and where they put what they are told."""
    told = []

    def ask(body):
        told.append(httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60))

    threads = [threading.Thread(target=ask, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    return threads, told


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT to all"])
def test_a_signal_lets_answers_be_finished(how):
    """The decoders stand still until the server says that it has the signal: no answer can end before."""
    address, process = started(start_new_session=True)
    lines, decoders = Lines(process), children(process)
    assert len(decoders) == 3
    for decoder in decoders:
        os.kill(decoder, signal.SIGSTOP)
    threads, told = asking(
        address, [asked(shown(EXAMPLES / "digits.mp4", "which digits?"), stream=n % 2 == 0) for n in range(8)]
    )
    until(lambda: open_requests(address) == 8)
    if how == "SIGTERM":
        process.send_signal(signal.SIGTERM)
    else:
        os.killpg(process.pid, signal.SIGINT)  # what a terminal's Ctrl-C does
    until(lambda: any("finishing 8 requests" in line for line in lines))
    assert not told
    for decoder in decoders:
        os.kill(decoder, signal.SIGCONT)
    for thread in (*threads, lines.thread):
        thread.join(60)
    process.wait(30)
    assert [one.status_code for one in told] == [200] * 8
    streamed = [one.text for one in told if "event-stream" in one.headers["content-type"]]
    assert len(streamed) == 4 and all(text.rstrip().endswith("data: [DONE]") for text in streamed)
    assert "Traceback" not in "".join(lines)


def test_what_the_terminal_says(server, tmp_path):
    address, _ = server
    port = address.rpartition(":")[2]
    told = subprocess.run([sys.executable, "-m", "pvc", "serve", "--port", port], capture_output=True, text=True)
    assert told.returncode == 2
    assert told.stderr.strip() == f"pvc: port {port} is in use; choose another with --port"
    for wrong in ("http://x.com/", "x.com:80", "127.0.0.1", "localhost"):
        told = subprocess.run(
            [sys.executable, "-m", "pvc", "serve", "--allow-host", wrong], capture_output=True, text=True
        )
        assert told.returncode == 2 and wrong in told.stderr
    keys = tmp_path / "keys"
    keys.write_text("# mine\nlong-enough-for-a-key\nshort\n")
    told = subprocess.run([sys.executable, "-m", "pvc", "serve", "--keys", keys], capture_output=True, text=True)
    assert told.returncode == 2 and "line 3" in told.stderr and "short" not in told.stderr.replace("shorter", "")


def test_a_line_of_every_request():
    address, process = started("--name", "eyes", "--root", str(EXAMPLES))
    body = {"model": "eyes", **asked("hello", max_tokens=1)}
    assert httpx.post(f"{address}/v1/chat/completions", json=body).json()["model"] == "eyes"
    for path, status in ((f"file://{EXAMPLES}/sign.png", 200), ("file:///sign.png", 200), ("file:///none.png", 403)):
        content = [{"type": "image_url", "image_url": {"url": path}}, {"type": "text", "text": "x"}]
        told = httpx.post(f"{address}/v1/chat/completions", json=asked(content, max_tokens=1))
        assert told.status_code == status, path
    process.terminate()
    process.wait(30)
    lines = process.stderr.read().decode().splitlines()
    assert any("eyes on cpu in float32; media from data:, file: below" in line for line in lines)
    assert any(f"ready at {address}/v1" in line for line in lines)
    (refused,) = [line for line in lines if " 403 " in line]
    assert told.json()["error"]["request_id"] in refused
    assert "forbidden_source (a file below --root: no such file or directory)" in refused
    assert sum("POST /v1/chat/completions 200" in line for line in lines) == 3
    assert not any("/health" in line or "/ready" in line for line in lines)


@pytest.mark.slow
def test_whatever_fits_the_schema_is_never_an_error_of_ours(engine):
    import schemathesis
    from hypothesis import HealthCheck, given, settings

    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(engine, Settings(max_new_tokens=4, decoders=1)))

    for operation in schema.include(path_regex="/v1").get_all_operations():

        @given(case=operation.ok().as_strategy())
        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        def one(case):
            response = case.call()
            assert response.status_code < 500, (case.body, response.text)

        one()


def test_an_answer_that_is_never_read_ends_all_the_same():
    """What `EventSourceResponse` is given has begun: forgotten, it gives its place back."""
    import asyncio
    import gc

    from pvc.server.sse import PrefetchedStream

    ended = []

    async def events():
        try:
            for number in range(3):
                yield str(number).encode()
        finally:
            ended.append(True)

    async def go():
        read = events()
        assert [one async for one in PrefetchedStream(await anext(read), read)] == [b"0", b"1", b"2"]
        assert ended == [True]
        made = events()
        forgotten = PrefetchedStream(await anext(made), made)
        del made, forgotten
        gc.collect()
        await asyncio.sleep(0.05)
        assert ended == [True, True]

    asyncio.run(go())
