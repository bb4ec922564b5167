"""The way back: a PVC checkpoint without temporal layers to transformers' InternVL format.

Refuses what InternVL cannot say: temporal layers, timesteps that matter, a ratio other than 1/2. Called by `run.py`'s
callers; the key map is read from the right.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from transformers import InternVLConfig

from pvc.checkpoint.files import CheckpointFiles, read_header
from pvc.checkpoint.loading import load_config, load_processor
from pvc.convert.keymap import BACK, plan
from pvc.convert.run import Progress, Report, Shards, read_tensor, refuse_existing, staged
from pvc.convert.transforms import TRANSFORMS, Shapes
from pvc.errors import CheckpointError, ConfigError
from pvc.model.config import PVCConfig

RATIO = 0.5
_LINEAR = "model.multi_modal_projector.linear_1.weight"
_EXTRA = ("timestep_embedding", "norm.modulation.weight")
_SHARD = 2**31


def convert_back(source: str | Path, target: str | Path, *, progress: Progress = lambda done, total: None) -> Report:
    """Write an `internvl` checkpoint, as transformers reads it, of a PVC one that adds nothing to InternVL.

    Raises:
        ConfigError: temporal layers, a ratio other than 1/2, or a compressor that depends on the timestep.
        CheckpointError: a damaged source.
        UsageError: the target exists.
    """
    target = Path(target).resolve()
    refuse_existing(target)
    files = CheckpointFiles(source)
    config = load_config(files)
    temporal = config.vision_config.num_temporal_layers
    if temporal:
        raise ConfigError(f"num_temporal_layers is {temporal}: InternVL has no temporal layers")
    if config.downsample_ratio != RATIO:
        raise ConfigError(f"downsample_ratio is {config.downsample_ratio}: InternVL's is {RATIO}")
    places = {tensor.name: shard for shard in files.shards for tensor in read_header(shard)[0]}
    modulation = "model.multi_modal_projector.norm.modulation.weight"
    if modulation in places and bool(read_tensor(places[modulation], modulation).any()):
        raise ConfigError(
            "the compressor depends on the timestep (norm.modulation.weight is not zero): InternVL's cannot"
        )
    kept = [name for name in places if not any(part in name for part in _EXTRA)]
    steps, unknown = plan(kept, BACK, inverse=True)
    if unknown:
        raise CheckpointError(f"tensors without a place in InternVL: {', '.join(unknown[:5])}")
    report = Report(used=len(kept))
    with staged(target) as staging:
        shards = Shards(staging, _SHARD)
        dtype = read_tensor(places[_LINEAR], _LINEAR).dtype
        for number, step in enumerate(steps):
            given = [read_tensor(places[name], name) for name in step.sources]
            made = TRANSFORMS[step.how][1](given, Shapes())
            if step.how == "affine":  # PVC keeps it in float32 whatever the rest is
                made = [tensor.to(dtype) for tensor in made]
            for name, tensor in zip(step.targets, made, strict=True):
                shards.add(name, tensor)
            progress(number + 1, len(steps))
        report.shards, report.nbytes = shards.close()
        _write_settings(files, config, staging)
    return report


def _write_settings(files: CheckpointFiles, own_config: PVCConfig, folder: Path) -> None:
    """Configuration and tokenizer under InternVL's names, and what transformers' processor reads."""
    processor = load_processor(files)
    config = own_config.to_dict()
    own = {"num_temporal_layers", "temporal_window", "timestep", "timestep_scale", "timestep_limit", "model_type"}
    vision = {key: value for key, value in config["vision_config"].items() if key not in own}
    InternVLConfig(
        vision_config=vision,
        text_config=config["text_config"],
        image_token_id=config["image_token_id"],
        image_seq_length=processor.tokens_per_frame,
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


__all__ = ["convert_back"]
