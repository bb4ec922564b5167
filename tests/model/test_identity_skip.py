"""Temporal blocks that are the identity are skipped in inference, and only there."""

import pytest
import torch

from pvc.errors import MismatchError
from pvc.model.vision import PVCVisionLayer
from pvc.testing import tiny_model
from tests.model.helpers import frames


@pytest.fixture
def model():
    """Build a model with two temporal layers that are the identity; all other weights are random."""
    identity = tiny_model()
    with torch.no_grad():
        for layer in outputs(identity):
            layer.weight.zero_()
            layer.bias.zero_()
    return identity


def outputs(model):
    """List the output layers of the temporal blocks."""
    return [
        layer.temporal.attention.projection_layer
        for layer in model.model.vision_tower.encoder.layer
        if layer.temporal is not None
    ]


def rows_of_layers(model, call):
    """Record the number of rows in every layer during a call."""
    rows, hooks = [], []
    for layer in model.model.vision_tower.encoder.layer:
        assert isinstance(layer, PVCVisionLayer)
        hooks.append(layer.register_forward_pre_hook(lambda module, args: rows.append(len(args[0]))))
    try:
        call()
    finally:
        for hook in hooks:
            hook.remove()
    return rows


def test_steps_of_a_picture_share_all_layers(model):
    picture = frames(2)

    def call():
        return model.model.encode_clips(picture, steps=[4, 4])

    with torch.no_grad():
        assert rows_of_layers(model, call) == [2, 2, 2, 2]
        skipped = torch.stack(call()[0])
    assert rows_of_layers(model, call) == [2, 2, 8, 8]  # with gradients
    torch.testing.assert_close(skipped, torch.stack(call()[0]).detach(), rtol=0, atol=1e-5)
    model.train()
    with torch.no_grad():
        assert rows_of_layers(model, call) == [2, 2, 8, 8]


def test_a_change_of_weights_is_seen(model):
    picture = frames(1)

    def call():
        return model.model.encode_clips(picture, steps=[4])

    with torch.no_grad():
        assert rows_of_layers(model, call) == [1, 1, 1, 1]
        # `.data` leaves no trace in torch's version counter.
        outputs(model)[1].bias.data[0] = 1e-3
        assert rows_of_layers(model, call) == [1, 1, 1, 4]
        outputs(model)[0].weight.data[0, 0] = 1e-3
        assert rows_of_layers(model, call) == [1, 1, 4, 4]


def test_an_adapter_on_a_temporal_block_is_seen(model):
    from peft import LoraConfig, get_peft_model

    picture = frames(1)
    adapted = get_peft_model(model, LoraConfig(target_modules=r".*temporal.*projection_layer", r=2, lora_alpha=2))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_()
        inner = adapted.base_model.model
        rows = rows_of_layers(inner, lambda: inner.model.encode_clips(picture, steps=[4]))
    assert rows == [1, 1, 4, 4]


def test_the_cache_has_the_layers_that_are_used(model):
    clip = frames(4)
    with torch.no_grad():
        whole = model.model.encode_clips(clip, frames=[4])[0][0]
        first, cache = model.model.encode_frames(clip[:2])
        assert cache.keys == () and cache.nbytes == 0 and cache.steps == 2
        second, _ = model.model.encode_frames(clip[2:], cache)
        torch.testing.assert_close(torch.cat((first, second)), whole, rtol=0, atol=1e-5)
        outputs(model)[0].weight[0, 0] = 1e-3
        with pytest.raises(MismatchError, match="holds 0 temporal layers, but the model uses 2"):
            model.model.encode_frames(clip[2:], cache)
    assert model.model.vision_tower.num_active_temporal_layers == 2
