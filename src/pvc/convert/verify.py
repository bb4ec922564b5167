"""Comparison of a converted checkpoint's files with its source: tensors, tower, visual tokens and logits.

Both are computed layer by layer in float32 (`offload.py`); the source by independent code (`reference.py`). Called by
`pvc convert --check`.

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
from pvc.convert.from_internvl import (
    EMBEDDING,
    OUTPUT,
    convert_tensors,
    get_expected_shapes,
    is_zero_at_start,
    map_tensors,
)
from pvc.convert.offload import capture_outputs, offload
from pvc.convert.reference import Reference
from pvc.convert.source import Source
from pvc.convert.transforms import narrowed
from pvc.errors import CheckpointError
from pvc.model.compressor import PVCMultiModalProjector
from pvc.model.config import PVCConfig
from pvc.model.modeling import PVCForConditionalGeneration
from pvc.model.order import block_positions, order_image_tokens

TOLERANCE = 1e-5
# Rows of the output layer per comparison, which bounds the memory.
_ROWS = 8192
_PROJECTOR = "model.multi_modal_projector"


@dataclass(frozen=True)
class Difference:
    """Difference of two results.

    Attributes:
        what: name of the results.
        largest: largest absolute difference.
        relative: `largest` divided by the reference's largest absolute value.
        bound: largest value of `relative` that is accepted; None: no bound.
    """

    what: str
    largest: float
    relative: float
    bound: float | None

    @property
    def within(self) -> bool:
        """Whether the difference is accepted."""
        return self.bound is None or self.relative <= self.bound


@torch.inference_mode()
def compare(source: Source, target: Path, seed: int = 0) -> list[Difference]:
    """Compare a converted checkpoint with its source, in float32 on random images.

    The tower's difference is the largest after any of its layers. A compressor in closed form runs with as many steps
    as blocks: tokens of each step are compared with the source's for that block, and the prompt in the source's order.
    Otherwise "same ratio" is the written compressor, reduced to the source's ratio, with one step. At a smaller ratio
    the compressor is also compared with the mean of the source's linear layer. The distance of its tokens from the
    mean of the tokens they replace is reported without a bound.

    Args:
        source: checkpoint that was converted.
        target: directory of the converted checkpoint.
        seed: of the images.

    Returns:
        One entry per comparison. An entry about tensors exists only if stored tensors differ from the expected ones.

    Raises:
        CheckpointError: the target cannot be loaded.
    """
    converted = ConvertedCheckpoint(target)
    config, model = converted.config, converted.model
    reference = Reference(source)
    differences = _compare_tensors(source, converted)
    pixels = torch.randn(2, 3, *config.vision_config.image_size, generator=torch.manual_seed(seed))
    states = reference.run_tower(pixels)
    hidden = states[-1]
    pairs = PairedTensors("vision tower", TOLERANCE)
    groups = config.compressor_norm_groups
    with capture_outputs(model.model.vision_tower.encoder.layer, lambda state: pairs.add(state, states.pop(0))):
        tower = model.model.vision_tower(pixels, steps=[groups] * len(pixels))
    pairs.add(tower.last_hidden_state, hidden)
    differences.append(pairs.get_worst())

    expected = reference.compute_tokens(hidden)
    if groups > 1:
        clips = tower.layout.split(model.model.multi_modal_projector(tower.last_hidden_state, tower.conditioning))
        differences.append(_compare_blocks(clips, expected, groups))
        tokens = torch.stack(order_image_tokens(clips, [1] * len(clips), config))
        differences.append(_compute_difference("visual tokens, in the source's order", tokens, expected, TOLERANCE))
        return differences + _compare_language_model(converted, reference, tokens, expected)
    times = round(source.ratio / config.downsample_ratio)
    projector = model.model.multi_modal_projector if times == 1 else converted.reduce_projector(source.ratio, times)
    tokens = projector(tower.last_hidden_state, tower.conditioning)
    differences.append(_compute_difference("visual tokens, same ratio", tokens, expected, TOLERANCE))
    if times != 1:
        ours = model.model.multi_modal_projector(tower.last_hidden_state, tower.conditioning)
        layer_mean = reference.compute_mean_tokens(hidden, times)
        name = "visual tokens, as the mean of the source's layer"
        differences.append(_compute_difference(name, ours, layer_mean, TOLERANCE))
        side = round(expected.shape[1] ** 0.5) // times
        mean = expected.unflatten(1, (side, times, side, times)).mean((2, 4)).flatten(1, 2)
        differences.append(_compute_difference("visual tokens, against the mean of those replaced", ours, mean, None))
    return differences + _compare_language_model(converted, reference, tokens, expected)


def _compare_blocks(clips: Sequence[torch.Tensor], expected: torch.Tensor, groups: int) -> Difference:
    """Compare `(groups, K, L)` tokens of every frame, step by step, with the source's `(F, K groups, L)`."""
    side = round(groups**0.5)
    blocks = round((expected.shape[1] // groups) ** 0.5)
    grid = expected.unflatten(1, (blocks, side, blocks, side))
    pairs = PairedTensors("visual tokens, block by block", TOLERANCE)
    for step, (row, column) in enumerate(block_positions(groups)):
        ours = torch.stack([clip[step] for clip in clips])
        pairs.add(ours, grid[:, :, row, :, column].flatten(1, 2))
    return pairs.get_worst()


class ConvertedCheckpoint:
    """A complete converted checkpoint whose weights stay in its files.

    Args:
        directory: of the checkpoint.

    Raises:
        CheckpointError: tensors are missing, unknown, or of another shape than config.json requires.
    """

    def __init__(self, directory: Path) -> None:
        files = CheckpointFiles(directory)
        self.directory = directory
        self.stored = stored_tensors(files)
        self.config: PVCConfig = load_config(files)
        processor = load_processor(files)
        check_fit(self.config, processor)
        check_template(processor)
        self.expected_shapes = get_expected_shapes(self.config)
        mismatches = {
            "missing": self.expected_shapes.keys() - self.stored.keys(),
            "unknown": self.stored.keys() - self.expected_shapes.keys(),
            "misshapen": {
                name for name, shape in self.expected_shapes.items() if self._get_shape(name) != tuple(shape)
            },
        }
        for kind, names in mismatches.items():
            if names:
                listed = ", ".join(sorted(names)[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)
                raise CheckpointError(f"{directory}: {kind} tensors: {listed}")
        self.model = offload(lambda: PVCForConditionalGeneration(self.config), self.stored.__getitem__)

    def _get_shape(self, name: str) -> tuple[int, ...] | None:
        return self.stored[name].shape if name in self.stored else None

    def get_output_weight(self) -> StoredTensor:
        """Return the stored weight of the output layer, which may be the input embedding."""
        return self.stored[OUTPUT if OUTPUT in self.stored else EMBEDDING]

    def reduce_projector(self, ratio: float, times: int) -> PVCMultiModalProjector:
        """Build the compressor at a larger ratio, from the channels of the first of the replaced tokens.

        Args:
            ratio: downsample ratio of the result.
            times: tokens of the result along a side of one token of this checkpoint.
        """
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
    """Pairs of tensors of which the worst difference counts, each relative to its reference's largest value.

    Args:
        what: name of the difference.
        bound: largest relative difference that is accepted.
    """

    def __init__(self, what: str, bound: float) -> None:
        self.what, self.bound = what, bound
        self.differences: list[Difference] = []

    def add(self, ours: torch.Tensor, theirs: torch.Tensor) -> None:
        """Compare two tensors.

        Args:
            ours: `(R, ...)`, rows of the converted model.
            theirs: `(r, ...)` of the source; repeated along the first dimension if `R` is a multiple of `r`.
        """
        # Steps of a static frame are consecutive rows, time first.
        theirs = theirs.repeat(max(1, len(ours) // len(theirs)), *[1] * (theirs.dim() - 1))
        self.differences.append(_compute_difference(self.what, ours, theirs, self.bound))

    def get_worst(self) -> Difference:
        """Return the largest relative difference, or one that is NaN."""
        # argmax returns the index of a NaN if there is one.
        return self.differences[int(torch.tensor([each.relative for each in self.differences]).argmax())]


def _compute_difference(what: str, ours: torch.Tensor, theirs: torch.Tensor, bound: float | None) -> Difference:
    if ours.shape != theirs.shape:
        raise CheckpointError(f"{what}: {list(ours.shape)} and {list(theirs.shape)} cannot be compared")
    largest = float((ours - theirs).abs().max())
    return Difference(what, largest, largest / max(float(theirs.abs().max()), 1e-12), bound)


def _compare_tensors(source: Source, converted: ConvertedCheckpoint) -> list[Difference]:
    """Compare every stored tensor with its converted source, and new tensors that start at zero with zero."""
    config, remaining = converted.config, set(converted.expected_shapes)
    different: dict[str, Difference] = {}

    def add(name: str, expected: torch.Tensor) -> None:
        written = converted.stored[name].read()
        if written.dtype == expected.dtype and torch.equal(written, expected):
            return
        written, expected = written.float(), expected.float()
        if not torch.allclose(written, expected, rtol=0, atol=0, equal_nan=True):
            different[name] = _compute_difference(name, written, expected, 0.0)

    embedder = {name: entry.read() for name, entry in converted.stored.items() if name.startswith(EMBEDDER)}
    for name, expected in convert_tensors(source, map_tensors(source), config, embedder):
        add(name, expected)
        remaining.discard(name)
    for name in filter(is_zero_at_start, remaining):
        add(name, torch.zeros(converted.expected_shapes[name]))
    if not different:
        return []
    names = sorted(different)
    listed = ", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)
    largest = max(each.largest for each in different.values())
    return [Difference(f"tensors ({listed})", largest, max(each.relative for each in different.values()), 0.0)]


def _compare_language_model(
    converted: ConvertedCheckpoint, reference: Reference, tokens: torch.Tensor, expected: torch.Tensor
) -> list[Difference]:
    """Compare the language model's layers and its logits; empty if there is no reference for its architecture.

    The converted model reads `(F, K, L)` visual tokens `tokens`, the reference reads `expected`.
    """
    if reference.language is None:
        return []
    config, model = converted.config, converted.model.model
    count = tokens.shape[0] * tokens.shape[1]
    ids = torch.tensor([[0, 1, *[config.image_token_id] * count, 2, 3, 1]])
    states = reference.compute_hidden_states(reference.embed(ids, expected, config.image_token_id))
    last = states[-1]
    pairs = PairedTensors("language model's layers", TOLERANCE)
    layers: Sequence[nn.Module] = model.language_model.layers
    with capture_outputs(layers, lambda state: pairs.add(state, states.pop(0))):
        features = BaseModelOutputWithPooling(pooler_output=list(tokens))
        hidden = model(input_ids=ids, mm_encoder_outputs={"image": features}, use_cache=False).last_hidden_state
    weights = converted.get_output_weight(), reference.get_output_weight()
    largest, scale = [], []
    # Rows that conversion added have no counterpart.
    for start in range(0, weights[1].shape[0], _ROWS):
        rows = slice(start, min(start + _ROWS, weights[1].shape[0]))
        ours = hidden @ weights[0].read(rows).float().T
        logits = last @ weights[1].read(rows).float().T
        largest.append((ours - logits).abs().max())
        scale.append(logits.abs().max())
    difference = float(torch.stack(largest).max())
    relative = difference / max(float(torch.stack(scale).max()), 1e-12)
    return [pairs.get_worst(), Difference("logits", difference, relative, TOLERANCE)]


__all__ = ["TOLERANCE", "Difference", "compare"]
