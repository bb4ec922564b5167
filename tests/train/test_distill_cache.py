"""Stored outputs of a teacher: what they hold, that they replace the teacher, and that they can be continued."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

import pvc.train.distill.setup
from pvc.errors import ConfigError
from pvc.train.distill.answer_data import AnswerDataset
from pvc.train.distill.answers import AnswerDistiller
from pvc.train.distill.teacher import PIXELS, get_teacher_text, run_teacher
from pvc.train.distill.teacher_cache import TOP_K, TeacherCache, TeacherOutputs, kl_divergence, top_divergence
from pvc.train.pipeline import run_recipe
from pvc.train.recipe import Recipe, Stage
from tests.train.test_distill_answers import batch, distiller, home, recipe  # noqa: F401 (fixtures)


def random_log_probs(positions, vocabulary, seed, scale=3.0):
    torch.manual_seed(seed)
    return (scale * torch.randn(positions, vocabulary, dtype=torch.float64)).log_softmax(-1)


def test_the_divergence_of_a_small_vocabulary_is_whole():
    teacher, student = random_log_probs(5, TOP_K, 0), random_log_probs(5, TOP_K, 1)
    top, indices = teacher.topk(TOP_K, -1)
    torch.testing.assert_close(top_divergence(student, indices, top), kl_divergence(student, teacher))


def test_the_divergence_is_that_of_the_top_and_one_event_for_the_rest():
    teacher, student = random_log_probs(6, 500, 2), random_log_probs(6, 500, 3)
    top, indices = teacher.topk(TOP_K, -1)
    found = top_divergence(student, indices, top)
    for row in range(6):  # the definition, token by token
        inside = sum(teacher[row, i].exp() * (teacher[row, i] - student[row, i]) for i in indices[row])
        rest = [1 - sum(one[row, i].exp() for i in indices[row]) for one in (teacher, student)]
        assert found[row].item() == pytest.approx((inside + rest[0] * (rest[0] / rest[1]).log()).item(), abs=1e-9)
    whole = kl_divergence(student, teacher)
    assert (found <= whole + 1e-9).all() and (found > 0.3 * whole).all()
    assert top_divergence(teacher, indices, top).abs().max() < 1e-6


def test_a_gradient_is_finite_where_nothing_is_left_for_the_rest():
    logits = torch.full((1, 100), -80.0)
    logits[0, 3] = 80.0
    logits.requires_grad_()
    top, indices = random_log_probs(1, 100, 4).float().topk(TOP_K, -1)
    top_divergence(logits.log_softmax(-1), indices, top).sum().backward()
    assert torch.isfinite(logits.grad).all()


def outputs(seed, positions, after, top=8, width=4):
    torch.manual_seed(seed)
    indices = torch.randint(1000, (positions, top))
    return TeacherOutputs(indices, torch.randn(positions, top), torch.randn(after, width).half())


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.get_batch().values(), second.get_batch().values(), strict=True))


def test_what_is_stored_is_read_and_a_killed_process_leaves_what_it_finished(tmp_path):
    cache = TeacherCache(tmp_path / "cache", 8, 4)
    stored = {("a.png", "what?", 0): outputs(0, 3, 7), ("b.mp4", "what?", 8): outputs(1, 1, 2)}
    for key, value in stored.items():
        cache.add(key, value)
    assert cache.nbytes == sum(
        path.stat().st_size for path in (tmp_path / "cache").iterdir() if path.suffix != ".jsonl"
    )
    # Killed in the middle of the third: its data are there, its line is cut.
    cache.add(("c.png", "what?", 0), outputs(2, 5, 5))
    index = tmp_path / "cache" / "index.jsonl"
    index.write_text(index.read_text()[:-9])
    again = TeacherCache(tmp_path / "cache", 8, 4)
    assert set(again.entries) == set(stored)
    again.add(("d.png", "where?", 0), outputs(3, 2, 2))
    last = TeacherCache(tmp_path / "cache", 8, 4)
    stored["d.png", "where?", 0] = outputs(3, 2, 2)
    assert set(last.entries) == set(stored)
    assert all(equal(last.get(key), value) for key, value in stored.items())


def test_hidden_states_that_float16_cannot_store():
    with pytest.raises(ConfigError, match=r"7e\+04, more than float16 can store; set distill.cache to false"):
        TeacherOutputs.from_run(torch.tensor([[7e4]]), torch.zeros(1, 3).log_softmax(-1))


@pytest.mark.parametrize("pack", [None, 400])
@pytest.mark.parametrize("frames", [None, 3])
def test_the_loss_is_that_of_the_teacher_itself(home, distiller, pack, frames):  # noqa: F811
    made = batch(home, 2, pack, frames)
    hidden, log_probs = run_teacher(
        distiller._teacher.module, {name: made.get(name) for name in PIXELS}, get_teacher_text(made)
    )
    stored = TeacherOutputs.from_run(hidden, log_probs).get_batch()
    without = AnswerDistiller(distiller.student, None)
    without.variance.copy_(distiller.variance)
    ours = {name: value for name, value in made.items() if not name.startswith("teacher_")}
    weight = distiller.student.model.multi_modal_projector.linear_1.weight
    losses = distiller(**made)["loss"], without(**ours, **stored)["loss"]
    gradients = [torch.autograd.grad(loss, weight)[0] for loss in losses]
    # Hidden states in half precision, and all tokens but the 64 most probable as one.
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.02)
    assert torch.nn.functional.cosine_similarity(*(gradient.flatten() for gradient in gradients), 0) > 0.98


def cached(home, **changes):  # noqa: F811
    made = recipe(home, **changes).model_dump()
    made["stages"][0]["distill"]["cache"] = True
    return Recipe.model_validate(made)


def test_a_run_from_stored_outputs(home, tmp_path, monkeypatch):  # noqa: F811
    lines, out = [], tmp_path / "out"
    run_recipe(cached(home), out, report=lines.append, workers=1)
    size = next(line for line in lines if "will take" in line)
    stored = next(line for line in lines if "MiB stored" in line)
    assert lines.index(size) < lines.index(stored)
    assert any("broken.png: passed over" in line for line in lines)
    after = load_file(out / "answers" / "final.safetensors")
    # A resumed run needs neither the teacher's weights nor a pass over the media.
    shutil.rmtree(out / "answers" / "checkpoint-4")
    shutil.rmtree(out / "model")
    (out / "answers" / "final.safetensors").unlink()
    monkeypatch.setattr(pvc.train.distill.setup, "load_checkpoint", None)
    monkeypatch.setattr(AnswerDataset, "store_outputs", None)
    lines.clear()
    run_recipe(cached(home), out, report=lines.append)
    assert not any("will take" in line for line in lines)
    again = load_file(out / "answers" / "final.safetensors")
    assert all(torch.equal(again[name], value) for name, value in after.items())


def test_what_the_cache_is_not_for(home):  # noqa: F811
    stage = cached(home).model_dump()["stages"][0]
    with pytest.raises(ValueError, match="distill.cache is for distill.loss 'answers' without augment"):
        Stage.model_validate({**stage, "augment": {"brightness": 0.1}})
    with pytest.raises(ValueError, match="distill.cache is for distill.loss 'answers' without augment"):
        Stage.model_validate({**stage, "pack": None, "distill": {**stage["distill"], "loss": "tokens"}})
