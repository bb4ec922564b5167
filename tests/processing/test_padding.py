"""Batches of conversations: padded and truncated as transformers' tokenizers do it, never through pictures."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pvc.errors import MismatchError, UsageError
from pvc.processing.chat_tokens import ChatTokens
from pvc.processing.padding import TextOptions, pad, truncate
from pvc.testing import tiny_processor

PROCESSOR = tiny_processor()
TOKENIZER = PROCESSOR.tokenizer
PICTURE = {"type": "image", "image": Image.new("RGB", (40, 40))}
CHATS = [[{"role": "user", "content": text}] for text in ("a", "some more words", "and even more of these words")]


def encode(chats=CHATS, **options):
    return PROCESSOR.apply_chat_template(chats, tokenize=True, return_tensors=None, **options)


def reference(**options):
    """transformers' tokenizer on the same texts; they hold no control tokens, so both must agree."""
    texts = [PROCESSOR.apply_chat_template(chat) for chat in CHATS]
    return TOKENIZER(texts, add_special_tokens=False, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"padding": True},
        {"padding": False},
        {"padding": "max_length", "max_length": 60},
        {"padding": "max_length", "max_length": 60, "padding_side": "right"},
        {"padding": True, "padding_side": "right", "pad_to_multiple_of": 16},
        {"padding": "max_length", "max_length": 50, "pad_to_multiple_of": 16},
        {"padding": True, "truncation": True, "max_length": 12},
        {"padding": False, "truncation": "longest_first", "max_length": 12},
        {"padding": "max_length", "truncation": True, "max_length": 12},
        {"padding": False, "truncation": False, "max_length": 12},
        {"padding": "max_length", "max_length": 12},
        {"max_length": 12},
    ],
)
def test_as_transformers_tokenizers_do_it(options):
    ours = encode(**options)
    theirs = reference(**{"padding_side": "left", **options})
    if "padding" not in options:  # ours is to the longest
        assert max(map(len, theirs["input_ids"])) == len(ours["input_ids"][0])
        return
    assert ours["input_ids"] == theirs["input_ids"]
    assert ours["attention_mask"] == theirs["attention_mask"]


def test_the_side_that_is_cut_is_the_tokenizers():
    whole = encode(CHATS[2])["input_ids"][0]
    assert encode(CHATS[2], truncation=True, max_length=10)["input_ids"][0] == whole[:10]
    TOKENIZER.truncation_side = "left"
    try:
        assert encode(CHATS[2], truncation=True, max_length=10)["input_ids"][0] == whole[-10:]
    finally:
        TOKENIZER.truncation_side = "right"


def test_rows_of_several_lengths_are_no_tensor():
    with pytest.raises(UsageError, match="padding is 'do_not_pad'; pass padding=True, or return_tensors=None"):
        PROCESSOR.apply_chat_template(CHATS, tokenize=True, padding=False)
    assert PROCESSOR.apply_chat_template(CHATS[0], tokenize=True, padding=False)["input_ids"].shape[0] == 1


def test_padding_to_no_length_is_refused():
    assert TOKENIZER.model_max_length > 10**20
    with pytest.raises(UsageError, match="needs a max_length"):
        encode(padding="max_length")
    TOKENIZER.model_max_length = 64
    try:
        assert {len(row) for row in encode(padding="max_length")["input_ids"]} == {64}
        assert encode(truncation=True) == encode()
    finally:
        TOKENIZER.model_max_length = int(1e30)


def test_truncation_never_cuts_media():
    chat = [
        {"role": "user", "content": [{"type": "text", "text": "first"}, PICTURE, {"type": "text", "text": "long tail"}]}
    ]
    ids = encode(chat)["input_ids"][0]
    end = ids.index(TOKENIZER.convert_tokens_to_ids(PROCESSOR.end_image_token)) + 1
    assert encode(chat, truncation=True, max_length=end)["input_ids"][0] == ids[:end]
    for length in (end - 1, end - 2, 5, 1):
        with pytest.raises(MismatchError, match=f"max_length {length} would cut off .* ids of pictures or videos"):
            encode(chat, truncation=True, max_length=length)


def test_masks_are_padded_and_cut_alike():
    chats = [[*chat, {"role": "assistant", "content": "yes"}] for chat in CHATS]
    for options in ({}, {"padding_side": "right"}, {"truncation": True, "max_length": 9}):
        batch = encode(chats, return_assistant_tokens_mask=True, **options)
        for ids, seen, learned in zip(
            batch["input_ids"], batch["attention_mask"], batch["assistant_masks"], strict=True
        ):
            assert len(ids) == len(seen) == len(learned)
            assert all(real or not answer for real, answer in zip(seen, learned, strict=True))
            if "max_length" not in options:
                answer = TOKENIZER.decode([token for token, flag in zip(ids, learned, strict=True) if flag])
                assert answer == "yes<|im_end|>"


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 9), max_size=9), min_size=1, max_size=4),
    st.sampled_from(["longest", "max_length", "do_not_pad"]),
    st.sampled_from(["left", "right"]),
    st.integers(1, 12),
    st.none() | st.integers(1, 5),
)
def test_padding_only_adds(rows, padding, side, length, multiple):
    chats = [ChatTokens(row, [token % 2 for token in row]) for row in rows]
    options = TextOptions(padding, False, length, multiple, side)
    data = pad([truncate(chat, options, ()) for chat in chats], options, 0)
    for row, ids, seen, learned in zip(rows, *data.values(), strict=True):
        assert [token for token in ids if token] == row
        assert [token for token, real in zip(ids, seen, strict=True) if real] == row
        assert sum(learned) == sum(token % 2 for token in row)
        assert not row or (ids[-len(row) :] if side == "left" else ids[: len(row)]) == row
    if padding != "do_not_pad":
        assert multiple is None or all(
            len(ids) % multiple == 0 or len(ids) in map(len, rows) for ids in data["input_ids"]
        )
