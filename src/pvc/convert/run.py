"""Converts a checkpoint, tensor by tensor: the key map's plan, new tensors for what PVC adds, shards as they fill up.

Nothing is left of an attempt that fails: files are written beside the target and renamed at the end. Leaves out what is
compared afterwards (`check.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import GenerationConfig

from pvc.checkpoint.stored import read_values
from pvc.convert.keymap import Rule, Step, plan
from pvc.convert.sources import Source, read_source
from pvc.convert.text import MEDIA_TOKENS, build_processor, load_tokenizer
from pvc.convert.transforms import TRANSFORMS, Shapes
from pvc.errors import CheckpointError, ConfigError, PVCError, UsageError
from pvc.model.config import PVCConfig
from pvc.model.modeling import PVCForConditionalGeneration

_SMALLEST_SHARD = 2**29
# safetensors copies what it writes, so that so much of the largest source shard is held twice.
_PART_OF_LARGEST = 0.4
_NEW = ("norm.modulation.weight", ".temporal.", ".timestep_embedding.")
EMBEDDING, OUTPUT = "model.language_model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True)
class Options:
    """What a converted model is to be.

    Attributes:
        temporal_layers: of the tower, from the top; None: a third of them.
        ratio: downsample ratio. timestep: "index" or "relative". window: temporal window, or None.
        image_steps: steps of a picture. num_frames: of a video, where nothing else is asked for.
        seed: of the new temporal blocks' weights.
    """

    temporal_layers: int | None = None
    ratio: float = 0.25
    timestep: str = "index"
    window: int | None = None
    image_steps: int = 4
    num_frames: int = 16
    seed: int = 0


@dataclass
class Report:
    """What was done: counts of tensors, bytes written, and warnings."""

    used: int = 0
    made: int = 0
    nbytes: int = 0
    added_tokens: int = 0
    warnings: tuple[str, ...] = ()
    shards: list[str] = field(default_factory=list)


Progress = Callable[[int, int], None]


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
    vision = {
        **source.vision,
        "num_temporal_layers": options.temporal_layers,
        "timestep": options.timestep,
        "temporal_window": options.window,
    }
    return PVCConfig(
        vision_config=vision,
        text_config={**source.text, "vocab_size": max(vocabulary, source.text["vocab_size"])},
        image_token_id=placeholders[0],
        video_token_id=placeholders[1],
        downsample_ratio=options.ratio,
        image_steps=options.image_steps,
        projector_hidden_act=source.activation,
        tie_word_embeddings=is_tied(source),
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
    return list(zip(step.sources, step.targets, strict=True)) if step.how == "same" else []


def convert(
    source: Source | str | Path,
    target: str | Path,
    options: Options | None = None,
    *,
    rules: Sequence[Rule] = (),
    progress: Progress = lambda done, total: None,
) -> Report:
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
    report = Report(warnings=warnings, added_tokens=config.text_config.vocab_size - source.text["vocab_size"])
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


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its place when the block is done, and is gone when it fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield staging
        staging.chmod(0o755)  # mkdtemp's are for the owner alone
        if target.exists():
            target.rmdir()
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def refuse_existing(target: Path) -> None:
    """Raise UsageError unless `target` can be made."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists already")


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
    made = TRANSFORMS[step.how][0](given, shapes)
    if step.how != "affine":
        made = [tensor.to(given[0].dtype) for tensor in made]
    return dict(zip(step.targets, made, strict=True))


def _write_tensors(
    source: Source,
    steps: list[Step],
    config: PVCConfig,
    options: Options,
    folder: Path,
    report: Report,
    progress: Progress,
) -> None:
    wanted = shapes_wanted(config)
    shard = Shards(folder, max(_SMALLEST_SHARD, int(_PART_OF_LARGEST * source.largest_shard)))
    total, done, dtype = len(wanted), 0, torch.float32
    for name, tensor in mapped_tensors(source, steps, config, options.ratio):
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
    source: Source, steps: Sequence[Step], config: PVCConfig, ratio: float
) -> Iterator[tuple[str, torch.Tensor]]:
    """Every target tensor that has a source, an output layer that repeats the embedding left out."""
    shapes = shapes_of(source, ratio)
    for step in steps:
        for name, tensor in transformed(source, step, shapes).items():
            if name == OUTPUT and config.tie_word_embeddings:
                continue
            if name in (EMBEDDING, OUTPUT):
                tensor = grown(tensor, config)
            yield name, tensor


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
    if starts_at_zero(name):  # modulations are float32 whatever the model's precision
        return torch.zeros(shape, dtype=torch.float32 if "modulation" in name else dtype)
    mixed = hashlib.sha256(f"{seed} {name}".encode()).digest()  # the same whatever the order of tensors
    generator = torch.Generator().manual_seed(int.from_bytes(mixed[:7], "little"))
    spread = config.vision_config.initializer_range
    return (torch.randn(shape, generator=generator) * spread).to(dtype)


class Shards:
    """Tensors to files of bounded size, with their index."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.kept: dict[str, torch.Tensor] = {}
        self.size = self.total = 0
        self.files: list[list[str]] = []

    def add(self, name: str, tensor: torch.Tensor) -> None:
        nbytes = tensor.numel() * tensor.element_size()
        if self.kept and self.size + nbytes > self.limit:
            self._write()
        self.kept[name] = tensor.contiguous()
        self.size += nbytes

    def _write(self) -> None:
        path = self.folder / f"{len(self.files)}.part"
        try:
            save_file(self.kept, path, metadata={"format": "pt"})
        except SafetensorError as error:  # a full disk, for one: it is no OSError there
            raise CheckpointError(f"cannot write {path}: {error}") from error
        self.files.append(list(self.kept))
        self.total += self.size
        self.kept, self.size = {}, 0

    def close(self) -> tuple[list[str], int]:
        """Names of the files and bytes of all tensors."""
        if self.kept:
            self._write()
        count = len(self.files)
        names = [f"model-{n + 1:05d}-of-{count:05d}.safetensors" for n in range(count)]
        if count == 1:
            names = ["model.safetensors"]
        for number, name in enumerate(names):
            part = self.folder / f"{number}.part"
            part.chmod(0o644)
            part.rename(self.folder / name)
        if count > 1:
            places = {tensor: name for name, own in zip(names, self.files, strict=True) for tensor in own}
            index = {"metadata": {"total_size": self.total}, "weight_map": places}
            (self.folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
        return names, self.total


__all__ = [
    "EMBEDDING",
    "OUTPUT",
    "Options",
    "Progress",
    "Report",
    "Shards",
    "config_of",
    "convert",
    "mapped_tensors",
    "planned",
    "read_tensor",
    "refuse_existing",
    "shapes_of",
    "shapes_wanted",
    "staged",
    "starts_at_zero",
    "transformed",
]
