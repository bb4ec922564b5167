"""The server under load: many clients, slow and hostile ones, a soak, a long stream (batching: batching.py).

    python benchmarks/serve.py load [--requests 2000]      64 streaming clients, then the same beside 200 slow sockets
    python benchmarks/serve.py hostile ../shared/hostile   every file: status, seconds, growth of the parent's memory
    python benchmarks/serve.py stream [--frames 10000]     one live video: memory after the window fills
    python benchmarks/serve.py soak [../shared/hostile]  half an hour of mixed load, some of it hostile: memory, files

Each starts `pvc serve` with the bundled model on two cores and talks to it over sockets, from this machine: clients and
server share the cores. Writes Markdown to --output, or prints it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"


@contextlib.contextmanager
def server(*options: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`pvc serve` that is ready, in a process of its own."""
    with started([sys.executable, "-m", "pvc", "serve", *options], "/ready") as made:
        yield made


@contextlib.contextmanager
def started(
    command: list[str], ready: str, seconds: float = 60, **more: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server at a free port, once it answers at `ready`; `more` goes into its environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    out = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*command, "--port", str(port)], env={**os.environ, **more}, **out)
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + seconds
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{address}{ready}").status_code == 200:
                    break
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{command} does not become ready")
            time.sleep(0.1)
        yield address, process
    finally:
        process.terminate()
        process.wait(30)


def data_url(data: bytes) -> str:
    return f"data:application/octet-stream;base64,{base64.b64encode(data).decode()}"


def question(number: int, tokens: int = 24) -> dict[str, Any]:
    """A request with a picture of its own (no cache helps)."""
    rng = np.random.default_rng(number)
    picture = Image.open(EXAMPLES / "sign.png").convert("RGB").resize((64, 64))
    pixels = np.asarray(picture).astype(int) + rng.integers(-6, 7, (64, 64, 3))
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "PNG")
    content = [
        {"type": "image_url", "image_url": {"url": data_url(out.getvalue())}},
        {"type": "text", "text": "Describe the picture."},
    ]
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": tokens, "temperature": 1.0}
    return {**body, "seed": number, "stream": True, "stream_options": {"include_usage": True}}


async def ask(client: httpx.AsyncClient, address: str, body: dict[str, Any]) -> dict[str, Any]:
    """One streamed answer: status, seconds to the first token and in all, tokens."""
    started, first, tokens = time.perf_counter(), None, 0
    async with client.stream("POST", f"{address}/v1/chat/completions", json=body) as told:
        if told.status_code != 200:
            await told.aread()
            return {"status": told.status_code}
        whole = False
        async for line in told.aiter_lines():
            if not line.startswith("data: "):
                continue
            if line == "data: [DONE]":
                whole = True
                break
            event = json.loads(line[6:])
            if first is None and any(choice["delta"].get("content") for choice in event["choices"]):
                first = time.perf_counter() - started
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    return {"status": 200 if whole else 0, "first": first, "all": time.perf_counter() - started, "tokens": tokens}


