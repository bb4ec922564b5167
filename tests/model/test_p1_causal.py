"""P1: tokens of a step ignore every later step, to the bit."""

import pytest
import torch

from pvc.testing import tiny_model
from tests.model.helpers import frames


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("timestep", ["index", "relative"])
def test_p1_later_frames_change_nothing_earlier(attention, window, timestep):
    model = tiny_model(attention=attention, vision={"temporal_window": window, "timestep": timestep})
    clip = frames(6)
    with torch.no_grad():
        before = model.model.encode_clips(clip, frames=[6])[0][0]
        for step in range(1, 6):
            changed = clip.clone()
            changed[step:] += torch.randn_like(changed[step:])
            after = model.model.encode_clips(changed, frames=[6])[0][0]
            assert torch.equal(after[:step], before[:step])
            assert not torch.equal(after[step], before[step])


def test_p1_index_steps_are_a_prefix():
    """With index timesteps, two steps of a picture are the first two of its four; with relative ones they are not."""
    picture = frames(1)
    for timestep, prefix in (("index", True), ("relative", False)):
        model = tiny_model(vision={"timestep": timestep})
        with torch.no_grad():
            two = model.model.encode_clips(picture, steps=[2])[0][0]
            four = model.model.encode_clips(picture, steps=[4])[0][0]
        assert torch.allclose(two, four[:2], atol=1e-5) is prefix
