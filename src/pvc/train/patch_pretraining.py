"""Stage 0: the tower learns to name what every patch shows, with a linear head that is thrown away afterwards.

Without it a small model never starts to read (docs/training.md). Called by `pipeline.py`.

F frames, N = 1 + patches.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pvc.model.vision import PVCVisionModel


class PatchClassifier(nn.Module):
    """A tower and a linear head over every patch."""

    # The loss is a mean of its own batch; otherwise Trainer would scale it by the number of processes.
    accepts_loss_kwargs = False

    def __init__(self, tower: PVCVisionModel, classes: int) -> None:
        super().__init__()
        self.tower = tower
        if not tower.config.num_temporal_layers:
            # Nothing reads it here. DDP stops where a parameter that is to be trained takes no part in a step.
            tower.timestep_embedding.requires_grad_(False)
        self.head = nn.Linear(tower.config.hidden_size, classes)

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """`(F, 3, S, S)` pixels and `(F, patches)` classes to logits `(F, patches, classes)` and the loss."""
        hidden = self.tower(pixel_values).last_hidden_state[:, 1:]
        logits = self.head(hidden)
        output = {"logits": logits}
        if labels is not None:
            # Most patches are background; without less weight for it, naming nothing is a good answer.
            weight = logits.new_ones(logits.shape[-1])
            weight[0] = 0.2
            output["loss"] = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), weight=weight)
        return output


__all__ = ["PatchClassifier"]
