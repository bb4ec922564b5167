"""Computation of a source model, by code that does not use this project's key map or network.

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
from pvc.convert.offload import capture_outputs, look_up_embedding, offload
from pvc.convert.source import Source
from pvc.errors import CheckpointError

# Names of the projector's norm and linear layers.
_TRANSFORMERS = tuple(f"model.multi_modal_projector.{name}" for name in ("layer_norm", "linear_1", "linear_2"))
_CHAT = ("mlp1.0", "mlp1.1", "mlp1.3")
_NORM_EPS = 1e-5
_EMBEDDING = "model.language_model.embed_tokens.weight"


class Reference:
    """Tower, projector and language model of a source, in float32.

    Args:
        source: checkpoint to read; its weights stay in their files.

    Attributes:
        language: language model without its output layer; None if transformers does not have its architecture.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.is_chat = source.kind != "internvl"
        self.language: Any
        if not self.is_chat:
            config = InternVLConfig.from_pretrained(source.directory, local_files_only=True)
            self.model = offload(lambda: InternVLForConditionalGeneration(config), self._find)
            self.language = self.model.model.language_model
        else:
            self.language = None if source.language == "internlm2" else self._build_language_model()

    def _build_language_model(self) -> Any:
        text = dict(self.source.text)
        config = AutoConfig.for_model(text.pop("model_type"), **text)
        return offload(lambda: AutoModel.from_config(config), lambda name: self._find(f"language_model.model.{name}"))

    def _find(self, name: str) -> StoredTensor:
        """Return the stored tensor of a parameter, under its name in memory or in files of an older transformers."""
        swapped = name.replace("model.language_model.", "language_model.model.", 1)
        for candidate in (name, name.removeprefix("model."), swapped, f"language_model.{name}"):
            if candidate in self.source.tensors:
                return StoredTensor(self.source.shard_paths[candidate], self.source.tensors[candidate])
        raise CheckpointError(f"{self.source.directory} has no tensor {name}")

    def _has_tensor(self, name: str) -> bool:
        return name in self.source.tensors

    def _read(self, name: str) -> torch.Tensor:
        return self._find(name).read().float()

    # Tower

    def run_tower(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Encode frames `(F, 3, S, S)` float32.

        Returns:
            Hidden states `(F, N, D)` float32 after each layer, then the output of the tower.
        """
        states: list[torch.Tensor] = []
        if not self.is_chat:
            tower = self.model.model.vision_tower
            with capture_outputs(tower.encoder.layer, states.append):
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
        if self._has_tensor(f"{name}.attn.q_norm.weight"):
            query, key = self._norm(f"{name}.attn.q_norm", query), self._norm(f"{name}.attn.k_norm", key)
        parts = (tensor.unflatten(-1, (heads, -1)).transpose(1, 2) for tensor in (query, key, value))
        attended = F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
        hidden = hidden + self._linear(f"{name}.attn.proj", attended) * self._read(f"{name}.ls1")
        activation = ACT2FN[self.source.vision.get("hidden_act", "gelu")]
        middle = activation(self._linear(f"{name}.mlp.fc1", self._norm(f"{name}.norm2", hidden)))
        return hidden + self._linear(f"{name}.mlp.fc2", middle) * self._read(f"{name}.ls2")

    def _linear(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        bias = self._read(f"{name}.bias") if self._has_tensor(f"{name}.bias") else None
        return F.linear(hidden, self._read(f"{name}.weight"), bias)

    def _norm(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        weight, eps = self._read(f"{name}.weight"), self.source.vision.get("layer_norm_eps", 1e-6)
        if self._has_tensor(f"{name}.bias"):
            return F.layer_norm(hidden, weight.shape, weight, self._read(f"{name}.bias"), eps)
        return F.rms_norm(hidden, weight.shape, weight, eps)

    # Projector

    def compute_tokens(self, hidden: torch.Tensor) -> torch.Tensor:
        """Compute the source's visual tokens, `(F, K, L)`, from the tower's output, `(F, N, D)`."""
        cells = self._merge_patches(hidden)
        if not self.is_chat:
            return self.model.model.multi_modal_projector(cells)
        norm = (self._read(f"{_CHAT[0]}.weight"), self._read(f"{_CHAT[0]}.bias"))
        normed = F.layer_norm(cells, cells.shape[-1:], *norm)
        return self._linear(_CHAT[2], F.gelu(self._linear(_CHAT[1], normed)))

    def compute_mean_tokens(self, hidden: torch.Tensor, times: int) -> torch.Tensor:
        """Compute the visual tokens that a new compressor of a smaller ratio must emit.

        Squares of `times * times` tokens are normalised together, pass the first linear layer one by one, and are
        replaced by their mean before the activation.

        Args:
            hidden: output of the tower, `(F, N, D)`.
            times: tokens along a side of a square.

        Returns:
            `(F, K / times^2, L)`.
        """
        cells = self._merge_patches(hidden)
        side = round(cells.shape[1] ** 0.5) // times
        squares = cells.unflatten(1, (side, times, side, times)).transpose(2, 3)  # (F, row, column, times, times, C)
        norm, first, second = _CHAT if self.is_chat else _TRANSFORMERS
        normed = F.layer_norm(squares, squares.shape[-3:], eps=_NORM_EPS)
        modulated = normed * self._read(f"{norm}.weight") + self._read(f"{norm}.bias")
        weight, bias = self._read(f"{first}.weight"), self._read(f"{first}.bias")
        mean = F.linear(modulated, weight, bias).mean((3, 4)).flatten(1, 2)
        activated = ACT2FN[self.source.activation](mean)
        return F.linear(activated, self._read(f"{second}.weight"), self._read(f"{second}.bias"))

    def _merge_patches(self, hidden: torch.Tensor) -> torch.Tensor:
        """Concatenate the patches of each visual token: `(F, N, D)` to `(F, K, D / ratio^2)`, tokens in row order."""
        side = round((hidden.shape[1] - 1) ** 0.5)
        if not self.is_chat:
            grid = hidden[:, 1:].unflatten(1, (side, side))
            return self.model.model.pixel_shuffle(grid, scale_factor=self.source.ratio).flatten(1, 2)
        factor = round(1 / self.source.ratio)
        patches = hidden[:, 1:].unflatten(1, (side // factor, factor, side // factor, factor))
        return patches.transpose(2, 3).flatten(3).flatten(1, 2)

    # Language model

    def embed(self, ids: torch.Tensor, tokens: torch.Tensor, placeholder: int) -> torch.Tensor:
        """Embed a prompt.

        Args:
            ids: `(1, Q)` int64.
            tokens: visual tokens, `(F, K, L)`, that replace the placeholders.
            placeholder: id of the placeholder token.

        Returns:
            `(1, Q, L)` float32.
        """
        hidden = look_up_embedding(self._find(_EMBEDDING), ids.masked_fill(ids == placeholder, 0))
        hidden[ids == placeholder] = tokens.flatten(0, 1)
        return hidden

    def compute_hidden_states(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """Run the language model on `(1, Q, L)` embeddings.

        Returns:
            Hidden states `(1, Q, L)` after each layer, then after the last norm.
        """
        assert self.language is not None
        states: list[torch.Tensor] = []
        with capture_outputs(self.language.layers, states.append):
            states.append(self.language(inputs_embeds=inputs, use_cache=False).last_hidden_state)
        return states

    def get_output_weight(self) -> StoredTensor:
        """Return the stored weight of the output layer; the input embedding if none is stored."""
        try:
            return self._find("lm_head.weight")
        except CheckpointError:
            return self._find(_EMBEDDING)


__all__ = ["Reference"]
