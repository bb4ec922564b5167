"""transformers' `pipeline("image-text-to-text")` answers with the bundled model: pictures, videos, batches, turns."""

from pathlib import Path

import pytest
from PIL import Image
from transformers import pipeline

import pvc.auto  # noqa: F401  # registers the classes
from pvc.checkpoint.files import BUNDLED

EXAMPLES = Path(__file__).parents[2] / "examples"
SIGN = {"type": "image", "path": str(EXAMPLES / "sign.png")}
DIGITS = {"type": "video", "path": str(EXAMPLES / "digits.mp4")}
QUESTION = {"type": "text", "text": "What does it say?"}
CHAT = [{"role": "user", "content": [SIGN, QUESTION]}]


@pytest.fixture(scope="module")
def ask():
    pipe = pipeline("image-text-to-text", model=str(BUNDLED), device="cpu")

    def ask(chat, **options):
        replies = pipe(text=chat, return_full_text=False, **options)
        texts = [reply["generated_text"] for one in replies for reply in (one if isinstance(one, list) else [one])]
        return texts if isinstance(chat[0], list) else texts[0]

    ask.pipe = pipe
    return ask


def test_a_picture_and_a_video(ask):
    assert ask(CHAT) == "42"
    assert ask([{"role": "user", "content": [{"type": "image", "image": Image.open(SIGN["path"])}, QUESTION]}]) == "42"
    assert ask([{"role": "user", "content": [DIGITS, {"type": "text", "text": "Which digits are shown?"}]}]) == "472"


@pytest.mark.parametrize("size", [1, 2])
def test_a_batch(ask, size):
    assert ask([CHAT, CHAT], batch_size=size) == ["42", "42"]


def test_two_turns(ask):
    assert (
        ask([*CHAT, {"role": "assistant", "content": "42"}, {"role": "user", "content": "What does it say?"}]) == "42"
    )


def test_an_answer_is_continued(ask):
    for content in ("4", [{"type": "text", "text": "4"}]):
        assert ask([*CHAT, {"role": "assistant", "content": content}]) == "2"
    (reply,) = ask.pipe(text=[*CHAT, {"role": "assistant", "content": content}])
    assert reply["generated_text"][-1]["content"][-1]["text"] == "42"


def test_options_reach_the_processor(ask):
    neutral = {"tools": None, "documents": None, "enable_thinking": False, "truncation": False, "padding": True}
    assert ask(CHAT, **neutral) == "42"
    assert ask(CHAT, processor_kwargs={"images_kwargs": {"image_steps": 2}}) == "42"


def test_text_with_placeholders(ask):
    text = "<|im_start|>user\n<IMG_CONTEXT>\nWhat does it say?<|im_end|>\n<|im_start|>assistant\n"
    (reply,) = ask.pipe(images=SIGN["path"], text=text, return_full_text=False)
    assert reply["generated_text"] == "42"
