"""Distillation by the teacher's own answers: the language model runs, and the student starts as its teacher."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import pvc
from pvc.checkpoint.loading import load_checkpoint
from pvc.convert import Options, convert
from pvc.errors import ConfigError, MismatchError
from pvc.media import write_image, write_video
from pvc.processing.processor import PVCProcessor
from pvc.train.data.collate import Example
from pvc.train.distill.answer_data import QUESTIONS, AnswerCollator, encode_pair
from pvc.train.distill.answers import AnswerDistiller, compute_example_mean
from pvc.train.export import export_checkpoint
from pvc.train.pipeline import run_recipe
from pvc.train.recipe import Recipe, Stage
from tests.convert import sources


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    source = sources.transformers_format(folder / "source", vision={"initializer_range": 1e-10})
    convert(source, folder / "student", Options(num_frames=4))
    convert(source, folder / "teacher", Options(ratio=0.5, image_steps=1, num_frames=4))
    rng = np.random.default_rng(0)
    (folder / "media").mkdir()
    for number in range(3):
        write_image(folder / "media" / f"{number}.png", rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    write_video(folder / "media" / "clip.mp4", rng.integers(0, 255, (6, 32, 32, 3), dtype=np.uint8), 2.0)
    (folder / "media" / "broken.png").write_bytes((folder / "media" / "0.png").read_bytes()[:50])
    return folder


def conversation(answer="a red shape", seed=0, frames=None):
    rng = np.random.default_rng(seed)
    if frames:
        shown = {"type": "video", "video": rng.integers(0, 255, (frames, 32, 32, 3), dtype=np.uint8)}
    else:
        shown = {"type": "image", "image": rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)}
    question = {"type": "text", "text": "what does it say?"}
    said = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    return [{"role": "user", "content": [shown, question]}, said]


def batch(home, steps, pack=None, frames=None):
    processors = [PVCProcessor.from_pretrained(home / name) for name in ("student", "teacher")]
    items = [
        Example([], steps, encoded=encode_pair(*processors, Example(conversation(answer, seed, frames), steps)))
        for seed, answer in enumerate(("a red shape", "it does say what a shape is"))
    ]
    return AnswerCollator(*processors, pack)(items)


@pytest.fixture(scope="module")
def distiller(home):
    student, teacher = (
        load_checkpoint(home / name, device="cpu", dtype=torch.float32)[0] for name in ("student", "teacher")
    )
    made = AnswerDistiller(student, teacher)
    made.measure_variance([batch(home, 4)], torch.device("cpu"))
    return made


@pytest.mark.parametrize("pack", [None, 400])
def test_the_closed_form_has_no_loss_in_all_steps(home, distiller, pack):
    with torch.no_grad():
        # A divergence is a sum of both signs: in float32 it rounds to about 1e-8 on either side of zero.
        assert abs(distiller(**batch(home, 4, pack))["loss"]) <= 1e-6
        assert distiller(**batch(home, 2, pack))["loss"] > 1e-3
        assert distiller(**batch(home, 4, pack, frames=3))["loss"] > 1e-3


def test_packed_and_padded_are_the_same(home, distiller):
    with torch.no_grad():
        padded, packed = (distiller(**batch(home, 2, pack))["loss"].item() for pack in (None, 400))
    assert packed == pytest.approx(padded, rel=1e-4)
    assert len(batch(home, 2, 400)["input_ids"]) == 1 and len(batch(home, 2)["input_ids"]) == 2


def test_the_same_positions_are_compared(home):
    made = batch(home, 2)
    for name in ("answer", "after"):
        ours, theirs = made[name], made[f"teacher_{name}"]
        assert torch.equal(ours[ours > 0], theirs[theirs > 0])
        # What is compared has the same text: the token that follows, or the token itself.
        shift = 1 if name == "answer" else 0
        texts = [
            ids.roll(-shift, 1)[marks > 0]
            for ids, marks in ((made["input_ids"], ours), (made["teacher_input_ids"], theirs))
        ]
        assert torch.equal(*texts)


def test_texts_that_differ_are_refused(home):
    student, teacher = (PVCProcessor.from_pretrained(home / name) for name in ("student", "teacher"))
    teacher.chat_template = teacher.chat_template.replace("<|im_start|>", "<|im_start|>so ")
    with pytest.raises(MismatchError, match="same chat template and tokenizer"):
        encode_pair(student, teacher, Example(conversation(), 2))


def test_samples_weigh_the_same():
    marks = torch.tensor([[0, 1, 1, 1], [0, 0, 2, 0]])
    assert compute_example_mean(torch.tensor([1.0, 2.0, 3.0, 10.0]), marks).item() == 6.0


def recipe(home, **changes):
    distill = {"teacher": str(home / "teacher"), "media": {str(home / "media"): 1}, "loss": "answers"}
    stage = {"name": "answers", "kind": "distill", "steps": 4, "batch_size": 2, "warmup_steps": 1, "save_steps": 2}
    stage |= {"distill": distill, "bad_rows": 0.5, "pack": 300, "learning_rate": 1e-3, **changes}
    return Recipe.model_validate({"name": "a", "start": str(home / "student"), "stages": [stage]})


def test_a_run(home, tmp_path):
    lines = []
    made = recipe(home, lora={"rank": 2, "alpha": 4, "targets": ["q_proj"]})
    run_recipe(made, tmp_path / "out", report=lines.append)
    told = "\n".join(lines)
    assert "broken.png: passed over" in told and "shared with the student" in told
    answers = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert answers and all(entry["question"] in (*QUESTIONS["image"], *QUESTIONS["video"]) for entry in answers)
    assert len({(entry["medium"], entry["question"]) for entry in answers}) == len(answers)
    # They are what the teacher says.
    engine = pvc.load(home / "teacher", device="cpu", dtype="float32")
    entry = next(entry for entry in answers if entry["answer"] and entry["medium"].endswith(".png"))
    assert engine.chat().ask(entry["question"], [entry["medium"]], max_new_tokens=96).text.strip() == entry["answer"]
    before = pvc.load(home / "student", device="cpu").model.state_dict()
    after = load_file(tmp_path / "out" / "answers" / "final.safetensors")
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    parts = ("temporal", "timestep_embedding", "multi_modal_projector", "q_proj")
    assert changed and all(any(part in name for part in parts) for name in changed)
    assert any("language_model" in name for name in changed)
    # Going on: no answer is asked for again, and the weights are the same to the bit.
    shutil.rmtree(tmp_path / "out" / "answers" / "checkpoint-4")
    shutil.rmtree(tmp_path / "out" / "model")
    (tmp_path / "out" / "answers" / "final.safetensors").unlink()
    lines.clear()
    run_recipe(made, tmp_path / "out", report=lines.append)
    assert any("answers: 0 new answers" in line for line in lines)
    assert any("going on from checkpoint-2" in line for line in lines)
    again = load_file(tmp_path / "out" / "answers" / "final.safetensors")
    assert all(torch.equal(again[name], value) for name, value in after.items())
    # The last checkpoint alone gives the same model, adapters merged.
    (tmp_path / "out" / "answers" / "final.safetensors").unlink()
    export_checkpoint(made, tmp_path / "out", tmp_path / "exported")
    model, exported = (
        load_file(path / "model.safetensors") for path in (tmp_path / "out/model", tmp_path / "exported")
    )
    assert model.keys() == exported.keys() and all(torch.equal(model[name], exported[name]) for name in model)


def test_an_output_layer_that_is_the_embedding(home, tmp_path):
    """As in InternVL3-1B: checkpoints hold it once, and a run goes on from them."""
    source = sources.transformers_format(tmp_path / "source", tied=True)
    convert(source, tmp_path / "student", Options(num_frames=4))
    convert(source, tmp_path / "teacher", Options(ratio=0.5, image_steps=1, num_frames=4))
    made = recipe(home, trained=["temporal", "embed_tokens"]).model_dump()
    made["start"] = str(tmp_path / "student")
    made["stages"][0]["distill"]["teacher"] = str(tmp_path / "teacher")
    made, out = Recipe.model_validate(made), tmp_path / "out"
    run_recipe(made, out, report=lambda line: None)
    whole = load_file(out / "answers" / "final.safetensors")
    assert "lm_head.weight" not in whole
    name = "model.language_model.embed_tokens.weight"
    assert not torch.equal(whole[name], pvc.load(tmp_path / "student", device="cpu").model.state_dict()[name])
    shutil.rmtree(out / "answers" / "checkpoint-4")
    shutil.rmtree(out / "model")
    (out / "answers" / "final.safetensors").unlink()
    run_recipe(made, out, report=lambda line: None)
    again = load_file(out / "answers" / "final.safetensors")
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    (out / "answers" / "final.safetensors").unlink()
    export_checkpoint(made, out, tmp_path / "exported")
    model, exported = (load_file(path / "model.safetensors") for path in (out / "model", tmp_path / "exported"))
    assert model.keys() == exported.keys() and all(torch.equal(model[name], exported[name]) for name in model)


def test_what_the_answer_loss_cannot_do(home, tmp_path):
    made = recipe(home).model_dump()
    made["stages"][0]["distill"]["eval_media"] = str(home / "media")
    with pytest.raises(ConfigError, match="eval_media is measured by the token loss"):
        run_recipe(Recipe.model_validate(made), tmp_path / "out", report=lambda line: None)
    with pytest.raises(ValueError, match="tasks are for 'tokens'"):
        Stage.model_validate({**made["stages"][0], "tasks": {"shape": 1}})
