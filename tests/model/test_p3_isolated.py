"""P3: clips in one batch never see each other."""

import pytest
import torch

from pvc.testing import tiny_model
from tests.model.helpers import frames, limit, relative_difference


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_p3_batch_equals_one_by_one(dtype, attention):
    model = tiny_model(attention=attention, vision={"temporal_window": 5}).to(dtype)
    lengths = [3, 1, 5, 3, 7]
    steps = [3, 4, 5, 3, 7]
    clips = [frames(length, seed=seed, dtype=dtype) for seed, length in enumerate(lengths)]
    with torch.no_grad():
        together = model.model.encode_clips(torch.cat(clips), frames=lengths, steps=steps)[0]
        for clip, length, count, batched in zip(clips, lengths, steps, together, strict=True):
            alone = model.model.encode_clips(clip, frames=[length], steps=[count])[0][0]
            assert relative_difference(batched, alone) <= limit(dtype)


def test_p3_attention_in_parts_is_the_same(monkeypatch):
    """CUDA kernels take at most 65,535 rows; here the limit is made small."""
    from pvc.model import temporal

    model, clips = tiny_model(), frames(12)
    with torch.no_grad():
        whole = model.model.encode_clips(clips, frames=[4, 4, 4])[0]
        monkeypatch.setattr(temporal, "MAX_ATTENTION_BATCH", 20)
        parts = model.model.encode_clips(clips, frames=[4, 4, 4])[0]
    assert all(relative_difference(a, b) <= 1e-5 for a, b in zip(parts, whole, strict=True))


def test_p3_another_clip_changes_nothing():
    """Bit-equal when only a neighbour's pixels change: shapes, and so kernels, stay the same."""
    model = tiny_model()
    clips = frames(8)
    changed = clips.clone()
    changed[4:] = -3 * changed[4:]
    with torch.no_grad():
        first = model.model.encode_clips(clips, frames=[4, 4])[0]
        second = model.model.encode_clips(changed, frames=[4, 4])[0]
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])
