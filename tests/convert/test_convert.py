"""`pvc convert`: every kind of source, start as the identity, conversion back, and rejected sources."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import InternVLForConditionalGeneration

import pvc
from pvc.cli.main import main
from pvc.convert import Options, convert, convert_to_internvl, read_source
from pvc.convert.keymap import CHAT, CHAT_INTERNLM2, EXPORT, TRANSFORMERS, match_rules
from pvc.convert.transforms import TRANSFORMS, Shapes
from pvc.convert.verify import compare
from pvc.errors import CheckpointError, ConfigError, UsageError
from pvc.model.modeling import PVCForConditionalGeneration
from tests.convert import sources

MAKERS = {
    "transformers, qwen2": lambda path: sources.transformers_format(path),
    "transformers, qwen3, tied": lambda path: sources.transformers_format(path, "qwen3", tied=True),
    "transformers, llama, bf16": lambda path: sources.transformers_format(path, "llama", dtype=torch.bfloat16),
    "chat, qwen2": lambda path: sources.chat_format(path),
    "chat, qwen3, bf16": lambda path: sources.chat_format(path, "qwen3", torch.bfloat16),
    "chat, llama": lambda path: sources.chat_format(path, "llama"),
}
ONE_STEP = Options(ratio=0.5, image_steps=1)


@pytest.fixture
def source(tmp_path):
    return sources.transformers_format(tmp_path / "source")


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("ratio", [0.5, 0.25, 0.125])
def test_every_source_starts_as_the_identity(tmp_path, name, ratio):
    described = read_source(MAKERS[name](tmp_path / "source"))
    report = convert(described, tmp_path / "made", Options(ratio=ratio, init="mean"))
    assert report.used == len(described.tensors)
    actual = {item.what: item for item in compare(described, tmp_path / "made")}
    assert actual["vision tower"].largest == 0
    assert actual["visual tokens, same ratio"].relative < 1e-5
    assert actual["logits"].relative < 1e-5
    assert ("visual tokens, against the mean of those replaced" in actual) == (ratio != 0.5)


def test_tokens_and_answers_are_those_of_transformers(source, tmp_path):
    """Through the public way: the model that is loaded, transformers' own on the same ids and pixels."""
    convert(source, tmp_path / "made", ONE_STEP)
    engine = pvc.load(tmp_path / "made", device="cpu")
    theirs = InternVLForConditionalGeneration.from_pretrained(source).eval()
    picture = torch.randint(0, 255, (32, 32, 3), dtype=torch.uint8).numpy()
    message = {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "what?"}]}
    batch = engine.processor.apply_chat_template([message], add_generation_prompt=True, tokenize=True)
    assert (batch["input_ids"] == theirs.config.image_token_id).sum() == 16
    with torch.no_grad():
        expected = theirs.generate(
            input_ids=batch["input_ids"], pixel_values=batch["pixel_values"], max_new_tokens=8, do_sample=False
        )
        ours = engine.model.generate(**batch, max_new_tokens=8, do_sample=False)
    assert torch.equal(ours, expected)


def test_new_tensors_start_as_a_fresh_model_does(source, tmp_path):
    convert(source, tmp_path / "made")
    state = load_file(tmp_path / "made" / "model.safetensors")
    fresh = PVCForConditionalGeneration(pvc.load(tmp_path / "made", device="cpu").model.config).state_dict()
    new = [name for name in state if ".temporal." in name or "timestep_embedding" in name]
    assert len(new) == 14
    for name in new:
        assert bool(state[name].any()) == bool(fresh[name].any()), name
        if bool(state[name].any()):
            assert float(state[name].std()) == pytest.approx(float(fresh[name].std()), rel=0.2), name
    weight = state["model.vision_tower.encoder.layer.2.temporal.attention.q_proj.weight"]
    convert(source, tmp_path / "again")
    same = load_file(tmp_path / "again" / "model.safetensors")
    assert torch.equal(same["model.vision_tower.encoder.layer.2.temporal.attention.q_proj.weight"], weight)
    convert(source, tmp_path / "other", Options(seed=1))
    other = load_file(tmp_path / "other" / "model.safetensors")
    assert not torch.equal(other["model.vision_tower.encoder.layer.2.temporal.attention.q_proj.weight"], weight)