async def clients(address: str, bodies: AsyncIterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    limits = httpx.Limits(max_connections=count, max_keepalive_connections=count)

    async def work(client: httpx.AsyncClient) -> None:
        async for body in bodies:
            while (answer := await ask(client, address, body))["status"] == 429:
                await asyncio.sleep(0.2)
            told.append(answer)

    async with httpx.AsyncClient(timeout=300, limits=limits) as client:
        await asyncio.gather(*(work(client) for _ in range(count)))
    return told


async def _times(start: int, count: int) -> AsyncIterator[dict[str, Any]]:
    for number in range(start, start + count):
        yield question(number)


class Shared:
    """One asynchronous iterator for several tasks."""

    def __init__(self, inner: AsyncIterator[dict[str, Any]]) -> None:
        self.inner, self.lock = inner, asyncio.Lock()

    def __aiter__(self) -> Shared:
        return self

    async def __anext__(self) -> dict[str, Any]:
        async with self.lock:
            return await anext(self.inner)


def _summary(told: list[dict[str, Any]], seconds: float) -> str:
    firsts = sorted(one["first"] for one in told if one.get("first") is not None)
    tokens = sum(one.get("tokens", 0) for one in told)
    whole = sum(one["status"] == 200 for one in told)
    p50, p95 = (firsts[int(part * (len(firsts) - 1))] for part in (0.5, 0.95))
    return f"{whole} of {len(told)} | {p50:.2f} | {p95:.2f} | {tokens / seconds:.0f}"


class Slow:
    """Sockets that begin a request and never end it, opened again when the server lets them go."""

    def __init__(self, address: str, count: int) -> None:
        host, port = address.removeprefix("http://").split(":")
        self.place, self.count, self.stop = (host, int(port)), count, False
        self.sockets: list[socket.socket] = []

    def _open(self) -> socket.socket:
        made = socket.create_connection(self.place)
        made.setblocking(False)
        return made

    async def dawdle(self) -> None:
        """A byte now and then."""
        while not self.stop:
            while len(self.sockets) < self.count:
                self.sockets.append(self._open())
            for number, one in enumerate(self.sockets):
                try:
                    one.send(b"P" if random.random() < 0.2 else b"")
                except OSError:
                    one.close()
                    self.sockets[number] = self._open()
            await asyncio.sleep(0.5)
        for one in self.sockets:
            one.close()


def load(options: argparse.Namespace) -> list[str]:
    lines = ["## Load", "", "| | answered | p50, s | p95, s | tokens/s |", "|---|---|---|---|---|"]

    async def go(address: str, slow: Slow) -> tuple[list[dict[str, Any]], float]:
        started = time.perf_counter()
        beside = asyncio.create_task(slow.dawdle())
        told = await clients(address, Shared(_times(slow.count * 100_000, options.requests)), 64)
        slow.stop = True
        await beside
        return told, time.perf_counter() - started

    with server("--batch", "32", "--queue", "128") as (address, _):
        for count in (0, 200):
            told, seconds = asyncio.run(go(address, Slow(address, count)))
            name = f"64 clients, {options.requests} requests" + (f", beside {count} slow sockets" if count else "")
            lines.append(f"| {name} | {_summary(told, seconds)} |")
            print(lines[-1], flush=True)
    return lines


def resident(pid: int) -> int:
    """Bytes of a process that are in memory; 0 of one that has just ended."""
    with contextlib.suppress(OSError, StopIteration):
        text = Path(f"/proc/{pid}/status").read_text()
        return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024
    return 0


def hostile(options: argparse.Namespace) -> list[str]:
    files = [
        row
        for row in json.loads((options.folder / "manifest.json").read_text())["files"]
        if row["kind"] in ("image", "video")
    ]
    lines = ["## Hostile files", "", "| file | status | seconds | parent grows, MiB |", "|---|---|---|---|"]
    worst = Counter[str]()
    with server() as (address, process), httpx.Client(timeout=60) as client:
        for row in files * 2:  # the second time, what was first of its kind is not
            data = (options.folder / row["file"]).read_bytes()
            kind = f"{row['kind']}_url"
            content = [{"type": kind, kind: {"url": data_url(data)}}, {"type": "text", "text": "x"}]
            body = {"messages": [{"role": "user", "content": content}], "max_tokens": 1}
            before, started = resident(process.pid), time.perf_counter()
            status = client.post(f"{address}/v1/chat/completions", json=body).status_code
            seconds, grown = time.perf_counter() - started, (resident(process.pid) - before) / 2**20
            assert client.get(f"{address}/health").status_code == 200
            worst["seconds"] = max(worst["seconds"], seconds)  # type: ignore[assignment]
            worst["MiB"] = max(worst["MiB"], grown if status != 200 else 0)  # type: ignore[assignment]
            lines.append(f"| {row['file']} | {status} | {seconds:.2f} | {grown:.1f} |")
    lines.append(f"\nLongest {worst['seconds']:.2f} s; most growth for a refused file {worst['MiB']:.1f} MiB.")
    return lines


def live(options: argparse.Namespace) -> list[str]:
    lines = ["## One live video", ""]
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(64):
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(out, "JPEG")
        frames.append(out.getvalue())
    sizes, memory, times = [], [], []
    with server() as (address, process), httpx.Client(timeout=60) as client:
        name = client.post(f"{address}/v1/streams").json()["id"]
        for number in range(options.frames):
            started = time.perf_counter()
            told = client.post(
                f"{address}/v1/streams/{name}/frames", params={"timestamp": number / 10}, content=frames[number % 64]
            )
            times.append(time.perf_counter() - started)
            sizes.append(told.json()["bytes"])
            if number % 500 == 499:
                content = [{"type": "stream", "stream_id": name}, {"type": "text", "text": "What is shown?"}]
                body = {"messages": [{"role": "user", "content": content}], "max_tokens": 8}
                assert client.post(f"{address}/v1/chat/completions", json=body).status_code == 200
                memory.append(resident(process.pid) / 2**20)
    early, late = (statistics.median(times[part]) * 1000 for part in (slice(200, 400), slice(-200, None)))
    lines += [
        f"{options.frames} frames, a question every 500. State: at most {max(sizes) / 2**20:.2f} MiB, at the end "
        f"{sizes[-1] / 2**20:.2f}. The server's memory: {memory[0]:.0f} MiB after 500 frames, {memory[-1]:.0f} at the "
        f"end. A frame takes {early:.1f} ms at first and {late:.1f} ms at the end (median, over the socket)."
    ]
    return lines


def metric(lines: list[str], name: str) -> float:
    """A value of Prometheus' text."""
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


def fill(address: str) -> int:
    """Show videos until the cache of visual tokens is full; bytes that it then holds."""
    data, kept = (EXAMPLES / "digits.mp4").read_bytes(), 0.0
    with httpx.Client(timeout=60) as client:
        for number in range(5000):
            url = data_url(data + number.to_bytes(8, "big"))  # another file to the cache, the same to a decoder
            part = {"type": "video_url", "video_url": {"url": url}}
            body = {"messages": [{"role": "user", "content": [part]}], "max_tokens": 1, "pvc": {"frames": 72}}
            client.post(f"{address}/v1/chat/completions", json=body).raise_for_status()
            before, kept = kept, metric(client.get(f"{address}/metrics").text.splitlines(), "pvc_cache_bytes")
            if number and kept <= before:
                break
    return int(kept)


def tree(pid: int) -> list[int]:
    """A process and all that it started."""
    inner = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
    return [pid, *(one for child in inner for one in tree(int(child)))]


class Mixed:
    """What a client of the soak does: pictures, videos, texts, a live video of its own, leaving, hostile things."""

    def __init__(
        self, client: httpx.AsyncClient, address: str, lot: random.Random, files: list[tuple[str, bytes]]
    ) -> None:
        self.client, self.address, self.lot, self.files = client, address, lot, files
        self.counts = Counter[str]()
        self.stream: str | None = None
        self.time = 0.0

    async def once(self) -> None:
        """One thing, by chance."""
        kinds = {"picture": 55, "video": 10, "text": 10, "live": 15, "leaves": 5, "hostile": 5}
        kind = self.lot.choices(list(kinds), list(kinds.values()))[0]
        self.counts[f"{kind} {await getattr(self, '_' + kind)()}"] += 1

    async def _chat(self, content: Any, **more: Any) -> int:
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": 16, **more}
        return (await self.client.post(f"{self.address}/v1/chat/completions", json=body)).status_code

    async def _picture(self) -> int:
        return int((await ask(self.client, self.address, question(self.lot.randrange(10**6))))["status"])

    async def _video(self) -> int:
        url = data_url((EXAMPLES / self.lot.choice(("digits.mp4", "shapes.mp4"))).read_bytes())
        content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": "What happens?"}]
        return await self._chat(content, pvc={"frames": self.lot.randint(4, 100)})

    async def _text(self) -> int:
        return await self._chat("Tell me something. " * self.lot.randint(1, 50))

    async def _live(self) -> int:
        if self.stream is None:
            self.stream = (await self.client.post(f"{self.address}/v1/streams")).json()["id"]
        if self.lot.random() < 0.02:
            name, self.stream, self.time = self.stream, None, 0.0
            return (await self.client.delete(f"{self.address}/v1/streams/{name}")).status_code
        if self.lot.random() < 0.2 and self.time:
            return await self._chat([{"type": "stream", "stream_id": self.stream}, {"type": "text", "text": "What?"}])
        self.time += 0.1
        frame = (EXAMPLES / "sign.png").read_bytes()
        where = f"{self.address}/v1/streams/{self.stream}/frames"
        return (await self.client.post(where, params={"timestamp": self.time}, content=frame)).status_code

    async def _leaves(self) -> int:
        with contextlib.suppress(httpx.TimeoutException):
            seconds = self.lot.uniform(0.001, 0.2)
            await self.client.post(
                f"{self.address}/v1/chat/completions", json=question(self.lot.randrange(10**6)), timeout=seconds
            )
        return 0

    async def _hostile(self) -> int:
        bad = [b"", b"{", b"[" * 50_000, json.dumps({"messages": [], "n": 10**9}).encode()]
        if self.files and self.lot.random() < 0.7:
            kind, data = self.lot.choice(self.files)
            part = {"type": f"{kind}_url", f"{kind}_url": {"url": data_url(data)}}
            return await self._chat([part, {"type": "text", "text": "x"}])
        told = await self.client.post(f"{self.address}/v1/chat/completions", content=self.lot.choice(bad))
        return told.status_code


def hostile_files(folder: Path | None) -> list[tuple[str, bytes]]:
    if folder is None:
        return []
    rows = json.loads((folder / "manifest.json").read_text())["files"]
    return [(row["kind"], (folder / row["file"]).read_bytes()) for row in rows if row["kind"] in ("image", "video")]


def soak(options: argparse.Namespace) -> list[str]:
    files, memory, counts = hostile_files(options.folder), list[tuple[float, float]](), Counter[str]()
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pvc", "serve", "--batch", "16"]
        with started(command, "/ready", TMPDIR=temporary) as (address, process):

            def held() -> tuple[int, int, int]:
                processes = tree(process.pid)
                inner = sum(len(found) for _, _, found in os.walk(temporary))
                return len(processes), len(os.listdir(f"/proc/{process.pid}/fd")), inner

            async def work(mixed: Mixed, until: float) -> None:
                while time.perf_counter() < until:
                    await mixed.once()

            async def go() -> None:
                until = time.perf_counter() + options.minutes * 60
                async with httpx.AsyncClient(timeout=120) as client:
                    all_ = [Mixed(client, address, random.Random(place), files) for place in range(8)]
                    tasks = [asyncio.create_task(work(mixed, until)) for mixed in all_]
                    while time.perf_counter() < until:
                        own, *children = [resident(pid) / 2**20 for pid in tree(process.pid)]
                        memory.append((own, sum(children)))
                        if len(memory) % 12 == 1:
                            told = (await client.get(f"{address}/metrics")).text.splitlines()
                            kept = metric(told, "pvc_cache_bytes") / 2**20
                            print(
                                f"{len(memory) / 12:.0f} minutes, {own:.0f} and {sum(children):.0f} MiB, "
                                f"{kept:.0f} of them kept visual tokens",
                                flush=True,
                            )
                        await asyncio.sleep(5)
                    await asyncio.gather(*tasks)
                    for mixed in all_:
                        counts.update(mixed.counts)
                        if mixed.stream is not None:
                            await client.delete(f"{address}/v1/streams/{mixed.stream}")

            before = held()
            print(f"the cache is full with {fill(address) / 2**20:.0f} MiB", flush=True)
            asyncio.run(go())
            time.sleep(12)  # idle connections are let go
            after = held()
            metrics = httpx.get(f"{address}/metrics").text
    lines = [
        "## Soak",
        "",
        f"{options.minutes:g} minutes, 8 clients. What they did, and statuses: {dict(sorted(counts.items()))}.",
    ]
    for name, values in zip(("the server", "its children together"), zip(*memory, strict=True), strict=True):
        parts = [values[len(values) * q // 4 : len(values) * (q + 1) // 4] for q in range(4)]
        means = [statistics.mean(part) for part in parts]
        drift = 100 * (means[3] / means[1] - 1)
        told = ", ".join(f"{value:.0f}" for value in means)
        lines.append(f"Memory of {name} by quarter: {told} MiB; from the second to the last {drift:+.1f} %.")
    lines.append(f"Processes, descriptors and temporary files before {before}, after {after}.")
    lines += [
        line for line in metrics.splitlines() if line.startswith(("pvc_requests_open ", "pvc_decoders{", "pvc_streams"))
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["load", "hostile", "stream", "soak"])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    parts = {"load": load, "hostile": hostile, "stream": live, "soak": soak}
    lines = parts[options.what](options)
    print("\n".join(lines))
    if options.output is not None:
        with options.output.open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n\n")


if __name__ == "__main__":
    main()
