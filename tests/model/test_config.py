"""Configurations: checked at construction, no misspelt fields, equal after a JSON round trip."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForImageTextToText, LlamaConfig, Qwen2Config, Qwen3Config
from transformers.configuration_utils import PreTrainedConfig

import pvc
import pvc.auto  # registers the classes
from pvc.checkpoint.files import CheckpointFiles
from pvc.cli.info import describe
from pvc.errors import ConfigError
from pvc.model.config import PVCConfig, PVCVisionConfig
from pvc.model.keys import check_keys, is_within, unknown_keys
from pvc.testing import tiny_config, tiny_model, tiny_processor, tiny_vision_config

FOREIGN = {
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "vocab_size": 99,
    "tokenizer_class": "PreTrainedTokenizerFast",
    "keys_to_ignore_at_inference": ["past_key_values"],
    "unsloth_version": "2026.1",
    "notes": {"by": "a tool", "runs": [1, {"loss": 0.5}]},
}


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
        ({"num_temporal_layer": 2}, "vision_config: num_temporal_layer; did you mean num_temporal_layers"),
        ({"num_hiden_layers": 2}, "num_hiden_layers; did you mean num_hidden_layers"),
        ({"grid": 4}, "grid is computed"),
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
        ({"donwsample_ratio": 0.25}, "config: donwsample_ratio; did you mean downsample_ratio"),
        ({"image_step": 4}, "image_step; did you mean image_steps"),
        ({"tokens_per_frame": 4}, "tokens_per_frame is computed"),
        ({"to_dict": 4}, "to_dict is computed"),
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


def test_keys_of_other_tools_are_kept(tmp_path):
    """Keys that a user or a tool sets before `save_pretrained` are present after loading, at every level."""
    model = tiny_model()
    for config in (model.config, model.config.vision_config, model.config.text_config):
        for key, value in FOREIGN.items():
            if config is model.config or not hasattr(config, key):
                setattr(config, key, value)
    quantization = {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnlyConfig"}}}
    model.save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert {key: getattr(again, key) for key in FOREIGN} == FOREIGN
    assert again.vision_config.notes == again.text_config.notes == FOREIGN["notes"]
    assert again.text_config.vocab_size == model.config.text_config.vocab_size
    assert AutoModelForImageTextToText.from_pretrained(tmp_path).config.unsloth_version == "2026.1"
    assert pvc.load(tmp_path, device="cpu").model.config.notes == FOREIGN["notes"]
    assert describe(CheckpointFiles(tmp_path))["parameters"]["total"] == model.num_parameters()
    again.quantization_config = quantization
    again.save_pretrained(tmp_path / "quantised")
    assert PVCConfig.from_pretrained(tmp_path / "quantised").quantization_config == quantization


@pytest.mark.parametrize("config_class", [PVCConfig, PVCVisionConfig, Qwen2Config, Qwen3Config, LlamaConfig])
def test_keys_of_transformers_are_never_refused(config_class):
    known = {field.name for field in dataclasses.fields(PreTrainedConfig)} | set(vars(PreTrainedConfig()))
    known |= {"torch_dtype", "name_or_path", "num_labels", "quantization_config", "rope_scaling", "sep_token_id"}
    known |= {"cls_token_id", "mask_token_id", "decoder_start_token_id", "tie_encoder_decoder", "is_decoder"}
    known |= {"tokenizer_class", "prefix", "pruned_heads", "use_cache", "head_dim", "mlp_bias", "layer_types"}
    check_keys("config", config_class, known)


@pytest.mark.parametrize("name", ["downsample_ratio", "image_steps", "text_config", "video_token_id"])
def test_every_misspelling_within_two_edits_is_refused(name):
    places = range(len(name))
    spellings = {name[:at] + name[at + 1 :] for at in places} | {name[:at] + "zz" + name[at:] for at in places}
    spellings |= {name[:at] + "qz" + name[at + 2 :] for at in range(len(name) - 1)}
    spellings |= {name[:at] + name[at + 1] + name[at] + name[at + 2 :] for at in range(len(name) - 1)} - {name}
    for spelling in spellings - set(unknown_fields(spellings)):
        with pytest.raises(ConfigError, match=f"unknown key in config: {spelling}; did you mean {name}"):
            check_keys("config", PVCConfig, [spelling])


def unknown_fields(names):
    """Return the names that are known: fields, and keys of transformers."""
    return set(names) - set(unknown_keys(PVCConfig, names))


@given(st.text("abc_", max_size=6), st.text("abc_", max_size=6))
def test_edits_are_counted_as_by_the_full_table(first, second):
    table = [[row + column for column in range(len(second) + 1)] for row in range(len(first) + 1)]
    for row in range(1, len(first) + 1):
        for column in range(1, len(second) + 1):
            changed = first[row - 1] != second[column - 1]
            table[row][column] = min(
                table[row - 1][column] + 1, table[row][column - 1] + 1, table[row - 1][column - 1] + changed
            )
            if row > 1 and column > 1 and first[row - 2 : row] == second[column - 2 : column][::-1]:
                table[row][column] = min(table[row][column], table[row - 2][column - 2] + 1)
    for edits in range(4):
        assert is_within(first, second, edits) == (table[-1][-1] <= edits)