def test_a_wider_compressor_begins_as_the_mean(tmp_path):
    """By hand: without the norm in the way, a token is the linear layer's mean over the four it takes the place of."""
    width, shapes = 3, Shapes(2, 4)
    weight, grid = torch.randn(5, 4 * width), torch.randn(4, 4, width)
    wide = TRANSFORMS["widen"][0]([weight], shapes)[0]
    small = [grid[r : r + 2, c : c + 2].reshape(-1) for r in (0, 2) for c in (0, 2)]
    torch.testing.assert_close(wide @ grid.reshape(-1), torch.stack([weight @ item for item in small]).mean(0))
    affine = TRANSFORMS["layernorm_to_adaln"][0]([torch.arange(12.0), torch.zeros(12)], shapes)[0]
    by_place = (1 + affine[: 16 * width]).view(4, 4, width)
    for row in range(4):
        for column in range(4):
            expected = torch.arange(12.0).view(2, 2, width)[row % 2, column % 2]
            assert torch.equal(by_place[row, column], expected)


@pytest.mark.parametrize("rules", [TRANSFORMERS, CHAT, CHAT_INTERNLM2])
def test_the_map_reads_both_ways(rules, tmp_path):
    makers = {TRANSFORMERS: sources.transformers_format, CHAT: sources.chat_format}
    if rules is CHAT_INTERNLM2:
        (tmp_path / "s").mkdir()
        names = dict.fromkeys(sources.internlm2_format(tmp_path / "s", 100), 1)
    else:
        names = read_source(makers[rules](tmp_path / "s")).tensors
    steps, unknown = match_rules(names, rules)
    assert not unknown
    assert sorted(name for step in steps for name in step.sources) == sorted(names)
    targets = [target for step in steps for target in step.targets]
    back, unknown = match_rules(targets, EXPORT if rules is TRANSFORMERS else rules, inverse=True)
    assert not unknown
    assert sorted(name for step in back for name in step.targets) == sorted(names)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_are_undone(transform):
    shapes = Shapes(2, 2, heads=6, kv_heads=2)
    inputs = [1 + 0.1 * torch.randn(60, 8)]
    if transform == "layernorm_to_adaln":
        inputs = [1 + 0.1 * torch.randn(12), torch.randn(12)]
    forth, back = TRANSFORMS[transform]
    for before, after in zip(inputs, back(forth(inputs, shapes), shapes), strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [False, True])
def test_there_and_back(tmp_path, dtype, tied):
    source = sources.transformers_format(tmp_path / "source", tied=tied, dtype=dtype)
    convert(source, tmp_path / "made", Options(temporal_layers=0, ratio=0.5, image_steps=1))
    convert_to_internvl(tmp_path / "made", tmp_path / "back")
    before, after = (load_file(path / "model.safetensors") for path in (source, tmp_path / "back"))
    assert sorted(before) == sorted(after)
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype, name
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=2e-7 if "layer_norm" in name else 0)
    theirs, again = (InternVLForConditionalGeneration.from_pretrained(p).eval() for p in (source, tmp_path / "back"))
    assert theirs.config.to_dict()["vision_config"] == again.config.to_dict()["vision_config"]
    pixels, ids = torch.randn(1, 3, 32, 32), torch.tensor([[1, *[theirs.config.image_token_id] * 16, 2]])
    with torch.no_grad():
        outputs = [m(input_ids=ids, pixel_values=pixels.to(dtype)).logits.float() for m in (theirs, again)]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-5)


def test_what_internvl_cannot_say_does_not_go_back(source, tmp_path):
    convert(source, tmp_path / "mean", Options(init="mean"))
    with pytest.raises(ConfigError, match=r"downsample_ratio is 0\.25: InternVL's is 0\.5"):
        convert_to_internvl(tmp_path / "mean", tmp_path / "back")
    for name, message in (
        ("model.multi_modal_projector.norm.modulation.weight", "timestep"),
        ("model.vision_tower.encoder.layer.2.temporal.attention.projection_layer.bias", "has been trained"),
    ):
        made = tmp_path / message.replace(" ", "-")
        convert(source, made, Options(ratio=0.5))
        state = load_file(made / "model.safetensors")
        state[name].view(-1)[0] = 1
        save_file(state, made / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ConfigError, match=message):
            convert_to_internvl(made, tmp_path / "back")
    assert not list(tmp_path.glob("*back*"))


def test_shards_are_read_and_written_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr("pvc.convert.from_internvl._MIN_SHARD_BYTES", 40_000)
    source = sources.transformers_format(tmp_path / "source", shard="60KB")
    assert len(list(source.glob("model-*.safetensors"))) > 2
    report = convert(source, tmp_path / "made", ONE_STEP)
    assert len(report.shards) > 3
    files = list((tmp_path / "made").glob("model-*.safetensors"))
    assert sorted(path.name for path in files) == report.shards
    one_by_one = pvc.load(tmp_path / "made", device="cpu").model.state_dict()
    monkeypatch.undo()
    convert(source, tmp_path / "whole", ONE_STEP)
    for name, tensor in pvc.load(tmp_path / "whole", device="cpu").model.state_dict().items():
        assert torch.equal(tensor, one_by_one[name])


