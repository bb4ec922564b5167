"""Compares a converted model with its source on the spot: tower, visual tokens at the source's ratio, logits.

The source is computed by other code than ours: transformers' InternVL, or for the original format its own arithmetic
written out here. Loads whole models. Called by `pvc convert --check`.

F frames, S frame size, N positions, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM, InternVLForConditionalGeneration
from transformers.activations import ACT2FN

from pvc.checkpoint.loading import load_checkpoint
from pvc.convert.run import EMBEDDING, OUTPUT, Options, config_of, planned, read_tensor, shapes_of, transformed
from pvc.convert.sources import Source
from pvc.errors import CheckpointError
from pvc.model.config import PVCConfig
from pvc.model.modeling import PVCForConditionalGeneration

TOLERANCE = 1e-5


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
    """Tower, tokens and logits of a converted model against its source, in float32 on random pictures.

    Tokens and logits are those of the same tensors at the source's own ratio and with one step: at a smaller ratio the
    compressor is an approximation, and its tokens' distance from the mean of those they replace is told, unbounded.
    """
    model, _ = load_checkpoint(target, device="cpu", dtype="float32")
    pixels = torch.randn(2, 3, *model.config.vision_config.image_size, generator=torch.manual_seed(seed))
    theirs = Reference(source)
    hidden = theirs.tower(pixels)
    static = model.model.vision_tower(pixels)
    found = [_difference("vision tower", static.layout.gather(static.last_hidden_state), hidden, TOLERANCE)]
    same = _at_the_sources_ratio(source, model.config)
    tokens = same.model.get_image_features(pixels, image_steps=1).pooler_output
    expected = theirs.tokens(hidden)
    found.append(_difference("visual tokens, same ratio", torch.stack(tokens), expected, TOLERANCE))
    if model.config.downsample_ratio != source.ratio:
        ours = torch.stack(model.model.get_image_features(pixels, image_steps=1).pooler_output)
        side, times = round(expected.shape[1] ** 0.5), round(source.ratio / model.config.downsample_ratio)
        blocks = expected.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        mean = F.avg_pool2d(blocks, times).permute(0, 2, 3, 1).flatten(1, 2)
        found.append(_difference("visual tokens, against the mean of those replaced", ours, mean, None))
    logits = theirs.logits(pixels, expected, model.config)
    if logits is not None:
        ids = _prompt(model.config, len(pixels) * expected.shape[1])
        ours = same(input_ids=ids, pixel_values=pixels, image_steps=1).logits[..., : logits.shape[-1]]
        found.append(_difference("logits, same ratio", ours, logits, TOLERANCE))
    return found


def _prompt(config: PVCConfig, placeholders: int) -> torch.Tensor:
    return torch.tensor([[0, 1, *[config.image_token_id] * placeholders, 2, 3, 1]])


def _difference(what: str, ours: torch.Tensor, theirs: torch.Tensor, bound: float | None) -> Difference:
    if ours.shape != theirs.shape:
        raise CheckpointError(f"{what}: {list(ours.shape)} and {list(theirs.shape)} cannot be compared")
    largest = float((ours - theirs).abs().max())
    return Difference(what, largest, largest / max(float(theirs.abs().max()), 1e-12), bound)


def _at_the_sources_ratio(source: Source, converted: PVCConfig) -> PVCForConditionalGeneration:
    """The model that conversion at the source's ratio and with one step would give, without a file."""
    vision = converted.vision_config
    options = Options(vision.num_temporal_layers, source.ratio, vision.timestep, vision.temporal_window, 1)
    text = converted.text_config.vocab_size
    config = config_of(source, options, (converted.image_token_id, converted.video_token_id), text)
    model = PVCForConditionalGeneration(config)
    shapes = shapes_of(source, source.ratio)
    state: dict[str, torch.Tensor] = {}
    for step in planned(source):
        state |= {name: tensor.float() for name, tensor in transformed(source, step, shapes).items()}
    for name in (EMBEDDING, OUTPUT):
        if name in state:
            rows = state[name]
            state[name] = torch.cat((rows, rows.new_zeros(text - len(rows), rows.shape[1])))
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    del missing  # what PVC adds: as it is initialised
    model.tie_weights()
    return model.eval()


