"""Generation as a stream of text, on transformers' `generate` in a thread, with a stop switch and a clock.

Leaves out what the prompt is (`chat.py`).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from transformers import Cache, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from pvc.model.inputs import TEMPORAL_CACHE
from pvc.model.modeling import PVCForConditionalGeneration


@dataclass
class Generation:
    """What a running generation has produced so far: token ids, seconds until and since the first one, its error."""

    tokens: list[int] = field(default_factory=list)
    prefill_s: float = 0.0
    generate_s: float = 0.0
    failure: BaseException | None = None


class _Streamer(BaseStreamer):
    """Hands every token's text over as it comes (transformers' own streamer waits for the end of a word)."""

    def __init__(self, tokenizer: Any, generation: Generation) -> None:
        self.backend = tokenizer.backend_tokenizer
        self.decoder = DecodeStream(skip_special_tokens=True)
        self.generation = generation
        self.queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.started = time.perf_counter()
        self._prompt_passed = False

    def put(self, value: torch.Tensor) -> None:
        if not self._prompt_passed:  # generate hands over the prompt first
            self._prompt_passed = True
            return
        if not self.generation.tokens:
            self.generation.prefill_s = time.perf_counter() - self.started
        for token in value.flatten().tolist():
            self.generation.tokens.append(token)
            text = self.decoder.step(self.backend, token)  # None while a character is incomplete
            if text:
                self.queue.put(text)

    def end(self) -> None:
        self.generation.generate_s = time.perf_counter() - self.started - self.generation.prefill_s
        self.queue.put(None)


class _Stop(StoppingCriteria):
    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


def generation_inputs(model: PVCForConditionalGeneration, ids: list[int], cache: Cache) -> dict[str, Any]:
    """Return keyword arguments of `generate` to continue from `cache`, which holds a prefix of `ids`."""
    tensor = torch.tensor([ids], device=model.device)
    defaults = model.generation_config
    placeholder_ids = {model.config.image_token_id, model.config.video_token_id}
    return {
        # Whatever a checkpoint's defaults say: one sequence, and never a placeholder, which would ask for visual
        # tokens that do not exist.
        "num_beams": 1,
        "num_return_sequences": 1,
        "cache_implementation": None,
        "suppress_tokens": sorted(placeholder_ids.union(defaults.suppress_tokens or ())),
        "max_new_tokens": defaults.max_new_tokens or 512,
        "input_ids": tensor,
        "attention_mask": torch.ones_like(tensor),
        TEMPORAL_CACHE: cache,
    }


def generate_text(
    model: PVCForConditionalGeneration, tokenizer: Any, inputs: dict[str, Any], generation: Generation
) -> Generator[str, None, None]:
    """Yield text while `model.generate(**inputs)` runs in a thread; closing the iterator stops it at the next token.

    Errors of the thread are raised here.
    """
    event = threading.Event()
    streamer = _Streamer(tokenizer, generation)

    def work() -> None:
        try:
            with torch.inference_mode():
                model.generate(**inputs, streamer=streamer, stopping_criteria=StoppingCriteriaList([_Stop(event)]))
        except BaseException as error:  # handed to the caller's thread, which raises it
            generation.failure = error
            streamer.end()

    thread = threading.Thread(target=work, name="pvc-generate", daemon=True)
    thread.start()
    try:
        while (text := streamer.queue.get()) is not None:
            yield text
    finally:
        event.set()
        _join(thread)
    if generation.failure is not None:
        raise generation.failure


def _join(thread: threading.Thread) -> None:
    """Wait for the thread even while Ctrl-C is pressed again: it still writes to the cache. Then interrupt."""
    interrupt: KeyboardInterrupt | None = None
    while thread.is_alive():
        try:
            thread.join()
        except KeyboardInterrupt as pressed:
            interrupt = pressed
    if interrupt is not None:
        raise interrupt


__all__ = ["Generation", "generate_text", "generation_inputs"]
