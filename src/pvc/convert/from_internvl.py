"""Converts a checkpoint, tensor by tensor: the key map's plan, new tensors for what PVC adds, shards as they fill up.

Nothing is left of an attempt that fails: files are written beside the target and renamed at the end. Leaves out what is
compared afterwards (`verify.py`).
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
from pvc.convert.keymap import Rule, Step, plan
from pvc.convert.options import ConversionReport, Options, Progress
from pvc.convert.shards import Shards, refuse_existing, staged
from pvc.convert.source import Source, read_source
from pvc.convert.tokenizer import MEDIA_TOKENS, build_processor, load_tokenizer
from pvc.convert.transforms import TRANSFORMS, Shapes
from pvc.errors import CheckpointError, ConfigError, PVCError, UsageError
from pvc.model.config import PVCConfig
from pvc.model.linear import PROJECTION_STD
from pvc.model.modeling import PVCForConditionalGeneration

_SMALLEST_SHARD = 2**29
# safetensors copies what it writes, so that so much of the largest source shard is held twice.
_PART_OF_LARGEST = 0.4
_NEW = ("norm.modulation.weight", ".temporal.", ".timestep_embedding.")
EMBEDDING, OUTPUT = "model.language_model.embed_tokens.weight", "lm_head.weight"


def config_of(source: Source, options: Options, placeholders: tuple[int, int], vocabulary: int) -> PVCConfig:
    """Configuration of the converted model; `placeholders` are the ids of images and videos.

    Raises:
        ConfigError: what does not fit together, or cannot be built.
    """
    try:
        config = _config_of(source, options, placeholders, vocabulary)
        shapes_wanted(config)
    except PVCError:
        raise
    except Exception as error:  # whatever a hostile or clumsy file provokes in the libraries is the file's fault
        told = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise ConfigError(f"{source.directory}/config.json: {told}") from error
    return config


def _config_of(source: Source, options: Options, placeholders: tuple[int, int], vocabulary: int) -> PVCConfig:
    vision, whole = options.config_fields(source.ratio)
    return PVCConfig(
        vision_config={**source.vision, **vision},
        text_config={**source.text, "vocab_size": max(vocabulary, source.text["vocab_size"])},
        image_token_id=placeholders[0],
        video_token_id=placeholders[1],
        projector_hidden_act=source.activation,
        tie_word_embeddings=is_tied(source),
        **whole,
    )


def is_tied(source: Source) -> bool:
    """Whether the output layer is the input embedding: where both are stored, whether they are equal.

    A configuration may say so by default and be wrong: transformers then goes by the tensors, too.
    """
    stored = {
        target: name for step in planned(source) for name, target in _pairs(step) if target in (EMBEDDING, OUTPUT)
    }
    if OUTPUT not in stored:
        return True
    if not source.tied or EMBEDDING not in stored:
        return False
    first, second = (
        read_values(source.places[name], source.tensors[name]) for name in (stored[EMBEDDING], stored[OUTPUT])
    )
    return torch.equal(first, second)


def _pairs(step: Step) -> list[tuple[str, str]]:
    """(source, target) of a step that changes nothing but the name."""
    return list(zip(step.sources, step.targets, strict=True)) if step.transform == "same" else []


def convert(
    source: Source | str | Path,
    target: str | Path,
    options: Options | None = None,
    *,
    rules: Sequence[Rule] = (),
    progress: Progress = lambda done, total: None,
) -> ConversionReport:
    """Write a PVC checkpoint made from an InternVL one.

    Args:
        source: directory, or what `read_source` made of it.
        target: directory that is not there yet, or is empty.
        rules: beside the source kind's own, tried first.
        progress: called with how many tensors are done, and of how many.

    Raises:
        CheckpointError: the source is damaged, or some of its tensors have no place; all of them are named.
        ConfigError: a configuration that cannot be converted, or options that do not fit it.
        UsageError: the target exists.
    """
    options, target = options or Options(), Path(target).resolve()
    refuse_existing(target)
    source = source if isinstance(source, Source) else read_source(Path(source), rules)
    check_ratio(source, options.ratio)
    steps = planned(source)
    tokenizer = load_tokenizer(source)
    image, video = (
        tokenizer.convert_tokens_to_ids(MEDIA_TOKENS[f"{what}_token"]) for what in ("context_image", "video")
    )
    config = config_of(source, options, (image, video), len(tokenizer))
    check_complete(source, steps, config)
    processor, warnings = build_processor(source, tokenizer, config, options.num_frames)
    if source.tied and not config.tie_word_embeddings:
        warnings += (
            "config.json says that the output layer is the embedding, but both are stored and differ: kept apart",
        )
    warnings += options.warnings(source.ratio)
    report = ConversionReport(warnings=warnings, added_tokens=config.text_config.vocab_size - source.text["vocab_size"])
    if source.unknown:
        report.warnings += (f"passed over in the language model's configuration: {', '.join(source.unknown)}",)
    with staged(target) as staging:
        _write_tensors(source, steps, config, options, staging, report, progress)
        config.architectures = [PVCForConditionalGeneration.__name__]
        config.save_pretrained(staging)
        GenerationConfig(
            do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
        ).save_pretrained(staging)
        processor.save_pretrained(staging)
    return report


def check_ratio(source: Source, ratio: float) -> None:
    """Raise UsageError for a target ratio that takes more tokens than the source has."""
    if ratio > source.ratio:
        raise UsageError(f"the source has ratio {source.ratio:g}: its compressor cannot become one of ratio {ratio:g}")


def planned(source: Source) -> list[Step]:
    """Every tensor's place. Raises CheckpointError that names all which have none, with their shapes."""
    steps, unknown = plan(source.tensors, source.rules)
    if unknown:
        hint = ""
        if source.kind == "pvc_internvl":
            hint = (
                "; the names of a published PVC model's own tensors are not public: say where they belong with --map "
                "(docs/convert.md)"
            )
        raise CheckpointError(_without_place(source, unknown, "a PVC model") + hint)
    return steps


