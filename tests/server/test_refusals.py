"""Hostile, malformed or too large requests are rejected with a status, quickly, and the server goes on."""

import base64
import json
import os
import re
import socket
import sys
import time

import httpx
import pytest
from fastapi.testclient import TestClient

from pvc.server.app import create_app
from pvc.server.settings import Settings
from tests.server.conftest import chat_body, data_url

HELLO = chat_body("hello", max_tokens=1)


def post(client, body, **options):
    return client.post("/v1/chat/completions", json=body, **options)


def with_url(url, kind="image_url"):
    return chat_body([{"type": kind, kind: {"url": url}}, {"type": "text", "text": "x"}], max_tokens=1)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_request"),
        (b"{", 400, "invalid_request"),
        (b"[]", 400, "invalid_request"),
        (b"[" * 50_000, 400, "invalid_request"),
        (b'{"messages": ' + b"[" * 50_000, 400, "invalid_request"),
        (json.dumps({**HELLO, "temperature": float("nan")}).encode(), 400, "invalid_request"),
        (json.dumps({**HELLO, "top_p": float("inf")}).encode(), 400, "invalid_request"),
        (b"\xff\xfe\x00", 400, "invalid_request"),
    ],
)
def test_malformed_bodies(client, body, status, code):
    response = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    "change",
    [
        {"messages": []},
        {"messages": [{"role": "assistant", "content": "x"}]},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_embeds", "image_embeds": "AAAA"}]}]},
        {"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}] * 2},
        {"chat_template": "{{ 1 }}"},
        {"mm_processor_kwargs": {"num_frames": 10**9}},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        {"top_k": 5},
        {"frequency_penalty": 0.5},
        {"logit_bias": {"1": 5}},
        {"max_tokens": 0},
        {"max_tokens": -2},
        {"stream_options": {"include_usage": True}},
        {"n": 10**9},
        {"n": 0},
        {"pvc": {"frames": 10**9}},
        {"pvc": {"fps": 10**9}},
        {"pvc": {"max_tiles": 10**9}},
        {"pvc": {"image_steps": 10**9}},
        {"pvc": {"image_steps": 0}},
        {"pvc": {"frames": 4, "fps": 1}},
        {"pvc": {"budget": 4}},
        {"temperature": -1},
        {"seed": 2**64},
        {"stop": [""]},
        {"stop": ["a"] * 9},
        {"top_logprobs": 3},
        {"messages": [{"role": "user", "content": "x" * 200_001}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 257}]},
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": [{"role": "user", "content": []}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": " "}]}]},
    ],
    ids=str,
)
def test_requests_that_make_no_sense(client, change):
    response = post(client, {**HELLO, **change})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["code"] in ("invalid_request", "too_many")
    assert error["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("content", "place", "words"),
    [
        ({"type": "text"}, "messages.0.content", "a text or a list"),
        ([{"type": "text"}], "messages.0.content.0.text", "required"),
        ([{"type": "input_text", "text": "x"}], "messages.0.content.0", "text, image_url, video_url or stream"),
        ([{"type": "image_url", "image_url": 5}], "messages.0.content.0.image_url", "dictionary"),
        (
            [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "data:,x", "detail": "foo"}}],
            "messages.0.content.1.image_url.detail",
            "'auto', 'low' or 'high'",
        ),
        ([{"type": "text", "text": "x", "foo": 1, "bar": 2}], "messages.0.content.0", "foo, bar"),
        ([{"type": "stream", "id": "x"}], "messages.0.content.0", "id"),
    ],
)
def test_errors_name_the_field(client, content, place, words):
    error = post(client, chat_body(content)).json()["error"]
    assert error["param"] == place
    assert error["message"].startswith(f"{place}: ") and words in error["message"]


