"""Live videos, clients that leave or are slow, full queues, and the end of the process."""

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
from pvc.server.live_sessions import build_retention
from pvc.server.settings import Settings
from tests.server.conftest import StderrLines, chat_body, get_child_pids, media_content, start_server, wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"


def png(frame):
    out = io.BytesIO()
    Image.fromarray(np.asarray(frame)).save(out, "PNG")
    return out.getvalue()


def push(client, name, frame, timestamp):
    return client.post(f"/v1/streams/{name}/frames", params={"timestamp": timestamp}, content=png(frame))


def question_about(name, text="which way does it move?"):
    return chat_body([{"type": "stream", "stream_id": name}, {"type": "text", "text": text}])


def test_a_stream_is_asked_about(client, engine):
    sample = make("direction", 5, size=64, frames=6, level=1)
    name = client.post("/v1/streams").json()["id"]
    for number, frame in enumerate(sample.frames):
        response = push(client, name, frame, number / 2)
        assert response.status_code == 200, response.text
    assert response.json()["frames"] == response.json()["kept"] == 6
    answer = client.post("/v1/chat/completions", json=question_about(name, sample.question)).json()
    stream = LiveSession(engine, window=8, keep=build_retention(8))
    for number, frame in enumerate(sample.frames):
        stream.push(np.asarray(frame), number / 2)
    assert answer["choices"][0]["message"]["content"] == stream.ask(sample.question).text
    assert answer["pvc"]["media"][0]["timestamps"] == [0, 0.5, 1, 1.5, 2, 2.5]
    again = client.post("/v1/chat/completions", json=question_about(name, sample.question)).json()
    assert again["choices"][0]["message"] == answer["choices"][0]["message"], "a question does not change the stream"
    assert client.delete(f"/v1/streams/{name}").json()["deleted"] is True
    assert client.get(f"/v1/streams/{name}").status_code == 404


def test_timestamps_increase(client):
    frame = np.zeros((32, 32, 3), np.uint8)
    name = client.post("/v1/streams").json()["id"]
    assert client.post("/v1/chat/completions", json=question_about(name)).json()["error"]["code"] == "empty_stream"
    assert push(client, name, frame, 1.0).status_code == 200
    for timestamp in (1.0, 0.5):
        assert push(client, name, frame, timestamp).json()["error"]["code"] == "out_of_order"
    for timestamp in (-1, "nan", "inf", 1e9, "x"):
        assert push(client, name, frame, timestamp).status_code == 400
    assert client.post(f"/v1/streams/{name}/frames?timestamp=3", content=b"no picture").status_code == 415
    assert push(client, name, frame, 3.0).status_code == 200, "a rejected frame does not count"
    assert push(client, "stream-none", frame, 3.0).status_code == 404
    client.delete(f"/v1/streams/{name}")


def test_number_and_idle_time_are_limited(client, app):
    names = [client.post("/v1/streams").json()["id"] for _ in range(3)]
    response = client.post("/v1/streams")
    assert (response.status_code, response.headers["retry-after"]) == (429, "30")
    app.state.parts.live_sessions._sessions[names[0]].last_used -= 10_000
    assert client.post("/v1/streams").status_code == 201
    for name in list(app.state.parts.live_sessions._sessions):
        client.delete(f"/v1/streams/{name}")


def test_streams_are_listed_and_have_windows(client):
    assert client.get("/v1/streams").json()["data"] == []
    stream = client.post("/v1/streams", json={"window": 8}).json()
    assert stream["window"] == 8
    assert [item["id"] for item in client.get("/v1/streams").json()["data"]] == [stream["id"]]
    assert client.post("/v1/streams", json={"window": 9}).json()["error"]["code"] == "too_many"
    for wrong in ({"window": 1}, {"foo": 1}):
        assert client.post("/v1/streams", json=wrong).status_code == 400
    kept_counts = [push(client, stream["id"], np.full((16, 16, 3), n, np.uint8), n).json()["kept"] for n in range(30)]
    assert max(kept_counts) == 8
    body = question_about(stream["id"])
    assert client.post("/v1/chat/completions", json={**body, "pvc": {"frames": 4}}).status_code == 400
    client.delete(f"/v1/streams/{stream['id']}")


