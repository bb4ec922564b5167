"""Answers generated together are those that are generated alone, whoever joins and leaves in between."""

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from pvc.engine.batch import Batch, _overlap
from pvc.engine.engine import Engine
from pvc.engine.kv_cache import make_growable
from pvc.engine.options import SamplingParams
from pvc.engine.sampling import sample_tokens
from pvc.errors import UsageError
from pvc.lab.synthetic import make
from pvc.testing import tiny_config, tiny_model, tiny_processor

WORDS = "describe what is shown in great detail please"


@pytest.fixture(scope="module")
def engine():
    config = tiny_config()
    return Engine(tiny_model().double().eval(), tiny_processor(config, max_tiles=2), None)


def questions(engine, count=7):
    """Conversations of different lengths about pictures, clips, both and nothing."""
    asked = []
    for number in range(count):
        media = []
        if number % 3 != 2:
            sample = make("direction" if number % 2 else "shape", number, size=32, frames=3 if number % 2 else None)
            frames = [np.asarray(frame) for frame in sample.frames]
            media = [frames[0] if number % 2 == 0 else np.stack(frames)]
        encoded = engine.encode([engine.open(item) for item in media])
        parts = [{"type": item.kind, item.kind: item.name} for item in encoded]
        text = {"type": "text", "text": " ".join(WORDS.split()[: 1 + number])}
        asked.append(([{"role": "user", "content": [*parts, text]}], encoded))
    return asked


def run(batch, rows, most=200):
    for _ in range(most):
        if not batch.rows:
            return
        batch.step()
    raise AssertionError("they never end")


def alone(engine, messages, media, params):
    batch = Batch(engine)
    ((row, _),) = batch.start(messages, media, params)
    run(batch, [row])
    return row


@pytest.mark.parametrize("together", [True, False])
def test_together_as_alone(engine, together, monkeypatch):
    asked = questions(engine)
    drawings = [SamplingParams(max_new_tokens=5 + 3 * number) for number in range(len(asked))]
    expected = [alone(engine, *one, params).tokens for one, params in zip(asked, drawings, strict=True)]
    assert len({tuple(tokens) for tokens in expected}) > 3
    batch = Batch(engine)
    batch._together = together
    rows = []
    for number, (one, params) in enumerate(zip(asked, drawings, strict=True)):
        rows.append(batch.start(*one, params)[0][0])
        for _ in range(number % 3):  # others go on meanwhile
            batch.step()
    run(batch, rows)
    assert [row.tokens for row in rows] == expected
    assert batch.nbytes == 0


def test_as_transformers_generates(engine):
    from transformers import DynamicCache

    from pvc.engine.encode import placeholders
    from pvc.engine.generate import Generation, generate_text, generation_inputs

    for messages, media in questions(engine, 3):
        ids = engine.processor.encode_chat(messages, placeholders(media)).ids
        inputs = generation_inputs(engine.model, ids, DynamicCache(config=engine.model.config.text_config))
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        inputs["mm_encoder_outputs"] = {
            item.kind: BaseModelOutputWithPooling(pooler_output=[item.tokens]) for item in media
        }
        generation = Generation()
        text = "".join(
            generate_text(
                engine.model,
                engine.processor.tokenizer,
                {**inputs, "max_new_tokens": 12, "do_sample": False},
                generation,
            )
        )
        row = alone(engine, messages, media, SamplingParams(max_new_tokens=12))
        assert row.tokens == generation.tokens
        assert row.text == text


def test_rows_that_leave_do_not_change_the_others(engine):
    asked = questions(engine, 5)
    params = SamplingParams(max_new_tokens=15)
    expected = [alone(engine, *one, params).tokens for one in asked]
    batch = Batch(engine)
    rows = [batch.start(*one, params)[0][0] for one in asked]
    batch.step()
    longest = max(rows, key=lambda row: row.prompt)
    batch.remove([longest])
    full = batch.nbytes
    batch.step()
    batch.remove([rows[0]] if rows[0] is not longest else [rows[1]])
    assert batch.nbytes < full
    left = list(batch.rows)
    run(batch, left)
    for row in left:
        assert row.tokens == expected[rows.index(row)]


def test_several_answers_of_one_prompt(engine):
    messages, media = questions(engine, 1)[0]
    params = SamplingParams(max_new_tokens=8, temperature=1.0, seed=3)
    batch = Batch(engine)
    rows = [row for row, _ in batch.start(messages, media, params, count=3)]
    run(batch, rows)
    again = Batch(engine)
    same = [row for row, _ in again.start(messages, media, params, count=3)]
    run(again, same)
    assert [row.tokens for row in rows] == [row.tokens for row in same]
    assert len({tuple(row.tokens) for row in rows}) > 1
    greedy = Batch(engine)
    equal = [row for row, _ in greedy.start(messages, media, SamplingParams(max_new_tokens=8), count=2)]
    run(greedy, equal)
    assert equal[0].tokens == equal[1].tokens


def test_stop_texts_are_never_told(engine):
    messages, media = questions(engine, 1)[0]
    text = alone(engine, messages, media, SamplingParams(max_new_tokens=30)).text
    assert len(text) > 8
    stop = text[4:7]
    batch = Batch(engine)
    ((row, first),) = batch.start(messages, media, SamplingParams(max_new_tokens=30, stop=(stop, "never said")))
    told = first.text
    while batch.rows:
        told += "".join(token.text for _, token in batch.step())
    assert told == row.text == text[: text.index(stop)]
    assert row.finish == "stop"
    assert [_overlap("abcab", stop) for stop in ("abx", "xab", "cab", "bca", "cabd")] == [2, 0, 0, 1, 3]


