"""What an answer costs, phase by phase, beside two other ways with the same weights.

`pvc`: this library. `published`: copies of a picture through the whole tower, a video at once, everything anew with
every question. `base`: InternVL's recipe; its compressor has another shape and so random weights, which cost the same.
Repeats are interleaved, so that a noisy machine hits all alike. Called by `pvc bench`. Leaves out drawing
(`cost_report.py`).
"""

from __future__ import annotations

import copy
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pvc import media
from pvc.engine.encode import EncodedMedia
from pvc.engine.engine import Engine, MediaOptions
from pvc.errors import UsageError
from pvc.model.inputs import steps_per_tile
from pvc.model.modeling import PVCForConditionalGeneration
from pvc.model.order import order_image_tokens

WAYS = ("pvc", "published", "base")
PHASES = ("decode", "prepare", "vision", "prefill", "generate")
QUESTION, SECOND = "What is shown?", "And what else?"


@dataclass
class Cost:
    """Median seconds by phase of one medium in one way.

    Attributes:
        second: seconds from a second question to its first token.
        peak_bytes: most memory over the loaded model's; None where it was not measured.
    """

    medium: str
    way: str
    visual_tokens: int
    seconds: dict[str, float] = field(default_factory=dict)
    second: float = 0.0
    peak_bytes: int | None = None

    @property
    def first_token(self) -> float:
        return sum(self.seconds[phase] for phase in PHASES if phase != "generate")

    @property
    def total(self) -> float:
        return sum(self.seconds[phase] for phase in PHASES)


def engine_for(way: str, engine: Engine) -> Engine:
    """The engine that a way runs on: the given one, or its model without what PVC adds."""
    if way != "base":
        return engine
    config = copy.deepcopy(engine.model.config)
    factor = round(1 / config.downsample_ratio)
    if factor < 4:
        raise UsageError("the checkpoint has ratio 1/2 already: there is nothing to compare it with")
    vision = {**config.vision_config.to_dict(), "num_temporal_layers": 0, "temporal_window": None}
    changed = type(config)(
        **{
            **config.to_dict(),
            "vision_config": vision,
            "text_config": config.text_config.to_dict(),
            "downsample_ratio": 0.5,
            "image_steps": 1,
        }
    )
    changed._attn_implementation = engine.model.config._attn_implementation
    torch.manual_seed(0)
    model = PVCForConditionalGeneration(changed)
    own = model.state_dict()
    shared = {key: value for key, value in engine.model.state_dict().items() if key in own}
    fitting = {key: value for key, value in shared.items() if own[key].shape == value.shape}
    model.load_state_dict({**own, **fitting}, strict=False)
    model = model.to(device=engine.model.device, dtype=engine.model.dtype).eval()
    model.generation_config = engine.model.generation_config
    processor = copy.deepcopy(engine.processor)
    processor.tokens_per_frame = changed.tokens_per_frame
    processor.image_processor.image_steps = 1
    return Engine(model, processor, engine.directory)


