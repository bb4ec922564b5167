"""Chat: a conversation about media. Earlier media are never decoded or encoded again, and their keys and values stay.

A chat belongs to one thread. Leaves out how media become tokens (`encode.py`) and how tokens are drawn
(`generate.py`).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from transformers import DynamicCache, set_seed
from transformers.modeling_outputs import BaseModelOutputWithPooling

from pvc.engine.budget import Plan, plan_budget
from pvc.engine.encode import EncodedMedia, placeholders
from pvc.engine.encoder import Encoder, as_list
from pvc.engine.generate import Generation, generate_text, generation_inputs
from pvc.engine.options import MediaOptions, sampling_options
from pvc.errors import MismatchError, UsageError

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
    """A conversation. It belongs to one thread.

    Args:
        encoder: whose model answers.
        system: system message.

    Attributes:
        messages: all turns, as chat messages; the model's turns hold the ids that it generated.
        media: all media of the conversation, encoded.
        last: the last `Answer`.
        plan: of the last budget; None if there was none.
    """

    def __init__(self, encoder: Encoder, system: str | None = None) -> None:
        self.encoder = encoder
        self.system = system
        self.reset()

    def reset(self) -> None:
        """Remove all turns and media, and the keys and values of the language model."""
        self.messages: list[dict[str, Any]] = []
        if self.system:
            self.messages.append({"role": "system", "content": self.system})
        self.media: list[EncodedMedia] = []
        self.last: Answer | None = None
        self.plan: Plan | None = None
        self._pending: list[EncodedMedia] = []
        self._pending_timing = dict(_NO_TIME)
        self._answering: object | None = None  # token of the running generator; reset() invalidates it
        self._forget_cache()

    def _forget_cache(self) -> None:
        self._cache: DynamicCache | None = None
        self._cached: list[int] = []

    def add(
        self,
        media: Sequence[Any],
        options: MediaOptions | Sequence[MediaOptions] | None = None,
        *,
        budget: int | None = None,
        memory: int | None = None,
    ) -> list[EncodedMedia]:
        """Encode media that the next question is about.

        Args:
            media: paths, bytes, pictures, arrays or opened media; one or several.
            options: for all of them, or one for each.
            budget: maximum of visual tokens, as for `Engine.plan`.
            memory: maximum of bytes, as for `Engine.plan`.

        Returns:
            The encoded media.

        Raises:
            UsageError: a budget with options for each medium, or an answer that is still being generated.
            MediaError, ForbiddenError: a medium that is rejected.
        """
        self._refuse_while_answering()
        encoded, timing = self._encode(media, options, budget, memory)
        self._pending += encoded
        for phase, seconds in timing.items():
            self._pending_timing[phase] += seconds
        return encoded

    def _encode(
        self,
        media: Sequence[Any] | Any,
        options: MediaOptions | Sequence[MediaOptions] | None,
        budget: int | None = None,
        memory: int | None = None,
    ) -> tuple[list[EncodedMedia], dict[str, float]]:
        items = as_list(media)
        if budget is not None or memory is not None:
            if isinstance(options, Sequence):
                raise UsageError("give a budget, or options for each medium (as a plan has them), not both")
            self.plan = plan_budget(self.encoder, items, options or MediaOptions(), budget, memory)
            options = self.plan.options
        started = time.perf_counter()
        each = self.encoder.resolve_options(options, len(items))
        opened = [self.encoder.open(item, own) for item, own in zip(items, each, strict=True)]
        decoded = time.perf_counter()
        encoded = self.encoder.encode(opened, each)
        return encoded, {"decode_s": decoded - started, "encode_s": time.perf_counter() - decoded}

    def _refuse_while_answering(self) -> None:
        if self._answering is not None:
            raise UsageError("this conversation is still answering: read its stream to the end, or close it, first")

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
        media_options: MediaOptions | Sequence[MediaOptions] | None = None,
        budget: int | None = None,
        memory: int | None = None,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> Generator[str, None, None]:
        """Ask, and yield the answer's text as it is generated; afterwards `last` describes it.

        Closing the iterator early stops the generation; what was said until then stays part of the conversation.

        Args:
            question: must not be empty.
            media: one medium or several, shown with the question; later turns may refer to them.
            media_options: sampling, steps and tiles of these media; one for all of them, or one for each.
            budget, memory: most visual tokens of these media, and most bytes while they are encoded: `Engine.plan`
                then chooses, and `plan` says what.
            max_new_tokens: at most so many tokens; by default what the checkpoint says, else 512.
            temperature: 0 always takes the likeliest token.
            top_p, seed: for a temperature above 0.

        Raises:
            UsageError: an empty question, sampling options out of range, or an answer that is still being generated.
        """
        if not question or not question.strip():
            raise UsageError("the question is empty")
        self._refuse_while_answering()
        sampling = sampling_options(max_new_tokens, temperature, top_p, seed)
        new, timing = self._encode(media, media_options, budget, memory)
        return self._answer(question, sampling, new, timing, seed)

    def _answer(
        self,
        question: str,
        sampling: dict[str, Any],
        new: list[EncodedMedia],
        timing: dict[str, float],
        seed: int | None,
    ) -> Generator[str, None, None]:
        self._refuse_while_answering()
        shown = [*self._pending, *new]
        timing = {phase: seconds + self._pending_timing[phase] for phase, seconds in timing.items()}
        parts: list[dict[str, Any]] = [{"type": item.kind, item.kind: item.name} for item in shown]
        messages = [*self.messages, {"role": "user", "content": [*parts, {"type": "text", "text": question}]}]
        media = [*self.media, *shown]
        ids = self.encoder.processor.encode_chat(messages, placeholders(media)).ids
        keys, starts = self._keys(ids, media)
        reused = self._reusable(keys, starts, media)
        fresh = [item for item, start in zip(media, starts, strict=True) if start >= reused]
        inputs = self._inputs(ids, fresh) | sampling
        generation = Generation()
        answer = Answer(media=shown, prompt_tokens=len(ids), reused_tokens=reused, timing=timing)
        self._answering = mine = object()
        clean = False
        if seed is not None:
            set_seed(seed)
        try:
            with closing(
                generate_text(self.encoder.model, self.encoder.processor.tokenizer, inputs, generation)
            ) as pieces:
                for piece in pieces:
                    answer.text += piece
                    yield piece
            clean = True
        except (GeneratorExit, KeyboardInterrupt):
            clean = True  # stopped on purpose: what was said until then stays
            raise
        finally:
            answer.completion_tokens = len(generation.tokens)
            timing |= {"prefill_s": generation.prefill_s, "generate_s": generation.generate_s}
            if self._answering is mine:
                self._answering = None
                if clean and generation.failure is None:
                    self._cached = [*keys, *generation.tokens]
                    self.messages, self.media, self.last = [*messages, self._turn(generation.tokens)], media, answer
                    self._pending, self._pending_timing = [], dict(_NO_TIME)
                else:
                    self._forget_cache()

    def _turn(self, tokens: list[int]) -> dict[str, Any]:
        """The model's turn as the ids it generated, without the one that ended it."""
        eos = self.encoder.processor.tokenizer.eos_token_id
        said = tokens[:-1] if tokens and tokens[-1] == eos else tokens
        return {"role": "assistant", "content": [{"type": "tokens", "tokens": list(said)}]}

    def _keys(self, ids: list[int], media: list[EncodedMedia]) -> tuple[list[int], list[int]]:
        """Ids with every placeholder replaced by a number of its own medium, and where each medium starts.

        Two videos of equal length have equal placeholders; comparing ids alone would reuse the wrong one's cache.
        """
        config = self.encoder.model.config
        queues = {
            kind: iter([(item, place) for item in media if item.kind == kind for place in range(len(item.tokens))])
            for kind in ("image", "video")
        }
        kinds = {config.image_token_id: "image", config.video_token_id: "video"}
        first: dict[int, int] = {}
        keys = []
        for position, token in enumerate(ids):
            if token in kinds:
                item, offset = next(queues[kinds[token]], (None, 0))
                if item is None:
                    raise MismatchError(f"the conversation has more {kinds[token]} placeholders than visual tokens")
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
            try:
                cache.crop(same - length)  # a negative number: how many positions to drop
            except (RuntimeError, ValueError, NotImplementedError):
                same = 0  # caches of sliding windows cannot be cut: start again from the media's visual tokens
        if same == 0:
            self._forget_cache()
        return same

    def _inputs(self, ids: list[int], fresh: list[EncodedMedia]) -> dict[str, Any]:
        model = self.encoder.model
        if self._cache is None:
            self._cache = DynamicCache(config=model.config.text_config)
        encoded = {
            kind: BaseModelOutputWithPooling(pooler_output=[item.tokens for item in fresh if item.kind == kind])
            for kind in ("image", "video")
            if any(item.kind == kind for item in fresh)
        }
        return generation_inputs(model, ids, self._cache) | {"mm_encoder_outputs": encoded}


__all__ = ["Answer", "Chat"]
