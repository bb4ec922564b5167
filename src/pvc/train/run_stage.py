"""Run one stage of training on transformers' Trainer, on one process or many.

The log is in `stage_log.py`, the steps are in `trainer.py`. Called by `pipeline.py`, which does what comes before and
after a stage.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import PreTrainedModel, TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.trainer_callback import PrinterCallback

from pvc.errors import ConfigError, Interrupted, UsageError
from pvc.train.interrupt import Saving
from pvc.train.recipe import Stage
from pvc.train.stage_log import StageContext, StageLog
from pvc.train.time_budget import TimeBudget
from pvc.train.trainer import EMA, STAGING, StageTrainer, complete


@dataclass(frozen=True)
class StageResult:
    """Result of a stage.

    Attributes:
        steps: number of optimizer steps.
        weights: all weights, on the first process alone; None if the model was trained in place (not sharded).
    """

    steps: int
    weights: dict[str, torch.Tensor] | None = None


def is_sharded() -> bool:
    """Return whether the launcher shards the weights over the processes (FSDP or DeepSpeed ZeRO-3)."""
    return any(os.environ.get(f"ACCELERATE_USE_{kind}", "").lower() in ("1", "true") for kind in ("FSDP", "DEEPSPEED"))


@contextmanager
def _shards_on_cpu() -> Iterator[None]:
    """Let accelerate shard weights over CPU processes, which it supports for accelerators alone."""
    state = PartialState()
    shared = state._shared_state
    if not (is_sharded() and state.distributed_type == DistributedType.MULTI_CPU):
        yield
        return
    shared["distributed_type"] = DistributedType.MULTI_GPU
    try:
        yield
    finally:
        shared["distributed_type"] = DistributedType.MULTI_CPU


def check_sharding(stage: Stage) -> None:
    """Raise ConfigError if the launcher shards the weights but the stage needs them whole in every process."""
    if not is_sharded():
        return
    prefix = f"stage {stage.name}: "
    if stage.ema is not None:
        raise ConfigError(f"{prefix}ema needs the whole weights in every process: not with FSDP, DeepSpeed")
    if stage.optimizer == "muon":
        raise ConfigError(
            f"{prefix}optimizer muon needs whole weight matrices, which FSDP and DeepSpeed shard; set optimizer: "
            "adamw, or launch with torchrun alone (DDP)"
        )


def train_stage(
    stage: Stage,
    model: nn.Module,
    dataset: Any,
    collator: Any,
    context: StageContext,
    describe_batch: Callable[[int], str] = lambda batch: "",
) -> StageResult:
    """Train a model for one stage, resuming from the last checkpoint in `context.output` if there is one.

    Args:
        stage: what is trained, and how.
        model: is trained in place, unless its weights are sharded.
        dataset: examples by index.
        collator: turns a list of examples into a batch.
        context: seed, directories and callbacks of the run.
        describe_batch: returns a description of a batch by its number, for error messages.

    Raises:
        UsageError: the batch does not divide among the processes, or no parameter has a name of `frozen` or `trained`.
        ConfigError: the weights are sharded, and the stage has an EMA or Muon.
        PVCError: the loss or a gradient is not finite.
        Interrupted: SIGINT, SIGTERM or `--stop-after`; the last step is in a checkpoint.
    """
    check_sharding(stage)
    set_trainable(stage, model)
    _set_attention(stage, model)
    budget = None if context.minutes is None else TimeBudget(context.minutes, stage, context.output / "clock.json")
    log, saving = StageLog(stage, context, budget), Saving(stage.save_minutes, context.stop)
    ema = None if stage.ema is None else EMA(stage.ema, model)
    arguments = _build_arguments(stage, context)  # resets accelerate's state
    with _shards_on_cpu():
        trainer = StageTrainer(
            model=model,
            args=arguments,
            train_dataset=dataset,
            data_collator=collator,
            callbacks=[callback for callback in (log, budget, ema, saving) if callback is not None],
        )
        trainer.stage, trainer.seed, trainer.stage_log, trainer.ema = stage, context.seed, log, ema
        trainer.describe_batch = describe_batch
        trainer.remove_callback(PrinterCallback)
        with context.stop.watch():
            trainer.train(resume_from_checkpoint=_prepare_resume(context, budget, ema))
        if saving.stopped:
            step = trainer.state.global_step
            path = context.output / f"checkpoint-{step}"
            of = "" if context.minutes is not None else f" of {stage.steps}"
            raise Interrupted(
                f"{context.stop.name or 'stopped'}: stage {stage.name} ended after step {step}{of}; saved in {path}"
            )
        if ema is not None:
            ema.copy_to_model()
        return StageResult(int(trainer.state.global_step), _gather_weights(trainer) if is_sharded() else None)


def _prepare_resume(context: StageContext, budget: TimeBudget | None, ema: EMA | None) -> str | None:
    """Return the last checkpoint, if there is one, after loading the states that Trainer does not restore."""
    if PartialState().is_main_process:
        shutil.rmtree(context.output / STAGING, ignore_errors=True)  # of a run that was killed while saving
    last = next(iter(complete(context.output, context.report)), None)
    if last is None:
        return None
    context.report(f"{context.output.name}: going on from {last.name}")
    if budget is not None:
        budget.resume()
    if ema is not None:
        ema.load(last)
    return str(last)


def _gather_weights(trainer: StageTrainer) -> dict[str, Any]:
    """Gather all weights on the CPU of the first process; all processes must call this."""
    model = trainer.model
    if trainer.is_fsdp_enabled:
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return get_model_state_dict(model, options=options)
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    # Otherwise every model that is built later would be sharded, too, and wait for the other processes.
    unset_hf_deepspeed_config()
    return weights


def set_trainable(stage: Stage, model: nn.Module) -> None:
    """Set `requires_grad` of a model's parameters by the stage's `trained` and `frozen`.

    Args:
        stage: of the training.
        model: whose parameters are changed.

    Raises:
        UsageError: no parameter has a name of `trained` or `frozen`.
    """
    for part in stage.trained:
        if not any(part in name for name, _ in model.named_parameters()):
            raise UsageError(f"stage {stage.name}: trained names {part!r}, which is in no parameter's name")
    if stage.trained:
        for name, parameter in model.named_parameters():
            is_added = "lora_" in name or name.startswith("maps.")  # by LoRA, by the loss of a distillation
            parameter.requires_grad_(is_added or any(part in name for part in stage.trained))
    for part in stage.frozen:
        matching = [parameter for name, parameter in model.named_parameters() if part in name]
        if not matching:
            raise UsageError(f"stage {stage.name}: frozen names {part!r}, which is in no parameter's name")
        for parameter in matching:
            parameter.requires_grad_(False)


def _set_attention(stage: Stage, model: nn.Module) -> None:
    """Use matrix products instead of the fused attention for bf16 on a CPU.

    There the backward pass of torch's fused kernel is three times slower in bf16 than in float32 (torch 2.13, short
    sequences). That costs more than bf16 saves. Of all four combinations, matrix products in bf16 are the fastest.
    """
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and stage.precision == "bf16" and not torch.cuda.is_available():
            module.set_attn_implementation("eager")


def _build_arguments(stage: Stage, context: StageContext) -> TrainingArguments:
    on_gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(context.output),
        max_steps=stage.steps,
        per_device_train_batch_size=_compute_device_batch_size(stage),
        gradient_accumulation_steps=stage.accumulation,
        **_get_checkpointing_options(stage),
        learning_rate=stage.learning_rate,
        **_get_schedule_options(stage),
        warmup_steps=stage.warmup_steps,
        weight_decay=stage.weight_decay,
        adam_beta2=0.98,
        max_grad_norm=stage.max_grad_norm,
        logging_steps=max(1, min(20, stage.steps // 20)),
        logging_nan_inf_filter=False,
        # Every parameter takes part in every step (`VisualFeatures.join_empty_pass`).
        ddp_find_unused_parameters=False,
        ddp_backend="gloo" if PartialState().num_processes > 1 and not on_gpu else None,
        save_steps=stage.save_steps,
        save_total_limit=None,
        seed=context.seed,
        data_seed=context.seed,
        report_to=[],
        use_cpu=not on_gpu,
        bf16=stage.precision == "bf16" or (stage.precision is None and on_gpu),
        dataloader_num_workers=context.workers,
        dataloader_persistent_workers=context.workers > 0,
        remove_unused_columns=False,
        label_names=["labels"],
        disable_tqdm=True,
        # Examples are already in random order, and a resumed run must have the same order.
        train_sampling_strategy="sequential",
    )
    # One process uses one GPU. Otherwise Trainer would split a batch over all GPUs, but packed frames cannot be split.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _get_schedule_options(stage: Stage) -> dict[str, Any]:
    """Return Trainer's options for the learning rate after the warm-up."""
    if stage.schedule == "cosine":
        return {"lr_scheduler_type": "cosine"}
    options = {"num_decay_steps": stage.decay_length, "decay_type": "linear"}
    return {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": options}


def _get_checkpointing_options(stage: Stage) -> dict[str, Any]:
    """Return Trainer's option, which had another name before transformers 5.24."""
    if not stage.checkpointing:
        return {}
    is_new = "activation_checkpointing" in TrainingArguments.__dataclass_fields__
    name = "activation_checkpointing" if is_new else "gradient_checkpointing"
    return {name: True, f"{name}_kwargs": {"use_reentrant": False}}


def _compute_device_batch_size(stage: Stage) -> int:
    """Return the examples per process and forward pass; the batch size of a recipe counts all processes."""
    processes = PartialState().num_processes
    if stage.batch_size % (processes * stage.accumulation):
        parts = f" in {stage.accumulation} parts" if stage.accumulation > 1 else ""
        raise UsageError(f"a batch of {stage.batch_size} does not divide among {processes} processes{parts}")
    return stage.batch_size // processes // stage.accumulation


__all__ = ["StageResult", "check_sharding", "is_sharded", "set_trainable", "train_stage"]
