"""Recipes: what `pvc train` is told, as a checked YAML file.

Everything is validated before anything runs; unknown keys are errors. Leaves out how a stage is run (`pipeline.py`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pvc.errors import ConfigError, UsageError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelRecipe(_Strict):
    """Shape of a model: keyword arguments of PVCVisionConfig and of the text config.

    Without one, a recipe's model is that of the directory that it starts from. `live_frames`: the latest frames of a
    live video that the language model sees by default; train clips with so many (`video_frames`, `quiet_frames`).
    `spelling`: how the tokenizer splits words that are not in its vocabulary (`build_tokenizer`).
    """

    vision: dict[str, Any]
    text: dict[str, Any]
    vocab_size: int = Field(512, ge=263)
    spelling: Literal["merges", "letters"] = "merges"
    num_frames: int = Field(8, ge=1)
    live_frames: int | None = Field(None, ge=1)
    max_new_tokens: int = Field(32, ge=1)
    max_tiles: int = Field(1, ge=1)
    projector_hidden_act: str = "gelu"


class TaskMix(_Strict):
    """How much of a stage one task is, and how it is asked: its levels and the tiles of its pictures, drawn evenly.

    All levels by default; of tiles one number, or several (one that stands twice is drawn twice as often).
    """

    weight: float = Field(1.0, gt=0)
    levels: tuple[int, ...] | None = None
    tiles: tuple[int, ...] = Field((1,), min_length=1)

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


class FileMix(_Strict):
    """How much of a stage one file is. `split` and `subset` are those of a dataset (parquet, a directory, `hub:`), and
    `stream` reads it in order, shuffled a thousand rows at a time, instead of copying it to a cache first.
    """

    weight: float = Field(1.0, gt=0)
    split: str = "train"
    subset: str | None = None
    stream: bool = False


class Augment(_Strict):
    """Chance on the device, anew for every sample and step, in units of the normalised pixels.

    `contrast` and `brightness` are drawn evenly from 1 - x .. 1 + x and -x .. x, `noise` is the largest standard
    deviation of noise of its own for every pixel.
    """

    contrast: float = Field(0.0, ge=0, lt=1)
    brightness: float = Field(0.0, ge=0)
    noise: float = Field(0.0, ge=0)


def _mixes(value: Any) -> Any:
    """Weights alone to mixes."""
    if not isinstance(value, dict):
        return value
    return {name: {"weight": mix} if isinstance(mix, (int, float)) else mix for name, mix in value.items()}


class Lora(_Strict):
    """Adapters of low rank on the language model's linear layers named `targets`, scaled by alpha / rank."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1
    )


class Distill(_Strict):
    """What a stage of kind distill learns from its base model, without labels.

    `teacher`: a directory written by `pvc convert --ratio 1/2 --image-steps 1`. `media`: weights of folders of pictures
    and videos, beside `files` and `tasks`. `eval_media`: a folder to measure on every `evaluate_every` steps.
    `loss`: "tokens" compares visual tokens and does not run the language model; "answers" compares the predictions and
    hidden states of the language model. `target`: what pictures in fewer steps than the base has blocks learn by the
    token loss ("block", "mean" or "map", see `TokenDistiller`). `cache`: outputs of the teacher for the loss "answers"
    are computed once, before training (64 log-probabilities of every token of an answer, and hidden states).
    """

    teacher: str = Field(min_length=1)
    media: dict[str, FileMix] = Field(default_factory=dict)
    eval_media: str | None = None
    loss: Literal["tokens", "answers"] = "tokens"
    target: Literal["block", "mean", "map"] = "map"
    cache: bool = False

    @field_validator("media", mode="before")
    @classmethod
    def _weights_alone(cls, value: Any) -> Any:
        return _mixes(value)


# Where a stage of kind distill says nothing. At the rates of fresh weights the closed form would be lost at first.
DISTILL_DEFAULTS: dict[str, Any] = {
    "trained": ("temporal", "timestep_embedding", "multi_modal_projector"),
    "learning_rate": 2e-4,
    "warmup_steps": 100,
    "weight_decay": 0.01,
    "rates": {"multi_modal_projector.linear": 0.1, "timestep_embedding": 0.1, "maps.": 5.0},
    "image_steps": {1: 1.0, 2: 1.0, 4: 2.0},
}


