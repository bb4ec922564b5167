"""Convert, train on files in two stages, ask: the way of whoever brings a checkpoint and data."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import pvc
from pvc.cli.main import main
from pvc.convert import Options, convert
from pvc.errors import CheckpointError, ConfigError, UsageError
from pvc.lab.synthetic import make
from pvc.media import write_image, write_video
from pvc.train.model_init import resolve_recipe
from pvc.train.pipeline import run_recipe
from pvc.train.recipe import Recipe
from tests.convert import sources

RECIPE = Path(__file__).parents[2] / "recipes" / "tune.yaml"


def rows(folder, count=6):
    """Files of conversations about drawn pictures and clips, with paths beside them."""
    folder.mkdir()
    for kind, task in (("image", "shape"), ("video", "direction")):
        lines = []
        for number in range(count):
            sample = make(task, number, size=32, frames=4 if kind == "video" else None)
            name = f"{number}.png" if kind == "image" else f"{number}.mp4"
            if kind == "image":
                write_image(folder / name, sample.frames[0])
            else:
                write_video(folder / name, sample.frames, 2.0)
            turns = [
                {"from": "human", "value": f"<{kind}>\n{sample.question}"},
                {"from": "gpt", "value": sample.answer},
            ]
            lines.append(json.dumps({kind: name, "conversations": turns}))
        (folder / f"{'pictures' if kind == 'image' else 'videos'}.jsonl").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("tied", [False, True])
def test_convert_train_ask(tmp_path, capsys, monkeypatch, tied):
    source = sources.transformers_format(tmp_path / "source", tied=tied)
    convert(source, tmp_path / "pvc", Options(num_frames=4))
    rows(tmp_path / "data")
    data = yaml.safe_load(RECIPE.read_text())
    for stage, rate in zip(data["stages"], (1e-2, 5e-3), strict=True):
        stage.update(steps=8, batch_size=4, learning_rate=rate, warmup_steps=1)
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(data))
    monkeypatch.chdir(tmp_path)  # the recipe's files are named relative to where it is run
    assert main(["train", "tune.yaml", "--init-from", "pvc", "--out", "run"]) == 0
    before = pvc.load("pvc", device="cpu").model.state_dict()
    aligned, final = load_file("run/align/final.safetensors"), load_file("run/instruct/final.safetensors")
    assert ("lm_head.weight" in aligned) == (not tied)
    parts = ("temporal", "timestep_embedding", "multi_modal_projector")
    for name, tensor in aligned.items():
        if any(part in name for part in parts):
            assert not torch.equal(tensor, before[name]) or not tensor.any(), name
        else:
            assert torch.equal(tensor, before[name]), name
    changed = [name for name, tensor in final.items() if not torch.equal(tensor, aligned[name])]
    assert len(changed) > len(final) / 2
    curve = [json.loads(line) for line in Path("run/curve.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in curve if "loss" in row]
    assert losses[-1] < losses[0]
    made = pvc.load("run/model", device="cpu")
    assert made.model.config.text_config.vocab_size == before["model.language_model.embed_tokens.weight"].shape[0]
    assert made.processor.video_processor.num_frames == 4
    capsys.readouterr()
    assert main(["ask", "data/0.png", "what?", "--model", "run/model", "--max-new-tokens", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["media"][0]["steps"] == 4


def test_the_shape_is_that_of_the_start(tmp_path):
    source = sources.chat_format(tmp_path / "source")
    convert(source, tmp_path / "pvc", Options(temporal_layers=1, ratio=0.5, image_steps=2, window=7))
    data = {"name": "x", "stages": [{"name": "a", "kind": "chat", "steps": 1, "tasks": {"shape": 1}}]}
    whole = resolve_recipe(Recipe.model_validate({**data, "start": str(tmp_path / "pvc")}))
    assert whole.shape.vision["temporal_window"] == 7
    assert whole.shape.vision["num_temporal_layers"] == 1
    assert whole.shape.max_tiles == 6
    assert (whole.stages[0].downsample_ratio, whole.stages[0].image_steps) == (0.5, {2: 1.0})
    assert resolve_recipe(whole) == whole
    data["stages"][0].update(downsample_ratio=0.25, image_steps=4)
    own = resolve_recipe(Recipe.model_validate({**data, "start": str(tmp_path / "pvc")})).stages[0]
    assert (own.downsample_ratio, own.image_steps) == (0.25, {4: 1.0})


def test_what_cannot_be_started_from(tmp_path):
    data = {"name": "x", "stages": [{"name": "a", "kind": "chat", "steps": 1, "tasks": {"shape": 1}}]}
    with pytest.raises(ConfigError, match="no model"):
        resolve_recipe(Recipe.model_validate(data))
    with pytest.raises(CheckpointError, match="nowhere"):
        resolve_recipe(Recipe.model_validate({**data, "start": "nowhere"}))


def test_trained_names_what_there_is(tmp_path, monkeypatch):
    sources.transformers_format(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "pvc")
    stage = {"name": "a", "kind": "chat", "steps": 1, "tasks": {"shape": 1}, "trained": ["temporul"]}
    recipe = Recipe.model_validate({"name": "x", "start": str(tmp_path / "pvc"), "stages": [stage]})
    with pytest.raises(UsageError, match="temporul"):
        run_recipe(recipe, tmp_path / "run", report=lambda line: None)


LORA = {"rank": 2, "alpha": 4, "targets": ["q_proj", "down_proj"]}


@pytest.fixture
def lora_recipe(tmp_path):
    sources.transformers_format(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "pvc")
    stage = {"name": "a", "kind": "chat", "steps": 6, "batch_size": 4, "learning_rate": 1e-2, "tasks": {"shape": 1}}
    stage |= {"lora": LORA, "save_steps": 3, "warmup_steps": 1}
    return {"name": "x", "start": str(tmp_path / "pvc"), "stages": [stage]}


def test_lora_is_merged_into_an_ordinary_model(tmp_path, lora_recipe):
    run_recipe(Recipe.model_validate(lora_recipe), tmp_path / "run", report=lambda line: None)
    before = pvc.load(tmp_path / "pvc", device="cpu").model.state_dict()
    after = load_file(tmp_path / "run" / "a" / "final.safetensors")
    assert sorted(after) == sorted(before)
    for name, tensor in after.items():
        change = tensor - before[name]
        if "language_model" not in name and "lm_head" not in name:
            continue
        if any(f"{target}.weight" in name for target in LORA["targets"]):
            assert 0 < torch.linalg.matrix_rank(change, rtol=1e-3) <= 2, name
        elif name != "lm_head.weight":
            assert not change.any(), name
    tower = "model.vision_tower.encoder.layer.0.mlp.fc1.weight"
    assert not torch.equal(after[tower], before[tower])
    assert pvc.load(tmp_path / "run" / "model", device="cpu").chat().ask("what?", max_new_tokens=2).text is not None


def test_a_run_with_lora_goes_on_to_the_same_bits(tmp_path, lora_recipe):
    recipe = Recipe.model_validate(lora_recipe)
    run_recipe(recipe, tmp_path / "run", report=lambda line: None)
    whole = load_file(tmp_path / "run" / "a" / "final.safetensors")
    shutil.rmtree(tmp_path / "run" / "a" / "checkpoint-6")
    shutil.rmtree(tmp_path / "run" / "model")
    (tmp_path / "run" / "a" / "final.safetensors").unlink()
    told = []
    run_recipe(recipe, tmp_path / "run", report=told.append)
    assert any("going on from checkpoint-3" in line for line in told)
    again = load_file(tmp_path / "run" / "a" / "final.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())


def test_lora_on_layers_that_are_not_there(tmp_path, lora_recipe):
    lora_recipe["stages"][0]["lora"] = {"targets": ["c_attn"]}
    with pytest.raises(UsageError, match=r"stage a: lora.targets"):
        run_recipe(Recipe.model_validate(lora_recipe), tmp_path / "run", report=lambda line: None)
    with pytest.raises(ValueError, match="no language model"):
        Recipe.model_validate({**lora_recipe, "stages": [{**lora_recipe["stages"][0], "kind": "patches"}]})


def test_text_alone_does_not_stop_an_alignment(tmp_path, lora_recipe):
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    (tmp_path / "text.jsonl").write_text(json.dumps({"conversations": turns}) + "\n")
    stage = {"name": "a", "kind": "chat", "steps": 2, "files": {str(tmp_path / "text.jsonl"): 1}}
    stage |= {"batch_size": 2, "trained": ["temporal"], "image_steps": 2, "weight_decay": 0.0}
    run_recipe(Recipe.model_validate({**lora_recipe, "stages": [stage]}), tmp_path / "run", report=lambda line: None)
    before = pvc.load(tmp_path / "pvc", device="cpu").model.state_dict()
    after = load_file(tmp_path / "run" / "a" / "final.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
