"""Configuration of the network: PVCVisionConfig (the tower) and PVCConfig (tower, compressor, language model).

Values are checked at construction, before a model is built or loaded. Keys of transformers and of other tools are
retained; a misspelt field is an error (`keys.py`). The preparation of media is configured by the processors. Called by
every module that builds, loads or converts a model.
"""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, AutoConfig
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.internvl.configuration_internvl import InternVLVisionConfig

from pvc.errors import ConfigError
from pvc.model.keys import check_keys

TIMESTEP_SCALES = {"index": 100.0, "relative": 1000.0, "cyclic": 100.0}
DOWNSAMPLE_RATIOS = (0.5, 0.25, 0.125)
IMAGE_TOKEN_ORDERS = ("step", "raster")


@strict
class PVCVisionConfig(InternVLVisionConfig):
    """Configuration of the vision tower: InternVL's vision configuration and the temporal blocks.

    Args:
        num_temporal_layers: number of layers, counted from the last, that have a temporal block. None means a third of
            all layers.
        temporal_window: number of steps that a step attends to: itself and the steps before it. None means all of them.
        timestep: the value that AdaLN is conditioned on: "index" (number of the step), "cyclic" (number modulo
            `timestep_period`) or "relative" (number / total steps).
        timestep_scale: factor before the sinusoid. None means 1000 for "relative" and 100 for the others.
        timestep_limit: with "index", larger step numbers are replaced by this one. None means no limit.
        timestep_period: number of distinct timesteps. Required with "cyclic", and not allowed without.
        **kwargs: fields of InternVL's vision configuration.

    Raises:
        ConfigError: a value is out of range, or a key is a misspelt field.
    """

    model_type = "pvc_vision"
    base_config_key = "vision_config"

    num_temporal_layers: int | None = None
    temporal_window: int | None = None
    timestep: str = "index"
    timestep_scale: float | int | None = None
    timestep_limit: int | None = None
    timestep_period: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        check_keys("vision_config", type(self), kwargs)
        super().__post_init__(**kwargs)
        if self.num_temporal_layers is None:
            self.num_temporal_layers = self.num_hidden_layers // 3
        if not 0 <= self.num_temporal_layers <= self.num_hidden_layers:
            raise ConfigError(
                f"num_temporal_layers is {self.num_temporal_layers}, but there are {self.num_hidden_layers} layers"
            )
        if self.timestep not in TIMESTEP_SCALES:
            raise ConfigError(f"timestep is {self.timestep!r}; it must be one of {', '.join(TIMESTEP_SCALES)}")
        if (self.timestep == "cyclic") != (self.timestep_period is not None):
            raise ConfigError(
                f"timestep is {self.timestep!r} and timestep_period {self.timestep_period}; set timestep_period with "
                "'cyclic', and only with it"
            )
        if self.timestep_scale is None:
            self.timestep_scale = TIMESTEP_SCALES[self.timestep]
        for name in ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if min((*self.image_size, *self.patch_size)) < 1:
            raise ConfigError(f"image_size {self.image_size} and patch_size {self.patch_size} must be at least 1")
        if not self.timestep_scale > 0:
            raise ConfigError(f"timestep_scale is {self.timestep_scale}; it must be greater than 0")
        for name in ("temporal_window", "timestep_limit", "timestep_period"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1, or null for none")
        self._check_grid()

    def _check_grid(self) -> None:
        """Check that frames divide into square patches, and the width into heads."""
        if len(set(self.image_size)) != 1 or len(set(self.patch_size)) != 1:
            raise ConfigError(
                f"frames and patches must be square: image_size {self.image_size}, patch_size {self.patch_size}"
            )
        if self.image_size[0] % self.patch_size[0]:
            raise ConfigError(f"image_size {self.image_size[0]} is not a multiple of patch_size {self.patch_size[0]}")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(f"hidden_size {self.hidden_size} does not divide into {self.num_attention_heads} heads")

    @property
    def grid(self) -> int:
        """Patches along one side of a frame."""
        return self.image_size[0] // self.patch_size[0]

    @property
    def first_temporal_layer(self) -> int:
        """Index of the first layer with a temporal block (`num_hidden_layers` when there is none)."""
        return self.num_hidden_layers - self.num_temporal_layers


@strict
class PVCConfig(PreTrainedConfig):
    """Configuration of a PVC model: vision tower, adaptive compressor and a causal language model.

    Args:
        vision_config: PVCVisionConfig or its dictionary.
        text_config: configuration (or its dictionary) of any transformers causal language model.
        image_token_id: id of the placeholder that visual tokens of images replace.
        video_token_id: id of the placeholder that visual tokens of videos replace.
        downsample_ratio: 1/2, 1/4 or 1/8. A frame of `grid x grid` patches becomes `(grid * ratio)^2` tokens.
        image_steps: default number of steps of a still image.
        compressor_norm_groups: blocks of patches in a visual token that the compressor normalises separately. It is 1,
            or the number of tokens of the base model that one visual token replaces: 4 from ratio 1/2 to 1/4, 16 from
            1/2 to 1/8.
        image_token_order: "step" (all tiles at step 0, then all at step 1, ...) or "raster" (tile by tile, in the order
            of the base model's tokens; step t stands for block t of `compressor_norm_groups`).
        projector_hidden_act: activation between the two linear layers of the compressor.
        tie_word_embeddings: whether the output layer shares the weights of the input embedding.
        **kwargs: other keys of transformers' configurations.

    Raises:
        ConfigError: a value is out of range, values contradict each other, or a key is a misspelt field.
    """

    model_type = "pvc"
    sub_configs: ClassVar = {"text_config": AutoConfig, "vision_config": PVCVisionConfig}

    vision_config: Any = None
    text_config: Any = None
    image_token_id: int = 151667
    video_token_id: int = 151674
    downsample_ratio: float = 0.25
    image_steps: int = 4
    compressor_norm_groups: int = 1
    image_token_order: str = "step"
    projector_hidden_act: str = "gelu"
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        check_keys("config", type(self), kwargs)
        if self.vision_config is None:
            self.vision_config = PVCVisionConfig()
        elif isinstance(self.vision_config, dict):
            self.vision_config = PVCVisionConfig(**self.vision_config)
        if self.text_config is None:
            self.text_config = {"model_type": "qwen2"}
        if isinstance(self.text_config, dict):
            text = dict(self.text_config)
            kind = text.pop("model_type", "qwen2")
            if kind in CONFIG_MAPPING:
                check_keys("text_config", CONFIG_MAPPING[kind], text)
            self.text_config = AutoConfig.for_model(kind, **text)
        super().__post_init__(**kwargs)
        self._check()

    def _check(self) -> None:
        """Check the values of the compressor, the steps and the placeholders."""
        vision = self.vision_config
        if self.downsample_ratio not in DOWNSAMPLE_RATIOS:
            raise ConfigError(f"downsample_ratio is {self.downsample_ratio}; it must be one of 0.5, 0.25, 0.125")
        if vision.grid % self.downsample_factor:
            raise ConfigError(
                f"downsample_ratio 1/{self.downsample_factor} does not divide the {vision.grid} x {vision.grid} "
                "patches of a frame"
            )
        side = round(self.compressor_norm_groups**0.5) if self.compressor_norm_groups > 0 else 0
        if side**2 != self.compressor_norm_groups or side < 1 or self.downsample_factor % side:
            raise ConfigError(
                f"compressor_norm_groups is {self.compressor_norm_groups}; the {self.downsample_factor} x "
                f"{self.downsample_factor} patches of a visual token do not divide into so many square blocks"
            )
        if self.image_token_order not in IMAGE_TOKEN_ORDERS:
            raise ConfigError(
                f"image_token_order is {self.image_token_order!r}; it must be one of {', '.join(IMAGE_TOKEN_ORDERS)}"
            )
        if self.image_token_order == "raster" and side == 1:
            raise ConfigError("image_token_order is 'raster': it needs compressor_norm_groups of more than 1")
        if self.image_steps < 1:
            raise ConfigError(f"image_steps is {self.image_steps}; it must be at least 1")
        if vision.temporal_window is not None and vision.temporal_window < self.image_steps:
            raise ConfigError(
                f"temporal_window {vision.temporal_window} is shorter than image_steps {self.image_steps}"
            )
        if self.image_token_id == self.video_token_id:
            raise ConfigError(f"image_token_id and video_token_id are both {self.image_token_id}; they must differ")
        vocabulary = self.text_config.vocab_size
        for name in ("image_token_id", "video_token_id"):
            if not 0 <= getattr(self, name) < vocabulary:
                raise ConfigError(f"{name} {getattr(self, name)} is outside the vocabulary of {vocabulary} tokens")

    @property
    def downsample_factor(self) -> int:
        """Patches along one side of a visual token: 2, 4 or 8."""
        return round(1 / self.downsample_ratio)

    @property
    def tokens_per_frame(self) -> int:
        """Visual tokens of one frame and step."""
        return (self.vision_config.grid // self.downsample_factor) ** 2


__all__ = ["DOWNSAMPLE_RATIOS", "PVCConfig", "PVCVisionConfig"]
