"""Cyclic timesteps: the properties of a clip hold, and a clip can be of any length."""

import pytest
import torch

from pvc.errors import ConfigError, MismatchError, UsageError
from pvc.testing import tiny_model, tiny_vision_config
from tests.model.helpers import frames, limit, relative_difference

LENGTH = 11
CYCLIC = {"timestep": "cyclic", "timestep_period": 4}


@pytest.fixture(scope="module", params=[None, 5], ids=["no window", "window"])
def model(request):
    """Build a float64 model with cyclic timesteps, with and without a window."""
    return tiny_model(vision={**CYCLIC, "temporal_window": request.param}).double()


@pytest.fixture(scope="module")
def clip():
    """Generate a clip of random frames."""
    return frames(LENGTH, dtype=torch.float64)


def test_p1_later_frames_change_nothing(model, clip):
    changed = torch.cat((clip[:6], torch.zeros_like(clip[6:])))
    with torch.no_grad():
        before, after = (model.model.encode_clips(pixels, frames=[LENGTH])[0][0] for pixels in (clip, changed))
    assert torch.equal(before[:6], after[:6])
    assert not torch.equal(before[6], after[6])


@pytest.mark.parametrize("chunk", [1, 3, LENGTH])
def test_p2_pieces_equal_the_whole(model, clip, chunk):
    with torch.no_grad():
        whole = model.model.encode_clips(clip, frames=[LENGTH])[0][0]
        pieces, cache = [], None
        for part in clip.split(chunk):
            tokens, cache = model.model.encode_frames(part, cache)
            pieces.append(tokens)
    assert relative_difference(torch.cat(pieces), whole) <= limit(torch.float64)


def test_p3_clips_of_a_batch_are_apart(model, clip):
    with torch.no_grad():
        together = model.model.encode_clips(clip, frames=[2, 5, 4], step_offset=[3, 0, 9])[0]
        alone = [
            model.model.encode_clips(part, frames=[len(part)], step_offset=[first])[0][0]
            for part, first in zip(clip.split([2, 5, 4]), (3, 0, 9), strict=True)
        ]
    for ours, theirs in zip(together, alone, strict=True):
        assert relative_difference(ours, theirs) <= limit(torch.float64)


def test_p4_a_picture_is_a_static_clip(model, clip):
    with torch.no_grad():
        once = model.model.encode_clips(clip[:1], steps=[4])[0][0]
        copies = model.model.encode_clips(clip[:1].expand(4, -1, -1, -1), frames=[4])[0][0]
    assert relative_difference(once, copies) <= limit(torch.float64)


def test_p7_a_window_bounds_the_cache(clip):
    model = tiny_model(vision={**CYCLIC, "temporal_window": 4})
    cache, sizes = None, []
    with torch.no_grad():
        for number in range(30):
            _, cache = model.model.encode_frames(clip[number % LENGTH, None].float(), cache)
            sizes.append(cache.nbytes)
    assert sizes[4] == sizes[-1] == cache.max_nbytes


def test_a_clip_may_start_at_any_step(model, clip):
    """An offset of whole periods changes nothing, another one does, and a cache continues from it."""
    with torch.no_grad():
        first = model.model.encode_clips(clip, frames=[LENGTH])[0][0]
        later = model.model.encode_clips(clip, frames=[LENGTH], step_offset=[4000])[0][0]
        shifted, out = model.model.encode_clips(clip, frames=[LENGTH], step_offset=[2], use_cache=True)
        cache = model.model.encode_clips(clip[:6], frames=[6], step_offset=[2], use_cache=True)[1].cache
        rest = model.model.encode_frames(clip[6:], cache)[0]
    assert torch.equal(first, later)
    assert relative_difference(first, shifted[0]) > 1e-3
    assert relative_difference(rest, shifted[0][6:]) <= limit(torch.float64)
    with pytest.raises(UsageError, match="step_offset cannot be used here: a cache continues at its last step"):
        model.model.encode_clips(clip, frames=[LENGTH], step_offset=[2], cache=out.cache)
    with pytest.raises(MismatchError, match="step_offset has 2 entries, but there are 1 clips"):
        model.model.encode_clips(clip, frames=[LENGTH], step_offset=[2, 3])
    with pytest.raises(UsageError, match="step_offset must be at least 0, not -1"):
        model.model.encode_clips(clip, frames=[LENGTH], step_offset=[-1])


def test_an_offset_has_no_meaning_for_relative_timesteps(clip):
    model = tiny_model(vision={"timestep": "relative"}).double()
    with pytest.raises(UsageError, match="timesteps are relative"):
        model.model.encode_clips(clip, frames=[LENGTH], step_offset=[2])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"timestep": "cyclic"}, "'cyclic' and timestep_period None"),
        ({"timestep_period": 4}, "'index' and timestep_period 4"),
        ({"timestep": "cyclic", "timestep_period": 0}, "timestep_period is 0; it must be at least 1"),
        ({"timestep": "circular", "timestep_period": 4}, "it must be one of index, relative, cyclic"),
    ],
)
def test_a_period_goes_with_cyclic_timesteps(values, message):
    with pytest.raises(ConfigError, match=message):
        tiny_vision_config(**values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_modulations_and_the_embedder_stay_float32(tmp_path, dtype):
    """Built, cast, saved and loaded in lower precision, and under autocast."""
    from pvc.model.modeling import PVCForConditionalGeneration

    def dtypes(model):
        return {
            name: parameter.dtype
            for name, parameter in model.named_parameters()
            if "modulation" in name or "timestep_embedding" in name
        }

    model = tiny_model(vision=CYCLIC)
    exact = {name: value.clone() for name, value in model.state_dict().items() if name in dtypes(model)}
    built = PVCForConditionalGeneration._from_config(model.config, dtype=dtype)
    cast = model.to(dtype)
    cast.save_pretrained(tmp_path)
    loaded = PVCForConditionalGeneration.from_pretrained(tmp_path, dtype=dtype)
    for candidate in (built, cast, loaded):
        assert set(dtypes(candidate).values()) == {torch.float32}
        assert candidate.model.language_model.embed_tokens.weight.dtype == dtype
    for name, value in exact.items():
        assert torch.equal(loaded.state_dict()[name], value)
    embedder = loaded.model.vision_tower.timestep_embedding
    plain = embedder(torch.arange(4.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(embedder(torch.arange(4.0)), plain)
