"""Collate conversations to model inputs and labels: padded to the longest of a batch, or packed into rows.

Only the assistant's tokens and the end of its turn have a loss. In a packed row the positions of every example start at
zero and there is no attention mask. By this transformers recognises that examples must not attend to each other.
Pictures and clips are encoded separately in any case. Called by `mixture.py`, `run_stage.py` and `distill/`.

B rows, Q tokens of a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pvc.processing.processor import PVCProcessor
from pvc.train.data.tasks import GeneratedExample

IGNORED = -100  # label of tokens without a loss
MEDIA = ("pixel_values", "image_grid_thw", "image_steps", "pixel_values_videos", "video_grid_thw", "step_offset")


@dataclass(frozen=True)
class Example:
    """One conversation to train on.

    Attributes:
        messages: the conversation, with decoded media.
        image_steps: steps that its pictures are encoded in.
        generated: by a task; None for a record of a file.
        encoded: model inputs, if they are computed already.
        step_offset: number of the first step of its clips; None leaves it to the model.
    """

    messages: Sequence[dict[str, Any]]
    image_steps: int
    generated: GeneratedExample | None = None
    encoded: Mapping[str, torch.Tensor] | None = None
    step_offset: int | None = None


def encode(processor: PVCProcessor, *examples: Example) -> dict[str, torch.Tensor]:
    """Encode examples whose pictures have the same steps, padded to the longest.

    Args:
        processor: of the model.
        *examples: to encode.

    Returns:
        Inputs of the model and `labels` `(B, Q)` int64, `IGNORED` for tokens without a loss.
    """
    batch = processor.apply_chat_template(
        [example.messages for example in examples],
        tokenize=True,
        return_assistant_tokens_mask=True,
        image_steps=examples[0].image_steps,
        # Generated clips keep their frames; frames of files are sampled as in inference.
        do_sample_frames=None if examples[0].generated is None else False,
    )
    mask = batch.pop("assistant_masks")
    if examples[0].step_offset is not None and "video_grid_thw" in batch:
        batch["step_offset"] = torch.tensor(
            [example.step_offset for example in examples for _ in range(_count_videos(example))]
        )
    return {**batch, "labels": batch["input_ids"].masked_fill(mask == 0, IGNORED)}


def _count_videos(example: Example) -> int:
    parts = [
        part for message in example.messages if not isinstance(message["content"], str) for part in message["content"]
    ]
    return sum(part["type"] == "video" for part in parts)


def compute_loss_weights(labels: torch.Tensor, loss: str) -> torch.Tensor:
    """Compute the weight of every token of one example.

    Args:
        labels: `(Q,)` int64.
        loss: "token": every answer token has weight 1. "sample": they add up to 1. "square": they add up to the square
            root of their number.

    Returns:
        `(Q,)` float32.
    """
    has_loss = labels != IGNORED
    power = {"token": 0.0, "sample": 1.0, "square": 0.5}[loss]
    return has_loss.float() / has_loss.sum().clamp(min=1) ** power


class ChatCollator:
    """Collate examples to a batch.

    Args:
        processor: of the model.
        pack: maximum number of tokens of a row, into which examples are packed instead of padded. A longer example has
            a separate row.
        loss: "token", "sample" or "square", see `compute_loss_weights`. Unless it is "token", the batch has
            `loss_weights` `(B, Q)` float32.
    """

    def __init__(self, processor: PVCProcessor, pack: int | None = None, loss: str = "token") -> None:
        self.processor, self.pack, self.loss = processor, pack, loss

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return inputs and `labels` of a batch, `(B, Q)`, and its media inputs."""
        is_uniform = (
            len({(example.image_steps, example.generated is None, example.encoded is None) for example in examples})
            == 1
        )
        if self.pack is None and self.loss == "token" and is_uniform and examples[0].encoded is None:
            return encode(self.processor, *examples)
        encoded = [dict(example.encoded or encode(self.processor, example)) for example in examples]
        if self.loss != "token":
            for sample in encoded:
                sample["loss_weights"] = compute_loss_weights(sample["labels"][0], self.loss)[None]
        if self.pack is None:
            rows = [[sample] for sample in encoded]
        else:
            lengths = [_get_length(sample) for sample in encoded]
            rows = [[encoded[number] for number in row] for row in pack_rows(lengths, self.pack)]
        batch = self.collate_text(rows)
        for key in MEDIA:
            if parts := [sample[key] for row in rows for sample in row if key in sample]:
                batch[key] = torch.cat(parts)
        return batch

    def collate_text(
        self, rows: list[list[dict[str, torch.Tensor]]], extra: Sequence[str] = ()
    ) -> dict[str, torch.Tensor]:
        """Concatenate the texts of each row's examples and pad the rows.

        Args:
            rows: encoded examples by row; their tensors are `(1, Q)`.
            extra: further keys, which are padded with zeros.

        Returns:
            Tensors `(B, Q)` by key.
        """
        max_length = max(sum(_get_length(sample) for sample in row) for row in rows)
        pads = {"input_ids": self.processor.tokenizer.pad_token_id or 0, "labels": IGNORED}
        pads |= {"attention_mask": 0} if self.pack is None else {"position_ids": 0}
        pads |= {"loss_weights": 0} if self.loss != "token" else {}
        pads |= dict.fromkeys(extra, 0)
        batch = {}
        for key, pad in pads.items():
            texts = [torch.cat([_get_column(sample, key) for sample in row]) for row in rows]
            first = _get_column(rows[0][0], key)
            filled = first.new_full((len(rows), max_length), pad)
            for number, text in enumerate(texts):
                # Padding comes first, as in generation. In packed rows it comes last, like one more example.
                start = max_length - len(text) if self.pack is None else 0
                filled[number, start : start + len(text)] = text
                if key == "position_ids":
                    filled[number, len(text) :] = torch.arange(max_length - len(text))
            batch[key] = filled
        return batch


def _get_length(sample: Mapping[str, torch.Tensor]) -> int:
    return sample["input_ids"].shape[1]


def _get_column(sample: Mapping[str, torch.Tensor], key: str) -> torch.Tensor:
    return torch.arange(_get_length(sample)) if key == "position_ids" else sample[key][0]


def pack_rows(lengths: Sequence[int], max_length: int) -> list[list[int]]:
    """Assign examples to rows, the longest first, each to the first row with enough space.

    Args:
        lengths: of the examples, in tokens.
        max_length: of a row; a longer example has a separate row.

    Returns:
        Numbers of the examples in each row.
    """
    rows: list[tuple[int, list[int]]] = []
    for example in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        for index, (used, row) in enumerate(rows):
            if used + lengths[example] <= max_length:
                rows[index] = (used + lengths[example], [*row, example])
                break
        else:
            rows.append((lengths[example], [example]))
    return [row for _, row in rows]


def count_tokens(inputs: Mapping[str, Any], visual_ids: Sequence[int]) -> tuple[int, int, int]:
    """Count the tokens of a batch.

    Args:
        inputs: with `input_ids` `(B, Q)` and maybe `attention_mask`.
        visual_ids: ids of the placeholders of visual tokens.

    Returns:
        Number of tokens, of visual tokens, and of positions including padding.
    """
    ids = inputs["input_ids"]
    visual = sum(int((ids == token).sum()) for token in visual_ids)
    mask = inputs.get("attention_mask")
    return int(ids.numel() if mask is None else mask.sum()), visual, ids.numel()


__all__ = ["IGNORED", "ChatCollator", "Example", "compute_loss_weights", "count_tokens", "encode", "pack_rows"]