def test_progress_is_reported(source, tmp_path):
    calls = []
    convert(source, tmp_path / "made", progress=lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == list(range(1, calls[-1][1] + 1))


def test_tensors_without_a_place_are_all_named(source, tmp_path):
    path = source / "model.safetensors"
    state = load_file(path)
    state |= {"vision_tower.extra.weight": torch.zeros(3, 2), "another": torch.zeros(7)}
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 tensors.*another \[7\]"):
        convert(source, tmp_path / "made")
    del state["another"]
    save_file({**state, "lm_head.bias": torch.zeros(5)}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"2 tensors.*lm_head.bias \[5\].*extra.weight \[3, 2\]"):
        convert(source, tmp_path / "made")
    assert not list(tmp_path.glob("*made*"))


def test_a_published_pvc_model_needs_a_map(tmp_path, capsys):
    """Its own tensors' names are not public: they are listed, and a map finishes the job."""
    source = sources.chat_format(tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "model_type": "pvc_internvl"}))
    path = source / "model.safetensors"
    state, width = load_file(path), sources.VISION["hidden_size"]
    for layer in (1, 2):
        for part in ("query", "key", "value", "out"):
            state[f"vision_model.encoder.layers.{layer}.time.{part}"] = torch.randn(width, width)
    save_file(state, path, metadata={"format": "pt"})
    assert main(["convert", str(source), str(tmp_path / "made")]) == 5
    error = capsys.readouterr().err
    assert "8 tensors" in error
    assert "--map" in error
    assert "vision_model.encoder.layers.2.time.out [32, 32]" in error
    ours = "model.vision_tower.encoder.layer.{n}.temporal.attention"
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "projection_layer"}
    rules = [
        {"source": f"vision_model.encoder.layers.{{n}}.time.{part}", "target": f"{ours}.{name}.weight"}
        for part, name in names.items()
    ]
    (tmp_path / "map.json").write_text(json.dumps(rules))
    options = ["--temporal-layers", "2", "--ratio", "1/2", "--map", str(tmp_path / "map.json")]
    assert main(["convert", str(source), str(tmp_path / "made"), *options]) == 0
    made = load_file(tmp_path / "made" / "model.safetensors")
    actual = made["model.vision_tower.encoder.layer.2.temporal.attention.projection_layer.weight"]
    assert torch.equal(actual, state["vision_model.encoder.layers.2.time.out"])


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({}, "a list of rules"),
        ([{"source": "a"}], "rule 1"),
        ([{"source": "a", "target": "b", "transform": "magic"}], "magic"),
        ([{"source": "a.{n}", "target": "b"}], "the same in every name"),
        ([{"source": [], "target": "b"}], "'source' must be"),
        ([{"source": "a.{m}", "target": "b.{m}"}], "placeholders"),
        ([{"source": "a.{n}.{n}", "target": "b.{n}"}], "placeholders"),
        ([{"source": "a.{", "target": "b"}], "placeholders"),
        ([{"source": "a", "target": "b", "transform": ["same"]}], "transform is"),
        ([{"source": "a", "target": ["b", "c"]}], "'same' takes 1 to 1 names, not 1 to 2"),
    ],
)
def test_a_map_that_makes_no_sense(source, tmp_path, capsys, rules, message):
    (tmp_path / "map.json").write_text(json.dumps(rules))
    assert main(["convert", str(source), str(tmp_path / "made"), "--map", str(tmp_path / "map.json")]) == 5
    assert message in capsys.readouterr().err


def test_the_projectors_activation_comes_along(source, tmp_path):
    config_with(source, projector_hidden_act="relu")
    described = read_source(source)
    convert(described, tmp_path / "made", ONE_STEP)
    assert pvc.load(tmp_path / "made", device="cpu").model.config.projector_hidden_act == "relu"
    assert all(item.within for item in compare(described, tmp_path / "made"))


def test_keys_of_training_frameworks_are_reported(tmp_path):
    source = sources.chat_format(tmp_path / "source", "qwen3")
    config_with(source, llm_config__ep_size=1, llm_config__use_deepep=False)
    report = convert(source, tmp_path / "made")
    assert report.warnings == ("ignored in the language model's configuration: ep_size, use_deepep",)


