"""If a client leaves while its request is queued, fetched, decoded or answered, the work for it stops.

`pytest -s` prints how long that took. The limit here is for a busy machine.
"""

import contextlib
import json
import os
import signal
import socket
import threading
import time

import pytest

from pvc.server import media_fetch
from pvc.server.app import create_app
from pvc.server.launch import Server, build_uvicorn_config, listener
from pvc.server.settings import Settings
from tests.server.conftest import chat_body, data_url, media_content, wait_until
from tests.server.test_chat import EXAMPLES

LONG = {"temperature": 2.0, "ignore_eos": True, "max_tokens": -1}
END = 10**9  # tokens


@pytest.fixture
def endless(monkeypatch, engine):
    """Give the model an unlimited context, so that answers go on for as long as the test does."""
    monkeypatch.setattr(engine.model.config.text_config, "max_position_embeddings", END)


@pytest.fixture
def serving(engine):
    """Run a server in a thread of this process. Yield its state, and a function that sends it a request."""
    app = create_app(engine, Settings(batch=1, decoders=1, hosts=("pictures.example",), max_new_tokens=END))
    bound_socket, lines = listener("127.0.0.1", 0), []
    port = bound_socket.getsockname()[1]
    server = Server(build_uvicorn_config(app), app.state.parts, lines.append, "ready")
    thread = threading.Thread(target=server.run, args=([bound_socket],), daemon=True)
    thread.start()
    wait_until(lambda: lines)

    def send(body):
        data = json.dumps(body).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        return client

    app.state.parts.lines, app.state.parts.server = lines, server
    yield app.state.parts, send
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def check_leaving(client, is_free, what):
    started_at = time.monotonic()
    client.close()
    wait_until(is_free, 10)
    print(f"\nleft while {what}: free after {time.monotonic() - started_at:.2f} s")


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_while_queued(serving, endless, stream):
    state, send = serving
    first = send(chat_body("tell me everything", **LONG))
    wait_until(lambda: state.scheduler.batch.rows)
    second = send(chat_body("and me", stream=stream))
    wait_until(lambda: state.scheduler.load == 2)
    check_leaving(second, lambda: state.scheduler.load < 2, "queued")
    check_leaving(first, lambda: state.scheduler.load == 0 and not state.scheduler.batch.rows, "generating")


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_while_fetching(serving, stream, monkeypatch):
    state, send = serving
    with socket.socket() as slow:
        slow.bind(("127.0.0.1", 0))
        slow.listen()
        port = slow.getsockname()[1]

        async def resolve_host(host, port):
            return "127.0.0.1"

        monkeypatch.setattr(media_fetch, "_resolve_host", resolve_host)
        monkeypatch.setattr(media_fetch, "PORTS", {"http": port})
        content = [{"type": "image_url", "image_url": {"url": f"http://pictures.example:{port}/x.png"}}]
        client = send(chat_body([*content, {"type": "text", "text": "x"}], stream=stream))
        connection, _ = slow.accept()
        with connection:
            assert connection.recv(10_000).startswith(b"GET /x.png")
            check_leaving(client, lambda: state.scheduler.load == 0, "fetching")
            connection.settimeout(5)
            assert connection.recv(100) == b"", "the connection to the other host is closed too"
    # The slot is given back by the task that fetched, which may end after the connection does.
    wait_until(lambda: state.decode_slots._value == state.settings.holding)


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_while_decoding(serving, stream):
    state, send = serving
    stopped = list(state.workers._workers)
    for worker in stopped:
        os.kill(worker.process.pid, signal.SIGSTOP)  # a worker that never finishes
    client = send(chat_body(media_content(EXAMPLES / "sign.png"), stream=stream))
    wait_until(lambda: state.workers.num_decoding)
    check_leaving(client, lambda: state.scheduler.load == state.workers.num_decoding == 0, "decoding")
    wait_until(lambda: state.workers.counts["left"] == 1)
    for worker in stopped:
        with contextlib.suppress(ProcessLookupError):  # one of them was killed
            os.kill(worker.process.pid, signal.SIGCONT)
    again = send(chat_body(media_content(EXAMPLES / "digits.mp4", "which digits are shown?")))
    assert b" 200 " in again.recv(1000)
    again.close()
    wait_until(lambda: state.decode_slots._value == state.settings.holding)


def test_leaving_while_encoding_a_long_video(serving, endless, monkeypatch):
    """Other answers advance between its chunks. The encoding stops when its client has left."""
    state, send = serving
    state.scheduler.max_batch_size = 2
    steps, go_on = [], threading.Semaphore(0)
    encode = state.engine.model.model.encode_frames

    def encode_slowly(*args, **options):
        steps.append(len(state.scheduler.batch.rows[0].tokens))
        assert go_on.acquire(timeout=60)
        return encode(*args, **options)

    other = send(chat_body("tell me everything", **LONG))
    wait_until(lambda: state.scheduler.batch.rows)
    monkeypatch.setattr(state.engine.model.model, "encode_frames", encode_slowly)
    content = [{"type": "video_url", "video_url": {"url": data_url(EXAMPLES / "digits.mp4")}}]
    client = send(chat_body([*content, {"type": "text", "text": "x"}], pvc={"frames": 128}))
    wait_until(lambda: len(steps) == 1)
    go_on.release()
    wait_until(lambda: len(steps) == 2)
    assert steps[1] > steps[0], "the other answer went on"
    client.close()
    wait_until(lambda: state.scheduler.load == 1)
    go_on.release(10)
    state.scheduler.run(lambda: None).result(60)  # done once the encoding has ended
    assert len(steps) == 2, "the rest was not encoded"
    other.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_second_signal_ends_everything(serving, endless, stream):
    state, send = serving
    bodies = [chat_body("tell me everything", stream=stream, **LONG), chat_body("and me", stream=stream)]
    generating = send(bodies[0])
    wait_until(lambda: state.scheduler.batch.rows)
    waiting = send(bodies[1])
    wait_until(lambda: state.scheduler.load == 2)
    for _ in range(2):
        state.server.handle_exit(signal.SIGINT, None)
    state.server._captured_signals.clear()  # this process goes on
    responses = []
    for client in (generating, waiting):
        text = b""
        while piece := client.recv(2**16):
            text += piece
        responses.append(text)
    assert all(b"shutting_down" in text for text in responses)
    assert responses[1].startswith(b"HTTP/1.1 503 ")
    assert responses[0].startswith(b"HTTP/1.1 200 " if stream else b"HTTP/1.1 503 ")
    assert state.lines[1:] == ["finishing 2 requests, at most 20 s (again: ends them)", "ending 2 requests"]
