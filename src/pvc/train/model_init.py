"""Build what a recipe starts from: tokenizer, processor and model; grow a model from stage to stage.

Called by `pipeline.py`, which trains, by `export.py` and by the commands `pvc train` and `pvc distill`.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import GenerationConfig

from pvc.checkpoint.files import PARTS, CheckpointFiles, part_of
from pvc.checkpoint.loading import load_checkpoint, load_config, load_processor
from pvc.convert.closed_form import EMBEDDER, PROJECTOR
from pvc.convert.from_pvc import solve_from_pvc
from pvc.convert.transforms import widened
from pvc.errors import ConfigError, PVCError
from pvc.model.config import PVCConfig
from pvc.model.keys import unknown_keys
from pvc.model.modeling import PVCForConditionalGeneration
from pvc.processing.image import PVCImageProcessor
from pvc.processing.processor import PVCProcessor
from pvc.processing.tokenizer import build_tokenizer, without_merges
from pvc.processing.video import PVCVideoProcessor
from pvc.train.data.records import RecordSource
from pvc.train.data.tasks import TaskOptions, check_tasks, get_kind, get_provider
from pvc.train.recipe import ModelRecipe, Recipe, Stage

_LAYER = re.compile(r"model\.(vision_tower\.encoder\.layer|language_model\.layers)\.\d+\.")
_LAYER_OUTPUTS = ("attention.projection_layer.", "self_attn.o_proj.", "mlp.fc2.", "mlp.down_proj.")


def build_corpus(recipe: Recipe) -> list[str]:
    """Return the texts that a tokenizer learns from: questions and answers of a recipe's tasks, and frame prefixes."""
    texts = ["user\n", "assistant\n", "system\n", "0.0s: ", "1.5s: ", "12.0s: "] * 50
    for task in sorted({task for stage in recipe.stages for task in stage.tasks}):
        texts += get_provider(task).texts([task])
    return texts


def build_processor(recipe: Recipe) -> PVCProcessor:
    """Build the tokenizer and processors of a model with random weights."""
    tokenizer = build_tokenizer(build_corpus(recipe), recipe.shape.vocab_size, recipe.shape.spelling)
    side = int(recipe.shape.vision["image_size"])
    size = {"height": side, "width": side}
    stage = recipe.stages[-1]
    image_processor = PVCImageProcessor(size=size, max_patches=recipe.shape.max_tiles, image_steps=stage.most_steps)
    frames, live = recipe.shape.num_frames, recipe.shape.live_frames
    video_processor = PVCVideoProcessor(size=size, num_frames=frames, live_frames=live)
    config = build_config(recipe, stage, len(tokenizer), 0, 1)
    return PVCProcessor(
        image_processor,
        tokenizer,
        video_processor,
        tokens_per_frame=config.tokens_per_frame,
        chat_template=tokenizer.chat_template,
    )


def initial_weights(recipe: Recipe) -> dict[str, torch.Tensor]:
    """Load the weights of the model that a recipe starts from: float32, by the names of the model's state dict."""
    model, _ = load_checkpoint(get_initial_directory(recipe), device="cpu", dtype=torch.float32)
    return get_untied_state(model)


def get_untied_state(model: PVCForConditionalGeneration) -> dict[str, torch.Tensor]:
    """Return a model's state dict with tied weights once: an output layer that is the input embedding is left out."""
    tied = model.config.tie_word_embeddings
    return {key: value for key, value in model.state_dict().items() if not (tied and key == "lm_head.weight")}


