"""Training runs end to end on a tiny recipe, learns, resumes to the same bits, and leaves a model that loads."""

import copy
import itertools
import json
import types
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import pvc
from pvc.errors import PVCError, UsageError
from pvc.lab.provider import SyntheticTasks
from pvc.train import pipeline as running
from pvc.train import run_stage, time_budget
from pvc.train.pipeline import run_recipe
from pvc.train.recipe import Recipe, written_from
from pvc.train.trainer import complete

TINY = yaml.safe_load("""
name: tiny
model:
  vocab_size: 300
  num_frames: 4
  max_new_tokens: 8
  vision: {image_size: 32, patch_size: 8, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2,
           intermediate_size: 32, attention_bias: true, num_temporal_layers: 1, initializer_range: 0.06}
  text: {model_type: qwen2, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 2,
         intermediate_size: 32, tie_word_embeddings: true}
stages:
  - {name: patches, kind: patches, steps: 4, batch_size: 4, downsample_ratio: 0.5, image_steps: 1,
     num_temporal_layers: 0, tasks: {shape: 1}}
  - {name: pvc, kind: chat, steps: 6, batch_size: 4, downsample_ratio: 0.25, image_steps: 2, save_steps: 2,
     warmup_steps: 1, tasks: {shape: 1, direction: 1}, video_frames: {2: 1, 3: 1}}
""")