def check_complete(source: Source, steps: Sequence[Step], config: PVCConfig) -> None:
    """Raise CheckpointError, before anything is read, for tensors that config.json does not ask for, or that lack."""
    wanted = set(shapes_wanted(config)) | ({OUTPUT} if config.tie_word_embeddings else set())
    extra = [name for step in steps for name in step.sources if not wanted.issuperset(step.targets)]
    if extra:
        raise CheckpointError(_without_place(source, extra, "the model that config.json describes"))
    made = {name for step in steps for name in step.targets} | {OUTPUT}
    missing = sorted(name for name in wanted - made if not any(part in name for part in _NEW))
    if missing:
        raise CheckpointError(f"the source lacks what becomes {', '.join(missing[:5])} ({len(missing)} tensors)")


def _without_place(source: Source, names: Sequence[str], where: str) -> str:
    listed = ", ".join(f"{name} {list(source.tensors[name].shape)}" for name in names)
    return f"{len(names)} tensors have no place in {where}: {listed}"


def shapes_of(source: Source, ratio: float) -> Shapes:
    return Shapes(round(1 / source.ratio), round(1 / ratio), *source.fused_heads)


def read_tensor(path: Path, name: str) -> torch.Tensor:
    """One tensor, copied: the file is not kept mapped, or all that was read of it would count as ours."""
    try:
        with safe_open(path, "pt") as file:
            return file.get_tensor(name).clone()
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"cannot read {name} in {path}: {error}") from error


def transformed(source: Source, step: Step, shapes: Shapes) -> dict[str, torch.Tensor]:
    """What one step makes of the source's tensors, in the precision that PVC keeps them in."""
    given = [read_values(source.places[name], source.tensors[name]) for name in step.sources]
    made = TRANSFORMS[step.transform][0](given, shapes)
    if step.transform != "layernorm_to_adaln":
        made = [tensor.to(given[0].dtype) for tensor in made]
    return dict(zip(step.targets, made, strict=True))


def _write_tensors(
    source: Source,
    steps: list[Step],
    config: PVCConfig,
    options: Options,
    folder: Path,
    report: ConversionReport,
    progress: Progress,
) -> None:
    wanted = shapes_wanted(config)
    shard = Shards(folder, max(_SMALLEST_SHARD, int(_PART_OF_LARGEST * source.largest_shard)))
    total, done, dtype = len(wanted), 0, torch.float32
    embedder = {
        name: fresh(name, wanted[name], config, options.seed, dtype)
        for name in wanted
        if name.startswith(closed_form.EMBEDDER)
    }
    for name, tensor in mapped_tensors(source, steps, config, embedder, report):
        if tensor.shape != wanted[name]:
            raise CheckpointError(f"{name} is {list(tensor.shape)}, but config.json asks for {list(wanted[name])}")
        del wanted[name]
        if name == EMBEDDING:
            dtype = tensor.dtype
        shard.add(name, tensor)
        done += 1
        progress(done, total)
    report.used = len(source.tensors)
    for name, shape in wanted.items():
        shard.add(name, fresh(name, shape, config, options.seed, dtype))
        done += 1
        progress(done, total)
    report.made = len(wanted)
    report.shards, report.nbytes = shard.close()


