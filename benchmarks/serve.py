"""Measure the server under load: many clients, slow and hostile ones, a soak, a long live video.

    python benchmarks/serve.py load [--requests 2000]      64 streaming clients, then the same beside 200 slow sockets
    python benchmarks/serve.py hostile ../shared/hostile   every file: status, seconds, growth of the parent's memory
    python benchmarks/serve.py stream [--frames 10000]     one live video: memory after the window fills
    python benchmarks/serve.py soak [../shared/hostile]    half an hour of mixed load, some of it hostile: memory, files

Each mode starts `pvc serve` with the bundled model on two cores. Clients connect over sockets on the same machine and
share the cores with the server. Prints Markdown, and appends it to --output.
"""

from __future__ import annotations

import argparse
import asyncio
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
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from http_clients import (
    EXAMPLES,
    SharedIterator,
    ask,
    build_data_url,
    build_question,
    run_clients,
    run_pvc_server,
    run_server,
)
from PIL import Image


async def _iter_questions(start: int, count: int) -> AsyncIterator[dict[str, Any]]:
    for number in range(start, start + count):
        yield build_question(number)


def _format_summary(results: list[dict[str, Any]], seconds: float) -> str:
    firsts = sorted(result["first"] for result in results if result.get("first") is not None)
    tokens = sum(result.get("tokens", 0) for result in results)
    complete = sum(result["status"] == 200 for result in results)
    p50, p95 = (firsts[int(part * (len(firsts) - 1))] for part in (0.5, 0.95))
    return f"{complete} of {len(results)} | {p50:.2f} | {p95:.2f} | {tokens / seconds:.0f}"


class SlowSockets:
    """Sockets that begin a request and never end it. A socket that the server closes is opened again.

    Args:
        address: URL of the server.
        count: number of sockets.
    """

    def __init__(self, address: str, count: int) -> None:
        host, port = address.removeprefix("http://").split(":")
        self.server, self.count, self.should_stop = (host, int(port)), count, False
        self.sockets: list[socket.socket] = []

    def _open(self) -> socket.socket:
        opened = socket.create_connection(self.server)
        opened.setblocking(False)
        return opened

    async def run(self) -> None:
        """Send single bytes at random times until `should_stop` is set."""
        while not self.should_stop:
            while len(self.sockets) < self.count:
                self.sockets.append(self._open())
            for number, connection in enumerate(self.sockets):
                try:
                    connection.send(b"P" if random.random() < 0.2 else b"")
                except OSError:
                    connection.close()
                    self.sockets[number] = self._open()
            await asyncio.sleep(0.5)
        for connection in self.sockets:
            connection.close()


def measure_load(options: argparse.Namespace) -> list[str]:
    """Measure 64 streaming clients, alone and beside 200 slow sockets; returns Markdown lines."""
    lines = ["## Load", "", "| | answered | p50, s | p95, s | tokens/s |", "|---|---|---|---|---|"]

    async def run(address: str, slow: SlowSockets) -> tuple[list[dict[str, Any]], float]:
        started = time.perf_counter()
        task = asyncio.create_task(slow.run())
        questions = _iter_questions(slow.count * 100_000, options.requests)
        results = await run_clients(address, SharedIterator(questions), 64)
        slow.should_stop = True
        await task
        return results, time.perf_counter() - started

    with run_pvc_server("--batch", "32", "--queue", "128") as (address, _):
        for count in (0, 200):
            results, seconds = asyncio.run(run(address, SlowSockets(address, count)))
            name = f"64 clients, {options.requests} requests" + (f", beside {count} slow sockets" if count else "")
            lines.append(f"| {name} | {_format_summary(results, seconds)} |")
            print(lines[-1], flush=True)
    return lines


def read_resident_bytes(pid: int) -> int:
    """Read the resident memory of a process in bytes; 0 if it has ended."""
    with contextlib.suppress(OSError, StopIteration):
        text = Path(f"/proc/{pid}/status").read_text()
        return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024
    return 0


