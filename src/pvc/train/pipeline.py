"""Run a recipe stage by stage on transformers' Trainer, with checkpoints and resume.

The directory of a run contains everything: `<stage>/checkpoint-N`, `<stage>/final.safetensors`, `curve.jsonl`,
`curve.png`, TensorBoard's logs and, at the end, `summary.md` and `model` with a card. Evaluation is in `pvc.evaluate`.
Called by `pvc train` and `pvc distill`.
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
from pvc.train.data.tasks import HeldOut, get_provider
from pvc.train.distill.setup import StageParts, prepare_stage, restore_student
from pvc.train.export import export_run
from pvc.train.interrupt import StopRequest
from pvc.train.lora import Adapters
from pvc.train.model_init import (
    build_processor,
    check_recipe,
    get_untied_state,
    initial_processor,
    parameters_by_part,
    resolve_recipe,
)
from pvc.train.plot import plot_curve
from pvc.train.recipe import Recipe, Stage, written_from
from pvc.train.run_stage import check_sharding, is_sharded, train_stage
from pvc.train.stage_log import Report, StageContext
from pvc.train.stage_model import (
    FINAL,
    build_random_model,
    build_stage_model,
    get_stage_seed,
    get_trained_module,
    load_first_weights,
)


@dataclass(frozen=True)
class _RunOptions:
    """Options of a run; `until` is a time of `time.monotonic`."""

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
    """Run or resume a recipe in a directory.

    Args:
        recipe: what to train.
        directory: of the run.
        report: gets lines of text.
        threads: number of cores for the model on a CPU.
        workers: number of processes that read and generate examples.
        minutes: time to train, instead of the last stage's steps; the learning rate follows the clock.
        stop_after: minutes after which the training stops, as by a signal; the learning rate does not change.
        branch: start from the last checkpoint of another run, and decay its learning rate.

    Returns:
        Directory of the finished model.

    Raises:
        UsageError: a task is unknown, or the directory belongs to another recipe.
        ConfigError: a stage cannot train weights as the launcher shards them, or cannot be branched.
        PVCError: the loss or a gradient is not finite.
        Interrupted: a signal or `stop_after` stopped a stage; its last step is in a checkpoint.
    """
    until = None if stop_after is None else time.monotonic() + 60 * stop_after
    recipe, directory = resolve_recipe(recipe), Path(directory)
    for stage in recipe.stages:
        check_sharding(stage)
    disable_progress_bar()  # of every checkpoint's files; progress goes to `report`
    torch.set_num_threads(threads)
    # The other processes wait while the first one fills a cache or evaluates, maybe longer than the default timeout.
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(hours=3))
    with state.main_process_first():  # under torchrun: the first process writes what the others then read
        if branch is not None:
            start_branch(recipe, branch, directory, report)
        recipe = branched(recipe, directory)
        _claim_directory(recipe, directory)
        processor = _load_processor(recipe, directory / "processor")
    options = _RunOptions(report if state.is_main_process else _ignore, workers, minutes, until)
    weights = load_first_weights(recipe)
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
    options: _RunOptions,
) -> dict[str, torch.Tensor]:
    """Train a stage from the previous weights unless it is finished; return its weights."""
    report, final = options.report, directory / stage.name / FINAL
    if final.exists():
        report(f"{stage.name}: done before")
        return load_file(final)
    model, new_names = build_stage_model(recipe, stage, processor, weights)
    parts = ", ".join(f"{part} {count:,}" for part, count in parameters_by_part(model).items())
    has_time_budget = options.minutes is not None and stage is recipe.stages[-1]
    length = f"{options.minutes:g} minutes, batches" if has_time_budget else f"{stage.steps} steps"
    report(f"{stage.name}: {length} of {stage.batch_size}; parameters: {parts}")
    if new_names:
        report(f"{stage.name}: {len(new_names)} tensors get new values: {', '.join(new_names[:6])} ...")
    model = _run_stage(recipe, stage, model, processor, directory, options)
    if PartialState().is_main_process:
        save_weights(model, final)
        plot_curve(directory / "curve.jsonl", directory / "curve.png")
    PartialState().wait_for_everyone()
    return load_file(final)


def _ignore(line: str) -> None:
    """Report nothing, as all processes but the first."""


def save_weights(model: Any, path: Path) -> None:
    """Write a stage's weights completely or not at all; tied weights once.

    Args:
        model: of the stage.
        path: of the safetensors file.
    """
    state = {key: value.contiguous() for key, value in get_untied_state(model).items()}
    save_file(state, path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)


def _load_processor(recipe: Recipe, directory: Path) -> PVCProcessor:
    """Load the run's processor; build it in the first run, so that a resumed run has the same tokenizer."""
    if not directory.exists():
        staging = directory.with_name("processor.part")
        (initial_processor(recipe) if recipe.start is not None else build_processor(recipe)).save_pretrained(staging)
        staging.rename(directory)
    return PVCProcessor.from_pretrained(directory)


