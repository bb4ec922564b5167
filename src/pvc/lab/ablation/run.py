"""Runner of an ablation: trains every seed's base, then every arm from it, and writes a record of each run.

Existing records are skipped, so that an interrupted ablation can be resumed. The weights of a base are stored in the
work directory; if they are missing, the base is trained again. Called by `pvc lab ablate`.
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
from pvc.lab.ablation.arms import ARMS, BASE_RATIO, Arm, add_step_heads, fold_timesteps
from pvc.lab.ablation.measure import compute_forced_accuracy, measure_result, measure_subsets
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

EVAL_SAMPLES = 100  # per task during training: enough for the shape of the curve
DATA_SEED = 424242  # all arms and seeds of a study share its samples, in different orders


@dataclass(frozen=True)
class Place:
    """Directories and progress report of an ablation.

    Attributes:
        records: directory of the records, which are the result.
        work: directory of caches and weights, needed only until all runs are finished.
        report: called with a line of progress.
    """

    records: Path
    work: Path
    report: Report


def run_plan(plan: Plan, place: Place, only: Callable[[str, str, int], bool] = lambda study, arm, seed: True) -> int:
    """Train all runs without a record, and write their records.

    Runs are ordered by seed, so that an interrupted ablation has complete seeds.

    Args:
        plan: the ablation.
        place: directories and progress report.
        only: called with study, arm and seed; runs for which it returns False are skipped.

    Returns:
        Number of records that were written.

    Raises:
        UsageError: an invalid plan, or a work directory of another plan.
    """
    place.records.mkdir(parents=True, exist_ok=True)
    place.work.mkdir(parents=True, exist_ok=True)
    check_plan(plan)
    count = 0
    for seed in sorted({seed for study in plan.studies for seed in study.seeds}):
        for study in plan.studies:
            for name, arm in study.arms.items():
                target = place.records / record_name(study.name, name, seed)
                if seed not in study.seeds or target.exists() or not only(study.name, name, seed):
                    continue
                started = time.monotonic()
                record = run_arm(plan, study, name, arm, seed, place)
                write_record(record, place.records)
                count += 1
                place.report(f"{study.name} {name} seed {seed}: done in {(time.monotonic() - started) / 60:.1f} min")
    return count


def check_plan(plan: Plan) -> None:
    """Check the base and every arm as recipes, before hours of training are spent on the base."""
    check_recipe(plan.recipe(0))
    for study in plan.studies:
        if study.base:
            check_recipe(plan.recipe(0, study.base))
        for arm_plan in study.arms.values():
            stage = build_arm_stage(study, ARMS[arm_plan.like], arm_plan, int(plan.model.vision["num_temporal_layers"]))
            check_recipe(plan.recipe(0, (stage,), arm_plan.vision))


# Weights that every arm of a seed starts from


def get_base_weights(plan: Plan, study: StudyPlan, seed: int, place: Place) -> dict[str, torch.Tensor]:
    """Load the weights that all arms of a study and seed start from; if they do not exist, train them.

    Args:
        plan: the ablation.
        study: study of the arms.
        seed: seed of the arms.
        place: directories and progress report.

    Returns:
        Tensors by name.

    Raises:
        UsageError: the work directory has the base of another plan.
    """
    seed = seed if study.base_seed is None else study.base_seed
    weights = _load_or_train(plan, plan.base, seed, f"base-{seed}", {}, place)
    if study.base:
        weights = _load_or_train(plan, study.base, seed, f"base-{study.name}-{seed}", weights, place)
    return weights


def _load_or_train(
    plan: Plan, stages: tuple[Stage, ...], seed: int, name: str, weights: dict[str, torch.Tensor], place: Place
) -> dict[str, torch.Tensor]:
    """Load the weights after `stages` from the directory `name`, or train them, from `weights` if there are any."""
    directory = place.work / name
    recipe = plan.recipe(seed, stages)
    _claim_directory(directory, recipe)
    for number, stage in enumerate(stages):
        final = directory / f"{stage.name}.safetensors"
        if not final.exists():
            processor = _load_processor(plan, place)
            model: Any = (
                grow(recipe, stage, processor, weights)[0] if weights else build_model(recipe, stage, processor)
            )
            trainee = PatchClassifier(model.model.vision_tower, PATCH_CLASSES) if stage.kind == "patches" else model
            stage_seed = seed * 1000 + number
            if stage.cache is None:
                collator: Any = PatchCollator(processor) if stage.kind == "patches" else ChatCollator(processor)
                dataset: Any = StageDataset(stage, stage_seed, plan.size)
            else:
                cache = f"{name.rpartition('-')[0]}-{stage.name}"
                dataset, collator = _load_cached(stage, stage_seed, plan, processor, place, cache, DATA_SEED)
            train_stage(stage, trainee, dataset, collator, _build_context(stage_seed, directory / stage.name, place))
            save_weights(model, final)
        weights = load_file(final)
    return weights


def _claim_directory(directory: Path, recipe: Recipe) -> None:
    """Write the recipe of a work directory, or raise UsageError if it belongs to another recipe."""
    stamp = directory / "settings.json"
    if stamp.exists():
        if not written_from(stamp.read_text(encoding="utf-8"), recipe):
            raise UsageError(f"{directory} is of another plan, or of an earlier version of this one; remove it")
        return
    directory.mkdir(parents=True, exist_ok=True)
    stamp.write_text(recipe.model_dump_json(), encoding="utf-8")


def _load_processor(plan: Plan, place: Place) -> PVCProcessor:
    """Load the processor of the ablation, and build it first if needed.

    It is loaded for every run, since every arm sets its tokens per frame.
    """
    directory = place.work / "processor"
    if not directory.exists():
        # Studies may have equal stages, but the names of a recipe's stages must be unique.
        renamed = (study.stage.model_copy(update={"name": f"study-{study.name}"}) for study in plan.studies)
        study_bases = (stage for study in plan.studies for stage in study.base)
        stages = (*plan.base, *study_bases, *renamed)
        staging = directory.with_name("processor.part")
        build_processor(plan.recipe(0, stages)).save_pretrained(staging)
        staging.rename(directory)
    return PVCProcessor.from_pretrained(directory)


def _load_cached(
    stage: Stage,
    seed: int,
    plan: Plan,
    processor: PVCProcessor,
    place: Place,
    name: str,
    data_seed: int,
    change: Callable[[Sample], Sample] | None = None,
) -> tuple[CachedDataset, PackedCollator]:
    """Write the samples of a stage to the cache `name` if needed, each changed by `change`, and open it."""
    directory = place.work / "cache" / name
    change_example = None if change is None else lambda example: to_example(change(example.origin))
    write_cache(StageDataset(stage, data_seed, plan.size), processor, directory, place.report, change_example)
    return CachedDataset(directory, stage, seed), PackedCollator(processor)


def _build_context(seed: int, output: Path, place: Place, measure: Any = None) -> StageContext:
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


def build_arm_stage(study: StudyPlan, arm: Arm, arm_plan: ArmPlan, temporal_layers: int) -> Stage:
    """Build the training stage of an arm from its study's.

    Args:
        study: study of the arm.
        arm: settings of the arm.
        arm_plan: what the plan changes about it.
        temporal_layers: of the plan's model.
    """
    ratio = arm_plan.downsample_ratio or arm.ratio
    closed_form: dict[str, Any] = {}
    if arm_plan.init == "exact":
        blocks = round(BASE_RATIO / ratio) ** 2
        closed_form = {"init": "exact", "compressor_norm_groups": blocks, "image_token_order": "raster"}
    return study.stage.model_copy(
        update={
            "name": study.name,
            "downsample_ratio": ratio,
            "image_steps": arm_plan.image_steps or {arm.steps: 1.0},
            "num_temporal_layers": arm_plan.vision.get("num_temporal_layers", temporal_layers) if arm.temporal else 0,
            "frozen": arm.frozen,
            "steps": arm_plan.steps or study.stage.steps,
            **closed_form,
        }
    )


def thin_frames(sample: Sample, part: float) -> Sample:
    """Drop frames of each clip of a sample: keep the middle frames of equal intervals. Pictures are not changed.

    Args:
        sample: sample to change.
        part: fraction of the frames to keep.
    """
    media = []
    for medium in sample.media:
        if not medium.timestamps:
            media.append(medium)
            continue
        count = len(medium.frames)
        keep = max(1, round(count * part))
        indices = [int((number + 0.5) * count / keep) for number in range(keep)]
        times = tuple(medium.timestamps[index] for index in indices)
        labels = None if medium.patch_labels is None else medium.patch_labels[indices]
        media.append(Medium(medium.kind, medium.frames[indices], times, labels))
    return Sample(
        sample.task, tuple(media), sample.question, sample.answer, sample.level, sample.description, sample.more
    )


def run_arm(plan: Plan, study: StudyPlan, name: str, arm_plan: ArmPlan, seed: int, place: Place) -> RunRecord:
    """Train and measure one arm of one seed.

    Args:
        plan: the ablation.
        study: study of the arm.
        name: of the arm in the study.
        arm_plan: the arm.
        seed: of the training.
        place: directories and progress report.
    """
    arm = ARMS[arm_plan.like]
    stage = build_arm_stage(study, arm, arm_plan, int(plan.model.vision["num_temporal_layers"]))
    recipe = plan.recipe(seed, (stage,), arm_plan.vision)
    processor = _load_processor(plan, place)
    start = get_base_weights(plan, study, seed, place)
    thin = arm.frames_part < 1
    change = (lambda sample: thin_frames(sample, arm.frames_part)) if thin else None

    def prepare_sample(sample: Sample) -> Sample:
        """Limit a held-out sample to the questions per sample of the training, and drop frames."""
        limited = trimmed(sample, stage.questions, stage.characters)
        return change(limited) if change else limited

    model, _ = grow(recipe, stage, processor, start)
    if not arm.conditioned:
        fold_timesteps(model)
    if arm.heads > 1:
        add_step_heads(model, arm.heads, seed)
    cache = f"{study.name}-thin" if thin else study.name
    dataset, collator = _load_cached(stage, seed, plan, processor, place, cache, DATA_SEED + study.data_seed, change)
    engine = Engine(model, processor, None)
    held = HeldOutSet(level=study.level, frames=study.frames, change=prepare_sample)

    def evaluate() -> list[dict[str, Any]]:
        return [
            {"task": task, "accuracy": compute_forced_accuracy(engine, task, held, EVAL_SAMPLES, stage.most_steps)}
            for task in stage.tasks
        ]

    output = place.work / f"{study.name}-{name}-{seed}"
    _claim_directory(output, recipe)
    commit = get_code_commit()
    started = time.process_time()
    train_stage(stage, model, dataset, collator, _build_context(seed, output, place, evaluate))
    seconds = time.process_time() - started  # of this process, including evaluations during training
    training = {
        "steps": stage.steps,
        "batch_size": stage.batch_size,
        "samples": stage.steps * stage.batch_size,
        "cpu_seconds": seconds,
        "start": "base" if study.base_seed is None else f"base of seed {study.base_seed}",
    }
    rows = [json.loads(line) for line in (output / "curve.jsonl").read_text(encoding="utf-8").splitlines()]
    return _build_record(study, name, arm_plan, seed, engine, held, training, rows, commit)


def _build_record(
    study: StudyPlan,
    name: str,
    arm_plan: ArmPlan,
    seed: int,
    engine: Engine,
    held: HeldOutSet,
    training: dict[str, Any],
    rows: list[dict[str, Any]],
    commit: str,
) -> RunRecord:
    """Measure the trained arm and build its record, with settings and training curve."""
    arm = ARMS[arm_plan.like]
    max_steps = max(arm_plan.image_steps or {arm.steps: 1.0})
    steps = study.evaluate_steps if max_steps > 1 and study.kind == "image" else (max_steps,)
    frames = round((study.frames or 8) * arm.frames_part)
    data = {
        "study": study.name,
        "arm": name,
        "seed": seed,
        "commit": commit,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {_describe_device(engine.model)}",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "parameters": _count_parameters(engine.model),
        "tokens": engine.processor.tokens_per_frame * (frames if study.kind == "video" else max_steps),
        "train": training,
        "curve": [{"step": row["step"], "loss": row["loss"]} for row in rows if "loss" in row],
        "evals": [
            {"step": row["step"], "task": row["task"], "teacher_forced": row["accuracy"]}
            for row in rows
            if "task" in row
        ],
        "results": [
            measure_result(engine, task, held, study, number, frames) for task in study.stage.tasks for number in steps
        ],
        "subsets": measure_subsets(engine, study, held) if max_steps == 4 and study.kind == "image" else (),
    }
    return RunRecord.model_validate_json(json.dumps(data))


def _describe_device(model: torch.nn.Module) -> str:
    device = next(model.parameters()).device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def get_code_commit() -> str:
    """Return the commit of the code, with "-dirty" if files of the package differ; "unknown" outside a checkout.

    Reports and plots beside the plan are rewritten after every call and do not count as a change of the code.
    """
    package = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("describe", "--always") + ("-dirty" if git("status", "--porcelain", "--", str(package)) else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _count_parameters(model: Any) -> dict[str, int]:
    parts = parameters_by_part(model)
    total = sum(parts.values())
    return {
        "tower": parts["vision"],
        "temporal": parts["temporal"],
        "projector": parts["compressor"],
        "language": parts["language"],
        "total": total,
    }


__all__ = [
    "Place",
    "build_arm_stage",
    "check_plan",
    "get_base_weights",
    "run_arm",
    "run_plan",
    "thin_frames",
]
