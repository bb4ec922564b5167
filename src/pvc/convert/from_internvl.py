"""Conversion of an InternVL checkpoint to a PVC one, tensor by tensor.

The key map says where each tensor belongs; tensors that only PVC has are initialised. Shards are written as they fill
up, beside the target, and renamed at the end, so that a failed conversion leaves no files. Comparing the result with
its source is in `verify.py`. Called by `pvc convert`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import GenerationConfig

from pvc.checkpoint.stored import read_values
from pvc.convert import closed_form
from pvc.convert.keymap import Rule, Step, match_rules
from pvc.convert.options import ConversionReport, Options, Progress
from pvc.convert.shards import ShardWriter, refuse_existing, staging_directory
from pvc.convert.source import Source, read_source
from pvc.convert.tokenizer import MEDIA_TOKENS, build_processor, load_tokenizer
from pvc.convert.transforms import TRANSFORMS, Shapes
from pvc.errors import CheckpointError, ConfigError, PVCError, UsageError
from pvc.model.config import PVCConfig
from pvc.model.linear import PROJECTION_STD
from pvc.model.modeling import PVCForConditionalGeneration

_MIN_SHARD_BYTES = 2**29
# safetensors copies what it writes: this fraction of the largest source shard is in memory twice.
_LARGEST_SHARD_FRACTION = 0.4
_NEW_TENSORS = ("norm.modulation.weight", ".temporal.", ".timestep_embedding.")
EMBEDDING, OUTPUT = "model.language_model.embed_tokens.weight", "lm_head.weight"


def build_config(source: Source, options: Options, placeholders: tuple[int, int], vocabulary: int) -> PVCConfig:
    """Build the configuration of the converted model.

    Args:
        source: checkpoint to convert.
        options: settings of the converted model.
        placeholders: ids of the image and the video placeholder token.
        vocabulary: number of tokens in the tokenizer.

    Raises:
        ConfigError: settings that do not fit together, or a model that cannot be built from them.
    """
    try:
        config = _build_config(source, options, placeholders, vocabulary)
        get_expected_shapes(config)
    except PVCError:
        raise
    except Exception as error:  # a malformed config.json can raise any exception in the libraries
        message = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise ConfigError(f"{source.directory}/config.json: {message}") from error
    return config


def _build_config(source: Source, options: Options, placeholders: tuple[int, int], vocabulary: int) -> PVCConfig:
    vision, fields = options.get_config_fields(source.ratio)
    return PVCConfig(
        vision_config={**source.vision, **vision},
        text_config={**source.text, "vocab_size": max(vocabulary, source.text["vocab_size"])},
        image_token_id=placeholders[0],
        video_token_id=placeholders[1],
        projector_hidden_act=source.activation,
        tie_word_embeddings=is_tied(source),
        **fields,
    )


def is_tied(source: Source) -> bool:
    """Return whether the output layer is the input embedding; if both are stored, whether they are equal.

    A configuration may say so by default although the tensors differ. transformers follows the tensors, too.
    """
    stored = {
        target: name
        for step in map_tensors(source)
        for name, target in _get_renames(step)
        if target in (EMBEDDING, OUTPUT)
    }
    if OUTPUT not in stored:
        return True
    if not source.tied or EMBEDDING not in stored:
        return False
    first, second = (
        read_values(source.shard_paths[name], source.tensors[name]) for name in (stored[EMBEDDING], stored[OUTPUT])
    )
    return torch.equal(first, second)


def _get_renames(step: Step) -> list[tuple[str, str]]:
    """Return (source, target) names of a step that only renames tensors."""
    return list(zip(step.sources, step.targets, strict=True)) if step.transform == "same" else []


def convert(
    source: Source | str | Path,
    target: str | Path,
    options: Options | None = None,
    *,
    rules: Sequence[Rule] = (),
    progress: Progress = lambda done, total: None,
) -> ConversionReport:
    """Convert an InternVL checkpoint to a PVC one.

    Args:
        source: directory of the checkpoint, or the result of `read_source`.
        target: directory to write; it must be empty or not exist.
        options: settings of the converted model; None for the defaults.
        rules: key map rules that are tried before those of the source's kind.
        progress: called with the number of converted tensors and the number of all.

    Returns:
        Counts of tensors and bytes, and warnings for the user.

    Raises:
        CheckpointError: the source is damaged, or some tensors have no place; the message names all of them.
        ConfigError: the configuration cannot be converted, or the options do not fit it.
        UsageError: the target exists, or the ratio is larger than the source's.
    """
    options, target = options or Options(), Path(target).resolve()
    refuse_existing(target)
    source = source if isinstance(source, Source) else read_source(Path(source), rules)
    check_ratio(source, options.ratio)
    steps = map_tensors(source)
    tokenizer = load_tokenizer(source)
    image, video = (
        tokenizer.convert_tokens_to_ids(MEDIA_TOKENS[f"{name}_token"]) for name in ("context_image", "video")
    )
    config = build_config(source, options, (image, video), len(tokenizer))
    check_complete(source, steps, config)
    processor, warnings = build_processor(source, tokenizer, config, options.num_frames)
    if source.tied and not config.tie_word_embeddings:
        warnings += (
            "config.json says that the output layer is the embedding, but both are stored and differ: both are kept",
        )
    warnings += options.get_warnings(source.ratio)
    report = ConversionReport(warnings=warnings, added_tokens=config.text_config.vocab_size - source.text["vocab_size"])
    if source.unknown:
        report.warnings += (f"ignored in the language model's configuration: {', '.join(source.unknown)}",)
    with staging_directory(target) as staging:
        _write_tensors(source, steps, config, options, staging, report, progress)
        config.architectures = [PVCForConditionalGeneration.__name__]
        config.save_pretrained(staging)
        GenerationConfig(
            do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
        ).save_pretrained(staging)
        processor.save_pretrained(staging)
    return report


def check_ratio(source: Source, ratio: float) -> None:
    """Raise UsageError if the target `ratio` needs more tokens per frame than the source has."""
    if ratio > source.ratio:
        raise UsageError(f"the source has ratio {source.ratio:g}: its compressor cannot become one of ratio {ratio:g}")


def map_tensors(source: Source) -> list[Step]:
    """Apply the key map to all tensors of a source.

    Raises:
        CheckpointError: some tensors have no place; the message lists them with their shapes.
    """
    steps, unknown = match_rules(source.tensors, source.rules)
    if unknown:
        hint = ""
        if source.kind == "pvc_internvl":
            hint = (
                "; the names of tensors that only published PVC models have are not public: map them with --map "
                "(docs/convert.md)"
            )
        raise CheckpointError(_describe_unmapped(source, unknown, "a PVC model") + hint)
    return steps


def check_complete(source: Source, steps: Sequence[Step], config: PVCConfig) -> None:
    """Check before reading any tensor that the target tensors are exactly those of the configuration.

    Args:
        source: checkpoint to convert.
        steps: result of `map_tensors`.
        config: of the converted model.

    Raises:
        CheckpointError: tensors that the configuration does not have, or tensors that the source lacks.
    """
    expected = set(get_expected_shapes(config)) | ({OUTPUT} if config.tie_word_embeddings else set())
    extra = [name for step in steps for name in step.sources if not expected.issuperset(step.targets)]
    if extra:
        raise CheckpointError(_describe_unmapped(source, extra, "the model that config.json describes"))
    targets = {name for step in steps for name in step.targets} | {OUTPUT}
    missing = sorted(name for name in expected - targets if not any(part in name for part in _NEW_TENSORS))
    if missing:
        raise CheckpointError(f"the source lacks what becomes {', '.join(missing[:5])} ({len(missing)} tensors)")


def _describe_unmapped(source: Source, names: Sequence[str], where: str) -> str:
    listed = ", ".join(f"{name} {list(source.tensors[name].shape)}" for name in names)
    return f"{len(names)} tensors have no place in {where}: {listed}"


def get_shapes(source: Source, ratio: float) -> Shapes:
    """Return the sizes that transforms need to convert `source` to `ratio`."""
    return Shapes(round(1 / source.ratio), round(1 / ratio), *source.fused_heads)


def read_tensor(path: Path, name: str) -> torch.Tensor:
    """Read one tensor of a safetensors file and copy it.

    The copy lets the file be unmapped. Otherwise all pages read so far would count as memory of this process.

    Args:
        path: safetensors file.
        name: of the tensor.

    Raises:
        CheckpointError: the file or the tensor cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            return file.get_tensor(name).clone()
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"cannot read {name} in {path}: {error}") from error


