"""One stage of a training recipe, as pydantic models: `Stage` and the values that its keys have.

Every field is a key of the YAML file. Unknown keys are errors. `recipe.py` has the whole recipe and re-exports these.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class StrictModel(BaseModel):
    """Base of all models of recipes: immutable; unknown keys, NaN and infinity are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TaskMix(StrictModel):
    """Share of one task in a stage, and how its examples are generated."""

    weight: float = Field(1.0, gt=0)
    """Share of the task, relative to the other weights of the stage."""
    levels: tuple[int, ...] | None = None
    """Levels of difficulty, sampled uniformly; by default all."""
    tiles: tuple[int, ...] = Field((1,), min_length=1)
    """Tiles of a picture, sampled uniformly: one number or several. A number that is listed twice counts twice."""

    @field_validator("tiles", mode="before")
    @classmethod
    def _one_number_of_tiles(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value

    @field_validator("levels")
    @classmethod
    def _levels(cls, levels: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if levels is not None and (not levels or min(levels) < 1):
            raise ValueError("levels are numbers from 1")
        return levels


class FileMix(StrictModel):
    """Share of one file (or folder of media) in a stage, and how it is read."""

    weight: float = Field(1.0, gt=0)
    """Share of the file, relative to the other weights of the stage."""
    split: str = "train"
    """Split of a dataset (parquet, a directory, `hub:`)."""
    subset: str | None = None
    """Subset of a dataset (parquet, a directory, `hub:`)."""
    stream: bool = False
    """Whether a dataset is read in order, shuffled a thousand records at a time, instead of copied to a cache first."""


class Augment(StrictModel):
    """Random changes of pixels on the device, for every example and step, in units of the normalised pixels."""

    contrast: float = Field(0.0, ge=0, lt=1)
    """Contrast is multiplied by a uniform sample from 1 - x to 1 + x."""
    brightness: float = Field(0.0, ge=0)
    """A uniform sample from -x to +x is added."""
    noise: float = Field(0.0, ge=0)
    """Maximum standard deviation of noise, which is sampled independently for every pixel."""


class Lora(StrictModel):
    """Low-rank adapters on linear layers of the language model, scaled by alpha / rank."""

    rank: int = Field(16, ge=1)
    """Rank of the adapters."""
    alpha: int = Field(32, ge=1)
    """Numerator of the scale."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout of the adapters' inputs."""
    targets: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1
    )
    """Names of the linear layers that get adapters."""


class Distill(StrictModel):
    """What a stage of kind distill learns from its base model, without labels."""

    teacher: str = Field(min_length=1)
    """Directory written by `pvc convert --ratio 1/2 --image-steps 1`."""
    media: dict[str, FileMix] = Field(default_factory=dict)
    """Weights of folders of pictures and videos, in addition to the stage's `files` and `tasks`."""
    eval_media: str | None = None
    """Folder of held-out media that is measured every `evaluate_every` steps."""
    loss: Literal["tokens", "answers"] = "tokens"
    """What is compared with the teacher.

    "tokens": visual tokens; the language model does not run. "answers": predictions and hidden states of the language
    model.
    """
    target: Literal["block", "mean", "map"] = "map"
    """What the token loss teaches pictures in fewer steps than the base has blocks; see `TokenDistiller`."""
    cache: bool = False
    """Whether outputs of the teacher for the loss "answers" are computed once, before training.

    The cache has 64 log-probabilities for every token of an answer, and hidden states.
    """

    @field_validator("media", mode="before")
    @classmethod
    def _weights_alone(cls, value: Any) -> Any:
        return _parse_mixes(value)


def _parse_mixes(value: Any) -> Any:
    """Replace plain numbers by mixes of that weight."""
    if not isinstance(value, dict):
        return value
    return {name: {"weight": mix} if isinstance(mix, (int, float)) else mix for name, mix in value.items()}


# Defaults of stages of kind distill. At the learning rates of new weights the closed form would be lost at first.
DISTILL_DEFAULTS: dict[str, Any] = {
    "trained": ("temporal", "timestep_embedding", "multi_modal_projector"),
    "learning_rate": 2e-4,
    "warmup_steps": 100,
    "weight_decay": 0.01,
    "rates": {"multi_modal_projector.linear": 0.1, "timestep_embedding": 0.1, "maps.": 5.0},
    "image_steps": {1: 1.0, 2: 1.0, 4: 2.0},
}


class Stage(StrictModel):
    """One stage of training.

    A stage starts from the weights of the stage before it. Tensors whose shape changes with `downsample_ratio` get new
    values, and so do temporal blocks that the stage before did not have.
    """

    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    """Name of the stage and of its directory."""
    kind: Literal["patches", "chat", "distill"]
    """What is trained.

    "patches": the vision tower alone learns to classify each patch (without this stage a small model does not learn to
    read, see docs/training.md). "chat": the whole model learns to answer. "distill": the model learns from its base
    model (`distill`); keys that are missing have the values of `DISTILL_DEFAULTS`.
    """
    steps: int = Field(ge=1)
    """Number of optimizer steps."""
    batch_size: int = Field(32, ge=1)
    """Examples of one optimizer step, over all processes."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Either "adamw" for all parameters, or "muon" for weight matrices of hidden layers and AdamW for the others."""
    learning_rate: float = Field(1e-3, gt=0)
    """Maximum learning rate."""
    schedule: Literal["cosine", "wsd"] = "cosine"
    """Learning rate after a linear warm-up.

    "cosine": a cosine to zero. "wsd" (warmup-stable-decay): constant until a linear decay to zero at the end.
    """
    warmup_steps: int = Field(100, ge=0)
    """Steps of the linear warm-up."""
    decay_steps: int | None = Field(None, ge=1)
    """Steps of the final decay of schedule wsd; by default a fifth of `steps`."""
    weight_decay: float = Field(0.05, ge=0)
    """Weight decay of all parameters but biases, norms, modulations and the timestep embedder."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Norm to which gradients are clipped."""
    downsample_ratio: float = 0.25
    """Compression of the model in this stage, as in `PVCConfig`."""
    image_steps: dict[int, float] = Field(default_factory=lambda: {4: 1.0})
    """Steps of a picture: one number, or several with weights that are sampled for every batch.

    With several numbers one checkpoint serves several budgets.
    """
    num_temporal_layers: int | None = Field(None, ge=0)
    """Replaces the model's number of temporal layers (0 where every clip has one step)."""
    init: Literal["mean", "exact"] = "mean"
    """How the compressor starts if the ratio falls.

    "mean": as the mean of the tokens that each new token replaces. "exact": in closed form; step t emits the token of
    block t, so that the output for pictures in all steps does not change.
    """
    compressor_norm_groups: int | None = Field(None, ge=1)
    """Groups of the compressor's norm; by default those of `init`, also in later stages of the same ratio."""
    image_token_order: Literal["step", "raster"] | None = None
    """Order of a picture's tokens; by default that of `init`, also in later stages of the same ratio."""
    tasks: dict[str, TaskMix] = Field(default_factory=dict)
    """Tasks with generated examples, and their weights."""
    files: dict[str, FileMix] = Field(default_factory=dict)
    """Files of conversations (formats: `data/readers.py`), with weights relative to those of the tasks."""
    bad_rows: float = Field(0.1, ge=0, le=1)
    """Maximum fraction of a file's records that may be bad.

    A record is bad if it is malformed, its media cannot be read, or it has more than `longest` tokens. Bad records are
    reported and skipped.
    """
    longest: int | None = Field(None, ge=1)
    """Maximum length of an example from a file, in tokens; by default the model's number of positions."""
    pack: int | None = Field(None, ge=1)
    """Maximum length, in tokens, of a row into which several examples of a batch are packed.

    Each example attends only to itself. By default examples are padded to the longest of the batch.
    """
    loss: Literal["token", "sample", "square"] = "token"
    """What has equal weight in the loss.

    "token": every answer token. "sample": every example. "square": every example by the square root of the length of
    its answers.
    """
    file_frames: dict[int, float] | None = None
    """Frames of videos in files: one number, or several with weights that are sampled for every batch.

    By default as many as in inference (the processor's number of frames).
    """
    split: Literal["train", "train_all"] = "train"
    """Which examples are generated: "train_all" includes the colours and layouts that "train" holds out."""
    video_frames: dict[int, float] = Field(default_factory=lambda: {8: 1.0})
    """Frames of generated clips, with weights that are sampled for every batch."""
    quiet_frames: dict[int, float] = Field(default_factory=lambda: {0: 1.0})
    """Frames without content before a generated clip: one number, or several with weights, sampled for every example.

    Examples whose task sets the times keep those times.
    """
    latest_start: float = Field(0.0, ge=0)
    """Maximum time of the first frame, in seconds: half of the generated clips start at up to this time.

    This is as in live video. Examples whose task sets the times keep those times.
    """
    max_step_offset: int = Field(0, ge=0)
    """Maximum number of the first step of an example's clips, which is sampled uniformly from 0.

    The model thus learns timesteps far into a video from short clips.
    """
    zoom: dict[int, float] = Field(default_factory=lambda: {1: 1.0})
    """Side of generated pictures as a multiple of the tower's input size; larger pictures are cut into tiles.

    Several numbers with weights are sampled for every batch. Real pictures are larger than a tile; without zoom a model
    never learns from such pictures.
    """
    save_steps: int = Field(500, ge=1)
    """Steps between checkpoints."""
    save_minutes: float | None = Field(10, gt=0)
    """Maximum minutes without a checkpoint; null saves by steps alone."""
    questions: int | None = Field(None, ge=1)
    """Maximum number of questions about an example's media, each in a separate turn; by default all."""
    characters: int | None = Field(None, ge=1)
    """Maximum characters of all questions and answers of an example; the first question is always included.

    Batches thus need little padding.
    """
    cache: int | None = Field(None, ge=1)
    """Number of examples that are generated once, into a memory-mapped file.

    They are repeated in a different order in every epoch. By default every example is new.
    """
    augment: Augment | None = None
    """Random changes of pixels on the device."""
    evaluate_every: int | None = Field(None, ge=1)
    """Steps between evaluations on held-out examples."""
    evaluate_count: int = Field(50, ge=1)
    """Number of held-out examples of every task."""
    frozen: tuple[str, ...] = ()
    """Parameters are frozen if their names contain one of these strings."""
    trained: tuple[str, ...] = ()
    """If not empty, parameters are frozen unless their names contain one of these strings.

    An alignment of what PVC adds trains `temporal`, `timestep_embedding` and `multi_modal_projector`.
    """
    lora: Lora | None = None
    """Adapters on the language model, which is otherwise frozen; they are merged at the end."""
    precision: Literal["float32", "bf16"] | None = None
    """Precision of matrix products; weights are float32 in any case. By default bf16 on a GPU and float32 on a CPU.

    On a CPU, bf16 is faster only with instructions for it (`avx512_bf16`, `amx`).
    """
    accumulation: int = Field(1, ge=1)
    """Number of parts in which a batch is processed before an optimizer step."""
    checkpointing: bool = False
    """Whether activations are recomputed in the backward pass instead of stored."""
    rates: dict[str, float] = Field(default_factory=dict)
    """Factors of the learning rate, by substrings of parameter names; the last that matches applies."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay per step of an exponential moving average of the weights, which is the result of the stage."""
    distill: Distill | None = None
    """Settings of kind distill; required for it, not allowed otherwise."""

    @model_validator(mode="before")
    @classmethod
    def _distill_defaults(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("kind") != "distill":
            return data
        # If the recipe lists frozen parameters, all others are trained.
        defaults = {key: value for key, value in DISTILL_DEFAULTS.items() if key != "trained" or "frozen" not in data}
        return {**defaults, **data}

    @field_validator("image_steps", "zoom", "file_frames", "quiet_frames", mode="before")
    @classmethod
    def _one_number(cls, value: Any) -> Any:
        return {value: 1.0} if isinstance(value, int) else value

    @field_validator("tasks", "files", mode="before")
    @classmethod
    def _weights_alone(cls, value: Any) -> Any:
        return _parse_mixes(value)

    @property
    def is_token_distillation(self) -> bool:
        """Return whether the stage needs neither text nor a language model."""
        return self.distill is not None and self.distill.loss == "tokens"

    @property
    def most_steps(self) -> int:
        """Maximum number of steps of a picture in training; the default of the trained model."""
        return max(self.image_steps)

    @property
    def decay_length(self) -> int:
        """Number of steps of the final decay of schedule wsd."""
        return self.decay_steps or max(1, self.steps // 5)

    @model_validator(mode="after")
    def _schedule(self) -> Stage:
        if self.schedule != "wsd":
            if self.decay_steps is not None:
                raise ValueError("decay_steps is for schedule wsd")
        elif self.warmup_steps + self.decay_length > self.steps:
            raise ValueError(
                f"warmup_steps ({self.warmup_steps}) and decay_steps ({self.decay_length}) are more than the "
                f"{self.steps} steps; lower them or raise steps"
            )
        return self

    @model_validator(mode="after")
    def _weights(self) -> Stage:
        if (self.kind == "distill") != (self.distill is not None):
            raise ValueError("stages of kind distill, and no others, need distill: {teacher: DIRECTORY, media: {...}}")
        if not self.tasks and not self.files and not (self.distill and self.distill.media):
            raise ValueError("tasks must name at least one task, or files one file, or distill.media one folder")
        if self.files and (self.kind == "patches" or self.cache is not None):
            raise ValueError("files are for stages of kind chat without a cache")
        if not self.image_steps or min(self.image_steps) < 1 or min(self.image_steps.values()) <= 0:
            raise ValueError("image_steps must name at least one number of steps, with weights above 0")
        if not self.zoom or min(self.zoom) < 1 or min(self.zoom.values()) <= 0:
            raise ValueError("zoom must name at least one number from 1, with weights above 0")
        if self.kind == "patches" and set(self.zoom) != {1}:
            raise ValueError("zoom is for stages of kind chat: patches are named in single tiles")
        if self.lora is not None and self.kind == "patches":
            raise ValueError("lora is for stages of kind chat: patches have no language model")
        if self.cache is not None and (self.kind == "patches" or self.cache < self.batch_size):
            raise ValueError("cache is for stages of kind chat, and must be at least batch_size")
        if self.kind == "patches" and (self.pack is not None or self.loss != "token"):
            raise ValueError("pack and loss are for stages of kind chat: patches have no text")
        if self.cache is not None and (self.pack is not None or self.loss != "token"):
            raise ValueError(
                "pack and loss are for stages without a cache, which stores single examples with equal weights"
            )
        if self.kind == "distill" and (self.cache is not None or self.questions is not None):
            raise ValueError("cache and questions are for stages of kind chat")
        if self.kind == "distill" and self.tasks and not self.is_token_distillation:
            raise ValueError("distill.loss 'answers' asks about files and distill.media; tasks are for 'tokens'")
        if self.distill and self.distill.cache and (self.is_token_distillation or self.augment is not None):
            raise ValueError("distill.cache is for distill.loss 'answers' without augment: every sample has one output")
        if self.kind == "distill" and self.loss != "token":
            raise ValueError("loss is for stages of kind chat; distillation weights every sample the same")
        if self.is_token_distillation and (self.lora is not None or self.pack is not None or self.loss != "token"):
            raise ValueError("lora, pack and loss need a language model, which distill.loss 'tokens' does not run")
        if self.max_step_offset and (self.kind == "patches" or self.cache is not None):
            raise ValueError("max_step_offset is for stages of kind chat without a cache")
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"a batch of {self.batch_size} does not divide into {self.accumulation} parts (accumulation)"
            )
        if any(rate <= 0 for rate in self.rates.values()):
            raise ValueError("rates are factors above 0")
        if self.file_frames is not None and (
            not self.file_frames or min(self.file_frames) < 1 or min(self.file_frames.values()) <= 0
        ):
            raise ValueError("file_frames must name at least one number of frames, with weights above 0")
        if not self.quiet_frames or min(self.quiet_frames) < 0 or min(self.quiet_frames.values()) <= 0:
            raise ValueError("quiet_frames must name at least one number from 0, with weights above 0")
        if not self.video_frames or any(weight <= 0 for weight in self.video_frames.values()):
            raise ValueError("video_frames must name at least one number of frames, with weights above 0")
        return self


__all__ = ["DISTILL_DEFAULTS", "Augment", "Distill", "FileMix", "Lora", "Stage", "StrictModel", "TaskMix"]
