"""Tower and compressor of a checkpoint without its language model: load, train and write back.

The token loss does not run the language model, so that an 8B checkpoint needs only the memory of its tower. Called by
`setup.py`, `stage_model.py` and `export.py`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pvc.checkpoint.files import CheckpointFiles, read_header
from pvc.checkpoint.loading import check_quantization, load_config
from pvc.checkpoint.stored import read_values
from pvc.errors import CheckpointError
from pvc.model.compressor import PVCMultiModalProjector
from pvc.model.config import PVCConfig
from pvc.model.features import VisualFeatures
from pvc.model.vision import PVCVisionModel

PREFIXES = ("model.vision_tower.", "model.multi_modal_projector.")
INDEX = "model.safetensors.index.json"


class VisualParts(VisualFeatures, nn.Module):
    """Tower and compressor, with `encode_clips` and the methods that use it.

    Args:
        config: of the whole model.
        tower: vision tower.
        projector: compressor.
    """

    def __init__(self, config: PVCConfig, tower: PVCVisionModel, projector: PVCMultiModalProjector) -> None:
        super().__init__()
        self.config = config
        self.vision_tower, self.multi_modal_projector = tower, projector


class VisualModel(nn.Module):
    """Tower and compressor with their names in the state dict of a whole model.

    Args:
        config: of the whole model.
        tower: vision tower.
        projector: compressor.
    """

    _no_split_modules = ["PVCVisionLayer"]

    def __init__(self, config: PVCConfig, tower: PVCVisionModel, projector: PVCMultiModalProjector) -> None:
        super().__init__()
        self.config = config
        self.model = VisualParts(config, tower, projector)

    @classmethod
    def from_config(cls, config: PVCConfig) -> VisualModel:
        """Build the model with random weights, float32."""
        return cls(config, PVCVisionModel._from_config(config.vision_config), PVCMultiModalProjector(config))

    @classmethod
    def from_model(cls, model: Any) -> VisualModel:
        """Build the model from a whole model; both share the modules."""
        if isinstance(model, cls):
            return model
        return cls(model.config, model.model.vision_tower, model.model.multi_modal_projector)


def load_visual_weights(directory: str | Path | None) -> dict[str, torch.Tensor]:
    """Read the tensors of tower and compressor of a checkpoint, float32, by name.

    Raises:
        CheckpointError: there is no PVC checkpoint, or its weights are quantised.
    """
    files = CheckpointFiles(directory)
    check_quantization(files)
    if "quantization_config" in files.config:
        raise CheckpointError(f"{files.directory}: quantised weights cannot be distilled; pass the unquantised ones")
    return {
        tensor.name: read_values(shard, tensor).float()
        for shard in files.shards
        for tensor in read_header(shard)[0]
        if tensor.name.startswith(PREFIXES)
    }


def load_visual(directory: str | Path | None) -> VisualModel:
    """Load tower and compressor of a checkpoint, float32.

    Raises:
        CheckpointError: there is no PVC checkpoint, or tensors are missing, unknown or of the wrong shape.
    """
    files = CheckpointFiles(directory)
    with torch.device("meta"):
        model = VisualModel.from_config(load_config(files))
    _fill_model(model, load_visual_weights(directory), str(files.directory))
    return model


def _fill_model(model: nn.Module, weights: dict[str, torch.Tensor], name: str) -> None:
    """Replace the weights of a model; raise CheckpointError, with `name` in its message, if they do not fit."""
    try:
        model.load_state_dict(weights, strict=True, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{name}: {' '.join(str(error).split())[:300]}") from error


def export_visual(start: str | Path | None, weights: dict[str, torch.Tensor], target: Path) -> None:
    """Write a copy of a checkpoint with other weights of tower and compressor, each in its stored dtype.

    Args:
        start: directory of the checkpoint; all its other tensors and its configuration are copied, one file at a time.
        weights: by name, as `load_visual_weights` returns them.
        target: directory to write to.
    """
    files = CheckpointFiles(start)
    target.mkdir(parents=True, exist_ok=True)
    for shard in files.shards:
        tensors = load_file(shard)
        for name in tensors.keys() & weights.keys():
            tensors[name] = weights[name].to(tensors[name].dtype).contiguous()
        part = target / f"{shard.name}.part"
        save_file(tensors, part, metadata={"format": "pt"})
        part.rename(target / shard.name)
    for name in ("config.json", "generation_config.json", INDEX):
        if (files.directory / name).exists():
            shutil.copyfile(files.directory / name, target / name)


__all__ = ["VisualModel", "export_visual", "load_visual", "load_visual_weights"]
