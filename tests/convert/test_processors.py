"""The processor of a converted model: prompts and tiles are those of its source, and what is not followed is named."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import InternVLProcessor, PreTrainedTokenizerFast
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

import pvc
from pvc.convert import Options, convert
from pvc.errors import ConfigError
from pvc.media import Video
from tests.convert import sources

SIDE = sources.VISION["image_size"]
SIZE = {"height": SIDE, "width": SIDE}
ONE_STEP = Options(ratio=0.5, image_steps=1)
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 90, 3), dtype=np.uint8))
CLIP = Video.from_frames(np.zeros((11, SIDE, SIDE, 3), np.uint8), fps=2.0)


class Frames:
    """Frames as transformers' video processor, which needs torchvision, hands them on."""

    valid_kwargs = type("Nothing", (dict,), {})

    def __call__(self, videos, **kwargs):
        return {"pixel_values_videos": torch.zeros(1, len(videos[0]), 3, SIDE, SIDE)}


class TheirProcessor(InternVLProcessor):
    """transformers' processor, made without torchvision."""

    def check_argument_for_proper_class(self, argument_name, argument):
        return type(argument)


def theirs(source, **settings):
    """transformers' processor of a source."""
    names = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    names["video_token"] = "<video>"
    tokenizer = PreTrainedTokenizerFast.from_pretrained(source, extra_special_tokens=names)
    pictures = GotOcr2ImageProcessorPil(size=SIZE, **settings)
    template = (source / "chat_template.jinja").read_text()
    return TheirProcessor(pictures, tokenizer, Frames(), image_seq_length=16, chat_template=template)


def collapsed(ids, placeholders):
    """Ids in which every run of placeholders is one -1."""
    kept = [-1 if token in placeholders else token for token in ids]
    return [token for place, token in enumerate(kept) if token != -1 or place == 0 or kept[place - 1] != -1]


def change(source, **changes):
    path = source / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def converted(source, target):
    report = convert(source, target, ONE_STEP)
    return pvc.load(target, device="cpu").processor, report.warnings


@pytest.mark.parametrize("frames", [1, 2, 11])
def test_prompts_are_those_of_transformers(tmp_path, frames):
    source = sources.transformers_format(tmp_path / "source")
    ours, warnings = converted(source, tmp_path / "made")
    assert warnings == ()
    other = theirs(source)
    clip = Video.from_frames(CLIP.frames[:frames], fps=2.0)
    parts = [{"type": "video", "video": clip}, {"type": "image", "image": PICTURE}, {"type": "text", "text": "what?"}]
    messages = [{"role": "user", "content": parts}]
    written = other.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    batch = other(text=[written], images=[PICTURE], videos=[clip.frames], return_tensors="pt")
    expected = batch["input_ids"][0].tolist()
    actual = ours.apply_chat_template(messages, tokenize=True, add_generation_prompt=True)["input_ids"][0].tolist()
    assert collapsed(actual, {ours.image_token_id, ours.video_token_id}) == collapsed(expected, {other.image_token_id})
    assert f"Frame{frames}: <img>" in ours.tokenizer.decode(actual)
    assert actual.count(ours.image_token_id) == expected.count(other.image_token_id) - 16 * frames
    assert actual.count(ours.video_token_id) == 16 * frames


def test_prompts_of_the_original_format(tmp_path):
    """What the model cards write by hand: a line for every frame, and the question behind the last."""
    source = sources.chat_format(tmp_path / "source")
    ours, _ = converted(source, tmp_path / "made")
    parts = [{"type": "video", "video": CLIP}, {"type": "text", "text": "what?"}]
    ids = ours.apply_chat_template([{"role": "user", "content": parts}], tokenize=True)["input_ids"][0]
    lines = "".join(f"Frame{number + 1}: <img>{'<video>' * 16}</img>\n" for number in range(11))
    assert ours.tokenizer.decode(ids) == f"<|im_start|>user\n{lines}what?<|im_end|>\n"


@pytest.mark.parametrize("settings", [{}, {"crop_to_patches": False}, {"min_patches": 3, "max_patches": 5}])
def test_tiles_are_those_of_transformers(tmp_path, settings):
    """InternVL's processor tiles whatever crop_to_patches in the file says; the official files say false."""
    source = sources.transformers_format(tmp_path / "source")
    look = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    prepared = {"do_resize": True, "resample": 3, "rescale_factor": 0.00392156862745098, "size": SIZE}
    (source / "preprocessor_config.json").write_text(json.dumps({**look, **settings, **prepared}))
    ours, warnings = converted(source, tmp_path / "made")
    assert warnings == ()
    expected = theirs(source, **look, **settings)(text=["<IMG_CONTEXT>"], images=[PICTURE], return_tensors="np")
    actual = ours.image_processor([PICTURE], return_tensors="np")["pixel_values"]
    assert len(actual) > 1
    assert np.array_equal(actual, expected["pixel_values"])


