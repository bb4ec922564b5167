"""Live sessions: every frame is encoded once, as it comes, and prefilled before a question is asked.

Memory is bounded. The tower remembers a window of steps. Of the frames in the prompt the first ones, the latest ones
and a thinned middle are retained. Frames are removed several at a time; the retained ones are then prefilled again from
their visual tokens. The session then equals, to rounding, a conversation about these frames at their times. Leaves out
where frames come from (`pvc.cli.live`).

K tokens per frame, L language width.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, set_seed
from transformers.modeling_outputs import BaseModelOutputWithPooling

from pvc.engine.chat import Answer
from pvc.engine.encoder import Encoder
from pvc.engine.generate import Generation, generate_text, generation_inputs
from pvc.engine.options import sampling_options
from pvc.errors import MismatchError, UsageError
from pvc.media import Video
from pvc.model.cache import TemporalCache

WINDOW = 64  # steps, for checkpoints that were trained without a window of their own
MAX_TIME_S = 9_999_999.9  # seconds, four months: what the text of a timestamp is bounded for


@dataclass(frozen=True)
class FrameRetention:
    """Which frames of a live video stay in the prompt.

    Attributes:
        first: number of frames from the beginning.
        middle: number of frames between, thinned out evenly in time.
        recent: number of the latest frames.
        batch: number of frames that are removed at once; until then as many more stay. A larger number makes it rarer
            that the retained frames are prefilled again.
    """

    first: int = 4
    middle: int = 44
    recent: int = 64
    batch: int = 16

    def __post_init__(self) -> None:
        for name, least in (("first", 0), ("middle", 0), ("recent", 1), ("batch", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be at least {least}, not {getattr(self, name)}")

    @classmethod
    def latest(cls, frames: int) -> FrameRetention:
        """Return what keeps the `frames` latest frames, and up to half as many more between two removals."""
        return cls(first=0, middle=0, recent=frames, batch=max(1, frames // 2))

    @property
    def most(self) -> int:
        """The most frames that are ever kept."""
        return self.first + self.middle + self.recent + self.batch - 1

    def chosen(self, times: list[float], numbers: list[int] | None = None, period: int = 1) -> list[int]:
        """Places of the frames that stay, of frames shown at `times`; all of them until there are `most` + 1.

        In the middle, the frames go whose going leaves the smallest gap in time (of equals the earlier), again and
        again, which thins it out evenly whatever the rate was. With cyclic timesteps, `period` consecutive frames stay
        or go together: every second frame alone would be of every second timestep.

        Args:
            times: seconds of the frames, increasing.
            numbers: how many frames came before each; by default none has been dropped.
            period: frames that stay or go together, those whose numbers have the same quotient by it.
        """
        places = list(range(len(times)))
        if len(times) <= self.most:
            return places
        numbers = list(places) if numbers is None else numbers
        while len(places) > self.first + self.middle + self.recent:
            runs = self._runs([numbers[place] // period for place in places])
            # The group that the recent frames begin in is still growing.
            last = numbers[places[len(places) - self.recent]] // period
            whole = [run for run in runs if numbers[places[run.start]] // period != last] or runs
            goes = min(whole, key=lambda run: (self._gap(times, places, run), run.start))
            del places[goes]
        return places

    def _runs(self, groups: list[int]) -> list[slice]:
        """Neighbours of one group between the first and the recent frames."""
        runs: list[slice] = []
        for place in range(self.first, len(groups) - self.recent):
            if runs and groups[place] == groups[runs[-1].start]:
                runs[-1] = slice(runs[-1].start, place + 1)
            else:
                runs.append(slice(place, place + 1))
        return runs

    @staticmethod
    def _gap(times: list[float], places: list[int], run: slice) -> float:
        before = times[places[run.start - 1]] if run.start else times[places[0]]
        return times[places[run.stop]] - before


@dataclass(frozen=True)
class _Frame:
    """A frame that the language model sees.

    Attributes:
        time: seconds. tokens: its visual tokens, `(K, L)`. number: frames that were pushed before it.
    """

    time: float
    tokens: torch.Tensor
    number: int


class LiveSession:
    """A live video and what is asked about it. It belongs to one thread.

    Attributes:
        pushed: frames that were pushed.
        last: the last `Answer`.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        window: int | None = None,
        keep: FrameRetention | None = None,
        bounded: bool = True,
        total_steps: int | None = None,
        system: str | None = None,
    ) -> None:
        """Begin a stream.

        Args:
            window: steps that the tower remembers; by default the checkpoint's own, else 64.
            keep: which frames the language model goes on seeing; by default as many of the latest as the checkpoint's
                processor names (`live_frames`), else `FrameRetention()`.
            bounded: False keeps everything, in the tower (unless a window is given) and in the language model.
            total_steps: frames that the whole stream will have; needed where timesteps are relative, and only there.
            system: a system message.

        Raises:
            UsageError: a checkpoint with relative timesteps without `total_steps`, or more frames kept than the
                language model has positions for.
        """
        vision = encoder.model.config.vision_config
        if vision.timestep == "relative" and total_steps is None:
            raise UsageError(
                "this checkpoint was trained with relative timesteps (step / total): a stream needs total_steps, the "
                "number of frames that it will have"
            )
        own = vision.temporal_window
        self.encoder = encoder
        self.window = window if window is not None else own if own is not None or not bounded else WINDOW
        self.keep = keep if bounded else None
        self.total_steps = total_steps
        self.pushed = 0
        self.last: Answer | None = None
        self._messages = [{"role": "system", "content": system}] if system else []
        self._temporal: TemporalCache | None = None
        self._frames: list[_Frame] = []
        self._cache: DynamicCache | None = None
        self._ids: list[int] = []  # what the language model has read
        self._answering = False
        self._before = self._around(0.0, "x")[0]
        if keep is None and bounded:
            self.keep = self._default_keep()
        if self.keep is not None:
            self._check_positions(self.keep)

    # What is kept

    @property
    def timestamps(self) -> tuple[float, ...]:
        """Seconds of the frames that the language model sees."""
        return tuple(frame.time for frame in self._frames)

    @property
    def tokens(self) -> torch.Tensor:
        """Visual tokens of those frames, `(frames, K, L)`."""
        return torch.stack([frame.tokens for frame in self._frames])

    @property
    def nbytes(self) -> int:
        """Bytes that the stream holds: the tower's memory, visual tokens, and the language model's keys and values."""
        held = 0 if self._temporal is None else self._temporal.nbytes
        held += sum(frame.tokens.numel() * frame.tokens.element_size() for frame in self._frames)
        return held + len(self._ids) * self._bytes_per_position

    @property
    def max_nbytes(self) -> int | None:
        """Upper bound of `nbytes` between calls; None for a session that is not bounded.

        During an answer the positions of its question and its tokens are added.
        """
        if self.keep is None or self.window is None:
            return None
        config = self.encoder.model.config
        vision = config.vision_config
        size = self.encoder.model.dtype.itemsize
        positions = 1 + (vision.image_size[0] // vision.patch_size[0]) ** 2
        layers = self.encoder.model.model.vision_tower.num_active_temporal_layers
        temporal = 2 * layers * max(0, self.window - 1) * positions * vision.hidden_size * size
        tokens = self.keep.most * config.tokens_per_frame * config.text_config.hidden_size * size
        return temporal + tokens + self._most_positions(self.keep) * self._bytes_per_position

    @property
    def _bytes_per_position(self) -> int:
        text = self.encoder.model.config.text_config
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        return 2 * text.num_hidden_layers * heads * head * self.encoder.model.dtype.itemsize

    def _most_positions(self, keep: FrameRetention) -> int:
        """Positions of the most frames if every byte of the longest prefix is a token."""
        processor = self.encoder.processor
        text = f"\n{processor.frame_text(MAX_TIME_S, keep.most)}"
        for control in (processor.video_token, processor.start_image_token, processor.end_image_token):
            text = text.replace(control, "")
        return len(self._before) + keep.most * (len(text.encode()) + 2 + processor.tokens_per_frame)

    def _default_keep(self) -> FrameRetention:
        """Return what the checkpoint was trained to see of a live video, or as much as its language model can hold."""
        frames = self.encoder.processor.video_processor.live_frames
        keep = FrameRetention() if frames is None else FrameRetention.latest(frames)
        while keep.most > 1 and not self._has_positions(keep):
            keep = FrameRetention.latest(max(1, keep.most // 2))
        return keep

    def _has_positions(self, keep: FrameRetention) -> bool:
        limit = getattr(self.encoder.model.config.text_config, "max_position_embeddings", None)
        return limit is None or self._needed_positions(keep) <= limit

    def _needed_positions(self, keep: FrameRetention) -> int:
        return self._most_positions(keep) + (self.encoder.model.generation_config.max_new_tokens or 512)

    def _check_positions(self, keep: FrameRetention) -> None:
        if not self._has_positions(keep):
            needed, limit = self._needed_positions(keep), self.encoder.model.config.text_config.max_position_embeddings
            raise UsageError(
                f"keeping {keep.most} frames takes up to {needed} positions with the answer, and the language model "
                f"has {limit}; keep fewer (first, middle, recent, batch)"
            )

    # Frames

    @torch.inference_mode()
    def push(self, frame: Any, timestamp: float) -> None:
        """Add the next frame.

        Args:
            frame: PIL picture, or array `(H, W, 3)` uint8.
            timestamp: seconds, above those of the frame before.

        Raises:
            MismatchError: a time that is not later than the last one's, or more frames than `total_steps`.
            UsageError: no picture, a time that is no time, or an answer that is still being generated.
        """
        self._refuse_while_answering()
        if self._frames and timestamp <= self._frames[-1].time:
            raise MismatchError(
                f"a frame at {timestamp:g} s after one at {self._frames[-1].time:g} s: times must increase"
            )
        if timestamp > MAX_TIME_S:
            raise UsageError(f"a time of {timestamp:g} s; a stream counts its seconds up to {MAX_TIME_S:g}")
        # A still picture as it is; arrays and PIL pictures are checked and made RGB there.
        video = Video.from_frames([frame], timestamps=[timestamp])
        batch = self.encoder.processor.video_processor([video], do_sample_frames=False, return_tensors="pt")
        model = self.encoder.model
        tokens, temporal = model.model.encode_frames(
            batch["pixel_values_videos"].to(model.device), self._temporal, self.total_steps, window=self.window
        )
        self._temporal = temporal
        self.pushed += 1
        self._frames.append(_Frame(timestamp, tokens[0].clone(), self.pushed - 1))
        kept = self._kept()
        if len(kept) < len(self._frames):
            self._frames = [self._frames[place] for place in kept]
            self._forget()
        try:
            # All of them at the beginning, after letting go, and after an answer that could not be taken back.
            self._read(0 if self._cache is None else len(self._frames) - 1)
        except BaseException:  # out of memory, or Ctrl-C: half of a frame may have been read
            self._forget()
            raise

    def _kept(self) -> list[int]:
        """Places of the frames that the language model goes on seeing."""
        if self.keep is None:
            return list(range(len(self._frames)))
        times, numbers = ([getattr(frame, name) for frame in self._frames] for name in ("time", "number"))
        return self.keep.chosen(times, numbers, self.encoder.model.config.vision_config.timestep_period or 1)

    def _forget(self) -> None:
        self._cache, self._ids = None, []

    def _read(self, start: int) -> None:
        """Let the language model read the frames from place `start` on, after those before."""
        model = self.encoder.model
        frames = self._frames[start:]
        fresh = [token for place, frame in enumerate(frames, start) for token in self._ids_of(frame.time, place)]
        if self._cache is None:
            self._cache = DynamicCache(config=model.config.text_config)
        features = BaseModelOutputWithPooling(pooler_output=[frame.tokens for frame in frames])
        model.model(
            input_ids=torch.tensor([fresh], device=model.device),
            cache=self._cache,
            mm_encoder_outputs={"video": features},
            use_cache=True,
        )
        self._ids += fresh

    # The prompt, in pieces that stand between control tokens, so that pieces and whole are tokenized alike

    def _around(self, timestamp: float, question: str) -> tuple[list[int], list[int]]:
        """Ids of a conversation about one frame: up to the end of the frame, and after it."""
        content = [{"type": "video", "video": "<stream>"}, {"type": "text", "text": question}]
        messages = [*self._messages, {"role": "user", "content": content}]
        processor = self.encoder.processor
        ids = processor.encode_chat(messages, {"timestamps": [[timestamp]]}).ids
        end = processor.tokenizer.convert_tokens_to_ids(processor.end_image_token)
        place = ids.index(end) + 1
        return ids[:place], ids[place:]

    def _ids_of(self, timestamp: float, place: int) -> list[int]:
        """Ids of the frame at `place` among those that stay; the first brings what stands before all frames.

        Frames may be numbered in the prompt, so that a frame's ids change when frames before it are dropped.
        """
        if place == 0:
            return self._around(timestamp, "x")[0]
        processor = self.encoder.processor
        text = f"\n{processor.frame_text(timestamp, place + 1)}"
        return list(processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    # Questions

    def ask(self, question: str, **options: Any) -> Answer:
        """Ask about what has been seen so far, and wait for the whole answer; `options` as for `answer`."""
        for _ in self.answer(question, **options):
            pass
        assert self.last is not None
        return self.last

    def answer(
        self,
        question: str,
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> Generator[str, None, None]:
        """Ask, and yield the answer's text as it is generated. The stream stays as it was: nothing asked is remembered.

        Raises:
            UsageError: an empty question, no frame yet, options out of range, or an answer still being generated.
        """
        if not question or not question.strip():
            raise UsageError("the question is empty")
        if not self._frames:
            raise UsageError("the stream has no frame yet")
        self._refuse_while_answering()
        return self._answer(question, sampling_options(max_new_tokens, temperature, top_p, seed), seed)

    def _answer(self, question: str, sampling: dict[str, Any], seed: int | None) -> Generator[str, None, None]:
        self._refuse_while_answering()
        if self._cache is None:
            with torch.inference_mode():
                self._read(0)
        assert self._cache is not None
        read = len(self._ids)
        ids = [*self._ids, *self._around(self._frames[0].time, question)[1]]
        inputs = generation_inputs(self.encoder.model, ids, self._cache) | sampling
        generation = Generation()
        answer = Answer(prompt_tokens=len(ids), reused_tokens=read)
        self._answering = True
        if seed is not None:
            set_seed(seed)
        started = time.perf_counter()
        try:
            with closing(
                generate_text(self.encoder.model, self.encoder.processor.tokenizer, inputs, generation)
            ) as pieces:
                for piece in pieces:
                    answer.text += piece
                    yield piece
        finally:
            self._answering = False
            self._take_back(read)
            answer.completion_tokens = len(generation.tokens)
            answer.timing = {"prefill_s": generation.prefill_s, "generate_s": generation.generate_s}
            answer.timing["total_s"] = time.perf_counter() - started
            self.last = answer

    def _take_back(self, read: int) -> None:
        """Cut the language model's memory back to the frames."""
        assert self._cache is not None
        try:
            self._cache.crop(read - self._cache.get_seq_length())
        except (RuntimeError, ValueError, NotImplementedError):
            self._forget()  # a cache that cannot be cut: the frames are read anew from their visual tokens

    def _refuse_while_answering(self) -> None:
        if self._answering:
            raise UsageError("this stream is still answering: read the answer to its end, or close it, first")


__all__ = ["FrameRetention", "LiveSession"]
