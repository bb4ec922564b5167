"""P5, extended: a checkpoint in closed form computes what its source does, in a quarter of the tokens a step."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import InternVLForConditionalGeneration

import pvc
from pvc.cli.main import main
from pvc.convert import Options, convert, convert_to_internvl, read_source
from pvc.convert.closed_form import MAX_RESIDUAL, solve
from pvc.convert.from_pvc import convert_pvc
from pvc.convert.verify import compare
from pvc.engine.options import MediaOptions
from pvc.errors import ConfigError, UsageError
from pvc.model.order import block_positions
from pvc.testing import tiny_config
from tests.convert import sources

# What official InternVL configurations have: their weights are always loaded.
OFFICIAL = {"initializer_range": 1e-10}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return sources.transformers_format(tmp_path_factory.mktemp("source") / "source", vision=OFFICIAL)


@pytest.fixture(scope="module")
def converted(source, tmp_path_factory):
    target = tmp_path_factory.mktemp("converted") / "pvc"
    convert(source, target)
    return target


def picture(height, width, seed=0):
    values = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def conversation(*pictures):
    parts = [{"type": "image", "image": item} for item in pictures]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "which shape is red?"}]}]


def relative(ours, theirs):
    return float((ours - theirs).abs().max() / theirs.abs().max())


MAKERS = {
    "transformers, qwen2": lambda path: sources.transformers_format(path, vision=OFFICIAL),
    "transformers, qwen3, tied": lambda path: sources.transformers_format(path, "qwen3", tied=True),
    "transformers, llama, bf16": lambda path: sources.transformers_format(path, "llama", dtype=torch.bfloat16),
    "chat, qwen2": lambda path: sources.chat_format(path),
    "chat, llama, bf16": lambda path: sources.chat_format(path, "llama", torch.bfloat16),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("ratio", [0.25, 0.125])
def test_every_source_in_closed_form(tmp_path, name, ratio):
    described = read_source(MAKERS[name](tmp_path / "source"))
    report = convert(described, tmp_path / "made", Options(ratio=ratio))
    assert report.residual <= MAX_RESIDUAL
    actual = {item.what: item for item in compare(described, tmp_path / "made")}
    assert actual["vision tower"].largest == 0
    for what in ("visual tokens, block by block", "visual tokens, in the source's order", "logits"):
        assert actual[what].relative <= 1e-5, what
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    blocks = {0.25: 4, 0.125: 16}[ratio]
    assert config["image_steps"] == config["compressor_norm_groups"] == blocks
    assert config["vision_config"]["timestep_period"] == blocks


@pytest.mark.parametrize(
    ("pictures", "max_patches"),
    [
        pytest.param([(32, 32)], 1, id="one tile"),
        pytest.param([(32, 96)], 6, id="tiles and a thumbnail"),
        pytest.param([(32, 32), (64, 64)], 4, id="two pictures"),
    ],
)
def test_logits_and_answers_are_the_source_s(source, converted, pictures, max_patches):
    engine = pvc.load(converted, device="cpu")
    theirs = InternVLForConditionalGeneration.from_pretrained(source).eval()
    shown = [picture(*size, seed=number) for number, size in enumerate(pictures)]
    batch = engine.processor.apply_chat_template(
        conversation(*shown), add_generation_prompt=True, tokenize=True, max_patches=max_patches
    )
    tiles = int(batch["image_grid_thw"][:, 0].sum())
    assert tiles > len(pictures) or max_patches == 1
    # As many placeholders as the source has: 16 a tile.
    assert int((batch["input_ids"] == theirs.config.image_token_id).sum()) == 16 * tiles
    inputs = {"input_ids": batch["input_ids"], "pixel_values": batch["pixel_values"]}
    with torch.no_grad():
        assert relative(engine.model(**batch).logits, theirs(**inputs).logits) <= 1e-5
        options = {"max_new_tokens": 8, "do_sample": False}
        expected = theirs.generate(**inputs, **options)
        assert torch.equal(engine.model.generate(**batch, **options), expected)
    chat = engine.chat()
    chat.add(shown, MediaOptions(max_tiles=max_patches))
    answer = chat.ask("which shape is red?", max_new_tokens=8).text
    new = expected[0, batch["input_ids"].shape[1] :]
    # An answer that ends inside a character is shown without it.
    text = engine.processor.tokenizer.decode(new, skip_special_tokens=True)
    assert answer.rstrip("\ufffd") == text.strip().rstrip("\ufffd")


def test_a_batch_with_four_and_two_steps(source, converted):
    """Two steps are a subset of the source's tokens: those of blocks 0 and 3, in the source's order."""
    engine = pvc.load(converted, device="cpu")
    theirs = InternVLForConditionalGeneration.from_pretrained(source).eval()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        tokens = theirs.model.get_image_features(pixels).pooler_output
        tokens = [tokens[0], tokens[1]] if isinstance(tokens, torch.Tensor) and tokens.dim() == 3 else list(tokens)
        ours = engine.model.model.get_image_features(pixels, image_steps=torch.tensor([4, 2])).pooler_output
    assert relative(ours[0], tokens[0]) <= 1e-5
    grid = tokens[1].view(2, 2, 2, 2, -1)  # (row, block row, column, block column)
    subset = [grid[r, b, c, b] for r in (0, 1) for b in (0, 1) for c in (0, 1)]
    assert relative(ours[1], torch.stack(subset)) <= 1e-5


def test_blocks_of_sixteen_take_the_quadrants_in_turn():
    places = block_positions(16)
    assert sorted(places) == [(row, column) for row in range(4) for column in range(4)]
    for start in range(0, 16, 4):
        quadrants = [(row // 2, column // 2) for row, column in places[start : start + 4]]
        assert quadrants == [(0, 0), (1, 1), (0, 1), (1, 0)]
    assert block_positions(4) == ((0, 0), (1, 1), (0, 1), (1, 0))
    with pytest.raises(UsageError, match="2 blocks"):
        block_positions(2)


def test_every_frame_of_a_video_shows_one_block(source, converted):
    """Frame t has the source's tokens of block t mod 4, in a clip, in pieces, and far from its beginning."""
    engine = pvc.load(converted, device="cpu")
    theirs = InternVLForConditionalGeneration.from_pretrained(source).eval()
    frames = torch.randn(10, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        tokens = theirs.model.get_image_features(frames).pooler_output
        grid = torch.stack(list(tokens)).view(10, 2, 2, 2, 2, -1)
        clip = engine.model.model.encode_clips(frames, frames=[10])[0][0]
        pieces, cache = [], None
        for frame in frames:
            made, cache = engine.model.model.encode_frames(frame[None], cache)
            pieces.append(made)
        later = engine.model.model.encode_clips(frames, frames=[10], step_offset=[4002])[0][0]
    for number in range(10):
        row, column = block_positions(4)[number % 4]
        expected = grid[number, :, row, :, column].flatten(0, 1)
        assert relative(clip[number], expected) <= 1e-5
        assert relative(pieces[number][0], expected) <= 1e-5
        row, column = block_positions(4)[(number + 2) % 4]
        assert relative(later[number], grid[number, :, row, :, column].flatten(0, 1)) <= 1e-5


def test_index_timesteps_up_to_a_limit(source, tmp_path):
    described = read_source(source)
    report = convert(described, tmp_path / "made", Options(timestep="index", timestep_limit=13))
    assert any("frames after number 14 of a video all show block 1" in warning for warning in report.warnings)
    assert all(item.within for item in compare(described, tmp_path / "made"))
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    assert config["vision_config"]["timestep"] == "index"
    assert config["vision_config"]["timestep_limit"] == 13
    with pytest.raises(ConfigError, match=r"residual of .* for 2001 timesteps"):
        convert(described, tmp_path / "long", Options(timestep="index", timestep_limit=2000))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timestep": "relative"}, "'relative' .* and init 'exact'"),
        ({"timestep": "index"}, "needs --timestep-limit"),
        ({"timestep_limit": 8}, "timestep_limit is 8, but timestep is 'cyclic'"),
        ({"window": 2}, "temporal_window 2 is shorter than image_steps 4"),
    ],
)
def test_what_does_not_fit_together_is_refused(source, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        convert(source, tmp_path / "made", Options(**options))
    assert not (tmp_path / "made").exists()


def test_an_init_that_is_not_known_is_refused():
    with pytest.raises(UsageError, match="exact, mean"):
        Options(init="best")


def test_timesteps_that_are_too_similar_are_an_error():
    """With weights as small as official initializer ranges, the system is singular."""
    config = tiny_config(
        vision={"timestep": "cyclic", "timestep_period": 4},
        compressor_norm_groups=4,
        image_token_order="raster",
    )
    width = config.vision_config.hidden_size
    embedder = {
        "linear_1.weight": torch.randn(width, 256) * 1e-10,
        "linear_1.bias": torch.zeros(width),
        "linear_2.weight": torch.randn(width, width) * 1e-10,
        "linear_2.bias": torch.zeros(width),
    }
    with pytest.raises(ConfigError, match="residual"):
        solve(torch.ones(4 * width), torch.zeros(4 * width), torch.randn(32, 4 * width), config, embedder)


def test_new_tensors_do_not_take_the_source_s_initializer_range(converted):
    """At 1e-10 a converted model would begin its training with attention and an embedder of nothing."""
    state = load_file(converted / "model.safetensors")
    prefix = "model.vision_tower"
    assert float(state[f"{prefix}.timestep_embedding.linear_1.weight"].std()) == pytest.approx(256**-0.5, rel=0.1)
    assert float(state[f"{prefix}.timestep_embedding.linear_2.weight"].std()) == pytest.approx(32**-0.5, rel=0.1)
    for name in "qkv":
        weight = state[f"{prefix}.encoder.layer.2.temporal.attention.{name}_proj.weight"]
        assert float(weight.std()) == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("ratio", [0.25, 0.125])
def test_there_and_back(source, tmp_path, ratio):
    convert(source, tmp_path / "made", Options(ratio=ratio))
    convert_to_internvl(tmp_path / "made", tmp_path / "back")
    before, after = (load_file(path / "model.safetensors") for path in (source, tmp_path / "back"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=2e-6)


def test_a_trained_model_does_not_go_back(source, tmp_path, converted):
    model = pvc.load(converted, device="cpu").model
    with torch.no_grad():
        model.model.multi_modal_projector.norm.modulation.weight[0, 0] += 0.01
    model.save_pretrained(tmp_path / "trained")
    pvc.load(converted, device="cpu").processor.save_pretrained(tmp_path / "trained")
    with pytest.raises(ConfigError, match="no longer the closed form"):
        convert_to_internvl(tmp_path / "trained", tmp_path / "back")


@pytest.fixture(scope="module")
def base(source, tmp_path_factory):
    """A PVC checkpoint at ratio 1/2 with one step, whose LayerNorm depends on the (only) timestep."""
    folder = tmp_path_factory.mktemp("base")
    convert(source, folder / "fresh", Options(ratio=0.5))
    engine = pvc.load(folder / "fresh", device="cpu")
    norm = engine.model.model.multi_modal_projector.norm.modulation
    with torch.no_grad():
        norm.weight.copy_(0.1 * torch.randn(norm.weight.shape, generator=torch.Generator().manual_seed(3)))
    engine.model.save_pretrained(folder / "base")
    engine.processor.save_pretrained(folder / "base")
    return folder / "base"


def test_a_pvc_base_in_closed_form(base, tmp_path):
    report = convert_pvc(base, tmp_path / "made")
    assert report.residual <= MAX_RESIDUAL
    before, after = (pvc.load(path, device="cpu") for path in (base, tmp_path / "made"))
    assert after.model.config.tokens_per_frame == 4
    messages = conversation(picture(32, 96), picture(32, 32, seed=1))
    batches = [
        engine.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)
        for engine in (before, after)
    ]
    assert torch.equal(batches[0]["input_ids"], batches[1]["input_ids"])
    with torch.no_grad():
        assert relative(after.model(**batches[1]).logits, before.model(**batches[0]).logits) <= 1e-5


def test_a_pvc_base_from_the_command_line(base, converted, tmp_path, capsys):
    assert main(["convert", str(base), str(tmp_path / "made")]) == 0
    assert "closed form: residual" in capsys.readouterr().out
    for options, message in (
        ([str(base), "--ratio", "1/2"], "--ratio must be smaller"),
        ([str(base), "--check"], "--check and --map are for conversions from InternVL"),
        ([str(base), "--init", "mean"], "--init exact only"),
        ([str(converted), "--ratio", "1/8"], "takes 4 steps a picture"),
    ):
        source, *rest = options
        assert main(["convert", source, str(tmp_path / "other"), *rest]) in (2, 5)
        assert message in capsys.readouterr().err
        assert not (tmp_path / "other").exists()


def test_the_report_names_every_tensor(source, capsys):
    assert main(["convert", "--report", str(source)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{source}: 91 tensors have a place, 0 have none"
    assert any(
        "linear_1.weight F32 [32, 128] -> model.multi_modal_projector.linear_1.weight (widen)" in x for x in lines
    )
    assert main(["convert", str(source)]) == 2
    assert "a directory to write is missing" in capsys.readouterr().err
