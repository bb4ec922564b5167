"""Calculate the cost of the `pvc distill` recipes for InternVL3 by shape: operations and memory of the token loss.

    python benchmarks/distillation.py            # no weights and no media are needed

The results are quoted in `recipes/distill-internvl3-*.yaml`. Clips have 32 frames; pictures are counted per tile.
"""

from __future__ import annotations

import json
from pathlib import Path

from training import SHAPES, VISION

from pvc.train.distill.cost import stage_cost
from pvc.train.model_init import build_processor
from pvc.train.recipe import Recipe, load_recipe

RECIPES = Path(__file__).parents[1] / "recipes"


def build_recipe(name: str) -> Recipe:
    """Build the recipe of a size, a key of SHAPES, with its public shape in place of a checkpoint."""
    layers, width, heads, kv_heads, mlp, tied = SHAPES[name]
    text = {"model_type": "qwen2", "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    text |= {"num_key_value_heads": kv_heads, "intermediate_size": mlp, "vocab_size": 151674}
    vision = {**VISION, "timestep": "cyclic", "timestep_period": 4}
    model = {"vision": vision, "text": {**text, "tie_word_embeddings": tied}, "vocab_size": 400, "num_frames": 32}
    data = json.loads(load_recipe(RECIPES / f"distill-{name.lower()}.yaml").model_dump_json())
    stage = {**data["stages"][0], "compressor_norm_groups": 4, "image_token_order": "raster"}
    return Recipe.model_validate({"name": "shape", "model": model, "stages": [{**stage, "file_frames": {32: 1}}]})


def main() -> None:
    """Print one line per size."""
    for name in SHAPES:
        recipe = build_recipe(name)
        print(f"{name}: {stage_cost(recipe, recipe.stages[0], build_processor(recipe)).describe()}", flush=True)


if __name__ == "__main__":
    main()
