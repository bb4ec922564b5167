"""Chunks of a long video: prepared one ahead where a GPU encodes, the same either way."""

import threading

import numpy as np
import pytest
import torch

import pvc
from pvc.engine import encode
from pvc.media import Video


def clip(frames):
    pictures = np.random.default_rng(0).integers(0, 255, (frames, 32, 32, 3), dtype=np.uint8)
    if frames > 5:
        pictures[5] = pictures[4]
    return Video.from_frames(pictures, timestamps=[0.5 * number for number in range(frames)])


@pytest.mark.parametrize("frames", [1, 32, 70])
def test_prepared_ahead_or_not(checkpoint, frames):
    engine = pvc.load(checkpoint, device="cpu")
    inline, ahead = (list(encode._chunks(engine.processor, clip(frames), way)) for way in (False, True))
    assert len(inline) == len(ahead) == -(-frames // 32)
    for (one, counts), (other, same) in zip(inline, ahead, strict=True):
        assert torch.equal(one, other)
        assert counts == same


def test_the_next_chunk_is_prepared_meanwhile_and_no_more(checkpoint, monkeypatch):
    engine = pvc.load(checkpoint, device="cpu")
    own, started, done = encode._stored, [], threading.Semaphore(0)

    def stored(processor, video, part):
        started.append(part.start)
        try:
            return own(processor, video, part)
        finally:
            done.release()

    monkeypatch.setattr(encode, "_stored", stored)
    chunks = encode._chunks(engine.processor, clip(128), ahead=True)
    for number in range(3):
        next(chunks)
        for _ in range(2 if number == 0 else 1):
            assert done.acquire(timeout=30)
        assert started == [32 * step for step in range(number + 2)]
    assert len(list(chunks)) == 1


def test_what_fails_ahead_is_raised(checkpoint, monkeypatch):
    engine = pvc.load(checkpoint, device="cpu")
    own = encode._stored

    def stored(processor, video, part):
        if part.start:
            raise MemoryError("no more")
        return own(processor, video, part)

    monkeypatch.setattr(encode, "_stored", stored)
    with pytest.raises(MemoryError, match="no more"):
        list(encode._chunks(engine.processor, clip(64), ahead=True))
