"""Visual states: what a picture or video was encoded to, kept in a file, asked about and continued in another process.

A state knows the checkpoint and the settings that it is of, by fingerprint, and is refused by any other. Continuing
gives the bits that an uninterrupted run of the same chunks, threads and dtype gives: the cache is stored as it is.
Leaves out the file's header (`pvc.checkpoint.state_file`) and live input (`live.py`).

n visual tokens, K tokens per frame and step, L language width.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import pvc
from pvc.checkpoint.precision import DTYPES
from pvc.checkpoint.state_file import FORMAT, KEY, SUFFIX, TOKENS, StateFile, open_state
from pvc.engine.encode import EncodedMedia, encode_frames, encode_picture
from pvc.engine.options import MediaOptions
from pvc.errors import CheckpointError, MediaError, MismatchError, UsageError
from pvc.media import Picture, Video
from pvc.model.cache import TemporalCache
from pvc.model.modeling import PVCForConditionalGeneration
from pvc.processing.processor import PVCProcessor

# Of the tower's configuration, what visual tokens depend on. Added later, and left out where they are at the default,
# so that fingerprints of older checkpoints stay what they were: `_ADDED`.
_VISION = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "image_size", "patch_size"),
    *("num_channels", "hidden_act", "layer_norm_eps", "norm_type", "use_qk_norm", "use_mean_pooling", "attention_bias"),
    *("num_temporal_layers", "temporal_window", "timestep", "timestep_scale", "timestep_limit"),
)
_ADDED = {"timestep_period": None}
_SHOWN = 12  # digits of a fingerprint in messages


class CheckpointIdentity(Protocol):
    """What makes states and reads them: a loaded checkpoint. `Encoder` is one."""

    model: PVCForConditionalGeneration
    processor: PVCProcessor

    @property
    def name(self) -> str:
        """Name of the checkpoint, for messages."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights and the configuration that visual tokens come from."""
        ...


@dataclass(frozen=True)
class VisualState:
    """One picture or video as the language model sees it, and what is needed to go on with it.

    Attributes:
        media: visual tokens with their bookkeeping.
        cache: what the temporal blocks remember; None for a picture, for a video that was finished, and for
            checkpoints with relative timesteps, which cannot be continued.
        checkpoint: fingerprint of the weights and the configuration that made the tokens.
        settings: how frames were prepared, and the precision.
        sources: for every file (or value) that frames came from: name, SHA-256, times and decoder.
        chunks: frames per call of the tower; another chunking gives the same tokens but for rounding.
    """

    media: EncodedMedia
    cache: TemporalCache | None
    checkpoint: str
    settings: dict[str, Any]
    sources: tuple[dict[str, Any], ...]
    chunks: tuple[int, ...] = ()

    @property
    def kind(self) -> str:
        return self.media.kind

    @property
    def name(self) -> str:
        return self.media.name

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.media.warnings

    @property
    def nbytes(self) -> int:
        """Bytes of tokens and cache."""
        own = self.media.tokens.numel() * self.media.tokens.element_size()
        return own + (0 if self.cache is None else self.cache.nbytes)

    def save(self, path: str | Path, *, cache: bool = True) -> Path:
        """Write the state to a file, whole or not at all.

        Args:
            path: must end in .pvc.
            cache: whether to write the temporal cache, too. Without it the file is smaller and cannot be continued.

        Raises:
            UsageError: another suffix, which `pvc ask` would not know.
        """
        path = Path(path)
        if path.suffix.lower() != SUFFIX:
            raise UsageError(f"a visual state is a file that ends in {SUFFIX}, not {path}")
        stored = self.cache if cache else None
        tensors = {TOKENS: self.media.tokens.cpu().contiguous()}
        if stored is not None:
            for part, layers in (("keys", stored.keys), ("values", stored.values)):
                tensors |= {f"cache.{part}.{layer}": tensor.cpu().contiguous() for layer, tensor in enumerate(layers)}
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = path.with_name(f"{path.name}.part")
        save_file(tensors, staging, metadata={KEY: json.dumps(self._manifest(stored))})
        with staging.open("rb") as written:
            os.fsync(written.fileno())
        staging.chmod(0o666 & ~_umask())  # safetensors writes for the owner alone
        staging.replace(path)
        return path

    def _manifest(self, cache: TemporalCache | None) -> dict[str, Any]:
        kept = None if cache is None else {"layers": len(cache.keys), "steps": cache.steps, "window": cache.window}
        return {
            "format": FORMAT,
            "pvc": pvc.__version__,
            "checkpoint": self.checkpoint,
            "settings": self.settings,
            "kind": self.media.kind,
            "name": self.sources[0]["name"],
            "timestamps": list(self.media.timestamps),
            "tiles": self.media.tiles,
            "steps": self.media.steps,
            "sources": list(self.sources),
            "chunks": list(self.chunks),
            "cache": kept,
            "warnings": list(self.media.warnings),
        }


