"""LoRA on the language model for one stage: adapters go in before it and are merged into the weights after it.

The adapters are peft's. What a stage leaves is an ordinary model either way. Called by `pipeline.py`.
"""

from __future__ import annotations

from typing import Any

import torch

from pvc.errors import UsageError
from pvc.extras import require
from pvc.train.recipe import Lora, Stage


class Adapters:
    """The adapters of one stage, in place; nothing where the stage has none.

    The language model's own weights stay as they are; everything else trains as the stage says.
    """

    def __init__(self, stage: Stage, model: Any, seed: int) -> None:
        self.tuner: Any = None
        if stage.lora is not None:
            self.tuner = _inject(stage.lora, stage.name, model.model.language_model, seed)

    def merge(self) -> None:
        """Add what was learned to the weights, and take the adapters out."""
        if self.tuner is not None:
            self.tuner.merge_and_unload()
            self.tuner = None


def _inject(lora: Lora, stage: str, language: Any, seed: int) -> Any:
    require("peft", "train")
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        bias="none",
    )
    torch.manual_seed(seed)  # a run that goes on builds the same before it loads what was learned
    try:
        return LoraModel(language, {"default": settings}, "default")
    except ValueError as error:
        raise UsageError(f"stage {stage}: lora.targets: {' '.join(str(error).split())[:200]}") from error


__all__ = ["Adapters"]
