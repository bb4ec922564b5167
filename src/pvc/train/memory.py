"""What a stage will take of memory, before a GPU is paid for: weights, gradients, optimizer and kept activations.

Nothing is allocated: the model runs forward on tensors that have shapes and no data (torch's FakeTensorMode), and what
autograd would keep is added up. Batches are the stage's own first ones. Used by `pvc train --dry-run`.
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
from pvc.train.optimizer import muon_names
from pvc.train.recipe import Recipe, Stage
from pvc.train.run_stage import trainable
from pvc.train.trainer import answer_positions

MASTER = 4  # bytes of a weight: float32, whatever the products are in
GRADIENT = 4
MOMENTS = 8  # AdamW's two


@dataclass(frozen=True)
class Memory:
    """Bytes of one process, its weights not spread.

    Attributes:
        weights, gradients, optimizer: of all, and of the trained parameters.
        activations: what is kept between forward and backward for the largest of the batches that were looked at,
            its logits included.
        tokens, visual: of that batch, with padding.
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
        """All of them."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def describe(self, processes: int = 1) -> str:
        """One line, with what each of `processes` holds where weights, gradients and moments are spread over them."""
        state = self.weights + self.gradients + self.optimizer
        line = (
            f"{_gib(self.total)}: weights {_gib(self.weights)} ({self.parameters:,}), gradients {_gib(self.gradients)} "
            f"and optimizer {_gib(self.optimizer)} ({self.trained:,} trained), activations {_gib(self.activations)} "
            f"({self.tokens:,} tokens, {self.visual:,} visual)"
        )
        if processes > 1:
            line += f"; spread over {processes}: {_gib(state // processes + self.activations)} each"
        return line


def _gib(count: int) -> str:
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
    """Memory of a stage of kind chat.

    Args:
        processes: what a batch is divided among. look: batches that are drawn to find the largest.
        bf16: of the matrix products; by default what the stage says, and bf16 where it says nothing, as on a GPU.
    """
    with torch.device("meta"):
        model = build_model(recipe, stage, processor)
        Adapters(stage, model, 0)
    trainable(stage, model)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    move_to_fake(model, mode)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    by_muon = muon_names(model) & learned if stage.optimizer == "muon" else set()
    parameters = sum(sizes.values())
    trained = sum(sizes[name] for name in learned)
    moments = 2 * trained - sum(sizes[name] for name in by_muon)  # Muon keeps one, AdamW two
    share = max(1, stage.batch_size // processes // stage.accumulation)
    samples = StageDataset(stage, 0, int(recipe.shape.vision["image_size"]), processor.video_processor.num_frames)
    collate = ChatCollator(processor, stage.pack)
    batches = [
        collate([samples[number * stage.batch_size + place] for place in range(share)])
        for number in range(min(look, stage.steps))
    ]
    if bf16 is None:
        bf16 = stage.precision != "float32"
    kept = [_kept(model, batch, mode, bf16, stage.checkpointing) for batch in batches]
    largest = max(range(len(kept)), key=kept.__getitem__)
    _, visual, tokens = count_tokens(batches[largest], (processor.image_token_id, processor.video_token_id))
    return Memory(
        weights=parameters * MASTER,
        gradients=trained * GRADIENT,
        optimizer=moments * MOMENTS // 2,
        activations=kept[largest],
        tokens=tokens,
        visual=visual,
        trained=trained,
        parameters=parameters,
    )


def move_to_fake(model: torch.nn.Module, mode: FakeTensorMode) -> None:
    """Weights on no device to weights of a CPU without data: kernels differ by device, and with them what is kept."""
    made: dict[int, Any] = {}  # tied weights stay tied
    with mode:
        for module in model.modules():
            for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
                    wanted = isinstance(tensor, torch.nn.Parameter)
                    made[id(tensor)] = torch.nn.Parameter(empty, tensor.requires_grad) if wanted else empty
                (module._parameters if name in module._parameters else module._buffers)[name] = made[id(tensor)]


class KeptActivations:
    """Counts the bytes that autograd keeps between a forward pass and its backward pass, parameters left out."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._known = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        # Storages are held: one that was freed could give its number to another.
        self._storages: dict[int, torch.UntypedStorage] = {}

    def hooks(self) -> torch.autograd.graph.saved_tensors_hooks:
        """Return a context in which what autograd saves is counted, every storage once."""
        return torch.autograd.graph.saved_tensors_hooks(self._add, lambda tensor: tensor)

    def _add(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._storages[storage._cdata] = storage
        return tensor

    @property
    def nbytes(self) -> int:
        return sum(storage.nbytes() for storage in self._storages.values())


def _kept(model: Any, batch: Mapping[str, torch.Tensor], mode: FakeTensorMode, bf16: bool, checkpointing: bool) -> int:
    """Bytes that autograd keeps of one batch's forward pass, parameters left out."""
    if checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    model.train()
    learned = len(answer_positions(batch["labels"])[0])
    kept = KeptActivations(model)
    with ExitStack() as stack:
        stack.enter_context(mode)
        stack.enter_context(kept.hooks())
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
        logits = model.lm_head(hidden[:, :learned]).float()
        loss = functional.cross_entropy(logits.flatten(0, 1), torch.zeros(rows * learned, dtype=torch.long))
        for output in features:
            loss = loss + sum(one.sum() for one in _tensors(output.pooler_output))
    # The loss's gradient is as large as the logits, which are still there when it is made.
    return kept.nbytes + logits.numel() * 4


def _tensors(value: Any) -> list[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else list(value)


__all__ = ["KeptActivations", "Memory", "move_to_fake", "stage_memory"]
