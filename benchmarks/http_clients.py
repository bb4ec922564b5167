"""Servers in separate processes and concurrent HTTP clients, for `serve.py` and `batching.py`."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"


@contextlib.contextmanager
def run_pvc_server(*options: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run `pvc serve` with options in a separate process; yields its URL and process once it is ready."""
    with run_server([sys.executable, "-m", "pvc", "serve", *options], "/ready") as server:
        yield server


@contextlib.contextmanager
def run_server(
    command: list[str], ready: str, seconds: float = 60, **environment: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a server at a free port, and terminate it at the end.

    Args:
        command: command line, without `--port`.
        ready: path that responds with status 200 once the server is ready.
        seconds: time to wait for this.
        **environment: variables to add to the environment.

    Yields:
        URL and process of the server.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    out = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*command, "--port", str(port)], env={**os.environ, **environment}, **out)
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{address}{ready}").status_code == 200:
                    break
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{command} is not ready after {seconds:g} s")
            time.sleep(0.1)
        yield address, process
    finally:
        process.terminate()
        process.wait(30)


def build_data_url(data: bytes) -> str:
    """Encode bytes as a data URL."""
    return f"data:application/octet-stream;base64,{base64.b64encode(data).decode()}"


def build_question(number: int, tokens: int = 24) -> dict[str, Any]:
    """Build the body of a streamed request.

    Args:
        number: seed of the answer and of noise on the picture, so that each number needs another encoding.
        tokens: maximum number of tokens of the answer.
    """
    rng = np.random.default_rng(number)
    picture = Image.open(EXAMPLES / "sign.png").convert("RGB").resize((64, 64))
    pixels = np.asarray(picture).astype(int) + rng.integers(-6, 7, (64, 64, 3))
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "PNG")
    content = [
        {"type": "image_url", "image_url": {"url": build_data_url(out.getvalue())}},
        {"type": "text", "text": "Describe the picture."},
    ]
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": tokens, "temperature": 1.0}
    return {**body, "seed": number, "stream": True, "stream_options": {"include_usage": True}}


async def ask(client: httpx.AsyncClient, address: str, body: dict[str, Any]) -> dict[str, Any]:
    """Request one streamed answer.

    Args:
        client: the HTTP client.
        address: URL of the server.
        body: the request.

    Returns:
        `status` (0 for an incomplete stream), `first` and `all` (seconds to the first and the last token), `tokens`.
    """
    started, first, tokens = time.perf_counter(), None, 0
    async with client.stream("POST", f"{address}/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            await response.aread()
            return {"status": response.status_code}
        is_complete = False
        async for line in response.aiter_lines():
            if not line.startswith("data: "):
                continue
            if line == "data: [DONE]":
                is_complete = True
                break
            event = json.loads(line[6:])
            if first is None and any(choice["delta"].get("content") for choice in event["choices"]):
                first = time.perf_counter() - started
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    status, seconds = 200 if is_complete else 0, time.perf_counter() - started
    return {"status": status, "first": first, "all": seconds, "tokens": tokens}


async def run_clients(address: str, bodies: AsyncIterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Send requests from concurrent clients; a request with status 429 is repeated.

    Args:
        address: URL of the server.
        bodies: the requests.
        count: number of clients.

    Returns:
        The results of `ask`.
    """
    results: list[dict[str, Any]] = []
    limits = httpx.Limits(max_connections=count, max_keepalive_connections=count)

    async def work(client: httpx.AsyncClient) -> None:
        async for body in bodies:
            while (answer := await ask(client, address, body))["status"] == 429:
                await asyncio.sleep(0.2)
            results.append(answer)

    async with httpx.AsyncClient(timeout=300, limits=limits) as client:
        await asyncio.gather(*(work(client) for _ in range(count)))
    return results


class SharedIterator:
    """An asynchronous iterator that several tasks can read.

    Args:
        inner: the iterator.
    """

    def __init__(self, inner: AsyncIterator[dict[str, Any]]) -> None:
        self.inner, self.lock = inner, asyncio.Lock()

    def __aiter__(self) -> SharedIterator:
        return self

    async def __anext__(self) -> dict[str, Any]:
        async with self.lock:
            return await anext(self.inner)
