"""What encoding costs, from shapes alone: bytes that live at the peak, and seconds from two measured layers.

The formulas count what `encode.py`, the tower and the compressor hold at the same time; a test compares them with the
tensors that really live, `benchmarks/plan.py` with what the process takes. Leaves out weights, decoding, and what to do
about a cost (`budget.py`, which calls this).

F stored frames, T steps, R rows (frames or tiles times steps), P remembered steps, N positions, D width, K tokens per
frame, L language width, S frame size. A unit is one row of hidden states: N D values.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from pvc.engine.encode import FRAMES_PER_CHUNK, TILES_PER_CHUNK
from pvc.media import Video
from pvc.model.attention import MAX_STEPS, chunk_positions
from pvc.model.layout import ClipLayout
from pvc.model.modeling import PVCForConditionalGeneration
from pvc.model.temporal import Conditioning, get_timesteps
from pvc.processing.processor import PVCProcessor

_FLOAT32 = 4  # bytes; processors prepare pixels in float32
_PILLOW_RGB, _ARRAY_RGB = 4, 3  # bytes a pixel

# glibc gives blocks of 32 MiB and more back at once and holds on to smaller ones. How many hidden states it holds while
# the tower runs is measured, not derived: 3 to 11, mostly 8.5 to 10, from 8 frames to 6 rows of InternViT's shape.
_LARGEST_KEPT = 32 * 2**20
_KEPT_BLOCKS = 9
_PIECE = 2**16  # of what Pillow hands out as bytes

_TELLING = 0.04  # seconds; a call that takes longer is not run again and again
_RUNS = 4
_LARGE = 1024  # pixels; a picture that does not fit into a cache, as photographs do not


@dataclass(frozen=True)
class Shape:
    """The numbers of a model that its costs depend on.

    Attributes:
        side: S, pixels. positions: N. width: D. heads: attention heads. ratio: MLP width / D.
        lower, temporal: layers without and with a temporal block. window: the temporal window, or None.
        shuffled: channels of a token before the compressor. tokens: K. language: L.
        itemsize: bytes of one value of the tower's dtype. eager: whether attention writes its weights out.
        on_host: whether the tower computes where pictures are prepared (a CPU).
    """

    side: int
    positions: int
    width: int
    heads: int
    ratio: float
    lower: int
    temporal: int
    window: int | None
    shuffled: int
    tokens: int
    language: int
    itemsize: int
    eager: bool
    on_host: bool

    @classmethod
    def of(cls, model: PVCForConditionalGeneration) -> Shape:
        """The shape of a loaded model."""
        vision = model.config.vision_config
        temporal = model.model.vision_tower.num_active_temporal_layers
        return cls(
            side=vision.image_size[0],
            positions=vision.grid**2 + 1,
            width=vision.hidden_size,
            heads=vision.num_attention_heads,
            ratio=vision.intermediate_size / vision.hidden_size,
            lower=vision.num_hidden_layers - temporal,
            temporal=temporal,
            window=vision.temporal_window,
            shuffled=vision.hidden_size * model.config.downsample_factor**2,
            tokens=model.config.tokens_per_frame,
            language=model.config.text_config.hidden_size,
            itemsize=model.model.vision_tower.dtype.itemsize,
            eager=vision._attn_implementation == "eager",
            on_host=model.device.type == "cpu",
        )

    @property
    def unit(self) -> int:
        """Bytes of one row of hidden states."""
        return self.positions * self.width * self.itemsize

    @property
    def pixels(self) -> int:
        """Bytes of one prepared frame, `(3, S, S)` float32."""
        return 3 * self.side**2 * _FLOAT32

    def kept(self, frames: int) -> int:
        """Bytes of the visual tokens of `frames` frames and steps, `(frames K, L)`."""
        return frames * self.tokens * self.language * self.itemsize


def video_bytes(shape: Shape, frames: int, resized: bool = False) -> int:
    """Bytes at the peak of encoding a video of `frames` frames, no two neighbours of which are equal.

    `resized`: whether its frames still have a size of their own, as a Video in memory may.
    """
    if frames <= FRAMES_PER_CHUNK:
        tower = _chunk_pixels(shape, frames) + _tower(shape, frames, frames, frames)
        return max(_prepare_frames(shape, frames, resized), tower)
    peak = 0
    for start in range(0, frames, FRAMES_PER_CHUNK):
        chunk = min(FRAMES_PER_CHUNK, frames - start)
        past = _remembered(shape, start)
        before = shape.kept(start) + 2 * shape.temporal * past * shape.unit  # tokens and the cache so far
        # The last chunk's pixels are let go only once the next one's are there.
        preparing = (_chunk_pixels(shape, FRAMES_PER_CHUNK) if start else 0) + _prepare_frames(shape, chunk, resized)
        tower = _chunk_pixels(shape, chunk) + _tower(shape, chunk, chunk, chunk, past, caching=True)
        peak = max(peak, before + preparing, before + tower)
    joining = 2 * shape.kept(frames) + 2 * shape.temporal * _remembered(shape, frames) * shape.unit
    return max(peak, joining)


def picture_bytes(
    shape: Shape, size: tuple[int, int], grid: tuple[int, int], tiles: int, steps: int, adaptive: bool = False
) -> int:
    """Bytes at the peak of encoding a picture of `size` (height, width), cut into `tiles` with the thumbnail.

    `grid`: (columns, rows) of the tiles. `adaptive`: `steps` is the most that the picture can decide for; between its
    first step and the rest, what the lower layers made of every tile stays, and the keys and values of its first step.
    """
    chunk = min(tiles, TILES_PER_CHUNK)
    done = max(tiles // TILES_PER_CHUNK - 1, 0) * TILES_PER_CHUNK  # tiles encoded before the last full chunk
    pixels = tiles * shape.pixels if shape.on_host else 0
    tower = _copied(shape, chunk) + _tower(shape, chunk, chunk * steps, steps) + shape.kept(done * steps)
    ordering = 2 * shape.kept(tiles * steps)
    staying = tiles * (shape.unit * (1 + 2 * shape.temporal) + shape.kept(1)) if adaptive else 0
    return max(_prepare_picture(shape, size, grid, tiles), pixels + staying + max(tower, ordering))


def _prepare_frames(shape: Shape, frames: int, resized: bool) -> int:
    """The processor holds three float32 copies of the frames that it normalises; resized ones come on top."""
    if not shape.on_host:
        return 0
    own = (_PILLOW_RGB + _ARRAY_RGB) * shape.side**2 if resized else 0
    return frames * (3 * shape.pixels + own)


def _prepare_picture(shape: Shape, size: tuple[int, int], grid: tuple[int, int], tiles: int) -> int:
    """A picture on its way to tiles, at the worst of four moments. Small next to the tower but for photographs.

    Two copies of it, made where pictures are fetched, stay until the end, and so does the array made of them.
    """
    if not shape.on_host:
        return 0
    (height, width), (columns, rows) = size, grid
    area, cut = height * width, columns * rows * shape.side**2
    across = height * columns * shape.side  # Pillow resizes along rows first, then along columns
    # To an array by way of bytes, which Pillow gathers in pieces twice; the first ones are free by then.
    converting = (3 * _PILLOW_RGB + 2 * _ARRAY_RGB) * area
    converting += _unreturned(shape, _PIECE, _ARRAY_RGB * area // _PIECE)
    staying = (2 * _PILLOW_RGB + _ARRAY_RGB) * area
    resizing = _PILLOW_RGB * area + max(_PILLOW_RGB * (across + cut), (_PILLOW_RGB + _ARRAY_RGB) * cut)
    normalising = _ARRAY_RGB * cut + (tiles + 3) * shape.pixels
    return max(converting, staying + max(resizing, normalising, 2 * tiles * shape.pixels))


def _chunk_pixels(shape: Shape, frames: int) -> int:
    """Pixels of a video's chunk while the tower has them."""
    return (frames * shape.pixels if shape.on_host else 0) + _copied(shape, frames)


