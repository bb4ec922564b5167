"""How the next tokens of several answers are drawn: all of them at once, each with its own settings and generator.

B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from pvc.engine.generate import sampling_options
from pvc.errors import UsageError

SEED_STRIDE = 0x9E3779B97F4A7C15  # an odd number that has nothing to do with the seeds people choose
MAX_TOP_LOGPROBS = 20  # most alternatives that a token's log-probabilities name


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are drawn, and when to stop; raises UsageError for values out of range.

    `stop`: texts that end the answer and are not part of it. `logprobs`: how many alternatives to name, None for none.
    `ignore_eos`: go on after the model's end of an answer.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        sampling_options(self.max_new_tokens, self.temperature, self.top_p, None)  # any number is a seed here
        if any(not text for text in self.stop):
            raise UsageError("a stop text must not be empty")
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_TOP_LOGPROBS:
            raise UsageError(f"logprobs must be 0 to {MAX_TOP_LOGPROBS}, not {self.logprobs}")

    def generator(self, number: int) -> torch.Generator | None:
        """What answer `number` is drawn with; None where nothing is drawn by chance."""
        if self.temperature == 0:
            return None
        made = torch.Generator()
        if self.seed is None:
            made.seed()
        else:
            # The first answer's seed is the request's; the next request's seed is not the second answer's.
            made.manual_seed((self.seed + number * SEED_STRIDE) % 2**64)
        return made


def sample_tokens(
    logits: torch.Tensor, params: Sequence[SamplingParams], generators: Sequence[torch.Generator | None]
) -> list[int]:
    """A token for every row of `(B, V)` logits. A row gets what it would have got alone."""
    best = logits.argmax(-1).tolist()
    chance = [place for place, generator in enumerate(generators) if generator is not None]
    if not chance:
        return best
    heat = torch.tensor([params[place].temperature for place in chance], device=logits.device)
    likely = functional.softmax(logits[chance].float() / heat[:, None], dim=-1)
    top = torch.tensor([params[place].top_p for place in chance], device=logits.device)
    if bool((top < 1).any()):
        values, order = likely.sort(dim=-1, descending=True)
        # The tokens before whom less than top_p has been seen: always at least the first.
        inside = values.cumsum(-1) - values < top[:, None]
        inside[:, 0] = True  # also for a top_p that is 0 in this precision
        kept = values * inside
        likely = torch.zeros_like(likely).scatter(-1, order, kept)
    # One number of every row's own generator, and the token that it falls on. Below 1 by 2^-24 at least, so that it
    # falls on none of probability 0 after rounding.
    points = torch.stack([torch.rand((), generator=generators[place]) for place in chance]).to(logits.device)
    sums = likely.double().cumsum(-1)
    found = torch.searchsorted(sums, points[:, None].double() * sums[:, -1:], right=True)[:, 0].tolist()
    for place, token in zip(chance, found, strict=True):
        best[place] = token
    return best


__all__ = ["MAX_TOP_LOGPROBS", "SamplingParams", "sample_tokens"]
