"""Measure training speed at a real size: tokens per second, memory, and model FLOPs utilisation (MFU).

    python benchmarks/train_mfu.py                 InternVL3-1B's shape (300M tower, 0.5B language model) on a GPU
    python benchmarks/train_mfu.py --shape nano    the bundled model's shape, takes seconds on any CPU

Weights are random. The stage is the second of `recipes/internvl3-1b.yaml` (packed rows, bf16, gradient checkpointing
unless `--keep`). Clips are generated and encoded before, so that only the model and its optimizer are measured. torch
counts the operations of one forward and backward pass (FlopCounterMode), without those that checkpointing repeats. The
peak is that of a large matrix product in the same precision and run.
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

from pvc.train.data.collate import ChatCollator, Example, count_tokens, encode
from pvc.train.data.mixture import StageDataset
from pvc.train.model_init import build_model, build_processor
from pvc.train.recipe import Recipe, Stage, load_recipe
from pvc.train.run_stage import train_stage
from pvc.train.stage_log import StageContext

RECIPES = Path(__file__).parents[1] / "recipes"
WARMUP = 3  # optimizer steps


def build_recipe(options: argparse.Namespace) -> Recipe:
    """Build a recipe with the second stage on synthetic clips, in the requested shape."""
    stage = load_recipe(RECIPES / "internvl3-1b.yaml").stages[-1]
    changes: dict[str, Any] = {"files": {}, "tasks": {"events": 1.0, "digits": 1.0}}
    changes |= {"video_frames": {options.frames: 1.0}}
    changes |= {"downsample_ratio": 0.25, "batch_size": options.batch, "steps": options.steps, "save_steps": 10**6}
    changes |= {"questions": 1, "checkpointing": not options.keep, "pack": options.pack, "accumulation": 1}
    synthetic = json.loads(stage.model_dump_json()) | changes
    if options.shape == "nano":
        model = load_recipe(RECIPES / "nano.yaml").model
        assert model is not None
        return Recipe.model_validate({"name": "mfu", "model": model.model_dump(), "stages": [synthetic]})
    layers, width, heads, kv_heads, mlp, tied = SHAPES["InternVL3-1B"]
    text = {"model_type": "qwen2", "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    text |= {"num_key_value_heads": kv_heads, "intermediate_size": mlp, "vocab_size": 151674}
    text |= {"tie_word_embeddings": tied, "max_position_embeddings": 32768}
    model = {"vision": VISION, "text": text, "vocab_size": 400, "num_frames": 16, "max_tiles": 12}
    return Recipe.model_validate({"name": "mfu", "model": model, "stages": [synthetic]})


class RepeatedExamples(Dataset[Example]):
    """A data set that repeats a few encoded examples.

    Args:
        items: the examples.
        count: length of the data set.
    """

    def __init__(self, items: list[Example], count: int) -> None:
        self.items, self.count = items, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        return self.items[index % len(self.items)]


def measure_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the floating-point operations per second of a large matrix product, the best of several.

    Args:
        device: device of the matrices.
        dtype: dtype of the matrices.
    """
    side = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(12):
        _synchronize(device)
        started = time.perf_counter()
        left @ right
        _synchronize(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - started))
    return best


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def count_operations(
    recipe: Recipe, stage: Stage, processor: Any, batch: dict[str, torch.Tensor], device: torch.device
) -> int:
    """Count the operations of one forward and backward pass, without those that checkpointing repeats.

    Args:
        recipe: the recipe.
        stage: its stage.
        processor: the processor of the model.
        batch: a collated batch.
        device: device to compute on.
    """
    model = build_model(recipe, stage, processor).to(device).train()
    inputs = {key: value.to(device) for key, value in batch.items()}
    with FlopCounterMode(display=False) as counter, torch.autocast(device.type, torch.bfloat16):
        model(**inputs).loss.backward()
    return int(counter.get_total_flops())


def main() -> None:
    """Train, measure and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["1b", "nano"], default="1b")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--pack", type=int, default=8192)
    parser.add_argument("--keep", action="store_true", help="store activations instead of recomputing them")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = build_recipe(options)
    stage, processor = recipe.stages[0], build_processor(recipe)
    samples = StageDataset(stage, 0, int(recipe.shape.vision["image_size"]))
    examples = [samples[number] for number in range(options.batch)]
    items = [Example((), item.image_steps, item.generated, encode(processor, item)) for item in examples]
    collate = ChatCollator(processor, stage.pack, stage.loss)
    batch = collate(items)
    batch.pop("loss_weights", None)
    tokens, visual, positions = count_tokens(batch, (processor.image_token_id, processor.video_token_id))
    operations = count_operations(recipe, stage, processor, batch, device)
    peak = measure_peak(device, torch.bfloat16)
    model = build_model(recipe, stage, processor)
    ends: list[float] = []

    with tempfile.TemporaryDirectory() as folder:
        curve = Path(folder) / "curve.jsonl"
        context = StageContext(0, Path(folder) / "stage", curve, lambda line: ends.append(time.perf_counter()))
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        train_stage(stage, model, RepeatedExamples(items, options.steps * options.batch), collate, context)
    # With so few steps, the log has one line per step.
    steps = zip(ends[WARMUP:], ends[WARMUP + 1 :], strict=False)
    seconds = statistics.median(later - earlier for earlier, later in steps)
    row = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "cpu",
        "shape": options.shape,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "clips": options.batch,
        "frames": options.frames,
        "tokens": tokens,
        "visual_tokens": visual,
        "padding": round(1 - tokens / positions, 3),
        "seconds_a_step": round(seconds, 4),
        "tokens_per_second": round(tokens / seconds, 1),
        "frames_per_second": round(options.batch * options.frames / seconds, 1),
        "tflop_a_step": round(operations / 1e12, 3),
        "peak_tflops": round(peak / 1e12, 2),
        "mfu": round(operations / seconds / peak, 3),
        "gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if device.type == "cuda" else None,
    }
    print(json.dumps(row, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
