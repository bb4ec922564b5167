"""Puts a stage of kind distill together: student, teacher, loss, samples and what is measured on the way.

Called by `pvc.train.pipeline` and, for its checks, by `pvc.train.model_init`.
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
from pvc.train.distill.answer_data import AnswerCollator, AnswerDataset, AnswerLog, first_batches
from pvc.train.distill.answers import EMBEDDING, OUTPUT, AnswerDistiller
from pvc.train.distill.media import MediaCollator, MediaDataset, MediaFolder, eval_items, open_rows
from pvc.train.distill.teacher import check_pair, share_frozen
from pvc.train.distill.teacher_cache import TOP, TeacherCache
from pvc.train.distill.tokens import TokenDistiller
from pvc.train.distill.visual import VisualModel, load_visual
from pvc.train.model_init import build_config
from pvc.train.recipe import Recipe, Stage
from pvc.train.run_stage import sharded, trainable
from pvc.train.stage_log import Measure, Report

VARIANCE_SAMPLES = 16
STUDENT = "student."


@dataclass(frozen=True)
class StageParts:
    """What a stage trains (`module`), on what, what a batch is called, and how it is measured."""

    module: nn.Module
    dataset: Any
    collator: Any
    named: Callable[[int], str]
    measure: Measure | None = None


def is_visual(recipe: Recipe) -> bool:
    """Whether no stage needs the language model, so that it need not be loaded."""
    return all(stage.is_token_distillation for stage in recipe.stages)


def build_visual(recipe: Recipe, stage: Stage, processor: PVCProcessor) -> VisualModel:
    """Tower and compressor with random weights in the shape that `stage` asks for; the processor is made to fit."""
    torch.manual_seed(recipe.seed)
    tokens = processor.image_token_id, processor.video_token_id
    config = build_config(recipe, stage, len(processor.tokenizer), *tokens)
    config._attn_implementation = config.vision_config._attn_implementation = "sdpa"
    processor.tokens_per_frame = config.tokens_per_frame
    return VisualModel.from_config(config)


def grow_visual(
    recipe: Recipe, stage: Stage, processor: PVCProcessor, weights: dict[str, torch.Tensor]
) -> tuple[VisualModel, list[str]]:
    """Tower and compressor for `stage` that start from `weights`; returns the names of new tensors, too."""
    model = build_visual(recipe, stage, processor)
    state = model.state_dict()
    taken = {key: value for key, value in weights.items() if key in state and state[key].shape == value.shape}
    model.load_state_dict({**state, **taken})
    return model, sorted(set(state) - set(taken))


def check_distillation(stage: Stage, config: PVCConfig) -> None:
    """Check a stage's teacher and data as far as it costs nothing.

    Args:
        stage: of kind distill.
        config: of the student in this stage.

    Raises:
        ConfigError, CheckpointError: teacher and student do not fit together. UsageError: a folder without media.
    """
    assert stage.distill is not None
    check_pair(config, load_config(CheckpointFiles(stage.distill.teacher)), order=stage.is_token_distillation)
    for _ in open_rows(stage):
        pass
    if stage.distill.eval_media is not None:
        if not stage.is_token_distillation:
            raise ConfigError("distill.eval_media is measured by the token loss; with loss 'answers' use `pvc eval`")
        MediaFolder(stage.distill.eval_media)
    elif stage.evaluate_every is not None:
        raise ConfigError("evaluate_every needs distill.eval_media, a folder to measure on")


def prepare(
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
        processor: the student's.
        seed: of samples and of new weights.
        report: gets a line about shared memory, and rows that are passed over.
        ledger: of rows that are passed over.
        directory: of the run, for the teacher's answers.

    Raises:
        ConfigError, CheckpointError: teacher and student do not fit together.
    """
    assert stage.distill is not None
    torch.manual_seed(seed)  # a run that goes on builds the same before it loads what was learned
    if stage.is_token_distillation:
        return _prepare_tokens(stage, model, processor, seed, report, bad_row_log)
    return _prepare_answers(stage, model, processor, seed, report, bad_row_log, directory)


def _samples_options(
    stage: Stage, processor: PVCProcessor, seed: int, report: Report, bad_row_log: BadRowLog | None
) -> dict[str, Any]:
    size = int(dict(processor.video_processor.size)["height"])
    options = {"stage": stage, "seed": seed, "size": size, "frames": processor.video_processor.num_frames}
    return {**options, "report": report, "processor": processor, "bad_row_log": bad_row_log}


def _share(stage: Stage, distiller: nn.Module, student: nn.Module, teacher: nn.Module, report: Report) -> None:
    trainable(stage, distiller)
    if not sharded():  # weights that are spread are no longer the same tensors
        report(f"{stage.name}: {share_frozen(student, teacher).describe()}")


