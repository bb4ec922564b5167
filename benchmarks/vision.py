"""The vision path against the published way with the same weights, and against what the machine can multiply.

    python benchmarks/vision.py                                  the bundled model, 64 frames
    python benchmarks/vision.py --shape 300m --frames 8 --pairs 3    random weights in the shape of InternViT-300M
    python benchmarks/vision.py --shape slice --parts memory     four of its layers: peak memory of a long video

Parts: `image` (four steps; beside it the ratio that the layer counts allow), `video`, `repeats` (every frame shown
twice), `efficiency` (FLOP/s over those of the plain chain of the same matrix products), `memory` (256 frames, window
16, each way in a process of its own). All are ratios of interleaved pairs inside this run: how many times faster, or
which part of the memory, ours is. `benchmarks/published.py` is what it is measured against.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from published import Published

import pvc
from pvc.checkpoint.loading import should_use_matmul
from pvc.engine.encode import FRAMES_PER_CHUNK
from pvc.model.attention import MATMUL
from pvc.model.config import PVCConfig, PVCVisionConfig
from pvc.model.linear import ZeroFloat32Linear, ZeroLinear
from pvc.model.modeling import PVCModel
from pvc.testing import tiny_config

PARTS = ("image", "video", "repeats", "efficiency", "memory")
STEPS, WINDOW, LONG = 4, 16, 256
LAYERS = {"300m": (24, 8), "slice": (4, 2)}


def build(shape: str, dtype: torch.dtype, window: int | None = None) -> PVCModel:
    """Tower and compressor; the language model behind them is not run."""
    if shape == "nano":
        model = pvc.load(device="cpu", dtype=dtype).model.model
        model.vision_tower.config.temporal_window = window
        return model
    torch.manual_seed(0)
    layers, temporal = LAYERS[shape]
    vision = PVCVisionConfig(
        attention_bias=True, num_hidden_layers=layers, num_temporal_layers=temporal, temporal_window=window
    )
    tiny = tiny_config()
    config = PVCConfig(
        vision_config=vision,
        text_config={**tiny.text_config.to_dict(), "hidden_size": 896},
        image_token_id=tiny.image_token_id,
        video_token_id=tiny.video_token_id,
    )
    config._attn_implementation = "sdpa"
    model = PVCModel(config).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (ZeroLinear, ZeroFloat32Linear)):  # an identity could be skipped
                module.weight.normal_(std=0.02)
    model = model.to(dtype)
    if should_use_matmul(torch.device("cpu"), dtype):
        model.vision_tower.set_attn_implementation(MATMUL)
    return model


class FusedAttention:
    """The published way's attention for spatial layers: torch's own, whatever ours takes."""

    def __init__(self, model: PVCModel) -> None:
        self.tower = model.vision_tower

    def __enter__(self) -> None:
        self.own = self.tower.config._attn_implementation
        self.tower.set_attn_implementation("sdpa")

    def __exit__(self, *error: Any) -> None:
        self.tower.set_attn_implementation(self.own)


def timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def paired(ours: Callable[[], Any], theirs: Callable[[], Any], pairs: int) -> tuple[list[float], float, float]:
    """Ratios theirs / ours of interleaved runs, and the median seconds of both."""
    ours(), theirs()
    times = []
    for number in range(pairs):
        first, second = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        one, two = timed(first), timed(second)
        times.append((one, two) if number % 2 == 0 else (two, one))
    ratios = [their / our for our, their in times]
    return ratios, *(statistics.median(column) for column in zip(*times, strict=True))


def row(name: str, dtype: torch.dtype, ratios: Sequence[float], ours: float, theirs: float, note: str = "") -> None:
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    kind = str(dtype).removeprefix("torch.")
    print(
        f"| {name} | {kind} | {statistics.median(ratios):.2f} | {spread} | {ours:.3g} | {theirs:.3g} | {note} |",
        flush=True,
    )


def compare(model: PVCModel, part: str, frames: int, pairs: int, dtype: torch.dtype) -> None:
    """One of the parts that are measured against the published way."""
    published, side = Published(model), model.config.vision_config.image_size[0]
    pixels = torch.randn(1 if part == "image" else frames, 3, side, side, generator=torch.manual_seed(1)).to(dtype)
    if part == "image":
        steps, shown = STEPS, pixels.repeat_interleave(STEPS, 0)
        options: dict[str, Any] = {"steps": [STEPS]}
    elif part == "video":
        steps, shown, options = frames, pixels, {"frames": [frames]}
    else:
        pixels = pixels[: frames // 2]
        steps, shown = frames, pixels.repeat_interleave(2, 0)
        options = {"frames": [len(pixels)], "steps": [frames], "repeats": [2] * len(pixels)}

    @torch.inference_mode()
    def ours() -> torch.Tensor:
        return model.encode_clips(pixels, **options)[0][0]

    def theirs() -> torch.Tensor:
        with FusedAttention(model):
            return published.encode(shown, steps)

    gap = float((ours().float() - theirs().float()).abs().max() / theirs().float().abs().max())
    note = f"tokens differ by {gap:.1e}"
    if part == "image":
        note += f"; layer counts allow {allowed(model):.2f}"
    row(f"{part}, {steps} {'steps' if part == 'image' else 'frames'}", dtype, *paired(ours, theirs, pairs), note)


def allowed(model: PVCModel) -> float:
    """What running lower layers once can bring: operations of four copies through everything over ours."""
    config = model.config.vision_config
    layer = layer_products(config, 1, False)
    extra = layer_products(config, 1, True) - layer
    lower, upper = config.first_temporal_layer, config.num_temporal_layers or 0
    copies = STEPS * (lower * layer + upper * (layer + extra))
    return copies / (lower * layer + STEPS * upper * (layer + extra))


def layer_products(config: PVCVisionConfig, rows: int, temporal: bool) -> float:
    """Floating-point operations of the matrix products of a layer; temporal attention's own are left out (small)."""
    positions, width = 1 + config.grid**2, config.hidden_size
    linear = 2 * positions * width * (4 * width + 2 * config.intermediate_size)
    attention = 4 * positions**2 * width
    return rows * (linear + attention + (8 * positions * width**2 if temporal else 0))


