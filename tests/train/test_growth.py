"""A recipe with more layers than what it starts from starts with the answers of that model."""

import torch

from pvc.train.model_init import build_processor, get_untied_state, grow
from pvc.train.recipe import Recipe

VISION = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}
VISION |= {"attention_bias": True, "num_hidden_layers": 2, "num_temporal_layers": 0}
TEXT = {"model_type": "qwen2", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT |= {"num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 256, "tie_word_embeddings": True}
STAGE = {"name": "base", "kind": "chat", "steps": 1, "tasks": {"read": 1}, "downsample_ratio": 0.5, "image_steps": 1}


def recipe(**layers):
    model = {"vision": {**VISION}, "text": {**TEXT}, "vocab_size": 300}
    for part, number in layers.items():
        model[part]["num_hidden_layers"] = number
    return Recipe.model_validate({"name": "deeper", "model": model, "stages": [STAGE]})


def logits(model, processor):
    torch.manual_seed(0)
    ids = torch.tensor([[7, processor.image_token_id, processor.image_token_id, 9, 11, 12]])
    count = processor.tokens_per_frame
    ids = torch.cat([ids[:, :1], ids[:, 1:2].expand(1, count), ids[:, 3:]], 1)
    pixels = torch.randn(1, 3, 32, 32)
    inputs = {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, 1, 1]]), "image_steps": torch.tensor([1])}
    with torch.no_grad():
        return model.eval()(input_ids=ids, **inputs, use_cache=False).logits


def test_new_layers_start_as_the_identity():
    small, deep = recipe(), recipe(vision=4, text=3)
    processor = build_processor(small)
    before, _ = grow(small, small.stages[0], processor, {})
    with torch.no_grad():
        for parameter in before.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    after, fresh = grow(deep, deep.stages[0], processor, get_untied_state(before))
    assert any("encoder.layer.3." in name for name in fresh) and any("layers.2." in name for name in fresh)
    expected, found = logits(before, processor), logits(after, processor)
    assert torch.allclose(found, expected, atol=1e-6)
    # They are not stuck there: what they compute reaches the loss as soon as their outputs move.
    after.train()
    logits_of = after(input_ids=torch.tensor([[7, 9, 11]]), use_cache=False).logits
    logits_of.logsumexp(-1).mean().backward()
    new = dict(after.named_parameters())["model.language_model.layers.2.mlp.down_proj.weight"]
    assert new.grad is not None and bool(new.grad.any())


def test_layers_that_are_known_are_taken_as_they_are():
    small = recipe()
    processor = build_processor(small)
    before, _ = grow(small, small.stages[0], processor, {})
    after, fresh = grow(small, small.stages[0], processor, get_untied_state(before))
    assert not fresh
    assert all(torch.equal(value, get_untied_state(after)[name]) for name, value in get_untied_state(before).items())
