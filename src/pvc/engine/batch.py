"""Several conversations generated together: each is prefilled alone, then all go on a token at a time in one batch.

Rows come and go between steps. Keys and values of all rows lie in one cache, padded on the left; positions are every
row's own, so a row gets what it would have got alone. Language models whose caches cannot be laid together (sliding
windows) are gone through row by row. Leaves out who asks and when (`pvc.server`). Not for several threads.

B rows, L positions of the cache, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from torch.nn import functional
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from pvc.engine.encode import EncodedMedia, placeholders
from pvc.engine.engine import Engine
from pvc.engine.kv_cache import make_growable
from pvc.engine.sampling import SamplingParams, sample_tokens
from pvc.errors import UsageError
from pvc.model.inputs import TEMPORAL_CACHE


class TooLongError(UsageError):
    """A conversation that the language model has no positions for."""


@dataclass
class Token:
    """One token as it is told: its text (held back while it could be the beginning of a stop text), and how likely.

    `end`: it is the model's own end of an answer, and no part of its text.
    """

    id: int
    text: str
    logprob: float | None = None
    top: list[tuple[int, float]] = field(default_factory=list)
    end: bool = False


class RunningSequence:
    """One answer that is being generated.

    Attributes:
        tokens: ids so far. text: what was told. finish: None while it goes on, else "stop" or "length".
    """

    def __init__(
        self, engine: Engine, params: SamplingParams, prompt: int, cache: DynamicCache, number: int = 0
    ) -> None:
        self.params, self.prompt, self.cache = params, prompt, cache
        self.tokens: list[int] = []
        self.text = ""
        self.finish: str | None = None
        tokenizer = engine.processor.tokenizer
        self._backend, self._eos = tokenizer.backend_tokenizer, set() if params.ignore_eos else _ends(engine)
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._held = ""
        self.generator = params.generator(number)

    def take(self, token: int, logits: torch.Tensor) -> Token:
        """Go on by a token that was drawn from `(V,)` logits; sets `finish` when it was the last."""
        told = Token(token, "")
        if self.params.logprobs is not None:
            likely = functional.log_softmax(logits.float(), dim=-1)
            told.logprob = float(likely[token])
            best = likely.topk(min(self.params.logprobs, len(likely)))
            told.top = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        self.tokens.append(token)
        if token in self._eos:
            self.finish = "stop"
            told.end = True
            told.text = self._release("", final=True)
        else:
            text = self._decoder.step(self._backend, token) or ""
            last = len(self.tokens) >= self.params.max_new_tokens
            told.text = self._release(text, final=last)
            if last and self.finish is None:
                self.finish = "length"
        self.text += told.text
        return told

    def _release(self, text: str, final: bool) -> str:
        """Text that can be told: nothing from a stop text on, and what might begin one only when it did not."""
        self._held += text
        if not self.params.stop:
            told, self._held = self._held, ""
            return told
        found = [place for stop in self.params.stop if (place := self._held.find(stop)) >= 0]
        if found:
            told, self._held = self._held[: min(found)], ""
            self.finish = "stop"
            return told
        keep = 0 if final else max(_overlap(self._held, stop) for stop in self.params.stop)
        told, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return told


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)


def _ends(engine: Engine) -> set[int]:
    told = engine.model.generation_config.eos_token_id
    ends = {engine.processor.tokenizer.eos_token_id, *(told if isinstance(told, list) else [told])}
    return {token for token in ends if token is not None}


class Batch:
    """The rows that are being generated now."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.model = engine.model
        config = self.model.config
        defaults = self.model.generation_config
        # A placeholder would ask for visual tokens that do not exist.
        self._never = sorted({config.image_token_id, config.video_token_id, *(defaults.suppress_tokens or ())})
        layers = DynamicCache(config=config.text_config).layers
        self._together = all(type(layer) is DynamicLayer for layer in layers)
        self.rows: list[RunningSequence] = []
        self._cache: DynamicCache | None = None
        self._mask: torch.Tensor | None = None  # (B, L): ones where a row has keys

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        caches = [self._cache] if self._together else [row.cache for row in self.rows]
        tensors = [
            t for cache in caches if cache is not None for layer in cache.layers for t in (layer.keys, layer.values)
        ]
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def room(self, tokens: int) -> int | None:
        """Return how many tokens an answer to a prompt of `tokens` may have; None: no limit. Raises TooLongError."""
        limit = getattr(self.model.config.text_config, "max_position_embeddings", None)
        if limit is not None and tokens >= limit:
            raise TooLongError(
                f"the conversation has {tokens} tokens or more; the model takes {limit} together with its answer"
            )
        return None if limit is None else limit - tokens

    @torch.inference_mode()
    def start(
        self, messages: Sequence[dict[str, Any]], media: list[EncodedMedia], params: SamplingParams, count: int = 1
    ) -> list[tuple[RunningSequence, Token]]:
        """Prefill a conversation and draw the first token of `count` answers; those that go on join the batch.

        `messages` as a chat template takes them, `media` in their order. An answer ends where the language model has
        no more positions. Raises TooLongError for a conversation that leaves no room for one.
        """
        ids = self.engine.processor.encode_chat(list(messages), placeholders(media)).ids
        room = self.room(len(ids))
        if room is not None and room < params.max_new_tokens:
            params = replace(params, max_new_tokens=room)
        cache = DynamicCache(config=self.model.config.text_config)
        features = {
            kind: BaseModelOutputWithPooling(pooler_output=[item.tokens for item in media if item.kind == kind])
            for kind in ("image", "video")
            if any(item.kind == kind for item in media)
        }
        inputs = torch.tensor([ids], device=self.model.device)
        out = self.model(input_ids=inputs, mm_encoder_outputs=features, logits_to_keep=1, **{TEMPORAL_CACHE: cache})
        logits = self._allowed(out.logits[:, -1])
        rows = [
            RunningSequence(self.engine, params, len(ids), cache if number == count - 1 else _copied(cache), number)
            for number in range(count)
        ]
        started = self._append_tokens(rows, logits.expand(count, -1))
        try:
            for row in rows:
                if row.finish is None:
                    self._merge_cache(row)
        except BaseException:  # memory that ran out: all of them or none
            self.remove(rows)
            raise
        return started

    @torch.inference_mode()
    def step(self) -> list[tuple[RunningSequence, Token]]:
        """One more token of every row; those that end leave the batch."""
        if not self.rows:
            return []
        logits = self._allowed(self._forward_together() if self._together else self._forward_one_by_one())
        told = self._append_tokens(self.rows, logits)
        self.remove([row for row in self.rows if row.finish is not None])
        return told

    @staticmethod
    def _append_tokens(rows: list[RunningSequence], logits: torch.Tensor) -> list[tuple[RunningSequence, Token]]:
        tokens = sample_tokens(logits, [row.params for row in rows], [row.generator for row in rows])
        return [(row, row.take(token, own)) for row, token, own in zip(rows, tokens, logits, strict=True)]

    def remove(self, gone: Sequence[RunningSequence]) -> None:
        """Take rows out, whether they have ended or nobody waits for them any more."""
        if not gone:
            return
        kept = [place for place, row in enumerate(self.rows) if not any(row is one for one in gone)]
        self.rows = [self.rows[place] for place in kept]
        if not self._together:
            return
        if not kept:
            self._cache = self._mask = None
            return
        assert self._cache is not None and self._mask is not None
        if len(kept) == len(self._mask):
            return
        chosen = torch.tensor(kept, device=self._mask.device)
        mask = self._mask[chosen]
        empty = int((mask.cumsum(1) == 0).all(0).sum())  # columns on the left that were only the others'
        self._mask = mask[:, empty:]
        for layer in self._cache.layers:
            layer.keys = layer.keys[chosen][:, :, empty:].contiguous()
            layer.values = layer.values[chosen][:, :, empty:].contiguous()

    def _merge_cache(self, row: RunningSequence) -> None:
        if not self._together:
            self.rows.append(row)
            return
        length = row.prompt
        own = torch.ones(1, length, dtype=torch.long, device=self.model.device)
        if self._cache is None or self._mask is None:
            self._cache, self._mask = make_growable(row.cache), own
        else:
            longest = max(length, self._mask.shape[1])
            masks = [functional.pad(mask, (longest - mask.shape[1], 0)) for mask in (self._mask, own)]
            before, changed = self._mask.shape[1], []
            try:
                for layer, new in zip(self._cache.layers, row.cache.layers, strict=True):
                    pairs = ((layer.keys, new.keys), (layer.values, new.values))
                    both = [torch.cat([_padded(one, longest), _padded(two, longest)]) for one, two in pairs]
                    layer.keys, layer.values = both
                    changed.append(layer)
                self._mask = torch.cat(masks)
            except BaseException:  # memory that ran out: the others stay as they were
                for layer in changed:
                    layer.keys, layer.values = (
                        tensor[: len(self.rows), :, longest - before :] for tensor in (layer.keys, layer.values)
                    )
                raise
        self.rows.append(row)
        row.cache = None  # type: ignore[assignment]  # it lies in the batch's now

    def _forward_together(self) -> torch.Tensor:
        assert self._mask is not None
        device = self.model.device
        last = torch.tensor([[row.tokens[-1]] for row in self.rows], device=device)
        positions = torch.tensor([[row.prompt + len(row.tokens) - 1] for row in self.rows], device=device)
        self._mask = functional.pad(self._mask, (0, 1), value=1)
        options = {"attention_mask": self._mask, "position_ids": positions, TEMPORAL_CACHE: self._cache}
        return self.model(input_ids=last, **options).logits[:, -1]

    def _forward_one_by_one(self) -> torch.Tensor:
        rows = []
        for row in self.rows:
            last = torch.tensor([[row.tokens[-1]]], device=self.model.device)
            rows.append(self.model(input_ids=last, **{TEMPORAL_CACHE: row.cache}).logits[:, -1])
        return torch.cat(rows)

    def _allowed(self, logits: torch.Tensor) -> torch.Tensor:
        logits = logits.clone()
        logits[:, self._never] = -torch.inf
        return logits


def _padded(tensor: torch.Tensor, length: int) -> torch.Tensor:
    """`(B, heads, L, d)` with zeros on the left up to `length`."""
    return functional.pad(tensor, (0, 0, length - tensor.shape[2], 0))


def _copied(cache: DynamicCache) -> DynamicCache:
    copy = DynamicCache()
    for number, layer in enumerate(cache.layers):
        copy.update(layer.keys.clone(), layer.values.clone(), number)
    return copy


__all__ = ["Batch", "RunningSequence", "Token", "TooLongError"]
