"""Plan: what to take of media so that they fit a budget of visual tokens and of memory, decided before any is decoded.

Every medium has rungs, from its least (one frame; one tile and one step) to what was asked for. All start at the least,
and whichever has the smallest share of what was asked for climbs next, for as long as everything still fits.
Leaves out what choices cost (`memory_model.py`). Called by `Engine.plan`, by conversations and by the command line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from pvc.checkpoint.state_file import StateFile, is_state_path, open_state
from pvc.engine import memory_model
from pvc.engine.encoder import Encoder
from pvc.engine.options import MediaOptions
from pvc.engine.visual_state import VisualState
from pvc.errors import UsageError
from pvc.media import DEFAULT_LIMITS, Sampling
from pvc.media.outline import MediaOutline, outline
from pvc.model.inputs import steps_per_tile


@dataclass(frozen=True)
class Amount:
    """What is taken of a medium: `frames` of a video; `tiles` (the thumbnail is one) and `steps` of a picture."""

    frames: int = 1
    tiles: int = 1
    steps: int = 1

    @property
    def size(self) -> int:
        """Frames and steps together, each of which is `tokens_per_frame` visual tokens."""
        return self.frames * self.tiles * self.steps


@dataclass(frozen=True)
class Choice:
    """What was chosen for one medium.

    Attributes:
        name, kind: of the medium; kind is "image" or "video".
        options: what to open and encode it with, for exactly what was chosen.
        taken, asked: what is taken, and what would have been without a budget.
        tokens: visual tokens of what is taken: those that encoding gives, and never fewer than it gives.
    """

    name: str
    kind: str
    options: MediaOptions
    taken: Amount
    asked: Amount
    tokens: int

    @property
    def reduced(self) -> bool:
        return self.taken != self.asked

    def __str__(self) -> str:
        if self.kind == "video":
            return f"{self.name}: {_of(self.taken.frames, self.asked.frames, 'frame')}"
        tiles, steps = ((getattr(self.taken, what), getattr(self.asked, what)) for what in ("tiles", "steps"))
        return f"{self.name}: {_of(*tiles, 'tile')}, {_of(*steps, 'step')}"

    def describe(self) -> dict[str, Any]:
        """The choice as JSON."""
        counts = ("frames",) if self.kind == "video" else ("tiles", "steps")
        return {
            "path": self.name,
            "kind": self.kind,
            **{name: getattr(self.taken, name) for name in counts},
            "asked": {name: getattr(self.asked, name) for name in counts},
            "tokens": self.tokens,
        }


@dataclass(frozen=True)
class Plan:
    """What is taken of every medium, and what that will cost.

    Attributes:
        choices: one per medium, in order.
        budget, memory: what had to be kept to, in visual tokens and in bytes; None where nothing had.
        tokens: visual tokens of all media, exactly (fewer where frames turn out to be damaged).
        memory_bytes: at the peak of `Engine.encode`, in the memory of the model's device, beyond the weights and the
            opened media; what decoding needs before and the language model after is not counted. A prediction: see
            docs/budget.md for how good.
    """

    choices: tuple[Choice, ...]
    budget: int | None
    memory: int | None
    tokens: int
    memory_bytes: int

    @property
    def options(self) -> tuple[MediaOptions, ...]:
        """What to open and encode each medium with: `media_options` of a conversation."""
        return tuple(choice.options for choice in self.choices)

    @property
    def reduced(self) -> bool:
        """Whether anything gets less than was asked for."""
        return any(choice.reduced for choice in self.choices)

    @property
    def line(self) -> str:
        """All of it on one line, for a terminal."""
        return f"{'; '.join(str(choice) for choice in self.choices)}; {self._costs()}"

    def __str__(self) -> str:
        """One line per medium, and one for all of them."""
        return "\n".join([*(f"{choice}, {choice.tokens:,} tokens" for choice in self.choices), self._costs()])

    def _costs(self) -> str:
        limit = "" if self.budget is None else f" (budget {self.budget:,})"
        room = "" if self.memory is None else f" (budget {readable_bytes(self.memory)})"
        peak = readable_bytes(self.memory_bytes)
        return f"{self.tokens:,} visual tokens{limit}, {peak} at the peak{room}"

    def describe(self) -> dict[str, Any]:
        """The plan as JSON: what `pvc ask --budget --json` shows."""
        return {
            "budget": self.budget,
            "memory": self.memory,
            "tokens": self.tokens,
            "memory_bytes": self.memory_bytes,
            "reduced": self.reduced,
            "media": [choice.describe() for choice in self.choices],
        }


def plan_budget(
    encoder: Encoder, media: Sequence[Any], options: MediaOptions, budget: int | None, memory: int | None
) -> Plan:
    """See `Engine.plan`."""
    for name, value in (("budget", budget), ("memory", memory)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise UsageError(f"{name} must be a whole number of at least 1, not {value!r}")
    shape = memory_model.Shape.from_model(encoder.model)
    planned = [_medium(encoder, shape, source, options) for source in media]
    levels = _allocate(shape, planned, budget, memory)
    settled = [medium.settle(level) for medium, level in zip(planned, levels, strict=True)]
    taken = [medium.levels_of_size[level].amount for medium, (level, _) in zip(planned, settled, strict=True)]
    choices = tuple(
        Choice(medium.name, medium.kind, chosen, amount, medium.levels_of_size[-1].amount, amount.size * shape.tokens)
        for medium, amount, (_, chosen) in zip(planned, taken, settled, strict=True)
    )
    return Plan(
        choices,
        budget,
        memory,
        tokens=sum(choice.tokens for choice in choices),
        memory_bytes=_peak(shape, planned, [level for level, _ in settled]),
    )


@dataclass(frozen=True)
class _Level:
    """One choice for a medium and the bytes at the peak of encoding it. `grid`: tiles without the thumbnail."""

    amount: Amount
    peak: int
    grid: int = 1


@dataclass(frozen=True)
class _Medium:
    """A medium, and its rungs from the least to what was asked for.

    `outline` is None for a visual state, which was encoded before and has one rung.
    `asked`: how a video is sampled, None where it is taken as it is. `times`: of the frames that this picks.
    """

    name: str
    kind: str
    options: MediaOptions
    levels_of_size: tuple[_Level, ...] = field(repr=False)
    outline: MediaOutline | None = None
    asked: Sampling | None = None
    times: tuple[float, ...] = field(default=(), repr=False)

    def settle(self, level: int) -> tuple[int, MediaOptions]:
        """The level that is really reached, and what to open and encode with."""
        if self.outline is None:
            return level, self.options
        amount = self.levels_of_size[level].amount
        if self.kind == "image":
            # A thumbnail comes by itself. Both numbers are bounds, whatever the picture turns out to be.
            grid = self.levels_of_size[level].grid
            return level, replace(self.options, max_tiles=grid, image_steps=amount.steps)
        frames, chosen = _thinned(self.outline, self.options, self.asked, self.times, amount.frames)
        return frames - 1, chosen  # rung n - 1 has n frames


def _medium(encoder: Encoder, shape: memory_model.Shape, source: Any, options: MediaOptions) -> _Medium:
    """What can be known of `source` before it is decoded."""
    if isinstance(source, (StateFile, VisualState)) or is_state_path(source):
        return _state(source, options)
    seen = outline(source)
    if seen.kind == "image":
        return _Medium(seen.name, seen.kind, options, tuple(_picture_levels(encoder, shape, seen, options)), seen)
    asked = None if seen.loaded else options.sampling(encoder.processor.video_processor.num_frames)
    times = seen.times if asked is None else tuple(seen.picked(asked))
    resized = seen.loaded and (seen.height, seen.width) != (shape.side, shape.side)
    levels_of_size = (
        _Level(Amount(frames=count), memory_model.video_bytes(shape, count, resized))
        for count in range(1, len(times) + 1)
    )
    return _Medium(seen.name, seen.kind, options, tuple(levels_of_size), seen, asked, times)


def _state(source: Any, options: MediaOptions) -> _Medium:
    if isinstance(source, VisualState):
        name, kind, tiles, steps = source.name, source.media.kind, source.media.tiles, source.media.steps
    else:
        file = source if isinstance(source, StateFile) else open_state(source)
        name, kind, tiles, steps = file.name, file.kind, file.manifest["tiles"], file.manifest["steps"]
    amount = Amount(frames=steps) if kind == "video" else Amount(tiles=tiles, steps=steps)
    return _Medium(name, kind, options, (_Level(amount, 0),))


def _picture_levels(
    encoder: Encoder, shape: memory_model.Shape, seen: MediaOutline, options: MediaOptions
) -> Iterator[_Level]:
    """First tiles at one step, then steps: of what was asked for, steps go first.

    With steps numbered, one step of four is the very first quarter of the tokens: what is left out only adds to it.
    """
    processor = encoder.processor.image_processor
    default = processor.image_steps if options.image_steps is None else options.image_steps
    steps = default if isinstance(default, int) else int(default[0])
    steps_per_tile(steps, [1], encoder.model.config)  # refuses more than the temporal window holds
    size, square = (seen.height, seen.width), (shape.side, shape.side)
    most = processor.max_patches if options.max_tiles is None else options.max_tiles
    grids: dict[int, tuple[int, int]] = {}
    for limit in range(1, most + 1):
        tiles = processor.get_number_of_image_patches(*size, {"max_patches": limit})
        grid = get_optimal_tiled_canvas(size, square, processor.min_patches, limit) if tiles > 1 else (1, 1)
        grids.setdefault(tiles, grid)
    for tiles, grid in grids.items():
        yield _Level(Amount(tiles=tiles), memory_model.picture_bytes(shape, size, grid, tiles, 1), grid[0] * grid[1])
    for step in range(2, steps + 1):
        peak = memory_model.picture_bytes(shape, size, grid, tiles, step)
        yield _Level(Amount(tiles=tiles, steps=step), peak, grid[0] * grid[1])


def _thinned(
    seen: MediaOutline, options: MediaOptions, asked: Sampling | None, times: Sequence[float], most: int
) -> tuple[int, MediaOptions]:
    """At most `most` of the frames at `times`, which `asked` picks, evenly: how many, and what to open with."""
    if len(times) <= most:
        return len(times), replace(options, max_frames=most)
    if asked is None:  # `Engine.open` thins what has more than max_frames
        most = min(most, DEFAULT_LIMITS.max_frames)
        return len(seen.picked(Sampling(frames=most))), replace(options, max_frames=most)
    if asked.fps is not None or asked.times is not None:
        kept = tuple(times[(2 * index + 1) * len(times) // (2 * most)] for index in range(most))
        return most, replace(options, fps=None, times=kept, max_frames=most)
    # Where some frames stay long, several moments fall on one of them: then more moments may be asked for.
    assert asked.frames is not None
    enough, too_many = most, asked.frames
    while too_many - enough > 1:
        middle = (enough + too_many) // 2
        if len(seen.picked(Sampling(frames=middle))) <= most:
            enough = middle
        else:
            too_many = middle
    return len(seen.picked(Sampling(frames=enough))), replace(options, frames=enough, max_frames=most)


def _allocate(shape: memory_model.Shape, media: Sequence[_Medium], budget: int | None, memory: int | None) -> list[int]:
    """The level of every medium.

    Raises:
        UsageError: the least of all media does not fit; both numbers are named.
    """
    levels = [0] * len(media)
    least = "1 frame of a video, 1 tile and 1 step of a picture"
    tokens, peak = _tokens(shape, media, levels), _peak(shape, media, levels)
    if budget is not None and tokens > budget:
        raise UsageError(
            f"a budget of {budget:,} visual tokens is too small: the least that can be taken of {_media(media)} "
            f"({least}) is {tokens:,} visual tokens"
        )
    if memory is not None and peak > memory:
        raise UsageError(
            f"{memory:,} bytes of memory are too few: to encode the least that can be taken of {_media(media)} "
            f"({least}) takes {peak:,} bytes"
        )
    climbing = {index for index, medium in enumerate(media) if len(medium.levels_of_size) > 1}
    while climbing:
        # The first of those with the smallest share, so that the same media always get the same.
        index = min(climbing, key=lambda number: (_share(media[number], levels[number]), number))
        higher = _next_that_fits(shape, media, levels, index, budget, memory)
        if higher is None:
            climbing.discard(index)
        else:
            levels[index] = higher
    return levels


def _next_that_fits(
    shape: memory_model.Shape,
    media: Sequence[_Medium],
    levels: list[int],
    index: int,
    budget: int | None,
    memory: int | None,
) -> int | None:
    """The next level of one medium at which everything fits; None when there is none.

    Tokens and bytes rise with the level, bytes not by equal amounts.
    """
    for level in range(levels[index] + 1, len(media[index].levels_of_size)):
        tried = [*levels[:index], level, *levels[index + 1 :]]
        if budget is not None and _tokens(shape, media, tried) > budget:
            return None
        if memory is None or _peak(shape, media, tried) <= memory:
            return level
    return None


def _share(medium: _Medium, level: int) -> float:
    return medium.levels_of_size[level].amount.size / medium.levels_of_size[-1].amount.size


def _tokens(shape: memory_model.Shape, media: Sequence[_Medium], levels: Sequence[int]) -> int:
    return (
        sum(medium.levels_of_size[level].amount.size for medium, level in zip(media, levels, strict=True))
        * shape.tokens
    )


def _peak(shape: memory_model.Shape, media: Sequence[_Medium], levels: Sequence[int]) -> int:
    """Media are encoded one after the other, and the tokens of the earlier ones stay."""
    peak, kept = 0, 0
    for medium, level in zip(media, levels, strict=True):
        peak = max(peak, kept + medium.levels_of_size[level].peak)
        kept += shape.token_bytes(medium.levels_of_size[level].amount.size)
    return max(peak, kept)


def readable_bytes(count: int) -> str:
    """`count` bytes in a unit that suits them, e.g. "1.4 GiB"."""
    for power, unit in ((30, "GiB"), (20, "MiB")):
        if count >= 1 << power:
            return f"{count / (1 << power):.1f} {unit}"
    return f"{count / 1024:.0f} KiB"


def _of(taken: int, asked: int, what: str) -> str:
    if taken == asked:
        return f"{taken} {what}" if taken == 1 else f"{taken} {what}s"
    return f"{taken} of {asked} {what}s"


def _media(media: Sequence[_Medium]) -> str:
    return media[0].name if len(media) == 1 else f"these {len(media)} media"


__all__ = ["Amount", "Choice", "Plan", "plan_budget", "readable_bytes"]
