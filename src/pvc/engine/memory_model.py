"""Bytes that encoding allocates at its peak, from shapes alone.

The formulas count what `encode.py`, the tower and the compressor hold at the same time. A test compares them with the
tensors that really live. Leaves out weights, decoding, and memory that an allocator keeps after tensors are freed.
Called by `budget.py`.

F stored frames, T steps, R rows (frames or tiles times steps), P remembered steps, N positions, D width, K tokens per
frame, L language width, S frame size. A unit is one row of hidden states: N D values.
"""

from __future__ import annotations

from dataclasses import dataclass

from pvc.engine.encode import FRAMES_PER_CHUNK, TILES_PER_CHUNK
from pvc.model.attention import MAX_STEPS, chunk_positions
from pvc.model.modeling import PVCForConditionalGeneration

_FLOAT32 = 4  # bytes; processors prepare pixels in float32
_PILLOW_RGB, _ARRAY_RGB = 4, 3  # bytes a pixel


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
    def from_model(cls, model: PVCForConditionalGeneration) -> Shape:
        """Return the shape of a loaded model."""
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

    def token_bytes(self, frames: int) -> int:
        """Return the bytes of the visual tokens of `frames` frames or steps, `(frames K, L)`."""
        return frames * self.tokens * self.language * self.itemsize


def video_bytes(shape: Shape, frames: int, resized: bool = False) -> int:
    """Return the bytes at the peak of encoding a video in which no two neighbouring frames are equal.

    Args:
        shape: of the model.
        frames: number of frames.
        resized: whether its frames have not the tower's size yet, as those of a `Video` in memory may.
    """
    if frames <= FRAMES_PER_CHUNK:
        tower = _chunk_pixels(shape, frames) + _tower(shape, frames, frames, frames)
        return max(_prepare_frames(shape, frames, resized), tower)
    peak = 0
    for start in range(0, frames, FRAMES_PER_CHUNK):
        chunk = min(FRAMES_PER_CHUNK, frames - start)
        past = _remembered(shape, start)
        before = shape.token_bytes(start) + 2 * shape.temporal * past * shape.unit  # tokens and the cache so far
        # The last chunk's pixels are let go only once the next one's are there.
        preparing = (_chunk_pixels(shape, FRAMES_PER_CHUNK) if start else 0) + _prepare_frames(shape, chunk, resized)
        tower = _chunk_pixels(shape, chunk) + _tower(shape, chunk, chunk, chunk, past, caching=True)
        peak = max(peak, before + preparing, before + tower)
    joining = 2 * shape.token_bytes(frames) + 2 * shape.temporal * _remembered(shape, frames) * shape.unit
    return max(peak, joining)


def picture_bytes(shape: Shape, size: tuple[int, int], grid: tuple[int, int], tiles: int, steps: int) -> int:
    """Return the bytes at the peak of encoding a picture.

    Args:
        shape: of the model.
        size: (height, width) of the picture in pixels.
        grid: (columns, rows) of its tiles.
        tiles: number of tiles, with the thumbnail.
        steps: of every tile.
    """
    chunk = min(tiles, TILES_PER_CHUNK)
    done = max(tiles // TILES_PER_CHUNK - 1, 0) * TILES_PER_CHUNK  # tiles encoded before the last full chunk
    pixels = tiles * shape.pixels if shape.on_host else 0
    tower = _copied(shape, chunk) + _tower(shape, chunk, chunk * steps, steps) + shape.token_bytes(done * steps)
    ordering = 2 * shape.token_bytes(tiles * steps)
    return max(_prepare_picture(shape, size, grid, tiles), pixels + max(tower, ordering))


def _prepare_frames(shape: Shape, frames: int, resized: bool) -> int:
    """The processor holds three float32 copies of the frames that it normalises; resized ones come on top."""
    if not shape.on_host:
        return 0
    resizing = (_PILLOW_RGB + _ARRAY_RGB) * shape.side**2 if resized else 0
    return frames * (3 * shape.pixels + resizing)


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
    return int(max(layers, compressor))


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


def _compressor(shape: Shape, rows: int, steps: int) -> float:
    """Hidden states, the shuffled tokens and three more of them in their norm, or the middle of two linear layers."""
    shuffled = shape.tokens * shape.shuffled * shape.itemsize
    language = shape.tokens * shape.language * shape.itemsize
    modulation = shape.shuffled * (3 * steps * _FLOAT32 + rows * shape.itemsize)  # per distinct timestep and per row
    return rows * (shape.unit + max(4 * shuffled, 2 * shuffled + 2 * language)) + modulation


__all__ = ["Shape", "picture_bytes", "video_bytes"]
