"""P4: one stored frame with four steps equals four stored copies, and the lower layers run on it once."""

import pytest
import torch

from pvc.testing import tiny_model
from tests.model.helpers import frames, limit, relative_difference


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("timestep", ["index", "relative"])
def test_p4_one_frame_equals_copies(dtype, timestep):
    model = tiny_model(vision={"timestep": timestep}).to(dtype)
    picture = frames(1, dtype=dtype)
    with torch.no_grad():
        stored_once = model.model.encode_clips(picture, steps=[4])[0][0]
        copies = model.model.encode_clips(picture.expand(4, -1, -1, -1), frames=[4])[0][0]
    assert relative_difference(stored_once, copies) <= limit(dtype)
    assert not torch.allclose(stored_once[0], stored_once[1], atol=1e-3), "steps must differ for this to mean anything"


def test_p4_lower_layers_run_once_per_stored_frame():
    model = tiny_model()
    rows = {}
    for index, layer in enumerate(model.model.vision_tower.encoder.layer):
        layer.mlp.register_forward_pre_hook(
            lambda module, args, index=index: rows.setdefault(index, []).append(len(args[0]))
        )
    with torch.no_grad():
        model.get_image_features(frames(3), image_grid_thw=torch.tensor([[2, 1, 1], [1, 1, 1]]), image_steps=4)
    assert rows == {0: [3], 1: [3], 2: [12], 3: [12]}


def test_without_temporal_layers_steps_still_differ_by_the_compressor():
    model = tiny_model(vision={"num_temporal_layers": 0})
    with torch.no_grad():
        tokens = model.model.encode_clips(frames(1), steps=[3])[0][0]
    assert tokens.shape == (3, 1, 32)
    assert not torch.allclose(tokens[0], tokens[1])