def recipe(**changes):
    return Recipe.model_validate({**copy.deepcopy(TINY), **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    lines = []
    model = run_recipe(recipe(), directory, report=lines.append)
    return directory, model, lines


def test_what_a_person_finds(finished):
    directory, model, _ = finished
    summary = (directory / "summary.md").read_text()
    assert "| patches | 4 | 4 |" in summary and "| pvc | 6 | 4 |" in summary and "curve.png" in summary
    card = (model / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    total = sum(parameter.numel() for parameter in pvc.load(model, device="cpu").model.parameters())
    assert f"Parameters: {total / 1e6:.1f} M" in card
    assert "`patches` on 1 task of the synthetic world" in card
    assert any((directory / "tensorboard" / "pvc").iterdir())


def test_the_model_loads_and_answers(finished):
    directory, model, lines = finished
    engine = pvc.load(model, device="cpu")
    assert engine.model.config.downsample_ratio == 0.25
    assert engine.processor.tokens_per_frame == 1
    assert isinstance(engine.chat().ask("what is it?").text, str)
    assert (directory / "curve.png").read_bytes()[:4] == b"\x89PNG"
    assert any("get new values" in line for line in lines)
    stored = load_file(model / "model.safetensors")
    wide = {name for name in stored if "modulation" in name or "timestep_embedding" in name}
    assert {stored[name].dtype for name in wide} == {torch.float32}
    assert {tensor.dtype for name, tensor in stored.items() if name not in wide} == {torch.bfloat16}
    assert json.loads((model / "training.json").read_text())["recipe"]["name"] == "tiny"


def test_a_killed_run_goes_on_to_the_same_bits(finished, tmp_path, monkeypatch):
    """Stopped in the middle of a stage (as a kill would), then called again."""
    _, model, _ = finished

    def killed(self, args, state, control, **kwargs):
        if self.stage.name == "pvc" and state.global_step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run_stage.StageLog, "on_step_begin", killed)
        run_recipe(recipe(), tmp_path, report=lambda line: None)
    assert not (tmp_path / "model").exists()
    lines = []
    resumed = run_recipe(recipe(), tmp_path, report=lines.append)
    assert any("going on from checkpoint-4" in line for line in lines)
    first, second = (load_file(path / "model.safetensors") for path in (model, resumed))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_directory_belongs_to_one_recipe(finished):
    directory, _, _ = finished
    with pytest.raises(UsageError, match="another recipe"):
        run_recipe(recipe(seed=1), directory, report=lambda line: None)


def test_unknown_tasks(tmp_path):
    stages = copy.deepcopy(TINY["stages"])
    stages[1]["tasks"] = {"dancing": 1}
    with pytest.raises(UsageError, match="unknown tasks: dancing"):
        run_recipe(recipe(stages=stages), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_chat_stages_of_different_ratios(tmp_path):
    stages = [
        {**TINY["stages"][1], "name": name, "steps": 2, "downsample_ratio": ratio}
        for name, ratio in (("a", 0.5), ("b", 0.25))
    ]
    model = run_recipe(recipe(stages=stages), tmp_path, report=lambda line: None)
    assert pvc.load(model, device="cpu").processor.tokens_per_frame == 1


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, monkeypatch):
    original = running.ChatCollator.__call__

    def poisoned(self, items):
        batch = original(self, items)
        for key in ("pixel_values", "pixel_values_videos"):
            if key in batch:
                batch[key] = batch[key] * float("nan")
        return batch

    monkeypatch.setattr(running.ChatCollator, "__call__", poisoned)
    with pytest.raises(PVCError, match="the loss is nan"):
        run_recipe(recipe(), tmp_path, report=lambda line: None)
    assert not (tmp_path / "model").exists()


def test_a_run_may_end_by_the_clock(tmp_path, monkeypatch):
    """The clock is the test's, so that the speed of the machine does not matter: half a second a look."""
    seconds = itertools.count(0, 0.5)
    monkeypatch.setattr(time_budget, "time", types.SimpleNamespace(monotonic=lambda: next(seconds)))
    stages = [{**TINY["stages"][1], "steps": 100_000, "save_steps": 1_000_000}]
    model = run_recipe(recipe(stages=stages), tmp_path, report=lambda line: None, minutes=0.5, workers=1)
    assert pvc.load(model, device="cpu").processor.tokens_per_frame == 1
    rows = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert 10 < rows[-1]["step"] < 100
    (told,) = json.loads((model / "training.json").read_text())["recipe"]["stages"]
    assert 10 < told["steps"] < 100
    assert told["minutes"] == 0.5
    # The rate that was used: after the cosine, not that of a schedule over 100,000 steps.
    assert all(row["lr"] < 1e-3 for row in rows if "lr" in row)


def test_the_clock_goes_on_with_the_minutes_that_were_left(tmp_path, monkeypatch):
    stages = [{**TINY["stages"][1], "steps": 100_000, "save_steps": 1}]

    def killed(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run_stage.StageLog, "on_step_begin", killed)
        run_recipe(recipe(stages=stages), tmp_path, report=lambda line: None, minutes=10)
    spent = json.loads((tmp_path / "pvc" / "clock.json").read_text())["seconds"]
    assert spent > 0
    # All of its time is spent: one step and no more.
    (tmp_path / "pvc" / "clock.json").write_text(json.dumps({"seconds": 600}))
    model = run_recipe(recipe(stages=stages), tmp_path, report=lambda line: None, minutes=10)
    (told,) = json.loads((model / "training.json").read_text())["recipe"]["stages"]
    assert told["steps"] == 4


def test_bf16_on_a_cpu_trains_float32_weights(tmp_path):
    stages = [{**stage, "precision": "bf16", "steps": 3} for stage in copy.deepcopy(TINY["stages"])]
    model = run_recipe(recipe(stages=stages), tmp_path, report=lambda line: None)
    final = load_file(tmp_path / "pvc" / "final.safetensors")
    assert {tensor.dtype for tensor in final.values()} == {torch.float32}
    float32 = tmp_path / "float32"
    run_recipe(
        recipe(stages=[{**stage, "precision": "float32"} for stage in stages]), float32, report=lambda line: None
    )
    other = load_file(float32 / "pvc" / "final.safetensors")
    moved = {name for name in final if not torch.equal(final[name], other[name])}
    assert moved  # it was bf16
    assert all(torch.allclose(final[name], other[name], atol=2e-2) for name in final)
    assert pvc.load(model, device="cpu").chat().ask("what is it?") is not None


def test_a_directory_of_an_earlier_version_goes_on(finished, tmp_path):
    """Keys that a later version adds are at their defaults in what an earlier one wrote."""
    directory, _, _ = finished
    text = json.loads((directory / "recipe.json").read_text())
    for stage in text["stages"]:
        del stage["zoom"], stage["precision"]
    assert written_from(json.dumps(text), recipe())
    assert not written_from(json.dumps({**text, "seed": 9}), recipe())
    assert not written_from("{}", recipe())


def test_a_run_that_ends_before_its_first_row_has_no_curve(tmp_path):
    stages = [{**TINY["stages"][1], "steps": 100_000}]
    model = run_recipe(recipe(stages=stages), tmp_path, report=lambda line: None, minutes=1e-6)
    assert (model / "model.safetensors").exists()
    assert not (tmp_path / "curve.png").exists()


def test_a_run_starts_from_a_model_and_is_measured_on_the_way(finished, tmp_path):
    _, start, _ = finished
    stages = [{**TINY["stages"][1], "steps": 4, "evaluate_every": 2, "evaluate_count": 3, "image_steps": {1: 1, 2: 1}}]
    lines = []
    model = run_recipe(recipe(stages=stages, start=str(start)), tmp_path, report=lines.append)
    assert not any("get new values" in line for line in lines)
    assert (model / "tokenizer.json").read_bytes() == (start / "tokenizer.json").read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    measured = [(row["step"], row["task"]) for row in rows if "task" in row]
    assert measured == [(2, "shape"), (2, "direction"), (4, "shape"), (4, "direction")]


def test_every_stage_is_measured_with_the_steps_it_is_trained_with(tmp_path, monkeypatch):
    asked = []

    def measured(self, engine, task, held_out):
        asked.append(held_out.image_steps)
        return 0.0

    monkeypatch.setattr(SyntheticTasks, "measure", measured)
    stages = [
        {
            **TINY["stages"][1],
            "name": str(steps),
            "steps": 1,
            "evaluate_every": 1,
            "image_steps": steps,
            "tasks": {"shape": 1},
        }
        for steps in (1, 2)
    ]
    run_recipe(recipe(stages=stages), tmp_path, report=lambda line: None)
    assert asked == [1, 2]


def test_what_is_frozen_stays(finished, tmp_path):
    _, start, _ = finished
    stages = [{**TINY["stages"][1], "steps": 3, "frozen": ["vision_tower"]}]
    model = run_recipe(recipe(stages=stages, start=str(start)), tmp_path, report=lambda line: None)
    before, after = (load_file(path / "model.safetensors") for path in (start, model))
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in before if "vision_tower" in name} <= same
    assert any("language_model" in name for name in set(before) - same)
    with pytest.raises(UsageError, match="frozen names 'nothing'"):
        stages[0]["frozen"] = ["nothing"]
        run_recipe(recipe(stages=stages, start=str(start)), tmp_path / "b", report=lambda line: None)


def test_a_compressor_for_fewer_tokens_starts_as_the_mean_of_those_it_replaces():
    """Without the LayerNorm, which spans more channels, the mean is exact."""
    from pvc.model.compressor import pixel_shuffle
    from pvc.model.config import PVCConfig
    from pvc.testing import tiny_config
    from pvc.train.model_init import widen_compressor

    config = PVCConfig(**{**tiny_config().to_dict(), "downsample_ratio": 0.25})
    width = config.vision_config.hidden_size
    generator = torch.Generator().manual_seed(0)
    prefix = "model.multi_modal_projector."
    weights = {
        f"{prefix}linear_1.weight": torch.randn(5, 4 * width, generator=generator),
        f"{prefix}norm.modulation.weight": torch.randn(8 * width, width, generator=generator),
        f"{prefix}norm.modulation.bias": torch.randn(8 * width, generator=generator),
    }
    wide = widen_compressor(weights, config)
    patches = torch.randn(1, 16, width, generator=generator)
    four = pixel_shuffle(patches, 2) @ weights[f"{prefix}linear_1.weight"].T
    one = pixel_shuffle(patches, 4) @ wide[f"{prefix}linear_1.weight"].T
    assert torch.allclose(one[0, 0], four.mean(1)[0], atol=1e-5)
    # The modulation of a channel is that of the same patch and channel in the token it came from.
    scale, shift = weights[f"{prefix}norm.modulation.bias"].chunk(2)
    wide_scale, wide_shift = wide[f"{prefix}norm.modulation.bias"].chunk(2)
    marked = patches.clone()
    assert torch.allclose(
        (pixel_shuffle(marked, 4) * wide_scale + wide_shift)[0, 0].view(2, 2, 2, 2, width)[0, :, 0].flatten(),
        (pixel_shuffle(marked, 2) * scale + shift)[0, 0],
    )
    assert widen_compressor(wide, config) == {}
    assert widen_compressor({}, config) == {}


def test_half_a_checkpoint_is_not_used(tmp_path):
    for step in (5, 20, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert complete(tmp_path) == []
    (tmp_path / "checkpoint-5" / "trainer_state.json").write_text("{}")
    (tmp_path / "checkpoint-20" / "trainer_state.json").write_text("{}")
    (tmp_path / "checkpoint-100" / "trainer_state.json").write_text('{"epoch": ')
    lines = []
    assert complete(tmp_path, lines.append)[0] == tmp_path / "checkpoint-20"
    assert len(lines) == 1 and "checkpoint-100 is incomplete" in lines[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_gradient_that_is_no_number_stops_before_the_step(value):
    model = torch.nn.Linear(3, 2)
    model(torch.ones(1, 3)).sum().backward()
    log = run_stage.StageLog(recipe().stages[0], run_stage.StageContext(0, Path(), Path(), print))
    state = type("State", (), {"global_step": 6})
    log.on_pre_optimizer_step(None, state, None, model=model)
    model.weight.grad[1, 2] = value
    with pytest.raises(PVCError, match="gradient is not finite at step 7"):
        log.on_pre_optimizer_step(None, state, None, model=model)


@pytest.mark.parametrize("has", [True, False])
def test_emulated_bfloat16_is_a_warning(tmp_path, monkeypatch, has):
    monkeypatch.setattr("pvc.train.pipeline.has_bfloat16", lambda: has)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    lines = []
    stages = [{**copy.deepcopy(TINY["stages"][1]), "steps": 1, "precision": "bf16"}]
    run_recipe(recipe(stages=stages), tmp_path / "run", report=lines.append)
    assert any("no bfloat16 instructions" in line for line in lines) is not has
