"""Chat: a conversation about media. Earlier media are never decoded or encoded again, and their keys and values stay.

A chat belongs to one thread. Leaves out how media become tokens (`encode.py`) and how tokens are drawn
(`generate.py`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache, set_seed
from transformers.modeling_outputs import BaseModelOutputWithPooling

from pvc import media as pvc_media
from pvc.engine.encode import EncodedMedia, placeholders
from pvc.engine.generate import Generation, generate_text
from pvc.errors import UsageError

if TYPE_CHECKING:
    from pvc.engine.engine import Engine, MediaOptions


_NO_TIME = {"decode_s": 0.0, "encode_s": 0.0}


@dataclass
class Answer:
    """An answer and what it took; `str(answer)` is its text.

    Attributes:
        text: the answer.
        media: the media of this turn, as encoded.
        prompt_tokens: length of the whole prompt; `reused_tokens` of them were in the cache already.
        completion_tokens: tokens generated.
        timing: seconds spent in `decode_s`, `encode_s`, `prefill_s` and `generate_s`.
    """

    text: str = ""
    media: list[EncodedMedia] = field(default_factory=list)
    prompt_tokens: int = 0
    reused_tokens: int = 0
    completion_tokens: int = 0
    timing: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text

    @property
    def visual_tokens(self) -> int:
        """Visual tokens of this turn's media."""
        return sum(len(item.tokens) for item in self.media)

    def describe(self, model: str) -> dict[str, Any]:
        """The object that `pvc ask --json` prints."""
        return {
            "answer": self.text,
            "model": model,
            "media": [item.describe() for item in self.media],
            "usage": {
                "visual_tokens": self.visual_tokens,
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": self.completion_tokens,
            },
            "timing": {key: round(value, 4) for key, value in self.timing.items()},
        }


