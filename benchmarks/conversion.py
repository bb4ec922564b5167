"""Conversion in closed form at the shape of InternVL3-1B (0.94 billion random parameters, bfloat16).

    python benchmarks/conversion.py FOLDER [--repeats 3] [--threads 1]

Measures `pvc convert` (seconds, peak memory, residual), logits against the source in float32 and bfloat16, and the time
to encode a picture and a clip against the source, alternating in one process. FOLDER keeps the checkpoints.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import InternVLConfig, InternVLForConditionalGeneration

import pvc
from pvc.testing import tiny_tokenizer

VISION = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "image_size": 448,
    "patch_size": 14,
    "attention_bias": True,
    "initializer_range": 1e-10,  # as official configurations have it
}
TEXT = {
    "model_type": "qwen2",
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "vocab_size": 151674,
    "tie_word_embeddings": False,
}
RUN = "import sys; from pvc.cli.main import main; sys.exit(main(sys.argv[1:]))"


def write_source(folder: Path) -> None:
    """Write random weights whose LayerNorms are not the identity."""
    tokenizer = tiny_tokenizer()
    config = InternVLConfig(
        vision_config=VISION,
        text_config=TEXT,
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        downsample_ratio=0.5,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(config)
    model = model.to(torch.bfloat16).to_empty(device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.02)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def converted(source: Path, target: Path, check: bool) -> dict[str, Any]:
    """Run `pvc convert` in a process of its own."""
    started = time.perf_counter()
    command = [sys.executable, "-c", RUN, "convert", str(source), str(target), *["--check"] * check]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    residual = re.search(r"residual ([\d.e-]+)", done.stdout)
    print(done.stdout)
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "peak_GiB_so_far": round(peak / 2**30, 2),
        "residual": None if residual is None else float(residual[1]),
    }


def logits(source: Path, target: Path) -> dict[str, float]:
    """Largest difference of logits, relative to the largest, from the source in float32: one picture and a question."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (448, 448, 3), dtype=np.uint8))
    results: dict[str, torch.Tensor] = {}
    batch: dict[str, torch.Tensor] = {}
    for name in ("float32", "bfloat16"):
        engine = pvc.load(target, device="cpu", dtype=name)
        parts = [{"type": "image", "image": picture}, {"type": "text", "text": "what does it say?"}]
        batch = dict(
            engine.processor.apply_chat_template(
                [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=True, max_patches=1
            )
        )
        with torch.inference_mode():
            results[f"converted {name}"] = engine.model(**batch).logits.float()
        del engine
        gc.collect()
        theirs = InternVLForConditionalGeneration.from_pretrained(source, dtype=getattr(torch, name)).eval()
        pixels = batch["pixel_values"].to(theirs.dtype)
        with torch.inference_mode():
            results[f"source {name}"] = theirs(input_ids=batch["input_ids"], pixel_values=pixels).logits.float()
        del theirs
        gc.collect()
    exact = results.pop("source float32")
    rows = exact.shape[-1]
    return {name: float((found[..., :rows] - exact).abs().max() / exact.abs().max()) for name, found in results.items()}


def encode_times(source: Path, target: Path, repeats: int, frames: int = 4) -> dict[str, float]:
    """Median seconds of a picture of one tile and of a clip; alternating, in float32."""
    ours = pvc.load(target, device="cpu", dtype="float32").model.model
    theirs = InternVLForConditionalGeneration.from_pretrained(source, dtype=torch.float32).eval().model
    del theirs.language_model, ours.language_model
    gc.collect()
    tile, clip = torch.randn(1, 3, 448, 448), torch.randn(frames, 3, 448, 448)
    calls = {
        "picture, source": lambda: theirs.get_image_features(tile),
        "picture, converted": lambda: ours.get_image_features(tile),
        f"clip of {frames}, source": lambda: theirs.get_image_features(clip),
        f"clip of {frames}, converted": lambda: ours.get_video_features(clip),
    }
    spent: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for _ in range(repeats + 1):
            for name, call in calls.items():
                started = time.perf_counter()
                call()
                spent[name].append(time.perf_counter() - started)
    return {name: statistics.median(times[1:]) for name, times in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    source, target = options.folder / "source", options.folder / "pvc"
    if not source.exists():
        write_source(source)
    found: dict[str, Any] = {}
    if not target.exists():
        found["convert"] = converted(source, target, check=False)
    checked = options.folder / "checked"
    if not checked.exists():
        found["convert --check"] = converted(source, checked, check=True)
    found["encode"] = encode_times(source, target, options.repeats)
    for what in ("picture", "clip of 4"):
        found[f"{what}, ratio"] = found["encode"][f"{what}, converted"] / found["encode"][f"{what}, source"]
    print(json.dumps(found, indent=1), flush=True)
    found["logits, from the source in float32"] = logits(source, target)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
