"""Read the text options of a batch of chats, and pad and truncate the batch. Called by PVCProcessor."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from pvc.errors import MismatchError, UsageError
from pvc.processing.chat_tokens import ChatTokens

# transformers uses a number of this size for "no limit".
_NO_LIMIT = 10**20
PADDING = {True: "longest", False: "do_not_pad", None: "longest", "longest": "longest", "max_length": "max_length"}
PADDING |= {"do_not_pad": "do_not_pad"}
TRUNCATION = {True: True, False: False, "longest_first": True, "only_first": True, "do_not_truncate": False}


@dataclass(frozen=True)
class TextOptions:
    """How ids of conversations become a batch; the names are those of transformers' tokenizers.

    Attributes:
        padding: "longest", "max_length" or "do_not_pad".
        truncation: whether a conversation longer than `max_length` is cut.
        max_length: number of ids; None for no limit.
        pad_to_multiple_of: the padded length is a multiple of it.
        padding_side: "left" or "right".
        truncation_side: the side that is cut off, "left" or "right".
    """

    padding: str = "longest"
    truncation: bool = False
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    padding_side: str = "left"
    truncation_side: str = "right"

    @classmethod
    def from_kwargs(cls, kwargs: dict[str, Any], tokenizer: Any) -> TextOptions:
        """Read transformers' text options; options that are missing or None get defaults.

        Args:
            kwargs: options by name.
            tokenizer: has the longest input (`model_max_length`) and the side that is truncated.

        Raises:
            UsageError: an invalid value.
        """
        values = {key: getattr(value, "value", value) for key, value in kwargs.items()}
        padding, truncation = values.get("padding"), values.get("truncation")
        for name, value, choices in (("padding", padding, PADDING), ("truncation", truncation, TRUNCATION)):
            if value is not None and (not isinstance(value, (bool, str)) or value not in choices):
                raise UsageError(f"{name} must be one of {', '.join(map(str, choices))}, not {value!r}")
        for name in ("max_length", "pad_to_multiple_of"):
            value = values.get(name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise UsageError(f"{name} must be a whole number of 1 or more, not {value!r}")
        side = values.get("padding_side") or "left"
        if side not in ("left", "right"):
            raise UsageError(f"padding_side must be 'left' or 'right', not {side!r}")
        length = values.get("max_length")
        if truncation is None:  # as in transformers, max_length alone requests truncation
            truncation = length is not None and padding is None
        model_max_length = int(getattr(tokenizer, "model_max_length", None) or _NO_LIMIT)
        if length is None and model_max_length < _NO_LIMIT:
            length = model_max_length
        if PADDING[padding] == "max_length" and length is None:
            raise UsageError("padding='max_length' needs a max_length; the tokenizer has none")
        return cls(
            padding=PADDING[padding],
            truncation=TRUNCATION[truncation],
            max_length=length,
            pad_to_multiple_of=values.get("pad_to_multiple_of"),
            padding_side=side,
            truncation_side=getattr(tokenizer, "truncation_side", "right"),
        )


def truncate(chat: ChatTokens, options: TextOptions, visual: Collection[int]) -> ChatTokens:
    """Cut a conversation to `options.max_length` ids if `options.truncation` is set.

    Args:
        chat: ids and which of them an assistant wrote.
        options: the length and the side.
        visual: ids that belong to pictures and videos; none of them may be cut off.

    Raises:
        MismatchError: the part to cut off has ids of pictures or videos.
    """
    length = options.max_length
    if not options.truncation or length is None or len(chat.ids) <= length:
        return chat
    excess = len(chat.ids) - length
    retained = slice(0, length) if options.truncation_side == "right" else slice(excess, None)
    removed = chat.ids[length:] if options.truncation_side == "right" else chat.ids[:excess]
    num_lost = sum(token in visual for token in removed)
    if num_lost:
        raise MismatchError(
            f"truncation to max_length {length} would cut off {num_lost} ids of pictures or videos from "
            f"{len(chat.ids)} ids; raise max_length, or use fewer steps, tiles or frames"
        )
    return ChatTokens(chat.ids[retained], chat.assistant[retained])


def pad(chats: Sequence[ChatTokens], options: TextOptions, pad_id: int) -> dict[str, list[list[int]]]:
    """Pad conversations to one length.

    Args:
        chats: at least one conversation.
        options: the strategy, the side and the length.
        pad_id: id for the padding.

    Returns:
        `input_ids`, `attention_mask` and `assistant_masks`, one row per conversation.
    """
    target = 0
    if options.padding == "longest":
        target = max(len(chat.ids) for chat in chats)
    elif options.padding == "max_length":
        target = options.max_length or 0
    step = options.pad_to_multiple_of or 1
    data: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "assistant_masks": []}
    for chat in chats:
        count = len(chat.ids)
        gap = max(0, -(-target // step) * step - count) if options.padding != "do_not_pad" else 0
        rows = (chat.ids, [pad_id] * gap), ([1] * count, [0] * gap), (chat.assistant, [0] * gap)
        for name, (values, filling) in zip(data, rows, strict=True):
            data[name].append(filling + values if options.padding_side == "left" else values + filling)
    return data


__all__ = ["TextOptions", "pad", "truncate"]
