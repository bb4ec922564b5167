"""Measure the time to the first token of a video, against InternVL: 64 tokens per frame instead of 256.

    python benchmarks/prefill.py                      InternVL3-1B's shape, random weights, bf16
    python benchmarks/prefill.py --shape nano         takes seconds on any machine

Measures in turns, in one run: tower and compressor of PVC and of the base (no temporal layers, ratio 1/2) on
`--vision-frames` frames, and the prefill of the language model with the tokens of `--frames` frames and the text of
their timestamps. The time to the first token is the sum, with the vision time scaled to all frames. It is linear in
the frames except for a part of temporal attention. For larger models the times are calculated from the number of
operations and the measured rates.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from training import SHAPES, VISION
from transformers import AutoModel, DynamicCache, Qwen2Config

from pvc.model.config import PVCConfig
from pvc.model.modeling import PVCModel
from pvc.testing import tiny_config

TEXT = 9  # text tokens of a frame: "12.5s: <img>" and the end of the image


def build_tower(temporal: int, ratio: float, options: argparse.Namespace) -> PVCModel:
    """Build tower and compressor, with a language model too small to affect the times.

    Args:
        temporal: number of temporal layers.
        ratio: downsample ratio.
        options: the command line.
    """
    torch.manual_seed(0)
    vision = (
        dict(VISION)
        if options.shape == "1b"
        else {**VISION, "image_size": 112, "num_hidden_layers": 6, "hidden_size": 128}
    )
    if options.shape != "1b":
        vision |= {"num_attention_heads": 4, "intermediate_size": 512}
    vision["num_temporal_layers"] = temporal
    text = tiny_config().text_config.to_dict() | {"hidden_size": get_text_width(options)}
    config = PVCConfig(
        vision_config=vision, text_config=text, image_token_id=0, video_token_id=1, downsample_ratio=ratio
    )
    config._attn_implementation = "sdpa"
    return PVCModel(config).to(options.dtype).eval()


def get_text_width(options: argparse.Namespace) -> int:
    """Return the width of the language model."""
    return SHAPES["InternVL3-1B"][1] if options.shape == "1b" else 128


def build_language_model(options: argparse.Namespace) -> torch.nn.Module:
    """Build the language model without its output layer, with random weights."""
    layers, hidden, heads, kv_heads, mlp, _ = (
        SHAPES["InternVL3-1B"] if options.shape == "1b" else (4, 128, 4, 2, 512, True)
    )
    config = Qwen2Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=mlp,
        vocab_size=1000,  # embedding and output layer take little time for a single token
        max_position_embeddings=32768,
    )
    config._attn_implementation = "sdpa"
    return AutoModel.from_config(config).to(options.dtype).eval()


def measure_seconds(call: Callable[[], object]) -> float:
    """Measure the time of one call in seconds."""
    started = time.perf_counter()
    with torch.inference_mode():
        call()
    return time.perf_counter() - started


def count_operations(shape: tuple[int, int, int, int, int, bool], tokens: int) -> float:
    """Count the floating-point operations of a prefill: matrix products and causal attention.

    Args:
        shape: a value of SHAPES.
        tokens: length of the prompt.
    """
    layers, hidden, heads, kv_heads, mlp, _ = shape
    head = hidden // heads
    linear = 2 * (hidden * hidden * 2 + 2 * hidden * kv_heads * head + 3 * hidden * mlp)
    return layers * (tokens * linear + 2 * 2 * tokens * tokens * hidden / 2)


def main() -> None:
    """Measure in turns and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["1b", "nano"], default="1b")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--vision-frames", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    options = parser.parse_args()
    options.dtype = getattr(torch, options.dtype)
    torch.set_num_threads(options.threads)
    temporal = VISION["num_temporal_layers"] if options.shape == "1b" else 2
    ours, base = build_tower(temporal, 0.25, options), build_tower(0, 0.5, options)
    model = build_language_model(options)
    side = ours.config.vision_config.image_size[0]
    pixels = torch.randn(options.vision_frames, 3, side, side, dtype=options.dtype)
    per_frame = {"ours": ours.config.tokens_per_frame, "base": base.config.tokens_per_frame}
    lengths = {name: options.frames * (count + TEXT) for name, count in per_frame.items()}

    def prefill(tokens: int) -> object:
        return model(
            inputs_embeds=torch.randn(1, tokens, model.config.hidden_size, dtype=options.dtype),
            past_key_values=DynamicCache(config=model.config),
        )

    print(
        f"{options.shape}, {options.dtype}, {options.threads} threads; tokens per frame {per_frame}, "
        f"per prompt {lengths}",
        flush=True,
    )
    scale = options.frames / options.vision_frames
    rows = []
    for _ in range(options.pairs):
        vision = measure_seconds(lambda: ours.get_video_features(pixels)) * scale
        base_vision = measure_seconds(lambda: base.get_video_features(pixels)) * scale
        text = measure_seconds(lambda: prefill(lengths["ours"]))
        base_text = measure_seconds(lambda: prefill(lengths["base"]))
        rows.append((vision, base_vision, text, base_text))
        print(f"encode {vision:.1f} and {base_vision:.1f} s, prefill {text:.1f} and {base_text:.1f} s", flush=True)
    vision, base_vision, text, base_text = (statistics.median(column) for column in zip(*rows, strict=True))
    first = (base_vision + base_text) / (vision + text)
    print(f"prefill {base_text / text:.2f} times, first token {first:.2f} times as fast as the base")
    if options.shape == "1b":
        rates = {
            name: count_operations(SHAPES["InternVL3-1B"], lengths[name]) / seconds
            for name, seconds in (("ours", text), ("base", base_text))
        }
        for name, shape in list(SHAPES.items())[1:]:
            text, base_text = (count_operations(shape, lengths[kind]) / rate for kind, rate in rates.items())
            first = (base_vision + base_text) / (vision + text)
            print(f"{name}, calculated: prefill {base_text / text:.2f}, first token {first:.2f}")


if __name__ == "__main__":
    main()