def test_errors_name_every_field_at_once(client):
    message = post(client, {**HELLO, "foo": 1, "bar": 2, "top_k": 7, "n": 2}).json()["error"]["message"]
    assert "foo, bar: not a field" in message and "top_k: 7 is not supported" in message
    assert (
        "content-type: application/json"
        in client.post("/v1/chat/completions", content=b"{}").json()["error"]["message"]
    )
    bad = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert (
        post(client, chat_body([{"type": "text", "text": "x"}, bad])).json()["error"]["param"] == "messages.0.content.1"
    )
    assert "GET" in client.delete("/v1/models").json()["error"]["message"]
    assert "/v1/chat/completions" in client.post("/v1/responses").json()["error"]["message"]


def test_a_thousand_pictures(client):
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert post(client, chat_body([part] * 1000)).status_code == 400
    assert post(client, chat_body([part] * 40)).json()["error"]["code"] == "too_many"


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("data:image/png;base64,%%%", 400),
        ("data:image/png;base64,A", 400),
        ("data:image/png;base64", 400),
        ("data:", 400),
        ("data:image/png;base64,", 400),
        ("data:image/png;base64,AAAA", 415),
        ("http://127.0.0.1/x.png", 403),
        ("http://localhost/x", 403),
        ("http://0/x", 403),
        ("http://[::1]/x", 403),
        ("http://[::ffff:127.0.0.1]/x", 403),
        ("http://2130706433/x", 403),
        ("http://0x7f.1/x", 403),
        ("http://017700000001/x", 403),
        ("http://127.1/x", 403),
        ("http://localhost.:80/x", 403),
        ("HTTP://127.0.0.1:22/", 403),
        ("http://169.254.169.254/latest/meta-data/", 403),
        ("https://example.com/x.png", 403),
        ("ftp://example.com/x.png", 403),
        ("file:///etc/passwd", 403),
        ("/etc/passwd", 403),
        ("\u0000", 403),
    ],
)
def test_sources(client, url, status):
    for kind in ("image_url", "video_url"):
        response = post(client, with_url(url, kind))
        assert response.status_code == status, response.text
        message = response.json()["error"]["message"]  # a request's id may hold any digits
        assert "passwd" not in message and "127" not in message


def test_too_large_a_body(client):
    response = post(client, with_url("data:image/png;base64," + "A" * (33 * 2**20)))
    assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")

    def pieces():
        for _ in range(40):
            yield b" " * 2**20

    response = client.post("/v1/chat/completions", content=pieces())
    assert response.status_code == 413


class Audit:
    """Records what this process opens and connects to while `on` is set. Python's audit hooks cannot be removed."""

    on = False
    events: list = []

    @classmethod
    def hook(cls, event, arguments):
        if cls.on and event in ("open", "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.exec"):
            cls.events.append((event, str(arguments[1 if event == "socket.connect" else 0])))


def test_hostile_files(client, shared, app):
    for name, kind in (
        ("ok_rgb.png", "image_url"),
        ("ok_h264.mp4", "video_url"),
    ):  # triggers imports that happen only once
        assert post(client, with_url(data_url(shared / "hostile" / name), kind)).status_code == 200
    sys.addaudithook(Audit.hook)
    manifest = json.loads((shared / "hostile" / "manifest.json").read_text())["files"]
    num_files = 0
    for row in manifest:
        if row["kind"] not in ("image", "video"):
            continue
        path = shared / "hostile" / row["file"]
        kind = f"{row['kind']}_url"
        url = f"data:application/octet-stream;base64,{base64.b64encode(path.read_bytes()).decode()}"
        started_at = time.monotonic()
        Audit.on = True
        response = client.post("/v1/chat/completions", json=with_url(url, kind))
        Audit.on = False
        assert time.monotonic() - started_at < 10, row[
            "file"
        ]  # the two seconds are measured, on an idle machine
        expected = row["expected"]
        allowed = {int(number) for number in re.findall(r"\b(4\d\d)\b", expected)}
        if expected.startswith(("ok", "partial")) or "unless" in expected:
            allowed.add(200)
        assert response.status_code in allowed, (row, response.status_code, response.text[:200])
        assert str(shared) not in response.text
        num_files += 1
    assert num_files >= 60
    assert Audit.events == [], "the server's process opens no file and no connection for any of them"
    assert client.get("/health").status_code == 200
    assert app.state.parts.workers.counts["died"] == 0


