"""Placing visual tokens at the placeholders of a prompt, with an error if the counts differ.

Nothing is truncated, padded or guessed here (property P6). Called by `modeling.py`.

B batch, Q sequence length, L language width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch

from pvc.errors import MismatchError, UsageError


def check_rows(counts: Sequence[int], lengths: Sequence[int], what: str) -> None:
    """Check that the visual tokens of images (or videos) fill the placeholders of each row of a batch.

    An equal total is not enough. With one placeholder too few in a row and one too many in the next, tokens of one
    sample would be placed in another.

    Args:
        counts: number of placeholders in each row.
        lengths: number of visual tokens of each image or video, in order.
        what: "image" or "video", for error messages.

    Raises:
        MismatchError: the totals differ, or an image or video spans two rows.
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
    """Replace the embeddings of placeholders by visual tokens.

    Args:
        embeddings: `(B, Q, L)` embeddings of the prompt.
        input_ids: `(B, Q)` int64 ids of the prompt, or None.
        features: one `(tokens, L)` tensor per image or video, or None.
        token_id: id of the placeholder.
        what: "image" or "video", for error messages.

    Returns:
        `(B, Q, L)`.

    Raises:
        MismatchError: the numbers of placeholders and visual tokens differ, in total or in a row.
        UsageError: there are visual tokens, but no `input_ids` that contain their placeholders.
    """
    if features is None:
        # A sequence of one id is a decode step. A longer one is a prompt, and its placeholders need media.
        if input_ids is not None and input_ids.shape[1] > 1 and not torch.compiler.is_compiling():
            count = int((input_ids == token_id).sum())
            if count:
                raise MismatchError(f"the prompt has {count} {what} placeholders, but 0 {what}s were passed")
        return embeddings
    if input_ids is None:
        raise UsageError(f"{what}s need input_ids: inputs_embeds have no placeholders for their visual tokens")
    mask = input_ids == token_id
    if not torch.compiler.is_compiling():
        check_rows(mask.sum(1).tolist(), [len(tokens) for tokens in features], what)
    flat = torch.cat(list(features)).to(embeddings.device, embeddings.dtype)
    return embeddings.masked_scatter(mask.unsqueeze(-1), flat)


def place_media(
    embeddings: torch.Tensor,
    input_ids: torch.Tensor | None,
    encoded: Mapping[str, Any],
    token_ids: Mapping[str, int],
) -> torch.Tensor:
    """Replace the embeddings of all placeholders by the visual tokens of a batch.

    Args:
        embeddings: `(B, Q, L)` embeddings of the prompt.
        input_ids: `(B, Q)` int64 ids of the prompt, or None.
        encoded: outputs by kind, "image" or "video"; `.pooler_output` has one `(tokens, L)` tensor per item.
        token_ids: id of the placeholder of each kind.

    Returns:
        `(B, Q, L)`.

    Raises:
        MismatchError, UsageError: as in `place_features`.
    """
    for kind, token_id in token_ids.items():
        output = encoded.get(kind)
        features = None if output is None else output.pooler_output
        embeddings = place_features(embeddings, input_ids, features, token_id, kind)
    return embeddings


__all__ = ["check_rows", "place_features", "place_media"]
