"""Every recipe in the repository is one that could run."""

from pathlib import Path

import pytest

from pvc.train.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_it_is_checked(path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    for stage in recipe.stages:
        assert len(max(path.read_text().splitlines(), key=len)) <= 120
        if path.stem.startswith("internvl"):
            assert stage.pack == stage.longest == 8192
            assert set(stage.image_steps) == {1, 2, 4}
            assert stage.file_frames and min(stage.file_frames) == 16 and max(stage.file_frames) == 96
