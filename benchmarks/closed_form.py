"""Measure a model converted in closed form, before training and after distillation or training with labels.

    python benchmarks/closed_form.py OUT --phase base        train a base on pictures and clips at ratio 1/2, one step
    python benchmarks/closed_form.py OUT --phase measure     convert it, and measure it beside its base
    python benchmarks/closed_form.py OUT --phase train       train the converted model with labels
    python benchmarks/closed_form.py OUT --phase distill     train it without labels, for the same number of steps

Models are small, and there is one seed. An interrupted phase resumes. Results are in OUT/results.json.
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import pvc
from pvc.convert.from_pvc import convert_pvc
from pvc.convert.options import Options
from pvc.engine.engine import Engine
from pvc.lab.evaluate.accuracy import HeldOutSet, score
from pvc.lab.synthetic import Sample, write_dataset
from pvc.model.order import block_positions
from pvc.train.pipeline import run_recipe
from pvc.train.recipe import Recipe

MODEL = {
    "vocab_size": 400,
    "num_frames": 8,
    "max_new_tokens": 16,
    "vision": {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "attention_bias": True,
        "layer_scale_init_value": 1.0,
        "initializer_range": 0.06,
        "num_temporal_layers": 2,
        "timestep": "cyclic",
        "timestep_period": 4,
    },
    "text": {
        "model_type": "qwen2",
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 176,
        "max_position_embeddings": 1024,
        "initializer_range": 0.05,
        "tie_word_embeddings": True,
    },
}
TASKS = {
    "rows": {"weight": 2, "levels": [1]},
    "static": {"weight": 1, "levels": [1]},
    "board": {"weight": 1, "levels": [1]},
}
FRAMES = 8
NOISE = 60.0  # standard deviation in grey levels, independent for every frame and pixel
STEPS = 600


def build_base_recipe(steps: int) -> Recipe:
    """Build the recipe of the base: ratio 1/2, one step per picture, no temporal layers."""
    one_step = {"downsample_ratio": 0.5, "image_steps": 1, "num_temporal_layers": 0}
    patches = {"name": "patches", "kind": "patches", "steps": steps // 3, "batch_size": 64, "learning_rate": 2e-3}
    patches |= {"tasks": {"rows": {"levels": [1, 2]}, "board": {"levels": [1]}}, "video_frames": {4: 1}}
    base = {"name": "base", "kind": "chat", "steps": steps, "batch_size": 32, "learning_rate": 1.5e-3, "questions": 3}
    base |= {"tasks": TASKS, "video_frames": {FRAMES: 1}, "augment": {"noise": 1.0}}
    base |= {"evaluate_every": 500, "evaluate_count": 40}
    stages = [{**patches, **one_step}, {**base, **one_step}]
    return Recipe.model_validate({"name": "base", "model": MODEL, "stages": stages})


def add_noise(sample: Sample) -> Sample:
    """Add independent noise to every frame of a sample."""
    rng = np.random.default_rng(zlib.crc32((sample.question + sample.answer).encode()))
    media = []
    for medium in sample.media:
        frames = np.stack([np.clip(frame + rng.normal(0, NOISE, frame.shape), 0, 255) for frame in medium.frames])
        media.append(replace(medium, frames=frames.astype(np.uint8)))
    return replace(sample, media=tuple(media))


def build_thinning(change: Callable[[Sample], Sample] | None, every: int) -> Callable[[Sample], Sample]:
    """Build a function that drops frames of a sample's clips.

    Args:
        change: another function of the sample, applied first; or None.
        every: one of this number of frames remains.
    """

    def thin(sample: Sample) -> Sample:
        sample = change(sample) if change else sample
        media = [
            replace(medium, frames=medium.frames[::every], timestamps=medium.timestamps[::every])
            for medium in sample.media
        ]
        return replace(sample, media=tuple(media))

    return thin


class AveragedTokens(nn.Module):
    """The compressor of a base model with its tokens averaged 2 x 2.

    Args:
        inner: the compressor.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: torch.Tensor, conditioning: Any) -> torch.Tensor:
        """Compress hidden states.

        Args:
            hidden: `(R, N, D)` hidden states of the tower.
            conditioning: timestep embeddings of the packed rows.

        Returns:
            `(R, K / 4, L)` visual tokens.
        """
        tokens = self.inner(hidden, conditioning)
        side = round(tokens.shape[1] ** 0.5) // 2
        return tokens.unflatten(1, (side, 2, side, 2)).mean((2, 4)).flatten(1, 2)


def average_tokens(engine: Engine) -> Engine:
    """Replace the compressor of an engine by one with averaged tokens; returns the engine."""
    engine.model.model.multi_modal_projector = AveragedTokens(engine.model.model.multi_modal_projector)
    engine.processor.tokens_per_frame //= len(block_positions(4))
    return engine


MEASURES: dict[str, tuple[str, HeldOutSet]] = {
    "clips with noise": ("static", HeldOutSet(level=1, frames=FRAMES, change=add_noise)),
    "clips with occluders": ("board", HeldOutSet(level=1, frames=FRAMES)),
    "pictures": ("rows", HeldOutSet(level=1)),
}


