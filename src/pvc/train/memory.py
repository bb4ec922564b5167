"""Estimate the memory of a stage before a GPU is rented: weights, gradients, optimizer and stored activations.

Nothing is allocated. The model runs forward on tensors with shapes and without data (torch's FakeTensorMode), and the
tensors that autograd would store are added up. The batches are the first of the stage. Called by
`pvc train --dry-run`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from pvc.processing.processor import PVCProcessor
from pvc.train.data.collate import ChatCollator, count_tokens
from pvc.train.data.mixture import StageDataset
from pvc.train.lora import Adapters
from pvc.train.model_init import build_model
from pvc.train.optimizer import get_muon_names
from pvc.train.recipe import Recipe, Stage
from pvc.train.run_stage import set_trainable
from pvc.train.trainer import answer_positions

WEIGHT_BYTES = 4  # float32, whatever the precision of the products
GRADIENT_BYTES = 4
MOMENT_BYTES = 8  # two float32 moments of AdamW


@dataclass(frozen=True)
class Memory:
    """Memory of one process whose weights are not sharded.

    Attributes:
        weights: bytes of all parameters.
        gradients: bytes, of the trained parameters.
        optimizer: bytes, of the trained parameters.
        activations: bytes that are stored between forward and backward pass for the largest of the sampled batches,
            including its logits.
        tokens: number of tokens of that batch, with padding.
        visual: number of its visual tokens.
        trained: number of trained parameters.
        parameters: number of all parameters.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    tokens: int
    visual: int
    trained: int
    parameters: int

    @property
    def total(self) -> int:
        """Bytes of weights, gradients, optimizer and activations."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def describe(self, processes: int = 1) -> str:
        """Return one line of text.

        Args:
            processes: if above 1, the line also has the memory per process if weights, gradients and moments are
                sharded.
        """
        state = self.weights + self.gradients + self.optimizer
        weights, gradients, optimizer = (
            _format_bytes(count) for count in (self.weights, self.gradients, self.optimizer)
        )
        line = (
            f"{_format_bytes(self.total)}: weights {weights} ({self.parameters:,}), gradients {gradients} and "
            f"optimizer {optimizer} ({self.trained:,} trained), activations {_format_bytes(self.activations)} "
            f"({self.tokens:,} tokens, {self.visual:,} visual)"
        )
        if processes > 1:
            line += f"; spread over {processes}: {_format_bytes(state // processes + self.activations)} each"
        return line


def _format_bytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**28 else f"{count / 2**20:.1f} MiB"


def stage_memory(
    recipe: Recipe,
    stage: Stage,
    processor: PVCProcessor,
    *,
    processes: int = 1,
    look: int = 4,
    bf16: bool | None = None,
) -> Memory:
    """Estimate the memory of a stage of kind chat.

    Args:
        recipe: with the model's shape.
        stage: of the recipe.
        processor: of the model.
        processes: number of processes that a batch is divided among.
        look: number of batches among which the largest is searched.
        bf16: whether matrix products are in bf16; by default unless the stage sets float32, as on a GPU.
    """
    with torch.device("meta"):
        model = build_model(recipe, stage, processor)
        Adapters(stage, model, 0)
    set_trainable(stage, model)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    move_to_fake(model, mode)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    trained_names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    muon = get_muon_names(model) & trained_names if stage.optimizer == "muon" else set()
    parameters = sum(sizes.values())
    trained = sum(sizes[name] for name in trained_names)
    moments = 2 * trained - sum(sizes[name] for name in muon)  # Muon stores one, AdamW two
    batch_size = max(1, stage.batch_size // processes // stage.accumulation)
    dataset = StageDataset(stage, 0, int(recipe.shape.vision["image_size"]), processor.video_processor.num_frames)
    collate = ChatCollator(processor, stage.pack)
    batches = [
        collate([dataset[number * stage.batch_size + place] for place in range(batch_size)])
        for number in range(min(look, stage.steps))
    ]
    if bf16 is None:
        bf16 = stage.precision != "float32"
    activations = [_measure_activations(model, batch, mode, bf16, stage.checkpointing) for batch in batches]
    largest = max(range(len(batches)), key=activations.__getitem__)
    _, visual, tokens = count_tokens(batches[largest], (processor.image_token_id, processor.video_token_id))
    return Memory(
        weights=parameters * WEIGHT_BYTES,
        gradients=trained * GRADIENT_BYTES,
        optimizer=moments * MOMENT_BYTES // 2,
        activations=activations[largest],
        tokens=tokens,
        visual=visual,
        trained=trained,
        parameters=parameters,
    )


def move_to_fake(model: torch.nn.Module, mode: FakeTensorMode) -> None:
    """Replace weights on the meta device by CPU weights without data.

    Kernels depend on the device, and so do the tensors that autograd stores.

    Args:
        model: on the meta device; changed in place.
        mode: of the new tensors.
    """
    replacements: dict[int, Any] = {}  # by id, so that tied weights stay tied
    with mode:
        for module in model.modules():
            for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
                if tensor is None:
                    continue
                if id(tensor) not in replacements:
                    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
                    is_parameter = isinstance(tensor, torch.nn.Parameter)
                    replacement = torch.nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
                    replacements[id(tensor)] = replacement
                (module._parameters if name in module._parameters else module._buffers)[name] = replacements[id(tensor)]


class ActivationCounter:
    """Counter of the bytes that autograd stores between a forward and a backward pass, without parameters.

    Args:
        model: whose parameters are not counted.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._known = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        # Storages are retained, because the address of a freed storage could be reused.
        self._storages: dict[int, torch.UntypedStorage] = {}

    def hooks(self) -> torch.autograd.graph.saved_tensors_hooks:
        """Return a context that counts what autograd stores, every storage once."""
        return torch.autograd.graph.saved_tensors_hooks(self._add, lambda tensor: tensor)

    def _add(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._storages[storage._cdata] = storage
        return tensor

    @property
    def nbytes(self) -> int:
        """Bytes of all storages."""
        return sum(storage.nbytes() for storage in self._storages.values())


def _measure_activations(
    model: Any, batch: Mapping[str, torch.Tensor], mode: FakeTensorMode, bf16: bool, checkpointing: bool
) -> int:
    """Return the bytes that autograd stores for one batch, without parameters."""
    if checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    model.train()
    num_positions = len(answer_positions(batch["labels"])[0])
    counter = ActivationCounter(model)
    with ExitStack() as stack:
        stack.enter_context(mode)
        stack.enter_context(counter.hooks())
        if bf16:
            stack.enter_context(torch.autocast("cpu", torch.bfloat16))
        features = []
        inner = model.model
        if "pixel_values" in batch:
            pixels = torch.empty(batch["pixel_values"].shape)
            features.append(inner.get_image_features(pixels, batch["image_grid_thw"], batch["image_steps"]))
        if "pixel_values_videos" in batch:
            pixels = torch.empty(batch["pixel_values_videos"].shape)
            features.append(inner.get_video_features(pixels, batch["video_grid_thw"]))
        rows, length = batch["input_ids"].shape
        embedded = torch.empty(rows, length, model.config.text_config.hidden_size, requires_grad=True) * 1.0
        hidden = inner.language_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[:, :num_positions]).float()
        loss = functional.cross_entropy(logits.flatten(0, 1), torch.zeros(rows * num_positions, dtype=torch.long))
        for output in features:
            loss = loss + sum(tensor.sum() for tensor in _as_list(output.pooler_output))
    # The gradient of the loss is as large as the logits, which are still allocated when it is computed.
    return counter.nbytes + logits.numel() * 4


def _as_list(value: Any) -> list[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else list(value)


__all__ = ["ActivationCounter", "Memory", "move_to_fake", "stage_memory"]