def resolve_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe with the shape of its model; by default that of the directory that it starts from.

    In that case, stages that do not set a ratio or the steps of a picture get those of that model.

    Raises:
        ConfigError: the recipe has neither a shape nor a start, or `init: exact` is set although the ratio does not
            fall.
        CheckpointError: the start is not a PVC model.
    """
    return fill_compressor_settings(_add_shape(recipe))


def fill_compressor_settings(recipe: Recipe) -> Recipe:
    """Set `compressor_norm_groups` and `image_token_order` from `init` in stages that do not set them."""
    before = load_config(CheckpointFiles(get_initial_directory(recipe))) if recipe.start is not None else None
    ratio = None if before is None else before.downsample_ratio
    settings = None if before is None else (before.compressor_norm_groups, before.image_token_order)
    stages: list[Stage] = []
    for stage in recipe.stages:
        # A recipe that starts from the result of an earlier exact stage has nothing to solve.
        is_solved = not stages and before is not None and settings == _get_exact_settings(stage, ratio)
        if stage.init == "exact" and not is_solved:
            if ratio is None or not stage.downsample_ratio < ratio:
                raise ConfigError(
                    f"stage {stage.name}: init 'exact' needs a downsample_ratio below that of what it starts from "
                    f"({ratio or 'nothing'}), not {stage.downsample_ratio:g}"
                )
            settings = round(ratio / stage.downsample_ratio) ** 2, "raster"
        elif stage.downsample_ratio != ratio:
            settings = None
        if settings is not None and settings != (1, "step"):
            values = dict(zip(("compressor_norm_groups", "image_token_order"), settings, strict=True))
            update = {key: value for key, value in values.items() if getattr(stage, key) is None}
            stage = stage.model_copy(update=update)
        ratio = stage.downsample_ratio
        stages.append(stage)
    return recipe.model_copy(update={"stages": stages})


def _get_exact_settings(stage: Stage, ratio: float | None) -> tuple[int, str] | None:
    """Return the settings of a closed form that was solved from ratio 1/2; None if the stage changes the ratio."""
    if ratio != stage.downsample_ratio or ratio >= 0.5:
        return None
    return round(0.5 / ratio) ** 2, "raster"


def _add_shape(recipe: Recipe) -> Recipe:
    if recipe.model is not None or recipe.start is None:
        return recipe.model_copy(update={"model": recipe.shape})
    files = CheckpointFiles(get_initial_directory(recipe))
    processor = load_processor(files)
    config = load_config(files)
    not_shape = ("model_type", "transformers_version", "architectures", "dtype", "_name_or_path")
    vision, text = (
        {
            key: value
            for key, value in part.to_diff_dict().items()
            if key not in {*not_shape, *unknown_keys(type(part), vars(part))}
        }
        for part in (config.vision_config, config.text_config)
    )
    vision |= {"image_size": config.vision_config.image_size[0], "patch_size": config.vision_config.patch_size[0]}
    vision["num_temporal_layers"] = config.vision_config.num_temporal_layers
    text |= {"model_type": config.text_config.model_type, "tie_word_embeddings": config.tie_word_embeddings}
    text["vocab_size"] = config.text_config.vocab_size
    max_new_tokens = files.optional_json("generation_config.json").get("max_new_tokens") or 512
    shape = ModelRecipe(
        vision=vision,
        text=text,
        vocab_size=max(263, len(processor.tokenizer)),
        num_frames=processor.video_processor.num_frames,
        live_frames=processor.video_processor.live_frames,
        max_new_tokens=max_new_tokens,
        max_tiles=processor.image_processor.max_patches,
        projector_hidden_act=config.projector_hidden_act,
    )
    defaults = {"downsample_ratio": config.downsample_ratio, "image_steps": {config.image_steps: 1.0}}
    stages = [
        stage.model_copy(update={key: value for key, value in defaults.items() if key not in stage.model_fields_set})
        for stage in recipe.stages
    ]
    return recipe.model_copy(update={"model": shape, "stages": stages})


def initial_processor(recipe: Recipe) -> PVCProcessor:
    """Load the processor of the model that a recipe starts from.

    The tokenizer is that of the model, which the weights were trained with. The numbers of tiles, frames and steps are
    the recipe's.
    """
    processor = PVCProcessor.from_pretrained(CheckpointFiles(get_initial_directory(recipe)).directory)
    if recipe.shape.spelling == "letters":
        processor.tokenizer = without_merges(processor.tokenizer)
    processor.image_processor.max_patches = recipe.shape.max_tiles
    processor.image_processor.image_steps = recipe.stages[-1].most_steps
    processor.video_processor.num_frames = recipe.shape.num_frames
    processor.video_processor.live_frames = recipe.shape.live_frames
    return processor


def get_initial_directory(recipe: Recipe) -> str | None:
    """Return the directory that a recipe starts from; None for the bundled model."""
    return None if recipe.start == "nano" else recipe.start


def check_recipe(recipe: Recipe) -> None:
    """Check every stage before training: build its configuration, an example of every task, and read its files.

    Raises:
        ConfigError: a stage is wrong; the message names it.
        UsageError: a task is unknown.
    """
    check_tasks(task for stage in recipe.stages for task in stage.tasks)
    size = recipe.shape.vision.get("image_size")
    if not isinstance(size, int):
        raise ConfigError("model.vision.image_size must be a number of pixels")
    if recipe.start is None and recipe.stages[0].kind == "distill":
        raise ConfigError(f"stage {recipe.stages[0].name}: distillation needs a student to start from ('start')")
    for stage in recipe.stages:
        _check_examples(stage, size)
        try:
            config = build_config(recipe, stage, recipe.shape.vocab_size, 0, 1)
            _refuse_unknown_keys(recipe, config)
            if stage.kind == "distill":
                from pvc.train.distill.setup import check_distillation  # it builds on this module

                check_distillation(stage, config)
            if stage.max_step_offset and config.vision_config.timestep == "relative":
                raise ConfigError("max_step_offset has no meaning where timesteps are relative (step / total)")
        except (ValueError, TypeError, StrictDataclassError) as error:
            raise ConfigError(f"stage {stage.name}: {' '.join(str(error).split())}") from error


def _refuse_unknown_keys(recipe: Recipe, config: PVCConfig) -> None:
    """Raise ConfigError for keys of a recipe's shape that no configuration has; they would have no effect."""
    shape = recipe.shape
    for kind, part, keys in (
        ("vision_config", config.vision_config, shape.vision),
        ("text_config", config.text_config, shape.text),
    ):
        if unknown := unknown_keys(type(part), keys):
            raise ConfigError(f"unknown key{'s' * (len(unknown) > 1)} in {kind}: {', '.join(sorted(unknown))}")


