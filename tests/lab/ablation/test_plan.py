"""Plans are checked before training, and an arm is the library's model with other settings."""

from pathlib import Path

import pytest
import torch
import yaml

from pvc.errors import ConfigError, UsageError
from pvc.lab.ablation.arms import ARMS, CONDITIONING, add_step_heads, fold_timesteps
from pvc.lab.ablation.plan import Plan, load_plan, studies
from pvc.lab.ablation.run import Place, _load_processor, build_arm_stage, check_plan, thin_frames
from pvc.lab.synthetic import make
from pvc.train.model_init import build_model, build_processor, grow

PLANS = sorted((Path(__file__).parents[3] / "recipes" / "ablation").glob("*.yaml"))
SMALL = next(path for path in PLANS if path.stem == "small")


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_our_plans_are_valid(path):
    plan = load_plan(path)
    check_plan(plan)
    assert [study.study for study in studies(plan)] == [study.name for study in plan.studies]


def test_studies_may_train_alike(tmp_path):
    data = yaml.safe_load(SMALL.read_text())
    data["studies"].append({**data["studies"][0], "name": "again"})
    processor = _load_processor(Plan.model_validate(data), Place(tmp_path, tmp_path, lambda line: None))
    assert len(processor.tokenizer) <= data["model"]["vocab_size"]


def test_an_arm_that_cannot_be_trained_is_named_before_the_base_is(tmp_path):
    data = yaml.safe_load(SMALL.read_text())
    data["studies"][1]["stage"]["tasks"] = {"dancing": 1}
    with pytest.raises(UsageError, match="unknown tasks: dancing"):
        check_plan(Plan.model_validate(data))


@pytest.mark.parametrize("option", ["study", "arm", "seed"])
def test_an_unknown_filter_is_rejected(option, tmp_path):
    from pvc.cli.lab.ablate import ablate

    with pytest.raises(UsageError, match=f"the plan has no {option} 77; it has"):
        ablate(SMALL, out=tmp_path, dry_run=True, **{option: [77 if option == "seed" else "77"]})


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


def _grown(small: tuple[Plan, object], name: str):
    """An arm as it starts from a base that has learned its modulations, and then learned itself."""
    plan, processor = small
    study = plan.studies[0]
    base = build_model(plan.recipe(0), plan.base[1], processor)
    torch.manual_seed(2)
    for key, parameter in base.named_parameters():
        if "modulation" in key:
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    chosen = study.arms["D"].model_copy(update={"like": name})
    stage = build_arm_stage(study, ARMS[name], chosen, 1)
    model = grow(plan.recipe(0, (stage,)), stage, processor, base.state_dict())[0]
    if not ARMS[name].conditioned:
        fold_timesteps(model)
    if ARMS[name].heads > 1:
        add_step_heads(model, ARMS[name].heads, 0)
    return base.eval(), model.eval(), stage


def _model(small: tuple[Plan, object], name: str):
    _, model, stage = _grown(small, name)
    torch.manual_seed(1)
    for key, parameter in model.named_parameters():
        if not any(part in key for part in ARMS[name].frozen) and any(
            part in key for part in ("modulation", "projection_layer")
        ):
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model.eval(), stage


def test_without_timesteps_the_first_step_is_what_it_was(small):
    plan, processor = small
    _, folded, stage = _grown(small, "C")
    base = build_model(plan.recipe(0), plan.base[1], processor)
    torch.manual_seed(2)
    for key, parameter in base.named_parameters():
        if "modulation" in key:
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    plain = grow(plan.recipe(0, (stage,)), stage, processor, base.state_dict())[0].eval()
    one, other = _steps_of_a_still(plain), _steps_of_a_still(folded)
    assert torch.allclose(one[0], other[0], atol=1e-5)
    assert not torch.allclose(one[1], other[1], atol=1e-3)


def _steps_of_a_still(model) -> torch.Tensor:
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return model.get_image_features(pixels, image_steps=4).pooler_output[0].unflatten(0, (4, -1))


def test_which_arms_differ_at_later_steps(small):
    """On a still, F's and C's steps are equal by construction; D, E and G can differ."""
    for name, differs in (("C", False), ("D", True), ("E", True), ("F", False), ("G", True)):
        steps = _steps_of_a_still(_model(small, name)[0])
        apart = (steps[0] - steps[1]).abs().max() / steps.abs().max()
        assert (apart > 1e-3) == differs, name


def test_frozen_parameters_depend_on_the_timestep(small):
    model, stage = _model(small, "F")
    assert stage.frozen == CONDITIONING
    frozen = [name for name, _ in model.named_parameters() if any(part in name for part in stage.frozen)]
    assert any("timestep_embedding" in name for name in frozen)
    assert any("multi_modal_projector.norm.modulation" in name for name in frozen)
    assert not any("attention" in name for name in frozen)


def test_a_thinned_clip_keeps_true_times():
    sample = make("direction", 0, size=32, frames=8)
    thin = thin_frames(sample, 0.25)
    assert len(thin.frames) == 2
    places = [sample.timestamps.index(time) for time in thin.timestamps]
    assert places == [2, 6]
    assert (thin.frames == sample.frames[places]).all()
    assert thin.answer == sample.answer
    still = make("shape", 0, size=32)
    assert len(thin_frames(still, 0.25).frames) == 1
