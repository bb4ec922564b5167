"""Conversion of a PVC checkpoint back to transformers' InternVL format.

Temporal blocks must still be the identity. The compressor must be InternVL's, or its closed form at a smaller ratio.
The key map is read from targets to sources. Called by `pvc convert --to internvl`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import InternVLConfig

from pvc.checkpoint.files import CheckpointFiles, read_header
from pvc.checkpoint.loading import load_config, load_processor
from pvc.convert.closed_form import EMBEDDER, MAX_RESIDUAL, PROJECTOR, compute_targets, embed_timesteps, get_timesteps
from pvc.convert.from_internvl import read_tensor
from pvc.convert.keymap import EXPORT, match_rules
from pvc.convert.options import ConversionReport, Progress
from pvc.convert.shards import ShardWriter, refuse_existing, staging_directory
from pvc.convert.transforms import TRANSFORMS, Shapes
from pvc.errors import CheckpointError, ConfigError
from pvc.model.config import PVCConfig

INTERNVL_RATIO = 0.5
_LINEAR = f"{PROJECTOR}.linear_1.weight"
_MODULATION = f"{PROJECTOR}.norm.modulation.weight"
_PVC_ONLY = ("timestep_embedding", "norm.modulation.weight", ".temporal.")
_CHANGED = "the compressor is no longer the closed form of InternVL's"
_SHARD_BYTES = 2**31


def convert_to_internvl(
    source: str | Path, target: str | Path, *, progress: Progress = lambda done, total: None
) -> ConversionReport:
    """Convert a PVC checkpoint that computes what an InternVL model does to transformers' `internvl` format.

    Args:
        source: directory of the PVC checkpoint.
        target: directory to write; it must be empty or not exist.
        progress: called with the number of steps that are done and the number of all.

    Returns:
        Counts of tensors and bytes, and warnings for the user.

    Raises:
        ConfigError: temporal blocks that are not the identity, a ratio other than 1/2 without the closed form, or a
            compressor that depends on the timestep in any other way.
        CheckpointError: the source is damaged.
        UsageError: the target exists.
    """
    target = Path(target).resolve()
    refuse_existing(target)
    files = CheckpointFiles(source)
    config = load_config(files)
    groups = config.compressor_norm_groups
    if config.downsample_ratio * round(groups**0.5) != INTERNVL_RATIO:
        blocks = f" and compressor_norm_groups {groups}" if groups > 1 else ""
        raise ConfigError(f"downsample_ratio is {config.downsample_ratio}{blocks}: InternVL's is {INTERNVL_RATIO}")
    shard_paths = {tensor.name: shard for shard in files.shards for tensor in read_header(shard)[0]}
    refuse_trained_blocks(shard_paths)
    reduced: dict[str, torch.Tensor] = {}
    if groups > 1:
        names = _list_compressor_names(shard_paths)
        reduced = reduce_compressor(config, {name: read_tensor(shard_paths[name], name) for name in names})
    elif _MODULATION in shard_paths and bool(read_tensor(shard_paths[_MODULATION], _MODULATION).any()):
        raise ConfigError(
            "the compressor depends on the timestep (norm.modulation.weight is not zero): InternVL's cannot"
        )
    exported = [name for name in shard_paths if not any(part in name for part in _PVC_ONLY)]
    steps, unknown = match_rules(exported, EXPORT, inverse=True)
    if unknown:
        raise CheckpointError(f"tensors without a place in InternVL: {', '.join(unknown[:5])}")
    report = ConversionReport(used=len(exported), warnings=_list_lost_settings(files))
    with staging_directory(target) as staging:
        writer = ShardWriter(staging, _SHARD_BYTES)
        dtype = read_tensor(shard_paths[_LINEAR], _LINEAR).dtype
        for number, step in enumerate(steps):
            inputs = [reduced[n] if n in reduced else read_tensor(shard_paths[n], n) for n in step.sources]
            outputs = TRANSFORMS[step.transform][1](inputs, Shapes())
            if step.transform == "layernorm_to_adaln":  # float32 in PVC at every precision of the model
                outputs = [tensor.to(dtype) for tensor in outputs]
            for name, tensor in zip(step.targets, outputs, strict=True):
                writer.add(name, tensor)
            progress(number + 1, len(steps))
        report.shards, report.nbytes = writer.close()
        _write_settings(files, config, staging)
    return report


def _list_lost_settings(files: CheckpointFiles) -> tuple[str, ...]:
    """List settings of the processor that transformers' InternVL processor does not have."""
    processor = load_processor(files)
    image_processor = processor.image_processor
    values = {
        "frame_prefix": (processor.frame_prefix, "index"),
        "use_thumbnail": (image_processor.use_thumbnail, True),
        "pad2square": (image_processor.pad2square, False),
    }
    lost = [
        f"{name} is {value!r}, InternVL's is {theirs!r}" for name, (value, theirs) in values.items() if value != theirs
    ]
    return (f"not kept: {'; '.join(lost)}",) if lost else ()


