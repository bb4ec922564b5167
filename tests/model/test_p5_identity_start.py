"""P5: temporal blocks start as the identity: a PVC tower with InternVL's weights has InternVL's results."""

import pytest
import torch
from transformers import InternVLConfig, InternVLForConditionalGeneration

from pvc.model.config import PVCConfig
from pvc.model.modeling import PVCForConditionalGeneration
from pvc.testing import randomize
from tests.model.helpers import frames, relative_difference

VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
    "attention_bias": True,
}
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 64,
}


@pytest.fixture(scope="module")
def pair():
    """Build a tiny InternVL, and a PVC model (ratio 1/2, one step) that starts from its weights."""
    source = InternVLForConditionalGeneration(
        InternVLConfig(
            vision_config=VISION,
            text_config={"model_type": "qwen2", **TEXT},
            image_token_id=7,
            downsample_ratio=0.5,
            tie_word_embeddings=False,
        )
    )
    randomize(source)
    ours = PVCForConditionalGeneration(
        PVCConfig(
            vision_config=VISION,
            text_config={"model_type": "qwen2", **TEXT},
            image_token_id=7,
            video_token_id=8,
            downsample_ratio=0.5,
            image_steps=1,
        )
    )
    theirs = source.state_dict()
    norm = "model.multi_modal_projector.layer_norm"
    weight, bias = theirs.pop(f"{norm}.weight"), theirs.pop(f"{norm}.bias")
    theirs["model.multi_modal_projector.norm.modulation.bias"] = torch.cat((weight - 1, bias))
    missing, unexpected = ours.load_state_dict(theirs, strict=False)
    assert not unexpected
    assert all(".temporal." in key or "timestep_embedding" in key or "modulation" in key for key in missing)
    return source.eval(), ours.eval()


def test_p5_tower_is_bit_equal(pair):
    source, ours = pair
    pixels = frames(3)
    with torch.no_grad():
        expected = source.model.vision_tower(pixels).last_hidden_state
        assert torch.equal(ours.model.vision_tower(pixels).last_hidden_state, expected)
        static = ours.model.vision_tower(pixels, steps=[4] * 3)
        for clip, frame in zip(static.layout.split(static.last_hidden_state), expected, strict=True):
            assert all(torch.allclose(step, frame, atol=1e-5) for step in clip)


def test_p5_logits_and_greedy_tokens_are_equal(pair):
    source, ours = pair
    pixels = frames(2)
    ids = torch.tensor([[1, 2, *[7] * 8, 3, 4]])
    with torch.no_grad():
        expected = source(input_ids=ids, pixel_values=pixels).logits
        logits = ours(input_ids=ids, pixel_values=pixels).logits
        assert relative_difference(logits, expected) <= 1e-5
        options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
        assert torch.equal(
            ours.generate(input_ids=ids, pixel_values=pixels, **options),
            source.generate(input_ids=ids, pixel_values=pixels, **options),
        )


def test_p5_every_shared_tensor_keeps_its_name(pair):
    source, ours = pair
    names = set(ours.state_dict())
    assert {key for key in source.state_dict() if "layer_norm" not in key} <= names
