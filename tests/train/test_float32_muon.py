"""Muon in float32 is torch's Muon, to the rounding of its bfloat16."""

import copy

import pytest
import torch

from pvc.train.optimizer import Float32Muon, orthogonalize

OPTIONS = {"lr": 0.02, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}


@pytest.mark.parametrize("nesterov", [True, False])
def test_its_steps_are_those_of_torch(nesterov):
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in ((8, 24), (24, 8), (8, 24), (16, 16))]
    theirs = copy.deepcopy(ours)
    start = [parameter.detach().clone() for parameter in ours]
    optimizers = [
        Float32Muon(ours, nesterov=nesterov, **OPTIONS),
        torch.optim.Muon(theirs, nesterov=nesterov, **OPTIONS),
    ]
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other, before in zip(ours, theirs, start, strict=True):
        moved = other - before
        assert (one - other).norm() < 0.03 * moved.norm()
    # What one saved, the other goes on from.
    optimizers[1].load_state_dict(optimizers[0].state_dict())
    assert torch.equal(
        optimizers[1].state[theirs[0]]["momentum_buffer"], optimizers[0].state[ours[0]]["momentum_buffer"]
    )


def test_singular_values_end_near_one():
    group = torch.optim.Muon([torch.nn.Parameter(torch.zeros(2, 2))]).param_groups[0]
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(5, 12, 40), group))
    assert values.min() > 0.5 and values.max() < 1.4


def test_a_parameter_without_gradient_stays():
    still, moving = (torch.nn.Parameter(torch.ones(4, 4)) for _ in range(2))
    moving.grad = torch.randn(4, 4)
    Float32Muon([still, moving], **OPTIONS).step()
    assert torch.equal(still, torch.ones(4, 4)) and not torch.equal(moving, torch.ones(4, 4))