def _claim_directory(recipe: Recipe, directory: Path) -> None:
    """Write the recipe into a new directory, or check that an existing directory has the same recipe."""
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
    recipe: Recipe, stage: Stage, model: Any, processor: PVCProcessor, directory: Path, options: _RunOptions
) -> Any:
    """Train one stage; return the trained model (on the first process alone if it is sharded)."""
    if stage.precision == "bf16" and not torch.cuda.is_available() and not has_bfloat16():
        options.report(
            f"{stage.name}: warning: this CPU has no bfloat16 instructions: precision bf16 is emulated and may be ten "
            "times slower; remove it from the recipe"
        )
    seed = get_stage_seed(recipe, stage)
    parts = _build_parts(stage, model, processor, directory, seed, options.report)
    stop = StopRequest(options.report, options.until)

    def measure() -> list[dict[str, Any]]:
        return _measure_held_out(
            stage, Engine(model, processor, None), lambda: stop.name is not None and not is_sharded()
        )

    context = StageContext(
        seed=seed,
        output=directory / stage.name,
        curve=directory / "curve.jsonl",
        report=options.report,
        measure=measure if stage.kind == "chat" else parts.measure,
        workers=options.workers,
        minutes=options.minutes if stage is recipe.stages[-1] else None,
        progress=getattr(options.report, "progress", None),
        visual_ids=(processor.image_token_id, processor.video_token_id),
        every_process=is_sharded(),
        stop=stop,
    )
    adapters = Adapters(stage, model, seed)
    started = time.monotonic()
    result = train_stage(stage, parts.module, parts.dataset, parts.collator, context, parts.describe_batch)
    if result.weights and PartialState().is_main_process:
        untrained, model = model, build_random_model(recipe, stage, processor)
        adapters = Adapters(stage, model, seed)
        if stage.kind == "distill":
            restore_student(model, result.weights, untrained)
        else:
            get_trained_module(stage, model).load_state_dict(result.weights)
    if not is_sharded() or PartialState().is_main_process:
        adapters.merge()
    if PartialState().is_main_process:
        done = {"steps": result.steps, "seconds": round(time.monotonic() - started, 1)}
        done |= {} if context.minutes is None else {"minutes": context.minutes}
        (directory / stage.name / "done.json").write_text(json.dumps(done) + "\n", encoding="utf-8")
    return model


def _build_parts(
    stage: Stage, model: Any, processor: PVCProcessor, directory: Path, seed: int, report: Report
) -> StageParts:
    """Build what a stage trains, and its data; raise UsageError or ConfigError if data or teacher are wrong."""
    bad_row_log = BadRowLog(directory / "bad_rows.jsonl")
    if stage.kind == "distill":
        return prepare_stage(
            stage, model, processor, seed=seed, report=report, bad_row_log=bad_row_log, directory=directory
        )
    examples = StageDataset(
        stage,
        seed=seed,
        size=int(dict(processor.video_processor.size)["height"]),
        frames=processor.video_processor.num_frames,
        report=report,
        processor=processor,
        longest=stage.longest or getattr(model.config.text_config, "max_position_embeddings", None),
        bad_row_log=bad_row_log,
    )
    dataset, collator = examples, cast(Any, ChatCollator(processor, stage.pack, stage.loss))
    if stage.kind == "patches":
        collator = PatchCollator(processor)
    if stage.cache is not None:
        cache = directory / "cache" / stage.name
        with PartialState().main_process_first():
            write_cache(examples, processor, cache, report)
        dataset, collator = cast(Any, CachedDataset(cache, stage, seed)), PackedCollator(processor)
    return StageParts(get_trained_module(stage, model), dataset, collator, examples.describe_batch)


def _measure_held_out(stage: Stage, engine: Engine, is_stopped: Callable[[], bool]) -> list[dict[str, Any]]:
    """Measure free-running answers to held-out examples of a stage's tasks.

    Returns:
        Entries for the curve; none if `is_stopped` returns True meanwhile.
    """
    entries: list[dict[str, Any]] = []
    frames = max(stage.video_frames, key=lambda number: stage.video_frames[number])
    for task, mix in stage.tasks.items():
        if is_stopped():
            return []
        # As in training: the levels of the stage, its most frequent numbers of tiles and frames.
        tiles = max(mix.tiles, key=mix.tiles.count)
        # The processor's default number of steps is the last stage's; an earlier stage has not learned it.
        held_out = HeldOut(stage.evaluate_count, mix.levels, tiles, frames, stage.most_steps)
        entries.append({"task": task, "accuracy": get_provider(task).measure(engine, task, held_out)})
    return entries


__all__ = ["run_recipe", "save_weights"]
