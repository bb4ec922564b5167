"""The last checkpoint of a run as a model: EMA, adapters, any kind of stage, while the run goes on."""

import copy
import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import pvc
from pvc.cli.main import main
from pvc.errors import CheckpointError, UsageError
from pvc.train import export
from pvc.train import pipeline as running
from pvc.train.export import export_checkpoint
from pvc.train.interrupt import StopRequest
from pvc.train.pipeline import run_recipe
from pvc.train.recipe import Recipe
from tests.train.test_branch import digests, run_until
from tests.train.test_run import TINY

LORA = {"rank": 2, "alpha": 4, "targets": ["q_proj", "down_proj"]}
QUIET = {"report": lambda line: None}


def recipe(**changes):
    stage = {**copy.deepcopy(TINY["stages"][1]), "save_steps": 2, **changes}
    return Recipe.model_validate({**TINY, "stages": [TINY["stages"][0], stage]})


def weights(model):
    return load_file(model / "model.safetensors")


def assert_equal(one, two):
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("changes", [{}, {"ema": 0.8}, {"lora": LORA}, {"lora": LORA, "ema": 0.8}], ids=str)
def test_it_is_what_the_run_would_have_left(tmp_path, monkeypatch, changes):
    """A run that ends at step 6, against the checkpoint of step 6 of the same run before its end."""
    made = recipe(**changes)
    run_until(tmp_path / "run", 6, made, monkeypatch)
    before = digests(tmp_path / "run")
    exported = export_checkpoint(made, tmp_path / "run", tmp_path / "exported")
    assert exported.describe() == f"stage pvc, step 6{', EMA weights' * ('ema' in changes)}"
    assert digests(tmp_path / "run") == before
    model = run_recipe(made, tmp_path / "run", **QUIET)
    assert_equal(weights(model), weights(tmp_path / "exported"))
    for name in ("config.json", "generation_config.json", "processor_config.json", "tokenizer.json"):
        assert (model / name).read_text() == (tmp_path / "exported" / name).read_text(), name
    assert isinstance(pvc.load(tmp_path / "exported", device="cpu").chat().ask("what is it?").text, str)
    # From the finished run it is the same.
    export_checkpoint(made, tmp_path / "run", tmp_path / "again")
    assert_equal(weights(model), weights(tmp_path / "again"))


def test_the_average_is_exported_and_not_the_last_step(tmp_path, monkeypatch):
    run_until(tmp_path / "ema", 5, recipe(ema=0.9), monkeypatch)
    run_until(tmp_path / "last", 5, recipe(), monkeypatch)
    for name in ("ema", "last"):
        export_checkpoint(recipe(**({"ema": 0.9} if name == "ema" else {})), tmp_path / name, tmp_path / f"m-{name}")
    ema, last = weights(tmp_path / "m-ema"), weights(tmp_path / "m-last")
    assert any(not torch.equal(ema[name], last[name]) for name in ema)
    trained = load_file(tmp_path / "ema" / "pvc" / "checkpoint-5" / "model.safetensors")
    name = "model.multi_modal_projector.linear_2.weight"
    average = torch.load(tmp_path / "ema" / "pvc" / "checkpoint-5" / "average.pt")
    assert torch.equal(ema[name], average[name].bfloat16())
    assert torch.equal(last[name], trained[name].bfloat16())
    facts = json.loads((tmp_path / "m-ema" / "training.json").read_text())
    assert facts["exported"] == {"stage": "pvc", "step": 5, "ema": True}
    assert facts["recipe"]["stages"][-1]["steps"] == 5
    assert "- Exported: stage pvc, step 5, EMA weights" in (tmp_path / "m-ema" / "README.md").read_text()


