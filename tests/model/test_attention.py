"""bf16 attention as matrix products on a CPU: equal to the fused kernel, and used only where it is faster."""

import pytest
import torch
from torch.nn import functional

import pvc
from pvc.model import attention
from pvc.model.attention import MATMUL, matmul_attention, should_use_matmul
from pvc.testing import tiny_model


def heads(batch, count, steps, width, dtype=torch.bfloat16, seed=0):
    """Generate query, key and value `(batch, count, steps, width)`, as views like those of the layers."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, steps, count, width, generator=generator).to(dtype).transpose(1, 2) for _ in range(3)]


@pytest.mark.parametrize(("steps", "causal"), [(65, False), (300, False), (8, True), (1, True), (40, True)])
@pytest.mark.parametrize("chunk", [None, 1])
def test_it_is_softmax_attention(steps, causal, chunk, monkeypatch):
    if chunk is not None:
        monkeypatch.setattr(attention, "_CHUNK_SCORES", chunk)
    query, key, value = heads(3, 2, steps, 16)
    with torch.inference_mode():
        ours, weights = matmul_attention(torch.nn.Module(), query, key, value, None, scaling=0.25, is_causal=causal)
        exact = functional.scaled_dot_product_attention(
            *(tensor.double() for tensor in (query, key, value)), is_causal=causal, scale=0.25
        )
    assert weights is None
    assert ours.dtype == torch.bfloat16
    assert (ours.double() - exact.transpose(1, 2)).abs().max() < 0.03


def test_slower_cases_go_to_the_fused_kernel(monkeypatch):
    called = []

    def fused(module, query, *args, **kwargs):
        called.append(query.dtype)
        return query.transpose(1, 2), None

    monkeypatch.setattr(attention, "sdpa_attention_forward", fused)
    query, key, value = heads(1, 2, 20, 16)
    mask = torch.zeros(1, 1, 20, 20, dtype=torch.bfloat16)
    with torch.inference_mode():
        matmul_attention(torch.nn.Module(), query, key, value, None)
        assert called == []
        matmul_attention(torch.nn.Module(), query, key, value, mask)
        matmul_attention(torch.nn.Module(), query, key, value, None, is_causal=True)  # more than a few steps
        matmul_attention(torch.nn.Module(), *(tensor.float() for tensor in (query, key, value)), None)
    matmul_attention(torch.nn.Module(), query, key, value, None)  # training
    assert len(called) == 4


def test_a_tower_gives_the_same_with_both():
    model = tiny_model().to(torch.bfloat16)
    tower = model.model.vision_tower
    frames = torch.randn(9, 3, 32, 32, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    with torch.inference_mode():
        fused = tower(frames, frames=[4, 5]).last_hidden_state
        tower.set_attn_implementation(MATMUL)
        products = tower(frames, frames=[4, 5]).last_hidden_state
        cache, pieces = None, []
        for frame in frames[:4]:
            tokens, cache = model.model.encode_frames(frame[None], cache)
            pieces.append(tokens)
        whole, _ = model.model.encode_clips(frames[:4], frames=[4])
    assert (products - fused).abs().mean() < 0.03 * fused.abs().mean()
    assert (torch.cat(pieces) - whole[0]).abs().mean() < 0.03 * whole[0].abs().mean()


@pytest.mark.parametrize("is_supported", [True, False])
def test_it_is_chosen_when_a_checkpoint_is_loaded(is_supported, checkpoint, monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: is_supported, raising=False)
    assert should_use_matmul(torch.device("cpu"), torch.bfloat16) is is_supported
    assert not should_use_matmul(torch.device("cpu"), torch.float32)
    engine = pvc.load(checkpoint, device="cpu", dtype="bfloat16")
    implementation = engine.model.model.vision_tower.config._attn_implementation
    assert implementation == (MATMUL if is_supported else "sdpa")
    assert engine.model.model.language_model.config._attn_implementation == "sdpa"
    assert pvc.load(checkpoint, device="cpu").model.model.vision_tower.config._attn_implementation == "sdpa"
    assert engine.chat().ask("what is it?", [torch.zeros(40, 40, 3, dtype=torch.uint8).numpy()]) is not None
