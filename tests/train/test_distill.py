"""Distillation by the token loss: exact at the start, learning, resumed to the same bits, refused where it must be."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import pvc
from pvc.convert import Options, convert
from pvc.errors import CheckpointError, ConfigError, UsageError
from pvc.media import write_image, write_video
from pvc.model.order import block_positions
from pvc.processing.processor import PVCProcessor
from pvc.train.data.collate import Example
from pvc.train.distill.media import MediaCollator, MediaDataset, MediaFolder, encode_media, find_missing_media
from pvc.train.distill.teacher import check_pair, share_frozen
from pvc.train.distill.tokens import TokenDistiller, TokenMap, get_step_blocks, split_blocks
from pvc.train.distill.visual import load_visual
from pvc.train.export import export_checkpoint
from pvc.train.model_init import resolve_recipe
from pvc.train.pipeline import run_recipe
from pvc.train.recipe import Recipe, Stage
from tests.convert import sources
from tests.train.test_processes import FSDP

QUIET = {"report": lambda line: None}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Student and teacher, converted from one source."""
    folder = tmp_path_factory.mktemp("pair")
    source = sources.transformers_format(folder / "source", vision={"initializer_range": 1e-10})
    convert(source, folder / "student", Options(num_frames=6))
    convert(source, folder / "teacher", Options(ratio=0.5, image_steps=1))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures and clips in folders inside of each other, and a file that is neither."""
    data = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    for number in range(6):
        inner = data / ("a" if number % 2 else "b/c")
        inner.mkdir(parents=True, exist_ok=True)
        write_image(inner / f"{number}.png", rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        write_video(inner / f"{number}.mp4", rng.integers(0, 255, (8, 32, 32, 3), dtype=np.uint8), 4.0)
    (data / "notes.txt").write_text("not a medium")
    (data / ".hidden.png").write_bytes(b"not looked at")
    return data


def recipe(pair, media, **changes):
    distill = {"teacher": str(pair / "teacher"), "media": {str(media): 1}, **changes.pop("distill", {})}
    stage = {"name": "distill", "kind": "distill", "steps": 6, "batch_size": 2, "warmup_steps": 1, "save_steps": 3}
    stage |= {"distill": distill, **changes}
    return Recipe.model_validate({"name": "d", "start": str(pair / "student"), "stages": [stage]})


def distiller(pair, target="map", steps=(1, 2, 4)):
    torch.manual_seed(0)
    student, teacher = (load_visual(pair / name) for name in ("student", "teacher"))
    made = TokenDistiller(student, teacher, check_pair(student.config, teacher.config), target, steps)
    pixels = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    made.measure_variance([{"pixel_values": pixels}], torch.device("cpu"))
    return made


def pictures(steps, count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "pixel_values": torch.randn(count, 3, 32, 32, generator=generator),
        "image_grid_thw": torch.tensor([[1, 1, 1]] * count),
        "image_steps": torch.full((count,), steps),
    }


def clip(frames=7, offset=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "pixel_values_videos": torch.randn(frames, 3, 32, 32, generator=generator),
        "video_grid_thw": torch.tensor([[frames, 1, 1]]),
        "step_offset": torch.tensor([offset]),
    }


# The loss


@pytest.mark.parametrize("groups", [4, 16])
def test_blocks_are_those_of_the_steps(groups):
    side, times = 3, round(groups**0.5)
    whole = side * times
    numbers = torch.arange(whole * whole).float()[:, None]  # the teacher's tokens, numbered in raster order
    blocks = split_blocks(numbers[None], groups)[0, :, :, 0]
    for step, (row, column) in enumerate(block_positions(groups)):
        expected = [(y * times + row) * whole + x * times + column for y in range(side) for x in range(side)]
        assert blocks[step].tolist() == expected


@pytest.mark.parametrize("target", ["block", "mean", "map"])
def test_the_closed_form_has_no_loss_in_all_steps(pair, target):
    made = distiller(pair, target)
    for mode in (True, False):  # in inference the temporal blocks are skipped
        made.train(mode)
        with torch.no_grad():
            assert made(**pictures(4))["loss"] <= 1e-8
            for offset in (0, 3):
                clips = made(**clip(offset=offset))["loss"]
                assert clips > 0.1 if target == "map" else clips <= 1e-8
            fewer = [made(**pictures(steps))["loss"].item() for steps in (1, 2)]
        assert max(fewer) <= 1e-8 if target == "block" else min(fewer) > 0.1


def test_wrong_blocks_have_a_loss(pair):
    """The comparison is by block: another order, or clips that start elsewhere, would be noticed."""
    made = distiller(pair, "block")
    batch = clip(offset=1)
    with torch.no_grad():
        tokens, _ = made.student.model.encode_clips(batch["pixel_values_videos"], frames=[7], step_offset=[1])
        base = made._encode_teacher_blocks(batch["pixel_values_videos"], [7])[0]
        assert made._compute_clip_loss(tokens[0], base, 1) <= 1e-8
        assert made._compute_clip_loss(tokens[0], base, 0) > 0.1
        assert made._compute_tile_loss(tokens[0][:4], base[0]) > 0.1


def test_steps_beyond_a_period_or_a_limit():
    config = copy.copy(pvc.PVCVisionConfig(timestep="cyclic", timestep_period=8))
    assert get_step_blocks(config, 6, 4, 4) == [2, 3, 0, 1]
    config = pvc.PVCVisionConfig(timestep="index", timestep_limit=5)
    assert get_step_blocks(config, 3, 5, 4) == [3, 0, 1, 1, 1]


def test_a_map_starts_as_a_copy():
    tokens = torch.randn(3, 2, 5)
    found = TokenMap(2, 4, 5)(tokens)
    assert torch.equal(found[:, :2], tokens)
    torch.testing.assert_close(found[:, 2:], tokens.mean(1, keepdim=True).expand(3, 2, 5))


def test_a_few_steps_lower_the_loss_of_two_steps(pair):
    made = distiller(pair)
    batch, names = pictures(2, 4), ("temporal", "timestep_embedding", "multi_modal_projector", "maps.")
    parameters = [p for name, p in made.named_parameters() if any(part in name for part in names)]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    losses = []
    for _ in range(12):
        loss = made(**batch)["loss"]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]


def test_gradients_reach_the_identity_and_never_the_teacher(pair):
    made = distiller(pair)
    before = {name: value.clone() for name, value in made._teacher.module.state_dict().items()}
    made.train()
    (made(**pictures(2))["loss"] + made(**clip())["loss"]).backward()
    outputs = [p for name, p in made.named_parameters() if "temporal.attention.projection_layer.weight" in name]
    assert outputs and all(float(p.grad.abs().max()) > 0 for p in outputs)
    assert not any("teacher" in name for name, _ in made.named_parameters())
    assert not any(p.requires_grad or p.grad is not None for p in made._teacher.module.parameters())
    assert not made._teacher.module.training
    after = made._teacher.module.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_every_parameter_takes_part_in_every_batch(pair):
    """DDP stops otherwise: a batch of one kind uses one of the maps."""
    made = distiller(pair)
    made(**pictures(4))["loss"].backward()
    assert all(p.grad is not None for name, p in made.named_parameters() if name.startswith("maps."))


def test_frozen_tensors_are_shared(pair):
    made = distiller(pair)
    student, teacher = made.student, made._teacher.module
    for name, parameter in student.named_parameters():
        parameter.requires_grad_("multi_modal_projector" in name)
    shared = share_frozen(student, teacher)
    ours, theirs = (dict(model.named_parameters()) for model in (student, teacher))
    tower = "model.vision_tower.encoder.layer.0.mlp.fc1.weight"
    assert ours[tower] is theirs[tower]
    projector = "model.multi_modal_projector.linear_2.weight"
    assert ours[projector] is not theirs[projector]
    same = [name for name in theirs if ours.get(name) is theirs[name]]
    assert shared.tensors == len(same)
    assert shared.nbytes == sum(theirs[name].numel() * 4 for name in same) > 0


# Data


def test_a_folder_is_read_whole(folder):
    found = MediaFolder(folder)
    assert found.names == sorted(found.names) and len(found.names) == 12
    assert {row.kind for row in found.records} == {"image", "video"}
    assert found.bad == [] and found.total == 12 and found.get_record(0).id == found.names[0]


def test_what_is_no_folder(tmp_path):
    with pytest.raises(UsageError, match="is not a folder"):
        MediaFolder(tmp_path / "nowhere")
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(UsageError, match="no pictures or videos"):
        MediaFolder(tmp_path)


def test_images_come_before_videos_in_a_batch(pair):
    processor = PVCProcessor.from_pretrained(pair / "student")
    image, video = np.zeros((32, 32, 3), np.uint8), np.zeros((3, 32, 32, 3), np.uint8)
    content = [{"type": "video", "video": video}, {"type": "image", "image": image}, {"type": "image", "image": image}]
    both = encode_media(processor, Example([{"role": "user", "content": content}], 2))
    alone = encode_media(processor, Example([{"role": "user", "content": content[:1]}], 2))
    items = [Example([], 2, encoded=both), Example([], 2, encoded=alone)]
    batch = MediaCollator(processor)(items)
    assert batch["image_grid_thw"].tolist() == [[1, 1, 1]] * 2
    assert batch["video_grid_thw"].tolist() == [[3, 1, 1]] * 2
    # Both samples weigh the same, whatever they hold.
    assert batch["media_weights"].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1.0])


def test_files_of_conversations_are_data_too(pair, folder, tmp_path):
    rows = [
        {"image": str(folder / "a" / "1.png"), "conversations": [{"from": "human", "value": "<image>\nwhat?"}]},
        {"conversations": [{"from": "human", "value": "nothing to see"}]},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    made = resolve_recipe(recipe(pair, folder, files={str(path): 1}, bad_rows=0.5))
    processor = PVCProcessor.from_pretrained(pair / "student")
    samples = MediaDataset(made.stages[0], 0, 32, 6, processor=processor)
    assert set(samples.kind_weights) == {f"{path} (image)", f"{folder} (image)", f"{folder} (video)"}
    assert sum(samples.kind_weights.values()) == 2
    assert find_missing_media(MediaFolder(folder).records[0]) is None


# Whole runs


@pytest.fixture(scope="module")
def finished(pair, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    lines = []
    made = recipe(pair, folder, evaluate_every=3, evaluate_count=2, distill={"eval_media": str(folder)})
    run_recipe(made, out, report=lines.append)
    return out, made, lines


def test_the_last_checkpoint_as_a_model(pair, finished, tmp_path):
    """It has the tensors of the checkpoint that the run started from, each in its dtype."""
    out, made, _ = finished
    shutil.copytree(out, tmp_path / "run")
    (tmp_path / "run" / "distill" / "final.safetensors").unlink()
    shutil.rmtree(tmp_path / "run" / "model")
    assert export_checkpoint(made, tmp_path / "run", tmp_path / "model").step == 6
    for path in (out / "model").glob("*.safetensors"):
        one, two = load_file(path), load_file(tmp_path / "model" / path.name)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) and one[name].dtype == two[name].dtype for name in one)
    pvc.load(tmp_path / "model", device="cpu")
    with pytest.raises(UsageError, match="leave out --dtype"):
        export_checkpoint(made, tmp_path / "run", tmp_path / "other", torch.float32)


def test_a_run_leaves_a_checkpoint_that_is_near_the_closed_form(pair, finished):
    out, _, lines = finished
    assert any("tensors are shared with the student, which saves" in line for line in lines)
    before, after = (load_file(next(iter(path.glob("*.safetensors")))) for path in (pair / "student", out / "model"))
    assert before.keys() == after.keys()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed and all(before[name].dtype == after[name].dtype for name in before)
    assert all(any(p in name for p in ("temporal", "timestep_embedding", "multi_modal_projector")) for name in changed)
    assert any("projection_layer" in name for name in changed)
    assert (out / "model" / "config.json").read_text() == (pair / "student" / "config.json").read_text()
    engine = pvc.load(out / "model", device="cpu")
    assert engine.processor.image_processor.image_steps == 4
    trained = TokenDistiller(load_visual(out / "model"), load_visual(pair / "teacher"), 4, "block", (4,))
    pixels = pictures(8)["pixel_values"]
    trained.measure_variance([{"pixel_values": pixels}], torch.device("cpu"))
    with torch.no_grad():
        assert 0 < trained.eval()(**pictures(4))["loss"] < 0.02


def test_what_is_measured_on_the_way(finished):
    out, _, lines = finished
    rows = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
    measured = {row["task"]: row["accuracy"] for row in rows if "accuracy" in row and row["step"] == 6}
    assert set(measured) == {"pictures in 1 step", "pictures in 2 steps", "pictures in 4 steps", "clips"}
    assert measured["pictures in 4 steps"] > 0.98 > measured["pictures in 1 step"]
    assert any("held-out: " in line for line in lines)


def test_the_card_says_what_was_measured(pair, finished):
    out, _, _ = finished
    card, summary = (out / "model" / "README.md").read_text(), (out / "summary.md").read_text()
    for text in (card, summary):
        assert "Explained variance of the teacher's tokens" in text and "answers right" not in text
    assert "from the teacher `teacher`" in card
    language = sum(
        value.numel()
        for name, value in load_file(out / "model" / "model.safetensors").items()
        if "language_model" in name or "lm_head" in name
    )
    assert language > 0 and f"language {language:,}" in card


def test_a_run_goes_on_to_the_same_bits(pair, folder, finished, tmp_path):
    out, made, _ = finished
    copied = tmp_path / "out"
    shutil.copytree(out, copied)
    shutil.rmtree(copied / "model")
    shutil.rmtree(copied / "distill" / "checkpoint-6")
    (copied / "distill" / "final.safetensors").unlink()
    lines = []
    run_recipe(made, copied, report=lines.append)
    assert any("going on from checkpoint-3" in line for line in lines)
    whole, again = (load_file(one / "distill" / "final.safetensors") for one in (out, copied))
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())


def test_a_damaged_picture_is_reported_and_passed_over(pair, folder, tmp_path):
    data = tmp_path / "media"
    shutil.copytree(folder, data)
    (data / "a" / "zz.png").write_bytes((data / "a" / "1.png").read_bytes()[:60])
    (data / "no.jpg").write_bytes(b"this is not a picture")
    lines = []
    run_recipe(
        recipe(pair, data, bad_rows=0.2, steps=12, distill={"target": "mean"}), tmp_path / "out", report=lines.append
    )
    told = "\n".join(lines)
    assert "a/zz.png: passed over: " in told and "no.jpg: passed over: " in told
    assert (tmp_path / "out" / "model" / "model.safetensors").exists()
    with pytest.raises(ConfigError, match=r"1 of 14 rows are bad.*no\.jpg"):
        run_recipe(recipe(pair, data, bad_rows=0.0), tmp_path / "strict", **QUIET)


def test_in_a_recipe_with_other_stages(pair, folder, tmp_path):
    """The language model is there then, and what was distilled is what the next stage starts from."""
    made = recipe(pair, folder).model_dump()
    chat = {"name": "chat", "kind": "chat", "steps": 1, "batch_size": 2, "tasks": {"shape": 1}, "trained": ["lm_head"]}
    chat["warmup_steps"] = 0
    made["stages"].append(chat)
    run_recipe(Recipe.model_validate(made), tmp_path / "out", **QUIET)
    one, two = (load_file(tmp_path / "out" / name / "final.safetensors") for name in ("distill", "chat"))
    assert "lm_head.weight" in one
    assert [name for name in one if not torch.equal(one[name], two[name])] == ["lm_head.weight"]
    assert pvc.load(tmp_path / "out" / "model", device="cpu").chat().ask("what?", max_new_tokens=2).text is not None


# What is refused


def test_teacher_and_student_must_fit(pair, folder, tmp_path):
    narrow = sources.transformers_format(tmp_path / "narrow", vision={"hidden_size": 16})
    convert(narrow, tmp_path / "teacher", Options(ratio=0.5, image_steps=1))
    cases = [
        ({"teacher": str(tmp_path / "teacher")}, r"hidden_size is 32 in the student and 16 in the teacher"),
        ({"teacher": str(pair / "student")}, r"downsample_ratio is 0\.25 and the teacher's 0\.25"),
    ]
    convert(pair / "source", tmp_path / "steps", Options(ratio=0.5, image_steps=2))
    cases.append(({"teacher": str(tmp_path / "steps")}, r"teacher's image_steps is 2; it must be 1: write it with"))
    for distill, message in cases:
        with pytest.raises(ConfigError, match=f"stage distill: .*{message}"):
            run_recipe(recipe(pair, folder, distill=distill), tmp_path / "run", **QUIET)
    with pytest.raises(CheckpointError, match="no model directory at nowhere"):
        run_recipe(recipe(pair, folder, distill={"teacher": "nowhere"}), tmp_path / "run", **QUIET)
    convert(pair / "source", tmp_path / "mean", Options(init="mean"))
    made = recipe(pair, folder).model_copy(update={"start": str(tmp_path / "mean")})
    with pytest.raises(ConfigError, match=r"image_token_order is 'step'.* Convert it with --init exact"):
        run_recipe(made, tmp_path / "run", **QUIET)


def test_it_needs_a_student(pair, folder, tmp_path):
    shape = resolve_recipe(recipe(pair, folder))
    with pytest.raises(ConfigError, match="needs a student to start from"):
        run_recipe(shape.model_copy(update={"start": None}), tmp_path / "run", **QUIET)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distill": None}, "need distill"),
        ({"kind": "chat"}, "need distill"),
        ({"pack": 64}, "need a language model"),
        ({"lora": {}}, "need a language model"),
        ({"questions": 1}, "for stages of kind chat"),
        ({"distill": {"teacher": "t"}}, "distill.media"),
        ({"distill": {"teacher": "t", "media": {"m": 1}, "loss": "words"}}, "answers"),
    ],
)
def test_recipes_that_are_wrong(changes, message):
    stage = {"name": "d", "kind": "distill", "steps": 1, "distill": {"teacher": "t", "media": {"m": 1}}}
    with pytest.raises(ValueError, match=message):
        Stage.model_validate({**stage, **changes})


def test_measuring_needs_something_to_measure_on(pair, folder, tmp_path):
    with pytest.raises(ConfigError, match="eval_media"):
        run_recipe(recipe(pair, folder, evaluate_every=1), tmp_path / "run", **QUIET)


def test_defaults_hold_for_distillation_alone():
    stage = {"name": "d", "kind": "distill", "steps": 1, "distill": {"teacher": "t", "media": {"m": 1}}}
    assert set(Stage.model_validate(stage).trained) == {"temporal", "timestep_embedding", "multi_modal_projector"}
    assert set(Stage.model_validate(stage).image_steps) == {1, 2, 4}
    assert Stage.model_validate({**stage, "frozen": ["fc1"]}).trained == ()
    assert Stage.model_validate({"name": "c", "kind": "chat", "steps": 1, "tasks": {"shape": 1}}).trained == ()


@pytest.mark.slow
@pytest.mark.parametrize("environment", [pytest.param({}, id="ddp"), pytest.param(FSDP, id="fsdp2")])
@pytest.mark.parametrize(("loss", "tied"), [("tokens", False), ("answers", False), ("answers", True)])
def test_two_processes_equal_one(pair, folder, tmp_path, loss, tied, environment):
    if tied:
        pair = tmp_path / "tied"
        source = sources.transformers_format(pair / "source", tied=True)
        convert(source, pair / "student", Options(num_frames=6))
        convert(source, pair / "teacher", Options(ratio=0.5, image_steps=1))
    made = recipe(pair, folder, batch_size=4, distill={"loss": loss}, bad_rows=1.0)
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(json.loads(made.model_dump_json())))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for name, launcher, own in (("one", [], {}), ("two", torchrun, environment)):
        out = str(tmp_path / name)
        command = [sys.executable, *launcher, "-m", "pvc", "train", str(tmp_path / "r.yaml"), "--out", out]
        variables = {**os.environ, "OMP_NUM_THREADS": "1", **own}
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=variables)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (load_file(Path(tmp_path / name / "distill" / "final.safetensors")) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        if "k_proj.bias" not in name:  # no softmax feels it: its gradient is rounding, which AdamW makes much of
            assert torch.allclose(tensor, two[name], atol=1e-5), name
