"""Runs an ablation: every seed's base, then every arm from it, each to a record that is kept.

A record that is there is not made again, so an ablation can go on days later; the weights of a seed's base are kept
beside the records for as long as they are there, and trained again when they are not. Leaves out the report.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

import pvc.auto  # noqa: F401  # so that a saved processor can be loaded
from pvc.engine.engine import Engine
from pvc.errors import UsageError
from pvc.lab.ablation.arms import ARMS, BASE_RATIO, Arm, give_heads, without_timesteps
from pvc.lab.ablation.measure import forced_share, result, subsets
from pvc.lab.ablation.plan import ArmPlan, Plan, StudyPlan
from pvc.lab.ablation.records import RunRecord, record_name, write_record
from pvc.lab.evaluate.accuracy import HeldOutSet
from pvc.lab.provider import to_example
from pvc.lab.synthetic import PATCH_CLASSES, Sample
from pvc.lab.synthetic.scene import Medium
from pvc.lab.synthetic.trimming import trimmed
from pvc.processing.processor import PVCProcessor
from pvc.train.data.mixture import ChatCollator, PatchCollator, StageDataset
from pvc.train.data.sample_cache import CachedDataset, PackedCollator, write_cache
from pvc.train.model_init import build_model, build_processor, check_recipe, grow, parameters_by_part
from pvc.train.patch_pretraining import PatchClassifier
from pvc.train.pipeline import save_weights
from pvc.train.recipe import Recipe, Stage, written_from
from pvc.train.run_stage import train_stage
from pvc.train.stage_log import Report, StageContext

FORCED_DURING = 100  # samples a task while training: only the shape of the curve is wanted
DATA_SEED = 424242  # the samples of a study are the same for all its arms and seeds; their order is not


@dataclass(frozen=True)
class Place:
    """Where an ablation keeps what: `records` for good, `work` for as long as it runs."""

    records: Path
    work: Path
    report: Report


def run_plan(plan: Plan, place: Place, only: Callable[[str, str, int], bool] = lambda study, arm, seed: True) -> int:
    """Make every record that is missing, and return how many were made; `only(study, arm, seed)` leaves runs out.

    The order is by seed, so that an interrupted ablation has whole ones.
    """
    place.records.mkdir(parents=True, exist_ok=True)
    place.work.mkdir(parents=True, exist_ok=True)
    check_plan(plan)
    made = 0
    for seed in sorted({seed for study in plan.studies for seed in study.seeds}):
        for study in plan.studies:
            for name, arm in study.arms.items():
                target = place.records / record_name(study.name, name, seed)
                if seed not in study.seeds or target.exists() or not only(study.name, name, seed):
                    continue
                started = time.monotonic()
                record = run_arm(plan, study, name, arm, seed, place)
                write_record(record, place.records)
                made += 1
                place.report(f"{study.name} {name} seed {seed}: done in {(time.monotonic() - started) / 60:.1f} min")
    return made


def check_plan(plan: Plan) -> None:
    """Check the base and every arm as recipes are, before hours go into what all of them start from."""
    check_recipe(plan.recipe(0))
    for study in plan.studies:
        if study.base:
            check_recipe(plan.recipe(0, study.base))
        for chosen in study.arms.values():
            stage = arm_stage(study, ARMS[chosen.like], chosen, int(plan.model.vision["num_temporal_layers"]))
            check_recipe(plan.recipe(0, (stage,), chosen.vision))


# What every arm of a seed starts from


def base_weights(plan: Plan, study: StudyPlan, seed: int, place: Place) -> dict[str, torch.Tensor]:
    """Weights that all arms of a study and seed start from, trained when they are not there.

    Raises:
        UsageError: the directory holds the base of another plan.
    """
    seed = seed if study.base_seed is None else study.base_seed
    weights = _trained(plan, plan.base, seed, f"base-{seed}", {}, place)
    if study.base:
        weights = _trained(plan, study.base, seed, f"base-{study.name}-{seed}", weights, place)
    return weights


def _trained(
    plan: Plan, stages: tuple[Stage, ...], seed: int, name: str, weights: dict[str, torch.Tensor], place: Place
) -> dict[str, torch.Tensor]:
    """Weights after `stages`, started from `weights` (or from nothing), kept in the work folder under `name`."""
    directory = place.work / name
    recipe = plan.recipe(seed, stages)
    _belongs(directory, recipe)
    for number, stage in enumerate(stages):
        final = directory / f"{stage.name}.safetensors"
        if not final.exists():
            processor = _processor(plan, place)
            model: Any = (
                grow(recipe, stage, processor, weights)[0] if weights else build_model(recipe, stage, processor)
            )
            trained = PatchClassifier(model.model.vision_tower, PATCH_CLASSES) if stage.kind == "patches" else model
            stage_seed = seed * 1000 + number
            if stage.cache is None:
                collator: Any = PatchCollator(processor) if stage.kind == "patches" else ChatCollator(processor)
                dataset: Any = StageDataset(stage, stage_seed, plan.size)
            else:
                cache = f"{name.rpartition('-')[0]}-{stage.name}"
                dataset, collator = _cached(stage, stage_seed, plan, processor, place, cache, DATA_SEED)
            train_stage(stage, trained, dataset, collator, _fit(stage_seed, directory / stage.name, place))
            save_weights(model, final)
        weights = load_file(final)
    return weights


def _belongs(directory: Path, recipe: Recipe) -> None:
    """Say what a directory of the work folder is made from, or refuse it when it was made from something else."""
    stamp = directory / "settings.json"
    if stamp.exists():
        if not written_from(stamp.read_text(encoding="utf-8"), recipe):
            raise UsageError(f"{directory} is of another plan, or of an earlier version of this one; remove it")
        return
    directory.mkdir(parents=True, exist_ok=True)
    stamp.write_text(recipe.model_dump_json(), encoding="utf-8")


def _processor(plan: Plan, place: Place) -> PVCProcessor:
    """The ablation's processor, the same for all runs; loaded anew, since every arm sets its tokens per frame."""
    directory = place.work / "processor"
    if not directory.exists():
        # Studies may train alike; a recipe wants each of its stages to have a name of its own.
        renamed = (study.stage.model_copy(update={"name": f"study-{study.name}"}) for study in plan.studies)
        own = (stage for study in plan.studies for stage in study.base)
        stages = (*plan.base, *own, *renamed)
        staging = directory.with_name("processor.part")
        build_processor(plan.recipe(0, stages)).save_pretrained(staging)
        staging.rename(directory)
    return PVCProcessor.from_pretrained(directory)


