"""A stage whose ratio falls with `init: exact`: it starts in closed form, and later stages keep its compressor."""

import copy

import pytest
import torch

import pvc
from pvc.errors import ConfigError
from pvc.testing import randomize
from pvc.train.model_init import build_model, build_processor, get_untied_state, grow, resolve_recipe
from pvc.train.pipeline import run_recipe
from pvc.train.recipe import Recipe
from tests.train.test_run import TINY

BASE = {**TINY["stages"][1], "name": "base", "downsample_ratio": 0.5, "image_steps": 1, "num_temporal_layers": 0}
EXACT = {**TINY["stages"][1], "name": "exact", "image_steps": {4: 1}, "init": "exact", "steps": 2}


def recipe(*stages, **changes):
    data = copy.deepcopy(TINY)
    data["model"]["vision"] |= {"timestep": "cyclic", "timestep_period": 4}
    return resolve_recipe(
        Recipe.model_validate({**data, "stages": [copy.deepcopy(stage) for stage in stages], **changes})
    )


def test_the_stage_starts_with_the_tokens_of_the_one_before():
    made = recipe(BASE, EXACT)
    processor = build_processor(made)
    base = randomize(build_model(made, made.stages[0], processor)).eval()
    model, fresh = grow(made, made.stages[1], processor, get_untied_state(base))
    assert all(".temporal." in name for name in fresh)
    assert (model.config.compressor_norm_groups, model.config.image_token_order) == (4, "raster")
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = base.model.get_image_features(pixels, image_steps=1).pooler_output
        tokens = model.eval().model.get_image_features(pixels, image_steps=4).pooler_output
    for ours, theirs in zip(tokens, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


def test_later_stages_and_later_recipes_keep_the_compressor(tmp_path):
    later = {**EXACT, "name": "later", "init": "mean"}
    model = run_recipe(recipe(BASE, EXACT, later), tmp_path / "run", report=lambda line: None)
    config = pvc.load(model, device="cpu").model.config
    assert (config.compressor_norm_groups, config.image_token_order) == (4, "raster")
    again = Recipe.model_validate({"name": "again", "start": str(model), "stages": [{**later, "name": "again"}]})
    stage = resolve_recipe(again).stages[0]
    assert (stage.compressor_norm_groups, stage.image_token_order) == (4, "raster")
    # The recipe of the closed form itself can be run again from what it left.
    repeated = Recipe.model_validate({"name": "repeated", "start": str(model), "stages": [{**EXACT, "steps": 1}]})
    longer = run_recipe(repeated, tmp_path / "longer", report=lambda line: None)
    config = pvc.load(longer, device="cpu").model.config
    assert (config.compressor_norm_groups, config.image_token_order) == (4, "raster")
    # A stage of the same ratio may leave raster order.
    assert recipe(BASE, EXACT, {**later, "image_token_order": "step"}).stages[2].image_token_order == "step"


def test_what_cannot_be_exact_is_refused():
    with pytest.raises(ConfigError, match=r"stage exact: init 'exact' needs a downsample_ratio below .* \(nothing\)"):
        recipe(EXACT)
    with pytest.raises(ConfigError, match=r"\(0\.25\), not 0\.25"):
        recipe(BASE, EXACT, {**EXACT, "name": "more"})
    trained = {**BASE, "num_temporal_layers": 1}
    made = recipe(trained, EXACT)
    processor = build_processor(made)
    base = randomize(build_model(made, made.stages[0], processor))
    with pytest.raises(ConfigError, match="temporal blocks have not been trained"):
        grow(made, made.stages[1], processor, get_untied_state(base))
