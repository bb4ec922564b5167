"""Recipes are checked before anything runs."""

from pathlib import Path

import pytest
import yaml

from pvc.errors import ConfigError, UsageError
from pvc.train.recipe import load_recipe

NANO = Path(__file__).parents[2] / "recipes" / "nano.yaml"


def edited(tmp_path, change):
    data = yaml.safe_load(NANO.read_text())
    change(data)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(sedd=1), "sedd"),
        (lambda d: d["stages"][0].update(steps=0), "stages.0.steps"),
        (lambda d: d["stages"][0].update(lerning_rate=1), "stages.0.lerning_rate"),
        (lambda d: d["stages"][0].update(kind="magic"), "stages.0.kind"),
        (lambda d: d["stages"][0].update(tasks={}), "at least one task"),
        (lambda d: d["stages"][0].update(tasks={"read": -1}), "tasks.read.weight"),
        (lambda d: d["stages"][0].update(tasks={"read": {"levels": [0]}}), "levels are numbers from 1"),
        (lambda d: d["stages"][0].update(tasks={"read": float("inf")}), "tasks.read.weight"),
        (lambda d: d["stages"][0].update(learning_rate=float("inf")), "stages.0.learning_rate"),
        (lambda d: d["stages"][0].update(tasks={"read": {"tiles": []}}), "tasks.read.tiles"),
        (lambda d: d.update(seed=-1), "seed"),
        (lambda d: d["stages"][0].update(image_steps={0: 1}), "image_steps must name"),
        (lambda d: d["stages"][1].update(zoom={0: 1}), "zoom must name"),
        (lambda d: d["stages"][0].update(zoom=2), "zoom is for stages of kind chat"),
        (lambda d: d["stages"][0].update(precision="fp8"), "stages.0.precision"),
        (lambda d: d["stages"].append(d["stages"][0]), "same name"),
    ],
)
def test_mistakes_are_named(change, message, tmp_path):
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(edited(tmp_path, change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d["model"]["vision"].update(num_layers=3),
            "stage patches: unknown key in vision_config: num_layers",
        ),
        (lambda d: d["stages"][1].update(downsample_ratio=0.3), "stage base: downsample_ratio is 0.3"),
        (lambda d: d["model"]["vision"].pop("image_size"), "image_size"),
        (lambda d: d["stages"][1].update(tasks={"read": {"levels": [9]}}), "stage base: level is 9"),
        (lambda d: d.pop("model"), "the recipe has no model"),
        (lambda d: d["model"]["vision"].update(temporal_window=2), "stage pvc: temporal_window 2 is shorter"),
        (lambda d: d["model"]["text"].update(hiden_size=3), "unknown key in text_config: hiden_size"),
        (lambda d: d["stages"][2]["tasks"].update(read={"tiles": 3}), "stage pvc: task 'read' was asked for 3 tiles"),
        (lambda d: d["stages"][2].update(files={"nowhere.jsonl": 1.0}), "stage pvc: cannot read nowhere.jsonl"),
    ],
)
def test_models_that_cannot_be_built_are_named_before_anything_runs(change, message, tmp_path):
    from pvc.train.model_init import check_recipe

    with pytest.raises(ConfigError, match=message):
        check_recipe(load_recipe(edited(tmp_path, change)))


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan"), float("inf")])
def test_minutes_are_a_number_above_zero(minutes):
    from pvc.cli.train import check_options

    with pytest.raises(UsageError, match="--minutes must be"):
        check_options(minutes, None, None, None, None, None)
    with pytest.raises(UsageError, match="--stop-after must be"):
        check_options(None, minutes, None, None, None, None)


def test_no_file_and_no_yaml(tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        load_recipe(tmp_path / "nowhere.yaml")
    (tmp_path / "x.yaml").write_text("a: [")
    with pytest.raises(UsageError, match="not YAML"):
        load_recipe(tmp_path / "x.yaml")
