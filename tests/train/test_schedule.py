"""The learning rate of every step: cosine, and constant until a final decay (wsd), by steps and by the clock."""

import copy
import json

import pytest

from pvc.errors import UsageError
from pvc.train import run_stage
from pvc.train.pipeline import run_recipe
from pvc.train.recipe import Recipe, Stage
from pvc.train.time_budget import compute_lr_factor
from tests.train.test_run import TINY


def recipe(**changes):
    stage = {**copy.deepcopy(TINY["stages"][1]), **changes}
    return Recipe.model_validate({**TINY, "stages": [stage]})


@pytest.fixture
def rates(monkeypatch):
    """Rates of the steps of every run after this, as factors of the peak."""
    seen = []

    def begin(self, args, state, control, optimizer, **kwargs):
        seen.append(optimizer.param_groups[0]["lr"] / args.learning_rate)

    monkeypatch.setattr(run_stage.StageLog, "on_step_begin", begin)
    return seen


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"warmup_steps": 2, "decay_steps": 4}, [0, 0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]),
        ({"warmup_steps": 4}, [0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 0.5]),
        ({"warmup_steps": 0, "decay_steps": 10}, [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
    ],
    ids=["warm-up, constant, decay", "a fifth of the steps", "decay alone"],
)
def test_constant_until_a_linear_decay(tmp_path, rates, changes, expected):
    made = recipe(schedule="wsd", steps=10, save_steps=100, batch_size=2, **changes)
    run_recipe(made, tmp_path, report=lambda line: None)
    assert rates == pytest.approx(expected)


def test_the_default_is_a_cosine(tmp_path, rates):
    run_recipe(recipe(steps=5, warmup_steps=1, batch_size=2), tmp_path, report=lambda line: None)
    assert rates == pytest.approx([0, 1, 0.8535534, 0.5, 0.1464466])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decay_steps": 5}, "decay_steps is for schedule wsd"),
        ({"schedule": "wsd", "steps": 8, "decay_steps": 5, "warmup_steps": 4}, r"warmup_steps \(4\) and decay_steps"),
        ({"schedule": "wsd", "steps": 100}, r"warmup_steps \(100\) and decay_steps \(20\) are more than the 100 steps"),
        ({"schedule": "linear"}, "schedule"),
        ({"optimizer": "sgd"}, "optimizer"),
    ],
)
def test_schedules_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        Stage.model_validate({"name": "x", "kind": "chat", "steps": 10, "tasks": {"shape": 1}, **changes})


def test_schedules_by_the_clock():
    assert [compute_lr_factor(part, "wsd") for part in (0.05, 0.5, 0.8, 0.9, 1.0)] == pytest.approx([1, 1, 1, 0.5, 0])
    assert [compute_lr_factor(part, "cosine") for part in (0.5, 1.0)] == pytest.approx([0.5, 0])
    assert compute_lr_factor(0.025, "wsd") == pytest.approx(0.501)


def test_a_recipe_of_an_earlier_version_is_the_same(tmp_path):
    run_recipe(recipe(steps=1), tmp_path, report=lambda line: None)
    stamp = tmp_path / "recipe.json"
    text = json.loads(stamp.read_text())
    for key in ("optimizer", "schedule", "decay_steps"):
        del text["stages"][0][key]
    stamp.write_text(json.dumps(text))
    run_recipe(recipe(steps=1), tmp_path, report=lambda line: None)
    with pytest.raises(UsageError, match="another recipe"):
        run_recipe(recipe(steps=1, optimizer="muon"), tmp_path, report=lambda line: None)
