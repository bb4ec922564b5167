"""Keyword arguments: every name of transformers is accepted, or refused by name; misspellings are named."""

import dataclasses
import inspect
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.image_utils import ChannelDimension
from transformers.processing_utils import AudioKwargs, ImagesKwargs, ProcessorMixin, TextKwargs, VideosKwargs
from transformers.utils import PaddingStrategy

from pvc import PVCProcessor
from pvc.errors import MismatchError, UsageError
from pvc.media import Video
from pvc.processing.options import sort_options
from pvc.testing import tiny_processor

PROCESSOR = tiny_processor(max_tiles=2)
WIDE = Image.new("RGB", (80, 40), "red")
CLIP = Video.from_frames(np.zeros((3, 32, 32, 3), np.uint8), fps=2)
PICTURE, TEXT = {"type": "image", "image": WIDE}, {"type": "text", "text": "what is it?"}
CHAT = [{"role": "user", "content": [PICTURE, {"type": "video", "video": CLIP}, TEXT]}]
WRITTEN = PROCESSOR.apply_chat_template(CHAT)
NAMES = sorted({*TextKwargs.__annotations__, *ImagesKwargs.__annotations__, *VideosKwargs.__annotations__})
NEUTRAL = {
    "tools": [[]],
    "documents": [[]],
    "load_audio_from_video": [False],
    "continue_final_message": [False],
    "enable_thinking": [False],
    "reasoning_effort": ["none"],
    "truncation": [False, "do_not_truncate"],
    "padding": [True, "longest", PaddingStrategy.LONGEST],
    "padding_side": ["left"],
    "add_special_tokens": [False, True],
    "stride": [0],
    "is_split_into_words": [False],
    "return_overflowing_tokens": [False],
    "return_offsets_mapping": [False],
    "return_special_tokens_mask": [False],
    "return_attention_mask": [True],
    "return_length": [False],
    "return_token_type_ids": [False],
    "return_mm_token_type_ids": [False],
    "verbose": [True, False],
    "sanitize_control_tokens": [True, False],
    "do_pad": [False],
    "do_center_crop": [False],
    "do_resize": [True],
    "do_convert_rgb": [True],
    "data_format": ["channels_first", ChannelDimension.FIRST],
    "device": ["cpu", torch.device("cpu")],
    "size": [{"height": 32, "width": 32}, 32],
    "return_metadata": [False],
    "text_kwargs": [{}],
    "images_kwargs": [{}],
    "videos_kwargs": [{}],
    "audio_kwargs": [{}, {"sampling_rate": None}],
    "common_kwargs": [{}],
    "processor_kwargs": [{}],
    "tokenizer_kwargs": [{}],
}


def encode(chat=CHAT, **options):
    return PROCESSOR.apply_chat_template(chat, tokenize=True, **options)


def raw(**options):
    return PROCESSOR(text=WRITTEN, images=[WIDE], videos=[CLIP], return_tensors="pt", **options)


def assert_equal(ours, theirs):
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "return_tensors"])
def test_none_asks_for_nothing(name):
    assert_equal(encode(**{name: None}), encode())
    assert_equal(encode(processor_kwargs={name: None}), encode())
    assert_equal(raw(**{name: None}), raw())


@pytest.mark.parametrize("name", sorted(AudioKwargs.__annotations__))
def test_audio_options_of_none_pass(name):
    assert_equal(encode(audio_kwargs={name: None}), encode())


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in NEUTRAL for value in NEUTRAL[name]])
def test_values_in_force_pass(name, value):
    assert_equal(encode(**{name: value}), encode())


