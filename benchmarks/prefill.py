"""What a video costs until its first token, against InternVL's own recipe: 64 tokens a frame instead of 256.

    python benchmarks/prefill.py                      InternVL3-1B's shape, random weights, bf16
    python benchmarks/prefill.py --shape nano         seconds on any machine

Measured in one run, in turns: the tower and compressor of PVC and of the base (no temporal layers, ratio 1/2) on
`--vision-frames` frames, and the prefill of the language model with the tokens of `--frames` frames, the text of
timestamps included. The first token is the sum of both, the vision's time scaled to all frames (it is linear in them
but for temporal attention, of which a share is computed). For larger models the same is computed from the operations
that are needed, at the rates that were measured here.
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

TEXT = 9  # tokens of a frame's announcement: "12.5s: <img>" and its end


def tower(temporal: int, ratio: float, options: argparse.Namespace) -> PVCModel:
    """Tower and compressor, with a language model too small to matter."""
    torch.manual_seed(0)
    vision = (
        dict(VISION)
        if options.shape == "1b"
        else {**VISION, "image_size": 112, "num_hidden_layers": 6, "hidden_size": 128}
    )
    if options.shape != "1b":
        vision |= {"num_attention_heads": 4, "intermediate_size": 512}
    vision["num_temporal_layers"] = temporal
    text = tiny_config().text_config.to_dict() | {"hidden_size": width(options)}
    config = PVCConfig(
        vision_config=vision, text_config=text, image_token_id=0, video_token_id=1, downsample_ratio=ratio
    )
    config._attn_implementation = "sdpa"
    return PVCModel(config).to(options.dtype).eval()


def width(options: argparse.Namespace) -> int:
    return SHAPES["InternVL3-1B"][1] if options.shape == "1b" else 128


def language(options: argparse.Namespace) -> torch.nn.Module:
    layers, hidden, heads, kv_heads, mlp, _ = (
        SHAPES["InternVL3-1B"] if options.shape == "1b" else (4, 128, 4, 2, 512, True)
    )
    config = Qwen2Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=mlp,
        vocab_size=1000,  # its embedding and output layer cost a single token nothing to speak of
        max_position_embeddings=32768,
    )
    config._attn_implementation = "sdpa"
    return AutoModel.from_config(config).to(options.dtype).eval()


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    with torch.inference_mode():
        call()
    return time.perf_counter() - started


def operations(shape: tuple[int, int, int, int, int, bool], tokens: int) -> float:
    """Floating point operations of a language model's prefill: matrix products and causal attention."""
    layers, hidden, heads, kv_heads, mlp, _ = shape
    head = hidden // heads
    linear = 2 * (hidden * hidden * 2 + 2 * hidden * kv_heads * head + 3 * hidden * mlp)
    return layers * (tokens * linear + 2 * 2 * tokens * tokens * hidden / 2)


def main() -> None:
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
    ours, base, model = tower(temporal, 0.25, options), tower(0, 0.5, options), language(options)
    side = ours.config.vision_config.image_size[0]
    pixels = torch.randn(options.vision_frames, 3, side, side, dtype=options.dtype)
    each = {"ours": ours.config.tokens_per_frame, "base": base.config.tokens_per_frame}
    lengths = {name: options.frames * (count + TEXT) for name, count in each.items()}

    def prefill(tokens: int) -> object:
        return model(
            inputs_embeds=torch.randn(1, tokens, model.config.hidden_size, dtype=options.dtype),
            past_key_values=DynamicCache(config=model.config),
        )

    print(
        f"{options.shape}, {options.dtype}, {options.threads} threads; tokens a frame {each}, a prompt {lengths}",
        flush=True,
    )
    scale = options.frames / options.vision_frames
    rows = []
    for _ in range(options.pairs):
        see = seconds(lambda: ours.get_video_features(pixels)) * scale
        base_see = seconds(lambda: base.get_video_features(pixels)) * scale
        read, base_read = seconds(lambda: prefill(lengths["ours"])), seconds(lambda: prefill(lengths["base"]))
        rows.append((see, base_see, read, base_read))
        print(f"encode {see:.1f} and {base_see:.1f} s, prefill {read:.1f} and {base_read:.1f} s", flush=True)
    see, base_see, read, base_read = (statistics.median(column) for column in zip(*rows, strict=True))
    first = (base_see + base_read) / (see + read)
    print(f"prefill {base_read / read:.2f} times, first token {first:.2f} times as fast as the base")
    if options.shape == "1b":
        rates = [
            operations(SHAPES["InternVL3-1B"], lengths[name]) / took
            for name, took in (("ours", read), ("base", base_read))
        ]
        for name, shape in list(SHAPES.items())[1:]:
            one, two = (
                operations(shape, lengths[way]) / rate for way, rate in zip(("ours", "base"), rates, strict=True)
            )
            print(f"{name}, computed: prefill {two / one:.2f}, first token {(base_see + two) / (see + one):.2f}")


if __name__ == "__main__":
    main()
