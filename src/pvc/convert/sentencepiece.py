"""Conversion of InternLM2's sentencepiece tokenizer to a fast one, by transformers.

The result is compared with sentencepiece before it is used. Called by `tokenizer.py`; needs the packages sentencepiece
and protobuf.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from transformers import AddedToken, PreTrainedTokenizerFast

from pvc.checkpoint.files import read_json
from pvc.errors import CheckpointError
from pvc.extras import require

_CONTROL = 3  # sentencepiece's type of <s> and </s>
# Texts that conversions get wrong: repeated and outer spaces, other white space, bytes, scripts, numbers.
PROBES = (
    "Describe the picture.",
    "  two  spaces, and one at the end ",
    "one\nline\n\nand another\t.",
    "1234567890 + 3.5 = ?",
    "naïve façade ßäöü €",
    "描述这张图片。こんにちは",
    "🙂 emoji \u200d zero-width",
    "<b>markup</b> _under_ **stars**",
)


def read_sentencepiece(directory: Path) -> PreTrainedTokenizerFast:
    """Read the tokenizer of a directory with a `tokenizer.model`, and add the tokens of its configuration.

    Raises:
        CheckpointError: the file cannot be read, or the result encodes a text differently from sentencepiece.
    """
    require("sentencepiece", "convert")
    require("google.protobuf", "convert")
    from sentencepiece import SentencePieceProcessor
    from transformers.convert_slow_tokenizer import SpmConverter, import_protobuf

    path = directory / "tokenizer.model"
    try:
        proto = import_protobuf().ModelProto()
        proto.ParseFromString(path.read_bytes())
        original = SentencePieceProcessor(model_file=str(path))
    except Exception as error:  # protobuf and sentencepiece raise various exceptions for malformed files
        raise CheckpointError(f"{path} is not a sentencepiece model: {' '.join(str(error).split())[:200]}") from error
    settings = read_json(directory / "tokenizer_config.json") if (directory / "tokenizer_config.json").exists() else {}
    added = _read_added_tokens(settings, path)
    names = [added.get(number, piece.piece) for number, piece in enumerate(proto.pieces)]
    if len(set(names)) != len(names):
        raise CheckpointError(f"{path}: {len(names) - len(set(names))} pieces have the same name as another piece")
    backend = SpmConverter.build_tokenizer_from_spm_proto(proto, {name: number for number, name in enumerate(names)})
    if backend is None:
        raise CheckpointError(f"{path}: this type of sentencepiece model is not supported")
    _check_encoding(backend, original, path)
    control = [piece.piece for piece in proto.pieces if piece.type == _CONTROL]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=_get_token_text(settings.get("bos_token"), "<s>"),
        eos_token=_get_token_text(settings.get("eos_token"), "</s>"),
        unk_token=_get_token_text(settings.get("unk_token"), "<unk>"),
        clean_up_tokenization_spaces=False,
    )
    renamed = [added[number] for number in sorted(added) if number < len(names)]
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in [*control, *renamed]])
    for number in sorted(number for number in added if number >= len(names)):
        tokenizer.add_tokens([AddedToken(added[number], special=True, normalized=False)])
        if tokenizer.convert_tokens_to_ids(added[number]) != number:
            raise CheckpointError(
                f"{directory}: {added[number]!r} should be token {number}, which is in use or beyond the vocabulary"
            )
    return tokenizer


def _read_added_tokens(settings: dict[str, Any], path: Path) -> dict[int, str]:
    """Return the tokens that the configuration adds or renames, by id."""
    entries = settings.get("added_tokens_decoder", {})
    try:
        return {int(number): str(entry["content"]) for number, entry in entries.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path.parent}/tokenizer_config.json: added_tokens_decoder is malformed") from error


def _check_encoding(backend: Any, original: Any, path: Path) -> None:
    """Raise CheckpointError if the fast tokenizer encodes one of `PROBES` differently from sentencepiece."""
    for text in PROBES:
        ours, theirs = backend.encode(text, add_special_tokens=False).ids, original.encode(text)
        if ours != theirs:
            raise CheckpointError(
                f"{path}: transformers {transformers.__version__} builds another tokenizer from it ({text!r}: "
                f"{ours[:8]}, but sentencepiece {theirs[:8]}); use transformers 5.24, which builds the same one"
            )


def _get_token_text(value: Any, default: str) -> str:
    """Return a token's text, which configurations write as a string or as an object."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else default


__all__ = ["PROBES", "read_sentencepiece"]
