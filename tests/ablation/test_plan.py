"""Plans are checked before anything runs, and an arm is the library's own model with settings."""

from pathlib import Path

import pytest
import torch
import yaml

from pvc.ablation.arms import ARMS, CONDITIONING
from pvc.ablation.plan import Plan, load_plan, studies
from pvc.ablation.run import arm_stage, thinned
from pvc.errors import ConfigError
from pvc.synthetic import make
from pvc.train.build import build_model, build_processor, check_recipe

PLANS = sorted((Path(__file__).parents[2] / "recipes" / "ablation").glob("*.yaml"))
SMALL = next(path for path in PLANS if path.stem == "small")


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_our_plans_are_valid(path):
    plan = load_plan(path)
    check_recipe(plan.recipe(0))
    for study in plan.studies:
        for chosen in study.arms.values():
            stage = arm_stage(study, ARMS[chosen.like], chosen, int(plan.model.vision["num_temporal_layers"]))
            check_recipe(plan.recipe(0, (stage,), chosen.vision))
    assert [study.study for study in studies(plan)] == [study.name for study in plan.studies]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["studies"][0]["arms"].update(Z={"like": "Z"}), "there is no arm 'Z'"),
        (lambda d: d["studies"][0].update(seeds=[]), "seeds"),
        (lambda d: d["studies"][0].update(sedds=[1]), "sedds"),
        (lambda d: d["studies"].append(d["studies"][0]), "same name"),
    ],
)
def test_mistakes_are_named(change, message, tmp_path):
    data = yaml.safe_load(SMALL.read_text())
    change(data)
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match=message):
        load_plan(path)


@pytest.fixture(scope="module")
def small():
    plan = load_plan(SMALL)
    return plan, build_processor(plan.recipe(0))


def _model(small: tuple[Plan, object], name: str):
    from pvc.ablation.arms import give_heads

    plan, processor = small
    study = plan.studies[0]
    chosen = study.arms["D"].model_copy(update={"like": name})
    stage = arm_stage(study, ARMS[name], chosen, 1)
    model = build_model(plan.recipe(0, (stage,)), stage, processor)
    if ARMS[name].heads > 1:
        give_heads(model, ARMS[name].heads, 0)
    torch.manual_seed(1)
    for key, parameter in model.named_parameters():
        if not any(part in key for part in ARMS[name].frozen) and any(part in key for part in ("modulation", "projection_layer")):
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model.eval(), stage


def _steps_of_a_still(model) -> torch.Tensor:
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return model.get_image_features(pixels, image_steps=4).pooler_output[0].unflatten(0, (4, -1))


def test_which_arms_say_something_new_at_later_steps(small):
    """On a still, F's and C's steps are equal by construction; D, E and G can differ."""
    for name, differs in (("C", False), ("D", True), ("E", True), ("F", False), ("G", True)):
        steps = _steps_of_a_still(_model(small, name)[0])
        apart = (steps[0] - steps[1]).abs().max() / steps.abs().max()
        assert (apart > 1e-3) == differs, name


def test_what_is_frozen_is_what_the_timestep_touches(small):
    model, stage = _model(small, "F")
    assert stage.frozen == CONDITIONING
    frozen = [name for name, _ in model.named_parameters() if any(part in name for part in stage.frozen)]
    assert any("timestep_embedding" in name for name in frozen)
    assert any("multi_modal_projector.norm.modulation" in name for name in frozen)
    assert not any("attention" in name for name in frozen)


def test_a_thinned_clip_keeps_true_times():
    sample = make("direction", 0, size=32, frames=8)
    thin = thinned(sample, 0.25)
    assert len(thin.frames) == 2
    places = [sample.timestamps.index(time) for time in thin.timestamps]
    assert places == [2, 6]
    assert (thin.frames == sample.frames[places]).all()
    assert thin.answer == sample.answer
    still = make("shape", 0, size=32)
    assert len(thinned(still, 0.25).frames) == 1
