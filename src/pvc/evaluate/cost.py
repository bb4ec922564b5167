"""Time and memory of an answer, phase by phase, for three ways to run the same weights. Called by `pvc bench`.

`pvc`: this library. `published`: all copies of a picture pass the whole tower, a video is encoded at once, and
everything is computed again for every question. `base`: InternVL's recipe; its compressor has another shape and
therefore random weights, which take the same time. Repeats are interleaved, so that noise of the machine affects all
ways alike. Tables and plots are in `cost_report.py`.
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
from pvc.engine.engine import Engine
from pvc.engine.options import MediaOptions
from pvc.errors import UsageError
from pvc.model.inputs import steps_per_tile
from pvc.model.modeling import PVCForConditionalGeneration
from pvc.model.order import order_image_tokens

WAYS = ("pvc", "published", "base")
PHASES = ("decode", "prepare", "vision", "prefill", "generate")
QUESTION, SECOND_QUESTION = "What is shown?", "And what else?"


@dataclass
class Cost:
    """Median cost of one medium in one way.

    Attributes:
        medium: file name.
        way: one of `WAYS`.
        visual_tokens: number of visual tokens of the medium.
        seconds: time of every phase of `PHASES`, in seconds.
        second: seconds from a second question to its first token.
        peak_bytes: peak memory in bytes beyond that of the loaded model; None if it was not measured.
    """

    medium: str
    way: str
    visual_tokens: int
    seconds: dict[str, float] = field(default_factory=dict)
    second: float = 0.0
    peak_bytes: int | None = None

    @property
    def first_token(self) -> float:
        """Seconds from the request to the first token."""
        return sum(self.seconds[phase] for phase in PHASES if phase != "generate")

    @property
    def total(self) -> float:
        """Seconds from the request to the last token."""
        return sum(self.seconds[phase] for phase in PHASES)


def build_engine(way: str, engine: Engine) -> Engine:
    """Build the engine of a way: `engine` itself, or for "base" its model without what PVC adds.

    Args:
        way: one of `WAYS`.
        engine: engine to compare with.

    Raises:
        UsageError: the checkpoint has ratio 1/2 already.
    """
    if way != "base":
        return engine
    config = copy.deepcopy(engine.model.config)
    factor = round(1 / config.downsample_ratio)
    if factor < 4:
        raise UsageError("the checkpoint has ratio 1/2 already, so it has no base to compare with; leave out 'base'")
    vision = {**config.vision_config.to_dict(), "num_temporal_layers": 0, "temporal_window": None}
    base_config = type(config)(
        **{
            **config.to_dict(),
            "vision_config": vision,
            "text_config": config.text_config.to_dict(),
            "downsample_ratio": 0.5,
            "image_steps": 1,
        }
    )
    base_config._attn_implementation = engine.model.config._attn_implementation
    torch.manual_seed(0)
    model = PVCForConditionalGeneration(base_config)
    state = model.state_dict()
    shared = {key: value for key, value in engine.model.state_dict().items() if key in state}
    matching = {key: value for key, value in shared.items() if state[key].shape == value.shape}
    model.load_state_dict({**state, **matching}, strict=False)
    model = model.to(device=engine.model.device, dtype=engine.model.dtype).eval()
    model.generation_config = engine.model.generation_config
    processor = copy.deepcopy(engine.processor)
    processor.tokens_per_frame = base_config.tokens_per_frame
    processor.image_processor.image_steps = 1
    return Engine(model, processor, engine.directory)


@torch.inference_mode()
def _encode(engine: Engine, way: str, opened: Any, options: MediaOptions) -> EncodedMedia:
    """Encode an opened medium in one way."""
    if way != "published":
        return engine.encode([opened], options)[0]
    started = time.perf_counter()
    if isinstance(opened, media.Picture):
        batch = engine.processor.image_processor([opened.image], return_tensors="pt", **options.image_options)
        pixels = batch["pixel_values"]
        steps = steps_per_tile(batch["image_steps"], [len(pixels)], engine.model.config)[0]
        copies = pixels.repeat_interleave(steps, dim=0)
        fields: dict[str, Any] = {"kind": "image", "tiles": len(pixels), "steps": steps}
    else:
        batch = engine.processor.video_processor([opened], do_sample_frames=False, return_tensors="pt")
        copies = batch["pixel_values_videos"]
        steps = len(copies)
        fields = {"kind": "video", "timestamps": tuple(opened.timestamps), "steps": steps}
    prepare_s = time.perf_counter() - started
    clips, _ = engine.model.model.encode_clips(copies.to(engine.model.device), frames=[steps] * (len(copies) // steps))
    # A video is one clip: its tokens are in the order of its frames.
    is_image = fields["kind"] == "image"
    tokens = order_image_tokens(clips, [len(clips)], engine.model.config)[0] if is_image else clips[0].flatten(0, 1)
    return EncodedMedia(name=opened.name, tokens=tokens, prepare_s=prepare_s, **fields)


def measure_once(engine: Engine, way: str, path: Path, options: MediaOptions, tokens: int) -> tuple[Cost, float]:
    """Ask two questions about one file and measure them.

    Args:
        engine: result of `build_engine`.
        way: one of `WAYS`.
        path: image or video.
        options: how the file is decoded and encoded.
        tokens: maximum length of an answer.

    Returns:
        The cost by phase, without `second`, and the seconds from the second question to its first token.
    """
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
    restarted = time.perf_counter()
    if way == "published":  # it keeps the pixels and computes everything after them again
        _encode(engine, way, opened, options)
        chat._forget_cache()
    encode_again_s = time.perf_counter() - restarted
    second = chat.ask(SECOND_QUESTION, max_new_tokens=tokens)
    return cost, encode_again_s + second.timing["prefill_s"]


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
    """Measure the cost of every file in every way, after one warm-up run.

    Args:
        engine: engine to measure.
        paths: images and videos.
        options: how files are decoded and encoded; None for the defaults.
        ways: some of `WAYS`.
        tokens: length of every answer; an earlier end of the turn is suppressed.
        repeats: number of runs, of which the median is taken.
        report: called with a line of progress.

    Returns:
        One entry per file and way.

    Raises:
        UsageError: an unknown way, or "base" for a checkpoint of ratio 1/2.
        MediaError: a file that cannot be opened.
    """
    unknown = sorted(set(ways) - set(WAYS))
    if unknown:
        raise UsageError(f"unknown ways: {', '.join(unknown)}; there are {', '.join(WAYS)}")
    options = options or MediaOptions()
    engines = {way: _force_length(build_engine(way, engine), tokens) for way in ways}
    costs = []
    for path in paths:
        runs: dict[str, list[tuple[Cost, float]]] = {way: [] for way in ways}
        for number in range(repeats + 1):
            for way in ways:
                run = measure_once(engines[way], way, path, options, tokens)
                if number:
                    runs[way].append(run)
            report(f"{path.name}: {number}/{repeats}")
        costs += [_compute_median(repeated) for repeated in runs.values()]
    return costs


def peak_bytes(directory: Path | None, way: str, path: Path, options: MediaOptions, dtype: str | None) -> int | None:
    """Measure the peak memory of encoding and answering beyond the loaded model, in a separate process.

    Args:
        directory: model directory; None for the bundled model.
        way: one of `WAYS`.
        path: image or video.
        options: how the file is decoded and encoded.
        dtype: of the model; None for the default.

    Returns:
        Bytes; None if the system has no /proc to read it from.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measure_peak, directory, way, path, options, dtype, torch.get_num_threads()).result()