@pytest.mark.parametrize(("template", "separator"), [("internvl2_5", "\n"), ("Hermes-2", "")])
def test_a_turn_ends_as_the_sources_does(tmp_path, template, separator):
    source = sources.chat_format(tmp_path / "source")
    config_with(source, template=template)
    (source / "chat_template.jinja").unlink()
    convert(source, tmp_path / "made")
    processor = pvc.load(tmp_path / "made", device="cpu").processor
    text = processor.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == f"<|im_start|>user\nhi<|im_end|>{separator}<|im_start|>assistant\n"


def test_a_template_without_videos_is_replaced(source, tmp_path):
    from pvc.processing.tokenizer import CHAT_TEMPLATE

    without = CHAT_TEMPLATE.replace("{% elif part['type'] == 'video' %}<video>\n", "")
    assert without != CHAT_TEMPLATE
    (source / "chat_template.jinja").write_text(without)
    report = convert(source, tmp_path / "made")
    assert "ChatML takes its place" in report.warnings[0]
    assert pvc.load(tmp_path / "made", device="cpu").processor.chat_template == CHAT_TEMPLATE


def test_what_a_tokenizer_puts_first_begins_the_template(tmp_path):
    """As Llama 3's does: no setting says so, only its post-processor."""
    source = sources.chat_format(tmp_path / "source")
    (source / "chat_template.jinja").unlink()
    path = source / "tokenizer.json"
    data = json.loads(path.read_text())
    token = next(token for token in data["added_tokens"] if token["content"] == "<|endoftext|>")
    name, number = token["content"], token["id"]
    data["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [number], "tokens": [name]}},
    }
    path.write_text(json.dumps(data))
    settings = json.loads((source / "tokenizer_config.json").read_text())
    (source / "tokenizer_config.json").write_text(json.dumps({**settings, "bos_token": name}))
    convert(source, tmp_path / "made")
    processor = pvc.load(tmp_path / "made", device="cpu").processor
    ids = processor.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=True)["input_ids"][0].tolist()
    assert ids.count(number) == 1
    assert ids[0] == number


def test_what_lies_beside_the_target_stays(source, tmp_path, monkeypatch):
    (tmp_path / "made.part").mkdir()
    (tmp_path / "made.part" / "mine").write_text("mine")
    convert(source, tmp_path / "made")
    assert (tmp_path / "made.part" / "mine").read_text() == "mine"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["convert", str(source), "."]) == 0
    assert (tmp_path / "here" / "config.json").is_file()


def test_keys_of_official_files_that_change_nothing(source, tmp_path):
    idle = {"dropout": 0.0, "initializer_factor": 0.1, "drop_path_rate": 0.1, "use_flash_attn": True}
    config_with(source, **{f"vision_config__{key}": value for key, value in idle.items()})
    described = read_source(source)
    convert(described, tmp_path / "made", ONE_STEP)
    assert all(item.within for item in compare(described, tmp_path / "made"))


def config_with(source, **changes):
    path = source / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        part, _, name = key.rpartition("__")
        (config[part] if part else config)[name] = value
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("maker", "changes", "options", "message"),
    [
        ("transformers_format", {"model_type": "llava"}, {}, "'llava'"),
        ("transformers_format", {"vision_feature_layer": -2}, {}, "vision_feature_layer is -2"),
        ("transformers_format", {"vision_config__hidden_size": 48}, {}, r"is \[.*requires"),
        ("transformers_format", {"vision_config__surprise": 1}, {}, "surprise"),
        ("transformers_format", {"text_config__hidden_size": "wide"}, {}, "hidden_size"),
        (
            "transformers_format",
            {"text_config__intermediate_size": 64},
            {},
            r"is \[32, 48\].* requires \[32, 64\]",
        ),
        ("transformers_format", {}, {"ratio": 0.3}, "downsample_ratio"),
        ("transformers_format", {"downsample_ratio": 0.3}, {}, "downsample_ratio is 0.3"),
        ("transformers_format", {"downsample_ratio": "half"}, {}, "half"),
        ("transformers_format", {"text_config__vocab_size": None}, {}, "vocab_size"),
        ("transformers_format", {"vision_config__image_size": "big"}, {}, "image_size"),
        ("transformers_format", {"vision_config__hidden_act": "magic"}, {}, "magic"),
        ("transformers_format", {"vision_config__num_attention_heads": 0}, {}, "num_attention_heads"),
        ("transformers_format", {}, {"temporal_layers": 9}, "num_temporal_layers is 9"),
        ("transformers_format", {}, {"window": 2}, "shorter than image_steps"),
        ("transformers_format", {}, {"timestep": "none"}, "timestep is"),
        ("chat_format", {"ps_version": "v1"}, {}, "ps_version"),
        ("chat_format", {"select_layer": -4}, {}, "select_layer"),
        ("chat_format", {"force_image_size": 64}, {}, "position embeddings"),
        ("chat_format", {"llm_config__model_type": "phi3"}, {}, "phi3"),
        (
            "chat_format",
            {"vision_config__qkv_bias": False},
            {},
            r"3 tensors have no place.*qkv.bias \[96\]",
        ),
        ("chat_format", {"llm_config__num_hidden_layers": 3}, {}, "lacks what becomes.*layers.2"),
    ],
)
def test_what_cannot_be_converted_is_named(tmp_path, maker, changes, options, message):
    source = getattr(sources, maker)(tmp_path / "source")
    config_with(source, **changes)
    with pytest.raises((ConfigError, CheckpointError), match=message):
        convert(source, tmp_path / "made", Options(**options))
    assert not list(tmp_path.glob("*made*"))


