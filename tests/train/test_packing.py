"""Packed rows: every sample sees only itself (P3), the loss is that of the same samples padded, nothing is lost."""

import pytest
import torch

from pvc.testing import tiny_config, tiny_model, tiny_processor
from pvc.train.data.collate import IGNORED, ChatCollator, Example, compute_loss_weights, count_tokens, encode, pack_rows
from pvc.train.data.mixture import StageDataset
from pvc.train.recipe import Stage

STAGE = Stage(
    name="x",
    kind="chat",
    steps=20,
    batch_size=6,
    image_steps=2,
    tasks={"read": 1, "shape": 1, "direction": 1, "match": 1, "compare": 1},
    video_frames={3: 1, 5: 1},
)


@pytest.fixture(scope="module")
def processor():
    return tiny_processor(tiny_config(image_steps=2), max_tiles=2)


def mixed(processor):
    """Pictures in 1, 2 and 4 steps, pairs, clips, and text alone."""
    found = {}
    samples = StageDataset(STAGE, 0, 32)
    for index in range(len(samples)):
        item = samples[index]
        found.setdefault(item.generated.origin.kind, []).append(item)
    text = [{"role": "user", "content": [{"type": "text", "text": "one and two?"}]}]
    text.append({"role": "assistant", "content": [{"type": "text", "text": "three"}]})
    chosen = [item for kind in sorted(found) for item in found[kind][:3]] + [Example(text, 1)]
    # Clips start at different steps.
    return [
        Example(item.messages, 1 + number % 3, item.generated, step_offset=5 * number)
        for number, item in enumerate(chosen)
    ]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_logits_equal_unpacked_ones(processor, attention):
    model = tiny_model(image_steps=2).double().eval()
    model.set_attn_implementation(attention)
    chosen = mixed(processor)
    assert len(chosen) >= 7
    batch = ChatCollator(processor, pack=10_000)(chosen)
    assert batch["input_ids"].shape[0] == 1
    assert "attention_mask" not in batch
    packed = model(**{key: _double(value) for key, value in batch.items()}, use_cache=False).logits[0]
    order = pack_rows([encode(processor, item)["input_ids"].shape[1] for item in chosen], 10_000)[0]
    at = 0
    for place in order:
        alone = encode(processor, chosen[place])
        own = model(**{key: _double(value) for key, value in alone.items()}, use_cache=False).logits[0]
        torch.testing.assert_close(packed[at : at + len(own)], own, rtol=1e-10, atol=1e-10)
        at += len(own)
    assert at == len(packed)


def test_labels_are_enough_for_samples_to_be_apart(processor):
    """transformers looks for packed rows only without a cache, which it makes by default."""
    model, chosen = tiny_model(image_steps=2).train(), mixed(processor)
    losses = [model(**ChatCollator(processor, pack=pack)(chosen)).loss.item() for pack in (None, 10_000)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def _double(value):
    return value.double() if value.is_floating_point() else value


@pytest.mark.parametrize("loss", ["token", "sample", "square"])
@pytest.mark.parametrize("pack", [None, 60, 10_000])
def test_the_loss_is_the_same_however_it_is_laid_out(processor, pack, loss):
    model = tiny_model(image_steps=2).double().train()
    chosen = mixed(processor)
    batch = ChatCollator(processor, pack=pack, loss=loss)(chosen)
    weights = batch.pop("loss_weights", (batch["labels"] != IGNORED).double())
    logits = model(**{key: _double(value) for key, value in batch.items() if key != "labels"}, use_cache=False).logits
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), batch["labels"][:, 1:], ignore_index=IGNORED, reduction="none"
    )
    got = (losses * weights[:, 1:]).sum() / weights[:, 1:].sum()
    total = divisor = 0.0
    for item in chosen:
        alone = {key: _double(value) for key, value in encode(processor, item).items()}
        mean = model(**alone).loss.item()
        count = int((alone["labels"] != IGNORED).sum())
        own = {"token": count, "sample": 1.0, "square": count**0.5}[loss]
        total, divisor = total + own * mean, divisor + own
    assert got.item() == pytest.approx(total / divisor, rel=1e-6)


def test_rows_have_room(processor):
    chosen = mixed(processor)
    lengths = [encode(processor, item)["input_ids"].shape[1] for item in chosen]
    batch = ChatCollator(processor, pack=max(lengths) + 20)(chosen)
    rows = pack_rows(lengths, max(lengths) + 20)
    assert sorted(place for row in rows for place in row) == list(range(len(chosen)))
    assert all(sum(lengths[place] for place in row) <= max(lengths) + 20 for row in rows)
    assert 1 < len(rows) < len(chosen)
    assert batch["input_ids"].shape[0] == len(rows)
    starts = (batch["position_ids"] == 0).sum(1)
    assert starts.tolist() == [
        len(row) + (sum(lengths[place] for place in row) < batch["input_ids"].shape[1]) for row in rows
    ]
    learned = sum(int((encode(processor, item)["labels"] != IGNORED).sum()) for item in chosen)
    assert int((batch["labels"] != IGNORED).sum()) == learned
    assert pack_rows([5, 9, 3, 12], 8) == [[3], [1], [0, 2]], "too long for a row: one of its own"


def test_what_a_batch_counts(processor):
    chosen = mixed(processor)
    ids = (processor.image_token_id, processor.video_token_id)
    padded = count_tokens(ChatCollator(processor, loss="sample")(chosen), ids)
    packed = count_tokens(ChatCollator(processor, pack=10_000)(chosen), ids)
    assert padded[:2] == packed[:2]
    assert packed[0] == packed[2] < padded[2]
    assert 0 < packed[1] < packed[0]
    labels = torch.tensor([IGNORED, 4, 5, IGNORED, 6, 7])
    assert compute_loss_weights(labels, "square").tolist() == [0, 0.5, 0.5, 0, 0.5, 0.5]
    assert compute_loss_weights(labels, "sample").sum() == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"pack": 0}, "pack"),
        ({"loss": "word"}, "loss"),
        ({"pack": 100, "cache": 64}, "cache"),
        ({"batch_size": 6, "accumulation": 4}, "accumulation"),
        ({"rates": {"temporal": 0}}, "rates"),
        ({"ema": 1.0}, "ema"),
    ],
)
def test_what_a_stage_may_not_say(change, told):
    with pytest.raises(ValueError, match=told):
        Stage.model_validate({**STAGE.model_dump(), **change})