def apply_step(source: Source, step: Step, shapes: Shapes) -> dict[str, torch.Tensor]:
    """Read the source tensors of one step and transform them.

    Args:
        source: checkpoint to convert.
        step: names of the tensors and the transform.
        shapes: result of `get_shapes`.

    Returns:
        Target tensors by name, in the source's dtype; AdaLN's bias stays float32.
    """
    inputs = [read_values(source.shard_paths[name], source.tensors[name]) for name in step.sources]
    outputs = TRANSFORMS[step.transform][0](inputs, shapes)
    if step.transform != "layernorm_to_adaln":
        outputs = [tensor.to(inputs[0].dtype) for tensor in outputs]
    return dict(zip(step.targets, outputs, strict=True))


def _write_tensors(
    source: Source,
    steps: list[Step],
    config: PVCConfig,
    options: Options,
    folder: Path,
    report: ConversionReport,
    progress: Progress,
) -> None:
    missing = get_expected_shapes(config)
    writer = ShardWriter(folder, max(_MIN_SHARD_BYTES, int(_LARGEST_SHARD_FRACTION * source.largest_shard)))
    total, done, dtype = len(missing), 0, torch.float32
    embedder = {
        name: init_tensor(name, missing[name], config, options.seed, dtype)
        for name in missing
        if name.startswith(closed_form.EMBEDDER)
    }
    for name, tensor in convert_tensors(source, steps, config, embedder, report):
        if tensor.shape != missing[name]:
            raise CheckpointError(f"{name} is {list(tensor.shape)}, but config.json requires {list(missing[name])}")
        del missing[name]
        if name == EMBEDDING:
            dtype = tensor.dtype
        writer.add(name, tensor)
        done += 1
        progress(done, total)
    report.used = len(source.tensors)
    for name, shape in missing.items():
        writer.add(name, init_tensor(name, shape, config, options.seed, dtype))
        done += 1
        progress(done, total)
    report.made = len(missing)
    report.shards, report.nbytes = writer.close()


