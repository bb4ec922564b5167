"""Samples by index, and collation: labels on answers only, one kind of media a batch."""

import torch

from pvc.testing import tiny_config, tiny_model, tiny_processor
from pvc.train.data import IGNORED, ChatCollator, SyntheticSamples
from pvc.train.recipe import Stage

STAGE = Stage(
    name="x",
    kind="chat",
    steps=12,
    batch_size=4,
    image_steps=2,
    tasks={"read": 1, "shape": 1, "direction": 1, "digits": 1},
    video_frames={3: 1, 5: 1},
)


def test_a_sample_depends_on_its_index_alone():
    ours, theirs = SyntheticSamples(STAGE, 3, 32), SyntheticSamples(STAGE, 3, 32)
    assert len(ours) == 48
    for index in (17, 3, 40, 3):
        assert ours[index].sample.description == theirs[index].sample.description
    assert ours[3].sample.description != SyntheticSamples(STAGE, 4, 32)[3].sample.description


def test_batches_hold_one_kind_and_one_length():
    samples = SyntheticSamples(STAGE, 0, 32)
    seen = set()
    for batch in range(12):
        chosen = [samples[batch * 4 + i].sample for i in range(4)]
        shapes = {(sample.kind, len(sample.frames)) for sample in chosen}
        assert len(shapes) == 1
        seen |= shapes
    assert seen == {("image", 1), ("video", 3), ("video", 5)}


def test_labels_cover_the_answer_and_its_end_only():
    processor = tiny_processor(max_tiles=1)
    samples = SyntheticSamples(STAGE, 0, 32)
    for batch in range(4):
        chosen = [samples[batch * 4 + i] for i in range(4)]
        inputs = ChatCollator(processor)(chosen)
        for item, ids, labels in zip(chosen, inputs["input_ids"], inputs["labels"], strict=True):
            sample = item.sample
            kept = labels[labels != IGNORED]
            answers = [sample.answer, *(answer for _, answer in sample.more)]
            assert processor.tokenizer.decode(kept) == "".join(f"{answer}<|im_end|>" for answer in answers)
            assert torch.equal(ids[labels != IGNORED], kept)


def test_a_model_can_learn_one_batch_by_heart():
    config = tiny_config(image_steps=2)
    model, processor = tiny_model(image_steps=2).train(), tiny_processor(config, max_tiles=1)
    samples = SyntheticSamples(STAGE, 0, 32)
    inputs = ChatCollator(processor)([samples[i] for i in range(4)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(80):
        loss = model(**inputs).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
