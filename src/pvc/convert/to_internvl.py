"""The way back: a PVC checkpoint that adds nothing to InternVL, to transformers' InternVL format.

Temporal blocks must still be the identity, and the compressor InternVL's, or still its closed form at a smaller ratio.
Called by `pvc convert --to internvl`; the key map is read from the right.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import InternVLConfig

from pvc.checkpoint.files import CheckpointFiles, read_header
from pvc.checkpoint.loading import load_config, load_processor
from pvc.convert.closed_form import EMBEDDER, MAX_RESIDUAL, PROJECTOR, embed_timesteps, solved_timesteps, targets
from pvc.convert.from_internvl import read_tensor
from pvc.convert.keymap import BACK, plan
from pvc.convert.options import ConversionReport, Progress
from pvc.convert.shards import Shards, refuse_existing, staged
from pvc.convert.transforms import TRANSFORMS, Shapes
from pvc.errors import CheckpointError, ConfigError
from pvc.model.config import PVCConfig

RATIO = 0.5
_LINEAR = f"{PROJECTOR}.linear_1.weight"
_MODULATION = f"{PROJECTOR}.norm.modulation.weight"
_EXTRA = ("timestep_embedding", "norm.modulation.weight", ".temporal.")
_CHANGED = "the compressor is no longer the closed form of InternVL's"
_SHARD = 2**31


def convert_to_internvl(
    source: str | Path, target: str | Path, *, progress: Progress = lambda done, total: None
) -> ConversionReport:
    """Write an `internvl` checkpoint, as transformers reads it, of a PVC one that adds nothing to InternVL.

    Raises:
        ConfigError: temporal blocks that are not the identity, a ratio other than 1/2 without the closed form, or a
            compressor that depends on the timestep in any other way.
        CheckpointError: a damaged source.
        UsageError: the target exists.
    """
    target = Path(target).resolve()
    refuse_existing(target)
    files = CheckpointFiles(source)
    config = load_config(files)
    groups = config.compressor_norm_groups
    if config.downsample_ratio * round(groups**0.5) != RATIO:
        blocks = f" and compressor_norm_groups {groups}" if groups > 1 else ""
        raise ConfigError(f"downsample_ratio is {config.downsample_ratio}{blocks}: InternVL's is {RATIO}")
    places = {tensor.name: shard for shard in files.shards for tensor in read_header(shard)[0]}
    refuse_trained_blocks(places)
    solved: dict[str, torch.Tensor] = {}
    if groups > 1:
        solved = reduced_compressor(config, {name: read_tensor(places[name], name) for name in _compressor(places)})
    elif _MODULATION in places and bool(read_tensor(places[_MODULATION], _MODULATION).any()):
        raise ConfigError(
            "the compressor depends on the timestep (norm.modulation.weight is not zero): InternVL's cannot"
        )
    kept = [name for name in places if not any(part in name for part in _EXTRA)]
    steps, unknown = plan(kept, BACK, inverse=True)
    if unknown:
        raise CheckpointError(f"tensors without a place in InternVL: {', '.join(unknown[:5])}")
    report = ConversionReport(used=len(kept), warnings=_lost_settings(files))
    with staged(target) as staging:
        shards = Shards(staging, _SHARD)
        dtype = read_tensor(places[_LINEAR], _LINEAR).dtype
        for number, step in enumerate(steps):
            given = [solved[name] if name in solved else read_tensor(places[name], name) for name in step.sources]
            made = TRANSFORMS[step.transform][1](given, Shapes())
            if step.transform == "layernorm_to_adaln":  # PVC keeps it in float32 whatever the rest is
                made = [tensor.to(dtype) for tensor in made]
            for name, tensor in zip(step.targets, made, strict=True):
                shards.add(name, tensor)
            progress(number + 1, len(steps))
        report.shards, report.nbytes = shards.close()
        _write_settings(files, config, staging)
    return report


def _lost_settings(files: CheckpointFiles) -> tuple[str, ...]:
    """Name settings of the processor that transformers' InternVL processor does not have."""
    processor = load_processor(files)
    pictures = processor.image_processor
    values = {
        "frame_prefix": (processor.frame_prefix, "index"),
        "use_thumbnail": (pictures.use_thumbnail, True),
        "pad2square": (pictures.pad2square, False),
    }
    lost = [
        f"{name} is {value!r}, InternVL's is {theirs!r}" for name, (value, theirs) in values.items() if value != theirs
    ]
    return (f"not kept: {'; '.join(lost)}",) if lost else ()