def _measure_peak(
    directory: Path | None, way: str, path: Path, options: MediaOptions, dtype: str | None, threads: int
) -> int | None:
    """Measure the peak memory in this process, which runs nothing else."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    warnings.simplefilter("ignore")  # a worker process must not print to the user's terminal
    torch.set_num_threads(threads)
    engine = build_engine(way, Engine.load(directory, dtype=dtype))

    def read_kilobytes(name: str) -> int:
        return int(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith(name)))

    before = read_kilobytes("VmRSS:")
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    measure_once(engine, way, path, options, 1)
    return 1024 * max(0, read_kilobytes("VmHWM:") - before)


def _force_length(engine: Engine, tokens: int) -> Engine:
    """Return an engine whose answers have at least `tokens` tokens; weights are shared with `engine`."""
    result = copy.copy(engine)
    result.model = copy.copy(engine.model)
    result.model.generation_config = copy.deepcopy(engine.model.generation_config)
    result.model.generation_config.min_new_tokens = tokens
    return result


def _compute_median(runs: list[tuple[Cost, float]]) -> Cost:
    """Combine the repeats of one medium and way."""
    first = runs[0][0]
    seconds = {phase: statistics.median(cost.seconds[phase] for cost, _ in runs) for phase in PHASES}
    second = statistics.median(second for _, second in runs)
    return Cost(first.medium, first.way, first.visual_tokens, seconds, second)


__all__ = ["PHASES", "WAYS", "Cost", "build_engine", "measure_costs", "measure_once", "peak_bytes"]