def test_files_that_are_missing_or_in_the_way(source, tmp_path, capsys):
    (tmp_path / "made").mkdir()
    convert(source, tmp_path / "made")  # an empty directory is as good as none
    with pytest.raises(UsageError, match="exists already"):
        convert(source, tmp_path / "made")
    with pytest.raises(UsageError, match="ratio 0.5"):
        convert(shutil.copytree(source, tmp_path / "s2"), tmp_path / "m2", Options(ratio=1.0))
    assert main(["convert", str(tmp_path / "nowhere"), str(tmp_path / "m3")]) == 5
    assert main(["convert", str(source), str(tmp_path / "m3"), "--ratio", "1/3"]) == 2
    assert main(["convert", str(source), str(tmp_path / "m3"), "--to", "gguf"]) == 2
    assert capsys.readouterr().err.count("\n") == 3
    for name, message in (("model.safetensors", "weights"), ("tokenizer.json", "no tokenizer")):
        spoilt = shutil.copytree(source, tmp_path / f"without-{name}")
        (spoilt / name).unlink()
        with pytest.raises(CheckpointError, match=message):
            convert(spoilt, tmp_path / "m4")
    spoilt = shutil.copytree(source, tmp_path / "short")
    (spoilt / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="cut short"):
        convert(spoilt, tmp_path / "m5")


def test_an_output_layer_that_is_stored_twice(tmp_path):
    source = sources.transformers_format(tmp_path / "source", tied=True)
    path = source / "model.safetensors"
    state = load_file(path)
    name = next(name for name in state if name.endswith("embed_tokens.weight"))
    output = "lm_head.weight" if name.startswith("model.") else "language_model.lm_head.weight"
    save_file({**state, output: state[name].clone()}, path, metadata={"format": "pt"})
    convert(source, tmp_path / "made")
    assert "lm_head.weight" not in load_file(tmp_path / "made" / "model.safetensors")
    save_file({**state, output: state[name] + 1}, path, metadata={"format": "pt"})
    report = convert(source, tmp_path / "other")
    assert "both are kept" in report.warnings[0]
    kept = load_file(tmp_path / "other" / "model.safetensors")
    assert torch.equal(kept["lm_head.weight"], state[name] + 1)
    assert not pvc.load(tmp_path / "other", device="cpu").model.config.tie_word_embeddings


def test_from_the_command_line(source, tmp_path, capsys):
    made = tmp_path / "made"
    assert main(["convert", str(source), str(made), "--window", "8", "--num-frames", "5", "--check"]) == 0
    out = capsys.readouterr().out
    assert "91 tensors of the source used" in out
    assert "vision tower: largest difference 0," in out
    engine = pvc.load(made, device="cpu")
    assert engine.model.config.vision_config.temporal_window == 8
    assert engine.processor.video_processor.num_frames == 5
    assert "closed form: residual" in out
    assert main(["convert", str(made), str(tmp_path / "back"), "--to", "internvl", "--num-frames", "5"]) == 0
    assert main(["convert", str(source), str(tmp_path / "mean"), "--init", "mean", "--timestep", "relative"]) == 0
    assert main(["convert", str(tmp_path / "mean"), str(tmp_path / "b"), "--to", "internvl"]) == 5
    assert "downsample_ratio is 0.25" in capsys.readouterr().err


def test_a_result_that_differs_is_an_error(source, tmp_path, capsys, monkeypatch):
    import pvc.convert.from_internvl as run

    whole = run.apply_step

    def spoilt(source, step, shapes):
        made = whole(source, step, shapes)
        return {name: tensor * 1.01 if "layer.0.mlp.fc1.weight" in name else tensor for name, tensor in made.items()}

    monkeypatch.setattr(run, "apply_step", spoilt)
    assert main(["convert", str(source), str(tmp_path / "made"), "--ratio", "1/2", "--check"]) == 5
    assert "does not compute what its source does: vision tower" in capsys.readouterr().err