def test_how_likely(engine):
    messages, media = questions(engine, 1)[0]
    batch = Batch(engine)
    ((_, token),) = batch.start(messages, media, SamplingParams(max_new_tokens=2, logprobs=4))
    assert len(token.top) == 4
    assert token.top[0] == (token.id, token.logprob)
    values = [value for _, value in token.top]
    assert values == sorted(values, reverse=True) and values[0] <= 0


def test_top_p_keeps_the_likeliest():
    logits = torch.log(torch.tensor([0.25, 0.1, 0.4, 0.25])).expand(100, -1)
    for top_p, allowed in ((0.3, {2}), (0.6, {0, 2, 3}), (1.0, {0, 1, 2, 3})):
        drawings = [SamplingParams(temperature=1.0, top_p=top_p, seed=seed) for seed in range(100)]
        found = set(sample_tokens(logits, drawings, [params.generator(0) for params in drawings]))
        assert found == allowed or (top_p == 0.6 and found <= allowed)


def test_tokens_are_drawn_as_often_as_they_are_likely():
    wanted = torch.tensor([0.5, 0.0, 0.2, 0.3, 0.0])
    params = SamplingParams(temperature=1.0, seed=1)
    generator = params.generator(0)
    told = sample_tokens(torch.log(wanted).expand(20_000, -1), [params] * 20_000, [generator] * 20_000)
    counts = torch.bincount(torch.tensor(told), minlength=5) / 20_000
    assert (counts - wanted).abs().max() < 0.02
    assert counts[1] == counts[4] == 0
    hot = [SamplingParams(temperature=2.0), SamplingParams()]
    assert sample_tokens(torch.tensor([[0.0, 60.0], [1.0, 0.0]]), hot, [hot[0].generator(0), None]) == [1, 0]


def test_room_is_the_plain_cache():
    """Whatever is added, taken out and put in between."""
    torch.manual_seed(0)
    plain, roomy = DynamicCache(), DynamicCache()
    first = torch.randn(2, 3, 5, 4)
    for cache in (plain, roomy):
        cache.update(first, first + 1, 0)
    make_growable(roomy)
    for number in range(150):
        new = torch.randn(len(plain.layers[0].keys), 3, 1, 4)
        got = [cache.update(new, -new, 0) for cache in (plain, roomy)]
        assert all(torch.equal(one, two) for one, two in zip(*got, strict=True))
        if number in (20, 90):
            for cache in (plain, roomy):
                layer = cache.layers[0]
                layer.keys, layer.values = layer.keys[[1, 0, 1]].clone(), layer.values[[1, 0, 1]].clone()
    sizes = {roomy.layers[0]._room[0].data_ptr()}
    for _ in range(3):
        roomy.update(new, new, 0)
        sizes.add(roomy.layers[0]._room[0].data_ptr())
    assert len(sizes) == 1, "nothing was copied"


def test_what_makes_no_sense(engine):
    for wrong in ({"temperature": -1}, {"top_p": 0}, {"logprobs": 99}, {"stop": ("",)}, {"max_new_tokens": 0}):
        with pytest.raises(UsageError):
            SamplingParams(**wrong)


def test_an_answer_ends_where_the_context_does(engine, monkeypatch):
    messages, media = questions(engine, 1)[0]
    params = SamplingParams(max_new_tokens=9000, ignore_eos=True)
    prompt = Batch(engine).start(messages, media, params)[0][0].prompt
    for room in (5, 1):
        monkeypatch.setattr(engine.model.config.text_config, "max_position_embeddings", prompt + room)
        row = alone(engine, messages, media, params)
        assert (len(row.tokens), row.finish) == (room, "length")
    monkeypatch.setattr(engine.model.config.text_config, "max_position_embeddings", prompt)
    with pytest.raises(UsageError, match=f"{prompt} tokens or more; the model takes {prompt} together"):
        Batch(engine).start(messages, media, params)


def test_an_end_that_is_ignored(engine, monkeypatch):
    """Every token is an end here: one answer has one token, the other all that it may have."""
    monkeypatch.setattr("pvc.engine.batch._ends", lambda engine: set(range(engine.model.config.text_config.vocab_size)))
    messages, media = questions(engine, 1)[0]
    ends = alone(engine, messages, media, SamplingParams(max_new_tokens=7))
    goes_on = alone(engine, messages, media, SamplingParams(max_new_tokens=7, ignore_eos=True))
    assert (len(ends.tokens), ends.finish) == (1, "stop")
    assert (len(goes_on.tokens), goes_on.finish) == (7, "length")
    assert goes_on.tokens[:1] == ends.tokens


def test_answers_of_neighbouring_seeds_differ(engine, monkeypatch):
    """The second answer of one request is not the first of the next seed's."""
    monkeypatch.setattr("pvc.engine.batch._ends", lambda engine: set())
    made = []
    for seed in (7, 8):
        batch = Batch(engine)
        rows = batch.start(
            [{"role": "user", "content": [{"type": "text", "text": "tell me"}]}],
            [],
            SamplingParams(max_new_tokens=12, temperature=3.0, seed=seed),
            count=3,
        )
        while batch.rows:
            batch.step()
        made += [tuple(row.tokens) for row, _ in rows]
    assert len(set(made)) == 6