def refuse_trained_blocks(places: Mapping[str, Path]) -> None:
    """Raise ConfigError for a temporal block whose output projection is not zero."""
    for name in sorted(places):
        if ".temporal.attention.projection_layer." in name and bool(read_tensor(places[name], name).any()):
            raise ConfigError(f"{name} is not zero: this temporal block has been trained, and InternVL has none")


def _compressor(places: Mapping[str, Path]) -> list[str]:
    parts = (f"{PROJECTOR}.norm.modulation.", f"{PROJECTOR}.linear_1.weight", EMBEDDER)
    return [name for name in places if name.startswith(parts)]


def reduced_compressor(config: PVCConfig, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Read the base's LayerNorm and first linear layer from a compressor that is still the closed form.

    Args:
        config: of the checkpoint; `compressor_norm_groups` blocks.
        tensors: modulation, `linear_1.weight` and timestep embedder by their full names.

    Returns:
        `norm.modulation.bias` and `linear_1.weight` of a compressor with one block.

    Raises:
        ConfigError: the compressor has been trained; what differs is named.
    """
    groups, vision = config.compressor_norm_groups, config.vision_config
    linear = tensors[f"{PROJECTOR}.linear_1.weight"].unflatten(1, (groups, -1))
    if not torch.equal(linear, linear[:, :1].expand_as(linear)):
        raise ConfigError(f"{_CHANGED} (linear_1 differs between blocks)")
    embedder = {name.removeprefix(f"{EMBEDDER}."): tensor for name, tensor in tensors.items() if EMBEDDER in name}
    timesteps = solved_timesteps(vision, groups)
    embedded = embed_timesteps(timesteps, float(vision.timestep_scale or 1.0), embedder)
    weight, bias = (tensors[f"{PROJECTOR}.norm.modulation.{name}"].float() for name in ("weight", "bias"))
    modulation = F.linear(embedded, weight, bias).unflatten(1, (2, groups, -1))  # (U, scale and shift, G, s s D)
    first = modulation[0, :, 0]  # step 0 stands for the first block
    expected = targets(first[0] + 1, first[1], timesteps, groups).view_as(modulation)
    largest = float((modulation.double() - expected).abs().max())
    if not largest <= MAX_RESIDUAL:
        raise ConfigError(f"{_CHANGED} (its scales and shifts differ by up to {largest:.2g})")
    return {f"{PROJECTOR}.norm.modulation.bias": first.flatten(), f"{PROJECTOR}.linear_1.weight": linear[:, 0]}


def _write_settings(files: CheckpointFiles, own_config: PVCConfig, folder: Path) -> None:
    """Configuration and tokenizer under InternVL's names, and what transformers' processor reads."""
    processor = load_processor(files)
    config = own_config.to_dict()
    own = {"num_temporal_layers", "temporal_window", "model_type"}
    own |= {key for key in config["vision_config"] if key.startswith("timestep")}
    vision = {key: value for key, value in config["vision_config"].items() if key not in own}
    InternVLConfig(
        vision_config=vision,
        text_config=config["text_config"],
        image_token_id=config["image_token_id"],
        image_seq_length=processor.tokens_per_frame * own_config.compressor_norm_groups,
        downsample_ratio=RATIO,
        projector_hidden_act=config["projector_hidden_act"],
        tie_word_embeddings=config["tie_word_embeddings"],
        architectures=["InternVLForConditionalGeneration"],
    ).save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(processor.chat_template, encoding="utf-8")
    pictures = processor.image_processor.to_dict()
    pictures.pop("image_steps", None)
    pictures |= {"image_processor_type": "GotOcr2ImageProcessor", "processor_class": "InternVLProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures, indent=1), encoding="utf-8")
    if (files.directory / "generation_config.json").exists():
        shutil.copy(files.directory / "generation_config.json", folder)


__all__ = ["convert_to_internvl"]