def measure_hostile_files(options: argparse.Namespace) -> list[str]:
    """Send every hostile file twice, and measure time and growth of memory; returns Markdown lines."""
    files = [
        entry
        for entry in json.loads((options.folder / "manifest.json").read_text())["files"]
        if entry["kind"] in ("image", "video")
    ]
    lines = ["## Hostile files", "", "| file | status | seconds | parent grows, MiB |", "|---|---|---|---|"]
    worst = Counter[str]()
    with run_pvc_server() as (address, process), httpx.Client(timeout=60) as client:
        for entry in files * 2:  # the second pass shows the costs without those of first use
            data = (options.folder / entry["file"]).read_bytes()
            kind = f"{entry['kind']}_url"
            content = [{"type": kind, kind: {"url": build_data_url(data)}}, {"type": "text", "text": "x"}]
            body = {"messages": [{"role": "user", "content": content}], "max_tokens": 1}
            before, started = read_resident_bytes(process.pid), time.perf_counter()
            status = client.post(f"{address}/v1/chat/completions", json=body).status_code
            seconds, growth = time.perf_counter() - started, (read_resident_bytes(process.pid) - before) / 2**20
            assert client.get(f"{address}/health").status_code == 200
            worst["seconds"] = max(worst["seconds"], seconds)  # type: ignore[assignment]
            worst["MiB"] = max(worst["MiB"], growth if status != 200 else 0)  # type: ignore[assignment]
            lines.append(f"| {entry['file']} | {status} | {seconds:.2f} | {growth:.1f} |")
    lines.append(f"\nLongest {worst['seconds']:.2f} s; maximum growth for a rejected file {worst['MiB']:.1f} MiB.")
    return lines


def measure_live(options: argparse.Namespace) -> list[str]:
    """Push frames to one live video, and measure time and memory; returns Markdown lines."""
    lines = ["## One live video", ""]
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(64):
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(out, "JPEG")
        frames.append(out.getvalue())
    sizes, memory, times = [], [], []
    with run_pvc_server() as (address, process), httpx.Client(timeout=60) as client:
        name = client.post(f"{address}/v1/streams").json()["id"]
        for number in range(options.frames):
            started = time.perf_counter()
            response = client.post(
                f"{address}/v1/streams/{name}/frames", params={"timestamp": number / 10}, content=frames[number % 64]
            )
            times.append(time.perf_counter() - started)
            sizes.append(response.json()["bytes"])
            if number % 500 == 499:
                content = [{"type": "stream", "stream_id": name}, {"type": "text", "text": "What is shown?"}]
                body = {"messages": [{"role": "user", "content": content}], "max_tokens": 8}
                assert client.post(f"{address}/v1/chat/completions", json=body).status_code == 200
                memory.append(read_resident_bytes(process.pid) / 2**20)
    early, late = (statistics.median(times[part]) * 1000 for part in (slice(200, 400), slice(-200, None)))
    lines += [
        f"{options.frames} frames, a question every 500. State: at most {max(sizes) / 2**20:.2f} MiB, at the end "
        f"{sizes[-1] / 2**20:.2f}. The server's memory: {memory[0]:.0f} MiB after 500 frames, {memory[-1]:.0f} at the "
        f"end. A frame takes {early:.1f} ms at first and {late:.1f} ms at the end (median, over the socket)."
    ]
    return lines


def read_metric(lines: list[str], name: str) -> float:
    """Read a value from the lines of Prometheus' text format.

    Args:
        lines: lines of `/metrics`.
        name: name of the metric.
    """
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


def fill_visual_cache(address: str) -> int:
    """Send videos until the visual cache is full; returns its size in bytes."""
    data, size = (EXAMPLES / "digits.mp4").read_bytes(), 0.0
    with httpx.Client(timeout=60) as client:
        for number in range(5000):
            # The added bytes make another file for the cache, and change nothing for the decoder.
            url = build_data_url(data + number.to_bytes(8, "big"))
            part = {"type": "video_url", "video_url": {"url": url}}
            body = {"messages": [{"role": "user", "content": [part]}], "max_tokens": 1, "pvc": {"frames": 72}}
            client.post(f"{address}/v1/chat/completions", json=body).raise_for_status()
            before, size = size, read_metric(client.get(f"{address}/metrics").text.splitlines(), "pvc_cache_bytes")
            if number and size <= before:
                break
    return int(size)


