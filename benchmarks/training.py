"""Training: the recipe against a plain loop, packed rows against padded ones, and the memory of known shapes.

    python benchmarks/training.py [--batches 24] [--pairs 3] [--workers 1] [--output FILE]
    python benchmarks/training.py --memory          # InternVL3-1B, 2B and 8B, by their shapes: no weights are needed

A plain loop has its batches ready in memory and does forward, backward, clipping and AdamW; the recipe draws, encodes
and collates the same samples beside that. All figures are ratios within one run, of the median of alternating pairs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from pvc.train.data.collate import ChatCollator, lengths_of
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
# Layers, width, heads, key-value heads, width of the MLP of the language models (their public configurations).
SHAPES = {
    "InternVL3-1B": (24, 896, 14, 2, 4864, True),
    "InternVL3-2B": (28, 1536, 12, 2, 8960, False),
    "InternVL3-8B": (28, 3584, 28, 4, 18944, False),
}


def nano_stage(batches: int, **changes: object) -> tuple[Recipe, Stage]:
    recipe = load_recipe(NANO).model_copy(update={"start": "nano"})
    stage = recipe.stages[-1].model_copy(update={"steps": batches, "evaluate_every": None, "save_steps": 10**6})
    stage = stage.model_copy(update={"precision": "float32", **changes})
    return resolve_recipe(recipe.model_copy(update={"stages": [stage]})), stage


def plain(recipe: Recipe, stage: Stage, processor: object, batches: list[dict[str, torch.Tensor]]) -> float:
    """Seconds of a loop over batches that are ready."""
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
    return sum(times[WARM:])


def recipe_run(recipe: Recipe, stage: Stage, processor: object, workers: int) -> float:
    """Seconds of the recipe's steps for the same samples."""
    model, _ = grow(recipe, stage, processor, initial_weights(recipe))
    samples = StageDataset(stage, 0, 64, processor.video_processor.num_frames)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "stage"
        fit = StageContext(0, output, Path(folder) / "curve.jsonl", lambda line: None, workers=workers)
        ends: list[float] = []

        from pvc.train import stage_log

        original = stage_log.StageLog.on_step_end

        def on_step_end(self: object, *args: object, **kwargs: object) -> None:
            ends.append(time.perf_counter())
            original(self, *args, **kwargs)

        stage_log.StageLog.on_step_end = on_step_end
        try:
            train_stage(stage, model, samples, ChatCollator(processor, stage.pack, stage.loss), fit)
        finally:
            stage_log.StageLog.on_step_end = original
    return ends[-1] - ends[WARM - 1]


WARM = 4


def collated(stage: Stage, processor: object, count: int) -> list[dict[str, torch.Tensor]]:
    samples, collate = (
        StageDataset(stage, 0, 64, processor.video_processor.num_frames),
        ChatCollator(processor, stage.pack),
    )
    size = stage.batch_size
    return [collate([samples[number * size + place] for place in range(size)]) for number in range(count)]


def throughput(options: argparse.Namespace) -> list[str]:
    recipe, stage = nano_stage(options.batches)
    processor = initial_processor(recipe)
    batches = collated(stage, processor, options.batches)
    samples = (options.batches - WARM) * stage.batch_size
    lines = ["", "## The recipe against a plain loop", ""]
    lines += ["| pair | plain, samples/s | recipe, samples/s | ratio |", "|---|---|---|---|"]
    ratios = []
    for pair in range(options.pairs):
        ours = recipe_run(recipe, stage, processor, options.workers)
        theirs = plain(recipe, stage, processor, batches)
        ratios.append(theirs / ours)
        lines.append(f"| {pair + 1} | {samples / theirs:.1f} | {samples / ours:.1f} | {ratios[-1]:.2f} |")
        print(lines[-1], flush=True)
    lines.append(f"\nMedian ratio **{statistics.median(ratios):.2f}** ({options.workers} worker, aim: at least 0.9).")
    return lines


def packing(options: argparse.Namespace) -> list[str]:
    """Answers of very different lengths, padded to the longest and packed into rows."""
    tasks = {name: {"weight": 1, "levels": [1, 2, 3]} for name in ("shape", "page", "describe", "rows", "count")}
    changes = {"tasks": Stage.model_validate({"name": "x", "kind": "chat", "steps": 1, "tasks": tasks}).tasks}
    recipe, padded = nano_stage(options.batches, **changes, questions=None, characters=None)
    processor = initial_processor(recipe)
    ready = collated(padded, processor, options.batches)
    ids = (processor.image_token_id, processor.video_token_id)
    counts = [lengths_of(batch, ids) for batch in ready]
    padding = 1 - sum(count[0] for count in counts) / sum(count[2] for count in counts)
    lines = ["", "## Packed rows against padded ones", "", f"Padding of the padded batches: {padding:.0%}.", ""]
    lines += ["| row of at most | rows a batch | padding | samples/s against padded |", "|---|---|---|---|"]
    samples = (options.batches - WARM) * padded.batch_size
    for room in options.rooms:
        packed = padded.model_copy(update={"pack": room})
        rows = collated(packed, processor, options.batches)
        waste = 1 - sum(count[0] for count in counts) / sum(batch["input_ids"].numel() for batch in rows)
        ratios = []
        for _ in range(options.pairs):
            one = plain(recipe, padded, processor, ready)
            two = plain(recipe, packed, processor, rows)
            ratios.append(one / two)
        count = statistics.mean(len(batch["input_ids"]) for batch in rows)
        lines.append(
            f"| {room} | {count:.1f} | {waste:.0%} | {statistics.median(ratios):.2f} ({samples / two:.1f}/s) |"
        )
        print(lines[-1], flush=True)
    return lines


def memory(options: argparse.Namespace) -> list[str]:
    """Both stages of the recipes for InternVL3's sizes, by shape."""
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
            # Clips of the synthetic world in place of files that are not here: 32 frames, one to a row of the recipe's.
            own = {"files": {}, "tasks": {"events": 1.0}, "video_frames": {32: 1.0}, "downsample_ratio": 0.25}
            drawn = json.loads(stage.model_dump_json()) | own
            recipe = Recipe.model_validate({"name": "shape", "model": model, "stages": [drawn]})
            processor = build_processor(recipe)
            told = stage_memory(recipe, recipe.stages[0], processor, processes=options.processes, look=1, bf16=True)
            lines.append(f"- {name}, `{stage.name}`: {told.describe(options.processes)}")
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rooms", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = memory(options) if options.memory else [*throughput(options), *packing(options)]
    if options.output is not None:
        options.output.write_text("\n".join(["# Training", *lines]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
