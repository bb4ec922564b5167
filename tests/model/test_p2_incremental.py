"""P2: a clip encoded whole, in chunks or frame by frame gives the same tokens."""

import pytest
import torch

from pvc.errors import MismatchError, UsageError
from pvc.testing import tiny_model
from tests.model.helpers import frames, limit, relative_difference

LENGTH = 9


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("timestep", ["index", "relative"])
@pytest.mark.parametrize("chunk", [1, 3, LENGTH])
def test_p2_chunks_equal_whole(dtype, attention, window, timestep, chunk):
    model = tiny_model(attention=attention, vision={"temporal_window": window, "timestep": timestep}).to(dtype)
    clip = frames(LENGTH, dtype=dtype)
    with torch.no_grad():
        whole = model.model.encode_clips(clip, frames=[LENGTH])[0][0]
        cache, pieces = None, []
        for start in range(0, LENGTH, chunk):
            tokens, cache = model.model.encode_frames(clip[start : start + chunk], cache, total_steps=LENGTH)
            pieces.append(tokens)
    assert cache.steps == LENGTH
    assert relative_difference(torch.cat(pieces), whole) <= limit(dtype)


def test_p2_several_clips_and_static_clips_continue():
    """Two clips side by side, and a picture whose four steps come in two calls."""
    model = tiny_model().double()
    clips = frames(8, dtype=torch.float64)
    pictures = frames(3, seed=1, dtype=torch.float64)
    with torch.no_grad():
        whole = model.model.encode_clips(clips, frames=[4, 4])[0]
        first, out = model.model.encode_clips(clips[[0, 1, 4, 5]], frames=[2, 2], use_cache=True)
        second, _ = model.model.encode_clips(clips[[2, 3, 6, 7]], frames=[2, 2], cache=out.cache, use_cache=True)
        for clip in range(2):
            joined = torch.cat((first[clip], second[clip]))
            assert relative_difference(joined, whole[clip]) <= 1e-10
        still = model.model.encode_clips(pictures, steps=[4] * 3)[0]
        early, out = model.model.encode_clips(pictures, steps=[1] * 3, use_cache=True)
        late, _ = model.model.encode_clips(pictures, steps=[3] * 3, cache=out.cache)
        for clip in range(3):
            assert relative_difference(torch.cat((early[clip], late[clip])), still[clip]) <= 1e-10


def test_p2_a_cache_is_a_value():
    """Continuing from a cache twice has the same result twice: nothing is changed in place."""
    model = tiny_model(vision={"temporal_window": 4})
    clip = frames(6)
    with torch.no_grad():
        _, cache = model.model.encode_frames(clip[:4])
        copies = [tensor.clone() for tensor in (*cache.keys, *cache.values)]
        once, _ = model.model.encode_frames(clip[4:], cache)
        again, _ = model.model.encode_frames(clip[4:], cache)
    assert torch.equal(once, again)
    assert all(torch.equal(a, b) for a, b in zip(copies, (*cache.keys, *cache.values), strict=True))


def test_timestep_limit_saturates():
    model = tiny_model(vision={"timestep_limit": 2, "temporal_window": 4})
    still = frames(1).expand(12, -1, -1, -1)
    with torch.no_grad():
        tokens = model.model.encode_clips(still, frames=[12])[0][0]
    assert not torch.allclose(tokens[1], tokens[2], atol=1e-4)
    # Two temporal layers see 2 * (window - 1) = 6 steps back; from step 8 on, all of those are at the limit.
    assert torch.allclose(tokens[8], tokens[11], atol=1e-5)


def test_misuse_is_an_error():
    model = tiny_model(vision={"timestep": "relative"})
    clip = frames(4)
    with pytest.raises(UsageError, match="total_steps"):
        model.model.encode_frames(clip)
    _, cache = model.model.encode_frames(clip[:2], total_steps=4)
    with pytest.raises(MismatchError, match="5.*4"):
        model.model.encode_frames(frames(3), cache)
    with pytest.raises(MismatchError, match="1 clips.*2 clips"):
        model.model.encode_clips(clip, frames=[2, 2], cache=cache)
    with pytest.raises(UsageError, match="equally many steps, not"):
        model.model.encode_clips(clip, frames=[3, 1], use_cache=True, total_steps=4)