def test_text_is_text(client, engine, shared):
    """No text of a user becomes a control token."""
    strings = json.loads((shared / "hostile" / "prompts_injection.json").read_text())
    texts = strings if isinstance(strings, list) else strings.get("strings", strings.get("prompts"))
    plain = post(client, HELLO).json()["usage"]["prompt_tokens"]
    specials = set(engine.processor.tokenizer.all_special_ids)
    for text in texts:
        text = text if isinstance(text, str) else text["text"]
        if not text.strip():
            continue
        response = post(client, chat_body(text, max_tokens=1))
        if response.status_code == 400 and "together" in response.text:  # longer than the bundled model can read
            continue
        assert response.status_code == 200, response.text
        ids = engine.processor.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert not specials & set(ids)
        assert response.json()["usage"]["prompt_tokens"] > 0 and plain > 0


def test_keys(engine):
    keys = ("k" * 20, "another-key-that-is-long")
    with TestClient(create_app(engine, Settings(keys=keys, decoders=1))) as client:
        for authorization in (
            None,
            "",
            "Bearer",
            "Bearer wrong",
            f"Basic {keys[0]}",
            f"Bearer {keys[0]}x",
            "Bearer \u00e9",
        ):
            headers = {} if authorization is None else {"authorization": authorization.encode("utf-8")}
            response = post(client, HELLO, headers=headers)
            assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
            assert response.headers["www-authenticate"] == "Bearer"
        mine, theirs = ({"authorization": f"Bearer {key}"} for key in keys)
        assert post(client, HELLO, headers=mine).status_code == 200
        assert client.get("/health").status_code == 200
        assert client.get("/v1/models").status_code == 401
        stream = client.post("/v1/streams", headers=mine).json()["id"]
        assert client.get(f"/v1/streams/{stream}", headers=mine).status_code == 200
        assert client.get(f"/v1/streams/{stream}", headers=theirs).status_code == 404
        assert client.delete(f"/v1/streams/{stream}", headers=theirs).status_code == 404


def test_files_below_a_root(engine, tmp_path, monkeypatch):
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"secret")
    from pathlib import Path

    picture = (Path(__file__).parents[2] / "examples" / "sign.png").read_bytes()
    (root / "inner" / "a b.png").write_bytes(picture)
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "out").symlink_to(tmp_path)
    os.mkfifo(root / "pipe.png")
    with TestClient(create_app(engine, Settings(root=root, decoders=1))) as client:
        assert post(client, with_url("file:///inner/a%20b.png")).status_code == 200
        for name in (
            "link.png",
            "out/secret.png",
            "../secret.png",
            "inner/../../secret.png",
            "%2e%2e/secret.png",
            "pipe.png",
            "inner",
            "none.png",
            "inner/a b.png/x",
            "a%00b",
            "x" * 5000,
        ):
            assert post(client, with_url(f"file:///{name}")).status_code == 403, name
        assert post(client, with_url("file://elsewhere/inner/a%20b.png")).status_code == 403


def test_allowed_names_with_addresses_that_are_not_global(engine, monkeypatch):
    """A name that is allowed but leads to an address that is not global is refused, wherever a redirect comes from."""
    with TestClient(create_app(engine, Settings(hosts=("pictures.example",), decoders=1))) as client:
        for address in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00::1", "::ffff:10.0.0.1", "224.0.0.1"):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET

            async def resolve(self, host, port, *, address=address, family=family, **options):
                return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

            monkeypatch.setattr("asyncio.base_events.BaseEventLoop.getaddrinfo", resolve)
            assert post(client, with_url("http://pictures.example/x.png")).status_code == 403, address
        assert post(client, with_url("http://pictures.example:8080/x.png")).status_code == 403
        assert post(client, with_url("http://user@pictures.example/x.png")).status_code == 403
        assert post(client, with_url("http://pictures.example.evil/x.png")).status_code == 403