NORM, EMBEDDING = "model.multi_modal_projector.norm.modulation", "model.language_model.embed_tokens.weight"


@pytest.mark.parametrize("ratio", [0.5, 0.25])
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.vision_tower.encoder.layer.0.attention.k_proj.bias", 5),
        ("model.vision_tower.encoder.layer.2.temporal.attention.projection_layer.weight", 0),
        ("model.multi_modal_projector.linear_1.weight", -1),
        (f"{NORM}.bias", -1),
        (f"{NORM}.weight", 7),
        ("model.language_model.layers.1.self_attn.o_proj.weight", 3),
        (EMBEDDING, 250 * 32),  # a row that the prompt of the comparison does not have
        ("lm_head.weight", -1),
    ],
)
def test_a_wrong_number_in_the_files_is_found(source, tmp_path, name, place, ratio):
    made, path = tmp_path / "made", tmp_path / "made" / "model.safetensors"
    convert(source, made, Options(ratio=ratio, image_steps=1))
    state = load_file(path)
    state[name].view(-1)[place] += 0.01
    save_file(state, path, metadata={"format": "pt"})
    wrong = [item for item in compare(read_source(source), made) if not item.within]
    assert f"tensors ({name})" in [item.what for item in wrong]
    state[name].view(-1)[place] = torch.nan
    save_file(state, path, metadata={"format": "pt"})
    assert f"tensors ({name})" in [item.what for item in compare(read_source(source), made) if not item.within]


@pytest.mark.parametrize(
    ("maker", "swapped", "ratio", "what"),
    [
        ("transformers, qwen2", ("attention.q_proj.weight", "attention.k_proj.weight"), 0.5, "vision tower"),
        ("chat, llama", ("attention.q_proj.bias", "attention.v_proj.bias"), 0.5, "vision tower"),
        ("chat, qwen3, bf16", ("layer.1.lambda_1", "layer.1.lambda_2"), 0.25, "vision tower"),
        ("transformers, llama, bf16", ("linear_1.bias", "linear_2.bias"), 0.25, "visual tokens, in the source's order"),
        ("chat, qwen2", ("mlp.gate_proj.weight", "mlp.up_proj.weight"), 0.25, "language model's layers"),
        ("transformers, qwen3, tied", ("q_norm.weight", "k_norm.weight"), 0.5, "language model's layers"),
    ],
)
def test_a_tensor_in_the_wrong_place_is_found(tmp_path, maker, swapped, ratio, what, monkeypatch):
    """A mistake of the key map is in the files and in what they are expected to be: only the arithmetic shows it."""
    import pvc.convert.from_internvl as run

    whole, names = run.convert_tensors, dict([swapped, swapped[::-1]])

    def wrong(*arguments):
        for name, tensor in whole(*arguments):
            end = next((item for item in names if name.endswith(item) and "temporal" not in name), None)
            yield (name.removesuffix(end) + names[end] if end else name), tensor

    monkeypatch.setattr("pvc.convert.from_internvl.convert_tensors", wrong)
    monkeypatch.setattr("pvc.convert.verify.convert_tensors", wrong)
    described = read_source(MAKERS[maker](tmp_path / "source"))
    convert(described, tmp_path / "made", Options(ratio=ratio, image_steps=1))
    assert what in [item.what for item in compare(described, tmp_path / "made") if not item.within]


def test_a_wider_compressor_in_another_order_is_found(source, tmp_path, monkeypatch):
    """The first of the tokens replaced is right, so that the comparison at the source's ratio cannot see it."""
    import pvc.convert.transforms as transforms

    def turned(tensor, side, times):
        channels = tensor.unflatten(-1, (1, side, 1, side, -1)).expand(*tensor.shape[:-1], times, side, times, side, -1)
        channels = channels.clone()
        channels[..., -1, :, -1, :, :] = channels[..., -1, :, -1, :, :].transpose(-3, -2)
        return channels.flatten(-5)

    monkeypatch.setattr(transforms, "widened", turned)
    convert(source, tmp_path / "made", Options(ratio=0.25, image_steps=1, init="mean"))
    wrong = [item.what for item in compare(read_source(source), tmp_path / "made") if not item.within]
    assert wrong == ["visual tokens, as the mean of the source's layer"]


