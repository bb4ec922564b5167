"""Measure encoded frames and generated tokens per second by batch and precision, with ratios to the first row.

    python benchmarks/throughput.py                    the bundled model, on the GPU if there is one
    python benchmarks/throughput.py --shape 300m       random weights in the shape of InternViT-300M, 448 px
    python benchmarks/throughput.py --quick            takes seconds on any CPU

Vision: videos of `--frames` frames, several clips in one call. Generation: greedy, with the bundled model and one
picture per sequence. Prints a Markdown table and, with `--json FILE`, writes the rows.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

import pvc
from pvc.lab.synthetic import make, messages_of
from pvc.model.config import PVCConfig, PVCVisionConfig
from pvc.model.modeling import PVCModel
from pvc.testing import tiny_config


def build_vision_model(shape: str, device: torch.device, dtype: torch.dtype) -> PVCModel:
    """Build the tower and compressor to measure; their language model is not run.

    Args:
        shape: "nano" for the bundled model, "300m" for random weights.
        device: device of the model.
        dtype: dtype of the model.
    """
    if shape == "nano":
        return pvc.load(device=str(device), dtype=dtype).model.model
    torch.manual_seed(0)
    tiny = tiny_config()
    config = PVCConfig(vision_config=PVCVisionConfig(attention_bias=True), text_config=tiny.text_config.to_dict())
    config._attn_implementation = "sdpa"
    return PVCModel(config).to(device=device, dtype=dtype).eval()


def measure_seconds(call: Callable[[], Any], device: torch.device, min_seconds: float) -> float:
    """Measure the median time of a call in seconds, after one call to warm up.

    Args:
        call: the call.
        device: device that it runs on.
        min_seconds: the call is repeated for at least this time.
    """
    call()
    times: list[float] = []
    while sum(times) < min_seconds or len(times) < 3:
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2]


def measure_vision(options: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Measure encoding for every dtype and number of clips.

    Args:
        options: the command line.
        device: device of the model.

    Returns:
        Rows of the table.
    """
    rows = []
    for dtype in options.dtypes:
        model = build_vision_model(options.shape, device, dtype)
        side = int(model.config.vision_config.image_size[0])
        for is_compiled in (False, True) if options.compile else (False,):
            encode = torch.compile(model.encode_clips) if is_compiled else model.encode_clips
            for clips in options.clips:
                pixels = torch.randn(clips * options.frames, 3, side, side, device=device, dtype=dtype)
                frames = [options.frames] * clips
                with torch.inference_mode():
                    seconds = measure_seconds(partial(encode, pixels, frames=frames), device, options.seconds)
                name = f"vision {options.shape}, {clips} clips of {options.frames}"
                row = {"what": name, "dtype": str(dtype)[6:], "compiled": is_compiled}
                rows.append({**row, "per_second": clips * options.frames / seconds, "unit": "frames"})
                if device.type == "cuda":
                    rows[-1]["peak_MiB"] = torch.cuda.max_memory_allocated() // 2**20
                    torch.cuda.reset_peak_memory_stats()
    return rows


def measure_generation(options: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Measure greedy generation for every dtype and batch size.

    Args:
        options: the command line.
        device: device of the model.

    Returns:
        Rows of the table.
    """
    rows = []
    for dtype in options.dtypes:
        engine = pvc.load(device=str(device), dtype=dtype)
        for batch in options.batches:
            samples = [make("shape", seed, size=64, split="test") for seed in range(batch)]
            chats = [messages_of(sample, answers=False) for sample in samples]
            inputs = engine.processor.apply_chat_template(chats, tokenize=True, add_generation_prompt=True).to(device)
            tokens = options.new_tokens
            settings = {"do_sample": False, "min_new_tokens": tokens, "max_new_tokens": tokens}
            generate = partial(engine.model.generate, **inputs, **settings)
            with torch.inference_mode():
                seconds = measure_seconds(generate, device, options.seconds)
            row = {"what": f"generate, batch {batch}, {tokens} tokens each", "dtype": str(dtype)[6:]}
            rows.append({**row, "compiled": False, "per_second": batch * tokens / seconds, "unit": "tokens"})
    return rows


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("nano", "300m"), default="nano")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--clips", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 128])
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3.0, help="minimum time of each measurement")
    parser.add_argument("--compile", action="store_true", help="also measure with torch.compile")
    parser.add_argument("--no-generation", action="store_true")
    parser.add_argument("--quick", action="store_true", help="few and small batches, half a second each")
    parser.add_argument("--json", type=Path, help="write the rows into this file")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options.dtypes = [torch.bfloat16, torch.float32] if device.type == "cuda" else [torch.float32]
    if options.quick:
        options.frames, options.clips, options.batches = 4, [1, 2], [1, 4]
        options.new_tokens, options.seconds = 8, 0.5
    rows = measure_vision(options, device)
    if not options.no_generation:
        rows += measure_generation(options, device)
    first: dict[str, float] = {}
    machine = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{machine}; torch {torch.__version__}, Python {platform.python_version()}\n")
    print("| what | dtype | compiled | per second | ratio |")
    print("|---|---|---|---|---|")
    for row in rows:
        row["ratio"] = row["per_second"] / first.setdefault(row["unit"], row["per_second"])
        print(
            f"| {row['what']} | {row['dtype']} | {'yes' if row['compiled'] else 'no'} | "
            f"{row['per_second']:,.0f} {row['unit']} | {row['ratio']:.2f} |"
        )
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
