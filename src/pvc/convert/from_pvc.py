"""Conversion of a PVC checkpoint with one step to a smaller ratio in closed form.

The base is what the recipes of this project train first: ratio 1/2, one step, temporal blocks that are the identity, or
none. All tensors except the compressor's are copied. Called by `pvc convert` and `pvc.train.model_init`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from pvc.checkpoint.files import CheckpointFiles
from pvc.checkpoint.loading import check_template, load_config, load_processor
from pvc.checkpoint.stored import stored_tensors
from pvc.convert.closed_form import EMBEDDER, PROJECTOR, ClosedForm, embed_timesteps, solve
from pvc.convert.from_internvl import get_expected_shapes, init_tensor
from pvc.convert.options import ConversionReport, Options, Progress
from pvc.convert.shards import ShardWriter, refuse_existing, staging_directory
from pvc.convert.to_internvl import refuse_trained_blocks
from pvc.errors import CheckpointError, ConfigError, UsageError
from pvc.model.config import PVCConfig

_SHARD_BYTES = 2**31
_COPIED_FILES = ("generation_config.json",)


def is_pvc(directory: Path) -> bool:
    """Return whether `directory` has the config.json of a PVC model."""
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") == "pvc"


def convert_pvc(
    source: str | Path, target: str | Path, options: Options | None = None, *, progress: Progress = lambda d, t: None
) -> ConversionReport:
    """Write the closed form of a PVC checkpoint at a smaller ratio.

    Args:
        source: directory of the base: one step, temporal blocks that are the identity or none.
        target: directory to write; it must be empty or not exist.
        options: as for a conversion from InternVL; `init` must be "exact".
        progress: called with the number of written tensors and the number of all.

    Returns:
        Counts of tensors and bytes, the residual, and warnings for the user.

    Raises:
        ConfigError: the base takes several steps, its temporal blocks have been trained, or options do not fit it.
        CheckpointError: the base is damaged.
        UsageError: the target exists, or the ratio is not smaller.
    """
    options, target = options or Options(), Path(target).resolve()
    refuse_existing(target)
    files = CheckpointFiles(source)
    base, processor = load_config(files), load_processor(files)
    config = _build_target_config(base, options, files)
    stored = stored_tensors(files)
    refuse_trained_blocks({name: tensor.path for name, tensor in stored.items()})
    shapes = get_expected_shapes(config)
    missing = sorted(name for name in shapes.keys() - stored.keys() if ".temporal." not in name)
    if missing:
        raise CheckpointError(f"{files.directory} lacks {', '.join(missing[:3])} ({len(missing)} tensors)")
    form = solve_from_pvc(base, config, {name: stored[name].read() for name in _list_compressor_names(stored)})
    processor.tokens_per_frame = config.tokens_per_frame
    processor.image_processor.image_steps = config.image_steps
    check_template(processor)
    warnings = options.get_warnings(base.downsample_ratio)
    report = ConversionReport(used=len(stored), residual=form.residual, warnings=warnings)
    dtype = stored[f"{PROJECTOR}.linear_1.weight"].read().dtype
    with staging_directory(target) as staging:
        writer = ShardWriter(staging, _SHARD_BYTES)
        for done, (name, shape) in enumerate(shapes.items(), 1):
            tensor = form.tensors.get(name)
            if tensor is None:
                is_new = name not in stored
                tensor = init_tensor(name, shape, config, options.seed, dtype) if is_new else stored[name].read()
                report.made += is_new
            writer.add(name, tensor)
            progress(done, len(shapes))
        report.shards, report.nbytes = writer.close()
        config.architectures = base.architectures
        config.save_pretrained(staging)
        processor.save_pretrained(staging)
        for name in _COPIED_FILES:
            if (files.directory / name).exists():
                (staging / name).write_bytes((files.directory / name).read_bytes())
    return report


def _build_target_config(base: PVCConfig, options: Options, files: CheckpointFiles) -> PVCConfig:
    """Build the configuration of the converted model, after checking that `options` fit the base."""
    if options.init != "exact":
        raise ConfigError(f"{files.directory} is a PVC checkpoint: it can be converted with --init exact only")
    if not options.ratio < base.downsample_ratio:
        raise UsageError(
            f"{files.directory} is a PVC checkpoint of ratio {base.downsample_ratio:g}; --ratio must be smaller, not "
            f"{options.ratio:g}"
        )
    if base.image_steps != 1 or base.compressor_norm_groups != 1:
        raise ConfigError(
            f"{files.directory} takes {base.image_steps} steps a picture with compressor_norm_groups "
            f"{base.compressor_norm_groups}; the closed form needs a base with 1 and 1"
        )
    vision, fields = options.get_config_fields(base.downsample_ratio)
    data: dict[str, Any] = base.to_dict()
    base_vision = data["vision_config"]
    if options.temporal_layers is None and base_vision["num_temporal_layers"]:
        vision.pop("num_temporal_layers")
    if options.window is None:
        vision.pop("temporal_window")
    if vision["timestep"] != base_vision["timestep"]:
        vision["timestep_scale"] = None
    return PVCConfig.from_dict({**data, **fields, "vision_config": {**base_vision, **vision}})


def _list_compressor_names(names: Mapping[str, Any]) -> list[str]:
    parts = (f"{PROJECTOR}.norm.modulation.", f"{PROJECTOR}.linear_1.weight", EMBEDDER)
    return [name for name in names if name.startswith(parts)]


def solve_from_pvc(base: PVCConfig, config: PVCConfig, tensors: Mapping[str, torch.Tensor]) -> ClosedForm:
    """Solve for the closed form of a base's compressor at its first timestep, the only one of a model with one step.

    Args:
        base: configuration of the base; one group.
        config: of the converted model.
        tensors: the base's modulation, `linear_1.weight` and timestep embedder by full name.

    Raises:
        ConfigError: as for `closed_form.solve`.
    """
    embedder = {name.removeprefix(f"{EMBEDDER}."): tensor for name, tensor in tensors.items() if EMBEDDER in name}
    first = embed_timesteps([0], float(base.vision_config.timestep_scale or 1.0), embedder)[0]
    weight, bias = (tensors[f"{PROJECTOR}.norm.modulation.{name}"].float() for name in ("weight", "bias"))
    scale, shift = F.linear(first, weight, bias).chunk(2)
    return solve(1 + scale, shift, tensors[f"{PROJECTOR}.linear_1.weight"], config, embedder)


__all__ = ["convert_pvc", "is_pvc", "solve_from_pvc"]