def test_every_redirect_is_checked(monkeypatch):
    import asyncio

    from pvc.server import media_fetch
    from pvc.server.errors import ApiError

    def answer(request):
        assert request.url.host == "203.0.113.5" or request.url.host == "8.8.8.8"
        assert request.headers["host"] == "pictures.example"
        where = {"/a": "http://pictures.example/b", "/b": "http://127.0.0.1/c", "/loop": "/loop"}[request.url.path]
        return httpx.Response(302, headers={"location": where})

    async def resolve(host, port):
        return "8.8.8.8"

    client_class = httpx.AsyncClient
    monkeypatch.setattr(
        httpx, "AsyncClient", lambda **options: client_class(transport=httpx.MockTransport(answer), **options)
    )
    monkeypatch.setattr(media_fetch, "_resolve_host", resolve)
    for path, status in (("a", 403), ("loop", 502)):
        with pytest.raises(ApiError) as caught:
            asyncio.run(
                media_fetch.fetch_media(f"http://pictures.example/{path}", Settings(hosts=("pictures.example",)))
            )
        assert caught.value.status == status


def test_a_dying_worker_fails_only_its_request(client, app):
    workers = app.state.parts.workers
    from pathlib import Path

    sign = Path(__file__).parents[2] / "examples" / "sign.png"
    for worker in list(workers._workers):
        worker.process.kill()
        worker.process.wait()
    statuses = [post(client, with_url(data_url(sign) + "AAAA"[:0])).status_code for _ in range(3)]
    # If the visual cache has the picture, nothing is decoded.
    assert set(statuses) <= {200, 422}
    fresh = chat_body(
        [
            {"type": "video_url", "video_url": {"url": data_url(sign.with_name("digits.mp4"))}},
            {"type": "text", "text": "x"},
        ],
        max_tokens=1,
        pvc={"frames": 7},
    )
    codes = [post(client, {**fresh, "pvc": {"frames": 5 + number}}).status_code for number in range(4)]
    assert codes[-1] == 200
    assert workers.counts["died"] >= 1
    workers.counts["died"] = 0


def test_settings_are_checked():
    from pvc.errors import UsageError

    with pytest.raises(UsageError, match="queue must be above 0"):
        Settings(queue=0)
    with pytest.raises(UsageError, match="16 characters"):
        Settings(keys=("short",))


def test_bodies_and_pictures_of_all_requests_are_bounded(engine):
    from pathlib import Path

    sign = Path(__file__).parents[2] / "examples" / "sign.png"
    with TestClient(create_app(engine, Settings(max_flying=1000, decoders=1))) as client:
        response = post(client, with_url(data_url(sign)))
        assert (response.status_code, response.json()["error"]["code"]) == (429, "busy")
        assert post(client, HELLO).status_code == 200, "a rejected body is not counted any more"
    with TestClient(create_app(engine, Settings(max_pixels=10_000, decoders=1, holding=1))) as client:
        for _ in range(3):  # the decode permit is released
            response = post(client, with_url(data_url(sign)))
            assert (response.status_code, response.json()["error"]["code"]) == (413, "too_many_pixels")
        assert post(client, HELLO).status_code == 200


def test_a_body_of_a_million_things(engine):
    """Such a body is small for the network and large for the parser."""
    with TestClient(create_app(engine, Settings(decoders=1))) as client:
        for inner in (b"{}", b"0", b"[]"):
            for head, tail in ((b'{"messages":[', b"]}"), (b'{"messages":[{"role":"user","content":[', b"]}]}")):
                data = head + b",".join([inner] * 10**6) + tail
                started_at = time.monotonic()
                response = client.post(
                    "/v1/chat/completions", content=data, headers={"content-type": "application/json"}
                )
                assert response.status_code == 400 and response.json()["error"]["code"] == "too_many"
                assert time.monotonic() - started_at < 5  # a hundredth of a second on an idle machine
        for messages in ([{}] * 50_000, [{"role": "user", "content": "x"}] * 50_000):
            response = post(client, {"messages": messages})
            assert response.status_code == 400 and len(response.text) < 1000
        assert (
            post(client, {"messages": [{"role": "user", "content": "x"}] * 300}).json()["error"]["code"] == "too_many"
        )
        assert post(client, HELLO).status_code == 200


