"""Samples by index, and collation: labels on answers only, one kind of media a batch."""

import json

import pytest
import torch

from pvc.errors import ConfigError
from pvc.processing.rows import read_rows
from pvc.synthetic import write_dataset
from pvc.testing import tiny_config, tiny_model, tiny_processor
from pvc.train.data import IGNORED, ChatCollator, StageSamples
from pvc.train.recipe import FileMix, Stage

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
    ours, theirs = StageSamples(STAGE, 3, 32), StageSamples(STAGE, 3, 32)
    assert len(ours) == 48
    for index in (17, 3, 40, 3):
        assert ours[index].sample.description == theirs[index].sample.description
    assert ours[3].sample.description != StageSamples(STAGE, 4, 32)[3].sample.description


def test_batches_hold_one_kind_and_one_length():
    samples = StageSamples(STAGE, 0, 32)
    seen = set()
    for batch in range(12):
        chosen = [samples[batch * 4 + i].sample for i in range(4)]
        shapes = {(sample.kind, len(sample.frames)) for sample in chosen}
        assert len(shapes) == 1
        seen |= shapes
    assert seen == {("image", 1), ("video", 3), ("video", 5)}


def test_zoomed_pictures_are_cut_into_tiles_a_whole_batch_alike():
    stage = STAGE.model_copy(update={"zoom": {1: 1.0, 2: 1.0}})
    samples, collate = StageSamples(stage, 0, 32), ChatCollator(tiny_processor(max_tiles=4))
    seen = set()
    for batch in range(12):
        chosen = [samples[batch * 4 + i] for i in range(4)]
        sides = {item.sample.media[0].frames.shape[1] for item in chosen}
        assert len(sides) == 1
        if chosen[0].sample.kind == "image":
            tiles = collate(chosen)["image_grid_thw"][:, 0].tolist()
            assert tiles == [{32: 1, 64: 5}[sides.pop()]] * 4
            seen |= set(tiles)
    assert seen == {1, 5}


def test_labels_cover_the_answer_and_its_end_only():
    processor = tiny_processor(max_tiles=1)
    samples = StageSamples(STAGE, 0, 32)
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
    samples = StageSamples(STAGE, 0, 32)
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


def texts(messages):
    return [part["text"] for message in messages for part in message["content"] if part["type"] == "text"]


def test_files_are_trained_on_beside_tasks(tmp_path):
    write_dataset(tmp_path, ["shape", "direction"], 3, seed=5, size=32, frames=3)
    stage = STAGE.model_copy(update={"tasks": {}, "files": {str(tmp_path / "data.jsonl"): FileMix(weight=1.0)}})
    samples, processor = StageSamples(stage, 0, 32), tiny_processor(max_tiles=1)
    rows = {row.id: row for row in read_rows(tmp_path / "data.jsonl")}
    seen = set()
    for batch in range(8):
        chosen = [samples[batch * 4 + i] for i in range(4)]
        inputs = ChatCollator(processor)(chosen)
        kinds = {"video" if "pixel_values_videos" in inputs else "image"}
        seen |= kinds
        for item, labels in zip(chosen, inputs["labels"], strict=True):
            row = next(row for row in rows.values() if texts(row.messages) == texts(item.messages))
            answers = [message["content"][0]["text"] for message in row.messages if message["role"] == "assistant"]
            assert processor.tokenizer.decode(labels[labels != IGNORED]) == "".join(
                f"{answer}<|im_end|>" for answer in answers
            )
    assert seen == {"image", "video"}


def test_a_row_without_an_answer_is_named(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("\n" + json.dumps({"conversations": [{"from": "human", "value": "who?"}]}))
    with pytest.raises(ConfigError, match="line 2: no answer"):
        StageSamples(STAGE.model_copy(update={"files": {str(path): FileMix(weight=1)}}), 0, 32)