def _check_examples(stage: Stage, size: int) -> None:
    """Generate one example for every combination of options of a stage's tasks, and read its files."""
    unsuitable = [task for task in stage.tasks if not get_provider(task).has_patch_classes(task)]
    if stage.kind == "patches" and unsuitable:
        raise ConfigError(f"stage {stage.name}: tasks without classes of patches: {', '.join(unsuitable)}")
    try:
        for task, mix in stage.tasks.items():
            for level in mix.levels or (None,):
                for tiles in mix.tiles:
                    for frames in stage.video_frames if get_kind(task) == "video" else (None,):
                        options = TaskOptions(size=size, frames=frames, level=level, tiles=tiles)
                        get_provider(task).generate(task, 0, options)
        for path, file in stage.files.items() if stage.kind != "distill" else ():
            RecordSource(path, stage.bad_rows, mix=file)
    except PVCError as error:
        raise ConfigError(f"stage {stage.name}: {error}") from error


def build_config(recipe: Recipe, stage: Stage, vocab_size: int, image_token: int, video_token: int) -> PVCConfig:
    """Build the configuration of a recipe's model in one stage.

    Args:
        recipe: with the model's shape.
        stage: of the recipe.
        vocab_size: tokens of the tokenizer; the embedding is at least that large.
        image_token: id of the placeholder of a picture's tokens.
        video_token: id of the placeholder of a video's tokens.
    """
    vision, text = dict(recipe.shape.vision), recipe.shape.text
    if stage.num_temporal_layers is not None:
        vision["num_temporal_layers"] = stage.num_temporal_layers
    return PVCConfig(
        vision_config=vision,
        # A converted model's embedding may have more rows than its tokenizer has tokens.
        text_config={**text, "vocab_size": max(vocab_size, text.get("vocab_size", 0))},
        image_token_id=image_token,
        video_token_id=video_token,
        downsample_ratio=stage.downsample_ratio,
        image_steps=stage.most_steps,
        compressor_norm_groups=stage.compressor_norm_groups or 1,
        image_token_order=stage.image_token_order or "step",
        projector_hidden_act=recipe.shape.projector_hidden_act,
        tie_word_embeddings=bool(text.get("tie_word_embeddings", True)),
    )


def build_model(recipe: Recipe, stage: Stage, processor: PVCProcessor) -> PVCForConditionalGeneration:
    """Build a model with random weights in the shape of a stage.

    Args:
        recipe: with the model's shape and the seed.
        stage: of the recipe.
        processor: its `tokens_per_frame` is set to that of the model.
    """
    torch.manual_seed(recipe.seed)
    tokenizer = processor.tokenizer
    config = build_config(recipe, stage, len(tokenizer), processor.image_token_id, processor.video_token_id)
    config._attn_implementation = "sdpa"
    processor.tokens_per_frame = config.tokens_per_frame
    model = PVCForConditionalGeneration(config)
    # transformers initialises position embeddings with zeros. Learning from zeros is slow.
    torch.nn.init.normal_(model.model.vision_tower.embeddings.position_embeddings, std=0.05)
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=recipe.shape.max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        # A generated placeholder would need visual tokens that do not exist.
        suppress_tokens=[processor.image_token_id, processor.video_token_id],
    )
    return model