@pytest.mark.parametrize(
    ("changes", "tiles"),
    [
        ({}, 3),
        ({"dynamic_image_size": True, "use_thumbnail": True}, 3),
        ({"use_thumbnail": False}, 2),
        ({"dynamic_image_size": False, "use_thumbnail": True}, 1),
    ],
)
def test_tiles_are_as_the_original_configuration_says(tmp_path, changes, tiles):
    source = sources.chat_format(tmp_path / "source")
    change(source, **changes)
    ours, warnings = converted(source, tmp_path / "made")
    assert warnings == ()
    assert ours.image_processor([PICTURE])["image_grid_thw"] == [[tiles, 1, 1]]
    assert ours.image_processor.get_number_of_image_patches(40, 90) == tiles


def test_pictures_are_padded_where_the_source_pads_them(tmp_path):
    source = sources.chat_format(tmp_path / "source")
    change(source, dynamic_image_size=False, pad2square=True)
    ours, warnings = converted(source, tmp_path / "made")
    assert [warning.split()[0] for warning in warnings] == ["pad2square"]
    pixels = ours.image_processor([PICTURE], return_tensors="np")["pixel_values"]
    assert pixels.shape == (1, 3, SIDE, SIDE)
    assert np.abs(pixels[0, :, [0, -1]]).max() < 1 / 255 / 0.22  # the mean colour, to a grey level


@pytest.mark.parametrize("name", ["dynamic_image_size", "use_thumbnail", "pad2square"])
def test_tiling_that_makes_no_sense(tmp_path, name):
    source = sources.chat_format(tmp_path / "source")
    change(source, **{name: "no"})
    with pytest.raises(ConfigError, match=f"{name} must be true or false, not 'no'"):
        convert(source, tmp_path / "made")


def test_templates_that_are_not_known_are_named(tmp_path):
    source = sources.chat_format(tmp_path / "source")
    change(source, template="phi3-chat")
    assert converted(source, tmp_path / "first")[1] == ()  # the source brings a template that is used
    (source / "chat_template.jinja").unlink()
    _, (warning,) = converted(source, tmp_path / "second")
    assert "template is 'phi3-chat'" in warning
    change(source, template="internlm2-chat")
    assert converted(source, tmp_path / "third")[1] == ()


@pytest.mark.parametrize(
    ("name", "settings", "named"),
    [
        ("preprocessor_config.json", {"do_resize": False, "do_normalize": False}, ["do_resize", "do_normalize"]),
        ("preprocessor_config.json", {"rescale_factor": 0.5, "resample": 2}, ["resample", "rescale_factor"]),
        ("preprocessor_config.json", {"size": {"height": 16, "width": 32}}, ["size"]),
        ("preprocessor_config.json", {"do_rescale": None, "size": {"height": 32, "width": 32}}, []),
        ("video_preprocessor_config.json", {"image_mean": [0.5, 0.5, 0.5]}, ["image_mean"]),
        ("processor_config.json", {"video_processor": {"do_rescale": False}}, ["do_rescale"]),
        ("processor_config.json", {"image_processor": {"size": {"shortest_edge": 32}}}, ["size"]),
    ],
)
def test_preparation_that_is_not_followed_is_named(tmp_path, name, settings, named):
    source = sources.transformers_format(tmp_path / "source")
    (source / name).write_text(json.dumps(settings))
    report = convert(source, tmp_path / "made", ONE_STEP)
    assert [warning.split()[:3] for warning in report.warnings] == [[f"{name}:", key, "is"] for key in named]


@pytest.mark.parametrize("maker", [sources.transformers_format, sources.chat_format])
def test_keys_that_nothing_reads_are_named(tmp_path, maker):
    source = maker(tmp_path / "source")
    change(source, torch_dtype="bfloat16", use_cache=False, system_message=None)
    assert convert(source, tmp_path / "quiet", ONE_STEP).warnings == ()
    change(source, system_message="be brief", crop_style={"a": 1})
    first, second = convert(source, tmp_path / "named", ONE_STEP).warnings
    assert first == "ignored in config.json: crop_style"
    assert "system_message: pass it" in second
    change(source, **{f"key{number}" * 30: number for number in range(500)})
    assert len(convert(source, tmp_path / "many", ONE_STEP).warnings[0]) < 1000


def test_keys_of_official_files_are_known(tmp_path):
    """Names and values as in a published configuration of InternVL2.5."""
    source = sources.chat_format(tmp_path / "source")
    official = {"_commit_hash": None, "output_attentions": False, "transformers_version": None, "pad2square": False}
    official |= {"torch_dtype": "bfloat16", "use_backbone_lora": 0, "use_llm_lora": 0, "tie_word_embeddings": False}
    change(source, **official, dynamic_image_size=True, use_thumbnail=True, max_dynamic_patch=12)
    assert convert(source, tmp_path / "made", ONE_STEP).warnings == ()