class Stage(_Strict):
    """One stage of training.

    `patches`: the tower alone learns to name what each patch shows (nothing reads without it, see the docs);
    `chat`: the whole model learns to answer; `distill`: it learns from its base model (`distill`, with defaults in
    `DISTILL_DEFAULTS`). A stage starts from the weights of the one before it; tensors whose
    shape changes with `downsample_ratio` get new values, and so do temporal blocks that the stage before did not have.
    `init`: where the ratio falls, the compressor starts as the mean of the tokens that each of its own replaces, or
    (exact) in closed form: step t emits the token of block t, so that pictures in all steps are read as before. The
    model then has `compressor_norm_groups` and `image_token_order` of the closed form, and so have later stages of the
    same ratio unless they say others.
    `num_temporal_layers` overrides the model's (0 where every clip has one step). `image_steps` may be several
    numbers with weights, drawn for every batch, so that one checkpoint serves several budgets.

    `questions`: at most this many are asked about a sample's media, each in a turn of its own (all by default);
    `characters`: further ones only while questions and answers together are no longer, so that batches pad little.
    `files`: conversations (forms: `readers.py`) with weights beside those of the tasks. Rows that cannot be used
    (malformed, with media that cannot be read, of more than `longest` tokens) are told and passed over; `bad_rows` is
    the part of a file's rows that may be. `file_frames`: frames of their videos, one number or several with weights,
    drawn for every batch; by default as many as users' have.
    `split`: which drawn samples; "train_all" also shows the colours and layouts that "train" holds out.
    `quiet_frames`: frames without content before a drawn clip, one number or several with weights, drawn for every
    sample; `latest_start`: half of the drawn clips begin at a time of up to so many seconds, as in live video. Samples
    that ask for times keep theirs.
    `max_step_offset`: the first step of a sample's clips has a number drawn evenly from 0 to this one, so that the
    model learns timesteps far into a video from short clips.
    `zoom`: pictures are drawn with so many times the tower's pixels a side, and so cut into tiles; several numbers with
    weights are drawn for every batch. Real pictures are larger than a tile: without it a model never learns of them.
    `cache`: this many samples are drawn once, into a memory-mapped file, and repeated in another order every round;
    by default every sample is new. A checkpoint is written every `save_steps` steps, and after `save_minutes` minutes
    without one (null: by steps alone). `evaluate_every`: steps between measurements on `evaluate_count` held-out
    samples of every task. `frozen`: parameters whose names contain one of these stay as they are; `trained`: all others
    do, whose names contain none of these (an alignment of what PVC adds trains `temporal`, `timestep_embedding` and
    `multi_modal_projector`). `lora`: the language model's own weights stay, adapters learn and are merged at the end.
    `precision` of the matrix products (weights are kept in float32 either way): by default bf16 on a GPU and float32 on
    a CPU, where bf16 pays on processors with instructions for it (`avx512_bf16`, `amx`).

    `pack`: samples of a batch are laid one after another into rows of at most so many tokens, each seeing only itself,
    instead of being padded to the longest. `loss`: what counts the same, every answered token, every sample, or
    (square) every sample by the square root of its answers' length. `accumulation`: a batch is gone through in so many
    parts. `checkpointing`: activations are computed again on the way back instead of being kept. `rates`: factors of
    the learning rate, by parts of parameters' names (the last that is part of a name holds). `ema`: what is kept at
    the end is an average of the weights that forgets by this factor every step.

    `optimizer`: AdamW for all parameters, or Muon for the weight matrices of hidden layers and AdamW for all others
    (`optimizer.py`). `schedule` of the learning rate, after a linear warm-up of `warmup_steps`: a cosine to zero, or
    (wsd, warmup-stable-decay) constant until a linear decay to zero over the last `decay_steps` (default: a fifth of
    `steps`).
    """

    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    kind: Literal["patches", "chat", "distill"]
    steps: int = Field(ge=1)
    batch_size: int = Field(32, ge=1)
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0)
    schedule: Literal["cosine", "wsd"] = "cosine"
    warmup_steps: int = Field(100, ge=0)
    decay_steps: int | None = Field(None, ge=1)
    weight_decay: float = Field(0.05, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    downsample_ratio: float = 0.25
    image_steps: dict[int, float] = Field(default_factory=lambda: {4: 1.0})
    num_temporal_layers: int | None = Field(None, ge=0)
    init: Literal["mean", "exact"] = "mean"
    compressor_norm_groups: int | None = Field(None, ge=1)
    image_token_order: Literal["step", "raster"] | None = None
    tasks: dict[str, TaskMix] = Field(default_factory=dict)
    files: dict[str, FileMix] = Field(default_factory=dict)
    bad_rows: float = Field(0.1, ge=0, le=1)
    longest: int | None = Field(None, ge=1)
    pack: int | None = Field(None, ge=1)
    loss: Literal["token", "sample", "square"] = "token"
    file_frames: dict[int, float] | None = None
    split: Literal["train", "train_all"] = "train"
    video_frames: dict[int, float] = Field(default_factory=lambda: {8: 1.0})
    quiet_frames: dict[int, float] = Field(default_factory=lambda: {0: 1.0})
    latest_start: float = Field(0.0, ge=0)
    max_step_offset: int = Field(0, ge=0)
    zoom: dict[int, float] = Field(default_factory=lambda: {1: 1.0})
    save_steps: int = Field(500, ge=1)
    save_minutes: float | None = Field(10, gt=0)
    questions: int | None = Field(None, ge=1)
    characters: int | None = Field(None, ge=1)
    cache: int | None = Field(None, ge=1)
    augment: Augment | None = None
    evaluate_every: int | None = Field(None, ge=1)
    evaluate_count: int = Field(50, ge=1)
    frozen: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    lora: Lora | None = None
    precision: Literal["float32", "bf16"] | None = None
    accumulation: int = Field(1, ge=1)
    checkpointing: bool = False
    rates: dict[str, float] = Field(default_factory=dict)
    ema: float | None = Field(None, gt=0, lt=1)
    distill: Distill | None = None

    @model_validator(mode="before")
    @classmethod
    def _distill_defaults(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("kind") != "distill":
            return data
        # Who names frozen parameters alone trains all others.
        own = {key: value for key, value in DISTILL_DEFAULTS.items() if key != "trained" or "frozen" not in data}
        return {**own, **data}

    @field_validator("image_steps", "zoom", "file_frames", "quiet_frames", mode="before")
    @classmethod
    def _one_number(cls, value: Any) -> Any:
        return {value: 1.0} if isinstance(value, int) else value

    @field_validator("tasks", "files", mode="before")
    @classmethod
    def _weights_alone(cls, value: Any) -> Any:
        return _mixes(value)

    @property
    def is_token_distillation(self) -> bool:
        """Whether the stage needs neither text nor a language model."""
        return self.distill is not None and self.distill.loss == "tokens"

    @property
    def most_steps(self) -> int:
        """Steps of a picture unless a budget says less: the most that are trained."""
        return max(self.image_steps)

    @property
    def decay_length(self) -> int:
        """Steps of the final decay of schedule wsd."""
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
            raise ValueError("cache is for stages of kind chat, and holds at least one batch")
        if self.kind == "patches" and (self.pack is not None or self.loss != "token"):
            raise ValueError("pack and loss are for stages of kind chat: patches have no text")
        if self.cache is not None and (self.pack is not None or self.loss != "token"):
            raise ValueError("a cache keeps samples as they were drawn; pack and loss are for stages without one")
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


class Recipe(_Strict):
    """A whole training: the model to start from and its stages."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    seed: int = Field(0, ge=0)
    start: str | None = None  # a model directory, or "nano" for the bundled one; by default from nothing
    model: ModelRecipe | None = None
    stages: list[Stage] = Field(min_length=1)

    @model_validator(mode="after")
    def _stage_names(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ValueError("two stages have the same name")
        return self

    @property
    def shape(self) -> ModelRecipe:
        """The model's shape, of a recipe that has one; `build.resolve_recipe` gives it one."""
        if self.model is None:
            raise ConfigError("the recipe has no model: say its shape under 'model', or what to start from ('start')")
        return self.model


def written_from(text: str, recipe: Recipe) -> bool:
    """Whether `text`, JSON that an earlier version may have written, says what `recipe` says, names aside.

    Keys that have been added since then are at their defaults in it.
    """
    try:
        before = Recipe.model_validate({**json.loads(text), "name": recipe.name})
    except ValueError:
        return False
    return before.model_dump() == recipe.model_dump()


Checked = TypeVar("Checked", bound=BaseModel)


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a training recipe; see `load_checked`."""
    return load_checked(path, Recipe)


def load_checked(path: str | Path, model: type[Checked]) -> Checked:
    """Read a YAML file as a pydantic `model`.

    Raises:
        UsageError: no such file, or not YAML.
        ConfigError: a key or a value that is wrong, named with its place in the file.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read recipe {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the recipe"
        raise ConfigError(f"{path}: {where}: {first['msg']}") from error


__all__ = [
    "DISTILL_DEFAULTS",
    "Augment",
    "Distill",
    "Lora",
    "ModelRecipe",
    "Recipe",
    "Stage",
    "TaskMix",
    "load_checked",
    "load_recipe",
    "written_from",
]