class Reference:
    """What the source computes, by code that knows nothing of ours."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.state: dict[str, torch.Tensor] = {}
        if source.kind == "internvl":
            self.model = InternVLForConditionalGeneration.from_pretrained(
                source.directory, dtype=torch.float32, local_files_only=True
            ).eval()
        else:
            prefixes = ("vision_model.", "mlp1.")
            names = [name for name in source.tensors if name.startswith(prefixes)]
            self.state = {name: read_tensor(source.places[name], name).float() for name in names}

    def tower(self, pixels: torch.Tensor) -> torch.Tensor:
        """`(F, 3, S, S)` to `(F, N, D)`."""
        if not self.state:
            return self.model.model.vision_tower(pixels).last_hidden_state
        state, prefix = self.state, "vision_model.embeddings"
        kernel = state[f"{prefix}.patch_embedding.weight"]
        patches = F.conv2d(pixels, kernel, state[f"{prefix}.patch_embedding.bias"], stride=kernel.shape[-1])
        first = state[f"{prefix}.class_embedding"].expand(len(pixels), 1, -1)
        hidden = torch.cat((first, patches.flatten(2).transpose(1, 2)), 1) + state[f"{prefix}.position_embedding"]
        for layer in range(self.source.vision["num_hidden_layers"]):
            hidden = self._layer(f"vision_model.encoder.layers.{layer}", hidden)
        return hidden

    def _layer(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        state, heads = self.state, self.source.vision["num_attention_heads"]
        normed = self._norm(f"{name}.norm1", hidden)
        fused = F.linear(normed, state[f"{name}.attn.qkv.weight"], state.get(f"{name}.attn.qkv.bias"))
        query, key, value = fused.unflatten(-1, (3, -1)).unbind(-2)
        if f"{name}.attn.q_norm.weight" in state:
            query, key = self._norm(f"{name}.attn.q_norm", query), self._norm(f"{name}.attn.k_norm", key)
        parts = (tensor.unflatten(-1, (heads, -1)).transpose(1, 2) for tensor in (query, key, value))
        attended = F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
        hidden = hidden + self._linear(f"{name}.attn.proj", attended) * state[f"{name}.ls1"]
        middle = ACT2FN[self.source.vision.get("hidden_act", "gelu")](
            self._linear(f"{name}.mlp.fc1", self._norm(f"{name}.norm2", hidden))
        )
        return hidden + self._linear(f"{name}.mlp.fc2", middle) * state[f"{name}.ls2"]

    def _linear(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        return F.linear(hidden, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))

    def _norm(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        weight, eps = self.state[f"{name}.weight"], self.source.vision.get("layer_norm_eps", 1e-6)
        if f"{name}.bias" in self.state:
            return F.layer_norm(hidden, weight.shape, weight, self.state[f"{name}.bias"], eps)
        return F.rms_norm(hidden, weight.shape, weight, eps)

    def tokens(self, hidden: torch.Tensor) -> torch.Tensor:
        """`(F, N, D)` to `(F, tokens of a picture, width of the language model)`."""
        if not self.state:
            model, side = self.model.model, round((hidden.shape[1] - 1) ** 0.5)
            grid = hidden[:, 1:].unflatten(1, (side, side))
            shuffled = model.pixel_shuffle(grid, scale_factor=self.source.ratio)
            return model.multi_modal_projector(shuffled.flatten(1, 2))
        side, factor = round((hidden.shape[1] - 1) ** 0.5), round(1 / self.source.ratio)
        cells = hidden[:, 1:].unflatten(1, (side // factor, factor, side // factor, factor))
        shuffled = cells.transpose(2, 3).flatten(3).flatten(1, 2)
        norm = (self.state["mlp1.0.weight"], self.state["mlp1.0.bias"])
        normed = F.layer_norm(shuffled, shuffled.shape[-1:], *norm)
        return self._linear("mlp1.3", F.gelu(self._linear("mlp1.1", normed)))

    def logits(self, pixels: torch.Tensor, tokens: torch.Tensor, config: PVCConfig) -> torch.Tensor | None:
        """`(1, Q, V)` for the prompt of `_prompt`; None for a language model that transformers does not have."""
        ids = _prompt(config, tokens.shape[0] * tokens.shape[1])
        if not self.state:
            return self.model(input_ids=ids, pixel_values=pixels).logits
        if self.source.language == "internlm2":
            return None
        text = dict(self.source.text)
        language = AutoModelForCausalLM.from_config(AutoConfig.for_model(text.pop("model_type"), **text)).eval()
        names = [name for name in self.source.tensors if name.startswith("language_model.")]
        state = {n.removeprefix("language_model."): read_tensor(self.source.places[n], n).float() for n in names}
        language.load_state_dict(state, strict=False)
        embedded = language.get_input_embeddings()(ids)
        embedded[ids == config.image_token_id] = tokens.flatten(0, 1)
        return language(inputs_embeds=embedded).logits


__all__ = ["TOLERANCE", "Difference", "compare"]