def test_every_parameter_of_the_base_class_is_accepted():
    parameters = inspect.signature(ProcessorMixin.apply_chat_template).parameters.values()
    defaults = {item.name: item.default for item in parameters if item.default is not inspect.Parameter.empty}
    assert {"tools", "continue_final_message", "processor_kwargs"} <= set(defaults)
    defaults |= {"tokenize": True, "return_dict": True}
    assert_equal(PROCESSOR.apply_chat_template(CHAT, **{**defaults, "return_tensors": "pt"}), encode())
    assert PROCESSOR.apply_chat_template(CHAT, **{**defaults, "tokenize": False}) == WRITTEN


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tils": 3}, "unknown option: max_tils; did you mean"),
        ({"padding_sid": "left"}, "did you mean padding_side"),
        ({"continue_last_message": True}, "did you mean continue_final_message"),
        ({"qwerty": 1}, "unknown option: qwerty; no processor, tokenizer or chat template knows it"),
        ({"images_kwargs": {"num_frames": 3}}, "unknown option in images_kwargs: num_frames"),
        ({"videos_kwargs": 3}, "videos_kwargs must be a dictionary"),
        ({"image_steps": 2, "images_kwargs": {"image_steps": 4}}, "image_steps is passed twice: 2 and 4|4 and 2"),
        ({"tools": [{"type": "function"}]}, "tools is .* neither the chat template nor the processor uses it"),
        ({"enable_thinking": True}, "enable_thinking is 'True'"),
        ({"load_audio_from_video": True}, "load_audio_from_video"),
        ({"sampling_rate": 16000}, "takes no audio"),
        ({"audio_kwargs": {"raw_speech": [0.0]}}, "raw_speech"),
        ({"stride": 3}, "stride is '3'"),
        ({"return_offsets_mapping": True}, "return_offsets_mapping"),
        ({"text_pair": "x"}, "text_pair"),
        ({"padding": "longst"}, "padding must be one of .*longest.*'longst'"),
        ({"padding_side": "top"}, "padding_side must be 'left' or 'right'"),
        ({"max_length": 0}, "max_length must be a whole number of 1 or more"),
        ({"truncation": "only_second"}, "truncation must be one of"),
        ({"do_center_crop": True}, "do_center_crop is True"),
        ({"device": "cuda"}, "processed on the CPU"),
        ({"data_format": "channels_last"}, "data_format is 'channels_last'"),
        ({"return_metadata": True}, "return_metadata"),
        ({"size": {"shortest_edge": 32}}, "size must be"),
        ({"do_resize": False}, "do_resize"),
        ({"do_sample_frames": False, "fps": 2}, "do_sample_frames is False, but fps"),
        ({"add_generation_prompt": True, "continue_final_message": True}, "exclude each other"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(options, message):
    with pytest.raises(UsageError, match=message):
        encode(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tils": 3}, "unknown option: max_tils"),
        ({"audio": [0.0]}, "audio"),
        ({"continue_final_message": True}, "continue_final_message is an option of apply_chat_template"),
        ({"sanitize_control_tokens": True}, "sanitize_control_tokens"),
        ({"do_pad": True}, "do_pad is True"),
    ],
)
def test_the_raw_call_refuses_by_name_too(options, message):
    with pytest.raises(UsageError, match=message):
        raw(**options)


def test_options_reach_their_part_flat_nested_and_in_processor_kwargs():
    expected = encode(image_steps=2, num_frames=2)
    assert expected["image_steps"].tolist() == [2, 2, 2]
    assert expected["video_grid_thw"].tolist() == [[2, 1, 1]]
    assert_equal(encode(images_kwargs={"image_steps": 2}, videos_kwargs={"num_frames": 2}), expected)
    assert_equal(encode(processor_kwargs={"image_steps": 2, "videos_kwargs": {"num_frames": 2}}), expected)
    assert_equal(raw(image_steps=2, videos_kwargs={"num_frames": 2}), expected)
    assert sort_options({"common_kwargs": {"return_tensors": "np"}})["text_kwargs"] == {"return_tensors": "np"}


def test_options_are_not_changed_by_a_call():
    options = {"images_kwargs": {"image_steps": 2}, "text_kwargs": {"padding": True, "return_mm_token_type_ids": True}}
    before = {key: dict(value) for key, value in options.items()}
    encode(**options)
    encode(processor_kwargs=options)
    raw(**options)
    assert options == before


def test_kinds_of_output():
    assert encode(return_dict=False).tolist() == encode()["input_ids"].tolist()
    arrays = encode(return_tensors="np")
    assert all(isinstance(value, np.ndarray) for value in arrays.values())
    assert encode(return_tensors=None)["input_ids"] == encode()["input_ids"].tolist()
    assert encode(processor_kwargs={"text_kwargs": {"return_tensors": None}})["attention_mask"][0][0] == 1
    batch = encode(return_length=True, return_token_type_ids=True, return_mm_token_type_ids=True)
    assert batch["length"].tolist() == [batch["input_ids"].shape[1]]
    assert not batch["token_type_ids"].any()
    kinds = batch["mm_token_type_ids"][0]
    assert torch.equal(kinds == 1, batch["input_ids"][0] == PROCESSOR.image_token_id)
    assert torch.equal(kinds == 2, batch["input_ids"][0] == PROCESSOR.video_token_id)
    assert "attention_mask" not in encode(return_attention_mask=False)


def test_messages_of_other_libraries():
    """None for what a table has no value for, dataclasses, pydantic-like objects and pipelines' chats."""

    @dataclasses.dataclass
    class Message:
        role: str
        content: str
        name: str | None = None

    class Dumped:
        def model_dump(self):
            return {"role": "user", "content": "hi", "tool_calls": None}

    class Conversation:
        messages = [{"role": "user", "content": "hi"}]

    plain = encode([{"role": "user", "content": "hi"}])
    for chat in ([Message("user", "hi")], [Dumped()], Conversation(), [Conversation()]):
        assert_equal(encode(chat), plain)
    parts = [{**PICTURE, "text": None, "path": None}, {"type": "text", "text": "x", "image": None}]
    expected = encode([{"role": "user", "content": [PICTURE, {"type": "text", "text": "x"}]}])
    assert_equal(encode([{"role": "user", "content": parts, "name": None}]), expected)