def mapped_tensors(
    source: Source,
    steps: Sequence[Step],
    config: PVCConfig,
    embedder: Mapping[str, torch.Tensor],
    report: ConversionReport | None = None,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every target tensor that has a source, except an output layer that repeats the embedding.

    Args:
        source, steps: what is converted, and where its tensors belong.
        config: of the converted model; with more than one group the compressor gets the closed form.
        embedder: the timestep embedder's tensors by their full names, as stored; read for the closed form only.
        report: takes the closed form's residual.
    """
    shapes = shapes_of(source, config.downsample_ratio)
    exact = config.compressor_norm_groups > 1
    if exact:
        form = _closed_form(source, steps, config, embedder)
        if report is not None:
            report.residual = form.residual
        yield from form.tensors.items()
    for step in steps:
        if exact and step.transform in ("layernorm_to_adaln", "widen"):
            continue
        for name, tensor in transformed(source, step, shapes).items():
            if name == OUTPUT and config.tie_word_embeddings:
                continue
            if name in (EMBEDDING, OUTPUT):
                tensor = grown(tensor, config)
            yield name, tensor


def _closed_form(
    source: Source, steps: Sequence[Step], config: PVCConfig, embedder: Mapping[str, torch.Tensor]
) -> closed_form.ClosedForm:
    """Solve for the compressor, from the source's LayerNorm and first linear layer."""
    found = {step.transform: step for step in steps if step.transform in ("layernorm_to_adaln", "widen")}
    if len(found) != 2:
        raise ConfigError("init 'exact' needs a projector of InternVL's form (a LayerNorm and two linear layers)")
    (weight, bias), (linear,) = (
        [read_values(source.places[name], source.tensors[name]) for name in found[transform].sources]
        for transform in ("layernorm_to_adaln", "widen")
    )
    named = {name.removeprefix(f"{closed_form.EMBEDDER}."): tensor for name, tensor in embedder.items()}
    return closed_form.solve(weight, bias, linear, config, named)


def grown(tensor: torch.Tensor, config: PVCConfig) -> torch.Tensor:
    """`(V, L)` with rows for tokens that the source did not know: those of the image placeholder.

    Of all rows it is the one that training has least to do with: visual tokens take its place, and it is never said.
    """
    missing = config.text_config.vocab_size - len(tensor)
    if missing <= 0:
        return tensor
    row = config.image_token_id if config.image_token_id < len(tensor) else len(tensor) - 1
    return torch.cat((tensor, tensor[row].expand(missing, -1)))


def shapes_wanted(config: PVCConfig) -> dict[str, torch.Size]:
    """Names and shapes of every tensor that a checkpoint of this configuration has to hold."""
    with torch.device("meta"):
        model = PVCForConditionalGeneration(config)
    names = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        names.pop(OUTPUT, None)
    return names


def starts_at_zero(name: str) -> bool:
    """Return whether a tensor that PVC adds is zero in a fresh model, as is what makes a block the identity."""
    return "modulation" in name or name.endswith(".bias") or ".projection_layer." in name


def fresh(name: str, shape: torch.Size, config: PVCConfig, seed: int, dtype: torch.dtype) -> torch.Tensor:
    """A tensor that PVC adds, as its own initialisation makes it: zero where a block starts as the identity."""
    if "modulation" in name or "timestep_embedding" in name:  # float32 whatever the model's precision
        dtype = torch.float32
    if starts_at_zero(name):
        return torch.zeros(shape, dtype=dtype)
    mixed = hashlib.sha256(f"{seed} {name}".encode()).digest()  # the same whatever the order of tensors
    generator = torch.Generator().manual_seed(int.from_bytes(mixed[:7], "little"))
    # Not the source's initializer_range: official configurations have 1e-10, because weights are always loaded.
    spread = shape[-1] ** -0.5 if "timestep_embedding" in name else PROJECTION_STD
    return (torch.randn(shape, generator=generator) * spread).to(dtype)


__all__ = [
    "EMBEDDING",
    "OUTPUT",
    "config_of",
    "convert",
    "mapped_tensors",
    "planned",
    "read_tensor",
    "shapes_of",
    "shapes_wanted",
    "starts_at_zero",
    "transformed",
]
