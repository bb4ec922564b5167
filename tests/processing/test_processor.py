"""PVCProcessor: placeholders for every medium, messages of all shapes, and errors for what does not add up."""

import numpy as np
import pytest
import torch
from PIL import Image

from pvc import PVCProcessor
from pvc.errors import MismatchError, UsageError
from pvc.media import Video
from pvc.testing import tiny_model, tiny_processor

PROCESSOR = tiny_processor(max_tiles=2)
WIDE = Image.new("RGB", (80, 40))
SMALL = Image.new("RGB", (40, 40))
CLIP = Video.from_frames(np.zeros((3, 32, 32, 3), np.uint8), timestamps=(0.0, 0.26, 12.5))


def image(picture):
    return {"type": "image", "image": picture}


def video(clip=CLIP):
    return {"type": "video", "video": clip}


def text(words="x"):
    return {"type": "text", "text": words}


def encode(*parts, **options):
    return PROCESSOR.apply_chat_template([{"role": "user", "content": list(parts)}], tokenize=True, **options)


def test_frames_are_announced_with_their_time():
    batch = encode(video(), text("what?"))
    written = PROCESSOR.tokenizer.decode(batch["input_ids"][0])
    frame = "<img><video></img>"
    assert f"user\n0.0s: {frame}\n0.3s: {frame}\n12.5s: {frame}\nwhat?" in written


def test_parts_in_any_order_and_several_turns():
    batch = PROCESSOR.apply_chat_template(
        [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [text("first"), image(WIDE), text("then"), video(), image(SMALL)]},
            {"role": "assistant", "content": "ok"},
            {"role": "user", "content": [video(), text("and?")]},
        ],
        tokenize=True,
        add_generation_prompt=True,
        image_steps=[2, 4],
    )
    ids = batch["input_ids"][0].tolist()
    assert ids.count(PROCESSOR.image_token_id) == 3 * 2 + 1 * 4
    assert ids.count(PROCESSOR.video_token_id) == 3 + 3
    assert batch["image_grid_thw"].tolist() == [[3, 1, 1], [1, 1, 1]]
    assert batch["image_steps"].tolist() == [2, 2, 2, 4]
    assert batch["video_grid_thw"].tolist() == [[3, 1, 1], [3, 1, 1]]
    assert "timestamps" not in batch
    model = tiny_model()
    assert model(**batch).logits.shape[1] == len(ids)


def test_the_raw_call_gives_the_same_ids():
    """What vLLM and transformers' own template call do, if no text has control tokens."""
    messages = [{"role": "user", "content": [image(WIDE), video(), text("what is it?")]}]
    safe = PROCESSOR.apply_chat_template(messages, tokenize=True, add_generation_prompt=True)
    written = PROCESSOR.apply_chat_template(messages, add_generation_prompt=True)
    raw = PROCESSOR(text=written, images=[WIDE], videos=[CLIP], return_tensors="pt")
    assert raw["input_ids"].tolist() == safe["input_ids"].tolist()
    assert torch.equal(raw["pixel_values"], safe["pixel_values"])
    assert torch.equal(raw["pixel_values_videos"], safe["pixel_values_videos"])
    assert set(raw) == set(safe)


def test_batches_are_padded_on_the_left():
    batch = PROCESSOR.apply_chat_template(
        [[{"role": "user", "content": "a"}], [{"role": "user", "content": [image(SMALL), text("bbbb")]}]], tokenize=True
    )
    gap = int((batch["attention_mask"][0] == 0).sum())
    assert gap > 0
    assert batch["attention_mask"][0].tolist() == [0] * gap + [1] * (batch["input_ids"].shape[1] - gap)
    assert batch["attention_mask"][1].all()


def test_assistant_mask_covers_the_answers_and_their_ends():
    batch = PROCESSOR.apply_chat_template(
        [
            {"role": "user", "content": [image(SMALL), text("what?")]},
            {"role": "assistant", "content": "AB 12"},
            {"role": "user", "content": "more"},
            {"role": "assistant", "content": [text("no")]},
        ],
        tokenize=True,
        return_assistant_tokens_mask=True,
    )
    assistant_ids = batch["input_ids"][batch["assistant_masks"] == 1].tolist()
    assert PROCESSOR.tokenizer.decode(assistant_ids) == "AB 12<|im_end|>no<|im_end|>"


