"""Generate several sequences together: each is prefilled alone, then all continue one token at a time in one batch.

Sequences come and go between steps. Their keys and values lie in one cache, padded on the left, and each has its
positions, so that the others do not change its tokens. Language models whose caches cannot be joined (sliding windows)
run sequence by sequence. Called by `pvc.server.scheduler`. Not thread-safe.

B sequences, L positions of the cache, V vocabulary.
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
from pvc.engine.encoder import Encoder
from pvc.engine.kv_cache import make_growable
from pvc.engine.options import SamplingParams
from pvc.engine.sampling import sample_tokens
from pvc.errors import UsageError
from pvc.model.inputs import TEMPORAL_CACHE


class TooLongError(UsageError):
    """The prompt and its answer do not fit into the positions of the language model."""


@dataclass
class Token:
    """One token of an answer.

    Attributes:
        id: in the vocabulary.
        text: that can be sent now; text that may begin a stop text is held back.
        logprob: natural logarithm of its probability, if requested.
        top: ids and log-probabilities of the likeliest alternatives, if requested.
        end: whether it is the model's end-of-turn token, which is not part of the text.
    """

    id: int
    text: str
    logprob: float | None = None
    top: list[tuple[int, float]] = field(default_factory=list)
    end: bool = False


class RunningSequence:
    """One answer that is being generated.

    Attributes:
        params: how its tokens are sampled.
        prompt: length of the prompt in tokens.
        cache: keys and values until it joins a batch.
        tokens: ids so far.
        text: that was sent so far.
        finish: None while it continues, then "stop" or "length".
    """

    def __init__(
        self, encoder: Encoder, params: SamplingParams, prompt: int, cache: DynamicCache, number: int = 0
    ) -> None:
        self.params, self.prompt, self.cache = params, prompt, cache
        self.tokens: list[int] = []
        self.text = ""
        self.finish: str | None = None
        tokenizer = encoder.processor.tokenizer
        self._backend, self._eos = tokenizer.backend_tokenizer, set() if params.ignore_eos else _ends(encoder)
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._held = ""
        self.generator = params.generator(number)

    def append(self, token: int, logits: torch.Tensor) -> Token:
        """Append a token that was sampled from `(V,)` logits, and set `finish` if it is the last one."""
        result = Token(token, "")
        if self.params.logprobs is not None:
            likely = functional.log_softmax(logits.float(), dim=-1)
            result.logprob = float(likely[token])
            best = likely.topk(min(self.params.logprobs, len(likely)))
            result.top = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        self.tokens.append(token)
        if token in self._eos:
            self.finish = "stop"
            result.end = True
            result.text = self._release("", final=True)
        else:
            text = self._decoder.step(self._backend, token) or ""
            last = len(self.tokens) >= self.params.max_new_tokens
            result.text = self._release(text, final=last)
            if last and self.finish is None:
                self.finish = "length"
        self.text += result.text
        return result

    def _release(self, text: str, final: bool) -> str:
        """Return text that can be sent. A stop text ends it; what may begin a stop text is held back unless `final`."""
        self._held += text
        if not self.params.stop:
            result, self._held = self._held, ""
            return result
        places = [place for stop in self.params.stop if (place := self._held.find(stop)) >= 0]
        if places:
            result, self._held = self._held[: min(places)], ""
            self.finish = "stop"
            return result
        keep = 0 if final else max(_overlap(self._held, stop) for stop in self.params.stop)
        result, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return result


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)


def _ends(encoder: Encoder) -> set[int]:
    configured = encoder.model.generation_config.eos_token_id
    ends = {encoder.processor.tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])}
    return {token for token in ends if token is not None}


class Batch:
    """The sequences that are being generated now.

    Args:
        encoder: whose model generates.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.model = encoder.model
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
        """Prefill a conversation and sample the first token of each answer; answers that continue join the batch.

        Args:
            messages: as a chat template takes them.
            media: of the messages, in their order.
            params: how tokens are sampled. An answer also ends at the last position of the language model.
            count: number of answers.

        Returns:
            Each answer with its first token.

        Raises:
            TooLongError: the conversation leaves no position for an answer.
        """
        ids = self.encoder.processor.encode_chat(list(messages), placeholders(media)).ids
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
            RunningSequence(self.encoder, params, len(ids), cache if number == count - 1 else _copied(cache), number)
            for number in range(count)
        ]
        started = self._append_tokens(rows, logits.expand(count, -1))
        try:
            for row in rows:
                if row.finish is None:
                    self._merge_cache(row)
        except BaseException:  # out of memory: all of them join or none
            self.remove(rows)
            raise
        return started

    @torch.inference_mode()
    def step(self) -> list[tuple[RunningSequence, Token]]:
        """Generate one more token of every sequence; those that end leave the batch."""
        if not self.rows:
            return []
        logits = self._allowed(self._forward_together() if self._together else self._forward_one_by_one())
        tokens = self._append_tokens(self.rows, logits)
        self.remove([row for row in self.rows if row.finish is not None])
        return tokens

    @staticmethod
    def _append_tokens(rows: list[RunningSequence], logits: torch.Tensor) -> list[tuple[RunningSequence, Token]]:
        tokens = sample_tokens(logits, [row.params for row in rows], [row.generator for row in rows])
        return [(row, row.append(token, scores)) for row, token, scores in zip(rows, tokens, logits, strict=True)]

    def remove(self, sequences: Sequence[RunningSequence]) -> None:
        """Remove sequences that have ended or were cancelled."""
        if not sequences:
            return
        kept = [place for place, row in enumerate(self.rows) if not any(row is other for other in sequences)]
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