def grow(
    recipe: Recipe, stage: Stage, processor: PVCProcessor, weights: dict[str, torch.Tensor]
) -> tuple[PVCForConditionalGeneration, list[str]]:
    """Build the model of a stage from the weights of the stage before it.

    Args:
        recipe: with the model's shape and the seed.
        stage: of the recipe.
        processor: its `tokens_per_frame` is set to that of the model.
        weights: of the stage before, by the names of the model's state dict.

    Returns:
        The model and the names of tensors with new values.
    """
    model = build_model(recipe, stage, processor)
    change_compressor = solve_compressor if stage.init == "exact" else widen_compressor
    weights = {**weights, **change_compressor(weights, model.config)}
    state = get_untied_state(model)
    previous = {key: value for key, value in weights.items() if key in state and state[key].shape == value.shape}
    new_names = sorted(set(state) - set(previous))
    zeros = {name: torch.zeros_like(state[name]) for name in _get_outputs_of_new_layers(new_names, previous)}
    model.load_state_dict({**state, **previous, **zeros}, strict=False)
    return model, new_names


def _get_outputs_of_new_layers(new_names: list[str], previous: dict[str, torch.Tensor]) -> list[str]:
    """Return the names of output tensors of layers that the previous weights did not have.

    At zero, these layers start as the identity, so that a deeper model starts with the answers of the one before.
    """
    known = {match[0] for name in previous if (match := _LAYER.match(name))}
    return [
        name
        for name in new_names
        if (match := _LAYER.match(name)) and match[0] not in known and name[match.end() :].startswith(_LAYER_OUTPUTS)
    ]


def widen_compressor(weights: dict[str, torch.Tensor], config: PVCConfig) -> dict[str, torch.Tensor]:
    """Return tensors of a compressor for fewer tokens, which starts near the mean of the tokens that each replaces.

    The columns of `linear_1` (and the rows of its norm's modulation) are repeated for each of the `k * k` tokens in a
    new token. The columns are divided by `k * k`. LayerNorm then spans `k * k` times the channels, so that the mean is
    approximate.

    Args:
        weights: of the previous model, by the names of its state dict.
        config: of the new model.

    Returns:
        The changed tensors by name; none if the weights already fit, or the new factor is not a multiple of the old.
    """
    prefix = f"{PROJECTOR}."
    if (old := _get_previous_factor(weights, config)) is None:
        return {}
    linear, times = weights[f"{prefix}linear_1.weight"], config.downsample_factor // old
    wide = {f"{prefix}linear_1.weight": widened(linear / times**2, old, times)}
    for name in ("weight", "bias"):
        halves = weights[f"{prefix}norm.modulation.{name}"].chunk(2)  # scale and shift: rows are channels
        wide[f"{prefix}norm.modulation.{name}"] = torch.cat([widened(half.T, old, times).T for half in halves])
    return wide


def solve_compressor(weights: dict[str, torch.Tensor], config: PVCConfig) -> dict[str, torch.Tensor]:
    """Solve for a compressor for fewer tokens in closed form; return no tensors if the weights have the new ratio.

    Args:
        weights: of the base, by the names of its state dict; all of its steps have the tokens of the first timestep.
        config: of the new model.

    Raises:
        ConfigError: the base's temporal blocks are trained, or the closed form is not exact enough.
    """
    if _get_previous_factor(weights, config) is None:
        return {}
    projections = [name for name, value in weights.items() if ".projection_layer." in name and ".temporal." in name]
    if any(bool(weights[name].any()) for name in projections):
        raise ConfigError(
            "init 'exact' needs a base whose temporal blocks have not been trained (num_temporal_layers: 0)"
        )
    names = [name for name in weights if name.startswith((f"{PROJECTOR}.norm.", f"{PROJECTOR}.linear_1.", EMBEDDER))]
    return solve_from_pvc(config, config, {name: weights[name] for name in names}).tensors


def _get_previous_factor(weights: dict[str, torch.Tensor], config: PVCConfig) -> int | None:
    """Return the downsample factor of the weights; None if it equals the new one or does not divide it."""
    linear = weights.get(f"{PROJECTOR}.linear_1.weight")
    if linear is None:
        return None
    width, new = config.vision_config.hidden_size, config.downsample_factor
    old = round((linear.shape[1] / width) ** 0.5)
    return None if new == old or new % old or old * old * width != linear.shape[1] else old


def parameters_by_part(model: Any) -> dict[str, int]:
    """Count the parameters of the tower's spatial and temporal parts, the compressor and the language model."""
    parts = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        parts[part_of(name)] += parameter.numel()
    return parts


__all__ = [
    "build_config",
    "build_corpus",
    "build_model",
    "build_processor",
    "check_recipe",
    "get_initial_directory",
    "get_untied_state",
    "grow",
    "initial_processor",
    "initial_weights",
    "parameters_by_part",
    "resolve_recipe",
    "widen_compressor",
]
