"""Compares a converted checkpoint, as its files are, with its source: tensors, tower, visual tokens and logits.

Both are computed layer by layer in float32 (`offload.py`); the source by other code than ours (`reference.py`). Called
by `pvc convert --check`.

F frames, S frame size, N positions, D width, K tokens of a frame, L width of the language model, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from pvc.checkpoint.files import CheckpointFiles
from pvc.checkpoint.loading import check_fit, check_template, load_config, load_processor
from pvc.checkpoint.stored import StoredTensor, stored_tensors
from pvc.convert.closed_form import EMBEDDER
from pvc.convert.from_internvl import EMBEDDING, OUTPUT, mapped_tensors, planned, shapes_wanted, starts_at_zero
from pvc.convert.offload import each_output, offloaded
from pvc.convert.reference import Reference
from pvc.convert.source import Source
from pvc.convert.transforms import narrowed
from pvc.errors import CheckpointError
from pvc.model.compressor import PVCMultiModalProjector
from pvc.model.config import PVCConfig
from pvc.model.modeling import PVCForConditionalGeneration
from pvc.model.order import block_positions, order_image_tokens

TOLERANCE = 1e-5
# Rows of the output layer that are compared at a time.
_ROWS = 8192
_PROJECTOR = "model.multi_modal_projector"


@dataclass(frozen=True)
class Difference:
    """`largest` absolute difference of two results, and `relative` to the largest value, to be within `bound`."""

    what: str
    largest: float
    relative: float
    bound: float | None

    @property
    def within(self) -> bool:
        return self.bound is None or self.relative <= self.bound


@torch.inference_mode()
def compare(source: Source, target: Path, seed: int = 0) -> list[Difference]:
    """Compare a converted checkpoint with its source, in float32 on random pictures.

    The tower's difference is the largest after any of its layers. A compressor in closed form is compared as it is:
    with as many steps as blocks, every step's tokens with the source's of its block, and the prompt in the source's
    order. Otherwise "same ratio" is the written compressor reduced to the source's ratio, with one step; at a smaller
    ratio the compressor itself is compared with the mean of the source's linear layer, and its tokens' distance from
    the mean of those they replace is reported without a bound.

    Args:
        source: what was converted.
        target: the converted checkpoint's directory.
        seed: of the pictures.

    Returns:
        One entry per comparison; one about tensors only if some differ from what their sources become.

    Raises:
        CheckpointError: the target cannot be loaded.
    """
    converted = Converted(target)
    config, model = converted.config, converted.model
    theirs = Reference(source)
    differences = _tensors(source, converted)
    pixels = torch.randn(2, 3, *config.vision_config.image_size, generator=torch.manual_seed(seed))
    states = theirs.tower(pixels)
    hidden = states[-1]
    pairs = PairedTensors("vision tower", TOLERANCE)
    groups = config.compressor_norm_groups
    with each_output(model.model.vision_tower.encoder.layer, lambda state: pairs.add(state, states.pop(0))):
        tower = model.model.vision_tower(pixels, steps=[groups] * len(pixels))
    pairs.add(tower.last_hidden_state, hidden)
    differences.append(pairs.difference())

    expected = theirs.tokens(hidden)
    if groups > 1:
        clips = tower.layout.split(model.model.multi_modal_projector(tower.last_hidden_state, tower.conditioning))
        differences.append(_blocks(clips, expected, groups))
        tokens = torch.stack(order_image_tokens(clips, [1] * len(clips), config))
        differences.append(_difference("visual tokens, in the source's order", tokens, expected, TOLERANCE))
        return differences + (_language(converted, theirs, tokens, expected) if theirs.language is not None else [])
    times = round(source.ratio / config.downsample_ratio)
    same = model.model.multi_modal_projector if times == 1 else converted.reduced_projector(source.ratio, times)
    tokens = same(tower.last_hidden_state, tower.conditioning)
    differences.append(_difference("visual tokens, same ratio", tokens, expected, TOLERANCE))
    if times != 1:
        ours = model.model.multi_modal_projector(tower.last_hidden_state, tower.conditioning)
        exact = theirs.mean_tokens(hidden, times)
        differences.append(_difference("visual tokens, as the mean of the source's layer", ours, exact, TOLERANCE))
        side = round(expected.shape[1] ** 0.5) // times
        mean = expected.unflatten(1, (side, times, side, times)).mean((2, 4)).flatten(1, 2)
        differences.append(_difference("visual tokens, against the mean of those replaced", ours, mean, None))
    if theirs.language is not None:
        differences += _language(converted, theirs, tokens, expected)
    return differences


def _blocks(clips: Sequence[torch.Tensor], expected: torch.Tensor, groups: int) -> Difference:
    """Compare `(groups, K, L)` tokens of every frame, step by step, with the source's `(F, K groups, L)`."""
    side = round(groups**0.5)
    out = round((expected.shape[1] // groups) ** 0.5)
    grid = expected.unflatten(1, (out, side, out, side))
    pairs = PairedTensors("visual tokens, block by block", TOLERANCE)
    for step, (row, column) in enumerate(block_positions(groups)):
        ours = torch.stack([clip[step] for clip in clips])
        pairs.add(ours, grid[:, :, row, :, column].flatten(1, 2))
    return pairs.difference()


class Converted:
    """A converted checkpoint whose weights stay in its files; complete, or CheckpointError is raised."""

    def __init__(self, directory: Path) -> None:
        files = CheckpointFiles(directory)
        self.directory = directory
        self.stored = stored_tensors(files)
        self.config: PVCConfig = load_config(files)
        processor = load_processor(files)
        check_fit(self.config, processor)
        check_template(processor)
        self.wanted = shapes_wanted(self.config)
        wrong = {
            "missing": self.wanted.keys() - self.stored.keys(),
            "unknown": self.stored.keys() - self.wanted.keys(),
            "misshapen": {name for name, shape in self.wanted.items() if self._shape(name) != tuple(shape)},
        }
        for what, names in wrong.items():
            if names:
                listed = ", ".join(sorted(names)[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)
                raise CheckpointError(f"{directory}: {what} tensors: {listed}")
        self.model = offloaded(lambda: PVCForConditionalGeneration(self.config), self.stored.__getitem__)

    def _shape(self, name: str) -> tuple[int, ...] | None:
        return self.stored[name].shape if name in self.stored else None

    def output(self) -> StoredTensor:
        """The stored weight of the output layer, which may be the input embedding."""
        return self.stored[OUTPUT if OUTPUT in self.stored else EMBEDDING]

    def reduced_projector(self, ratio: float, times: int) -> PVCMultiModalProjector:
        """The compressor at a larger ratio, from the channels of the first of the `times * times` tokens replaced."""
        config = copy.deepcopy(self.config)
        config.downsample_ratio = ratio
        projector = PVCMultiModalProjector(config)
        side = projector.factor
        state = {name: self.stored[f"{_PROJECTOR}.{name}"].read().float() for name in projector.state_dict()}
        state["linear_1.weight"] = narrowed(state["linear_1.weight"], side, times) * times**2
        for name in ("weight", "bias"):  # scale, then shift, along the first dimension
            parts = state[f"norm.modulation.{name}"].chunk(2)
            state[f"norm.modulation.{name}"] = torch.cat(
                [narrowed(part.movedim(0, -1), side, times).movedim(-1, 0) for part in parts]
            )
        projector.load_state_dict(state)
        return projector.eval()


class PairedTensors:
    """The worst of several differences, each relative to the largest value of its own reference."""

    def __init__(self, what: str, bound: float) -> None:
        self.what, self.bound = what, bound
        self.found: list[Difference] = []

    def add(self, ours: torch.Tensor, theirs: torch.Tensor) -> None:
        # Steps of a static frame are rows one after another, time first.
        theirs = theirs.repeat(max(1, len(ours) // len(theirs)), *[1] * (theirs.dim() - 1))
        self.found.append(_difference(self.what, ours, theirs, self.bound))

    def difference(self) -> Difference:
        # argmax takes a value that is not a number for the largest.
        return self.found[int(torch.tensor([each.relative for each in self.found]).argmax())]


def _difference(what: str, ours: torch.Tensor, theirs: torch.Tensor, bound: float | None) -> Difference:
    if ours.shape != theirs.shape:
        raise CheckpointError(f"{what}: {list(ours.shape)} and {list(theirs.shape)} cannot be compared")
    largest = float((ours - theirs).abs().max())
    return Difference(what, largest, largest / max(float(theirs.abs().max()), 1e-12), bound)


def _tensors(source: Source, converted: Converted) -> list[Difference]:
    """Compare every tensor in the files with what its sources become; new ones that start at zero with zero."""
    config, left = converted.config, set(converted.wanted)
    different: dict[str, Difference] = {}

    def add(name: str, expected: torch.Tensor) -> None:
        written = converted.stored[name].read()
        if written.dtype == expected.dtype and torch.equal(written, expected):
            return
        written, expected = written.float(), expected.float()
        if not torch.allclose(written, expected, rtol=0, atol=0, equal_nan=True):
            different[name] = _difference(name, written, expected, 0.0)

    embedder = {name: entry.read() for name, entry in converted.stored.items() if name.startswith(EMBEDDER)}
    for name, expected in mapped_tensors(source, planned(source), config, embedder):
        add(name, expected)
        left.discard(name)
    for name in filter(starts_at_zero, left):
        add(name, torch.zeros(converted.wanted[name]))
    if not different:
        return []
    names = sorted(different)
    listed = ", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)
    largest = max(each.largest for each in different.values())
    return [Difference(f"tensors ({listed})", largest, max(each.relative for each in different.values()), 0.0)]


def _language(
    converted: Converted, theirs: Reference, tokens: torch.Tensor, expected: torch.Tensor
) -> list[Difference]:
    """Compare the language model's layers and its logits; both get their own side's `(F, K, L)` visual tokens."""
    config, model = converted.config, converted.model.model
    count = tokens.shape[0] * tokens.shape[1]
    ids = torch.tensor([[0, 1, *[config.image_token_id] * count, 2, 3, 1]])
    states = theirs.hidden_states(theirs.embed(ids, expected, config.image_token_id))
    last = states[-1]
    pairs = PairedTensors("language model's layers", TOLERANCE)
    layers: Sequence[nn.Module] = model.language_model.layers
    with each_output(layers, lambda state: pairs.add(state, states.pop(0))):
        features = BaseModelOutputWithPooling(pooler_output=list(tokens))
        hidden = model(input_ids=ids, mm_encoder_outputs={"image": features}, use_cache=False).last_hidden_state
    weights = converted.output(), theirs.output()
    largest, scale = [], []
    # Rows that conversion has added have no counterpart.
    for start in range(0, weights[1].shape[0], _ROWS):
        rows = slice(start, min(start + _ROWS, weights[1].shape[0]))
        ours = hidden @ weights[0].read(rows).float().T
        logits = last @ weights[1].read(rows).float().T
        largest.append((ours - logits).abs().max())
        scale.append(logits.abs().max())
    difference = float(torch.stack(largest).max())
    relative = difference / max(float(torch.stack(scale).max()), 1e-12)
    return [pairs.difference(), Difference("logits", difference, relative, TOLERANCE)]


__all__ = ["TOLERANCE", "Difference", "compare"]