def _cached(
    stage: Stage,
    seed: int,
    plan: Plan,
    processor: PVCProcessor,
    place: Place,
    name: str,
    data_seed: int,
    change: Callable[[Sample], Sample] | None = None,
) -> tuple[CachedDataset, PackedCollator]:
    directory = place.work / "cache" / name
    changed = None if change is None else lambda example: to_example(change(example.origin))
    write_cache(StageDataset(stage, data_seed, plan.size), processor, directory, place.report, changed)
    return CachedDataset(directory, stage, seed), PackedCollator(processor)


def _fit(seed: int, output: Path, place: Place, measure: Any = None) -> StageContext:
    output.mkdir(parents=True, exist_ok=True)
    return StageContext(
        seed=seed,
        output=output,
        curve=output / "curve.jsonl",
        report=place.report,
        measure=measure,
        progress=getattr(place.report, "progress", None),
    )


# One arm


def arm_stage(study: StudyPlan, arm: Arm, chosen: ArmPlan, temporal_layers: int) -> Stage:
    """The study's stage as this arm is trained."""
    ratio = chosen.downsample_ratio or arm.ratio
    exact: dict[str, Any] = {}
    if chosen.init == "exact":
        blocks = round(BASE_RATIO / ratio) ** 2
        exact = {"init": "exact", "compressor_norm_groups": blocks, "image_token_order": "raster"}
    return study.stage.model_copy(
        update={
            "name": study.name,
            "downsample_ratio": ratio,
            "image_steps": chosen.image_steps or {arm.steps: 1.0},
            "num_temporal_layers": chosen.vision.get("num_temporal_layers", temporal_layers) if arm.temporal else 0,
            "frozen": arm.frozen,
            "steps": chosen.steps or study.stage.steps,
            **exact,
        }
    )


def thinned(sample: Sample, part: float) -> Sample:
    """A sample with only a part of each clip's frames: the middle ones of equal stretches. Pictures stay whole."""
    media = []
    for medium in sample.media:
        if not medium.timestamps:
            media.append(medium)
            continue
        count = len(medium.frames)
        keep = max(1, round(count * part))
        chosen = [int((number + 0.5) * count / keep) for number in range(keep)]
        times = tuple(medium.timestamps[place] for place in chosen)
        labels = None if medium.patch_labels is None else medium.patch_labels[chosen]
        media.append(Medium(medium.kind, medium.frames[chosen], times, labels))
    return Sample(
        sample.task, tuple(media), sample.question, sample.answer, sample.level, sample.description, sample.more
    )