def list_process_tree(pid: int) -> list[int]:
    """List the ids of a process and all its descendants."""
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
    return [pid, *(descendant for child in children for descendant in list_process_tree(int(child)))]


class MixedClient:
    """A client of the soak: pictures, videos, texts, one live video, disconnects and hostile requests.

    Args:
        client: the HTTP client.
        address: URL of the server.
        rng: random numbers that choose the requests.
        files: hostile files, as kind ("image" or "video") and content.

    Attributes:
        counts: number of requests by kind and status.
        stream: id of the live video, or None.
    """

    def __init__(
        self, client: httpx.AsyncClient, address: str, rng: random.Random, files: list[tuple[str, bytes]]
    ) -> None:
        self.client, self.address, self.rng, self.files = client, address, rng, files
        self.counts = Counter[str]()
        self.stream: str | None = None
        self.time = 0.0

    async def run(self, end: float) -> None:
        """Send requests of random kinds until `time.perf_counter()` reaches `end`."""
        kinds = {"picture": 55, "video": 10, "text": 10, "live": 15, "leaves": 5, "hostile": 5}
        while time.perf_counter() < end:
            kind = self.rng.choices(list(kinds), list(kinds.values()))[0]
            self.counts[f"{kind} {await getattr(self, '_' + kind)()}"] += 1

    async def _chat(self, content: Any, **fields: Any) -> int:
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": 16, **fields}
        return (await self.client.post(f"{self.address}/v1/chat/completions", json=body)).status_code

    async def _picture(self) -> int:
        return int((await ask(self.client, self.address, build_question(self.rng.randrange(10**6))))["status"])

    async def _video(self) -> int:
        url = build_data_url((EXAMPLES / self.rng.choice(("digits.mp4", "shapes.mp4"))).read_bytes())
        content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": "What happens?"}]
        return await self._chat(content, pvc={"frames": self.rng.randint(4, 100)})

    async def _text(self) -> int:
        return await self._chat("Tell me something. " * self.rng.randint(1, 50))

    async def _live(self) -> int:
        if self.stream is None:
            self.stream = (await self.client.post(f"{self.address}/v1/streams")).json()["id"]
        if self.rng.random() < 0.02:
            name, self.stream, self.time = self.stream, None, 0.0
            return (await self.client.delete(f"{self.address}/v1/streams/{name}")).status_code
        if self.rng.random() < 0.2 and self.time:
            return await self._chat([{"type": "stream", "stream_id": self.stream}, {"type": "text", "text": "What?"}])
        self.time += 0.1
        frame = (EXAMPLES / "sign.png").read_bytes()
        where = f"{self.address}/v1/streams/{self.stream}/frames"
        return (await self.client.post(where, params={"timestamp": self.time}, content=frame)).status_code

    async def _leaves(self) -> int:
        with contextlib.suppress(httpx.TimeoutException):
            seconds = self.rng.uniform(0.001, 0.2)
            await self.client.post(
                f"{self.address}/v1/chat/completions", json=build_question(self.rng.randrange(10**6)), timeout=seconds
            )
        return 0

    async def _hostile(self) -> int:
        bad = [b"", b"{", b"[" * 50_000, json.dumps({"messages": [], "n": 10**9}).encode()]
        if self.files and self.rng.random() < 0.7:
            kind, data = self.rng.choice(self.files)
            part = {"type": f"{kind}_url", f"{kind}_url": {"url": build_data_url(data)}}
            return await self._chat([part, {"type": "text", "text": "x"}])
        response = await self.client.post(f"{self.address}/v1/chat/completions", content=self.rng.choice(bad))
        return response.status_code


def read_hostile_files(folder: Path | None) -> list[tuple[str, bytes]]:
    """Read the pictures and videos of a folder with a manifest, as kind and content; without a folder, none."""
    if folder is None:
        return []
    entries = json.loads((folder / "manifest.json").read_text())["files"]
    entries = [entry for entry in entries if entry["kind"] in ("image", "video")]
    return [(entry["kind"], (folder / entry["file"]).read_bytes()) for entry in entries]