def test_a_stage_before_the_last_one(tmp_path, monkeypatch):
    """With other tokens per frame and steps of a picture than the run's last stage has."""
    first = {**copy.deepcopy(TINY["stages"][1]), "name": "first", "downsample_ratio": 0.5, "image_steps": 1}
    last = {**copy.deepcopy(TINY["stages"][1]), "init": "exact", "num_temporal_layers": 1}
    made = Recipe.model_validate({**TINY, "stages": [{**first, "num_temporal_layers": 0}, last]})
    run_until(tmp_path / "run", 3, made.model_copy(update={"stages": made.stages[:1]}), monkeypatch)
    (tmp_path / "run" / "recipe.json").unlink()
    with pytest.raises(UsageError, match="holds no run"):
        export_checkpoint(made, tmp_path / "run", tmp_path / "model")
    shutil.rmtree(tmp_path / "run" / "processor")
    stop = StopRequest()
    stop.name = "SIGTERM"
    monkeypatch.setattr(running, "StopRequest", lambda *args: stop)
    with pytest.raises(pvc.errors.Interrupted):
        run_recipe(made, tmp_path / "run", **QUIET)
    exported = export_checkpoint(made, tmp_path / "run", tmp_path / "model")
    assert (exported.stage, exported.step) == ("first", 4)
    engine = pvc.load(tmp_path / "model", device="cpu")
    assert engine.model.config.downsample_ratio == 0.5
    assert engine.processor.image_processor.image_steps == 1
    assert engine.model.config.vision_config.num_temporal_layers == 0


def test_a_tower_that_names_patches(tmp_path, monkeypatch):
    made = recipe()
    alone = made.model_copy(update={"stages": made.stages[:1]})
    run_until(tmp_path / "run", 2, alone, monkeypatch)
    exported = export_checkpoint(alone, tmp_path / "run", tmp_path / "model")
    assert exported.stage == "patches"
    name = "embeddings.patch_embeddings.projection.weight"
    trained = load_file(tmp_path / "run" / "patches" / "checkpoint-2" / "model.safetensors")[f"tower.{name}"]
    assert torch.equal(weights(tmp_path / "model")[f"model.vision_tower.{name}"], trained.bfloat16())
    pvc.load(tmp_path / "model", device="cpu")


def test_a_checkpoint_that_is_deleted_while_it_is_read(tmp_path, monkeypatch):
    run_until(tmp_path / "run", 5, recipe(), monkeypatch)
    newest, older = (tmp_path / "run" / "pvc" / f"checkpoint-{step}" for step in (5, 4))
    original, read = export.find_shards, []

    def find_shards(directory):
        read.append(directory)
        if directory == newest:
            shutil.rmtree(directory)
        return original(directory)

    monkeypatch.setattr(export, "find_shards", find_shards)
    assert export_checkpoint(recipe(), tmp_path / "run", tmp_path / "model").step == 4
    assert read == [newest, older]


def test_what_cannot_be_exported(tmp_path, monkeypatch):
    run, made = tmp_path / "run", recipe()
    run_until(run, 2, made, monkeypatch)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UsageError, match="full exists already; choose another directory"):
        export_checkpoint(made, run, tmp_path / "full")
    with pytest.raises(UsageError, match="another recipe"):
        export_checkpoint(recipe(ema=0.5), run, tmp_path / "model")
    sharded = run / "pvc" / "checkpoint-2" / "model.safetensors"
    sharded.unlink()
    with pytest.raises(CheckpointError, match="has no weights: model.safetensors is missing"):
        export_checkpoint(made, run, tmp_path / "model")
    save_file({"other": torch.zeros(1)}, sharded)
    with pytest.raises(CheckpointError, match="checkpoint-2 does not fit stage pvc"):
        export_checkpoint(made, run, tmp_path / "model")
    shutil.rmtree(run / "pvc")
    shutil.rmtree(run / "patches")
    with pytest.raises(UsageError, match="has no checkpoint yet"):
        export_checkpoint(made, run, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_command(tmp_path, monkeypatch, capsys):
    made, run = recipe(ema=0.9), tmp_path / "run"
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(json.loads(made.model_dump_json())))
    run_until(run, 3, made, monkeypatch)
    (tmp_path / "empty").mkdir()
    for target, options, dtype in (
        ("model", [], torch.bfloat16),
        ("empty", ["--dtype", "float32"], torch.float32),
        ("half", ["--dtype", "float16"], torch.float16),
    ):
        command = ["train", str(path), "--out", str(run), "--export", str(tmp_path / target), *options]
        assert main(command) == 0
        assert capsys.readouterr() == (f"{tmp_path / target}: stage pvc, step 3, EMA weights\n", "")
        stored = weights(tmp_path / target)
        wide = {name for name in stored if "modulation" in name or "timestep_embedding" in name}
        assert {stored[name].dtype for name in wide} == {torch.float32}
        assert {tensor.dtype for name, tensor in stored.items() if name not in wide} == {dtype}
        pvc.load(tmp_path / target, device="cpu")
    assert main(["train", str(path), "--out", str(run), "--export", str(tmp_path / "model")]) == 2
    assert "exists already" in capsys.readouterr().err
