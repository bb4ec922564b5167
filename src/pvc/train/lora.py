"""LoRA on the language model for one stage: adapters are added before it and merged into the weights after it.

The adapters are peft's. The result of a stage is an ordinary model in any case. Called by `pipeline.py`, `export.py`
and `memory.py`.
"""

from __future__ import annotations

from typing import Any

import torch

from pvc.errors import UsageError
from pvc.extras import require
from pvc.train.recipe import Lora, Stage


class Adapters:
    """Adapters of one stage, added to its model in place; without `lora` in the stage, nothing is added.

    The weights of the language model are frozen. The stage decides about all others.

    Args:
        stage: of the recipe.
        model: whole model.
        seed: of the adapters' initial weights.
    """

    def __init__(self, stage: Stage, model: Any, seed: int) -> None:
        self.tuner: Any = None
        if stage.lora is not None:
            self.tuner = _inject(stage.lora, stage.name, model.model.language_model, seed)

    def merge(self) -> None:
        """Add the adapters' product to the weights, and remove the adapters."""
        if self.tuner is not None:
            self.tuner.merge_and_unload()
            self.tuner = None


def _inject(lora: Lora, stage: str, language: Any, seed: int) -> Any:
    require("peft", "train")
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        bias="none",
    )
    torch.manual_seed(seed)  # a resumed run builds the same adapters before it loads their weights
    try:
        return LoraModel(language, {"default": config}, "default")
    except ValueError as error:
        raise UsageError(f"stage {stage}: lora.targets: {' '.join(str(error).split())[:200]}") from error


__all__ = ["Adapters"]