def _copied(shape: Shape, frames: int) -> int:
    """The tower's own copies of pixels: on another device, and in another precision."""
    moved = 0 if shape.on_host else frames * shape.pixels
    return moved + (frames * shape.pixels * shape.itemsize // _FLOAT32 if shape.itemsize != _FLOAT32 else 0)


def _remembered(shape: Shape, steps: int) -> int:
    """Steps that the cache holds after `steps`."""
    return steps if shape.window is None else min(steps, shape.window - 1)


def _tower(shape: Shape, frames: int, rows: int, steps: int, past: int = 0, caching: bool = False) -> int:
    """Bytes at the peak of one call of the tower and the compressor, without the pixels and the cache it is given.

    `frames` run through the layers below the first temporal one, `rows` through the others: `steps` of every clip,
    after `past` remembered ones.
    """
    unit = shape.unit
    seen = shape.heads * shape.positions**2 * shape.itemsize if shape.eager else 0  # one row's attention weights
    # Inside a layer live, at the worst of three moments: its input, what attention added, their sum, its norm, and the
    # MLP's middle twice; input, norm, query, key, value and the weights twice; the same with what they gave, projected.
    layer = max((4 + 2 * shape.ratio) * unit + seen, 5 * unit + 2 * seen, 7 * unit + seen)
    moments = [2.0 * frames * unit]
    if shape.lower:
        moments.append(frames * layer)
    made = 2 * _remembered(shape, past + steps) * unit if caching else 0  # one layer's keys and values for the cache
    if shape.temporal:
        joined = 2 * (past + steps) * unit if past else 0
        over_time = _over_time(shape, rows, steps, past + steps)
        # While a temporal layer's spatial part runs, its own input and what the temporal block added are there too.
        moments.append(rows * (layer + 2 * unit) + shape.temporal * made)
        moments.append(max(rows * 7 * unit, over_time) + joined + (shape.temporal - 1) * made)
    # Whoever calls the layers holds the embedded frames until they are done.
    layers = frames * unit + max(moments)
    compressor = _compressor(shape, rows, steps) + shape.temporal * made
    return int(max(layers, compressor)) + _unreturned(shape, rows * unit, _KEPT_BLOCKS)


def _over_time(shape: Shape, rows: int, steps: int, keys: int) -> int:
    """Bytes that live in a temporal block's attention: its input, their norm, query, key, value, and what is made."""
    places = rows // steps * shape.positions
    if shape.eager:
        return rows * 5 * shape.unit + 2 * places * shape.heads * steps * keys * shape.itemsize
    if not shape.on_host or keys > MAX_STEPS:
        return rows * 7 * shape.unit
    places = min(places, chunk_positions(keys, shape.width))
    scores = shape.heads * steps * keys  # twice, or once with twice the result
    piece = places * max(2 * scores, scores + 2 * steps * shape.width) * shape.itemsize
    return max(rows * 6 * shape.unit + piece, rows * 7 * shape.unit)


def _unreturned(shape: Shape, block: int, count: int) -> int:
    """Bytes of `count` freed blocks of `block` bytes that a CPU's allocator keeps: the process has them still."""
    return count * block if shape.on_host and block < _LARGEST_KEPT else 0


def _compressor(shape: Shape, rows: int, steps: int) -> float:
    """Hidden states, the shuffled tokens and three more of them in their norm, or the middle of two linear layers."""
    shuffled = shape.tokens * shape.shuffled * shape.itemsize
    language = shape.tokens * shape.language * shape.itemsize
    modulation = shape.shuffled * (3 * steps * _FLOAT32 + rows * shape.itemsize)  # per distinct timestep and per row
    return rows * (shape.unit + max(4 * shuffled, 2 * shuffled + 2 * language)) + modulation


# Time


@dataclass(frozen=True)
class Rates:
    """Seconds, measured on this machine with this model.

    Attributes:
        lower, temporal: of one layer without and with a temporal block: (per call, per row).
        frame, tile: to prepare one frame of a video and one tile of a picture.
        pixel: to resize a picture, per pixel of its own.
    """

    lower: tuple[float, float]
    temporal: tuple[float, float]
    frame: float
    tile: float
    pixel: float


def video_seconds(shape: Shape, rates: Rates, frames: int) -> float:
    """Seconds to prepare and encode a video of `frames` frames."""
    calls = -(-frames // FRAMES_PER_CHUNK)
    past = 0.0  # steps that an average frame remembers from earlier chunks
    for start in range(0, frames, FRAMES_PER_CHUNK):
        past += _remembered(shape, start) * min(FRAMES_PER_CHUNK, frames - start) / frames
    return frames * rates.frame + _tower_seconds(shape, rates, calls, frames, frames, past)


def picture_seconds(shape: Shape, rates: Rates, size: tuple[int, int], tiles: int, steps: int) -> float:
    """Seconds to prepare and encode a picture of `size` (height, width) cut into `tiles`."""
    resized = size[0] * size[1] * (2 if tiles > 1 else 1)  # for the tiles and for the thumbnail
    prepared = tiles * rates.tile + resized * rates.pixel
    return prepared + _tower_seconds(shape, rates, -(-tiles // TILES_PER_CHUNK), tiles, tiles * steps, 0.0)


def _tower_seconds(shape: Shape, rates: Rates, calls: int, frames: int, rows: int, past: float) -> float:
    """What layers take by measurement, and the rest by its arithmetic at the same speed."""
    lower, temporal = rates.lower, rates.temporal
    plain = _layer_flops(shape)
    embedding = 2 * shape.positions * 3 * (shape.side**2 / (shape.positions - 1)) * shape.width
    compressing = 2 * shape.tokens * (shape.shuffled * shape.language + shape.language**2)
    remembering = shape.temporal * 4 * shape.positions * shape.width * past
    rest = (frames * embedding + rows * (compressing + remembering)) / plain * lower[1]
    return (
        calls * (shape.lower * lower[0] + shape.temporal * temporal[0])
        + frames * shape.lower * lower[1]
        + rows * shape.temporal * temporal[1]
        + rest
    )


def _layer_flops(shape: Shape) -> float:
    """Floating-point operations of one row in a layer without a temporal block: projections, MLP, attention."""
    linear = 2 * shape.positions * shape.width**2 * (4 + 2 * shape.ratio)
    return linear + 4 * shape.positions**2 * shape.width


def measure(model: PVCForConditionalGeneration, processor: PVCProcessor) -> Rates:
    """Run single layers and prepare single frames, for about as long as it takes to encode a frame or two."""
    side = Shape.of(model).side
    frames = Video.from_frames(np.zeros((4, side, side, 3), np.uint8))
    sides = side, max(2 * side, _LARGE)
    small, large = (Image.new("RGB", (pixels, pixels)) for pixels in sides)

    def prepare(picture: Image.Image) -> float:
        return _seconds(lambda: processor.image_processor([picture], max_patches=1, return_tensors="pt"), model)

    frame = _seconds(lambda: processor.video_processor([frames], do_sample_frames=False, return_tensors="pt"), model)
    tile, resized = prepare(small), prepare(large)
    pixel = max(resized - tile, 0.0) / (sides[1] ** 2 - side**2)
    encoder = model.model.vision_tower.encoder
    first, last = _layer_rate(model, encoder.layer[0]), _layer_rate(model, encoder.layer[-1])
    return Rates(first, last, frame / 4, max(tile - pixel * side**2, 0.0), pixel)


@torch.inference_mode()
def _layer_rate(model: PVCForConditionalGeneration, layer: torch.nn.Module) -> tuple[float, float]:
    """(seconds per call, seconds per row) of one layer: from one row, and from more where one tells little."""
    shape, tower = Shape.of(model), model.model.vision_tower

    def run(rows: int) -> float:
        hidden = torch.zeros(rows, shape.positions, shape.width, dtype=tower.dtype, device=model.device)
        layout = ClipLayout.build([rows], [rows])
        timesteps, index = get_timesteps(layout, tower.config, model.device)
        conditioning = Conditioning(tower.timestep_embedding(timesteps), index)
        return _seconds(lambda: layer(hidden, conditioning, layout), model)

    one = run(1)
    if one > _TELLING:
        return 0.0, one
    many = run(FRAMES_PER_CHUNK)
    if many <= one:  # noise, where rows cost next to nothing
        return 0.0, many / FRAMES_PER_CHUNK
    row = (many - one) / (FRAMES_PER_CHUNK - 1)
    return max(one - row, 0.0), row


def _seconds(call: Callable[[], Any], model: PVCForConditionalGeneration) -> float:
    """The mean of a few runs after one to warm up; of a slow call, one run.

    The mean and not the least: where others use the machine, too, encoding will not be spared either.
    """
    call()
    _wait(model)
    runs, started = 0, time.perf_counter()
    while runs < _RUNS and time.perf_counter() - started < _TELLING:
        call()
        _wait(model)
        runs += 1
    return (time.perf_counter() - started) / runs


def _wait(model: PVCForConditionalGeneration) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)


__all__ = ["Rates", "Shape", "measure", "picture_bytes", "picture_seconds", "video_bytes", "video_seconds"]
