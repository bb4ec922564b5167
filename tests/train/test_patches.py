"""The stage that teaches the tower to name patches."""

import pytest
import torch

from pvc.model.vision import PVCVisionModel
from pvc.testing import tiny_vision_config
from pvc.train.patch_pretraining import PatchClassifier


@pytest.mark.parametrize("temporal_layers", [0, 2])
def test_every_trainable_parameter_takes_part_in_a_step(temporal_layers):
    """DDP stops where one does not: the timestep embedder has no reader in a tower without temporal blocks."""
    reader = PatchClassifier(PVCVisionModel(tiny_vision_config(num_temporal_layers=temporal_layers)), classes=5)
    reader(torch.randn(2, 3, 32, 32), torch.zeros(2, 16, dtype=torch.long))["loss"].backward()
    without = [name for name, p in reader.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
