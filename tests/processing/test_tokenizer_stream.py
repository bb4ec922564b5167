"""Text that arrives token by token is that of all tokens at once, whatever the spelling, in our code and in vLLM's."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from pvc.processing.tokenizer import SPECIAL_TOKENS, build_tokenizer, without_merges

CORPUS = ["What is the price of tea?", "red circle", "What is red? ça va, 日本"] * 5
TOKENIZERS = {name: build_tokenizer(CORPUS, 300, name) for name in ("merges", "letters")}
TOKENIZERS["without merges"] = without_merges(TOKENIZERS["merges"])


def streamed(tokenizer, ids):
    decoder = DecodeStream(skip_special_tokens=True)
    return [decoder.step(tokenizer, number) or "" for number in ids]


@pytest.mark.parametrize("spelling", TOKENIZERS)
@given(text=st.text(max_size=40))
@settings(deadline=None)
def test_any_text_arrives_whole(spelling, text):
    if any(token in text for token in SPECIAL_TOKENS.values()):
        return
    tokenizer = TOKENIZERS[spelling]
    ids = tokenizer(text)["input_ids"]
    parts = streamed(tokenizer.backend_tokenizer, ids)
    assert "".join(parts) == text
    # A character of several bytes comes with its last one.
    assert all("\ufffd" not in part for part in parts) or "\ufffd" in text


@pytest.mark.parametrize("spelling", TOKENIZERS)
def test_letters_arrive_one_by_one(spelling):
    tokenizer = TOKENIZERS[spelling]
    ids = tokenizer("a red Ünit<|im_end|>")["input_ids"]
    parts = streamed(tokenizer.backend_tokenizer, ids)
    assert "".join(parts) == "a red Ünit"
    assert parts[-1] == ""  # the end of the turn is no text
    if spelling != "merges":
        assert parts == ["a", " red", " ", "", "Ü", "n", "i", "t", ""]


@pytest.mark.parametrize("spelling", TOKENIZERS)
def test_the_plain_file_is_enough(spelling, tmp_path):
    """What vLLM and other servers read: tokenizer.json alone."""
    tokenizer = TOKENIZERS[spelling]
    tokenizer.save_pretrained(tmp_path)
    plain = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "<|im_start|>user\nWhat is menu? Éa 日本 🙂<|im_end|>\n"
    assert plain.encode(text).ids == tokenizer(text)["input_ids"]
    assert plain.decode(plain.encode(text).ids, skip_special_tokens=False) == text
    assert plain.get_vocab() == tokenizer.get_vocab()
