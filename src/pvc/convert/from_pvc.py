"""A PVC checkpoint with one step and no compression over time, to one at a smaller ratio in closed form.

The base is what our own recipes train first: ratio 1/2, one step, temporal blocks that are the identity, or none. Every
tensor but the compressor's is copied. Called by `pvc convert`.
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
from pvc.convert.from_internvl import fresh, shapes_wanted
from pvc.convert.options import ConversionReport, Options, Progress
from pvc.convert.shards import Shards, refuse_existing, staged
from pvc.convert.to_internvl import refuse_trained_blocks
from pvc.errors import CheckpointError, ConfigError, UsageError
from pvc.model.config import PVCConfig

_SHARD = 2**31
_COPIED = ("generation_config.json",)


def is_pvc(directory: Path) -> bool:
    """Return whether a directory's config.json is that of a PVC model."""
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
        target: directory that does not exist, or is empty.
        options: as for a conversion from InternVL; `init` must be "exact".
        progress: called with the number of tensors that are done, and of all.

    Raises:
        ConfigError: the base takes several steps, its temporal blocks have been trained, or options do not fit it.
        CheckpointError: the base is damaged.
        UsageError: the target exists, or the ratio is not smaller.
    """
    options, target = options or Options(), Path(target).resolve()
    refuse_existing(target)
    files = CheckpointFiles(source)
    base, processor = load_config(files), load_processor(files)
    config = _target_config(base, options, files)
    stored = stored_tensors(files)
    refuse_trained_blocks({name: tensor.path for name, tensor in stored.items()})
    wanted = shapes_wanted(config)
    missing = sorted(name for name in wanted.keys() - stored.keys() if ".temporal." not in name)
    if missing:
        raise CheckpointError(f"{files.directory} lacks {', '.join(missing[:3])} ({len(missing)} tensors)")
    form = solve_from_pvc(base, config, {name: stored[name].read() for name in _projector_names(stored)})
    processor.tokens_per_frame = config.tokens_per_frame
    processor.image_processor.image_steps = config.image_steps
    check_template(processor)
    warnings = options.warnings(base.downsample_ratio)
    report = ConversionReport(used=len(stored), residual=form.residual, warnings=warnings)
    dtype = stored[f"{PROJECTOR}.linear_1.weight"].read().dtype
    with staged(target) as staging:
        shards = Shards(staging, _SHARD)
        for done, (name, shape) in enumerate(wanted.items(), 1):
            tensor = form.tensors.get(name)
            if tensor is None:
                made = name not in stored
                tensor = fresh(name, shape, config, options.seed, dtype) if made else stored[name].read()
                report.made += made
            shards.add(name, tensor)
            progress(done, len(wanted))
        report.shards, report.nbytes = shards.close()
        config.architectures = base.architectures
        config.save_pretrained(staging)
        processor.save_pretrained(staging)
        for name in _COPIED:
            if (files.directory / name).exists():
                (staging / name).write_bytes((files.directory / name).read_bytes())
    return report


def _target_config(base: PVCConfig, options: Options, files: CheckpointFiles) -> PVCConfig:
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
    vision, whole = options.config_fields(base.downsample_ratio)
    data: dict[str, Any] = base.to_dict()
    own = data["vision_config"]
    if options.temporal_layers is None and own["num_temporal_layers"]:
        vision.pop("num_temporal_layers")
    if options.window is None:
        vision.pop("temporal_window")
    if vision["timestep"] != own["timestep"]:
        vision["timestep_scale"] = None
    return PVCConfig.from_dict({**data, **whole, "vision_config": {**own, **vision}})


def _projector_names(names: Mapping[str, Any]) -> list[str]:
    parts = (f"{PROJECTOR}.norm.modulation.", f"{PROJECTOR}.linear_1.weight", EMBEDDER)
    return [name for name in names if name.startswith(parts)]


def solve_from_pvc(base: PVCConfig, config: PVCConfig, tensors: Mapping[str, torch.Tensor]) -> ClosedForm:
    """Solve for the closed form of a base's compressor at its first timestep, which is all that one step shows.

    Args:
        base: configuration of the base; one group.
        config: of the converted model.
        tensors: the base's modulation, `linear_1.weight` and timestep embedder by their full names.

    Raises:
        ConfigError: as `closed_form.solve` does.
    """
    embedder = {name.removeprefix(f"{EMBEDDER}."): tensor for name, tensor in tensors.items() if EMBEDDER in name}
    first = embed_timesteps([0], float(base.vision_config.timestep_scale or 1.0), embedder)[0]
    weight, bias = (tensors[f"{PROJECTOR}.norm.modulation.{name}"].float() for name in ("weight", "bias"))
    scale, shift = F.linear(first, weight, bias).chunk(2)
    return solve(1 + scale, shift, tensors[f"{PROJECTOR}.linear_1.weight"], config, embedder)


__all__ = ["convert_pvc", "is_pvc", "solve_from_pvc"]
