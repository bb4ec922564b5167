"""What a stage may say about its steps: parts of a batch, rates, averages, weighted losses, kept activations."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file

from pvc.errors import PVCError
from pvc.testing import tiny_model
from pvc.train.data.mixture import StageDataset
from pvc.train.pipeline import run_recipe
from pvc.train.recipe import Recipe
from pvc.train.trainer import EMA, get_lr_factor
from tests.train.test_run import TINY


def run(directory, **changes):
    stage = {**copy.deepcopy(TINY["stages"][1]), **changes}
    return run_recipe(Recipe.model_validate({**TINY, "stages": [stage]}), directory, report=lambda line: None)


def final(directory):
    return load_file(directory / "pvc" / "final.safetensors")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    directory = tmp_path_factory.mktemp("plain")
    run(directory)
    return final(directory)


def distance(one, two):
    """Mean difference of all weights: after six steps at 1e-3, of two seeds 6e-4."""
    apart = torch.cat([(one[name] - two[name]).abs().flatten() for name in one])
    return apart.mean().item()


def losses(directory):
    rows = [json.loads(line) for line in (directory / "curve.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.parametrize(
    ("changes", "most"),
    # Other sums of the same gradients round otherwise, and AdamW's first steps make much of a gradient of nearly zero.
    [({"accumulation": 2}, 1e-5), ({"pack": 200}, 1e-5), ({"checkpointing": True}, 0.0)],
    ids=["accumulation", "pack", "checkpointing"],
)
def test_the_same_training_by_another_way(tmp_path, plain, changes, most):
    run(tmp_path, **changes)
    assert distance(plain, final(tmp_path)) <= most
    rows = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert len(rows) == 6
    assert all(row["tokens_per_second"] > row["visual_tokens_per_second"] > 0 for row in rows)
    assert all(row["longest_row"] > 10 and 0 <= row["padding"] < 0.6 for row in rows)


@pytest.mark.parametrize("loss", ["sample", "square"])
def test_weighted_losses_over_parts_of_a_batch(tmp_path, loss, plain):
    run(tmp_path / "whole", loss=loss)
    run(tmp_path / "parts", loss=loss, accumulation=2, pack=200)
    whole, parts = final(tmp_path / "whole"), final(tmp_path / "parts")
    assert distance(whole, parts) < 1e-5 < distance(whole, plain)
    assert losses(tmp_path / "whole") == pytest.approx(losses(tmp_path / "parts"), rel=1e-4)


def test_rates_by_module(tmp_path, plain):
    run(tmp_path / "rates", rates={"language_model": 1e-9, "embed_tokens": 1.0})
    made = final(tmp_path / "rates")
    run(tmp_path / "start", steps=1, learning_rate=1e-12)
    start = final(tmp_path / "start")
    for name, tensor in made.items():
        moved = (tensor - start[name]).abs().max().item()
        if "language_model" in name and "embed_tokens" not in name:
            assert moved < 1e-7, name
        elif "temporal" not in name and "k_proj.bias" not in name:  # no softmax feels a key's bias
            assert moved > 1e-5, name
    assert get_lr_factor("model.language_model.embed_tokens.weight", {"language_model": 2.0, "embed": 3.0}) == 3.0
    assert get_lr_factor("lm_head", {"language_model": 2.0}) == 1.0


def test_an_average_is_what_is_left_and_survives_a_stop(tmp_path, monkeypatch, plain):
    run(tmp_path / "whole", ema=0.9)
    whole = final(tmp_path / "whole")
    assert 0 < distance(whole, plain) < 1e-2
    from pvc.train import run_stage

    def killed(self, args, state, control, **kwargs):
        if state.global_step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_stage.StageLog, "on_step_begin", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", ema=0.9)
    run(tmp_path / "cut", ema=0.9)
    assert distance(whole, final(tmp_path / "cut")) == 0
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut" / "curve.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps)), "what a stopped run had written further on is not there twice"


def test_the_average_by_hand():
    model = torch.nn.Linear(1, 1, bias=False)
    average = EMA(0.5, model)
    expected = model.weight.item()
    state = type("State", (), {})()
    for step in range(1, 5):
        model.weight.data.fill_(step)
        state.global_step = step
        average.on_step_end(None, state, None)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    average.copy_to_model()
    assert model.weight.item() == pytest.approx(expected)


def test_checkpointed_gradients_are_equal_and_activations_are_made_again():
    from pvc.testing import tiny_config, tiny_processor
    from pvc.train.data.collate import encode
    from pvc.train.recipe import Stage

    stage = Stage(name="x", kind="chat", steps=4, batch_size=3, image_steps=2, tasks={"match": 1}, video_frames={3: 1})
    processor = tiny_processor(tiny_config(image_steps=2), max_tiles=1)
    samples = StageDataset(stage, 0, 32)
    batch = encode(processor, *[samples[index] for index in range(3)])
    grads, kept = [], []
    for checkpointing in (False, True):
        model = tiny_model(image_steps=2).train()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: (s.append(t.numel()), t)[1], lambda t: t):
            loss = model(**batch, use_cache=False).loss
        loss.backward()
        grads.append({name: parameter.grad for name, parameter in model.named_parameters()})
        kept.append(sum(sizes))
    assert all(torch.equal(grads[0][name], grads[1][name]) for name in grads[0])
    assert kept[1] < 0.6 * kept[0]


def test_a_loss_that_is_no_number_names_its_batch(tmp_path):
    with pytest.raises(PVCError, match=r"stopped before it. Its batch: examples \d+ to \d+, generated") as caught:
        run(tmp_path, learning_rate=1e30, warmup_steps=0, max_grad_norm=1e30)
    assert "pvc" in str(caught.value)
