"""Samples by index, and collation: labels on answers only, one kind of media a batch."""

import json

import pytest
import torch

from pvc.errors import ConfigError
from pvc.lab.synthetic import write_dataset
from pvc.lab.synthetic.palette import HELD_OUT_PAIRS
from pvc.processing.conversations import read_records
from pvc.testing import tiny_config, tiny_model, tiny_processor
from pvc.train.data.mixture import IGNORED, ChatCollator, StageDataset
from pvc.train.recipe import FileMix, Stage, TaskMix

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
    ours, theirs = StageDataset(STAGE, 3, 32), StageDataset(STAGE, 3, 32)
    assert len(ours) == 48
    for index in (17, 3, 40, 3):
        assert ours[index].generated.origin.description == theirs[index].generated.origin.description
    assert ours[3].generated.origin.description != StageDataset(STAGE, 4, 32)[3].generated.origin.description


def test_batches_hold_one_kind_and_one_length():
    samples = StageDataset(STAGE, 0, 32)
    seen = set()
    for batch in range(12):
        chosen = [samples[batch * 4 + i].generated.origin for i in range(4)]
        shapes = {(sample.kind, len(sample.frames)) for sample in chosen}
        assert len(shapes) == 1
        seen |= shapes
    assert seen == {("image", 1), ("video", 3), ("video", 5)}


def test_zoomed_pictures_are_cut_into_tiles_a_whole_batch_alike():
    stage = STAGE.model_copy(update={"zoom": {1: 1.0, 2: 1.0}})
    samples, collate = StageDataset(stage, 0, 32), ChatCollator(tiny_processor(max_tiles=4))
    seen = set()
    for batch in range(12):
        chosen = [samples[batch * 4 + i] for i in range(4)]
        sides = {item.generated.origin.media[0].frames.shape[1] for item in chosen}
        assert len(sides) == 1
        if chosen[0].generated.origin.kind == "image":
            tiles = collate(chosen)["image_grid_thw"][:, 0].tolist()
            assert tiles == [{32: 1, 64: 5}[sides.pop()]] * 4
            seen |= set(tiles)
    assert seen == {1, 5}


def test_labels_cover_the_answer_and_its_end_only():
    processor = tiny_processor(max_tiles=1)
    samples = StageDataset(STAGE, 0, 32)
    for batch in range(4):
        chosen = [samples[batch * 4 + i] for i in range(4)]
        inputs = ChatCollator(processor)(chosen)
        for item, ids, labels in zip(chosen, inputs["input_ids"], inputs["labels"], strict=True):
            sample = item.generated.origin
            kept = labels[labels != IGNORED]
            answers = [sample.answer, *(answer for _, answer in sample.more)]
            assert processor.tokenizer.decode(kept) == "".join(f"{answer}<|im_end|>" for answer in answers)
            assert torch.equal(ids[labels != IGNORED], kept)


def test_a_model_can_learn_one_batch_by_heart():
    config = tiny_config(image_steps=2)
    model, processor = tiny_model(image_steps=2).train(), tiny_processor(config, max_tiles=1)
    samples = StageDataset(STAGE, 0, 32)
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
    samples, processor = StageDataset(stage, 0, 32), tiny_processor(max_tiles=1)
    rows = {row.id: row for row in read_records(tmp_path / "data.jsonl")}
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
        StageDataset(STAGE.model_copy(update={"files": {str(path): FileMix(weight=1)}}), 0, 32)


def stage_of(*tasks, **changes):
    return STAGE.model_copy(update={"tasks": dict.fromkeys(tasks, TaskMix()), **changes})


def answers_of(sample):
    turns = [sample.answer, *(answer for _, answer in sample.more), *(turn.answer for turn in sample.turns)]
    return "".join(f"{answer}<|im_end|>" for answer in turns)


def test_the_split_of_a_stage_is_that_of_its_samples():
    usual, whole = StageDataset(stage_of("shape"), 0, 32), StageDataset(stage_of("shape", split="train_all"), 0, 32)
    held_out = {"train": 0, "train_all": 0}
    for samples in (usual, whole):
        for index in range(48):
            description = samples[index].generated.origin.description
            assert description["split"] == samples.stage.split
            pairs = {(figure["shape"], figure["colour"]) for figure in description["figures"]}
            held_out[description["split"]] += bool(pairs & HELD_OUT_PAIRS)
    assert held_out["train"] == 0 < held_out["train_all"]


