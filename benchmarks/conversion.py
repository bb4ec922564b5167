"""Measure conversion in closed form at the shape of InternVL3-1B (0.94 billion random parameters, bfloat16).

    python benchmarks/conversion.py FOLDER [--repeats 3] [--threads 1]

Measures `pvc convert` (seconds, peak memory, residual), and compares logits with the source in float32 and bfloat16.
Then it compares the time to encode a picture and a clip with that of the source, in turns in one process. Checkpoints
stay in FOLDER.
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
    "initializer_range": 1e-10,  # as in official configurations
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
    """Write a source checkpoint with random weights, whose LayerNorms are not the identity."""
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


def measure_conversion(source: Path, target: Path, check: bool) -> dict[str, Any]:
    """Run `pvc convert` in a separate process.

    Args:
        source: the source checkpoint.
        target: the directory to write.
        check: pass `--check`.

    Returns:
        Seconds, peak memory of all processes so far in GiB, and the residual.
    """
    started = time.perf_counter()
    command = [sys.executable, "-c", RUN, "convert", str(source), str(target), *["--check"] * check]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    residual = re.search(r"residual ([\d.e-]+)", result.stdout)
    print(result.stdout)
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "peak_GiB_so_far": round(peak / 2**30, 2),
        "residual": None if residual is None else float(residual[1]),
    }


def compare_logits(source: Path, target: Path) -> dict[str, float]:
    """Compare logits with those of the source in float32, for one picture and a question.

    Args:
        source: the source checkpoint.
        target: the converted checkpoint.

    Returns:
        Largest difference, relative to the largest logit, by model and dtype.
    """
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
    size = exact.shape[-1]
    return {
        name: float((logits[..., :size] - exact).abs().max() / exact.abs().max()) for name, logits in results.items()
    }


def measure_encoding(source: Path, target: Path, repeats: int, frames: int = 4) -> dict[str, float]:
    """Measure the time to encode a picture of one tile and a clip in float32, in turns.

    Args:
        source: the source checkpoint.
        target: the converted checkpoint.
        repeats: measurements of each call, after one to warm up.
        frames: frames of the clip.

    Returns:
        Median seconds by medium and model.
    """
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
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for _ in range(repeats + 1):
            for name, call in calls.items():
                started = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def main() -> None:
    """Convert, measure and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="directory of the checkpoints")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    source, target = options.folder / "source", options.folder / "pvc"
    if not source.exists():
        write_source(source)
    results: dict[str, Any] = {}
    if not target.exists():
        results["convert"] = measure_conversion(source, target, check=False)
    checked = options.folder / "checked"
    if not checked.exists():
        results["convert --check"] = measure_conversion(source, checked, check=True)
    results["encode"] = measure_encoding(source, target, options.repeats)
    for what in ("picture", "clip of 4"):
        results[f"{what}, ratio"] = results["encode"][f"{what}, converted"] / results["encode"][f"{what}, source"]
    print(json.dumps(results, indent=1), flush=True)
    results["logits, from the source in float32"] = compare_logits(source, target)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
