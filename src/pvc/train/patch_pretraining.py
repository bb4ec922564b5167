"""Pretraining of the vision tower: classify every patch with a linear head that is discarded afterwards.

Without it a small model does not learn to read (docs/training.md). Built by `stage_model.py` for stages of kind
patches.

F frames, S pixels a side, N = 1 + patches.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pvc.model.vision import PVCVisionModel


class PatchClassifier(nn.Module):
    """A tower and a linear head over every patch.

    Args:
        tower: is trained in place.
        classes: number of classes.
    """

    # The loss is a mean over its batch; otherwise Trainer would scale it by the number of processes.
    accepts_loss_kwargs = False

    def __init__(self, tower: PVCVisionModel, classes: int) -> None:
        super().__init__()
        self.tower = tower
        if not tower.config.num_temporal_layers:
            # It has no effect here. DDP raises an error if a trainable parameter takes no part in a step.
            tower.timestep_embedding.requires_grad_(False)
        self.head = nn.Linear(tower.config.hidden_size, classes)

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """Classify patches.

        Args:
            pixel_values: `(F, 3, S, S)` float.
            labels: `(F, patches)` int64 classes.
            **kwargs: ignored.

        Returns:
            `logits` `(F, patches, classes)` and, with labels, the `loss`.
        """
        hidden = self.tower(pixel_values).last_hidden_state[:, 1:]
        logits = self.head(hidden)
        output = {"logits": logits}
        if labels is not None:
            # Most patches are background. With full weight, predicting background everywhere would be a good answer.
            weight = logits.new_ones(logits.shape[-1])
            weight[0] = 0.2
            output["loss"] = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), weight=weight)
        return output


__all__ = ["PatchClassifier"]
