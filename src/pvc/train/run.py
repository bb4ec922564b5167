"""Runs a recipe stage by stage on transformers' Trainer, with checkpoints and resume.

A directory holds everything: `<stage>/checkpoint-N`, `<stage>/final`, `curve.jsonl`, `curve.png`, TensorBoard's
logs and, at the end, `summary.md` and `model` with a card. Leaves out evaluation (`pvc.evaluate`). Called by
`pvc train`.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.utils.logging import disable_progress_bar

import pvc.auto  # noqa: F401  # so that a saved processor can be loaded
from pvc.checkpoint.files import PARTS, CheckpointFiles, part_of
from pvc.checkpoint.precision import has_bfloat16
from pvc.engine.engine import Engine
from pvc.errors import UsageError
from pvc.evaluate.accuracy import Held, measure
from pvc.model.modeling import PVCForConditionalGeneration
from pvc.processing.processor import PVCProcessor
from pvc.synthetic import PATCH_CLASSES
from pvc.train.build import (
    build_model,
    build_processor,
    check_recipe,
    grow,
    parameters_by_part,
    resolved,
    start_directory,
    start_processor,
    start_weights,
    stored_state,
)
from pvc.train.cache import CachedSamples, PackedCollator, write_cache
from pvc.train.curve import draw_curve
from pvc.train.data import ChatCollator, PatchCollator, StageSamples
from pvc.train.distill.setup import Prepared, build_visual, grow_visual, is_visual, prepare, restore
from pvc.train.distill.visual import export_visual, load_visual_weights
from pvc.train.files import Ledger
from pvc.train.fit import check_sharded, fit_stage, sharded
from pvc.train.interrupt import StopRequest
from pvc.train.log import Fit, Report
from pvc.train.lora import Adapters
from pvc.train.patches import PatchReader
from pvc.train.recipe import Recipe, Stage, written_from
from pvc.train.summary import write_summary


@dataclass(frozen=True)
class _Run:
    report: Report
    workers: int
    minutes: float | None


def run_recipe(
    recipe: Recipe,
    directory: str | Path,
    report: Report = print,
    threads: int = 1,
    workers: int = 0,
    minutes: float | None = None,
) -> Path:
    """Run (or go on with) a recipe in `directory`; returns the directory of the finished model.

    `threads` is the number of cores for the model on a CPU, `workers` of processes that draw samples beside it.
    `minutes`: train for so long instead of the last stage's steps.

    Raises:
        UsageError: unknown tasks, or a directory that belongs to another recipe.
        ConfigError: a stage that cannot train weights as the launcher shards them.
        PVCError: the loss stopped being a number.
        Interrupted: SIGINT or SIGTERM while a stage was trained; its last step is in a checkpoint.
    """
    recipe, directory = resolved(recipe), Path(directory)
    disable_progress_bar()  # of every checkpoint's files: what is seen is `report`'s
    torch.set_num_threads(threads)
    # The others wait while the first process draws a cache or measures; that may take longer than the usual minutes.
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(hours=3))
    with state.main_process_first():  # under torchrun: the first process makes what the others then read
        _claim(recipe, directory)
        processor = _processor(recipe, directory / "processor")
    for stage in recipe.stages:
        check_sharded(stage)
    if not state.is_main_process:
        report = _silent
    options = _Run(report, workers, minutes)
    weights = _start_weights(recipe)
    model: nn.Module | None = None
    for stage in recipe.stages:
        final = directory / stage.name / "final.safetensors"
        model, fresh = _stage_model(recipe, stage, processor, weights)
        if final.exists():
            report(f"{stage.name}: done before")
        else:
            parts = ", ".join(f"{part} {count:,}" for part, count in parameters_by_part(model).items())
            clocked = minutes is not None and stage is recipe.stages[-1]
            length = f"{minutes:g} minutes, batches" if clocked else f"{stage.steps} steps"
            report(f"{stage.name}: {length} of {stage.batch_size}; parameters: {parts}")
            if fresh:
                report(f"{stage.name}: {len(fresh)} tensors start anew: {', '.join(fresh[:6])} ...")
            model = _run_stage(recipe, stage, model, processor, directory, options)
            if state.is_main_process:
                save_weights(model, final)
                draw_curve(directory / "curve.jsonl", directory / "curve.png")
            state.wait_for_everyone()
        weights = load_file(final)
    if state.is_main_process:
        _export(recipe, processor, weights, directory)
    state.wait_for_everyone()
    return directory / "model"


def _start_weights(recipe: Recipe) -> dict[str, torch.Tensor]:
    if recipe.start is None:
        return {}
    return load_visual_weights(start_directory(recipe)) if is_visual(recipe) else start_weights(recipe)


def _stage_model(
    recipe: Recipe, stage: Stage, processor: PVCProcessor, weights: dict[str, torch.Tensor]
) -> tuple[nn.Module, list[str]]:
    """A stage's model, without language model if the recipe never runs it, and names of new tensors."""
    if not weights:
        return build_model(recipe, stage, processor), []
    return (grow_visual if is_visual(recipe) else grow)(recipe, stage, processor, weights)


