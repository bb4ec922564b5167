"""Muon for the weight matrices of hidden layers and AdamW for all other parameters, as one optimizer.

Muon follows the orthogonalised momentum of a matrix. Its updates are scaled to AdamW's (arXiv 2502.16982), so that
both have one learning rate and one weight decay. Trainer and accelerate accept only one optimizer. Called by
`trainer.py` for stages with `optimizer: muon`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon

from pvc.checkpoint.precision import has_bfloat16

# Substrings of the names of matrices that AdamW trains. Modulations and the timestep embedder may have a closed form,
# which orthogonal updates would destroy. Adapters and the maps of a distillation have a low rank.
ADAMW_NAMES = ("modulation", "timestep_embedding", "embeddings.", "lora_", "maps.")
OUTPUT_LAYERS = ("head", "lm_head")


class Float32Muon(Muon):
    """Muon whose orthogonalisation runs in float32, for CPUs without bfloat16 instructions.

    torch's Muon orthogonalises in bfloat16, which such a CPU emulates: a step of a small model then takes longer than
    its gradients. Matrices of one shape are orthogonalised together. States and options are those of
    `torch.optim.Muon`.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update all matrices that have a gradient; return the result of `closure`, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for parameters in by_shape.values():
                updates = orthogonalize(torch.stack([self._direction(p, group) for p in parameters]), group)
                # As AdamW's updates: their root mean square is about 0.2 (arXiv 2502.16982).
                rate = group["lr"] * 0.2 * max(parameters[0].shape) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update.to(parameter.dtype), alpha=rate)
        return loss

    def _direction(self, parameter: nn.Parameter, group: dict[str, Any]) -> torch.Tensor:
        """Return the momentum of a parameter, float32, after its gradient has been added."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter.grad, memory_format=torch.preserve_format)
        buffer = state["momentum_buffer"]
        buffer.lerp_(parameter.grad, 1 - group["momentum"])
        return (parameter.grad.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer).float()


def orthogonalize(matrices: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
    """Return matrices with all singular values near 1, by a Newton-Schulz iteration.

    Args:
        matrices: `(N, rows, columns)` float32.
        group: parameter group with the options `ns_coefficients`, `ns_steps` and `eps` of `torch.optim.Muon`.
    """
    a, b, c = group["ns_coefficients"]
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / x.flatten(1).norm(dim=1).clamp(min=group["eps"])[:, None, None]
    for _ in range(group["ns_steps"]):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x


def _get_muon_class() -> type[Muon]:
    is_slow = not torch.cuda.is_available() and not has_bfloat16()
    return Float32Muon if is_slow else Muon


class MuonAdamW(torch.optim.Optimizer):
    """Muon for some groups of parameters and AdamW for the others.

    `param_groups` and `state` have those of both. The key "optimizer" of a group is the name of the optimizer that
    updates it, so that groups may be split, replaced or loaded from a file.

    Args:
        muon: groups of matrices.
        adamw: all other groups.
        lr: learning rate of groups without one.
        adamw_options: betas, eps and other options of AdamW.
    """

    def __init__(
        self, muon: list[dict[str, Any]], adamw: list[dict[str, Any]], lr: float, adamw_options: dict[str, Any]
    ) -> None:
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "muon": _get_muon_class()(muon, lr=lr, adjust_lr_fn="match_rms_adamw"),
            "adamw": AdamW(adamw, lr=lr, **adamw_options),
        }
        groups = [
            {**group, "optimizer": name} for name, inner in self.optimizers.items() for group in inner.param_groups
        ]
        super().__init__(groups, {"lr": lr})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update all parameters that have a gradient; return the result of `closure`, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for name, inner in self.optimizers.items():
            # At every step, because `load_state_dict` replaces both.
            inner.param_groups = [group for group in self.param_groups if group["optimizer"] == name]
            inner.state = self.state
            inner.step()
        return loss


def get_muon_names(model: nn.Module) -> set[str]:
    """Return the names of the parameters that Muon trains: matrices of hidden layers.

    AdamW trains embeddings, modulations, the timestep embedder, output layers and adapters. It also trains the patch
    embedding, which is a convolution of pixels.
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
        model: not sharded, because Muon orthogonalises whole matrices.
        decayed: names of the parameters with weight decay.
        lr: learning rate.
        weight_decay: of the `decayed` parameters.
        adamw_options: betas, eps and other options of AdamW.
    """
    matrices, decayed = get_muon_names(model), set(decayed)
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {
        (is_matrix, is_decayed): [] for is_matrix in (True, False) for is_decayed in (True, False)
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[name in matrices, name in decayed].append(parameter)

    def build_groups(is_matrix: bool) -> list[dict[str, Any]]:
        return [
            {"params": groups[is_matrix, is_decayed], "weight_decay": weight_decay if is_decayed else 0.0}
            for is_decayed in (True, False)
        ]

    return MuonAdamW(build_groups(True), build_groups(False), lr, adamw_options)


__all__ = ["MuonAdamW", "build_muon", "get_muon_names"]
