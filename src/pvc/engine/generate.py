"""Generation as a stream of text, on transformers' `generate` in a thread, with a stop switch and a clock.

Leaves out what the prompt is (`chat.py`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from pvc.model.modeling import PVCForConditionalGeneration


@dataclass
class Generation:
    """What a running generation has produced so far: token ids, and the seconds until and since the first one."""

    tokens: list[int] = field(default_factory=list)
    prefill_s: float = 0.0
    generate_s: float = 0.0


class _Streamer(TextIteratorStreamer):
    """Text as it comes; also keeps the ids and the time of the first one."""

    def __init__(self, tokenizer: Any, generation: Generation) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.generation = generation
        self.started = time.perf_counter()
        self._prompt_passed = False

    def put(self, value: torch.Tensor) -> None:
        if self._prompt_passed:
            if not self.generation.tokens:
                self.generation.prefill_s = time.perf_counter() - self.started
            self.generation.tokens += value.flatten().tolist()
        self._prompt_passed = True
        super().put(value)

    def end(self) -> None:
        self.generation.generate_s = time.perf_counter() - self.started - self.generation.prefill_s
        super().end()


class _Stop(StoppingCriteria):
    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


def generate_text(
    model: PVCForConditionalGeneration, tokenizer: Any, inputs: dict[str, Any], generation: Generation
) -> Iterator[str]:
    """Yield text while `model.generate(**inputs)` runs in a thread; closing the iterator stops it at the next token.

    Errors of the thread are raised here.
    """
    event = threading.Event()
    streamer = _Streamer(tokenizer, generation)
    failure: list[BaseException] = []

    def work() -> None:
        try:
            with torch.inference_mode():
                model.generate(**inputs, streamer=streamer, stopping_criteria=StoppingCriteriaList([_Stop(event)]))
        except BaseException as error:  # handed to the caller's thread, which raises it
            failure.append(error)
            streamer.end()

    thread = threading.Thread(target=work, name="pvc-generate", daemon=True)
    thread.start()
    try:
        for text in streamer:
            if text:
                yield text
    finally:
        event.set()
        thread.join()
    if failure:
        raise failure[0]


__all__ = ["Generation", "generate_text"]
