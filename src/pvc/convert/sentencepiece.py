"""InternLM2's sentencepiece tokenizer as a fast one, compared with sentencepiece itself before it is used.

The building is transformers'. Called by `tokenizer.py`; needs the packages sentencepiece and protobuf.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from transformers import AddedToken, PreTrainedTokenizerFast

from pvc.checkpoint.files import read_json
from pvc.errors import CheckpointError
from pvc.extras import require

_CONTROL = 3  # the type of <s> and </s> in sentencepiece's own terms
# What goes wrong in conversions: spaces at either end and in a row, other white space, bytes, scripts, numbers.
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
    """The tokenizer of a directory that holds `tokenizer.model`, with the tokens its configuration adds.

    Raises:
        CheckpointError: it cannot be read, or the result encodes something else than sentencepiece does.
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
    except Exception as error:  # protobuf and sentencepiece raise what they like on rubbish
        raise CheckpointError(f"{path} is no sentencepiece model: {' '.join(str(error).split())[:200]}") from error
    settings = read_json(directory / "tokenizer_config.json") if (directory / "tokenizer_config.json").exists() else {}
    added = _added(settings, path)
    names = [added.get(number, piece.piece) for number, piece in enumerate(proto.pieces)]
    if len(set(names)) != len(names):
        raise CheckpointError(f"{path}: {len(names) - len(set(names))} pieces have the name of another")
    backend = SpmConverter.build_tokenizer_from_spm_proto(proto, {name: number for number, name in enumerate(names)})
    if backend is None:
        raise CheckpointError(f"{path}: pieces of this kind of sentencepiece model are not understood")
    _compare(backend, original, path)
    control = [piece.piece for piece in proto.pieces if piece.type == _CONTROL]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=_text_of(settings.get("bos_token"), "<s>"),
        eos_token=_text_of(settings.get("eos_token"), "</s>"),
        unk_token=_text_of(settings.get("unk_token"), "<unk>"),
        clean_up_tokenization_spaces=False,
    )
    renamed = [added[number] for number in sorted(added) if number < len(names)]
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in [*control, *renamed]])
    for number in sorted(number for number in added if number >= len(names)):
        tokenizer.add_tokens([AddedToken(added[number], special=True, normalized=False)])
        if tokenizer.convert_tokens_to_ids(added[number]) != number:
            raise CheckpointError(f"{directory}: {added[number]!r} should be token {number}, which is taken or too far")
    return tokenizer


def _added(settings: dict[str, Any], path: Path) -> dict[int, str]:
    """Tokens that the configuration adds, or gives another name, by their number."""
    entries = settings.get("added_tokens_decoder", {})
    try:
        return {int(number): str(entry["content"]) for number, entry in entries.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path.parent}/tokenizer_config.json: added_tokens_decoder is malformed") from error


def _compare(backend: Any, original: Any, path: Path) -> None:
    for text in PROBES:
        ours, theirs = backend.encode(text, add_special_tokens=False).ids, original.encode(text)
        if ours != theirs:
            raise CheckpointError(
                f"{path}: transformers {transformers.__version__} makes another tokenizer of it ({text!r}: {ours[:8]}, "
                f"but sentencepiece {theirs[:8]}); 5.24 makes the same one"
            )


def _text_of(value: Any, default: str) -> str:
    """A token's text, which configurations write as a string or as an object."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else default


__all__ = ["PROBES", "read_sentencepiece"]