def _silent(line: str) -> None:
    """What processes other than the first report."""


def save_weights(model: Any, path: Path) -> None:
    """Write a stage's weights whole or not at all; tied weights once."""
    state = {key: value.contiguous() for key, value in stored_state(model).items()}
    save_file(state, path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)


def _processor(recipe: Recipe, directory: Path) -> PVCProcessor:
    """The run's processor, made once: a resumed run must have the same tokenizer, whatever became of the tasks."""
    if not directory.exists():
        staging = directory.with_name("processor.part")
        started = recipe.start is not None
        (start_processor(recipe) if started else build_processor(recipe)).save_pretrained(staging)
        staging.rename(directory)
    return PVCProcessor.from_pretrained(directory)


def _claim(recipe: Recipe, directory: Path) -> None:
    check_recipe(recipe)
    directory.mkdir(parents=True, exist_ok=True)
    stamp = directory / "recipe.json"
    if stamp.exists() and not written_from(stamp.read_text(encoding="utf-8"), recipe):
        raise UsageError(f"{directory} holds a run of another recipe; choose another directory or remove it")
    if not stamp.exists():  # under torchrun, others may be reading it
        part = directory / "recipe.part"
        part.write_text(recipe.model_dump_json(indent=2), encoding="utf-8")
        part.rename(stamp)


def _run_stage(
    recipe: Recipe, stage: Stage, model: Any, processor: PVCProcessor, directory: Path, options: _Run
) -> Any:
    """Train one stage; returns the model with what it has learned (on the first process alone where it is sharded)."""
    if stage.precision == "bf16" and not torch.cuda.is_available() and not has_bfloat16():
        options.report(
            f"{stage.name}: warning: this CPU has no bfloat16 instructions: precision bf16 is emulated and may be ten "
            "times slower; remove it from the recipe"
        )
    seed = recipe.seed * 1000 + recipe.stages.index(stage)
    parts = _parts(stage, model, processor, directory, seed, options.report)
    stop = StopRequest(options.report)

    def held_out() -> list[dict[str, Any]]:
        return _held_out(stage, Engine(model, processor, None), lambda: stop.name is not None and not sharded())

    fit = Fit(
        seed=seed,
        output=directory / stage.name,
        curve=directory / "curve.jsonl",
        report=options.report,
        measure=held_out if stage.kind == "chat" else parts.measure,
        workers=options.workers,
        minutes=options.minutes if stage is recipe.stages[-1] else None,
        progress=getattr(options.report, "progress", None),
        visual_ids=(processor.image_token_id, processor.video_token_id),
        every_process=sharded(),
        stop=stop,
    )
    adapters = Adapters(stage, model, seed)
    started = time.monotonic()
    fitted = fit_stage(stage, parts.module, parts.dataset, parts.collator, fit, parts.named)
    if fitted.weights and PartialState().is_main_process:
        before, model = model, (build_visual if is_visual(recipe) else build_model)(recipe, stage, processor)
        adapters = Adapters(stage, model, seed)
        if stage.kind == "distill":
            restore(model, fitted.weights, before)
        else:
            _trained(stage, model).load_state_dict(fitted.weights)
    if not sharded() or PartialState().is_main_process:
        adapters.merge()
    if PartialState().is_main_process:
        done = {"steps": fitted.steps, "seconds": round(time.monotonic() - started, 1)}
        done |= {} if fit.minutes is None else {"minutes": fit.minutes}
        (directory / stage.name / "done.json").write_text(json.dumps(done) + "\n", encoding="utf-8")
    return model


def _trained(stage: Stage, model: Any) -> nn.Module:
    return PatchReader(model.model.vision_tower, PATCH_CLASSES) if stage.kind == "patches" else model