def test_others_can_read_which_options_there_are():
    """vLLM keeps the options of a request that it finds in this annotation."""
    (kinds,) = get_args(inspect.signature(PVCProcessor.__call__).parameters["kwargs"].annotation)
    assert kinds is PVCProcessor.valid_processor_kwargs
    assert {"image_steps", "max_patches"} <= set(kinds.__annotations__["images_kwargs"].__annotations__)
    assert {"times", "num_frames"} <= set(kinds.__annotations__["videos_kwargs"].__annotations__)


def test_the_end_of_the_last_message_is_left_open():
    chat = [*CHAT, {"role": "assistant", "content": "a red"}]
    whole, prompt = encode(chat)["input_ids"][0].tolist(), encode(add_generation_prompt=True)["input_ids"][0].tolist()
    opened = encode(chat, continue_final_message=True)["input_ids"][0].tolist()
    assert opened == prompt + PROCESSOR.tokenizer("a red")["input_ids"]
    assert whole[: len(opened)] == opened
    assert whole[len(opened)] == PROCESSOR.tokenizer.eos_token_id
    parts = [*CHAT, {"role": "assistant", "content": [{"type": "text", "text": "a red"}]}]
    assert encode(parts, continue_final_message=True)["input_ids"][0].tolist() == opened
    written = PROCESSOR.apply_chat_template(chat, continue_final_message=True)
    assert written.endswith("assistant\na red")
    with pytest.raises(UsageError, match="cannot be rendered"):
        encode([*CHAT, {"role": "assistant", "content": [PICTURE]}], continue_final_message=True)


def test_variables_reach_the_template():
    template = (
        "{% if tools %}{{ tools[0].function.name }}|{% endif %}{{ documents[0].text if documents }}|{{ style }}|"
        + PROCESSOR.chat_template
    )

    def double(number: int) -> int:
        """Double a number.

        Args:
            number: what to double.
        """
        return 2 * number

    ids = encode(
        [{"role": "user", "content": "x"}],
        chat_template=template,
        tools=[double],
        documents=[{"text": "some words"}],
        style="short",
    )["input_ids"][0]
    assert PROCESSOR.tokenizer.decode(ids).startswith("double|some words|short|<|im_start|>user\nx")
    with pytest.raises(UsageError, match="unknown option: styl; did you mean style"):
        encode(chat_template=template, styl="short")
    with pytest.raises(UsageError, match="documents must be"):
        encode(chat_template=template, documents=["x"])


def test_tool_calls_need_a_place_in_the_template():
    calls = [{"type": "function", "function": {"name": "double", "arguments": {"number": 2}}}]
    chat = [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": calls}]
    with pytest.raises(UsageError, match="message 1 has tool_calls, but the chat template has no place for them"):
        encode(chat)
    calls_of = "{% for call in m.tool_calls or [] %}{{ call | tojson }}{% endfor %}"
    template = "{% for m in messages %}{{ m.content }}" + calls_of + "{% endfor %}"
    written = PROCESSOR.tokenizer.decode(encode(chat, chat_template=template)["input_ids"][0])
    assert '"name": "double"' in written


def test_templates_by_name():
    processor = tiny_processor()
    processor.chat_template = {"default": processor.chat_template, "short": "{{ messages[0].content }}"}
    chat = [{"role": "user", "content": "hello"}]
    ids = processor.apply_chat_template(chat, tokenize=True, chat_template="short", return_tensors=None)["input_ids"]
    assert ids == [processor.tokenizer("hello")["input_ids"]]
    assert len(processor.apply_chat_template(chat, tokenize=True)["input_ids"][0]) > len(ids[0])
    processor.chat_template.pop("default")
    with pytest.raises(UsageError, match="name the chat_template to use; there are short"):
        processor.apply_chat_template(chat, tokenize=True)


def test_masks_follow_the_generation_blocks_of_a_template():
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}* "
        "{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{% if m.content is string %}{{ m.content }}"
        "{% else %}<IMG_CONTEXT>{% endif %}<|im_end|>{% endif %}\n{% endfor %}"
    )
    chat = [
        {"role": "user", "content": [PICTURE]},
        {"role": "assistant", "content": "AB"},
        {"role": "user", "content": "c"},
    ]
    for messages in (chat, chat[1:], [*chat, {"role": "assistant", "content": "no"}]):
        batch = encode(messages, chat_template=template, return_assistant_tokens_mask=True)
        learned = batch["input_ids"][batch["assistant_masks"] == 1]
        wanted = "".join(f"* {m['content']}<|im_end|>" for m in messages if m["role"] == "assistant")
        assert PROCESSOR.tokenizer.decode(learned) == wanted


def test_truncation_of_the_raw_call_never_cuts_media():
    with pytest.raises(MismatchError, match="truncation would cut off ids of pictures or videos"):
        raw(truncation=True, max_length=20)
    ids = PROCESSOR(text="some longer words to be cut", truncation=True, max_length=3)["input_ids"]
    assert [len(row) for row in ids] == [3]
    right = PROCESSOR(text=["a", "some words"], padding=True, padding_side="right", return_tensors="pt")
    assert right["attention_mask"][0].tolist()[0] == 1
    assert right["attention_mask"][0].tolist()[-1] == 0
