"""Live streams, clients that leave or dawdle, queues that are full, and the end of the process."""

import io
import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from pvc.engine.stream import Keep, Stream
from pvc.server.app import create_app
from pvc.server.settings import Settings
from pvc.synthetic import make

from .conftest import asked, shown, started

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
    stream = Stream(engine, window=8, keep=Keep(first=2, recent=4, middle=2))
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
    assert push(client, name, frame, 3.0).status_code == 409, "the time is taken, whatever became of its frame"
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
    settings = Settings(batch=1, queue=1, decoders=1, max_new_tokens=64)
    with TestClient(create_app(engine, settings)) as client, ThreadPoolExecutor(12) as pool:
        body = asked("tell me everything about it", temperature=2.0, seed=1)
        told = list(pool.map(lambda _: client.post("/v1/chat/completions", json=body), range(12)))
        codes = [one.status_code for one in told]
        assert set(codes) == {200, 429}
        refused = next(one for one in told if one.status_code == 429)
        assert refused.headers["retry-after"] == "2"
        assert refused.json()["error"]["code"] == "busy"
        assert client.get("/ready").status_code == 200
        assert client.post("/v1/chat/completions", json=body).status_code == 200


def open_requests(address):
    text = httpx.get(f"{address}/metrics").text
    return float(next(line for line in text.splitlines() if line.startswith("pvc_requests_open ")).split()[1])


@pytest.mark.parametrize("stream", [False, True])
def test_clients_that_leave_free_their_places(server, stream):
    address, _ = server
    host, port = address.removeprefix("http://").split(":")
    body = json.dumps(asked("tell me everything " * 200, temperature=2.0, max_tokens=1024, n=4, stream=stream)).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}"
    clients = []
    for _ in range(14):
        clients.append(socket.create_connection((host, int(port))))
        clients[-1].sendall(head.encode() + b"\r\n\r\n" + body)
    until = time.monotonic() + 5
    while open_requests(address) < 5 and time.monotonic() < until:
        time.sleep(0.01)
    assert open_requests(address) >= 5
    for one in clients:
        one.close()
    left = time.monotonic()
    while open_requests(address) and time.monotonic() < left + 10:
        time.sleep(0.02)
    assert open_requests(address) == 0
    assert time.monotonic() - left < 5  # a second on an idle machine


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
def test_a_slow_body_is_let_go(server):
    address, _ = server
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as one:
        one.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        one.settimeout(50)
        assert one.recv(1000).startswith(b"HTTP/1.1 408")


def test_a_signal_lets_answers_be_finished():
    address, process = started()
    told = []

    def ask():
        body = asked(shown(EXAMPLES / "digits.mp4", "which digits are shown?"))
        told.append(httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60).status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.15)
    process.send_signal(signal.SIGTERM)
    thread.join(60)
    assert process.wait(30) in (0, -signal.SIGTERM)
    assert told == [200]


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

    from pvc.server.app import _Begun

    ended = []

    async def events():
        try:
            for number in range(3):
                yield {"data": str(number)}
        finally:
            ended.append(True)

    async def go():
        read = events()
        assert [one["data"] async for one in _Begun(await anext(read), read)] == ["0", "1", "2"]
        assert ended == [True]
        made = events()
        forgotten = _Begun(await anext(made), made)
        del made, forgotten
        gc.collect()
        await asyncio.sleep(0.05)
        assert ended == [True, True]

    asyncio.run(go())