@torch.inference_mode()
def _encode(engine: Engine, way: str, opened: Any, options: MediaOptions) -> EncodedMedia:
    """Visual tokens as a way makes them."""
    if way != "published":
        return engine.encode([opened], options)[0]
    started = time.perf_counter()
    if isinstance(opened, media.Picture):
        batch = engine.processor.image_processor([opened.image], return_tensors="pt", **options.image_options)
        pixels = batch["pixel_values"]
        steps = steps_per_tile(batch["image_steps"], [len(pixels)], engine.model.config)[0]
        copies = pixels.repeat_interleave(steps, dim=0)
        about: dict[str, Any] = {"kind": "image", "tiles": len(pixels), "steps": steps}
    else:
        batch = engine.processor.video_processor([opened], do_sample_frames=False, return_tensors="pt")
        copies = batch["pixel_values_videos"]
        steps = len(copies)
        about = {"kind": "video", "timestamps": tuple(opened.timestamps), "steps": steps}
    prepare_s = time.perf_counter() - started
    clips, _ = engine.model.model.encode_clips(copies.to(engine.model.device), frames=[steps] * (len(copies) // steps))
    # A video is one clip: its tokens are in the order of its frames.
    image = about["kind"] == "image"
    tokens = order_image_tokens(clips, [len(clips)], engine.model.config)[0] if image else clips[0].flatten(0, 1)
    return EncodedMedia(name=opened.name, tokens=tokens, prepare_s=prepare_s, **about)


def once(engine: Engine, way: str, path: Path, options: MediaOptions, tokens: int) -> tuple[Cost, float]:
    """One file, two questions: seconds by phase, and until the first token of the second question."""
    started = time.perf_counter()
    opened = engine.open(path, options)
    decoded = time.perf_counter()
    encoded = _encode(engine, way, opened, options)
    encode_s = time.perf_counter() - decoded
    chat = engine.chat()
    chat._pending = [encoded]
    first = chat.ask(QUESTION, max_new_tokens=tokens)
    cost = Cost(path.name, way, len(encoded.tokens))
    cost.seconds = {
        "decode": decoded - started,
        "prepare": encoded.prepare_s,
        "vision": encode_s - encoded.prepare_s,
        "prefill": first.timing["prefill_s"],
        "generate": first.timing["generate_s"],
    }
    again = time.perf_counter()
    if way == "published":  # its pixels are at hand, and everything after them is made again
        _encode(engine, way, opened, options)
        chat._forget_cache()
    spent = time.perf_counter() - again
    second = chat.ask(SECOND, max_new_tokens=tokens)
    return cost, spent + second.timing["prefill_s"]


def measure_costs(
    engine: Engine,
    paths: Sequence[Path],
    options: MediaOptions | None = None,
    *,
    ways: Sequence[str] = WAYS,
    tokens: int = 16,
    repeats: int = 3,
    report: Callable[[str], None] = lambda line: None,
) -> list[Cost]:
    """Costs of every file in every way: medians of `repeats`, after one run that warms up.

    Args:
        tokens: length of every answer; the model's own end of a turn is not taken.

    Raises:
        UsageError: an unknown way.
        MediaError: a file that cannot be opened.
    """
    unknown = sorted(set(ways) - set(WAYS))
    if unknown:
        raise UsageError(f"unknown ways: {', '.join(unknown)}; there are {', '.join(WAYS)}")
    options = options or MediaOptions()
    engines = {way: _endless(engine_for(way, engine), tokens) for way in ways}
    costs = []
    for path in paths:
        runs: dict[str, list[tuple[Cost, float]]] = {way: [] for way in ways}
        for number in range(repeats + 1):
            for way in ways:
                done = once(engines[way], way, path, options, tokens)
                if number:
                    runs[way].append(done)
            report(f"{path.name}: {number}/{repeats}")
        costs += [_median(own) for own in runs.values()]
    return costs


def peak_bytes(directory: Path | None, way: str, path: Path, options: MediaOptions, dtype: str | None) -> int | None:
    """The most memory that encoding and answering took over the loaded model, in a process of its own.

    None where the system does not tell (it is read from /proc).
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_peak_here, directory, way, path, options, dtype, torch.get_num_threads()).result()


def _peak_here(
    directory: Path | None, way: str, path: Path, options: MediaOptions, dtype: str | None, threads: int
) -> int | None:
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    warnings.simplefilter("ignore")  # a process of its own, and nobody's terminal
    torch.set_num_threads(threads)
    engine = engine_for(way, Engine.load(directory, dtype=dtype))

    def kilobytes(name: str) -> int:
        return int(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith(name)))

    before = kilobytes("VmRSS:")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    once(engine, way, path, options, 1)
    return 1024 * max(0, kilobytes("VmHWM:") - before)


def _endless(engine: Engine, tokens: int) -> Engine:
    """The engine with a model whose answers do not end before they have `tokens`."""
    own = copy.copy(engine)
    own.model = copy.copy(engine.model)
    own.model.generation_config = copy.deepcopy(engine.model.generation_config)
    own.model.generation_config.min_new_tokens = tokens
    return own


def _median(runs: list[tuple[Cost, float]]) -> Cost:
    first = runs[0][0]
    seconds = {phase: statistics.median(cost.seconds[phase] for cost, _ in runs) for phase in PHASES}
    second = statistics.median(second for _, second in runs)
    return Cost(first.medium, first.way, first.visual_tokens, seconds, second)


__all__ = ["PHASES", "WAYS", "Cost", "engine_for", "measure_costs", "once", "peak_bytes"]
