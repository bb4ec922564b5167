"""Intervals, and measurement of accuracy."""

import pytest
import torch

import pvc
from pvc.cli.lab.evaluate import recorded
from pvc.errors import UsageError
from pvc.lab.evaluate.accuracy import HeldOutSet, count_forced, measure
from pvc.lab.evaluate.intervals import wilson
from pvc.lab.evaluate.metrics import characters_right, edit_distance
from pvc.lab.synthetic import messages_of


def test_wilson_by_hand():
    """n = 10, 8 right: centre (0.8 + z^2/20) / (1 + z^2/10), z = 1.96; the book values are 0.490 and 0.943."""
    low, high = wilson(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)
    assert wilson(0, 50)[0] == pytest.approx(0.0)
    assert wilson(50, 50)[1] == pytest.approx(1.0)
    assert 0.9 < wilson(50, 50)[0] < 1
    assert wilson(0, 0) == (0.0, 1.0)


def test_an_untrained_model_is_measured_as_it_is(checkpoint):
    engine = pvc.load(checkpoint, device="cpu")
    results = measure(engine, tasks=["read", "direction"], count=30, levels=[None, 2], threads=1)
    assert [(row["task"], row["level"]) for row in results] == [
        ("read", None),
        ("read", 2),
        ("direction", None),
        ("direction", 2),
    ]
    for result in results:
        assert result["count"] == 30
        assert result["accuracy"] < 0.3
        assert len(result["wrong"]) == 5
        low, high = result["interval"]
        assert low <= result["accuracy"] <= high


def test_unknown_task(checkpoint):
    with pytest.raises(UsageError, match="dancing"):
        measure(pvc.load(checkpoint, device="cpu"), tasks=["dancing"])


def test_edit_distance_and_characters():
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "abc") == 3
    assert characters_right("ABCD", "ABCD") == 4
    assert characters_right("ABCD", "ABXD") == 3
    assert characters_right("ABCD", "BCD") == 3
    assert characters_right("AB", "XYZXYZ") == 0


def test_forced_counts_what_the_model_would_say(checkpoint):
    """Against a loop that asks for one answer token after another."""
    engine = pvc.load(checkpoint, device="cpu")
    samples = HeldOutSet(seed=1, levels=(1, 2)).samples("shape", 0, 4, 32)
    assert [sample.level for sample in samples] == [1, 2, 1, 2]
    right, asked = count_forced(engine, samples)
    slow_right = slow_asked = 0
    for sample in samples:
        batch = engine.processor.apply_chat_template(
            messages_of(sample), tokenize=True, return_assistant_tokens_mask=True, do_sample_frames=False
        )
        mask = batch.pop("assistant_masks")[0]
        for place in mask.nonzero().flatten().tolist():
            cut = {**batch, "input_ids": batch["input_ids"][:, :place]}
            cut["attention_mask"] = batch["attention_mask"][:, :place]
            with torch.inference_mode():
                named = int(engine.model(**cut).logits[0, -1].argmax())
            slow_right += named == int(batch["input_ids"][0, place])
            slow_asked += 1
    assert (right, asked) == (slow_right, slow_asked)
    assert asked > 10


def test_measuring_leaves_the_model_in_its_mode(checkpoint):
    engine = pvc.load(checkpoint, device="cpu")
    engine.model.train()
    measure(engine, tasks=["shape"], count=2, threads=1)
    assert engine.model.training


def test_a_record_is_replaced_row_by_row():
    def row(task, level, accuracy):
        return {"task": task, "level": level, "split": "test", "image_steps": None, "accuracy": accuracy, "wrong": []}

    before = recorded([], [row("read", 1, 0.1), row("read", 2, 0.2)])
    after = recorded(before, [row("read", 2, 0.3), row("page", None, 0.4)])
    assert [(r["task"], r["level"], r["accuracy"]) for r in after] == [
        ("read", 1, 0.1),
        ("read", 2, 0.3),
        ("page", None, 0.4),
    ]
    assert all("wrong" not in r for r in after)


def test_zoomed_pictures_are_measured_in_tiles_and_recorded_beside_the_others(checkpoint):
    engine = pvc.load(checkpoint, device="cpu")
    small, large = HeldOutSet().samples("count", 0, 2, 32), HeldOutSet(zoom=2).samples("count", 0, 2, 32)
    assert [sample.media[0].frames.shape[1] for sample in (*small, *large)] == [32, 32, 64, 64]
    assert [sample.answer for sample in small] == [sample.answer for sample in large]
    (row,) = measure(engine, tasks=["count"], count=2, held=HeldOutSet(zoom=2), threads=1)
    (plain,) = measure(engine, tasks=["count"], count=2, threads=1)
    assert row["zoom"] == 2
    assert "zoom" not in plain
    assert recorded([row], [plain]) == [row, {key: plain[key] for key in plain if key != "wrong"}]
    assert len(recorded([plain], [plain])) == 1


def test_pages_are_measured_without_levels_and_on_the_last_turn(checkpoint):
    engine = pvc.load(checkpoint, device="cpu")
    rows = measure(engine, tasks=["album", "outside", "reels"], count=4, levels=[1, 2], threads=1)
    assert [(row["task"], row["level"], row["count"]) for row in rows] == [
        ("album", None, 4),
        ("outside", None, 4),
        ("reels", None, 4),
    ]
    album = HeldOutSet(level=3).samples("album", 0, 6, 32)
    assert {sample.level for sample in album} == {1} and any(sample.turns for sample in album)
    last = [sample.turns[-1].answer if sample.turns else sample.answer for sample in album]
    assert [sample.last_answer for sample in album] == last
    assert {wrong["expected"] for wrong in rows[0]["wrong"]} <= {
        sample.last_answer for sample in HeldOutSet().samples("album", 0, 4, 32)
    }
    right, asked = count_forced(engine, album)
    answers = [text for sample in album for text in (sample.answer, *(turn.answer for turn in sample.turns))]
    assert asked == sum(len(engine.processor.tokenizer(text).input_ids) + 1 for text in answers)  # and the end
    assert 0 <= right <= asked
