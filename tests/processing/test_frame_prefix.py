"""What stands before a video frame in the prompt: a setting that is saved, checked, and never a control token."""

import json

import numpy as np
import pytest
from transformers import AddedToken

from pvc import PVCProcessor
from pvc.errors import CheckpointError, UsageError
from pvc.media import Video
from pvc.processing.frame_prefix import check_frame_prefix, write_frame_prefix
from pvc.testing import tiny_processor, tiny_tokenizer

CLIP = Video.from_frames(np.zeros((3, 32, 32, 3), np.uint8), timestamps=(0.0, 0.26, 12.5))
FRAME = "<img><video></img>"


def processor_with(prefix, tokenizer=None):
    parts = tiny_processor()
    return PVCProcessor(
        parts.image_processor,
        tokenizer or parts.tokenizer,
        parts.video_processor,
        tokens_per_frame=parts.tokens_per_frame,
        chat_template=parts.chat_template,
        frame_prefix=prefix,
    )


def written(processor):
    messages = [{"role": "user", "content": [{"type": "video", "video": CLIP}, {"type": "text", "text": "what?"}]}]
    safe = processor.apply_chat_template(messages, tokenize=True, add_generation_prompt=True)
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    raw = processor(text=text, videos=[CLIP], return_tensors="pt")
    assert raw["input_ids"].tolist() == safe["input_ids"].tolist()
    return processor.tokenizer.decode(safe["input_ids"][0])


PREFIXES = {
    "timestamp": ("0.0s: ", "0.3s: ", "12.5s: "),
    "index": ("Frame1: ", "Frame2: ", "Frame3: "),
    "none": ("", "", ""),
    "[{seconds:.2f}] ": ("[0.00] ", "[0.26] ", "[12.50] "),
    "{index:02d} at {seconds}:\n": ("01 at 0.0:\n", "02 at 0.3:\n", "03 at 12.5:\n"),
    "{{{index}}} {seconds:05.1f} ": ("{1} 000.0 ", "{2} 000.3 ", "{3} 012.5 "),
    "{index}/{index:d} é{seconds:.0f}": ("1/1 é0", "2/2 é0", "3/3 é12"),
}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_are_written_saved_and_loaded(prefix, tmp_path):
    processor = processor_with(prefix)
    first, second, third = PREFIXES[prefix]
    expected = f"user\n{first}{FRAME}\n{second}{FRAME}\n{third}{FRAME}\nwhat?"
    assert expected in written(processor)
    processor.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "processor_config.json").read_text())["frame_prefix"] == prefix
    again = PVCProcessor.from_pretrained(tmp_path)
    assert again.frame_prefix == prefix
    assert written(again) == written(processor)


def test_processors_from_before_the_setting_write_times(tmp_path):
    processor_with("index").save_pretrained(tmp_path)
    path = tmp_path / "processor_config.json"
    settings = json.loads(path.read_text())
    del settings["frame_prefix"]
    path.write_text(json.dumps(settings))
    assert written(PVCProcessor.from_pretrained(tmp_path)) == written(tiny_processor())


def test_every_video_is_counted_from_one():
    processor = processor_with("index")
    text = processor.tokenizer.decode(
        processor.encode_chat(
            [{"role": "user", "content": [{"type": "video", "video": "a"}, {"type": "video", "video": "b"}]}],
            {"timestamps": [[0.0, 1.0], [0.0]]},
        ).ids
    )
    assert f"Frame1: {FRAME}\nFrame2: {FRAME}\nFrame1: {FRAME}" in text


REFUSED = {
    "": "neither",
    "Frame: ": "neither",
    "{{index}}: ": "neither",
    "{number}: ": "the field 'number'",
    "{}: ": "the field ''",
    "{0}: ": "the field '0'",
    "{index.__class__}": "the field 'index.__class__'",
    "{seconds[0]}": r"the field 'seconds\[0\]'",
    "{index!r}": "format '!r'",
    "{index:>30}": "format '>30'",
    "{index:.2f}": "format '.2f'",
    "{seconds:d}": "format 'd'",
    "{seconds:e}": "format 'e'",
    "{seconds:099.1f}": "format '099.1f'",
    "{seconds:{index}}": "format '{index}'",
    "{index": "expected '}'",
    "index} ": "Single '}'",
    "{index}\x00": "cannot be printed",
    "{index}\ud800": "cannot be printed",
    "{index}" + "x" * 60: "67 characters, and the limit is 64",
    "{index}<img>": "control token '<img>'",
    "</img>{index}": "control token '</img>'",
    "{index}<IMG_CONTEXT>": "control token '<IMG_CONTEXT>'",
    "<video>{seconds}": "control token '<video>'",
    "<|im_start|>{index}": r"control token '<\|im_start\|>'",
    "<|im_end|>\n{index}": r"control token '<\|im_end\|>'",
    "{index}<|endoftext|>": r"control token '<\|endoftext\|>'",
}


@pytest.mark.parametrize("prefix", REFUSED)
def test_what_cannot_be_a_prefix_is_refused(prefix):
    with pytest.raises(UsageError, match=f"(?s)^frame_prefix is .*{REFUSED[prefix]}.*'timestamp', 'index', 'none'"):
        processor_with(prefix)


@pytest.mark.parametrize("value", [None, 3, ["index"], {"index": 1}])
def test_a_prefix_is_a_text(value):
    with pytest.raises(UsageError, match="it must be a text, not a"):
        processor_with(value)


def test_errors_have_a_bounded_length():
    for value in ("{" * 100_000, "x" * 100_000, "{" + "y" * 60 + "}", ["z" * 100_000]):
        with pytest.raises(UsageError) as caught:
            processor_with(value)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("token", ["<|reserved_2|>", "<|reserved_25|>", "<|reserved_1.5|>", "2|>"])
def test_numbers_do_not_complete_a_control_token(token):
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken(token, special=True)])
    with pytest.raises(UsageError, match="control token"):
        check_frame_prefix("<|reserved_{index}|>", tokenizer)
    check_frame_prefix("(reserved {index}) ", tokenizer)


def test_runs_of_spaces_are_no_control_tokens():
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken("    "), AddedToken("<tool>")])
    check_frame_prefix("{index}:    ", tokenizer)
    with pytest.raises(UsageError, match="control token '<tool>'"):
        check_frame_prefix("{index}<tool>", tokenizer)


def test_a_value_that_was_never_checked_still_reaches_no_attributes():
    with pytest.raises(UsageError, match="the field"):
        write_frame_prefix("{index.__class__.__init__}", 1, 0.0)


def test_a_damaged_setting_is_an_error_of_the_checkpoint(tmp_path):
    from pvc.checkpoint.files import CheckpointFiles
    from pvc.checkpoint.loading import load_processor
    from pvc.testing import write_tiny_checkpoint

    write_tiny_checkpoint(tmp_path)
    path = tmp_path / "processor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "frame_prefix": "{frame}"}))
    with pytest.raises(CheckpointError, match="frame_prefix is '{frame}'"):
        load_processor(CheckpointFiles(tmp_path))