def _prepare_tokens(
    stage: Stage, model: Any, processor: PVCProcessor, seed: int, report: Report, bad_row_log: BadRowLog | None
) -> StageParts:
    assert stage.distill is not None
    student, teacher = VisualModel.from_model(model), load_visual(stage.distill.teacher)
    groups = check_pair(student.config, teacher.config)
    distiller = TokenDistiller(student, teacher, groups, stage.distill.target, stage.image_steps)
    _share(stage, distiller, student, teacher, report)
    samples = MediaDataset(**_samples_options(stage, processor, seed, report, bad_row_log))
    collator = MediaCollator(processor)
    count = min(VARIANCE_SAMPLES, len(samples))
    distiller.measure_variance((collator([samples[place]]) for place in range(count)), PartialState().device)
    return StageParts(distiller, samples, collator, samples.named, _measure(stage, distiller, processor))


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
    report_once = report if state.is_main_process else _silent
    cache = None
    if stage.distill.cache:
        text = config.text_config
        cache = TeacherCache(directory / "teacher" / stage.name, min(TOP, text.vocab_size), text.hidden_size)

    @functools.cache
    def engine() -> Engine:
        """Load the teacher when it is needed first; a complete cache does without it."""
        teacher, _ = load_checkpoint(files.directory, device="cpu", dtype=torch.float32)
        _share(stage, model, model, teacher, report_once)
        return Engine(teacher.to(state.device), teacher_processor, None)

    collator = AnswerCollator(processor, teacher_processor, stage.pack)
    with state.main_process_first():  # the first process asks and stores, the others read
        samples = AnswerDataset(
            **_samples_options(stage, processor, seed, report_once, bad_row_log),
            answers=AnswerLog(directory / "answers.jsonl"),
            teacher=teacher_processor,
        )
        if state.is_main_process:
            samples.ask_teacher(engine, report)
        if cache is not None:
            _fill_cache(samples, cache, engine, collator, report_once)
    distiller = AnswerDistiller(model, None if cache else engine().model)
    trainable(stage, distiller)
    engine.cache_clear()
    distiller.measure_variance(first_batches(samples, collator, VARIANCE_SAMPLES), state.device)
    return StageParts(distiller, samples, collator, samples.named)


def _fill_cache(
    samples: AnswerDataset,
    cache: TeacherCache,
    engine: Callable[[], Engine],
    collator: AnswerCollator,
    report: Report,
) -> None:
    """Print how large the outputs of the teacher that are missing will be, compute them, and let `samples` use them."""
    count, nbytes = samples.missing_outputs(cache)
    if count:
        report(f"distill: outputs of the teacher for {count} samples will take {nbytes / 2**20:,.1f} MiB at most")
        samples.store_outputs(cache, engine, collator, report)
    samples.use_cache(cache)


def _silent(line: str) -> None:
    """What processes other than the first report."""


def _measure(stage: Stage, distiller: TokenDistiller, processor: PVCProcessor) -> Measure | None:
    """What measures the part of the teacher's variance that the student's tokens explain (1 less the loss)."""
    if stage.distill is None or stage.distill.eval_media is None:
        return None
    frames, steps = processor.video_processor.num_frames, sorted(stage.image_steps)
    items = eval_items(stage.distill.eval_media, processor, stage.evaluate_count, frames, steps)

    def measure() -> list[dict[str, Any]]:
        was_training, device = distiller.training, next(distiller.parameters()).device
        distiller.eval()
        rows = []
        with torch.no_grad():
            for name, encoded in items.items():
                batches = [
                    {key: value.to(device) for key, value in one.items() if key != "num_images"} for one in encoded
                ]
                losses = [distiller(**batch)["loss"].item() for batch in batches]
                rows.append({"task": name, "accuracy": 1 - sum(losses) / len(losses)})
        distiller.train(was_training)
        return rows

    return measure


def restore(model: Any, weights: dict[str, torch.Tensor], before: Any) -> None:
    """Put the student's part of a distiller's whole weights into a model, and what it leaves out from `before`."""
    own = {name.removeprefix(STUDENT): value for name, value in weights.items() if name.startswith(STUDENT)}
    if model.config.tie_word_embeddings and EMBEDDING in weights:
        own.setdefault(OUTPUT.removeprefix(STUDENT), weights[EMBEDDING])  # one tensor under two names
    others = {name: value for name, value in before.state_dict().items() if name not in own}
    model.load_state_dict({**others, **own})


__all__ = [
    "StageParts",
    "build_visual",
    "check_distillation",
    "grow_visual",
    "is_visual",
    "prepare",
    "restore",
]