def test_values_that_are_not_numbers_do_not_pass(source, tmp_path, capsys):
    path = source / "model.safetensors"
    state = load_file(path)
    name = next(name for name in state if name.endswith("layers.0.mlp.up_proj.weight"))
    state[name][0, 0] = torch.nan
    save_file(state, path, metadata={"format": "pt"})
    assert main(["convert", str(source), str(tmp_path / "made"), "--check"]) == 5
    error = capsys.readouterr().err
    assert "does not compute what its source does: language model's layers, logits" in error


def test_a_comparison_holds_no_weights(source, tmp_path, monkeypatch):
    """Every parameter is read when its module is called, as a loaded model has it, and is gone afterwards."""
    from pvc.checkpoint.files import CheckpointFiles
    from pvc.checkpoint.stored import stored_tensors
    from pvc.convert.offload import offload

    convert(source, tmp_path / "made")
    loaded = pvc.load(tmp_path / "made", device="cpu", dtype="float32").model
    stored = stored_tensors(CheckpointFiles(tmp_path / "made"))
    model = offload(lambda: PVCForConditionalGeneration(loaded.config), stored.__getitem__)
    ids, pixels = torch.tensor([[60, 9, 60, 200]]), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, loaded(input_ids=ids).logits)
        ours, theirs = (m.get_image_features(pixels).pooler_output for m in (model, loaded))
    assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))
    assert all(parameter.is_meta for parameter in model.parameters())


def test_a_target_that_cannot_be_loaded_is_not_compared(source, tmp_path):
    convert(source, tmp_path / "made")
    path = tmp_path / "made" / "model.safetensors"
    state = load_file(path)
    for changed, message in (
        ({**state, "extra": torch.zeros(2)}, "unknown tensors: extra"),
        ({name: tensor for name, tensor in state.items() if name != "lm_head.weight"}, "missing tensors: lm_head"),
        ({**state, "lm_head.weight": torch.zeros(3)}, "misshapen tensors: lm_head.weight"),
    ):
        save_file(changed, path, metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=message):
            compare(read_source(source), tmp_path / "made")