@pytest.mark.parametrize(
    "url", ["http://[", "http://[::1", "https://pictures.example/a\0", "http://pictures.example:x/"]
)
def test_malformed_urls(engine, url, tmp_path):
    with TestClient(create_app(engine, Settings(hosts=("pictures.example",), root=tmp_path, decoders=1))) as client:
        assert post(client, with_url(url)).status_code in (403, 502)
        assert post(client, with_url("file://[")).status_code == 403


def test_addresses_that_lead_inside():
    import ipaddress

    from pvc.server.media_fetch import _is_global

    inside = [
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2001::1",
        "::7f00:1",
        "::ffff:0:7f00:1",
        "fec0::1",
    ]
    inside += ["::", "::1", "fe80::1", "::ffff:127.0.0.1", "100.64.0.1", "0.0.0.0", "192.0.2.1", "ff02::1"]
    assert not [text for text in inside if _is_global(ipaddress.ip_address(text))]
    assert all(_is_global(ipaddress.ip_address(text)) for text in ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"))


def test_data_that_is_not_base64_is_small(client):
    small = "".join(f"%{byte:02x}" for byte in b"not a picture")
    assert post(client, with_url("data:image/png," + small)).status_code == 415
    assert post(client, with_url("data:image/png," + "%41" * 100_000)).status_code == 413


def test_extremes_of_sampling(client):
    for top_p in (1e-300, 1e-46, 1e-9):
        response = post(client, chat_body("hello", temperature=1.0, top_p=top_p, max_tokens=4))
        assert response.status_code == 200
    likely = post(client, chat_body("hello", temperature=2.0, logprobs=True, top_logprobs=20, max_tokens=8)).json()
    for token in likely["choices"][0]["logprobs"]["content"]:
        assert bytes(token["bytes"]).decode(errors="replace") == token["token"] != "<|im_end|>"


def test_no_key_takes_all_places(engine):
    keys = ("one-key-of-20-letters", "two-key-of-20-letters")
    settings = Settings(keys=keys, max_streams=4, decoders=1, queue=7, batch=1)
    app = create_app(engine, settings)
    with TestClient(app) as client:
        first, second = ({"authorization": f"Bearer {key}"} for key in keys)
        codes = [client.post("/v1/streams", headers=first).status_code for _ in range(4)]
        assert codes == [201, 201, 201, 429]
        assert client.post("/v1/streams", headers=second).status_code == 201
        scheduler = app.state.parts.scheduler
        assert [scheduler.reserve("key-0") for _ in range(7)] == [True] * 6 + [False]
        assert [scheduler.reserve("key-1") for _ in range(3)] == [True, True, False]


def test_internal_errors_have_ids_and_a_traceback(engine, caplog, monkeypatch):
    app = create_app(engine, Settings(decoders=1))
    with TestClient(app, raise_server_exceptions=False) as client:

        def broken(*arguments):
            raise ZeroDivisionError("of ours")

        monkeypatch.setattr("pvc.server.app.check_limits", broken)
        response = post(client, HELLO)
        monkeypatch.undo()
        assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "of ours" not in response.text
        record = next(record for record in caplog.records if "unexpected" in record.message)
        assert response.headers["x-request-id"] in record.message and record.exc_info[0] is ZeroDivisionError
        for name in ("start", "step"):
            monkeypatch.setattr("pvc.engine.batch._ends", lambda engine: set())
            monkeypatch.setattr(f"pvc.engine.batch.Batch.{name}", broken)
            response = post(client, chat_body("hello", max_tokens=4))
            assert response.status_code == 500, name
            monkeypatch.undo()
            assert post(client, HELLO).status_code == 200, "the server goes on"
        assert client.get("/ready").status_code == 200
