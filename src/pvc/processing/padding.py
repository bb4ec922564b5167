"""Options of a chat's ids, and padding and truncation of a batch by them. Called by PVCProcessor."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from pvc.errors import MismatchError, UsageError
from pvc.processing.chat_tokens import ChatTokens

# transformers' name for "no limit" is a number of this size.
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
        max_length: ids; None for no limit.
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
        """Read transformers' text options; those that are left out or None have our defaults.

        Args:
            kwargs: options by name.
            tokenizer: has the longest input (`model_max_length`) and the side that is truncated.

        Raises:
            UsageError: a value that is not one of an option's.
        """
        asked = {key: getattr(value, "value", value) for key, value in kwargs.items()}
        padding, truncation = asked.get("padding"), asked.get("truncation")
        for name, value, choices in (("padding", padding, PADDING), ("truncation", truncation, TRUNCATION)):
            if value is not None and (not isinstance(value, (bool, str)) or value not in choices):
                raise UsageError(f"{name} must be one of {', '.join(map(str, choices))}, not {value!r}")
        for name in ("max_length", "pad_to_multiple_of"):
            value = asked.get(name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise UsageError(f"{name} must be a whole number of 1 or more, not {value!r}")
        side = asked.get("padding_side") or "left"
        if side not in ("left", "right"):
            raise UsageError(f"padding_side must be 'left' or 'right', not {side!r}")
        length = asked.get("max_length")
        if truncation is None:  # transformers truncates to a max_length that nothing else asks for
            truncation = length is not None and padding is None
        longest = int(getattr(tokenizer, "model_max_length", None) or _NO_LIMIT)
        if length is None and longest < _NO_LIMIT:
            length = longest
        if PADDING[padding] == "max_length" and length is None:
            raise UsageError("padding='max_length' needs a max_length; the tokenizer has none")
        return cls(
            padding=PADDING[padding],
            truncation=TRUNCATION[truncation],
            max_length=length,
            pad_to_multiple_of=asked.get("pad_to_multiple_of"),
            padding_side=side,
            truncation_side=getattr(tokenizer, "truncation_side", "right"),
        )


def truncate(chat: ChatTokens, options: TextOptions, visual: Collection[int]) -> ChatTokens:
    """Cut a conversation to `options.max_length` ids where `options.truncation` asks for it.

    Args:
        chat: ids and which of them an assistant wrote.
        options: the length and the side.
        visual: ids that belong to pictures and videos; none of them may be cut off.

    Raises:
        MismatchError: what would be cut off has ids of pictures or videos.
    """
    length = options.max_length
    if not options.truncation or length is None or len(chat.ids) <= length:
        return chat
    gone = len(chat.ids) - length
    kept = slice(0, length) if options.truncation_side == "right" else slice(gone, None)
    cut = chat.ids[length:] if options.truncation_side == "right" else chat.ids[:gone]
    lost = sum(token in visual for token in cut)
    if lost:
        raise MismatchError(
            f"truncation to max_length {length} would cut off {lost} ids of pictures or videos from {len(chat.ids)} "
            "ids; raise max_length, or use fewer steps, tiles or frames"
        )
    return ChatTokens(chat.ids[kept], chat.assistant[kept])


def pad(chats: Sequence[ChatTokens], options: TextOptions, pad_id: int) -> dict[str, list[list[int]]]:
    """Pad conversations to one length: `input_ids`, `attention_mask` and `assistant_masks`, one row each.

    Args:
        chats: at least one conversation.
        options: the strategy, the side and the length.
        pad_id: id that fills the gaps.
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
