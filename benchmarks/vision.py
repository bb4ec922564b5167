"""Measure the vision path against the published method with the same weights, and against plain matrix products.

    python benchmarks/vision.py                                      the bundled model, 64 frames
    python benchmarks/vision.py --shape 300m --frames 8 --pairs 3    random weights in the shape of InternViT-300M
    python benchmarks/vision.py --shape slice --parts memory         four of its layers: peak memory of a long video

Parts: `image` (four steps, with the ratio that the layer counts allow), `video`, `repeats` (every frame has two
steps), `efficiency` (FLOP/s relative to the same matrix products alone), `memory` (256 frames, window 16, each method
in a separate process). Results are ratios of interleaved pairs within one run: the speed-up, or the fraction of memory.
The baseline is `benchmarks/published.py`.
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
    """Build tower and compressor; their language model is not run.

    Args:
        shape: "nano" for the bundled model, or a key of LAYERS for random weights.
        dtype: dtype of the model.
        window: temporal window, or None.
    """
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
            if isinstance(module, (ZeroLinear, ZeroFloat32Linear)):  # blocks that are the identity would be skipped
                module.weight.normal_(std=0.02)
    model = model.to(dtype)
    if should_use_matmul(torch.device("cpu"), dtype):
        model.vision_tower.set_attn_implementation(MATMUL)
    return model


class FusedAttention:
    """A context in which the spatial layers of a model use torch's fused attention, for the published method.

    Args:
        model: the model.
    """

    def __init__(self, model: PVCModel) -> None:
        self.tower = model.vision_tower

    def __enter__(self) -> None:
        self.implementation = self.tower.config._attn_implementation
        self.tower.set_attn_implementation("sdpa")

    def __exit__(self, *error: Any) -> None:
        self.tower.set_attn_implementation(self.implementation)


def measure_seconds(call: Callable[[], Any]) -> float:
    """Measure the time of one call in seconds."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure_pairs(ours: Callable[[], Any], theirs: Callable[[], Any], pairs: int) -> tuple[list[float], float, float]:
    """Measure two calls in interleaved pairs.

    Args:
        ours: a call of PVC.
        theirs: a call of the baseline.
        pairs: number of pairs, after one to warm up.

    Returns:
        Ratios theirs / ours, and the median seconds of both.
    """
    ours(), theirs()
    times = []
    for number in range(pairs):
        first, second = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        first_seconds, second_seconds = measure_seconds(first), measure_seconds(second)
        times.append((first_seconds, second_seconds) if number % 2 == 0 else (second_seconds, first_seconds))
    ratios = [their / our for our, their in times]
    return ratios, *(statistics.median(column) for column in zip(*times, strict=True))


def print_row(
    name: str, dtype: torch.dtype, ratios: Sequence[float], ours: float, theirs: float, note: str = ""
) -> None:
    """Print a row of the table.

    Args:
        name: name of the part.
        dtype: dtype of the model.
        ratios: ratios of all pairs.
        ours: median seconds of PVC.
        theirs: median seconds of the baseline.
        note: text of the last column.
    """
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    kind = str(dtype).removeprefix("torch.")
    print(
        f"| {name} | {kind} | {statistics.median(ratios):.2f} | {spread} | {ours:.3g} | {theirs:.3g} | {note} |",
        flush=True,
    )


