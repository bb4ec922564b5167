"""`generate` with batches, left padding, beams, several return sequences and mixed steps."""

import pytest
import torch

from pvc.model.modeling import PVCForConditionalGeneration
from pvc.testing import tiny_config, tiny_model, tiny_processor
from tests.model.helpers import frames, relative_difference

IMAGE, VIDEO, TEXT = 5, 6, [20, 33, 41]


def prompt(*counts):
    """Build ids with runs of placeholders: positive counts are image tokens, negative ones video tokens."""
    ids = []
    for count in counts:
        ids += TEXT + ([IMAGE] * count if count > 0 else [VIDEO] * -count)
    return [*ids, 50]


def batch(*rows):
    """Build a left-padded batch of ids with its attention mask."""
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


SAMPLES = [
    # (prompt, inputs): one picture of 4 steps; two pictures of 2 tiles x 2 steps and 1 step; a video; picture + video
    (prompt(4), {"pixel_values": frames(1, seed=1), "image_steps": torch.tensor([4])}),
    (
        prompt(4, 1),
        {
            "pixel_values": frames(3, seed=2),
            "image_grid_thw": torch.tensor([[2, 1, 1], [1, 1, 1]]),
            "image_steps": torch.tensor([2, 2, 1]),
        },
    ),
    (prompt(-5), {"pixel_values_videos": frames(5, seed=3)}),
    (
        prompt(3, -2),
        {
            "pixel_values": frames(1, seed=4),
            "image_steps": torch.tensor([3]),
            "pixel_values_videos": frames(2, seed=5),
            "video_grid_thw": torch.tensor([[2, 1, 1]]),
        },
    ),
]


def joined():
    """Build one left-padded batch of all samples."""
    inputs = batch(*[ids for ids, _ in SAMPLES])
    media = [sample for _, sample in SAMPLES]
    inputs["pixel_values"] = torch.cat([m["pixel_values"] for m in media if "pixel_values" in m])
    inputs["image_grid_thw"] = torch.tensor([[1, 1, 1], [2, 1, 1], [1, 1, 1], [1, 1, 1]])
    inputs["image_steps"] = torch.cat([m["image_steps"] for m in media if "image_steps" in m])
    inputs["pixel_values_videos"] = torch.cat([m["pixel_values_videos"] for m in media if "pixel_values_videos" in m])
    inputs["video_grid_thw"] = torch.tensor([[5, 1, 1], [2, 1, 1]])
    return inputs


@pytest.mark.parametrize("text", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_batch_with_left_padding_equals_one_by_one(text, attention):
    model = tiny_model(text, attention=attention)
    together = model.generate(**joined(), max_new_tokens=6)[:, -6:]
    for row, (ids, media) in zip(together, SAMPLES, strict=True):
        alone = model.generate(**batch(ids), **media, max_new_tokens=6)[0, -6:]
        assert row.tolist() == alone.tolist()


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}])
def test_beams_of_a_batch_equal_beams_one_by_one(tiny, options):
    """This fails if images are interleaved instead of repeating the images of each sample."""
    count = options.get("num_return_sequences", 1)
    together = tiny.generate(**joined(), max_new_tokens=5, **options)[:, -5:]
    for row, (ids, media) in enumerate(SAMPLES):
        alone = tiny.generate(**batch(ids), **media, max_new_tokens=5, **options)[:, -5:]
        assert together[row * count : (row + 1) * count].tolist() == alone.tolist()


def test_sampled_return_sequences_have_the_right_media(tiny):
    """At a temperature of almost 0, every one of several sampled sequences is the greedy one."""
    greedy = tiny.generate(**joined(), max_new_tokens=5)[:, -5:]
    sampled = tiny.generate(**joined(), max_new_tokens=5, do_sample=True, temperature=1e-4, num_return_sequences=2)[
        :, -5:
    ]
    assert sampled.tolist() == greedy.repeat_interleave(2, dim=0).tolist()


def test_placeholders_are_never_generated(tiny):
    ids = tiny.generate(**joined(), max_new_tokens=40)
    grown = ids[:, -40:]
    assert not ((grown == IMAGE) | (grown == VIDEO)).any()


def test_precomputed_features_equal_pixels(tiny):
    ids, media = SAMPLES[3]
    with torch.no_grad():
        encoded = {
            "image": tiny.get_image_features(media["pixel_values"], image_steps=media["image_steps"]),
            "video": tiny.get_video_features(media["pixel_values_videos"], video_grid_thw=media["video_grid_thw"]),
        }
        # The model encodes images and videos in one pass, which rounds in another order.
        before, after = tiny(**batch(ids), mm_encoder_outputs=encoded).logits, tiny(**batch(ids), **media).logits
    assert relative_difference(before, after) <= 1e-5


def test_image_tokens_are_step_major(tiny):
    """All tiles at step 0, then all at step 1: a prefix covers the whole picture."""
    tiles = frames(3)
    with torch.no_grad():
        image = tiny.get_image_features(tiles, image_grid_thw=torch.tensor([[3, 1, 1]]), image_steps=2).pooler_output[0]
        single = [tiny.get_image_features(tile[None], image_steps=2).pooler_output[0] for tile in tiles]
    expected = torch.stack([single[tile][step] for step in range(2) for tile in range(3)])
    assert relative_difference(image, expected) <= 1e-5


def test_bf16_is_close_and_keeps_modulation_exact(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    halved = PVCForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    norms = [m for name, m in halved.named_parameters() if "modulation" in name]
    assert norms and all(parameter.dtype == torch.float32 for parameter in norms)
    assert halved.model.vision_tower.encoder.layer[0].mlp.fc1.weight.dtype == torch.bfloat16
    with torch.no_grad():
        full = model.model.encode_clips(frames(4), frames=[4])[0][0]
        half = halved.model.encode_clips(frames(4), frames=[4])[0][0]
    assert half.dtype == torch.bfloat16
    assert relative_difference(half, full) < 0.05


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_gradient_checkpointing_gives_the_same_gradients(attention):
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model(attention=attention).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        ids, media = SAMPLES[3]
        inputs = batch(ids)
        model(**inputs, **media, labels=inputs["input_ids"]).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert any(".temporal." in name for name in gradients[0])
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6), name


def test_every_parameter_gets_a_gradient():
    model = tiny_model().train()
    ids, media = SAMPLES[3]
    inputs = batch(ids)
    model(**inputs, **media, labels=inputs["input_ids"]).loss.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []


def test_hidden_states_and_attentions_are_recorded():
    model = tiny_model(attention="eager")
    output = model.model.vision_tower(frames(2), steps=[3, 3], output_hidden_states=True, output_attentions=True)
    assert [len(hidden) for hidden in output.hidden_states] == [2, 2, 2, 6, 6]
    assert [tuple(attention.shape) for attention in output.attentions] == [(2, 4, 17, 17)] * 2 + [(6, 4, 17, 17)] * 2


def test_auto_classes(tmp_path):
    from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

    import pvc.auto  # noqa: F401

    model = tiny_model()
    model.save_pretrained(tmp_path)
    tiny_processor(model.config).save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)).__name__ == "PVCConfig"
    assert type(AutoModel.from_pretrained(tmp_path)).__name__ == "PVCModel"
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert type(processor).__name__ == "PVCProcessor"
    assert processor.tokens_per_frame == tiny_config().tokens_per_frame