def internlm2_logits(state, language, embedded):
    """InternLM2 as its code describes it, from its own tensors: `(Q, width)` embedded tokens to `(Q, vocabulary)`."""
    heads, kv_heads = language["num_attention_heads"], language["num_key_value_heads"]
    size = language["hidden_size"] // heads
    angles = torch.arange(len(embedded))[:, None] / 1000000 ** (torch.arange(0, size, 2) / size)
    cos, sin = (torch.cat((wave, wave), -1) for wave in (angles.cos(), angles.sin()))

    def norm(x, name):
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * state[f"language_model.model.{name}.weight"]

    def turned(x):
        return x * cos + torch.cat((-x[:, size // 2 :], x[:, : size // 2]), -1) * sin

    hidden = embedded
    for layer in range(language["num_hidden_layers"]):
        weight = {
            name: state[f"language_model.model.layers.{layer}.{name}.weight"]
            for name in ("attention.wqkv", "attention.wo", *(f"feed_forward.w{n}" for n in (1, 2, 3)))
        }
        fused = norm(hidden, f"layers.{layer}.attention_norm") @ weight["attention.wqkv"].T
        fused = fused.view(len(hidden), kv_heads, heads // kv_heads + 2, size)
        outputs = []
        for head in range(heads):
            group, place = divmod(head, heads // kv_heads)
            query, key = turned(fused[:, group, place]), turned(fused[:, group, -2])
            scores = (query @ key.T / size**0.5).masked_fill(
                torch.ones(len(hidden), len(hidden)).triu(1) > 0, -torch.inf
            )
            outputs.append(scores.softmax(-1) @ fused[:, group, -1])
        hidden = hidden + torch.cat(outputs, -1) @ weight["attention.wo"].T
        normed = norm(hidden, f"layers.{layer}.ffn_norm")
        middle = torch.nn.functional.silu(normed @ weight["feed_forward.w1"].T) * (normed @ weight["feed_forward.w3"].T)
        hidden = hidden + middle @ weight["feed_forward.w2"].T
    return norm(hidden, "norm") @ state["language_model.output.weight"].T


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """A sentencepiece model as InternLM2's is: BPE with bytes, nothing normalised, spare pieces for chat tokens."""
    import sentencepiece

    folder = tmp_path_factory.mktemp("pieces")
    (folder / "text").write_text("the quick brown fox reads pictures and videos\n" * 50 + "hello  world 123\n" * 50)
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=340,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=["[UNUSED_TOKEN_145]", "[UNUSED_TOKEN_146]"],
        minloglevel=2,
    )
    return folder / "tokenizer.model"


@pytest.fixture
def internlm2(tmp_path, pieces):
    source = tmp_path / "internlm2"
    source.mkdir()
    shutil.copy(pieces, source / "tokenizer.model")
    names = {3: "<|im_end|>", 4: "<|im_start|>", 340: "<img>", 341: "</img>", 342: "<IMG_CONTEXT>"}
    settings = {"added_tokens_decoder": {str(number): {"content": name} for number, name in names.items()}}
    settings |= {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "auto_map": {"AutoTokenizer": ["x.y", None]},
    }
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    return source, sources.internlm2_format(source, 343)


def test_internlm2_becomes_llama(internlm2, tmp_path):
    source, state = internlm2
    report = convert(source, tmp_path / "made", ONE_STEP)
    assert report.added_tokens == 1  # <video>
    engine = pvc.load(tmp_path / "made", device="cpu")
    config = engine.model.config.text_config
    assert (config.model_type, config.rope_parameters["rope_theta"]) == ("llama", 1000000)
    ids = torch.tensor([[5, 80, 23, 300, 7, 7, 42, 11, 250, 99]])
    with torch.no_grad():
        ours = engine.model(input_ids=ids).logits[0, :, :343]
    language = {**sources.TEXT, "vocab_size": 343}
    expected = internlm2_logits(state, language, state["language_model.model.tok_embeddings.weight"][ids[0]])
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert {item.what for item in compare(read_source(source), tmp_path / "made")} == {
        "vision tower",
        "visual tokens, same ratio",
    }


def test_internlm2s_tokenizer_becomes_a_fast_one(internlm2, pieces, tmp_path):
    import sentencepiece

    source, _ = internlm2
    convert(source, tmp_path / "made")
    tokenizer = pvc.load(tmp_path / "made", device="cpu").processor.tokenizer
    original = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
    for text in ("the quick  fox", " hello\nworld ", "größe 你好", "videos123"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids == original.encode(text)
        assert tokenizer.decode(ids) == text
    assert tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|im_start|>", "<IMG_CONTEXT>"]) == [3, 4, 342]
    assert tokenizer.eos_token == "<|im_end|>"
    chat = pvc.load(tmp_path / "made", device="cpu").processor.apply_chat_template(
        [{"role": "user", "content": "the fox"}], add_generation_prompt=True, tokenize=True
    )
    ids = chat["input_ids"][0].tolist()
    assert ids[:2] == [original.bos_id(), 4]
    assert ids.count(4) == 2


def test_another_tokenizer_than_sentencepieces_is_refused(internlm2, tmp_path, monkeypatch):
    from transformers.convert_slow_tokenizer import SpmConverter

    source, _ = internlm2
    build = SpmConverter.build_tokenizer_from_spm_proto
    monkeypatch.setattr(
        SpmConverter,
        "build_tokenizer_from_spm_proto",
        staticmethod(lambda proto, vocab: build(proto, vocab, merges=[])),
    )
    with pytest.raises(CheckpointError, match="builds another tokenizer"):
        convert(source, tmp_path / "made")
    (source / "tokenizer.model").write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match="not a sentencepiece model"):
        convert(source, tmp_path / "made")


def test_qwens_own_files_are_read(tmp_path):
    """vocab.json and merges.txt, as original checkpoints have them."""
    source = sources.chat_format(tmp_path / "source")
    data = json.loads((source / "tokenizer.json").read_text())
    special = {token["content"] for token in data["added_tokens"]}
    vocabulary = {k: v for k, v in data["model"]["vocab"].items() if k not in special}
    added = {token["content"]: token["id"] for token in data["added_tokens"]}
    (source / "vocab.json").write_text(json.dumps(vocabulary))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in data["model"]["merges"]]
    (source / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (source / "added_tokens.json").write_text(json.dumps(added))
    (source / "tokenizer.json").unlink()
    (source / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Qwen2Tokenizer"}))
    convert(source, tmp_path / "made")
    tokenizer = pvc.load(tmp_path / "made", device="cpu").processor.tokenizer
    assert tokenizer.decode(tokenizer("hello World", add_special_tokens=False)["input_ids"]) == "hello World"
    assert tokenizer.context_image_token == "<IMG_CONTEXT>"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_mean": "0.5"}, "image_mean must be three numbers"),
        ({"image_std": [0.2, 0, 0.2]}, "image_std must be three numbers above 0"),
        ({"image_processor": {"image_mean": [0.5, 0.5]}}, "image_mean"),
        ({"max_patches": 0}, "max_patches must be a number from 1"),
    ],
)
def test_preprocessing_that_makes_no_sense(source, tmp_path, settings, message):
    (source / "processor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=message):
        convert(source, tmp_path / "made")