def test_simultaneous_frames_keep_their_order(client, app):
    """A large frame takes longer to decode than the small ones after it."""
    name = client.post("/v1/streams").json()["id"]
    live = app.state.parts.live_sessions._sessions[name]
    sizes = [1500, 16, 16, 900, 16, 16]
    with ThreadPoolExecutor(6) as pool:
        futures = []
        for number, size in enumerate(sizes):
            futures.append(pool.submit(push, client, name, np.zeros((size, size, 3), np.uint8), float(number)))
            # Each frame waits for its turn, or is done.
            wait_until(lambda: live.num_pushing + sum(future.done() for future in futures) == len(futures))
        assert [future.result().status_code for future in futures] == [200] * 6
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
        body, resume = chat_body("tell me everything about it"), threading.Event()
        app.state.parts.scheduler.run(resume.wait)  # no answer advances meanwhile
        try:
            futures = [pool.submit(client.post, "/v1/chat/completions", json=body) for _ in range(12)]
            wait_until(lambda: sum(future.done() for future in futures) == 10)
            for future in futures:
                if future.done():
                    refused = future.result()
                    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "busy")
                    assert refused.headers["retry-after"] == "2"
            assert client.get("/ready").json() == {"status": "busy"}
        finally:
            resume.set()
        assert sorted(future.result().status_code for future in futures) == [200] * 2 + [429] * 10
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
    body = json.dumps(chat_body("tell me everything " * 200, temperature=2.0, **more)).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}"
    clients = []
    for _ in range(14):
        clients.append(socket.create_connection((host, int(port))))
        clients[-1].sendall(head.encode() + b"\r\n\r\n" + body)
    wait_until(lambda: open_requests(address) >= 5)
    for sock in clients:
        sock.close()
    wait_until(lambda: open_requests(address) == 0, 10)  # a second on an idle machine


def test_slow_headers_are_disconnected(server, monkeypatch):
    address, _ = server
    host, port = address.removeprefix("http://").split(":")
    started_at = time.monotonic()
    sockets = [socket.create_connection((host, int(port))) for _ in range(20)]
    for sock in sockets:
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n")
    assert httpx.post(f"{address}/v1/chat/completions", json=chat_body("hello")).status_code == 200
    for sock in sockets:
        sock.settimeout(20)
        assert sock.recv(100) == b""
    assert 8 < time.monotonic() - started_at < 20


@pytest.mark.slow
def test_clients_that_do_not_read_are_disconnected(server):
    """Also for small responses, many on one connection."""
    address, _ = server
    host, port = address.removeprefix("http://").split(":")
    not_reading = []
    for _ in range(3):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.connect((host, int(port)))
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 1500)
        not_reading.append(sock)
    end = time.monotonic() + 60
    gone = set()
    while len(gone) < 3 and time.monotonic() < end:
        time.sleep(1)
        for sock in not_reading:
            try:
                sock.send(b"G")
            except OSError:
                gone.add(sock)
    assert len(gone) == 3
    assert httpx.post(f"{address}/v1/chat/completions", json=chat_body("hello")).status_code == 200


def test_bytes_that_are_not_http_get_an_error(server):
    address, _ = server
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as sock:
        sock.sendall(b"nonsense\r\n\r\n")
        sock.settimeout(10)
        text = b""
        while piece := sock.recv(4096):
            text += piece
    head, _, body = text.partition(b"\r\n\r\n")
    assert b" 400 " in head and json.loads(body)["error"]["code"] == "malformed_http"


@pytest.mark.slow
def test_a_slow_body_is_disconnected(server):
    address, _ = server
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as sock:
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        sock.settimeout(50)
        assert sock.recv(1000).startswith(b"HTTP/1.1 408")


