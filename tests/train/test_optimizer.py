"""Muon for matrices and AdamW for the rest: which is which, learning, and going on to the same bits."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file
from torch.optim import AdamW, Muon

from pvc.errors import ConfigError
from pvc.testing import tiny_model
from pvc.train import run_stage
from pvc.train.memory import stage_memory
from pvc.train.optimizer import MuonAdamW, build_muon, get_muon_names
from pvc.train.pipeline import run_recipe
from pvc.train.recipe import Recipe
from tests.train.test_run import TINY


def recipe(**changes):
    stage = {**copy.deepcopy(TINY["stages"][1]), "optimizer": "muon", **changes}
    return Recipe.model_validate({**TINY, "stages": [stage]})


def run(directory, **changes):
    return run_recipe(recipe(**changes), directory, report=lambda line: None)


def final(directory):
    return load_file(directory / "pvc" / "final.safetensors")


def losses(directory):
    rows = [json.loads(line) for line in (directory / "curve.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def distance(one, two):
    """Largest difference of any weight."""
    assert one.keys() == two.keys()
    return max((one[name] - two[name]).abs().max().item() for name in one)


def test_matrices_of_hidden_layers_are_muon_s():
    model = tiny_model()
    matrices = get_muon_names(model)
    left = {name for name, parameter in model.named_parameters() if parameter.ndim > 1} - matrices
    assert {name for name in left if ".layer.3." not in name and ".layer.2." not in name} == {
        "lm_head.weight",
        "model.language_model.embed_tokens.weight",
        "model.multi_modal_projector.norm.modulation.weight",
        "model.vision_tower.embeddings.cls_token",
        "model.vision_tower.embeddings.patch_embeddings.projection.weight",
        "model.vision_tower.embeddings.position_embeddings",
        "model.vision_tower.timestep_embedding.linear_1.weight",
        "model.vision_tower.timestep_embedding.linear_2.weight",
    }
    assert all("modulation" in name for name in left if ".layer.3." in name or ".layer.2." in name)
    for part in ("attention.q_proj", "mlp.fc1", "temporal.attention.projection_layer", "linear_1", "down_proj"):
        assert any(part in name for name in matrices), part


def test_heads_and_adapters_are_adamw_s():
    class Part(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(4, 4)
            self.lora_A = torch.nn.Linear(4, 4)
            self.maps = torch.nn.ModuleDict({"2": torch.nn.Linear(4, 4)})
            self.inner = torch.nn.Linear(4, 4)

    assert get_muon_names(Part()) == {"inner.weight"}
    assert get_muon_names(torch.nn.Linear(4, 4)) == {"weight"}


def grouped(optimizer):
    """Number of values by optimizer and weight decay."""
    sums = {}
    for group in optimizer.param_groups:
        key = group["optimizer"], group["weight_decay"]
        sums[key] = sums.get(key, 0) + sum(parameter.numel() for parameter in group["params"])
    return sums


def test_its_steps_are_those_of_two_optimizers():
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Linear(8, 3))
    other = copy.deepcopy(model)
    optimizer = build_muon(model, {"0.weight", "1.weight"}, 0.01, 0.1, {"betas": (0.9, 0.98)})
    assert grouped(optimizer) == {("muon", 0.1): 72, ("muon", 0.0): 0, ("adamw", 0.1): 0, ("adamw", 0.0): 11}
    muon = type(optimizer.optimizers["muon"])
    assert issubclass(muon, Muon)
    alone = [
        muon([other[0].weight, other[1].weight], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        AdamW([other[0].bias, other[1].bias], lr=0.01, weight_decay=0.0, betas=(0.9, 0.98)),
    ]
    data = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    for step in range(3):
        if step == 2:  # as after a resume
            state = copy.deepcopy(optimizer.state_dict())
            optimizer = build_muon(model, {"0.weight", "1.weight"}, 0.5, 0.0, {})
            optimizer.load_state_dict(state)
            assert isinstance(optimizer, MuonAdamW) and optimizer.param_groups[0]["lr"] == 0.01
        for module, steps in ((model, [optimizer]), (other, alone)):
            module.zero_grad()
            module(data).square().sum().backward()
            for one in steps:
                one.step()
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


def test_a_tiny_model_learns_with_it(tmp_path):
    changes = {"steps": 60, "batch_size": 8, "tasks": {"shape": 1}, "warmup_steps": 5, "learning_rate": 1e-2}
    run(tmp_path, **changes, save_steps=1000)
    seen = losses(tmp_path)
    assert sum(seen[-3:]) / 3 < 0.6 * seen[0]


@pytest.mark.parametrize("changes", [{}, {"rates": {"language_model": 0.5}, "ema": 0.9}], ids=["plain", "rates, ema"])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, monkeypatch, changes):
    run(tmp_path / "whole", **changes)

    def killed(self, args, state, control, **kwargs):
        if state.global_step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run_stage.StageLog, "on_step_begin", killed)
        run(tmp_path / "cut", **changes)
    assert (tmp_path / "cut" / "pvc" / "checkpoint-4").is_dir()
    run(tmp_path / "cut", **changes)
    assert distance(final(tmp_path / "whole"), final(tmp_path / "cut")) == 0
    run(tmp_path / "adamw", **changes, optimizer="adamw")
    assert distance(final(tmp_path / "whole"), final(tmp_path / "adamw")) > 1e-4


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_rates_are_factors_of_groups(tmp_path, monkeypatch, optimizer):
    rates = {}

    def seen(self, args, state, control, optimizer, model, **kwargs):
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        for group in optimizer.param_groups:
            rates.update({names[id(parameter)]: group["lr"] for parameter in group["params"]})

    monkeypatch.setattr(run_stage.StageLog, "on_step_begin", seen)
    run(tmp_path, optimizer=optimizer, steps=2, rates={"language_model": 0.5, "q_proj": 0.25})
    whole = rates["model.vision_tower.encoder.layer.0.mlp.fc1.weight"]
    assert whole > 0
    assert rates["model.language_model.layers.0.mlp.up_proj.weight"] == 0.5 * whole
    assert rates["model.language_model.norm.weight"] == 0.5 * whole
    assert rates["model.language_model.layers.0.self_attn.q_proj.weight"] == 0.25 * whole


def test_adapters_and_frozen_parts(tmp_path):
    lora = {"rank": 2, "alpha": 4, "targets": ["q_proj", "down_proj"]}
    model = run(tmp_path, lora=lora, frozen=["vision_tower"], steps=2)
    assert (model / "model.safetensors").exists()


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
def test_sharded_weights_are_refused_before_anything_runs(tmp_path, monkeypatch, kind):
    monkeypatch.setenv(f"ACCELERATE_USE_{kind}", "true")
    with pytest.raises(ConfigError, match="stage pvc: optimizer muon needs whole weight matrices, which FSDP and"):
        run(tmp_path)
    assert not (tmp_path / "pvc").exists()


def test_memory_of_its_moments():
    from pvc.train.model_init import build_processor

    both = []
    for optimizer in ("adamw", "muon"):
        made = recipe(optimizer=optimizer)
        both.append(stage_memory(made, made.stages[0], build_processor(made), look=1))
    adamw, muon = both
    assert adamw.optimizer == 8 * adamw.trained
    assert 4 * muon.trained < muon.optimizer < adamw.optimizer
