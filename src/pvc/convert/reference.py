"""What a source computes, by code that does not use the key map or the network of this project.

That is transformers' InternVL, or for the original format its arithmetic written out here. Weights are read layer by
layer (`offload.py`). Called by `verify.py`.

F frames, S frame size, N positions, D width, L width of the language model, K tokens of a frame, Q sequence length.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModel, InternVLConfig, InternVLForConditionalGeneration
from transformers.activations import ACT2FN

from pvc.checkpoint.stored import StoredTensor
from pvc.convert.offload import each_output, embedded, offloaded
from pvc.convert.source import Source
from pvc.errors import CheckpointError

# Names of the projector's norm and linear layers.
_TRANSFORMERS = tuple(f"model.multi_modal_projector.{name}" for name in ("layer_norm", "linear_1", "linear_2"))
_CHAT = ("mlp1.0", "mlp1.1", "mlp1.3")
_NORM_EPS = 1e-5
_EMBEDDING = "model.language_model.embed_tokens.weight"


class Reference:
    """The source's tower, projector and language model, in float32.

    Attributes:
        language: the language model without its output layer; None if transformers does not have its architecture.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.is_chat = source.kind != "internvl"
        self.language: Any
        if not self.is_chat:
            config = InternVLConfig.from_pretrained(source.directory, local_files_only=True)
            self.model = offloaded(lambda: InternVLForConditionalGeneration(config), self._find)
            self.language = self.model.model.language_model
        else:
            self.language = None if source.language == "internlm2" else self._language()

    def _language(self) -> Any:
        text = dict(self.source.text)
        config = AutoConfig.for_model(text.pop("model_type"), **text)
        return offloaded(lambda: AutoModel.from_config(config), lambda name: self._find(f"language_model.model.{name}"))

    def _find(self, name: str) -> StoredTensor:
        """The stored tensor of a parameter, under its name in memory or in files of an older transformers."""
        swapped = name.replace("model.language_model.", "language_model.model.", 1)
        for candidate in (name, name.removeprefix("model."), swapped, f"language_model.{name}"):
            if candidate in self.source.tensors:
                return StoredTensor(self.source.places[candidate], self.source.tensors[candidate])
        raise CheckpointError(f"{self.source.directory} has no tensor {name}")

    def _has(self, name: str) -> bool:
        return name in self.source.tensors

    def _read(self, name: str) -> torch.Tensor:
        return self._find(name).read().float()

    # Tower

    def tower(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """`(F, 3, S, S)` to the hidden states `(F, N, D)` after each layer, and the output of the tower last."""
        states: list[torch.Tensor] = []
        if not self.is_chat:
            tower = self.model.model.vision_tower
            with each_output(tower.encoder.layer, states.append):
                states.append(tower(pixels).last_hidden_state)
            return states
        prefix = "vision_model.embeddings"
        kernel = self._read(f"{prefix}.patch_embedding.weight")
        patches = F.conv2d(pixels, kernel, self._read(f"{prefix}.patch_embedding.bias"), stride=kernel.shape[-1])
        first = self._read(f"{prefix}.class_embedding").expand(len(pixels), 1, -1)
        hidden = torch.cat((first, patches.flatten(2).transpose(1, 2)), 1)
        hidden = hidden + self._read(f"{prefix}.position_embedding")
        for layer in range(self.source.vision["num_hidden_layers"]):
            hidden = self._layer(f"vision_model.encoder.layers.{layer}", hidden)
            states.append(hidden)
        return [*states, hidden]

    def _layer(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        heads = self.source.vision["num_attention_heads"]
        fused = self._linear(f"{name}.attn.qkv", self._norm(f"{name}.norm1", hidden))
        query, key, value = fused.unflatten(-1, (3, -1)).unbind(-2)
        if self._has(f"{name}.attn.q_norm.weight"):
            query, key = self._norm(f"{name}.attn.q_norm", query), self._norm(f"{name}.attn.k_norm", key)
        parts = (tensor.unflatten(-1, (heads, -1)).transpose(1, 2) for tensor in (query, key, value))
        attended = F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
        hidden = hidden + self._linear(f"{name}.attn.proj", attended) * self._read(f"{name}.ls1")
        activation = ACT2FN[self.source.vision.get("hidden_act", "gelu")]
        middle = activation(self._linear(f"{name}.mlp.fc1", self._norm(f"{name}.norm2", hidden)))
        return hidden + self._linear(f"{name}.mlp.fc2", middle) * self._read(f"{name}.ls2")

    def _linear(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        bias = self._read(f"{name}.bias") if self._has(f"{name}.bias") else None
        return F.linear(hidden, self._read(f"{name}.weight"), bias)

    def _norm(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        weight, eps = self._read(f"{name}.weight"), self.source.vision.get("layer_norm_eps", 1e-6)
        if self._has(f"{name}.bias"):
            return F.layer_norm(hidden, weight.shape, weight, self._read(f"{name}.bias"), eps)
        return F.rms_norm(hidden, weight.shape, weight, eps)

    # Projector

    def tokens(self, hidden: torch.Tensor) -> torch.Tensor:
        """Visual tokens of the source: `(F, N, D)` to `(F, K, L)`."""
        cells = self._cells(hidden)
        if not self.is_chat:
            return self.model.model.multi_modal_projector(cells)
        norm = (self._read(f"{_CHAT[0]}.weight"), self._read(f"{_CHAT[0]}.bias"))
        normed = F.layer_norm(cells, cells.shape[-1:], *norm)
        return self._linear(_CHAT[2], F.gelu(self._linear(_CHAT[1], normed)))

    def mean_tokens(self, hidden: torch.Tensor, times: int) -> torch.Tensor:
        """`(F, N, D)` to `(F, K / times^2, L)`: what a compressor of a smaller ratio has to start as.

        Squares of `times * times` tokens are normalised together, pass the first linear layer one by one, and are
        replaced by their mean before the activation.
        """
        cells = self._cells(hidden)
        side = round(cells.shape[1] ** 0.5) // times
        squares = cells.unflatten(1, (side, times, side, times)).transpose(2, 3)  # (F, row, column, times, times, C)
        norm, first, second = _CHAT if self.is_chat else _TRANSFORMERS
        normed = F.layer_norm(squares, squares.shape[-3:], eps=_NORM_EPS)
        modulated = normed * self._read(f"{norm}.weight") + self._read(f"{norm}.bias")
        weight, bias = self._read(f"{first}.weight"), self._read(f"{first}.bias")
        mean = F.linear(modulated, weight, bias).mean((3, 4)).flatten(1, 2)
        activated = ACT2FN[self.source.activation](mean)
        return F.linear(activated, self._read(f"{second}.weight"), self._read(f"{second}.bias"))

    def _cells(self, hidden: torch.Tensor) -> torch.Tensor:
        """The patches of each visual token side by side: `(F, N, D)` to `(F, K, D / ratio^2)`, tokens in row order."""
        side = round((hidden.shape[1] - 1) ** 0.5)
        if not self.is_chat:
            grid = hidden[:, 1:].unflatten(1, (side, side))
            return self.model.model.pixel_shuffle(grid, scale_factor=self.source.ratio).flatten(1, 2)
        factor = round(1 / self.source.ratio)
        patches = hidden[:, 1:].unflatten(1, (side // factor, factor, side // factor, factor))
        return patches.transpose(2, 3).flatten(3).flatten(1, 2)

    # Language model

    def embed(self, ids: torch.Tensor, tokens: torch.Tensor, placeholder: int) -> torch.Tensor:
        """`(1, Q)` ids to `(1, Q, L)`, with `(F, K, L)` visual tokens where the ids are `placeholder`."""
        hidden = embedded(self._find(_EMBEDDING), ids.masked_fill(ids == placeholder, 0))
        hidden[ids == placeholder] = tokens.flatten(0, 1)
        return hidden

    def hidden_states(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """`(1, Q, L)` inputs of the language model to its hidden states after each layer, and after the last norm."""
        assert self.language is not None
        states: list[torch.Tensor] = []
        with each_output(self.language.layers, states.append):
            states.append(self.language(inputs_embeds=inputs, use_cache=False).last_hidden_state)
        return states

    def output(self) -> StoredTensor:
        """The stored weight of the output layer; the input embedding where none is stored."""
        try:
            return self._find("lm_head.weight")
        except CheckpointError:
            return self._find(_EMBEDDING)


__all__ = ["Reference"]
