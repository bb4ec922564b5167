"""P10: the fast path equals the slow float64 loops written from the method's formulas."""

import pytest
import torch

from pvc.testing import tiny_model
from tests.model.helpers import frames, limit, relative_difference
from tests.reference.slow import encode_clip, raster, timestep_vector


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "vision",
    [
        {},
        {"timestep": "relative"},
        {"temporal_window": 2, "timestep_limit": 2},
        {"num_temporal_layers": 4, "timestep_scale": 30.0},
        {"timestep": "cyclic", "timestep_period": 3},
    ],
    ids=["index", "relative", "window-and-limit", "all-layers", "cyclic"],
)
def test_p10_video_equals_reference(dtype, vision):
    changes = {"image_steps": 2} if "temporal_window" in vision else {}
    model = tiny_model(vision=vision, **changes).to(dtype)
    clip = frames(4, dtype=dtype)
    expected = encode_clip(model.state_dict(), model.config, clip, steps=4)
    with torch.no_grad():
        tokens = model.model.encode_clips(clip, frames=[4])[0][0]
    assert relative_difference(tokens, expected) <= limit(dtype)


@pytest.mark.parametrize("ratio", [0.5, 0.25])
def test_p10_picture_equals_reference(ratio):
    model = tiny_model(downsample_ratio=ratio).double()
    tiles = frames(2, dtype=torch.float64)
    expected = [encode_clip(model.state_dict(), model.config, tile[None], steps=3) for tile in tiles]
    with torch.no_grad():
        features = model.get_image_features(tiles, image_grid_thw=torch.tensor([[2, 1, 1]]), image_steps=3)
    step_major = torch.stack(expected, dim=1).flatten(0, 2)
    assert relative_difference(features.pooler_output[0], step_major) <= 1e-10


@pytest.mark.parametrize("vision", [{}, {"timestep": "cyclic", "timestep_period": 4}], ids=["index", "cyclic"])
def test_p10_a_clip_that_starts_late_equals_reference(vision):
    model = tiny_model(vision=vision).double()
    clips = frames(5, dtype=torch.float64)
    expected = [
        encode_clip(model.state_dict(), model.config, clips[:2], steps=2, first=30),
        encode_clip(model.state_dict(), model.config, clips[2:], steps=3, first=7),
    ]
    grid, offsets = torch.tensor([[2, 1, 1], [3, 1, 1]]), torch.tensor([30, 7])
    with torch.no_grad():
        tokens = model.get_video_features(clips, video_grid_thw=grid, step_offset=offsets).pooler_output
    for ours, theirs in zip(tokens, expected, strict=True):
        assert relative_difference(ours, theirs.flatten(0, 1)) <= 1e-10


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 6])
def test_p10_grouped_norm_and_raster_order_equal_reference(steps):
    vision = {"timestep": "cyclic", "timestep_period": 4}
    model = tiny_model(vision=vision, compressor_norm_groups=4, image_token_order="raster").double()
    tiles = frames(2, dtype=torch.float64)
    expected = [encode_clip(model.state_dict(), model.config, tile[None], steps=steps) for tile in tiles]
    with torch.no_grad():
        features = model.get_image_features(tiles, image_grid_thw=torch.tensor([[2, 1, 1]]), image_steps=steps)
    by_tile = torch.cat([raster(tokens, groups=4) for tokens in expected])
    assert relative_difference(features.pooler_output[0], by_tile) <= 1e-10


def test_p10_sinusoid():
    from pvc.model.temporal import sinusoid
    from pvc.testing import tiny_vision_config

    config = tiny_vision_config()
    ours = sinusoid(torch.tensor([0, 1, 63]), config.timestep_scale)
    expected = torch.stack([timestep_vector(config, step, None) for step in (0, 1, 63)])
    assert torch.allclose(ours, expected, atol=1e-9)
