"""Accounting of placeholders: which visual tokens replace which ids, and errors when the counts differ.

Nothing is truncated, padded or guessed here (property P6). Leaves out how tokens are made. Called by `modeling.py`.

B batch, Q sequence length, L language width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch

from pvc.errors import MismatchError, UsageError


def check_rows(counts: Sequence[int], lengths: Sequence[int], what: str) -> None:
    """Check that the images (or videos) of `lengths` tokens fill rows of `counts` placeholders one after another.

    A total that agrees is not enough: with one placeholder too few in a row and one too many in the next, tokens
    of one sample would end up in another.

    Raises:
        MismatchError: naming both numbers.
    """
    if sum(counts) != sum(lengths):
        raise MismatchError(
            f"the prompt has {sum(counts)} {what} placeholders, but the {what}s have {sum(lengths)} visual tokens"
        )
    ends = {0, *accumulate(lengths)}
    for row, end in enumerate(accumulate(counts)):
        if end not in ends:
            raise MismatchError(
                f"row {row} of the batch has {counts[row]} {what} placeholders, which is not a whole number of "
                f"{what}s: they have {', '.join(map(str, lengths))} visual tokens"
            )


def place_features(
    embeddings: torch.Tensor,
    input_ids: torch.Tensor | None,
    features: Sequence[torch.Tensor] | None,
    token_id: int,
    what: str,
) -> torch.Tensor:
    """Put visual tokens, a list of `(tokens, L)`, where `input_ids` `(B, Q)` has `token_id`; returns `(B, Q, L)`.

    Raises:
        MismatchError: placeholders and visual tokens differ in number, in total or in a row.
        UsageError: visual tokens without `input_ids`, which say where they belong.
    """
    if features is None:
        # While generating, one id at a time comes in; a longer sequence is a prompt and must not ask for
        # pictures that nobody passed.
        if input_ids is not None and input_ids.shape[1] > 1 and not torch.compiler.is_compiling():
            found = int((input_ids == token_id).sum())
            if found:
                raise MismatchError(f"the prompt has {found} {what} placeholders, but 0 {what}s were passed")
        return embeddings
    if input_ids is None:
        raise UsageError(f"{what}s need input_ids: inputs_embeds do not say where their visual tokens belong")
    mask = input_ids == token_id
    if not torch.compiler.is_compiling():
        check_rows(mask.sum(1).tolist(), [len(tokens) for tokens in features], what)
    flat = torch.cat(list(features)).to(embeddings.device, embeddings.dtype)
    return embeddings.masked_scatter(mask.unsqueeze(-1), flat)


__all__ = ["check_rows", "place_features"]