def efficiency(model: PVCModel, frames: int, pairs: int, dtype: torch.dtype) -> None:
    """Our tower on a video against nothing but its matrix products, one after another, with its own weights."""
    config, tower = model.config.vision_config, model.vision_tower
    side, positions, width = config.image_size[0], 1 + config.grid**2, config.hidden_size
    heads, size = config.num_attention_heads, width // config.num_attention_heads
    pixels = torch.randn(frames, 3, side, side, generator=torch.manual_seed(1)).to(dtype)
    hidden = torch.randn(frames * positions, width).to(dtype)
    inner = torch.randn(frames * positions, config.intermediate_size).to(dtype)
    query = torch.randn(frames * heads, positions, size).to(dtype)
    products = []
    for layer in tower.encoder.layer:
        blocks = [layer.attention] + ([layer.temporal.attention] if layer.temporal is not None else [])
        for block in blocks:
            products += [(hidden, getattr(block, f"{name}_proj").weight) for name in "qkv"]
            products.append((hidden, block.projection_layer.weight))
        products += [(hidden, layer.mlp.fc1.weight), (inner, layer.mlp.fc2.weight)]
    scores = torch.randn(heads, positions, positions).to(dtype)

    @torch.inference_mode()
    def chain() -> None:
        for left, right in products:
            torch.nn.functional.linear(left, right)
        for _ in tower.encoder.layer:
            for part in query.split(heads):
                torch.bmm(part, part.transpose(1, 2))
                torch.bmm(scores, part)

    @torch.inference_mode()
    def ours() -> None:
        tower(pixels, frames=[frames])

    ratios, own, theirs = paired(ours, chain, pairs)
    lower, upper = config.first_temporal_layer, config.num_temporal_layers or 0
    total = lower * layer_products(config, frames, False) + upper * layer_products(config, frames, True)
    note = f"{total / own / 1e9:.0f} of {total / theirs / 1e9:.0f} GFLOP/s"
    row(f"efficiency, {frames} frames", dtype, ratios, own, theirs, note)


def memory(shape: str, dtype: torch.dtype) -> None:
    """Peak memory over the loaded model of a long video, each way in a process of its own."""
    peaks = []
    for way in ("ours", "published"):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            peaks.append(pool.submit(_peak, shape, dtype, way, torch.get_num_threads()).result())
    ratio = peaks[0] / peaks[1]
    kind = str(dtype).removeprefix("torch.")
    told = " | ".join(f"{peak / 2**20:.0f} MiB" for peak in peaks)
    print(f"| memory, {LONG} frames, window {WINDOW} | {kind} | {ratio:.2f} | | {told} | |", flush=True)


def _peak(shape: str, dtype: torch.dtype, way: str, threads: int) -> int:
    torch.set_num_threads(threads)
    model = build(shape, dtype, WINDOW if way == "ours" else None)
    side = model.config.vision_config.image_size[0]
    frames = torch.randint(0, 255, (LONG, 3, side, side), dtype=torch.uint8)
    status = Path("/proc/self/status")

    def kilobytes(name: str) -> int:
        return int(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith(name)))

    before = kilobytes("VmRSS:")
    Path("/proc/self/clear_refs").write_text("5")
    with torch.inference_mode():
        if way == "ours":
            cache, kept = None, []
            for part in frames.split(FRAMES_PER_CHUNK):
                tokens, cache = model.encode_frames(part.to(dtype) / 255, cache)
                kept.append(tokens)
            torch.cat(kept)
        else:
            with FusedAttention(model):
                Published(model).encode(frames.to(dtype) / 255, LONG)
    return 1024 * (kilobytes("VmHWM:") - before)


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("nano", *LAYERS), default="nano")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print(f"{chosen.shape}, {chosen.threads} threads, torch {torch.__version__}, {chosen.pairs} pairs\n")
    print("| part | dtype | ratio | spread | ours, s | other, s | |\n|---|---|---|---|---|---|---|")
    for name in chosen.dtypes:
        dtype = getattr(torch, name)
        model = build(chosen.shape, dtype)
        for part in chosen.parts:
            if part == "memory":
                memory(chosen.shape, dtype)
            elif part == "efficiency":
                efficiency(model, min(chosen.frames, 4), chosen.pairs, dtype)
            else:
                compare(model, part, chosen.frames, chosen.pairs, dtype)


if __name__ == "__main__":
    main()