def measure_soak(options: argparse.Namespace) -> list[str]:
    """Run mixed clients for a time, and measure memory, processes and files; returns Markdown lines."""
    files, memory, counts = read_hostile_files(options.folder), list[tuple[float, float]](), Counter[str]()
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pvc", "serve", "--batch", "16"]
        with run_server(command, "/ready", TMPDIR=temporary) as (address, process):

            def count_resources() -> tuple[int, int, int]:
                processes = list_process_tree(process.pid)
                temporary_files = sum(len(names) for _, _, names in os.walk(temporary))
                return len(processes), len(os.listdir(f"/proc/{process.pid}/fd")), temporary_files

            async def run() -> None:
                end = time.perf_counter() + options.minutes * 60
                async with httpx.AsyncClient(timeout=120) as client:
                    mixed_clients = [MixedClient(client, address, random.Random(seed), files) for seed in range(8)]
                    tasks = [asyncio.create_task(mixed.run(end)) for mixed in mixed_clients]
                    while time.perf_counter() < end:
                        sizes = [read_resident_bytes(pid) / 2**20 for pid in list_process_tree(process.pid)]
                        memory.append((sizes[0], sum(sizes[1:])))
                        if len(memory) % 12 == 1:
                            metric_lines = (await client.get(f"{address}/metrics")).text.splitlines()
                            cached = read_metric(metric_lines, "pvc_cache_bytes") / 2**20
                            print(
                                f"{len(memory) / 12:.0f} minutes, {sizes[0]:.0f} and {sum(sizes[1:]):.0f} MiB, "
                                f"{cached:.0f} of them cached visual tokens",
                                flush=True,
                            )
                        await asyncio.sleep(5)
                    await asyncio.gather(*tasks)
                    for mixed in mixed_clients:
                        counts.update(mixed.counts)
                        if mixed.stream is not None:
                            await client.delete(f"{address}/v1/streams/{mixed.stream}")

            before = count_resources()
            print(f"the visual cache is full with {fill_visual_cache(address) / 2**20:.0f} MiB", flush=True)
            asyncio.run(run())
            time.sleep(12)  # the server closes idle connections in this time
            after = count_resources()
            metrics = httpx.get(f"{address}/metrics").text
    lines = [
        "## Soak",
        "",
        f"{options.minutes:g} minutes, 8 clients. Kinds of requests with statuses: {dict(sorted(counts.items()))}.",
    ]
    for name, values in zip(("the server", "its workers together"), zip(*memory, strict=True), strict=True):
        parts = [values[len(values) * q // 4 : len(values) * (q + 1) // 4] for q in range(4)]
        means = [statistics.mean(part) for part in parts]
        drift = 100 * (means[3] / means[1] - 1)
        quarters = ", ".join(f"{value:.0f}" for value in means)
        lines.append(f"Memory of {name} by quarter: {quarters} MiB; from the second to the last {drift:+.1f} %.")
    lines.append(f"Processes, descriptors and temporary files before {before}, after {after}.")
    lines += [
        line for line in metrics.splitlines() if line.startswith(("pvc_requests_open ", "pvc_decoders{", "pvc_streams"))
    ]
    return lines


def main() -> None:
    """Run the requested measurement, and print or write its Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["load", "hostile", "stream", "soak"])
    parser.add_argument("folder", type=Path, nargs="?", help="hostile files with a manifest.json")
    parser.add_argument("--requests", type=int, default=2000, help="for load")
    parser.add_argument("--frames", type=int, default=10_000, help="for stream")
    parser.add_argument("--minutes", type=float, default=30, help="for soak")
    parser.add_argument("--output", type=Path, help="append the Markdown to this file")
    options = parser.parse_args()
    measurements = {
        "load": measure_load,
        "hostile": measure_hostile_files,
        "stream": measure_live,
        "soak": measure_soak,
    }
    lines = measurements[options.what](options)
    print("\n".join(lines))
    if options.output is not None:
        with options.output.open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n\n")


if __name__ == "__main__":
    main()