def test_placeholder_mismatches_name_both_numbers():
    with pytest.raises(MismatchError, match="2 image placeholders, but 1 images"):
        PROCESSOR(text="<IMG_CONTEXT><IMG_CONTEXT>", images=[SMALL])
    with pytest.raises(MismatchError, match="0 image placeholders, but 1 images"):
        PROCESSOR(text="nothing", images=[SMALL])
    with pytest.raises(MismatchError, match="1 video placeholders, but 0 videos"):
        PROCESSOR(text="<video>")
    with pytest.raises(MismatchError, match="placed 0 images, but the messages have 1"):
        PROCESSOR.apply_chat_template(
            [{"role": "user", "content": [image(SMALL), text("x")]}],
            chat_template="{% for m in messages %}{% for p in m['content'] %}{{ p['text'] }}{% endfor %}{% endfor %}",
            tokenize=True,
        )
    with pytest.raises(MismatchError, match="placed 0 texts"):
        PROCESSOR.apply_chat_template([{"role": "user", "content": "x"}], chat_template="hello", tokenize=True)


def test_pictures_belong_to_their_own_text():
    with pytest.raises(MismatchError, match="text 0 has 1 image placeholders, but 2 images"):
        PROCESSOR(text=["a<IMG_CONTEXT>", "b<IMG_CONTEXT><IMG_CONTEXT>"], images=[[SMALL, SMALL], [SMALL]])


def test_media_and_messages_must_agree():
    media = PROCESSOR.process_media([SMALL, SMALL], [])
    with pytest.raises(MismatchError, match="1 images, but 2 were processed"):
        PROCESSOR.encode_chat([{"role": "user", "content": [image(SMALL), text("x")]}], media)


def test_generated_ids_come_from_the_assistant_and_hold_no_placeholders():
    part = {"type": "tokens", "tokens": [20]}
    with pytest.raises(UsageError, match="assistant"):
        PROCESSOR.apply_chat_template([{"role": "user", "content": [part]}], tokenize=True)
    part = {"type": "tokens", "tokens": [PROCESSOR.image_token_id]}
    with pytest.raises(UsageError, match="placeholder"):
        PROCESSOR.apply_chat_template([{"role": "assistant", "content": [part]}], tokenize=True)


def test_nothing_and_unknown_options():
    with pytest.raises(UsageError, match="nothing to process"):
        PROCESSOR()
    with pytest.raises(UsageError, match="max_tils"):
        encode(text(), max_tils=3)


def test_planned_tokens_equal_real_ones():
    sizes = [(40, 40), (40, 80), (100, 31)]
    planned = PROCESSOR._get_num_multimodal_tokens(image_sizes=sizes, video_sizes=[(3, 32, 32)])
    for (height, width), tokens, tiles in zip(sizes, planned.num_image_tokens, planned.num_image_patches, strict=True):
        batch = encode(image(Image.new("RGB", (width, height))))
        ids = batch["input_ids"][0].tolist()
        assert tokens == ids.count(PROCESSOR.image_token_id) + 2
        assert tiles == len(batch["pixel_values"])
    assert planned.num_video_tokens == [3]


def test_saved_and_loaded(tmp_path):
    PROCESSOR.apply_chat_template([{"role": "user", "content": "x"}], tokenize=True)  # fills what is made lazily
    PROCESSOR.save_pretrained(tmp_path)
    again = PVCProcessor.from_pretrained(tmp_path)
    assert again.tokens_per_frame == PROCESSOR.tokens_per_frame
    messages = [{"role": "user", "content": [image(WIDE), video(), text("what?")]}]
    ours, theirs = (p.apply_chat_template(messages, tokenize=True) for p in (PROCESSOR, again))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