class Chat:
    """A conversation.

    Attributes:
        messages: what was said, as chat messages; the model's turns hold the ids that it generated.
        media: everything shown so far, encoded.
        last: the last `Answer`.
    """

    def __init__(self, engine: Engine, system: str | None = None) -> None:
        self.engine = engine
        self.system = system
        self.reset()

    def reset(self) -> None:
        """Forget everything said and shown."""
        self.messages: list[dict[str, Any]] = []
        if self.system:
            self.messages.append({"role": "system", "content": self.system})
        self.media: list[EncodedMedia] = []
        self.last: Answer | None = None
        self._pending: list[EncodedMedia] = []
        self._pending_timing = dict(_NO_TIME)
        self._forget_cache()

    def _forget_cache(self) -> None:
        self._cache: DynamicCache | None = None
        self._cached: list[int] = []

    def add(self, media: Sequence[Any], options: MediaOptions | None = None) -> list[EncodedMedia]:
        """Show media (paths, bytes, pictures, arrays, opened media) that the next question is about."""
        started = time.perf_counter()
        opened = [
            item if isinstance(item, (pvc_media.Picture, pvc_media.Video)) else self.engine.open(item, options)
            for item in media
        ]
        decoded = time.perf_counter()
        encoded = self.engine.encode(opened, options)
        self._pending += encoded
        self._pending_timing["decode_s"] += decoded - started
        self._pending_timing["encode_s"] += time.perf_counter() - decoded
        return encoded

    def ask(self, question: str, media: Sequence[Any] = (), **options: Any) -> Answer:
        """Ask, and wait for the whole answer; `options` as for `stream`."""
        for _ in self.stream(question, media, **options):
            pass
        assert self.last is not None
        return self.last

    def stream(
        self,
        question: str,
        media: Sequence[Any] = (),
        *,
        media_options: MediaOptions | None = None,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> Iterator[str]:
        """Ask, and yield the answer's text as it is generated; afterwards `last` describes it.

        Closing the iterator early stops the generation; what was said until then stays part of the conversation.

        Args:
            question: must not be empty.
            media: shown with the question; later turns may refer to them.
            media_options: sampling, steps and tiles of these media.
            max_new_tokens: at most so many tokens; by default what the checkpoint says, else 512.
            temperature: 0 always takes the likeliest token.
            top_p, seed: for a temperature above 0.

        Raises:
            UsageError: an empty question, or sampling options out of range.
        """
        if not question or not question.strip():
            raise UsageError("the question is empty")
        sampling = self._sampling(max_new_tokens, temperature, top_p)
        if media:
            self.add(media, media_options)
        if seed is not None:
            set_seed(seed)
        return self._answer(question, sampling)

    @staticmethod
    def _sampling(max_new_tokens: int | None, temperature: float, top_p: float) -> dict[str, Any]:
        if max_new_tokens is not None and max_new_tokens < 1:
            raise UsageError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
        if temperature < 0 or not 0 < top_p <= 1:
            raise UsageError(f"temperature must be at least 0 and top_p in (0, 1]; got {temperature} and {top_p}")
        options: dict[str, Any] = {"do_sample": temperature > 0}
        if temperature > 0:
            options |= {"temperature": temperature, "top_p": top_p}
        if max_new_tokens is not None:
            options["max_new_tokens"] = max_new_tokens
        return options

    def _answer(self, question: str, sampling: dict[str, Any]) -> Iterator[str]:
        processor, model = self.engine.processor, self.engine.model
        shown, timing = self._pending, self._pending_timing
        parts: list[dict[str, Any]] = [{"type": item.kind, item.kind: item.name} for item in shown]
        messages = [*self.messages, {"role": "user", "content": [*parts, {"type": "text", "text": question}]}]
        media = [*self.media, *shown]
        ids = processor.encode_chat(messages, placeholders(media)).ids
        keys, starts = self._keys(ids, media)
        reused = self._reusable(keys, starts, media)
        fresh = [item for item, start in zip(media, starts, strict=True) if start >= reused]
        inputs = self._inputs(ids, fresh) | sampling
        if "max_new_tokens" not in inputs and model.generation_config.max_new_tokens is None:
            inputs["max_new_tokens"] = 512
        generation = Generation()
        answer = Answer(media=shown, prompt_tokens=len(ids), reused_tokens=reused, timing=timing)
        failed = True
        try:
            with closing(generate_text(model, processor.tokenizer, inputs, generation)) as pieces:
                for piece in pieces:
                    answer.text += piece
                    yield piece
            failed = False
        except (GeneratorExit, KeyboardInterrupt):
            failed = False  # stopped on purpose: what was said until then stays
            raise
        finally:
            answer.completion_tokens = len(generation.tokens)
            timing |= {"prefill_s": generation.prefill_s, "generate_s": generation.generate_s}
            if failed:
                self._forget_cache()
            else:
                self._cached = [*keys, *generation.tokens]
                self.messages, self.media, self.last = [*messages, self._turn(generation.tokens)], media, answer
                self._pending, self._pending_timing = [], dict(_NO_TIME)

    def _turn(self, tokens: list[int]) -> dict[str, Any]:
        """The model's turn as the ids it generated, without the one that ended it."""
        eos = self.engine.processor.tokenizer.eos_token_id
        said = tokens[:-1] if tokens and tokens[-1] == eos else tokens
        return {"role": "assistant", "content": [{"type": "tokens", "tokens": list(said)}]}

    def _keys(self, ids: list[int], media: list[EncodedMedia]) -> tuple[list[int], list[int]]:
        """Ids with every placeholder replaced by a number of its own medium, and where each medium starts.

        Two videos of equal length have equal placeholders; comparing ids alone would reuse the wrong one's cache.
        """
        config = self.engine.model.config
        queues = {
            kind: iter([(item, place) for item in media if item.kind == kind for place in range(len(item.tokens))])
            for kind in ("image", "video")
        }
        kinds = {config.image_token_id: "image", config.video_token_id: "video"}
        first: dict[int, int] = {}
        keys = []
        for position, token in enumerate(ids):
            if token in kinds:
                item, offset = next(queues[kinds[token]])
                first.setdefault(item.serial, position)
                keys.append(-(item.serial << 32) - offset)
            else:
                keys.append(token)
        return keys, [first[item.serial] for item in media]

    def _reusable(self, keys: list[int], starts: list[int], media: list[EncodedMedia]) -> int:
        """How many positions of the cache fit the new prompt; the cache is cut to them."""
        cache = self._cache
        if cache is None:
            return 0
        limit = min(cache.get_seq_length(), len(self._cached), len(keys) - 1)
        same = 0
        while same < limit and keys[same] == self._cached[same]:
            same += 1
        for item, start in zip(media, starts, strict=True):
            # Visual tokens of a medium are placed all at once: never cut one in two.
            if start < same and any(-key >> 32 == item.serial for key in keys[same:]):
                same = start
        if same < (length := cache.get_seq_length()):
            cache.crop(same - length)  # a negative number: how many positions to drop
        if same == 0:
            self._forget_cache()
        return same

    def _inputs(self, ids: list[int], fresh: list[EncodedMedia]) -> dict[str, Any]:
        model = self.engine.model
        if self._cache is None:
            self._cache = DynamicCache(config=model.config.text_config)
        encoded = {
            kind: BaseModelOutputWithPooling(pooler_output=[item.tokens for item in fresh if item.kind == kind])
            for kind in ("image", "video")
            if any(item.kind == kind for item in fresh)
        }
        tensor = torch.tensor([ids], device=model.device)
        return {
            "input_ids": tensor,
            "attention_mask": torch.ones_like(tensor),
            "past_key_values": self._cache,
            "mm_encoder_outputs": encoded,
        }


__all__ = ["Answer", "Chat"]
