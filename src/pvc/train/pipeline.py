"""Runs a recipe stage by stage on transformers' Trainer, with checkpoints and resume.

A directory holds everything: `<stage>/checkpoint-N`, `<stage>/final`, `curve.jsonl`, `curve.png`, TensorBoard's
logs and, at the end, `summary.md` and `model` with a card. Leaves out evaluation (`pvc.evaluate`). Called by
`pvc train`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from transformers.utils.logging import disable_progress_bar

import pvc.auto  # noqa: F401  # so that a saved processor can be loaded
from pvc.checkpoint.precision import has_bfloat16
from pvc.engine.engine import Engine
from pvc.errors import UsageError
from pvc.processing.processor import PVCProcessor
from pvc.train.branch import Branch, branched, start_branch
from pvc.train.data.mixture import ChatCollator, PatchCollator, StageDataset
from pvc.train.data.records import BadRowLog
from pvc.train.data.sample_cache import CachedDataset, PackedCollator, write_cache
from pvc.train.data.tasks import HeldOut, provider_of
from pvc.train.distill.setup import StageParts, prepare, restore
from pvc.train.export import export_run
from pvc.train.interrupt import StopRequest
from pvc.train.lora import Adapters
from pvc.train.model_init import (
    build_processor,
    check_recipe,
    initial_processor,
    parameters_by_part,
    resolve_recipe,
    stored_state,
)
from pvc.train.plot import draw_curve
from pvc.train.recipe import Recipe, Stage, written_from
from pvc.train.run_stage import check_sharded, sharded, train_stage
from pvc.train.stage_log import Report, StageContext
from pvc.train.stage_model import FINAL, empty_model, first_weights, stage_model, stage_seed, trained_module


@dataclass(frozen=True)
class _Run:
    report: Report
    workers: int
    minutes: float | None
    until: float | None


def run_recipe(
    recipe: Recipe,
    directory: str | Path,
    report: Report = print,
    threads: int = 1,
    workers: int = 0,
    minutes: float | None = None,
    stop_after: float | None = None,
    branch: Branch | None = None,
) -> Path:
    """Run (or go on with) a recipe in `directory`; returns the directory of the finished model.

    Args:
        recipe: what to train.
        directory: of the run.
        report: gets lines of text.
        threads: cores for the model on a CPU.
        workers: processes that draw samples beside the training.
        minutes: train for so long instead of the last stage's steps; the learning rate follows the clock.
        stop_after: minutes after which the training is stopped, as by a signal; the learning rate is not changed.
        branch: start from the last checkpoint of another run, and decay its learning rate.

    Raises:
        UsageError: unknown tasks, or a directory that belongs to another recipe.
        ConfigError: a stage that cannot train weights as the launcher shards them, or that cannot be branched.
        PVCError: the loss stopped being a number.
        Interrupted: a signal or `stop_after` while a stage was trained; its last step is in a checkpoint.
    """
    until = None if stop_after is None else time.monotonic() + 60 * stop_after
    recipe, directory = resolve_recipe(recipe), Path(directory)
    for stage in recipe.stages:
        check_sharded(stage)
    disable_progress_bar()  # of every checkpoint's files: what is seen is `report`'s
    torch.set_num_threads(threads)
    # The others wait while the first process draws a cache or measures; that may take longer than the usual minutes.
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(hours=3))
    with state.main_process_first():  # under torchrun: the first process makes what the others then read
        if branch is not None:
            start_branch(recipe, branch, directory, report)
        recipe = branched(recipe, directory)
        _claim(recipe, directory)
        processor = _processor(recipe, directory / "processor")
    options = _Run(report if state.is_main_process else _silent, workers, minutes, until)
    weights = first_weights(recipe)
    for stage in recipe.stages:
        weights = _finish_stage(recipe, stage, weights, processor, directory, options)
    if state.is_main_process:
        export_run(recipe, processor, weights, directory)
    state.wait_for_everyone()
    return directory / "model"


def _finish_stage(
    recipe: Recipe,
    stage: Stage,
    weights: dict[str, torch.Tensor],
    processor: PVCProcessor,
    directory: Path,
    options: _Run,
) -> dict[str, torch.Tensor]:
    """Train a stage from the weights before it unless it is finished; return the weights after it."""
    report, final = options.report, directory / stage.name / FINAL
    if final.exists():
        report(f"{stage.name}: done before")
        return load_file(final)
    model, fresh = stage_model(recipe, stage, processor, weights)
    parts = ", ".join(f"{part} {count:,}" for part, count in parameters_by_part(model).items())
    clocked = options.minutes is not None and stage is recipe.stages[-1]
    length = f"{options.minutes:g} minutes, batches" if clocked else f"{stage.steps} steps"
    report(f"{stage.name}: {length} of {stage.batch_size}; parameters: {parts}")
    if fresh:
        report(f"{stage.name}: {len(fresh)} tensors get new values: {', '.join(fresh[:6])} ...")
    model = _run_stage(recipe, stage, model, processor, directory, options)
    if PartialState().is_main_process:
        save_weights(model, final)
        draw_curve(directory / "curve.jsonl", directory / "curve.png")
    PartialState().wait_for_everyone()
    return load_file(final)


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
        (initial_processor(recipe) if started else build_processor(recipe)).save_pretrained(staging)
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
    seed = stage_seed(recipe, stage)
    parts = _parts(stage, model, processor, directory, seed, options.report)
    stop = StopRequest(options.report, options.until)

    def held_out() -> list[dict[str, Any]]:
        return _held_out(stage, Engine(model, processor, None), lambda: stop.name is not None and not sharded())

    fit = StageContext(
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
    fitted = train_stage(stage, parts.module, parts.dataset, parts.collator, fit, parts.named)
    if fitted.weights and PartialState().is_main_process:
        before, model = model, empty_model(recipe, stage, processor)
        adapters = Adapters(stage, model, seed)
        if stage.kind == "distill":
            restore(model, fitted.weights, before)
        else:
            trained_module(stage, model).load_state_dict(fitted.weights)
    if not sharded() or PartialState().is_main_process:
        adapters.merge()
    if PartialState().is_main_process:
        done = {"steps": fitted.steps, "seconds": round(time.monotonic() - started, 1)}
        done |= {} if fit.minutes is None else {"minutes": fit.minutes}
        (directory / stage.name / "done.json").write_text(json.dumps(done) + "\n", encoding="utf-8")
    return model


def _parts(stage: Stage, model: Any, processor: PVCProcessor, directory: Path, seed: int, report: Report) -> StageParts:
    """What a stage trains and on what; raises UsageError and ConfigError as its data and its teacher do."""
    bad_row_log = BadRowLog(directory / "bad_rows.jsonl")
    if stage.kind == "distill":
        return prepare(stage, model, processor, seed=seed, report=report, bad_row_log=bad_row_log, directory=directory)
    samples = StageDataset(
        stage,
        seed=seed,
        size=int(dict(processor.video_processor.size)["height"]),
        frames=processor.video_processor.num_frames,
        report=report,
        processor=processor,
        longest=stage.longest or getattr(model.config.text_config, "max_position_embeddings", None),
        bad_row_log=bad_row_log,
    )
    dataset, collator = samples, cast(Any, ChatCollator(processor, stage.pack, stage.loss))
    if stage.kind == "patches":
        collator = PatchCollator(processor)
    if stage.cache is not None:
        cache = directory / "cache" / stage.name
        with PartialState().main_process_first():
            write_cache(samples, processor, cache, report)
        dataset, collator = cast(Any, CachedDataset(cache, stage, seed)), PackedCollator(processor)
    return StageParts(trained_module(stage, model), dataset, collator, samples.named)


def _held_out(stage: Stage, engine: Engine, stopped: Callable[[], bool]) -> list[dict[str, Any]]:
    """Free-running answers to held-out samples of a stage's tasks: rows for the curve, none once `stopped`."""
    rows: list[dict[str, Any]] = []
    usual = max(stage.video_frames, key=lambda frames: stage.video_frames[frames])
    for task, mix in stage.tasks.items():
        if stopped():
            return []
        # As the stage asks: its levels, the number of tiles and of frames that it draws most often.
        tiles = max(mix.tiles, key=mix.tiles.count)
        # The processor's default number of steps is the last stage's, which an earlier stage has not learned.
        held_out = HeldOut(stage.evaluate_count, mix.levels, tiles, usual, stage.most_steps)
        rows.append({"task": task, "accuracy": provider_of(task).measure(engine, task, held_out)})
    return rows


__all__ = ["run_recipe", "save_weights"]
