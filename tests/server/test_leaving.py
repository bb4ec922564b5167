"""Clients that leave while their request is queued, fetched, decoded or answered: what was done for them stops.

`pytest -s` tells how long that took; the bound here is a busy machine's.
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
from pvc.server.launch import Server, configuration, listener
from pvc.server.settings import Settings
from tests.server.conftest import asked, data_url, shown, until
from tests.server.test_chat import EXAMPLES

LONG = {"temperature": 2.0, "ignore_eos": True, "max_tokens": -1}
END = 10**9  # tokens


@pytest.fixture
def endless(monkeypatch, engine):
    """Answers that go on for as long as the test does: the context has no end."""
    monkeypatch.setattr(engine.model.config.text_config, "max_position_embeddings", END)


@pytest.fixture
def serving(engine):
    """A server in a thread of this process, that can be looked into: its parts, and what sends it a request."""
    app = create_app(engine, Settings(batch=1, decoders=1, hosts=("pictures.example",), max_new_tokens=END))
    at, said = listener("127.0.0.1", 0), []
    port = at.getsockname()[1]
    made = Server(configuration(app), app.state.parts, said.append, "ready")
    thread = threading.Thread(target=made.run, args=([at],), daemon=True)
    thread.start()
    until(lambda: said)

    def send(body):
        data = json.dumps(body).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        return client

    app.state.parts.said, app.state.parts.server = said, made
    yield app.state.parts, send
    made.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def leaves(client, free, what):
    began = time.monotonic()
    client.close()
    until(free, 10)
    print(f"\nleft while {what}: free after {time.monotonic() - began:.2f} s")


@pytest.mark.parametrize("stream", [False, True])
def test_while_it_waits(serving, endless, stream):
    parts, send = serving
    first = send(asked("tell me everything", **LONG))
    until(lambda: parts.scheduler.batch.rows)
    second = send(asked("and me", stream=stream))
    until(lambda: parts.scheduler.load == 2)
    leaves(second, lambda: parts.scheduler.load < 2, "queued")
    leaves(first, lambda: parts.scheduler.load == 0 and not parts.scheduler.batch.rows, "generating")


@pytest.mark.parametrize("stream", [False, True])
def test_while_another_host_is_waited_for(serving, stream, monkeypatch):
    parts, send = serving
    with socket.socket() as slow:
        slow.bind(("127.0.0.1", 0))
        slow.listen()
        port = slow.getsockname()[1]

        async def resolve_recipe(host, port):
            return "127.0.0.1"

        monkeypatch.setattr(media_fetch, "_resolved", resolve_recipe)
        monkeypatch.setattr(media_fetch, "PORTS", {"http": port})
        content = [{"type": "image_url", "image_url": {"url": f"http://pictures.example:{port}/x.png"}}]
        client = send(asked([*content, {"type": "text", "text": "x"}], stream=stream))
        theirs, _ = slow.accept()
        with theirs:
            assert theirs.recv(10_000).startswith(b"GET /x.png")
            leaves(client, lambda: parts.scheduler.load == 0, "fetching")
            theirs.settimeout(5)
            assert theirs.recv(100) == b"", "the other host is let go too"
    assert not parts.holding.locked() and parts.holding._value == parts.settings.holding


@pytest.mark.parametrize("stream", [False, True])
def test_while_it_is_decoded(serving, stream):
    parts, send = serving
    stopped = list(parts.decoders._all)
    for child in stopped:
        os.kill(child.process.pid, signal.SIGSTOP)  # a decoder that goes on for ever
    client = send(asked(shown(EXAMPLES / "sign.png"), stream=stream))
    until(lambda: parts.decoders.busy)
    leaves(client, lambda: parts.scheduler.load == parts.decoders.busy == 0, "decoding")
    until(lambda: parts.decoders.counts["left"] == 1)
    for child in stopped:
        with contextlib.suppress(ProcessLookupError):  # one of them was killed
            os.kill(child.process.pid, signal.SIGCONT)
    again = send(asked(shown(EXAMPLES / "digits.mp4", "which digits are shown?")))
    assert b" 200 " in again.recv(1000)
    again.close()
    assert parts.holding._value == parts.settings.holding


def test_while_a_long_video_is_encoded(serving, endless, monkeypatch):
    """Others' answers go on between its chunks, and it is given up where its client has gone."""
    parts, send = serving
    parts.scheduler.most = 2
    steps, go_on = [], threading.Semaphore(0)
    encode = parts.engine.model.model.encode_frames

    def held(*args, **options):
        steps.append(len(parts.scheduler.batch.rows[0].tokens))
        assert go_on.acquire(timeout=60)
        return encode(*args, **options)

    other = send(asked("tell me everything", **LONG))
    until(lambda: parts.scheduler.batch.rows)
    monkeypatch.setattr(parts.engine.model.model, "encode_frames", held)
    content = [{"type": "video_url", "video_url": {"url": data_url(EXAMPLES / "digits.mp4")}}]
    client = send(asked([*content, {"type": "text", "text": "x"}], pvc={"frames": 128}))
    until(lambda: len(steps) == 1)
    go_on.release()
    until(lambda: len(steps) == 2)
    assert steps[1] > steps[0], "the other answer went on"
    client.close()
    until(lambda: parts.scheduler.load == 1)
    go_on.release(10)
    parts.scheduler.run(lambda: None).result(60)  # done once the encoding has ended
    assert len(steps) == 2, "the rest was not encoded"
    other.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_second_signal_ends_everything(serving, endless, stream):
    parts, send = serving
    bodies = [asked("tell me everything", stream=stream, **LONG), asked("and me", stream=stream)]
    generating = send(bodies[0])
    until(lambda: parts.scheduler.batch.rows)
    waiting = send(bodies[1])
    until(lambda: parts.scheduler.load == 2)
    for _ in range(2):
        parts.server.handle_exit(signal.SIGINT, None)
    parts.server._captured_signals.clear()  # this process goes on
    told = []
    for client in (generating, waiting):
        text = b""
        while piece := client.recv(2**16):
            text += piece
        told.append(text)
    assert all(b"shutting_down" in text for text in told)
    assert told[1].startswith(b"HTTP/1.1 503 ")
    assert told[0].startswith(b"HTTP/1.1 200 " if stream else b"HTTP/1.1 503 ")
    assert parts.said[1:] == ["finishing 2 requests, at most 20 s (again: ends them)", "ending 2 requests"]