def send_in_threads(address, bodies):
    """Send requests in threads. Return the threads, and the list that the responses are added to."""
    responses = []

    def ask(body):
        responses.append(httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60))

    threads = [threading.Thread(target=ask, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    return threads, responses


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT to all"])
def test_a_signal_lets_answers_be_finished(how):
    """The workers are stopped until the server reports the signal, so that no answer can end before."""
    address, process = start_server(start_new_session=True)
    lines, workers = StderrLines(process), get_child_pids(process)
    assert len(workers) == 3
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    threads, responses = send_in_threads(
        address,
        [chat_body(media_content(EXAMPLES / "digits.mp4", "which digits?"), stream=n % 2 == 0) for n in range(8)],
    )
    wait_until(lambda: open_requests(address) == 8)
    if how == "SIGTERM":
        process.send_signal(signal.SIGTERM)
    else:
        os.killpg(process.pid, signal.SIGINT)  # what a terminal's Ctrl-C does
    wait_until(lambda: any("finishing 8 requests" in line for line in lines))
    assert not responses
    for worker in workers:
        os.kill(worker, signal.SIGCONT)
    for thread in (*threads, lines.thread):
        thread.join(60)
    process.wait(30)
    assert [response.status_code for response in responses] == [200] * 8
    streamed = [response.text for response in responses if "event-stream" in response.headers["content-type"]]
    assert len(streamed) == 4 and all(text.rstrip().endswith("data: [DONE]") for text in streamed)
    assert "Traceback" not in "".join(lines)


def test_errors_of_the_command_line(server, tmp_path):
    address, _ = server
    port = address.rpartition(":")[2]
    process = subprocess.run([sys.executable, "-m", "pvc", "serve", "--port", port], capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr.strip() == f"pvc: port {port} is in use; choose another with --port"
    for wrong in ("http://x.com/", "x.com:80", "127.0.0.1", "localhost"):
        process = subprocess.run(
            [sys.executable, "-m", "pvc", "serve", "--allow-host", wrong], capture_output=True, text=True
        )
        assert process.returncode == 2 and wrong in process.stderr
    keys = tmp_path / "keys"
    keys.write_text("# mine\nlong-enough-for-a-key\nshort\n")
    process = subprocess.run([sys.executable, "-m", "pvc", "serve", "--keys", keys], capture_output=True, text=True)
    assert (
        process.returncode == 2 and "line 3" in process.stderr and "short" not in process.stderr.replace("shorter", "")
    )


def test_every_request_is_logged():
    address, process = start_server("--name", "eyes", "--root", str(EXAMPLES))
    body = {"model": "eyes", **chat_body("hello", max_tokens=1)}
    assert httpx.post(f"{address}/v1/chat/completions", json=body).json()["model"] == "eyes"
    for path, status in ((f"file://{EXAMPLES}/sign.png", 200), ("file:///sign.png", 200), ("file:///none.png", 403)):
        content = [{"type": "image_url", "image_url": {"url": path}}, {"type": "text", "text": "x"}]
        response = httpx.post(f"{address}/v1/chat/completions", json=chat_body(content, max_tokens=1))
        assert response.status_code == status, path
    process.terminate()
    process.wait(30)
    lines = process.stderr.read().decode().splitlines()
    assert any("eyes on cpu in float32; media from data:, file: below" in line for line in lines)
    assert any(f"ready at {address}/v1" in line for line in lines)
    (refused,) = [line for line in lines if " 403 " in line]
    assert response.json()["error"]["request_id"] in refused
    assert "forbidden_source (a file below --root: no such file or directory)" in refused
    assert sum("POST /v1/chat/completions 200" in line for line in lines) == 3
    assert not any("/health" in line or "/ready" in line for line in lines)


@pytest.mark.slow
def test_requests_that_fit_the_schema_cause_no_server_error(engine):
    import schemathesis
    from hypothesis import HealthCheck, given, settings

    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(engine, Settings(max_new_tokens=4, decoders=1)))

    for operation in schema.include(path_regex="/v1").get_all_operations():

        @given(case=operation.ok().as_strategy())
        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        def check(case):
            response = case.call()
            assert response.status_code < 500, (case.body, response.text)

        check()


def test_an_unread_stream_is_closed():
    """The generator in `EventSourceResponse` has started, so garbage collection runs its `finally`."""
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
        generator = events()
        assert [item async for item in PrefetchedStream(await anext(generator), generator)] == [b"0", b"1", b"2"]
        assert ended == [True]
        generator = events()
        unread = PrefetchedStream(await anext(generator), generator)
        del generator, unread
        gc.collect()
        await asyncio.sleep(0.05)
        assert ended == [True, True]

    asyncio.run(go())
