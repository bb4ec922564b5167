"""A decay branch goes on from a checkpoint of a run with all of its state, and leaves that run as it is."""

import copy
import hashlib
import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

import pvc
from pvc.cli.main import main
from pvc.errors import ConfigError, Interrupted, UsageError
from pvc.train import pipeline as running
from pvc.train import run_stage
from pvc.train.branch import Branch
from pvc.train.interrupt import StopRequest
from pvc.train.pipeline import run_recipe
from pvc.train.recipe import Recipe
from tests.train.test_run import TINY

STAGE = {
    **TINY["stages"][1],
    "name": "trunk",
    "steps": 20,
    "save_steps": 1,
    "warmup_steps": 2,
    "schedule": "wsd",
    "decay_steps": 4,
    "optimizer": "muon",
    "ema": 0.9,
    "rates": {"vision_tower": 0.5},
}
QUIET = {"report": lambda line: None}


def recipe(**changes):
    return Recipe.model_validate({**TINY, "stages": [TINY["stages"][0], {**copy.deepcopy(STAGE), **changes}]})


def run_until(directory, step, made, monkeypatch, **options):
    """Run a recipe and stop it after a step of its last stage, as a signal would."""
    stop = StopRequest()

    def begin(self, args, state, control, **kwargs):
        if state.global_step == step - 1 and self.stage.name == made.stages[-1].name:
            stop.name = "SIGTERM"

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(running, "StopRequest", lambda report, until: stop)
        patch.setattr(run_stage.StageLog, "on_step_begin", begin)
        run_recipe(made, directory, **QUIET, **options)


def digests(directory):
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def rows(directory):
    lines = map(json.loads, (directory / "curve.jsonl").read_text().splitlines())
    return {row["step"]: row for row in lines if row["stage"] == "trunk" and "loss" in row}


@pytest.fixture
def trunk(tmp_path, monkeypatch):
    run_until(tmp_path / "trunk", 6, recipe(), monkeypatch)
    assert (tmp_path / "trunk" / "trunk" / "checkpoint-6").is_dir()
    return tmp_path / "trunk"


