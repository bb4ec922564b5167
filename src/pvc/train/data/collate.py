"""Conversations to model inputs and labels: padded to the longest of a batch, or packed one after another into rows.

Only the assistant's tokens and the end of its turn are learned. In a packed row every sample's positions start at zero
and there is no attention mask, which is how transformers knows that its samples must not see each other; pictures and
clips are apart anyway. Leaves out where conversations come from (`mixture.py`).

B rows, Q tokens of a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pvc.processing.processor import PVCProcessor
from pvc.train.data.tasks import GeneratedExample

IGNORED = -100  # what the loss skips
MEDIA = ("pixel_values", "image_grid_thw", "image_steps", "pixel_values_videos", "video_grid_thw", "step_offset")


@dataclass(frozen=True)
class Example:
    """One conversation to train on, and the steps that its pictures are encoded in.

    `generated` by a task, `encoded` where that has been done already. `step_offset`: the number of the first step
    of its clips; None leaves it to the model.
    """

    messages: Sequence[dict[str, Any]]
    image_steps: int
    generated: GeneratedExample | None = None
    encoded: Mapping[str, torch.Tensor] | None = None
    step_offset: int | None = None


def encode(processor: PVCProcessor, *items: Example) -> dict[str, torch.Tensor]:
    """Inputs and labels of items whose pictures have the same steps, padded to the longest."""
    batch = processor.apply_chat_template(
        [item.messages for item in items],
        tokenize=True,
        return_assistant_tokens_mask=True,
        image_steps=items[0].image_steps,
        # Drawn clips are what they are; a file is sampled as the model's users will have it sampled.
        do_sample_frames=None if items[0].generated is None else False,
    )
    mask = batch.pop("assistant_masks")
    if items[0].step_offset is not None and "video_grid_thw" in batch:
        batch["step_offset"] = torch.tensor([item.step_offset for item in items for _ in range(_num_videos(item))])
    return {**batch, "labels": batch["input_ids"].masked_fill(mask == 0, IGNORED)}


def _num_videos(item: Example) -> int:
    parts = [
        part for message in item.messages if not isinstance(message["content"], str) for part in message["content"]
    ]
    return sum(part["type"] == "video" for part in parts)


def loss_weights_of(labels: torch.Tensor, loss: str) -> torch.Tensor:
    """What every token of one sample counts, `(Q,)`: all the same, or so that the sample counts 1 or sqrt(length)."""
    learned = labels != IGNORED
    power = {"token": 0.0, "sample": 1.0, "square": 0.5}[loss]
    return learned.float() / learned.sum().clamp(min=1) ** power


class ChatCollator:
    """Items to a batch.

    Args:
        pack: tokens that a row may have; samples are packed instead of padded. A longer sample has a row of its own.
        loss: "token", "sample" or "square", see `loss_weights_of`; the batch then has `loss_weights` `(B, Q)`.
    """

    def __init__(self, processor: PVCProcessor, pack: int | None = None, loss: str = "token") -> None:
        self.processor, self.pack, self.loss = processor, pack, loss

    def __call__(self, items: Sequence[Example]) -> dict[str, torch.Tensor]:
        alike = len({(item.image_steps, item.generated is None, item.encoded is None) for item in items}) == 1
        if self.pack is None and self.loss == "token" and alike and items[0].encoded is None:
            return encode(self.processor, *items)
        samples = [dict(item.encoded or encode(self.processor, item)) for item in items]
        if self.loss != "token":
            for sample in samples:
                sample["loss_weights"] = loss_weights_of(sample["labels"][0], self.loss)[None]
        if self.pack is None:
            rows = [[sample] for sample in samples]
        else:
            rows = [[samples[place] for place in row] for row in pack_rows([_length(s) for s in samples], self.pack)]
        batch = self.rows(rows)
        for key in MEDIA:
            if parts := [sample[key] for row in rows for sample in row if key in sample]:
                batch[key] = torch.cat(parts)
        return batch

    def rows(self, rows: list[list[dict[str, torch.Tensor]]], extra: Sequence[str] = ()) -> dict[str, torch.Tensor]:
        """Lay the text of samples `(1, Q)` into rows; `extra`: further keys, which are padded with zeros."""
        longest = max(sum(_length(sample) for sample in row) for row in rows)
        pads = {"input_ids": self.processor.tokenizer.pad_token_id or 0, "labels": IGNORED}
        pads |= {"attention_mask": 0} if self.pack is None else {"position_ids": 0}
        pads |= {"loss_weights": 0} if self.loss != "token" else {}
        pads |= dict.fromkeys(extra, 0)
        batch = {}
        for key, pad in pads.items():
            lines = [torch.cat([_column(sample, key) for sample in row]) for row in rows]
            first = _column(rows[0][0], key)
            filled = first.new_full((len(rows), longest), pad)
            for place, line in enumerate(lines):
                # As generation has it: padding comes first. Packed rows end with it, as a sample of its own.
                start = longest - len(line) if self.pack is None else 0
                filled[place, start : start + len(line)] = line
                if key == "position_ids":
                    filled[place, len(line) :] = torch.arange(longest - len(line))
            batch[key] = filled
        return batch


def _length(sample: Mapping[str, torch.Tensor]) -> int:
    return sample["input_ids"].shape[1]


def _column(sample: Mapping[str, torch.Tensor], key: str) -> torch.Tensor:
    return torch.arange(_length(sample)) if key == "position_ids" else sample[key][0]


def pack_rows(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Items in rows of at most `room`, the longest first, each in the first row that has room for it."""
    rows: list[tuple[int, list[int]]] = []
    for item in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        for place, (used, row) in enumerate(rows):
            if used + lengths[item] <= room:
                rows[place] = (used + lengths[item], [*row, item])
                break
        else:
            rows.append((lengths[item], [item]))
    return [row for _, row in rows]


def count_tokens(inputs: Mapping[str, Any], visual_ids: Sequence[int]) -> tuple[int, int, int]:
    """Tokens of a batch, those of them that are visual, and all places of its rows, padding included."""
    ids = inputs["input_ids"]
    visual = sum(int((ids == token).sum()) for token in visual_ids)
    mask = inputs.get("attention_mask")
    return int(ids.numel() if mask is None else mask.sum()), visual, ids.numel()


__all__ = ["IGNORED", "ChatCollator", "Example", "count_tokens", "encode", "loss_weights_of", "pack_rows"]