def convert_tensors(
    source: Source,
    steps: Sequence[Step],
    config: PVCConfig,
    embedder: Mapping[str, torch.Tensor],
    report: ConversionReport | None = None,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every target tensor that has a source, except an output layer that repeats the embedding.

    Args:
        source: checkpoint to convert.
        steps: result of `map_tensors`.
        config: of the converted model; with more than one group the compressor gets the closed form.
        embedder: the timestep embedder's tensors by full name, as stored; read for the closed form only.
        report: receives the closed form's residual.

    Yields:
        Name and tensor, as stored in the converted checkpoint.
    """
    shapes = get_shapes(source, config.downsample_ratio)
    is_exact = config.compressor_norm_groups > 1
    if is_exact:
        form = _closed_form(source, steps, config, embedder)
        if report is not None:
            report.residual = form.residual
        yield from form.tensors.items()
    for step in steps:
        if is_exact and step.transform in ("layernorm_to_adaln", "widen"):
            continue
        for name, tensor in apply_step(source, step, shapes).items():
            if name == OUTPUT and config.tie_word_embeddings:
                continue
            if name in (EMBEDDING, OUTPUT):
                tensor = grow_embedding(tensor, config)
            yield name, tensor


def _closed_form(
    source: Source, steps: Sequence[Step], config: PVCConfig, embedder: Mapping[str, torch.Tensor]
) -> closed_form.ClosedForm:
    """Solve for the compressor, from the source's LayerNorm and first linear layer."""
    by_transform = {step.transform: step for step in steps if step.transform in ("layernorm_to_adaln", "widen")}
    if len(by_transform) != 2:
        raise ConfigError("init 'exact' needs a projector of InternVL's form (a LayerNorm and two linear layers)")
    (weight, bias), (linear,) = (
        [read_values(source.shard_paths[name], source.tensors[name]) for name in by_transform[transform].sources]
        for transform in ("layernorm_to_adaln", "widen")
    )
    short_names = {name.removeprefix(f"{closed_form.EMBEDDER}."): tensor for name, tensor in embedder.items()}
    return closed_form.solve(weight, bias, linear, config, short_names)


def grow_embedding(tensor: torch.Tensor, config: PVCConfig) -> torch.Tensor:
    """Add rows to a `(V, L)` embedding or output layer for tokens that the source lacks.

    The new rows are copies of the image placeholder's. Training affects that row the least: visual tokens replace it
    in the input, and it is never generated.

    Args:
        tensor: `(V, L)`.
        config: of the converted model.

    Returns:
        `(vocab_size, L)`, or `tensor` itself if it is large enough.
    """
    missing = config.text_config.vocab_size - len(tensor)
    if missing <= 0:
        return tensor
    row = config.image_token_id if config.image_token_id < len(tensor) else len(tensor) - 1
    return torch.cat((tensor, tensor[row].expand(missing, -1)))


def get_expected_shapes(config: PVCConfig) -> dict[str, torch.Size]:
    """Return name and shape of every tensor that a checkpoint of this configuration must contain."""
    with torch.device("meta"):
        model = PVCForConditionalGeneration(config)
    names = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        names.pop(OUTPUT, None)
    return names


def is_zero_at_start(name: str) -> bool:
    """Return whether a tensor that PVC adds is zero in a new model; zero output layers make a block the identity."""
    return "modulation" in name or name.endswith(".bias") or ".projection_layer." in name


def init_tensor(name: str, shape: torch.Size, config: PVCConfig, seed: int, dtype: torch.dtype) -> torch.Tensor:
    """Initialise a tensor that PVC adds, as a new model does: zero where a block starts as the identity.

    Args:
        name: full name; together with `seed` it determines the random numbers.
        shape: of the tensor.
        config: of the converted model.
        seed: of the conversion.
        dtype: of the result; modulations and the timestep embedder are float32 regardless.
    """
    if "modulation" in name or "timestep_embedding" in name:  # float32 at every precision of the model
        dtype = torch.float32
    if is_zero_at_start(name):
        return torch.zeros(shape, dtype=dtype)
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()  # independent of the order of tensors
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    # Not the source's initializer_range: official configurations have 1e-10, because weights are always loaded.
    spread = shape[-1] ** -0.5 if "timestep_embedding" in name else PROJECTION_STD
    return (torch.randn(shape, generator=generator) * spread).to(dtype)


__all__ = [
    "EMBEDDING",
    "OUTPUT",
    "apply_step",
    "build_config",
    "check_complete",
    "check_ratio",
    "convert",
    "convert_tensors",
    "get_expected_shapes",
    "get_shapes",
    "grow_embedding",
    "init_tensor",
    "is_tied",
    "is_zero_at_start",
    "map_tensors",
    "read_tensor",
]
