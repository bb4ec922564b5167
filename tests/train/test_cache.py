"""Cached samples: the batches are those of the processor, every round has them all, and the directory is guarded."""

import copy

import numpy as np
import pytest
import torch

from pvc.errors import CheckpointError
from pvc.testing import tiny_processor
from pvc.train.augment import augment_pixels
from pvc.train.data.mixture import ChatCollator, StageDataset
from pvc.train.data.sample_cache import CachedDataset, PackedCollator, pack, write_cache
from pvc.train.recipe import Augment, Stage

STAGE = Stage(
    name="x",
    kind="chat",
    steps=30,
    batch_size=4,
    image_steps={1: 1, 2: 1, 4: 1},
    tasks={"read": 1, "shape": 1, "direction": 1, "digits": 1},
    video_frames={3: 1, 5: 1},
    cache=40,
)


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    processor = tiny_processor(max_tiles=1)
    directory = tmp_path_factory.mktemp("cache") / "x"
    lines = []
    write_cache(StageDataset(STAGE, 3, 32), processor, directory, lines.append)
    assert lines
    return directory, processor


def test_batches_equal_those_of_the_processor(cached):
    directory, processor = cached
    samples, kept = StageDataset(STAGE, 3, 32), CachedDataset(directory, STAGE, 3)
    seen = set()
    for number in range(10):
        items = [samples[number * 4 + i] for i in range(4)]
        seen.add((items[0].generated.origin.kind, items[0].image_steps))
        expected = ChatCollator(processor)(items)
        packed = [kept.read_example(number * 4 + i, items[0].image_steps) for i in range(4)]
        given = PackedCollator(processor)(packed)
        assert set(given) == set(expected)
        for key, value in expected.items():
            if "pixel" in key:
                assert torch.allclose(given[key], value, atol=1e-6)
            else:
                assert torch.equal(given[key], value), key
    assert len(seen) > 3


def test_tiles_and_several_media_are_packed_as_they_are():
    processor = tiny_processor(max_tiles=4)
    rng = np.random.default_rng(0)
    wide, square = (rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((32, 96, 3), (32, 32, 3)))
    messages = [
        {"role": "user", "content": [{"type": "image", "image": wide}, {"type": "image", "image": square}]},
        {"role": "assistant", "content": "two"},
    ]
    packed = pack(messages, processor)
    assert [len(pixels) for _, pixels in packed.media] == [4, 1]
    for steps in (1, 3):
        expected = processor.apply_chat_template([messages], tokenize=True, image_steps=steps)
        given = PackedCollator(processor)([type(packed)(**{**vars(packed), "image_steps": steps})])
        assert torch.equal(given["input_ids"], expected["input_ids"])
        assert torch.equal(given["image_steps"], expected["image_steps"])
    assert StageDataset(STAGE, 3, 32)[0].messages


def test_every_round_has_all_samples_in_another_order(cached):
    directory, _ = cached
    kept = CachedDataset(directory, STAGE, 3)
    rounds = [[kept._get_order(number)[place] for place in range(40)] for number in range(2)]
    assert sorted(rounds[0]) == sorted(rounds[1]) == list(range(40))
    assert rounds[0] != rounds[1]
    again = CachedDataset(directory, STAGE, 3)
    for index in (77, 3, 41):
        assert np.array_equal(again[index].ids, kept[index].ids)
    for start in range(0, 120, 4):
        assert len({tuple((kind, len(pixels)) for kind, pixels in kept[start + i].media) for i in range(4)}) == 1
        assert len({kept[start + i].image_steps for i in range(4)}) == 1


def test_a_cache_belongs_to_one_recipe(cached):
    directory, processor = cached
    write_cache(StageDataset(STAGE, 3, 32), processor, directory, lambda line: None)
    with pytest.raises(CheckpointError, match="another recipe"):
        write_cache(StageDataset(STAGE, 4, 32), processor, directory, lambda line: None)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        (None, "frame_prefix", "index"),
        ("image_processor", "use_thumbnail", False),
        ("image_processor", "pad2square", True),
    ],
)
def test_a_cache_belongs_to_one_processor(cached, part, name, value):
    directory, processor = cached
    changed = copy.deepcopy(processor)
    setattr(getattr(changed, part) if part else changed, name, value)
    with pytest.raises(CheckpointError, match="another recipe"):
        write_cache(StageDataset(STAGE, 3, 32), changed, directory, lambda line: None)


def test_augmentation_depends_on_its_seed_alone_and_keeps_the_middle():
    pixels = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    augment = Augment(contrast=0.2, brightness=0.1, noise=0.05)
    first, second = augment_pixels(pixels, augment, 5), augment_pixels(pixels, augment, 5)
    assert torch.equal(first, second)
    assert not torch.equal(first, augment_pixels(pixels, augment, 6))
    scale = (first - first.mean((1, 2, 3), keepdim=True)).std((1, 2, 3)) / pixels.std((1, 2, 3))
    assert ((scale > 0.79) & (scale < 1.22)).all()
    assert scale.std() > 0.01
    assert torch.allclose(augment_pixels(pixels, Augment(), 1), pixels, atol=1e-6)