def test_quiet_frames_come_before_clips_and_some_begin_late():
    stage = stage_of("direction", "captions", quiet_frames={0: 1.0, 3: 1.0}, latest_start=60.0, video_frames={4: 1.0})
    samples, again = StageDataset(stage, 0, 32), StageDataset(stage, 0, 32)
    lengths, starts = [], []
    for index in range(48):
        medium = samples[index].generated.origin.media[0]
        assert medium.timestamps == again[index].generated.origin.media[0].timestamps
        assert (medium.frames == again[index].generated.origin.media[0].frames).all()
        assert all(a < b for a, b in zip(medium.timestamps[:-1], medium.timestamps[1:], strict=True))
        lengths.append(len(medium.frames))
        starts.append(medium.timestamps[0])
    assert set(lengths) == {4, 7} and 12 <= lengths.count(7) <= 36
    assert 12 <= sum(start == 0 for start in starts) <= 36
    late = [start for start in starts if start]
    assert max(late) <= 60 and max(late) > 15 and min(late) < 5


def test_clips_that_ask_for_times_and_pictures_stay_as_they_are():
    stage = stage_of("when", "shape", quiet_frames={5: 1.0}, latest_start=60.0, video_frames={4: 1.0})
    plain, delayed = StageDataset(stage_of("when", "shape", video_frames={4: 1.0}), 0, 32), StageDataset(stage, 0, 32)
    for index in range(24):
        one, other = plain[index].generated.origin, delayed[index].generated.origin
        assert one.media[0].timestamps == other.media[0].timestamps
        assert (one.media[0].frames == other.media[0].frames).all()


def test_clips_of_several_lengths_are_collated():
    stage = stage_of("captions", "motion", quiet_frames={0: 1.0, 2: 1.0}, video_frames={4: 1.0})
    samples, processor = StageDataset(stage, 0, 32), tiny_processor(max_tiles=1)
    for batch in range(3):
        chosen = [samples[batch * 4 + i] for i in range(4)]
        inputs = ChatCollator(processor)(chosen)
        frames = [len(item.generated.origin.media[0].frames) for item in chosen]
        assert inputs["video_grid_thw"][:, 0].tolist() == frames
        assert len(inputs["pixel_values_videos"]) == sum(frames)
        for item, labels in zip(chosen, inputs["labels"], strict=True):
            assert processor.tokenizer.decode(labels[labels != IGNORED]) == answers_of(item.generated.origin)


def test_every_answer_of_a_conversation_is_learned():
    """Later turns too, with media that come in the middle of the text, and without any."""
    processor = tiny_processor(max_tiles=4)
    shapes = set()
    for tasks in (("album", "outside"), ("reels",)):
        samples = StageDataset(stage_of(*tasks, video_frames={4: 1.0}), 1, 32)
        for batch in range(5):
            chosen = [samples[batch * 4 + i] for i in range(4)]
            inputs = ChatCollator(processor)(chosen)
            media = [medium.kind for item in chosen for medium in item.generated.origin.all_media]
            assert len(inputs.get("image_grid_thw", ())) == media.count("image")
            assert len(inputs.get("video_grid_thw", ())) == media.count("video")
            for item, labels in zip(chosen, inputs["labels"], strict=True):
                assert processor.tokenizer.decode(labels[labels != IGNORED]) == answers_of(item.generated.origin)
                shapes.add(
                    (bool(item.generated.origin.all_media), any(turn.media for turn in item.generated.origin.turns))
                )
    assert shapes == {(True, True), (True, False), (False, False)}


def test_written_conversations_are_trained_on(tmp_path):
    write_dataset(tmp_path, ["album", "outside", "reels"], 5, seed=0, split="train_all")
    stage = STAGE.model_copy(update={"tasks": {}, "files": {str(tmp_path / "data.jsonl"): FileMix(weight=1.0)}})
    samples, processor = StageDataset(stage, 0, 32), tiny_processor(max_tiles=4)
    rows = {"".join(texts(row.messages)): row for row in read_records(tmp_path / "data.jsonl")}
    seen = set()
    for batch in range(12):
        chosen = [samples[batch * 4 + i] for i in range(4)]
        inputs = ChatCollator(processor)(chosen)
        for item, labels in zip(chosen, inputs["labels"], strict=True):
            row = rows["".join(texts(item.messages))]
            answers = [message["content"][0]["text"] for message in row.messages if message["role"] == "assistant"]
            kept = processor.tokenizer.decode(labels[labels != IGNORED])
            assert kept == "".join(f"{answer}<|im_end|>" for answer in answers)
            seen.add(row.id.split("-")[0])
    assert seen == {"album", "outside", "reels"}