def compare(model: PVCModel, part: str, frames: int, pairs: int, dtype: torch.dtype) -> None:
    """Measure a part against the published method, and print its row.

    Args:
        model: the model.
        part: "image", "video" or "repeats".
        frames: frames of a video.
        pairs: number of interleaved pairs.
        dtype: dtype of the model.
    """
    published, side = Published(model), model.config.vision_config.image_size[0]
    pixels = torch.randn(1 if part == "image" else frames, 3, side, side, generator=torch.manual_seed(1)).to(dtype)
    if part == "image":
        steps, copies = STEPS, pixels.repeat_interleave(STEPS, 0)
        options: dict[str, Any] = {"steps": [STEPS]}
    elif part == "video":
        steps, copies, options = frames, pixels, {"frames": [frames]}
    else:
        pixels = pixels[: frames // 2]
        steps, copies = frames, pixels.repeat_interleave(2, 0)
        options = {"frames": [len(pixels)], "steps": [frames], "repeats": [2] * len(pixels)}

    @torch.inference_mode()
    def ours() -> torch.Tensor:
        return model.encode_clips(pixels, **options)[0][0]

    def theirs() -> torch.Tensor:
        with FusedAttention(model):
            return published.encode(copies, steps)

    gap = float((ours().float() - theirs().float()).abs().max() / theirs().float().abs().max())
    note = f"tokens differ by {gap:.1e}"
    if part == "image":
        note += f"; layer counts allow {compute_max_speedup(model):.2f}"
    name = f"{part}, {steps} {'steps' if part == 'image' else 'frames'}"
    print_row(name, dtype, *measure_pairs(ours, theirs, pairs), note)


def compute_max_speedup(model: PVCModel) -> float:
    """Compute the speed-up for pictures that running the lower layers once allows, as a ratio of operations."""
    config = model.config.vision_config
    layer = count_operations(config, 1, False)
    extra = count_operations(config, 1, True) - layer
    lower, upper = config.first_temporal_layer, config.num_temporal_layers or 0
    copies = STEPS * (lower * layer + upper * (layer + extra))
    return copies / (lower * layer + STEPS * upper * (layer + extra))


def count_operations(config: PVCVisionConfig, rows: int, temporal: bool) -> float:
    """Count the floating-point operations of a layer's matrix products, without the small ones of temporal attention.

    Args:
        config: configuration of the tower.
        rows: number of frames or steps.
        temporal: whether the layer has a temporal block.
    """
    positions, width = 1 + config.grid**2, config.hidden_size
    linear = 2 * positions * width * (4 * width + 2 * config.intermediate_size)
    attention = 4 * positions**2 * width
    return rows * (linear + attention + (8 * positions * width**2 if temporal else 0))


def measure_efficiency(model: PVCModel, frames: int, pairs: int, dtype: torch.dtype) -> None:
    """Measure the tower on a video against its matrix products alone, with the same weights, and print the row.

    Args:
        model: the model.
        frames: frames of the video.
        pairs: number of interleaved pairs.
        dtype: dtype of the model.
    """
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

    ratios, ours_seconds, chain_seconds = measure_pairs(ours, chain, pairs)
    lower, upper = config.first_temporal_layer, config.num_temporal_layers or 0
    total = lower * count_operations(config, frames, False) + upper * count_operations(config, frames, True)
    note = f"{total / ours_seconds / 1e9:.0f} of {total / chain_seconds / 1e9:.0f} GFLOP/s"
    print_row(f"efficiency, {frames} frames", dtype, ratios, ours_seconds, chain_seconds, note)


def measure_memory(shape: str, dtype: torch.dtype) -> None:
    """Measure the peak memory for a long video, above that of the loaded model, and print the row.

    Args:
        shape: as in `build`.
        dtype: dtype of the model.
    """
    peaks = []
    for method in ("ours", "published"):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            peaks.append(pool.submit(_measure_peak, shape, dtype, method, torch.get_num_threads()).result())
    ratio = peaks[0] / peaks[1]
    kind = str(dtype).removeprefix("torch.")
    sizes = " | ".join(f"{peak / 2**20:.0f} MiB" for peak in peaks)
    print(f"| memory, {LONG} frames, window {WINDOW} | {kind} | {ratio:.2f} | | {sizes} | |", flush=True)


def _measure_peak(shape: str, dtype: torch.dtype, method: str, threads: int) -> int:
    """Measure the peak memory of one method in this process, in bytes."""
    torch.set_num_threads(threads)
    model = build(shape, dtype, WINDOW if method == "ours" else None)
    side = model.config.vision_config.image_size[0]
    frames = torch.randint(0, 255, (LONG, 3, side, side), dtype=torch.uint8)
    status = Path("/proc/self/status")

    def read_kilobytes(name: str) -> int:
        return int(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith(name)))

    before = read_kilobytes("VmRSS:")
    Path("/proc/self/clear_refs").write_text("5")
    with torch.inference_mode():
        if method == "ours":
            cache, chunks = None, []
            for chunk in frames.split(FRAMES_PER_CHUNK):
                tokens, cache = model.encode_frames(chunk.to(dtype) / 255, cache)
                chunks.append(tokens)
            torch.cat(chunks)
        else:
            with FusedAttention(model):
                Published(model).encode(frames.to(dtype) / 255, LONG)
    return 1024 * (read_kilobytes("VmHWM:") - before)


def main() -> None:
    """Build the models, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("nano", *LAYERS), default="nano")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.shape}, {options.threads} threads, torch {torch.__version__}, {options.pairs} pairs\n")
    print("| part | dtype | ratio | spread | ours, s | other, s | |\n|---|---|---|---|---|---|---|")
    for name in options.dtypes:
        dtype = getattr(torch, name)
        model = build(options.shape, dtype)
        for part in options.parts:
            if part == "memory":
                measure_memory(options.shape, dtype)
            elif part == "efficiency":
                measure_efficiency(model, min(options.frames, 4), options.pairs, dtype)
            else:
                compare(model, part, options.frames, options.pairs, dtype)


if __name__ == "__main__":
    main()
