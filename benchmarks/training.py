"""Measure training: the recipe against a plain loop, packed against padded rows, and the memory of known shapes.

    python benchmarks/training.py [--batches 24] [--pairs 3] [--workers 1] [--output FILE]
    python benchmarks/training.py --memory          # InternVL3-1B, 2B and 8B, by their shapes: no weights are needed

The plain loop has its batches in memory, and runs forward, backward, clipping and AdamW. The recipe also generates,
encodes and collates the same samples. Results are ratios within one run, the median of alternating pairs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from pvc.train.data.collate import ChatCollator, count_tokens
from pvc.train.data.mixture import StageDataset
from pvc.train.model_init import build_processor, grow, initial_processor, initial_weights, resolve_recipe
from pvc.train.recipe import Recipe, Stage, load_recipe
from pvc.train.run_stage import train_stage
from pvc.train.stage_log import StageContext

NANO = Path(__file__).parents[1] / "recipes" / "nano.yaml"
VISION = {
    "image_size": 448,
    "patch_size": 14,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "attention_bias": True,
    "num_temporal_layers": 8,
}
# Layers, width, heads, key-value heads, MLP width and tied embeddings of the language models, as published.
SHAPES = {
    "InternVL3-1B": (24, 896, 14, 2, 4864, True),
    "InternVL3-2B": (28, 1536, 12, 2, 8960, False),
    "InternVL3-8B": (28, 3584, 28, 4, 18944, False),
}
WARMUP = 4  # optimizer steps


def build_nano_stage(batches: int, **changes: object) -> tuple[Recipe, Stage]:
    """Build the last stage of the bundled model's recipe.

    Args:
        batches: number of steps.
        **changes: fields of the stage to change.

    Returns:
        The recipe with this stage only, and the stage.
    """
    recipe = load_recipe(NANO).model_copy(update={"start": "nano"})
    stage = recipe.stages[-1].model_copy(update={"steps": batches, "evaluate_every": None, "save_steps": 10**6})
    stage = stage.model_copy(update={"precision": "float32", **changes})
    return resolve_recipe(recipe.model_copy(update={"stages": [stage]})), stage


def run_plain_loop(recipe: Recipe, stage: Stage, processor: object, batches: list[dict[str, torch.Tensor]]) -> float:
    """Train with a plain loop over collated batches.

    Args:
        recipe: the recipe, for the model's shape and weights.
        stage: its stage, for the optimizer's settings.
        processor: the processor of the model.
        batches: the collated batches.

    Returns:
        Seconds of all steps after those to warm up.
    """
    model, _ = grow(recipe, stage, processor, initial_weights(recipe))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=stage.learning_rate, weight_decay=stage.weight_decay)
    times = []
    for batch in batches:
        started = time.perf_counter()
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), stage.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        times.append(time.perf_counter() - started)
    return sum(times[WARMUP:])


def run_stage(recipe: Recipe, stage: Stage, processor: object, workers: int) -> float:
    """Train with the recipe's stage on the same samples.

    Args:
        recipe: the recipe.
        stage: its stage.
        processor: the processor of the model.
        workers: number of data workers.

    Returns:
        Seconds of all steps after those to warm up.
    """
    model, _ = grow(recipe, stage, processor, initial_weights(recipe))
    samples = StageDataset(stage, 0, 64, processor.video_processor.num_frames)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "stage"
        context = StageContext(0, output, Path(folder) / "curve.jsonl", lambda line: None, workers=workers)
        ends: list[float] = []

        from pvc.train import stage_log

        original = stage_log.StageLog.on_step_end

        def on_step_end(self: object, *args: object, **kwargs: object) -> None:
            ends.append(time.perf_counter())
            original(self, *args, **kwargs)

        stage_log.StageLog.on_step_end = on_step_end
        try:
            train_stage(stage, model, samples, ChatCollator(processor, stage.pack, stage.loss), context)
        finally:
            stage_log.StageLog.on_step_end = original
    return ends[-1] - ends[WARMUP - 1]


def collate_batches(stage: Stage, processor: object, count: int) -> list[dict[str, torch.Tensor]]:
    """Generate, encode and collate the batches of a stage.

    Args:
        stage: the stage.
        processor: the processor of the model.
        count: number of batches.
    """
    samples, collate = (
        StageDataset(stage, 0, 64, processor.video_processor.num_frames),
        ChatCollator(processor, stage.pack),
    )
    size = stage.batch_size
    return [collate([samples[number * size + index] for index in range(size)]) for number in range(count)]


def measure_throughput(options: argparse.Namespace) -> list[str]:
    """Compare the recipe with a plain loop; returns lines of Markdown."""
    recipe, stage = build_nano_stage(options.batches)
    processor = initial_processor(recipe)
    batches = collate_batches(stage, processor, options.batches)
    samples = (options.batches - WARMUP) * stage.batch_size
    lines = ["", "## The recipe against a plain loop", ""]
    lines += ["| pair | plain, samples/s | recipe, samples/s | ratio |", "|---|---|---|---|"]
    ratios = []
    for pair in range(options.pairs):
        stage_seconds = run_stage(recipe, stage, processor, options.workers)
        plain_seconds = run_plain_loop(recipe, stage, processor, batches)
        ratios.append(plain_seconds / stage_seconds)
        rates = f"{samples / plain_seconds:.1f} | {samples / stage_seconds:.1f}"
        lines.append(f"| {pair + 1} | {rates} | {ratios[-1]:.2f} |")
        print(lines[-1], flush=True)
    lines.append(f"\nMedian ratio **{statistics.median(ratios):.2f}** ({options.workers} worker, aim: at least 0.9).")
    return lines


def measure_packing(options: argparse.Namespace) -> list[str]:
    """Compare packed with padded rows for answers of very different lengths; returns lines of Markdown."""
    tasks = {name: {"weight": 1, "levels": [1, 2, 3]} for name in ("shape", "page", "describe", "rows", "count")}
    changes = {"tasks": Stage.model_validate({"name": "x", "kind": "chat", "steps": 1, "tasks": tasks}).tasks}
    recipe, padded = build_nano_stage(options.batches, **changes, questions=None, characters=None)
    processor = initial_processor(recipe)
    padded_batches = collate_batches(padded, processor, options.batches)
    ids = (processor.image_token_id, processor.video_token_id)
    counts = [count_tokens(batch, ids) for batch in padded_batches]
    padding = 1 - sum(count[0] for count in counts) / sum(count[2] for count in counts)
    lines = ["", "## Packed rows against padded ones", "", f"Padding of the padded batches: {padding:.0%}.", ""]
    lines += ["| row of at most | rows a batch | padding | samples/s against padded |", "|---|---|---|---|"]
    samples = (options.batches - WARMUP) * padded.batch_size
    for length in options.rooms:
        packed = padded.model_copy(update={"pack": length})
        packed_batches = collate_batches(packed, processor, options.batches)
        positions = sum(batch["input_ids"].numel() for batch in packed_batches)
        packed_padding = 1 - sum(count[0] for count in counts) / positions
        ratios = []
        for _ in range(options.pairs):
            padded_seconds = run_plain_loop(recipe, padded, processor, padded_batches)
            packed_seconds = run_plain_loop(recipe, packed, processor, packed_batches)
            ratios.append(padded_seconds / packed_seconds)
        rows = statistics.mean(len(batch["input_ids"]) for batch in packed_batches)
        rate = f"{statistics.median(ratios):.2f} ({samples / packed_seconds:.1f}/s)"
        lines.append(f"| {length} | {rows:.1f} | {packed_padding:.0%} | {rate} |")
        print(lines[-1], flush=True)
    return lines


def estimate_memory(options: argparse.Namespace) -> list[str]:
    """Estimate the memory of both stages of the recipes for InternVL3's sizes; returns lines of Markdown."""
    from pvc.train.memory import stage_memory

    lines = ["", "## Memory of the recipes for InternVL3", ""]
    for name, (layers, width, heads, kv_heads, mlp, tied) in SHAPES.items():
        path = NANO.parent / f"{name.lower()}.yaml"
        data = load_recipe(path)
        text = {
            "model_type": "qwen2",
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "intermediate_size": mlp,
            "vocab_size": 151674,
            "tie_word_embeddings": tied,
            "max_position_embeddings": 32768,
        }
        model = {"vision": VISION, "text": text, "vocab_size": 400, "num_frames": 16, "max_tiles": 12}
        for stage in data.stages:
            # Synthetic clips of 32 frames replace the recipe's files, which are not available; one clip per row.
            changes = {"files": {}, "tasks": {"events": 1.0}, "video_frames": {32: 1.0}, "downsample_ratio": 0.25}
            synthetic = json.loads(stage.model_dump_json()) | changes
            recipe = Recipe.model_validate({"name": "shape", "model": model, "stages": [synthetic]})
            processor = build_processor(recipe)
            estimate = stage_memory(recipe, recipe.stages[0], processor, processes=options.processes, look=1, bf16=True)
            lines.append(f"- {name}, `{stage.name}`: {estimate.describe(options.processes)}")
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Run the measurements, and write the Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rooms", type=int, nargs="+", default=[256, 512, 1024], help="lengths of packed rows")
    parser.add_argument("--memory", action="store_true", help="estimate memory instead")
    parser.add_argument("--processes", type=int, default=8, help="for --memory")
    parser.add_argument("--output", type=Path, help="write the Markdown to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = estimate_memory(options) if options.memory else [*measure_throughput(options), *measure_packing(options)]
    if options.output is not None:
        options.output.write_text("\n".join(["# Training", *lines]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