def _parts(stage: Stage, model: Any, processor: PVCProcessor, directory: Path, seed: int, report: Report) -> Prepared:
    """What a stage trains and on what; raises UsageError and ConfigError as its data and its teacher do."""
    ledger = Ledger(directory / "bad_rows.jsonl")
    if stage.kind == "distill":
        return prepare(stage, model, processor, seed=seed, report=report, ledger=ledger, directory=directory)
    samples = StageSamples(
        stage,
        seed=seed,
        size=int(dict(processor.video_processor.size)["height"]),
        frames=processor.video_processor.num_frames,
        report=report,
        processor=processor,
        longest=stage.longest or getattr(model.config.text_config, "max_position_embeddings", None),
        ledger=ledger,
    )
    dataset, collator = samples, cast(Any, ChatCollator(processor, stage.pack, stage.loss))
    if stage.kind == "patches":
        collator = PatchCollator(processor)
    if stage.cache is not None:
        cache = directory / "cache" / stage.name
        with PartialState().main_process_first():
            write_cache(samples, processor, cache, report)
        dataset, collator = cast(Any, CachedSamples(cache, stage, seed)), PackedCollator(processor)
    return Prepared(_trained(stage, model), dataset, collator, samples.named)


def _held_out(stage: Stage, engine: Engine, stopped: Callable[[], bool]) -> list[dict[str, Any]]:
    """Free-running answers to held-out samples of a stage's tasks: rows for the curve, none once `stopped`."""
    rows: list[dict[str, Any]] = []
    usual = max(stage.video_frames, key=lambda frames: stage.video_frames[frames])
    for task, mix in stage.tasks.items():
        if stopped():
            return []
        # As the stage asks: its levels, the number of tiles and of frames that it draws most often.
        tiles = max(mix.tiles, key=mix.tiles.count)
        held = Held(levels=mix.levels, tiles=tiles, frames=usual)
        # The processor's own number of steps is the last stage's, which an earlier one has not learned.
        rows += measure(engine, [task], stage.evaluate_count, held, image_steps=stage.most_steps, threads=None)
    return [{"task": row["task"], "accuracy": row["accuracy"]} for row in rows]


def _export(recipe: Recipe, processor: PVCProcessor, weights: dict[str, torch.Tensor], directory: Path) -> Path:
    """The last stage's model in bf16 (modulations and timestep embedder stay float32), with processor and recipe.

    After token distillation alone, all tensors have the precision of the checkpoint that it started from.
    """
    target = directory / "model"
    model, _ = _stage_model(recipe, recipe.stages[-1], processor, weights)
    if is_visual(recipe):
        export_visual(start_directory(recipe), weights, target)
        return _describe(recipe, processor, model, directory)
    wide = PVCForConditionalGeneration._keep_in_fp32_modules_strict
    halved = {
        key: value if any(part in key for part in wide) else value.to(torch.bfloat16)
        for key, value in stored_state(cast(Any, model)).items()
    }
    model.config.dtype = torch.bfloat16
    cast(Any, model).save_pretrained(target, state_dict=halved)
    return _describe(recipe, processor, model, directory)


def _describe(recipe: Recipe, processor: PVCProcessor, model: nn.Module, directory: Path) -> Path:
    """Write what stands beside the weights: processor, recipe and card."""
    target = directory / "model"
    processor.save_pretrained(target)
    # The language model may not be part of `model`.
    stored = Counter(dict.fromkeys(PARTS, 0))
    for tensor in CheckpointFiles(target).tensors():
        stored[part_of(tensor.name)] += tensor.count
    write_summary(recipe, directory, dict(stored) if is_visual(recipe) else parameters_by_part(model))
    (target / "training.json").write_text(json.dumps(_history(recipe, directory), indent=1) + "\n", encoding="utf-8")
    return target


def _history(recipe: Recipe, directory: Path) -> dict[str, Any]:
    """What a model's training.json says: its recipe with the steps that were made, and what was measured before."""
    told = json.loads(recipe.model_dump_json())
    for stage in told["stages"]:
        done = directory / stage["name"] / "done.json"
        if done.exists():
            stage.update(json.loads(done.read_text(encoding="utf-8")))
    before = directory / "model" / "training.json"
    measured = json.loads(before.read_text(encoding="utf-8")).get("accuracy") if before.exists() else None
    return {"recipe": told, **({"accuracy": measured} if measured else {})}


__all__ = ["run_recipe", "save_weights"]
