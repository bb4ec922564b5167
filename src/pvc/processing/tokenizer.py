"""Build a small byte-level tokenizer, for the bundled model and for tests.

It has a few hundred tokens, splits digits and capitals into single characters, and learns lower-case words from a
corpus. Large models have their tokenizers already. Called by pvc.train, pvc.testing and the examples.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterable
from typing import Literal

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pvc.errors import ConfigError

SPECIAL_TOKENS = {
    "pad_token": "<|endoftext|>",
    "eos_token": "<|im_end|>",
    "start_token": "<|im_start|>",
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}

# The layout of messages that InternVL and Qwen use (ChatML); media stand where the message has them.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<IMG_CONTEXT>\n"
    "{% elif part['type'] == 'video' %}<video>\n"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_PIECES = r"\p{N}|\p{Lu}| ?\p{Ll}+|[^\s\p{L}\p{N}]|\s+|\p{L}"


def build_tokenizer(
    corpus: Iterable[str], vocab_size: int = 512, spelling: Literal["merges", "letters"] = "merges"
) -> PreTrainedTokenizerFast:
    """Build a byte-level tokenizer from `corpus`; any text survives encoding and decoding unchanged.

    Args:
        corpus: texts whose lower-case words become tokens.
        vocab_size: maximum number of tokens, at least 256 bytes and the special ones.
        spelling: how other words are split: by the merges of a BPE, or (letters) into single characters. Merges build
            pieces of any length, and a small model has to learn the spelling of each.
    """
    tokenizer = Tokenizer(models.BPE() if spelling == "merges" else _build_spelling_model(corpus, vocab_size))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [_build_splitter(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    if spelling == "merges":
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL_TOKENS.values()),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS.values()))
    extra = {key: value for key, value in SPECIAL_TOKENS.items() if key not in ("pad_token", "eos_token")}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL_TOKENS["pad_token"],
        eos_token=SPECIAL_TOKENS["eos_token"],
        extra_special_tokens=extra,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def without_merges(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Return a tokenizer of `build_tokenizer` with the same vocabulary and `spelling="letters"`.

    Raises:
        ConfigError: a tokenizer that is not a byte-level BPE.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    decoder = content.get("decoder") or {}
    if content["model"]["type"] != "BPE" or decoder.get("type") != "ByteLevel":
        raise ConfigError("spelling 'letters' needs a byte-level BPE tokenizer; use spelling: merges")
    content["model"] |= {"merges": [], "ignore_merges": True}
    result = copy.deepcopy(tokenizer)
    result._tokenizer = Tokenizer.from_str(json.dumps(content))
    return result


def _build_splitter() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")


def _build_spelling_model(corpus: Iterable[str], vocab_size: int) -> models.BPE:
    """Build a model without merges: the most frequent words of a corpus are tokens, all others are spelled."""
    pieces, to_bytes = _build_splitter(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    counts: Counter[str] = Counter()
    for text in corpus:
        counts.update(piece for piece, _ in pieces.pre_tokenize_str(text))
    tokens = [*SPECIAL_TOKENS.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = set(tokens)
    # Ties are broken alphabetically, so that the order of the corpus does not matter.
    for piece, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        token = "".join(part for part, _ in to_bytes.pre_tokenize_str(piece))
        if len(tokens) < vocab_size and token not in vocabulary:
            tokens.append(token)
            vocabulary.add(token)
    return models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=[], ignore_merges=True)


__all__ = ["CHAT_TEMPLATE", "SPECIAL_TOKENS", "build_tokenizer", "without_merges"]
