"""Options and progress reports of a conversion. Called by `from_internvl.py`, `from_pvc.py` and the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pvc.errors import ConfigError, UsageError

INITS = ("exact", "mean")


@dataclass(frozen=True)
class Options:
    """Settings of a converted model.

    Attributes:
        temporal_layers: number of temporal layers, from the top of the tower; None: a third of its layers.
        ratio: downsample ratio.
        timestep: "cyclic", "index" or "relative"; None: cyclic for the closed form at a smaller ratio, else index.
        timestep_limit: with "index": larger step numbers count as this one. The closed form needs a limit.
        window: temporal window in steps, or None.
        image_steps: steps of a picture; None: the number of source tokens per token of the new model (1, 4 or 16).
        num_frames: default number of frames of a video.
        init: initialisation of the compressor at a smaller ratio: "exact" (the closed form: step t emits the source's
            token for block t) or "mean" (about the mean of the source's tokens, the same at every step).
        seed: seed of the new temporal blocks' weights.
    """

    temporal_layers: int | None = None
    ratio: float = 0.25
    timestep: str | None = None
    timestep_limit: int | None = None
    window: int | None = None
    image_steps: int | None = None
    num_frames: int = 16
    init: str = "exact"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.init not in INITS:
            raise UsageError(f"init must be one of {', '.join(INITS)}, not {self.init!r}")

    def get_warnings(self, ratio: float) -> tuple[str, ...]:
        """Return warnings about unexpected effects of a conversion from downsample ratio `ratio`."""
        blocks = round(ratio / self.ratio) ** 2
        if self.init == "exact" and blocks > 1 and self.timestep == "index" and self.timestep_limit is not None:
            last = self.timestep_limit
            return (
                f"frames after number {last + 1} of a video all show block {last % blocks} of their patches; "
                "use --timestep cyclic to cycle through all blocks",
            )
        return ()

    def get_config_fields(self, ratio: float) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the configuration fields that a conversion from downsample ratio `ratio` sets.

        Returns:
            Fields of the tower's configuration, and fields of the model's.

        Raises:
            ConfigError: relative timesteps with the closed form, or a limit without index timesteps.
        """
        blocks = round(ratio / self.ratio) ** 2
        is_exact = self.init == "exact" and blocks > 1
        timestep = self.timestep or ("cyclic" if is_exact else "index")
        if is_exact and timestep == "relative":
            raise ConfigError(
                "timestep 'relative' (step / total) and init 'exact' exclude each other: step t has to mean one block. "
                "Use --timestep cyclic or index, or --init mean"
            )
        if self.timestep_limit is not None and timestep != "index":
            raise ConfigError(f"timestep_limit is {self.timestep_limit}, but timestep is {timestep!r}, not 'index'")
        if is_exact and timestep == "index" and self.timestep_limit is None:
            raise ConfigError("init 'exact' with index timesteps needs --timestep-limit N: it is solved for 0 to N")
        vision = {
            "num_temporal_layers": self.temporal_layers,
            "timestep": timestep,
            "timestep_limit": self.timestep_limit,
            "timestep_period": blocks if timestep == "cyclic" else None,
            "temporal_window": self.window,
        }
        fields = {
            "downsample_ratio": self.ratio,
            "image_steps": blocks if self.image_steps is None else self.image_steps,
            "compressor_norm_groups": blocks if is_exact else 1,
            "image_token_order": "raster" if is_exact else "step",
        }
        return vision, fields


@dataclass
class ConversionReport:
    """Result of a conversion.

    Attributes:
        used: number of the source's tensors that were converted.
        made: number of tensors that only PVC has and that were initialised.
        nbytes: size of all tensors in bytes.
        added_tokens: rows that were added to the vocabulary.
        residual: residual of the closed form; None without it.
        warnings: warnings for the user.
        shards: names of the files that were written.
    """

    used: int = 0
    made: int = 0
    nbytes: int = 0
    added_tokens: int = 0
    residual: float | None = None
    warnings: tuple[str, ...] = ()
    shards: list[str] = field(default_factory=list)


Progress = Callable[[int, int], None]

__all__ = ["INITS", "ConversionReport", "Options", "Progress"]
