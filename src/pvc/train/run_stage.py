"""One stage of training on transformers' Trainer: what is trained and how, on one process or many.

Leaves out what comes before and after a stage (`pipeline.py`), its log (`stage_log.py`) and the steps (`trainer.py`).
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
    """What a stage leaves: its steps, and all weights where the model itself holds only a part of them.

    `weights` are on the first process alone; None where the model has been trained in place.
    """

    steps: int
    weights: dict[str, torch.Tensor] | None = None


def sharded() -> bool:
    """Whether a launcher asks for weights that are spread over the processes (FSDP or DeepSpeed ZeRO-3)."""
    return any(os.environ.get(f"ACCELERATE_USE_{kind}", "").lower() in ("1", "true") for kind in ("FSDP", "DEEPSPEED"))


@contextmanager
def _shards_on_cpu() -> Iterator[None]:
    """Let accelerate spread weights over CPU processes: it does so for accelerators alone."""
    state = PartialState()
    shared = state._shared_state
    if not (sharded() and state.distributed_type == DistributedType.MULTI_CPU):
        yield
        return
    shared["distributed_type"] = DistributedType.MULTI_GPU
    try:
        yield
    finally:
        shared["distributed_type"] = DistributedType.MULTI_CPU


def check_sharded(stage: Stage) -> None:
    """Raise ConfigError where a launcher shards the weights and the stage needs whole ones in every process."""
    if not sharded():
        return
    where = f"stage {stage.name}: "
    if stage.ema is not None:
        raise ConfigError(f"{where}ema needs the whole weights in every process: not with FSDP, DeepSpeed")
    if stage.optimizer == "muon":
        raise ConfigError(
            f"{where}optimizer muon needs whole weight matrices, which FSDP and DeepSpeed shard; set optimizer: adamw, "
            "or launch with torchrun alone (DDP)"
        )


def train_stage(
    stage: Stage,
    model: nn.Module,
    dataset: Any,
    collator: Any,
    fit: StageContext,
    named: Callable[[int], str] = lambda batch: "",
) -> StageResult:
    """Train `model` for one stage, going on from the last checkpoint in `fit.output` if there is one.

    `named` says what is in a batch, for errors.

    Raises:
        UsageError: a batch that does not divide among the processes, or a frozen name that no parameter has.
        ConfigError: an average of weights that are sharded, or Muon on them.
        PVCError: the loss stopped being a number.
        Interrupted: SIGINT or SIGTERM; the last step is in a checkpoint.
    """
    check_sharded(stage)
    trainable(stage, model)
    _attend_for(stage, model)
    clock = None if fit.minutes is None else TimeBudget(fit.minutes, stage, fit.output / "clock.json")
    log, saving = StageLog(stage, fit, clock), Saving(stage.save_minutes, fit.stop)
    average = None if stage.ema is None else EMA(stage.ema, model)
    arguments = _arguments(stage, fit)  # it makes accelerate's state anew
    with _shards_on_cpu():
        trainer = StageTrainer(
            model=model,
            args=arguments,
            train_dataset=dataset,
            data_collator=collator,
            callbacks=[callback for callback in (log, clock, average, saving) if callback is not None],
        )
        trainer.stage, trainer.seed, trainer.log_of, trainer.average = stage, fit.seed, log, average
        trainer.named = named
        trainer.remove_callback(PrinterCallback)
        with fit.stop.watch():
            trainer.train(resume_from_checkpoint=_last(fit, clock, average))
        if saving.stopped:
            step = trainer.state.global_step
            where = fit.output / f"checkpoint-{step}"
            of = "" if fit.minutes is not None else f" of {stage.steps}"
            raise Interrupted(
                f"{fit.stop.name or 'stopped'}: stage {stage.name} ended after step {step}{of}; saved in {where}"
            )
        if average is not None:
            average.put()
        return StageResult(int(trainer.state.global_step), _whole_weights(trainer) if sharded() else None)


def _last(fit: StageContext, clock: TimeBudget | None, average: EMA | None) -> str | None:
    """The checkpoint to go on from, if there is one; what Trainer does not know of goes on, too."""
    if PartialState().is_main_process:
        shutil.rmtree(fit.output / STAGING, ignore_errors=True)  # of a run that was killed while it wrote one
    last = next(iter(complete(fit.output, fit.report)), None)
    if last is None:
        return None
    fit.report(f"{fit.output.name}: going on from {last.name}")
    if clock is not None:
        clock.go_on()
    if average is not None:
        average.load(last)
    return str(last)


def _whole_weights(trainer: StageTrainer) -> dict[str, Any]:
    """All weights, on the CPU of the first process; all processes must ask."""
    model = trainer.model
    if trainer.is_fsdp_enabled:
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return get_model_state_dict(model, options=options)
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    # Else every model that is built from now on would be spread, too, and wait for the other processes.
    unset_hf_deepspeed_config()
    return weights


def trainable(stage: Stage, model: nn.Module) -> None:
    """Mark what a stage trains. Raises UsageError for a name that no parameter has."""
    for part in stage.trained:
        if not any(part in name for name, _ in model.named_parameters()):
            raise UsageError(f"stage {stage.name}: trained names {part!r}, which is in no parameter's name")
    if stage.trained:
        for name, parameter in model.named_parameters():
            is_added = "lora_" in name or name.startswith("maps.")  # by adapters, by a distillation's loss
            parameter.requires_grad_(is_added or any(part in name for part in stage.trained))
    for part in stage.frozen:
        found = [parameter for name, parameter in model.named_parameters() if part in name]
        if not found:
            raise UsageError(f"stage {stage.name}: frozen names {part!r}, which is in no parameter's name")
        for parameter in found:
            parameter.requires_grad_(False)


def _attend_for(stage: Stage, model: nn.Module) -> None:
    """Matrix products in place of the fused attention where training is bf16 on a CPU.

    torch's fused kernel is three times slower backwards in bf16 than in float32 there (torch 2.13, short sequences),
    which costs more than bf16 saves; written as matrix products attention is the fastest of all four.
    """
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and stage.precision == "bf16" and not torch.cuda.is_available():
            module.set_attn_implementation("eager")


def _arguments(stage: Stage, fit: StageContext) -> TrainingArguments:
    on_gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(fit.output),
        max_steps=stage.steps,
        per_device_train_batch_size=_share(stage),
        gradient_accumulation_steps=stage.accumulation,
        **_checkpointing(stage),
        learning_rate=stage.learning_rate,
        **_schedule(stage),
        warmup_steps=stage.warmup_steps,
        weight_decay=stage.weight_decay,
        adam_beta2=0.98,
        max_grad_norm=stage.max_grad_norm,
        logging_steps=max(1, min(20, stage.steps // 20)),
        logging_nan_inf_filter=False,
        # Every parameter takes part in every step (`VisualFeatures.join_empty_pass`), so DDP need not look for others.
        ddp_find_unused_parameters=False,
        ddp_backend="gloo" if PartialState().num_processes > 1 and not on_gpu else None,
        save_steps=stage.save_steps,
        save_total_limit=None,
        seed=fit.seed,
        data_seed=fit.seed,
        report_to=[],
        use_cpu=not on_gpu,
        bf16=stage.precision == "bf16" or (stage.precision is None and on_gpu),
        dataloader_num_workers=fit.workers,
        dataloader_persistent_workers=fit.workers > 0,
        remove_unused_columns=False,
        label_names=["labels"],
        disable_tqdm=True,
        # Samples are independent already, and a resumed run must see the same ones.
        train_sampling_strategy="sequential",
    )
    # One process uses one GPU: Trainer would otherwise split a batch over all of them, and packed frames cannot be.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _schedule(stage: Stage) -> dict[str, Any]:
    """Trainer's options for the learning rate after the warm-up."""
    if stage.schedule == "cosine":
        return {"lr_scheduler_type": "cosine"}
    settings = {"num_decay_steps": stage.decay_length, "decay_type": "linear"}
    return {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": settings}


def _checkpointing(stage: Stage) -> dict[str, Any]:
    """Trainer's option, which had another name before transformers 5.24."""
    if not stage.checkpointing:
        return {}
    new = "activation_checkpointing" in TrainingArguments.__dataclass_fields__
    name = "activation_checkpointing" if new else "gradient_checkpointing"
    return {name: True, f"{name}_kwargs": {"use_reentrant": False}}


def _share(stage: Stage) -> int:
    """Samples that a process takes at once, so that a recipe means the same on any number of processes."""
    processes = PartialState().num_processes
    if stage.batch_size % (processes * stage.accumulation):
        parts = f" in {stage.accumulation} parts" if stage.accumulation > 1 else ""
        raise UsageError(f"a batch of {stage.batch_size} does not divide among {processes} processes{parts}")
    return stage.batch_size // processes // stage.accumulation


__all__ = ["StageResult", "check_sharded", "sharded", "train_stage", "trainable"]
