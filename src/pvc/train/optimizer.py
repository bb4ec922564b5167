"""Muon for the weight matrices of hidden layers and AdamW for all other parameters, as one optimizer.

Muon follows the orthogonalised momentum of a matrix; its updates are scaled to AdamW's (arXiv 2502.16982), so that
both have one learning rate and one weight decay. Trainer and accelerate take one optimizer. Called by `trainer.py`
for stages with `optimizer: muon`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon

# Parts of the names of matrices that AdamW trains. Modulations and the timestep embedder may hold a closed form, which
# orthogonal updates would destroy; adapters and the maps of a distillation have a low rank.
ADAMW_NAMES = ("modulation", "timestep_embedding", "embeddings.", "lora_", "maps.")
OUTPUT_LAYERS = ("head", "lm_head")


class MuonAdamW(torch.optim.Optimizer):
    """Muon for some groups of parameters and AdamW for the others.

    `param_groups` and `state` hold those of both. The key "optimizer" of a group names the one that updates it, so that
    groups may be split, replaced or loaded from a file.
    """

    def __init__(
        self, muon: list[dict[str, Any]], adamw: list[dict[str, Any]], lr: float, adamw_options: dict[str, Any]
    ) -> None:
        """Take the groups of both.

        Args:
            muon: groups of matrices.
            adamw: all other groups.
            lr: learning rate of groups that name none.
            adamw_options: betas, eps and the like of AdamW.
        """
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "muon": Muon(muon, lr=lr, adjust_lr_fn="match_rms_adamw"),
            "adamw": AdamW(adamw, lr=lr, **adamw_options),
        }
        groups = [
            {**group, "optimizer": name} for name, inner in self.optimizers.items() for group in inner.param_groups
        ]
        super().__init__(groups, {"lr": lr})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for name, inner in self.optimizers.items():
            # At every step, since `load_state_dict` replaces both.
            inner.param_groups = [group for group in self.param_groups if group["optimizer"] == name]
            inner.state = self.state
            inner.step()
        return loss


def muon_names(model: nn.Module) -> set[str]:
    """Return the names of the parameters that Muon trains: matrices of hidden layers.

    AdamW trains embeddings, modulations, the timestep embedder, output layers and adapters. The patch embedding is a
    convolution of pixels, so AdamW trains it, too.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2
        and id(parameter) not in embeddings
        and name.rpartition(".")[0].rpartition(".")[2] not in OUTPUT_LAYERS
        and not any(part in name for part in ADAMW_NAMES)
    }


def build_muon(
    model: nn.Module, decayed: Iterable[str], lr: float, weight_decay: float, adamw_options: dict[str, Any]
) -> MuonAdamW:
    """Build the optimizer of a model's trainable parameters.

    Args:
        model: whole, not sharded: Muon orthogonalises whole matrices.
        decayed: names of the parameters with weight decay.
        lr: learning rate.
        weight_decay: of the `decayed` parameters.
        adamw_options: betas, eps and the like of AdamW.
    """
    matrices, decayed = muon_names(model), set(decayed)
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {
        (is_matrix, is_decayed): [] for is_matrix in (True, False) for is_decayed in (True, False)
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[name in matrices, name in decayed].append(parameter)

    def with_decay(is_matrix: bool) -> list[dict[str, Any]]:
        return [
            {"params": groups[is_matrix, is_decayed], "weight_decay": weight_decay if is_decayed else 0.0}
            for is_decayed in (True, False)
        ]

    return MuonAdamW(with_decay(True), with_decay(False), lr, adamw_options)


__all__ = ["MuonAdamW", "build_muon", "muon_names"]