def test_a_branch_goes_on_as_its_trunk_would_have(trunk, tmp_path, monkeypatch):
    before, rates = digests(trunk), []
    begin = run_stage.StageLog.on_step_begin

    def seen(self, args, state, control, optimizer, **kwargs):
        rates.append(max(group["lr"] for group in optimizer.param_groups) / args.learning_rate)
        begin(self, args, state, control, optimizer=optimizer, **kwargs)

    out = tmp_path / "deep" / "branch"
    with monkeypatch.context() as patch:
        patch.setattr(run_stage.StageLog, "on_step_begin", seen)
        model = run_recipe(recipe(), out, **QUIET, branch=Branch(trunk, 5))
    assert rates == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    assert digests(trunk) == before
    assert isinstance(pvc.load(model, device="cpu").chat().ask("what is it?").text, str)
    (_, stage) = json.loads((model / "training.json").read_text())["recipe"]["stages"]
    assert (stage["steps"], stage["decay_steps"]) == (11, 5)

    # One more step of both, so that their checkpoints can be compared.
    shutil.copytree(trunk, tmp_path / "longer")
    run_until(tmp_path / "longer", 7, recipe(), monkeypatch)
    run_until(tmp_path / "one", 7, recipe(), monkeypatch, branch=Branch(trunk, 5))
    assert rows(tmp_path / "longer")[7]["loss"] == rows(tmp_path / "one")[7]["loss"] == rows(out)[7]["loss"]
    assert sorted(rows(out)) == list(range(1, 12))
    longer, one = tmp_path / "longer" / "trunk" / "checkpoint-7", tmp_path / "one" / "trunk" / "checkpoint-7"
    for first, second in (
        (load_file(longer / "model.safetensors"), load_file(one / "model.safetensors")),
        (torch.load(longer / "average.pt"), torch.load(one / "average.pt")),
    ):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_stopped_branch_goes_on_to_the_same_bits(trunk, tmp_path, monkeypatch):
    whole = run_recipe(recipe(), tmp_path / "whole", **QUIET, branch=Branch(trunk))
    cut = tmp_path / "cut"
    run_until(cut, 8, recipe(), monkeypatch, branch=Branch(trunk))
    shutil.rmtree(trunk)  # no longer needed
    with pytest.raises(UsageError, match="holds a branch of 4 steps, not 9"):
        run_recipe(recipe(), cut, **QUIET, branch=Branch(trunk, 9))
    again = run_recipe(recipe(), cut, **QUIET, branch=Branch(trunk, 4))
    assert sorted(rows(cut)) == list(range(1, 11))
    first, second = (load_file(model / "model.safetensors") for model in (whole, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert run_recipe(recipe(), cut, **QUIET) == again  # the directory says that it is a branch


def test_a_checkpoint_that_is_deleted_while_it_is_copied(trunk, tmp_path, monkeypatch):
    from pvc.train import branch

    older = trunk / "trunk" / "checkpoint-5"
    assert older.is_dir()
    original, calls = shutil.copytree, []

    def copytree(source, target, *args, **kwargs):
        calls.append(source.name)
        if source.name == "checkpoint-6":
            shutil.rmtree(source)
            older.rename(older.with_name("checkpoint-7"))
        return original(source, target, *args, **kwargs)

    monkeypatch.setattr(branch.shutil, "copytree", copytree)
    branch.start_branch(recipe(), Branch(trunk, 3), tmp_path / "branch", lambda line: None)
    assert calls[:2] == ["checkpoint-6", "checkpoint-7"]
    assert [path.name for path in (tmp_path / "branch" / "trunk").iterdir()] == ["checkpoint-7"]
    assert json.loads((tmp_path / "branch" / "branch.json").read_text())["step"] == 7
    assert not (tmp_path / "branch.part").exists()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"schedule": "cosine", "decay_steps": None}, ConfigError, "only schedule wsd can be branched, not cosine"),
        ({"warmup_steps": 3}, ConfigError, r"checkpoint is from step 2, but .* constant from step 3 to 16"),
        ({"decay_steps": 18, "warmup_steps": 0, "steps": 19}, ConfigError, "constant from step 0 to 1"),
    ],
)
def test_only_a_constant_rate_can_be_branched(tmp_path, monkeypatch, changes, error, message):
    run_until(tmp_path / "run", 2, recipe(**changes), monkeypatch)
    with pytest.raises(error, match=message):
        run_recipe(recipe(**changes), tmp_path / "branch", **QUIET, branch=Branch(tmp_path / "run"))
    assert not (tmp_path / "branch").exists()


def test_runs_that_cannot_be_branched(trunk, tmp_path):
    for made, directory, run, message in (
        (recipe(ema=0.5), tmp_path / "new", trunk, "another recipe"),
        (recipe(), tmp_path / "new", tmp_path / "nowhere", "holds no run"),
        (recipe(), trunk, trunk, "exists and holds no branch; choose another --out"),
    ):
        with pytest.raises(UsageError, match=message):
            run_recipe(made, directory, **QUIET, branch=Branch(run))
    (trunk / "trunk" / "clock.json").write_text("{}")
    with pytest.raises(ConfigError, match="follows the clock"):
        run_recipe(recipe(), tmp_path / "new", **QUIET, branch=Branch(trunk))
    shutil.rmtree(trunk / "trunk")
    shutil.rmtree(trunk / "patches")
    with pytest.raises(ConfigError, match="has no checkpoint yet"):
        run_recipe(recipe(), tmp_path / "new", **QUIET, branch=Branch(trunk))
    assert not (tmp_path / "new").exists()


def test_the_command(trunk, tmp_path, capsys):
    path, out = tmp_path / "recipe.yaml", tmp_path / "branch"
    path.write_text(yaml.safe_dump(json.loads(recipe().model_dump_json())))
    command = ["train", str(path), "--branch", str(trunk), "--decay-steps", "2", "--out", str(out)]
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "model")
    assert f"branched from {trunk} at step 6, to decay over 2 steps" in (out / "log.txt").read_text()
    assert "going on from checkpoint-6" in (out / "log.txt").read_text()
    assert main(command) == 0  # it is finished
    for options, message in (
        (["--decay-steps", "2"], "--decay-steps is for --branch"),
        (["--branch", str(trunk), "--minutes", "2"], "leave out --minutes"),
        (["--branch", str(trunk), "--export", "x"], "use one of them"),
        (["--dtype", "float32"], "--dtype is for --export"),
    ):
        assert main(["train", str(path), *options]) == 2
        assert message in capsys.readouterr().err