def run_arm(plan: Plan, study: StudyPlan, name: str, chosen: ArmPlan, seed: int, place: Place) -> RunRecord:
    """Train and measure one arm of one seed."""
    arm = ARMS[chosen.like]
    stage = arm_stage(study, arm, chosen, int(plan.model.vision["num_temporal_layers"]))
    recipe = plan.recipe(seed, (stage,), chosen.vision)
    processor = _processor(plan, place)
    start = base_weights(plan, study, seed, place)
    thin = arm.frames_part < 1
    change = (lambda sample: thinned(sample, arm.frames_part)) if thin else None

    def shown(sample: Sample) -> Sample:
        """A held-out sample as this arm is asked about it: as many questions as it was trained with."""
        short = trimmed(sample, stage.questions, stage.characters)
        return change(short) if change else short

    model, _ = grow(recipe, stage, processor, start)
    if not arm.conditioned:
        without_timesteps(model)
    if arm.heads > 1:
        give_heads(model, arm.heads, seed)
    cache = f"{study.name}-thin" if thin else study.name
    dataset, collator = _cached(stage, seed, plan, processor, place, cache, DATA_SEED + study.data_seed, change)
    engine = Engine(model, processor, None)
    held = HeldOutSet(level=study.level, frames=study.frames, change=shown)

    def during() -> list[dict[str, Any]]:
        return [
            {"task": task, "accuracy": forced_share(engine, task, held, FORCED_DURING, stage.most_steps)}
            for task in stage.tasks
        ]

    output = place.work / f"{study.name}-{name}-{seed}"
    _belongs(output, recipe)
    commit = commit_of_code()
    started = time.process_time()
    train_stage(stage, model, dataset, collator, _fit(seed, output, place, during))
    seconds = time.process_time() - started  # of this process, with what was measured on the way
    trained = {
        "steps": stage.steps,
        "batch_size": stage.batch_size,
        "samples": stage.steps * stage.batch_size,
        "cpu_seconds": seconds,
        "start": "base" if study.base_seed is None else f"base of seed {study.base_seed}",
    }
    rows = [json.loads(line) for line in (output / "curve.jsonl").read_text(encoding="utf-8").splitlines()]
    return _record(study, name, chosen, seed, engine, held, trained, rows, commit)


def _record(
    study: StudyPlan,
    name: str,
    chosen: ArmPlan,
    seed: int,
    engine: Engine,
    held: HeldOutSet,
    trained: dict[str, Any],
    rows: list[dict[str, Any]],
    commit: str,
) -> RunRecord:
    """What is kept of a run: what it was, how it learned, and what the trained model answers."""
    arm = ARMS[chosen.like]
    most = max(chosen.image_steps or {arm.steps: 1.0})
    steps = study.evaluate_steps if most > 1 and study.kind == "image" else (most,)
    frames = round((study.frames or 8) * arm.frames_part)
    data = {
        "study": study.name,
        "arm": name,
        "seed": seed,
        "commit": commit,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {_device(engine.model)}",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "parameters": _parameters(engine.model),
        "tokens": engine.processor.tokens_per_frame * (frames if study.kind == "video" else most),
        "train": trained,
        "curve": [{"step": row["step"], "loss": row["loss"]} for row in rows if "loss" in row],
        "evals": [
            {"step": row["step"], "task": row["task"], "teacher_forced": row["accuracy"]}
            for row in rows
            if "task" in row
        ],
        "results": [
            result(engine, task, held, study, number, frames) for task in study.stage.tasks for number in steps
        ],
        "subsets": subsets(engine, study, held) if most == 4 and study.kind == "image" else (),
    }
    return RunRecord.model_validate_json(json.dumps(data))


def _device(model: torch.nn.Module) -> str:
    device = next(model.parameters()).device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def commit_of_code() -> str:
    """The commit of the code, with "-dirty" where the package's own files differ from it; "unknown" outside a checkout.

    Reports and plots beside the plan are rewritten after every call: they do not make the code another one.
    """
    package = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("describe", "--always") + ("-dirty" if git("status", "--porcelain", "--", str(package)) else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _parameters(model: Any) -> dict[str, int]:
    parts = parameters_by_part(model)
    total = sum(parts.values())
    return {
        "tower": parts["vision"],
        "temporal": parts["temporal"],
        "projector": parts["compressor"],
        "language": parts["language"],
        "total": total,
    }


__all__ = ["Place", "arm_stage", "base_weights", "check_plan", "run_arm", "run_plan", "thinned"]
