"""Training speed at a real size: tokens a second, memory, and the part of the matrix units' peak that is used.

    python benchmarks/train_mfu.py                 InternVL3-1B's shape (300M tower, 0.5B language model) on a GPU
    python benchmarks/train_mfu.py --shape nano    the bundled model, seconds on any CPU

Random weights; the steps are those of `recipes/internvl3-1b.yaml`'s second stage (packed rows, bf16, checkpointing
unless `--keep`), on clips that were drawn and encoded before, so that only the model and its optimizer are measured.
Floating
point operations are counted by torch (FlopCounterMode) for one forward and backward pass without the part that
checkpointing repeats; the peak is that of a large matrix product in the same precision, in the same run.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode
from training import SHAPES, VISION

from pvc.train.data.collate import ChatCollator, Example, encode, lengths_of
from pvc.train.data.mixture import StageDataset
from pvc.train.model_init import build_model, build_processor
from pvc.train.recipe import Recipe, Stage, load_recipe
from pvc.train.run_stage import train_stage
from pvc.train.stage_log import StageContext

RECIPES = Path(__file__).parents[1] / "recipes"
WARM = 3


def recipe_of(options: argparse.Namespace) -> Recipe:
    """The second stage of the recipe on drawn clips, in the shape that is asked for."""
    stage = load_recipe(RECIPES / "internvl3-1b.yaml").stages[-1]
    own: dict[str, Any] = {"files": {}, "tasks": {"events": 1.0, "digits": 1.0}, "video_frames": {options.frames: 1.0}}
    own |= {"downsample_ratio": 0.25, "batch_size": options.batch, "steps": options.steps, "save_steps": 10**6}
    own |= {"questions": 1, "checkpointing": not options.keep, "pack": options.pack, "accumulation": 1}
    drawn = json.loads(stage.model_dump_json()) | own
    if options.shape == "nano":
        model = load_recipe(RECIPES / "nano.yaml").model
        assert model is not None
        return Recipe.model_validate({"name": "mfu", "model": model.model_dump(), "stages": [drawn]})
    layers, width, heads, kv_heads, mlp, tied = SHAPES["InternVL3-1B"]
    text = {"model_type": "qwen2", "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    text |= {"num_key_value_heads": kv_heads, "intermediate_size": mlp, "vocab_size": 151674}
    text |= {"tie_word_embeddings": tied, "max_position_embeddings": 32768}
    model = {"vision": VISION, "text": text, "vocab_size": 400, "num_frames": 16, "max_tiles": 12}
    return Recipe.model_validate({"name": "mfu", "model": model, "stages": [drawn]})


class Ready(Dataset[Example]):
    """A few encoded samples, again and again."""

    def __init__(self, items: list[Example], count: int) -> None:
        self.items, self.count = items, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        return self.items[index % len(self.items)]


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """Floating point operations a second of a large matrix product, the best of several."""
    side = 8192 if device.type == "cuda" else 1024
    one, two = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(12):
        _wait(device)
        started = time.perf_counter()
        one @ two
        _wait(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - started))
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def operations(
    recipe: Recipe, stage: Stage, processor: Any, batch: dict[str, torch.Tensor], device: torch.device
) -> int:
    """Of one forward and backward pass, without what checkpointing repeats."""
    model = build_model(recipe, stage, processor).to(device).train()
    inputs = {key: value.to(device) for key, value in batch.items()}
    with FlopCounterMode(display=False) as counter, torch.autocast(device.type, torch.bfloat16):
        model(**inputs).loss.backward()
    return int(counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["1b", "nano"], default="1b")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--pack", type=int, default=8192)
    parser.add_argument("--keep", action="store_true", help="keep activations instead of computing them again")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = recipe_of(options)
    stage, processor = recipe.stages[0], build_processor(recipe)
    samples = StageDataset(stage, 0, int(recipe.shape.vision["image_size"]))
    drawn = [samples[number] for number in range(options.batch)]
    items = [Example((), item.image_steps, item.sample, encode(processor, item)) for item in drawn]
    collate = ChatCollator(processor, stage.pack, stage.loss)
    batch = collate(items)
    batch.pop("loss_weights", None)
    tokens, visual, places = lengths_of(batch, (processor.image_token_id, processor.video_token_id))
    needed = operations(recipe, stage, processor, batch, device)
    best = peak(device, torch.bfloat16)
    model = build_model(recipe, stage, processor)
    ends: list[float] = []

    with tempfile.TemporaryDirectory() as folder:
        curve = Path(folder) / "curve.jsonl"
        fit = StageContext(0, Path(folder) / "stage", curve, lambda line: ends.append(time.perf_counter()))
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        train_stage(stage, model, Ready(items, options.steps * options.batch), collate, fit)
    # A line a step: the log's interval is one for so few.
    seconds = statistics.median(later - sooner for sooner, later in zip(ends[WARM:], ends[WARM + 1 :], strict=False))
    row = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "cpu",
        "shape": options.shape,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "clips": options.batch,
        "frames": options.frames,
        "tokens": tokens,
        "visual_tokens": visual,
        "padding": round(1 - tokens / places, 3),
        "seconds_a_step": round(seconds, 4),
        "tokens_per_second": round(tokens / seconds, 1),
        "frames_per_second": round(options.batch * options.frames / seconds, 1),
        "tflop_a_step": round(needed / 1e12, 3),
        "peak_tflops": round(best / 1e12, 2),
        "mfu": round(needed / seconds / best, 3),
        "gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if device.type == "cuda" else None,
    }
    print(json.dumps(row, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