def measure_accuracy(
    engine: Engine, steps: tuple[int | None, ...], every: int = 1, count: int = 200
) -> dict[str, float]:
    """Measure the correct characters for clips, and for pictures with each number of steps.

    Args:
        engine: the model.
        steps: numbers of steps of a picture.
        every: one of this number of frames of a clip is used.
        count: samples per task.

    Returns:
        Correct characters in percent, by kind of media.
    """
    results = {}
    for name, (task, held_out) in MEASURES.items():
        is_thinned = every > 1 and task != "rows"
        samples = replace(held_out, change=build_thinning(held_out.change, every)) if is_thinned else held_out
        for number in steps if task == "rows" else steps[:1]:
            row = score(engine, task, count, samples, number).row()
            label = name if task != "rows" else f"{name}, {number or 1} step{'s' * ((number or 1) > 1)}"
            results[label] = round(100 * row["characters"], 1)
    return results


def load(directory: Path, **changes: Any) -> Engine:
    """Load a checkpoint in float32 on the CPU.

    Args:
        directory: the checkpoint.
        **changes: fields of its configuration to change.
    """
    engine = pvc.load(directory, device="cpu", dtype="float32")
    for name, value in changes.items():
        setattr(engine.model.config, name, value)
    return engine


def measure(out: Path) -> dict[str, Any]:
    """Convert the base if necessary, and measure both models; returns accuracies by model."""
    base, target = out / "base" / "model", out / "converted"
    if not target.exists():
        started = time.perf_counter()
        report = convert_pvc(base, target, Options(temporal_layers=2))
        print(f"converted in {time.perf_counter() - started:.1f} s, residual {report.residual:.2g}")
    return {
        "base, all tokens": measure_accuracy(load(base), (1,)),
        "base, a quarter of the frames": measure_accuracy(load(base), (1,), every=4),
        "base, tokens averaged 2 x 2": measure_accuracy(average_tokens(load(base)), (1,)),
        "converted, raster order": measure_accuracy(load(target), (4, 2, 1)),
        "converted, step order": measure_accuracy(load(target, image_token_order="step"), (4, 2, 1)),
    }


def build_labelled_recipe(start: Path) -> Recipe:
    """Build the recipe that trains a converted checkpoint with labels."""
    stage = {"name": "labels", "kind": "chat", "steps": STEPS, "batch_size": 32, "learning_rate": 3e-4, "questions": 3}
    stage |= {"tasks": TASKS, "video_frames": {FRAMES: 1}, "augment": {"noise": 1.0}, "image_steps": {1: 1, 2: 1, 4: 2}}
    return Recipe.model_validate({"name": "labels", "start": str(start), "stages": [stage]})


def build_distillation_recipe(start: Path, teacher: Path, loss: str, media: Path) -> Recipe:
    """Build the recipe that distils from the base, on the same samples without their answers.

    Args:
        start: the converted checkpoint.
        teacher: the base.
        loss: "tokens", with samples generated during training, or "answers", with samples from files.
        media: folder of the files.
    """
    stage = {"name": loss, "kind": "distill", "steps": STEPS, "batch_size": 32, "learning_rate": 3e-4}
    stage |= {"augment": {"noise": 1.0}, "image_steps": {1: 1, 2: 1, 4: 2}, "rates": {}}
    if loss == "tokens":
        data: dict[str, Any] = {"tasks": TASKS, "video_frames": {FRAMES: 1}}
        return _build_recipe({**stage, **data}, start, {"teacher": str(teacher), "loss": loss})
    data = {
        "file_frames": {FRAMES: 1},
        "bad_rows": 0.5,
        "trained": ("temporal", "timestep_embedding", "multi_modal_projector"),
    }
    settings = {"teacher": str(teacher), "loss": loss, "media": {str(media): 1}}
    return _build_recipe({**stage, **data}, start, settings)


def _build_recipe(stage: dict[str, Any], start: Path, settings: dict[str, Any]) -> Recipe:
    return Recipe.model_validate({"name": "distilled", "start": str(start), "stages": [{**stage, "distill": settings}]})


def write_media(folder: Path, count: int = 600) -> Path:
    """Write pictures and clips of the tasks as files; distillation does not read the answers beside them.

    Args:
        folder: the folder to write; if it exists, it is not changed.
        count: samples per task.

    Returns:
        The folder.
    """
    if not folder.exists():
        for task, mix in TASKS.items():
            frames = None if task == "rows" else FRAMES
            write_dataset(folder / task, task, count, 7, size=32, frames=frames, level=mix["levels"][0])
    return folder


def distill(out: Path) -> dict[str, Any]:
    """Distil the converted model with both losses, and measure the results; returns accuracies and core minutes."""
    results = {}
    for loss in ("tokens", "answers"):
        started = time.process_time()
        recipe = build_distillation_recipe(out / "converted", out / "base" / "model", loss, write_media(out / "media"))
        model = run_recipe(recipe, out / f"distilled-{loss}")
        name = f"after distillation ({loss})"
        results[name] = measure_accuracy(load(model), (4, 2, 1))
        results[f"core minutes, {name}"] = round((time.process_time() - started) / 60, 1)
        print(json.dumps(results[name]), flush=True)
    return results


def main() -> None:
    """Run a phase, and add its results to the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="directory of checkpoints and results")
    parser.add_argument("--phase", choices=("base", "measure", "train", "distill"), required=True)
    parser.add_argument("--steps", type=int, default=3000, help="training steps of the base")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.out / "results.json"
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    started = time.process_time()
    if options.phase == "base":
        run_recipe(build_base_recipe(options.steps), options.out / "base")
    elif options.phase == "measure":
        results |= measure(options.out)
    elif options.phase == "distill":
        results |= distill(options.out)
    else:
        model = run_recipe(build_labelled_recipe(options.out / "converted"), options.out / "labels")
        results["after training with labels"] = measure_accuracy(load(model), (4, 2, 1))
    results.setdefault("core minutes", {})[options.phase] = round((time.process_time() - started) / 60, 1)
    options.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
