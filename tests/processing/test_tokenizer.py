"""The small tokenizer: any text survives, and with `spelling="letters"` unknown words are single characters."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pvc.processing.tokenizer import SPECIAL_TOKENS, build_tokenizer, without_merges

CORPUS = ["What is the price of tea?", "red circle", "What is red?"] * 5
TOKENIZERS = {name: build_tokenizer(CORPUS, 300, name) for name in ("merges", "letters")}


@pytest.mark.parametrize("spelling", TOKENIZERS)
@given(text=st.text(max_size=60))
@settings(deadline=None)
def test_any_text_survives(spelling, text):
    tokenizer = TOKENIZERS[spelling]
    if any(token in text for token in SPECIAL_TOKENS.values()):
        return
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_known_words_are_tokens_and_others_letters():
    tokenizer = TOKENIZERS["letters"]
    tokens = tokenizer.tokenize("What is the circles red Menu tea")
    assert tokens == ["W", "hat", "Ġis", "Ġthe", "Ġ", *"circles", "Ġred", "Ġ", "M", *"enu", "Ġtea"]


@pytest.mark.parametrize("spelling", TOKENIZERS)
def test_special_tokens_stand_first_and_are_never_split(spelling):
    tokenizer = TOKENIZERS[spelling]
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS.values())) == list(range(len(SPECIAL_TOKENS)))
    ids = tokenizer("<|im_start|>red<|im_end|>")["input_ids"]
    assert len(ids) == 3 and tokenizer.decode(ids, skip_special_tokens=True) == "red"


def test_the_vocabulary_does_not_depend_on_the_order_of_the_corpus():
    assert build_tokenizer(CORPUS[::-1], 300, "letters").get_vocab() == TOKENIZERS["letters"].get_vocab()


def test_more_words_than_places_leave_out_the_rare_ones():
    places = 256 + len(SPECIAL_TOKENS) + 2
    vocabulary = build_tokenizer(["one one one two two three"], places, "letters").get_vocab()
    assert len(vocabulary) == places and "Ġone" in vocabulary and "Ġthree" not in vocabulary


def test_a_tokenizer_can_lose_its_merges(tmp_path):
    before = TOKENIZERS["merges"]
    after = without_merges(before)
    assert after.get_vocab() == before.get_vocab()
    assert after.tokenize("red teapot What") == ["red", "Ġ", *"teapot", "Ġ", "W", "hat"]
    assert before.tokenize("red teapot") != after.tokenize("red teapot")
    after.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "<|im_start|>user\nWhat is menu? 日本<|im_end|>"
    assert again(text)["input_ids"] == after(text)["input_ids"] and again.decode(after(text)["input_ids"]) == text
    assert again.chat_template == before.chat_template and again.pad_token == before.pad_token


@pytest.mark.parametrize("spelling", TOKENIZERS)
def test_it_is_the_same_after_saving(spelling, tmp_path):
    TOKENIZERS[spelling].save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "What is menu? Éa 日本 <|im_end|>"
    assert again(text)["input_ids"] == TOKENIZERS[spelling](text)["input_ids"]
