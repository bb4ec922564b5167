"""P7: with a window, the cache holds as many bytes after 1,000 steps as when the window filled."""

import torch

from pvc.testing import tiny_model
from tests.model.helpers import frames


def test_p7_bytes_do_not_grow():
    model = tiny_model(vision={"temporal_window": 6})
    clip = frames(1)
    sizes, cache = [], None
    with torch.no_grad():
        for _ in range(1000):
            _, cache = model.model.encode_frames(clip, cache)
            sizes.append(cache.nbytes)
    assert sizes[:6] == [sizes[0] * min(step, 5) for step in range(1, 7)]
    assert set(sizes[5:]) == {cache.max_nbytes}
    allocated = sum(tensor.untyped_storage().nbytes() for tensor in (*cache.keys, *cache.values))
    assert allocated == cache.nbytes, "a view would hold the memory of dropped steps"


def test_without_a_window_the_bound_is_none():
    model = tiny_model()
    with torch.no_grad():
        _, cache = model.model.encode_frames(frames(3))
    assert cache.max_nbytes is None
    assert cache.nbytes == 2 * 2 * 3 * 17 * 32 * 4  # keys and values, layers, steps, positions, width, float32
