"""Measure tokens per second with concurrent clients: PVC batched, PVC one at a time, and vLLM on one checkpoint.

    python benchmarks/batching.py                             the bundled model's shape
    python benchmarks/batching.py --shape 0.5b                a language model in the shape of Qwen2.5-0.5B
    python benchmarks/batching.py --vllm .venv-vllm/bin/python --dtype bfloat16

Weights are random: answers almost never end early, so that all have --tokens tokens. Every request has a different
picture. All servers run during the whole benchmark and are measured one at a time; clients share their cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import http_clients
from training import NANO, SHAPES

from pvc.train.model_init import build_model, build_processor
from pvc.train.recipe import Recipe, load_recipe


def write_checkpoint(shape: str, directory: Path) -> None:
    """Write a checkpoint with random weights.

    Args:
        shape: "nano" for the bundled model's shape, "0.5b" for its tower with a larger language model.
        directory: the directory to write.
    """
    recipe = load_recipe(NANO)
    assert recipe.model is not None
    if shape != "nano":
        layers, width, heads, kv_heads, mlp, tied = SHAPES["InternVL3-1B"]
        text = {"model_type": "qwen2", "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
        text |= {"num_key_value_heads": kv_heads, "intermediate_size": mlp, "vocab_size": 151674}
        text |= {"tie_word_embeddings": tied, "max_position_embeddings": 32768}
        model = recipe.model.model_copy(update={"text": text})
        recipe = Recipe.model_validate(recipe.model_copy(update={"model": model}).model_dump())
    processor = build_processor(recipe)
    model = build_model(recipe, recipe.stages[-1], processor)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)


async def _iter_questions(end: float, start: int, tokens: int) -> AsyncIterator[dict[str, Any]]:
    """Yield questions with numbers above `start` until the clock reaches `end`."""
    while time.perf_counter() < end:
        start += 1
        yield {**http_clients.build_question(start, tokens), "max_tokens": tokens}


async def measure_rate(address: str, clients: int, seconds: float, start: int, tokens: int) -> tuple[float, float]:
    """Measure the throughput of a server.

    Args:
        address: URL of the server.
        clients: number of concurrent clients.
        seconds: time in which requests start.
        start: number of the first question; questions with different numbers have different pictures.
        tokens: tokens per answer.

    Returns:
        Tokens per second, and the median seconds to the first token.
    """
    began = time.perf_counter()
    bodies = http_clients.SharedIterator(_iter_questions(began + seconds, start, tokens))
    results = await http_clients.run_clients(address, bodies, clients)
    errors = [result["status"] for result in results if result["status"] != 200]
    if errors:
        raise SystemExit(f"{address}: responses with status {errors}")
    firsts = [result["first"] for result in results if result["first"] is not None]
    tokens_per_second = sum(result["tokens"] for result in results) / (time.perf_counter() - began)
    return tokens_per_second, statistics.median(firsts or [0])


def main() -> None:
    """Start the servers, measure them and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["nano", "0.5b"], default="nano")
    parser.add_argument("--vllm", metavar="PYTHON", help="interpreter of an environment with vLLM and pvc")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--leave-out", nargs="*", default=[], choices=["batched", "one at a time"])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=64, help="per answer")
    parser.add_argument("--seconds", type=float, default=15, help="time in which requests start")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, help="append the table to this file")
    options = parser.parse_args()
    rates: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "pvc-nano"
        write_checkpoint(options.shape, directory)
        servers = {
            name: stack.enter_context(
                http_clients.run_pvc_server("--model", str(directory), "--batch", batch, "--dtype", options.dtype)
            )[0]
            for name, batch in (("batched", "32"), ("one at a time", "1"))
            if name not in options.leave_out
        }
        if options.vllm:
            command = [options.vllm, "-m", "vllm.entrypoints.openai.api_server", "--model", str(directory)]
            command += ["--dtype", options.dtype, "--max-model-len", "2048", "--max-num-seqs", "32"]
            # vLLM chooses its cores itself: all but one, as PVC does.
            environment = {"VLLM_CPU_KVCACHE_SPACE": "2"}
            servers["vLLM"] = stack.enter_context(http_clients.run_server(command, "/health", 600, **environment))[0]
        start = 0
        for number in range(options.rounds + 1):
            for clients in options.clients if number else [2]:  # the first round warms up
                for name, address in servers.items():
                    start += 100_000
                    seconds = options.seconds if number else 2
                    speed, first = asyncio.run(measure_rate(address, clients, seconds, start, options.tokens))
                    print(f"{name}, {clients} clients: {speed:.1f} tokens/s, first {first:.2f} s", flush=True)
                    if number:
                        rates.setdefault((name, clients), []).append((speed, first))
    names = list(servers)
    lines = [f"| clients | {', tokens/s (first token, s) | '.join(names)} |", "|---|" + "---|" * len(names)]
    for clients in options.clients:
        cells = []
        for name in names:
            speed, first = (statistics.median(values) for values in zip(*rates[name, clients], strict=True))
            cells.append(f"{speed:.0f} ({first:.2f})")
        lines.append(f"| {clients} | {' | '.join(cells)} |")
    print("\n".join(lines))
    if options.output is not None:
        with options.output.open("a", encoding="utf-8") as file:
            file.write(f"{options.shape}, {options.dtype}, {options.tokens} tokens\n\n" + "\n".join(lines) + "\n\n")


if __name__ == "__main__":
    main()
