"""Tokens a second of many clients at once: our batch, ours one at a time, and vLLM's server on the same checkpoint.

    python benchmarks/batching.py                             the bundled model's shape
    python benchmarks/batching.py --shape 0.5b                a language model in the shape of Qwen2.5-0.5B
    python benchmarks/batching.py --vllm .venv-vllm/bin/python --dtype bfloat16

Random weights: answers almost never end by themselves, so that all have --tokens tokens. Every request shows
a picture of its own. All servers run at once, and are asked one after the other; clients share their cores.
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

import serve
from training import NANO, SHAPES

from pvc.train.model_init import build_model, build_processor
from pvc.train.recipe import Recipe, load_recipe


def checkpoint(shape: str, directory: Path) -> None:
    """Random weights in the bundled model's shape, or with a larger language model behind its tower."""
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


async def _until(end: float, start: int, tokens: int) -> AsyncIterator[dict[str, Any]]:
    while time.perf_counter() < end:
        start += 1
        yield {**serve.question(start, tokens), "max_tokens": tokens}


async def rate(address: str, clients: int, seconds: float, start: int, tokens: int) -> tuple[float, float]:
    """Tokens a second, and the median of seconds to the first."""
    began = time.perf_counter()
    bodies = serve.Shared(_until(began + seconds, start, tokens))
    told = await serve.clients(address, bodies, clients)
    wrong = [one["status"] for one in told if one["status"] != 200]
    if wrong:
        raise SystemExit(f"{address}: answers with status {wrong}")
    firsts = [one["first"] for one in told if one["first"] is not None]
    return sum(one["tokens"] for one in told) / (time.perf_counter() - began), statistics.median(firsts or [0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["nano", "0.5b"], default="nano")
    parser.add_argument("--vllm", metavar="PYTHON", help="interpreter of an environment with vLLM and pvc")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--leave-out", nargs="*", default=[], choices=["batched", "one at a time"])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=15, help="in which requests are begun")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    told: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "pvc-nano"
        checkpoint(options.shape, directory)
        servers = {
            name: stack.enter_context(
                serve.server("--model", str(directory), "--batch", batch, "--dtype", options.dtype)
            )[0]
            for name, batch in (("batched", "32"), ("one at a time", "1"))
            if name not in options.leave_out
        }
        if options.vllm:
            command = [options.vllm, "-m", "vllm.entrypoints.openai.api_server", "--model", str(directory)]
            command += ["--dtype", options.dtype, "--max-model-len", "2048", "--max-num-seqs", "32"]
            own = {"VLLM_CPU_KVCACHE_SPACE": "2"}  # its own choice of cores: all but one, as ours
            servers["vLLM"] = stack.enter_context(serve.started(command, "/health", 600, **own))[0]
        start = 0
        for number in range(options.rounds + 1):
            for clients in options.clients if number else [2]:  # the first round warms up
                for name, address in servers.items():
                    start += 100_000
                    seconds = options.seconds if number else 2
                    found = asyncio.run(rate(address, clients, seconds, start, options.tokens))
                    print(f"{name}, {clients} clients: {found[0]:.1f} tokens/s, first {found[1]:.2f} s", flush=True)
                    if number:
                        told.setdefault((name, clients), []).append(found)
    names = list(servers)
    lines = [f"| clients | {', tokens/s (first token, s) | '.join(names)} |", "|---|" + "---|" * len(names)]
    for clients in options.clients:
        cells = []
        for name in names:
            speed, first = (statistics.median(values) for values in zip(*told[name, clients], strict=True))
            cells.append(f"{speed:.0f} ({first:.2f})")
        lines.append(f"| {clients} | {' | '.join(cells)} |")
    print("\n".join(lines))
    if options.output is not None:
        with options.output.open("a", encoding="utf-8") as file:
            file.write(f"{options.shape}, {options.dtype}, {options.tokens} tokens\n\n" + "\n".join(lines) + "\n\n")


if __name__ == "__main__":
    main()
