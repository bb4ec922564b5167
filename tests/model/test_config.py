"""Configurations: checked at construction, no unknown keys, equal after a JSON round trip."""

import json

import pytest

from pvc.errors import ConfigError
from pvc.model.config import PVCConfig, PVCVisionConfig
from pvc.testing import tiny_config, tiny_vision_config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_temporal_layers": 5}, "5.*4 layers"),
        ({"num_temporal_layers": -1}, "-1"),
        ({"temporal_window": 0}, "temporal_window is 0"),
        ({"timestep": "absolute"}, "'absolute'.*index, relative"),
        ({"timestep_scale": 0.0}, "greater than 0"),
        ({"timestep_limit": 0}, "timestep_limit is 0"),
        ({"patch_size": 7}, "not a multiple"),
        ({"image_size": [32, 64]}, "square"),
        ({"num_attention_heads": 5}, "5 heads"),
        ({"num_temporal_layer": 2}, "unknown key in vision_config: num_temporal_layer"),
    ],
)
def test_wrong_vision_values(change, message):
    with pytest.raises(ConfigError, match=message):
        tiny_vision_config(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"downsample_ratio": 0.3}, "0.3.*0.5, 0.25, 0.125"),
        ({"downsample_ratio": 0.125}, "1/8 does not divide the 4 x 4 patches"),
        ({"image_steps": 0}, "image_steps is 0"),
        ({"image_token_id": 6}, "both 6"),
        ({"video_token_id": 100_000}, "outside the vocabulary"),
        ({"donwsample_ratio": 0.25}, "unknown key in config: donwsample_ratio"),
        ({"vision": {"temporal_window": 3}}, "temporal_window 3 is shorter than image_steps 4"),
    ],
)
def test_wrong_values(change, message):
    with pytest.raises(ConfigError, match=message):
        tiny_config(**change)


def test_defaults_are_the_documented_ones():
    vision = PVCVisionConfig()
    assert (vision.num_hidden_layers, vision.num_temporal_layers, vision.first_temporal_layer) == (24, 8, 16)
    assert (vision.timestep, vision.timestep_scale, vision.temporal_window) == ("index", 100.0, None)
    assert PVCVisionConfig(timestep="relative").timestep_scale == 1000.0
    config = PVCConfig()
    assert (config.downsample_ratio, config.image_steps, config.tokens_per_frame) == (0.25, 4, 64)


@pytest.mark.parametrize("vision", [{}, {"timestep": "relative", "temporal_window": 9, "timestep_limit": 63}])
def test_json_round_trip(vision, tmp_path):
    config = tiny_config(vision=vision)
    config.save_pretrained(tmp_path)
    again = PVCConfig.from_pretrained(tmp_path)
    first, second = (json.loads(c.to_json_string(use_diff=False)) for c in (config, again))
    for text in (first, second):
        text.pop("_name_or_path", None)
        text.pop("transformers_version", None)
    assert first == second
