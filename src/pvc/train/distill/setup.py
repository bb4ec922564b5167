"""Assemble a stage of kind distill: student, teacher, loss, examples and evaluation.

Called by `pipeline.py`, `stage_model.py` and `export.py`; `model_init.py` calls the checks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn

from pvc.checkpoint.files import CheckpointFiles
from pvc.checkpoint.loading import load_checkpoint, load_config, load_processor
from pvc.engine.engine import Engine
from pvc.errors import ConfigError
from pvc.model.config import PVCConfig
from pvc.processing.processor import PVCProcessor
from pvc.train.data.records import BadRowLog
from pvc.train.distill.answer_data import AnswerCollator, AnswerDataset, AnswerLog, iterate_first_batches
from pvc.train.distill.answers import EMBEDDING, OUTPUT, AnswerDistiller
from pvc.train.distill.media import MediaCollator, MediaDataset, MediaFolder, load_eval_batches, open_sources
from pvc.train.distill.teacher import check_pair, share_frozen
from pvc.train.distill.teacher_cache import TOP_K, TeacherCache
from pvc.train.distill.tokens import TokenDistiller
from pvc.train.distill.visual import VisualModel, load_visual
from pvc.train.model_init import build_config
from pvc.train.recipe import Recipe, Stage
from pvc.train.run_stage import is_sharded, set_trainable
from pvc.train.stage_log import Measure, Report

VARIANCE_SAMPLES = 16
STUDENT = "student."


@dataclass(frozen=True)
class StageParts:
    """Parts of a stage.

    Attributes:
        module: is trained.
        dataset: examples by index.
        collator: turns a list of examples into a batch.
        describe_batch: returns a description of a batch by its number, for error messages.
        measure: evaluates the module; None if the stage has no evaluation of this kind.
    """

    module: nn.Module
    dataset: Any
    collator: Any
    describe_batch: Callable[[int], str]
    measure: Measure | None = None


def is_visual(recipe: Recipe) -> bool:
    """Return whether no stage needs the language model, so that it is not loaded."""
    return all(stage.is_token_distillation for stage in recipe.stages)


def build_visual(recipe: Recipe, stage: Stage, processor: PVCProcessor) -> VisualModel:
    """Build tower and compressor with random weights in the shape of a stage.

    Args:
        recipe: with the model's shape and the seed.
        stage: of the recipe.
        processor: its `tokens_per_frame` is set to that of the model.
    """
    torch.manual_seed(recipe.seed)
    tokens = processor.image_token_id, processor.video_token_id
    config = build_config(recipe, stage, len(processor.tokenizer), *tokens)
    config._attn_implementation = config.vision_config._attn_implementation = "sdpa"
    processor.tokens_per_frame = config.tokens_per_frame
    return VisualModel.from_config(config)


def grow_visual(
    recipe: Recipe, stage: Stage, processor: PVCProcessor, weights: dict[str, torch.Tensor]
) -> tuple[VisualModel, list[str]]:
    """Build tower and compressor of a stage from the weights of the stage before it.

    Args:
        recipe: with the model's shape and the seed.
        stage: of the recipe.
        processor: its `tokens_per_frame` is set to that of the model.
        weights: of the stage before, by the names of the model's state dict.

    Returns:
        The model and the names of tensors with new values.
    """
    model = build_visual(recipe, stage, processor)
    state = model.state_dict()
    previous = {key: value for key, value in weights.items() if key in state and state[key].shape == value.shape}
    model.load_state_dict({**state, **previous})
    return model, sorted(set(state) - set(previous))


def check_distillation(stage: Stage, config: PVCConfig) -> None:
    """Check a stage's teacher and data before training.

    Args:
        stage: of kind distill.
        config: of the student in this stage.

    Raises:
        ConfigError: teacher and student do not fit together.
        CheckpointError: the teacher is not a PVC model.
        UsageError: a folder has no media.
    """
    assert stage.distill is not None
    check_pair(config, load_config(CheckpointFiles(stage.distill.teacher)), order=stage.is_token_distillation)
    for _ in open_sources(stage):
        pass
    if stage.distill.eval_media is not None:
        if not stage.is_token_distillation:
            raise ConfigError(
                "distill.eval_media is measured by the token loss; with loss 'answers' use `pvc lab eval`"
            )
        MediaFolder(stage.distill.eval_media)
    elif stage.evaluate_every is not None:
        raise ConfigError("evaluate_every needs distill.eval_media, a folder to measure on")


def prepare_stage(
    stage: Stage,
    model: Any,
    processor: PVCProcessor,
    *,
    seed: int,
    report: Report,
    bad_row_log: BadRowLog | None,
    directory: Path,
) -> StageParts:
    """Load the teacher and build what the stage trains.

    Args:
        stage: of kind distill.
        model: the student, a whole model or a `VisualModel`; it is trained in place.
        processor: of the student.
        seed: of examples and new weights.
        report: gets lines about shared memory and bad records.
        bad_row_log: where bad records are logged.
        directory: of the run, for the teacher's answers.

    Raises:
        ConfigError: teacher and student do not fit together.
        CheckpointError: the teacher is not a PVC model.
    """
    assert stage.distill is not None
    torch.manual_seed(seed)  # a resumed run builds the same module before it loads its weights
    if stage.is_token_distillation:
        return _prepare_tokens(stage, model, processor, seed, report, bad_row_log)
    return _prepare_answers(stage, model, processor, seed, report, bad_row_log, directory)


def _get_dataset_options(
    stage: Stage, processor: PVCProcessor, seed: int, report: Report, bad_row_log: BadRowLog | None
) -> dict[str, Any]:
    size = int(dict(processor.video_processor.size)["height"])
    options = {"stage": stage, "seed": seed, "size": size, "frames": processor.video_processor.num_frames}
    return {**options, "report": report, "processor": processor, "bad_row_log": bad_row_log}


def _share_weights(stage: Stage, distiller: nn.Module, student: nn.Module, teacher: nn.Module, report: Report) -> None:
    set_trainable(stage, distiller)
    if not is_sharded():  # sharded weights are different tensors
        report(f"{stage.name}: {share_frozen(student, teacher).describe()}")


def _prepare_tokens(
    stage: Stage, model: Any, processor: PVCProcessor, seed: int, report: Report, bad_row_log: BadRowLog | None
) -> StageParts:
    assert stage.distill is not None
    student, teacher = VisualModel.from_model(model), load_visual(stage.distill.teacher)
    groups = check_pair(student.config, teacher.config)
    distiller = TokenDistiller(student, teacher, groups, stage.distill.target, stage.image_steps)
    _share_weights(stage, distiller, student, teacher, report)
    dataset = MediaDataset(**_get_dataset_options(stage, processor, seed, report, bad_row_log))
    collator = MediaCollator(processor)
    count = min(VARIANCE_SAMPLES, len(dataset))
    distiller.measure_variance((collator([dataset[index]]) for index in range(count)), PartialState().device)
    return StageParts(distiller, dataset, collator, dataset.describe_batch, _build_measure(stage, distiller, processor))


def _prepare_answers(
    stage: Stage,
    model: Any,
    processor: PVCProcessor,
    seed: int,
    report: Report,
    bad_row_log: BadRowLog | None,
    directory: Path,
) -> StageParts:
    assert stage.distill is not None
    files, state = CheckpointFiles(stage.distill.teacher), PartialState()
    config, teacher_processor = load_config(files), load_processor(files)
    check_pair(model.config, config, order=False)
    report_once = report if state.is_main_process else _ignore
    cache = None
    if stage.distill.cache:
        text = config.text_config
        cache = TeacherCache(directory / "teacher" / stage.name, min(TOP_K, text.vocab_size), text.hidden_size)

    @functools.cache
    def engine() -> Engine:
        """Load the teacher when it is first needed; with a complete cache it is not loaded."""
        teacher, _ = load_checkpoint(files.directory, device="cpu", dtype=torch.float32)
        _share_weights(stage, model, model, teacher, report_once)
        return Engine(teacher.to(state.device), teacher_processor, None)

    collator = AnswerCollator(processor, teacher_processor, stage.pack)
    with state.main_process_first():  # the first process runs the teacher and stores its outputs, the others read them
        dataset = AnswerDataset(
            **_get_dataset_options(stage, processor, seed, report_once, bad_row_log),
            answers=AnswerLog(directory / "answers.jsonl"),
            teacher=teacher_processor,
        )
        if state.is_main_process:
            dataset.ask_teacher(engine, report)
        if cache is not None:
            _complete_cache(dataset, cache, engine, collator, report_once)
    distiller = AnswerDistiller(model, None if cache else engine().model)
    set_trainable(stage, distiller)
    engine.cache_clear()
    distiller.measure_variance(iterate_first_batches(dataset, collator, VARIANCE_SAMPLES), state.device)
    return StageParts(distiller, dataset, collator, dataset.describe_batch)


def _complete_cache(
    dataset: AnswerDataset,
    cache: TeacherCache,
    engine: Callable[[], Engine],
    collator: AnswerCollator,
    report: Report,
) -> None:
    """Report the size of missing outputs of the teacher, compute them, and use the cache in training."""
    count, nbytes = dataset.count_missing_outputs(cache)
    if count:
        report(f"distill: outputs of the teacher for {count} samples will take {nbytes / 2**20:,.1f} MiB at most")
        dataset.store_outputs(cache, engine, collator, report)
    dataset.use_cache(cache)


def _ignore(line: str) -> None:
    """Report nothing, as all processes but the first."""


def _build_measure(stage: Stage, distiller: TokenDistiller, processor: PVCProcessor) -> Measure | None:
    """Return a function that measures the explained fraction of the variance of the teacher's tokens: 1 - loss."""
    if stage.distill is None or stage.distill.eval_media is None:
        return None
    frames, steps = processor.video_processor.num_frames, sorted(stage.image_steps)
    examples = load_eval_batches(stage.distill.eval_media, processor, stage.evaluate_count, frames, steps)

    def measure() -> list[dict[str, Any]]:
        was_training, device = distiller.training, next(distiller.parameters()).device
        distiller.eval()
        entries = []
        with torch.no_grad():
            for name, encoded in examples.items():
                batches = [
                    {key: value.to(device) for key, value in batch.items() if key != "num_images"} for batch in encoded
                ]
                losses = [distiller(**batch)["loss"].item() for batch in batches]
                entries.append({"task": name, "accuracy": 1 - sum(losses) / len(losses)})
        distiller.train(was_training)
        return entries

    return measure


def restore_student(model: Any, weights: dict[str, torch.Tensor], untrained: Any) -> None:
    """Load the student's weights from those of a distiller.

    Args:
        model: is changed in place.
        weights: of the distiller, maybe without frozen ones.
        untrained: model with the missing weights.
    """
    student = {name.removeprefix(STUDENT): value for name, value in weights.items() if name.startswith(STUDENT)}
    if model.config.tie_word_embeddings and EMBEDDING in weights:
        student.setdefault(OUTPUT.removeprefix(STUDENT), weights[EMBEDDING])  # one tensor under two names
    others = {name: value for name, value in untrained.state_dict().items() if name not in student}
    model.load_state_dict({**others, **student})


__all__ = [
    "StageParts",
    "build_visual",
    "check_distillation",
    "grow_visual",
    "is_visual",
    "prepare_stage",
    "restore_student",
]