def refuse_trained_blocks(shard_paths: Mapping[str, Path]) -> None:
    """Raise ConfigError for a temporal block whose output projection is not zero.

    Args:
        shard_paths: file of each tensor, by the tensor's name.
    """
    for name in sorted(shard_paths):
        if ".temporal.attention.projection_layer." in name and bool(read_tensor(shard_paths[name], name).any()):
            raise ConfigError(f"{name} is not zero: this temporal block has been trained, and InternVL has none")


def _list_compressor_names(names: Iterable[str]) -> list[str]:
    parts = (f"{PROJECTOR}.norm.modulation.", f"{PROJECTOR}.linear_1.weight", EMBEDDER)
    return [name for name in names if name.startswith(parts)]


def reduce_compressor(config: PVCConfig, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Compute the base's LayerNorm and first linear layer from a compressor that is still the closed form.

    Args:
        config: of the checkpoint; `compressor_norm_groups` is the number of blocks.
        tensors: modulation, `linear_1.weight` and timestep embedder by full name.

    Returns:
        `norm.modulation.bias` and `linear_1.weight` of a compressor with one block, by full name.

    Raises:
        ConfigError: the compressor has been trained; the message names the difference.
    """
    groups, vision = config.compressor_norm_groups, config.vision_config
    linear = tensors[f"{PROJECTOR}.linear_1.weight"].unflatten(1, (groups, -1))
    if not torch.equal(linear, linear[:, :1].expand_as(linear)):
        raise ConfigError(f"{_CHANGED} (linear_1 differs between blocks)")
    embedder = {name.removeprefix(f"{EMBEDDER}."): tensor for name, tensor in tensors.items() if EMBEDDER in name}
    timesteps = get_timesteps(vision, groups)
    embedded = embed_timesteps(timesteps, float(vision.timestep_scale or 1.0), embedder)
    weight, bias = (tensors[f"{PROJECTOR}.norm.modulation.{name}"].float() for name in ("weight", "bias"))
    modulation = F.linear(embedded, weight, bias).unflatten(1, (2, groups, -1))  # (U, scale and shift, G, s s D)
    first = modulation[0, :, 0]  # step 0 stands for the first block
    expected = compute_targets(first[0] + 1, first[1], timesteps, groups).view_as(modulation)
    largest = float((modulation.double() - expected).abs().max())
    if not largest <= MAX_RESIDUAL:
        raise ConfigError(f"{_CHANGED} (its scales and shifts differ by up to {largest:.2g})")
    return {f"{PROJECTOR}.norm.modulation.bias": first.flatten(), f"{PROJECTOR}.linear_1.weight": linear[:, 0]}


def _write_settings(files: CheckpointFiles, pvc_config: PVCConfig, folder: Path) -> None:
    """Write the configuration, tokenizer and image processor under InternVL's names."""
    processor = load_processor(files)
    config = pvc_config.to_dict()
    pvc_keys = {"num_temporal_layers", "temporal_window", "model_type"}
    pvc_keys |= {key for key in config["vision_config"] if key.startswith("timestep")}
    vision = {key: value for key, value in config["vision_config"].items() if key not in pvc_keys}
    InternVLConfig(
        vision_config=vision,
        text_config=config["text_config"],
        image_token_id=config["image_token_id"],
        image_seq_length=processor.tokens_per_frame * pvc_config.compressor_norm_groups,
        downsample_ratio=INTERNVL_RATIO,
        projector_hidden_act=config["projector_hidden_act"],
        tie_word_embeddings=config["tie_word_embeddings"],
        architectures=["InternVLForConditionalGeneration"],
    ).save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(processor.chat_template, encoding="utf-8")
    settings = processor.image_processor.to_dict()
    settings.pop("image_steps", None)
    settings |= {"image_processor_type": "GotOcr2ImageProcessor", "processor_class": "InternVLProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    if (files.directory / "generation_config.json").exists():
        shutil.copy(files.directory / "generation_config.json", folder)


__all__ = ["convert_to_internvl"]