def fingerprint(model: PVCForConditionalGeneration, rounded: bool = False) -> str:
    """SHA-256 of everything that visual tokens come from: tower, compressor and their configuration.

    The language model is left out: any of the same width can read the tokens, for better or worse; what it makes of
    them is its own matter. Weights count as they are loaded, so that another precision is another checkpoint;
    `rounded` ones count as bfloat16, so that it is the same one.
    """
    digest = hashlib.sha256()
    vision = model.config.vision_config
    shape = {name: getattr(vision, name, None) for name in _VISION}
    shape |= {name: getattr(vision, name) for name, default in _ADDED.items() if getattr(vision, name) != default}
    whole = [shape, model.config.downsample_ratio]
    if (groups := model.config.compressor_norm_groups) != 1:
        whole.append({"compressor_norm_groups": groups})
    if (order := model.config.image_token_order) != "step":
        whole.append({"image_token_order": order})
    digest.update(json.dumps(whole, sort_keys=True, default=str).encode())
    parts = (("tower", model.model.vision_tower), ("projector", model.model.multi_modal_projector))
    for part, module in parts:
        for name, tensor in sorted(module.state_dict().items()):
            tensor = tensor.to(torch.bfloat16) if rounded else tensor
            digest.update(f"{part}.{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def visual_settings(model: PVCForConditionalGeneration, processor: PVCProcessor, kind: str) -> dict[str, Any]:
    """How frames of one kind are prepared, as JSON values: what two states must share to be of one making."""
    own = processor.video_processor if kind == "video" else processor.image_processor
    settings = {name: getattr(own, name) for name in ("image_mean", "image_std", "rescale_factor")}
    tiling = {} if kind == "video" else {"min_patches": own.min_patches, "crop_to_patches": own.crop_to_patches}
    if kind == "image":  # only where they differ from the defaults: states from before these settings stay valid
        tiling |= {"use_thumbnail": False} if not own.use_thumbnail else {}
        tiling |= {"pad2square": True} if own.pad2square else {}
    return {
        **{name: list(value) if isinstance(value, (list, tuple)) else value for name, value in settings.items()},
        "size": [int(side) for side in (dict(own.size)["height"], dict(own.size)["width"])],
        "resample": int(own.resample),
        **tiling,
        "tokens_per_frame": processor.tokens_per_frame,
        "dtype": str(model.dtype).removeprefix("torch."),
    }


def _digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def encode_state(
    encoder: CheckpointIdentity, opened: Picture | Video, options: MediaOptions, sha256: str | None
) -> VisualState:
    """Encode an opened medium to a state; `sha256` is of the file it is from."""
    made: dict[str, Any] = {
        "checkpoint": encoder.fingerprint,
        "settings": visual_settings(encoder.model, encoder.processor, opened.kind),
        "sources": (_source(opened, sha256),),
    }
    if isinstance(opened, Picture):
        picture = encode_picture(encoder.model, encoder.processor, opened, options.image_options)
        return VisualState(picture, None, **made)
    relative = encoder.model.config.vision_config.timestep == "relative"
    total = len(opened.timestamps)
    media, cache, chunks = encode_frames(encoder.model, encoder.processor, opened, None, total if relative else None)
    return VisualState(media, None if relative else cache, chunks=tuple(chunks), **made)


def continue_state(
    encoder: CheckpointIdentity, state: VisualState, more: Video, sha256: str | None = None
) -> VisualState:
    """A state with the frames of `more` after its own.

    Raises:
        UsageError: a picture, a state without a cache, or a checkpoint with relative timesteps.
        MismatchError: frames that do not come later than those that the state has.
        CheckpointError: a state of another checkpoint, or other settings.
    """
    check_state(encoder, state)
    if state.kind != "video":
        raise UsageError(f"{state.name} is a picture: only videos are continued")
    if encoder.model.config.vision_config.timestep == "relative":
        raise UsageError(
            "this checkpoint was trained with relative timesteps (step / total): a video whose length was told cannot "
            "be continued; encode the whole video anew"
        )
    if state.cache is None:
        raise UsageError(f"{state.name} was written without its cache (--no-cache) and cannot be continued")
    last, first = state.media.timestamps[-1], more.timestamps[0]
    if first <= last:
        raise MismatchError(f"the next frame is shown at {first:g} s, but {state.name} has come to {last:g} s already")
    added, cache, chunks = encode_frames(encoder.model, encoder.processor, more, state.cache, None)
    media = EncodedMedia(
        "video",
        state.media.name,
        torch.cat((state.media.tokens, added.tokens)),
        timestamps=(*state.media.timestamps, *more.timestamps),
        steps=state.media.steps + added.steps,
        warnings=(*state.media.warnings, *added.warnings),
    )
    sources = (*state.sources, _source(more, sha256))
    return replace(state, media=media, cache=cache, sources=sources, chunks=(*state.chunks, *chunks))


def load_state(encoder: CheckpointIdentity, source: str | Path | StateFile) -> VisualState:
    """Read a state file for this engine's model.

    Raises:
        MediaError: no state file, or a damaged one.
        CheckpointError: it is of another checkpoint or of other settings; both fingerprints are named.
    """
    file = source if isinstance(source, StateFile) else open_state(source)
    manifest = file.manifest
    # Before the tensors are read, which may be large.
    _check_maker(encoder, file.name, file.kind, manifest["checkpoint"], manifest["settings"])
    try:
        tensors = load_file(file.path)
    except (SafetensorError, OSError) as error:
        raise MediaError(f"{file.path}: a damaged visual state: {error}") from error
    device = encoder.model.device
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    config = encoder.model.config
    _check_tensor(file, TOKENS, tensors[TOKENS], (len(tensors[TOKENS]), config.text_config.hidden_size), encoder)
    media = EncodedMedia(
        file.kind,
        file.name,
        tensors[TOKENS],
        timestamps=tuple(float(time) for time in manifest["timestamps"]),
        tiles=manifest["tiles"],
        steps=manifest["steps"],
        warnings=file.warnings,
    )
    cache = None if manifest["cache"] is None else _cache_of(encoder, file, tensors)
    sources, chunks = tuple(manifest["sources"]), tuple(int(count) for count in manifest["chunks"])
    return VisualState(media, cache, manifest["checkpoint"], manifest["settings"], sources, chunks)


def _cache_of(encoder: CheckpointIdentity, file: StateFile, tensors: dict[str, torch.Tensor]) -> TemporalCache:
    vision = encoder.model.config.vision_config
    kept = file.manifest["cache"]
    steps, window = int(kept["steps"]), kept["window"]
    remembered = steps if window is None else min(steps, int(window) - 1)
    positions = 1 + (dict(encoder.processor.video_processor.size)["height"] // vision.patch_size[0]) ** 2
    shape = (remembered, positions, vision.hidden_size)
    for name, tensor in tensors.items():
        if name != TOKENS:
            _check_tensor(file, name, tensor, shape, encoder)
    keys, values = (
        tuple(tensors[f"cache.{part}.{layer}"] for layer in range(kept["layers"])) for part in ("keys", "values")
    )
    return TemporalCache(keys, values, steps=steps, num_clips=1, window=window)


def _check_tensor(
    file: StateFile, name: str, tensor: torch.Tensor, shape: tuple[int, ...], encoder: CheckpointIdentity
) -> None:
    if tuple(tensor.shape) != shape or tensor.dtype != encoder.model.dtype:
        raise MediaError(
            f"{file.path}: a damaged visual state: {name} is {tensor.dtype} {tuple(tensor.shape)}, not "
            f"{encoder.model.dtype} {shape}"
        )
    if not bool(torch.isfinite(tensor).all()):
        raise MediaError(f"{file.path}: a damaged visual state: {name} has values that are no numbers")


def check_state(encoder: CheckpointIdentity, state: VisualState) -> None:
    """Raise CheckpointError unless the state is of this engine's checkpoint and settings."""
    _check_maker(encoder, state.name, state.kind, state.checkpoint, state.settings)


def _check_maker(encoder: CheckpointIdentity, name: str, kind: str, checkpoint: str, settings: dict[str, Any]) -> None:
    own = visual_settings(encoder.model, encoder.processor, kind)
    if settings != own:
        keys = sorted(key for key in {*own, *settings} if own.get(key) != settings.get(key))
        hint = f"; load the model in {settings['dtype']} (--dtype)" if settings.get("dtype") in DTYPES else ""
        raise CheckpointError(
            f"{name} was made with other settings ({_digest(settings)[:_SHOWN]}) than this model's "
            f"({_digest(own)[:_SHOWN]}): {', '.join(keys)} differ{hint if 'dtype' in keys else ''}"
        )
    if checkpoint != encoder.fingerprint:
        raise CheckpointError(
            f"{name} was made by another checkpoint ({checkpoint[:_SHOWN]}) than {encoder.name} "
            f"({encoder.fingerprint[:_SHOWN]})"
        )


def _source(opened: Picture | Video, sha256: str | None) -> dict[str, Any]:
    """Where frames came from: which, when shown, and what decoded them."""
    decoders = ("av",) if isinstance(opened, Video) and opened.format not in ("array", "gif", "webp") else ("Pillow",)
    return {
        "name": Path(opened.name).name,
        "sha256": sha256,
        "format": opened.format,
        "timestamps": list(opened.timestamps) if isinstance(opened, Video) else [],
        "size": list(opened.image.size[::-1]) if isinstance(opened, Picture) else list(opened.frames.shape[1:3]),
        "decoder": {name: importlib.metadata.version(name) for name in decoders},
    }


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


__all__ = [
    "VisualState",
    "check_state",
    "continue_state",
    "encode_state",
    "file_digest",
    "fingerprint",
    "load_state",
    "visual_settings",
]
