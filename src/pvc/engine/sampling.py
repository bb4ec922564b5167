"""Sample the next tokens of several sequences at once, each with its parameters and random generator.

Called by `batch.py`.

B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from pvc.engine.options import SamplingParams


def sample_tokens(
    logits: torch.Tensor, params: Sequence[SamplingParams], generators: Sequence[torch.Generator | None]
) -> list[int]:
    """Sample one token for every row; the result does not depend on the other rows.

    Args:
        logits: `(B, V)`.
        params: B of them.
        generators: B of them; None takes the likeliest token.

    Returns:
        B token ids.
    """
    tokens = logits.argmax(-1).tolist()
    random = [row for row, generator in enumerate(generators) if generator is not None]
    if not random:
        return tokens
    temperatures = torch.tensor([params[row].temperature for row in random], device=logits.device)
    probabilities = functional.softmax(logits[random].float() / temperatures[:, None], dim=-1)
    top_p = torch.tensor([params[row].top_p for row in random], device=logits.device)
    if bool((top_p < 1).any()):
        values, order = probabilities.sort(dim=-1, descending=True)
        # A token is inside if the tokens before it have less than top_p together.
        inside = values.cumsum(-1) - values < top_p[:, None]
        inside[:, 0] = True  # also for a top_p that is 0 in this precision
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, values * inside)
    # One number of every row's generator, and the token that it falls on. It is below 1 by 2^-24 at least, so that it
    # cannot fall on a token of probability 0 after rounding.
    points = torch.stack([torch.rand((), generator=generators[row]) for row in random]).to(logits.device)
    sums = probabilities.double().cumsum(-1)
    sampled = torch.searchsorted(sums, points[:, None].double() * sums[:, -1:], right=True)[:, 0].tolist()
    for row, token in zip(random, sampled, strict=True):
        tokens[row] = token
    return tokens


__all__ = ["sample_tokens"]
