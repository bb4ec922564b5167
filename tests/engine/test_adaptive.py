"""`image_steps="auto"`: the head that chooses, what encoding then does, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import pvc
from pvc.cli.main import main
from pvc.engine.adaptive import FILE, StepHead, step_features
from pvc.engine.encode import encode_picture
from pvc.engine.engine import MediaOptions
from pvc.engine.visual_state import fingerprint
from pvc.errors import CheckpointError, UsageError
from pvc.lab.evaluate import steps as fitting
from pvc.lab.evaluate.accuracy import first_steps, measure
from pvc.testing.tiny import write_tiny_checkpoint

AUTO = MediaOptions(image_steps="auto", max_tiles=3)


def picture(seed=0, size=(64, 128)):
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)


def head_of(engine, favourite, steps=(1, 2, 4)):
    """One that always wants `favourite`, whatever it sees."""
    width = engine.model.config.text_config.hidden_size
    bias = torch.tensor([float(number == favourite) for number in steps])
    return StepHead(torch.zeros(2 * width, len(steps)), bias, steps, 0.01, fingerprint(engine.model, rounded=True))


@pytest.fixture
def engine(checkpoint):
    return pvc.load(checkpoint, device="cpu")


@pytest.fixture
def own(tmp_path):
    return write_tiny_checkpoint(tmp_path / "model")


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_chosen_steps_give_the_tokens_of_so_many_steps(engine, steps, monkeypatch):
    opened = engine.open(picture())
    whole = encode_picture(engine.model, engine.processor, opened, {"image_steps": steps, "max_patches": 3})
    adaptive = encode_picture(engine.model, engine.processor, opened, {"max_patches": 3}, head_of(engine, steps))
    assert whole.tiles > 1
    assert (adaptive.steps, adaptive.tiles) == (steps, whole.tiles)
    torch.testing.assert_close(adaptive.tokens, whole.tokens, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr("pvc.engine.encode.TILES_PER_CHUNK", 2)
    pieces = encode_picture(engine.model, engine.processor, opened, {"max_patches": 3}, head_of(engine, steps))
    torch.testing.assert_close(pieces.tokens, whole.tokens, rtol=1e-5, atol=1e-5)


def test_relative_timesteps_too(tmp_path):
    engine = pvc.load(write_tiny_checkpoint(tmp_path / "relative", vision={"timestep": "relative"}), device="cpu")
    opened = engine.open(picture())
    whole = encode_picture(engine.model, engine.processor, opened, {"image_steps": 4})
    adaptive = encode_picture(engine.model, engine.processor, opened, {}, head_of(engine, 4))
    torch.testing.assert_close(adaptive.tokens, whole.tokens, rtol=1e-5, atol=1e-5)


def test_no_layer_runs_twice(engine):
    tower, rows = engine.model.model.vision_tower, []
    for layer in (tower.encoder.layer[0], tower.encoder.layer[-1]):
        layer.register_forward_hook(lambda module, args, output: rows.append(len(args[0])))
    encoded = encode_picture(engine.model, engine.processor, engine.open(picture()), {}, head_of(engine, 4))
    assert sum(rows) == encoded.tiles * (1 + 4)
    assert rows == [encoded.tiles, encoded.tiles, encoded.tiles * 3]


def test_the_first_step_is_what_decides(engine):
    opened = engine.open(picture())
    seen = encode_picture(engine.model, engine.processor, opened, {"image_steps": 1})
    per_tile = seen.tokens.unflatten(0, (seen.tiles, -1))
    torch.testing.assert_close(first_steps(engine, [opened.image])[0], step_features(per_tile))
    tokens = torch.randn(3, 4, 5)
    by_hand = torch.stack([torch.cat([t.mean(0), ((t - t.mean(0)) ** 2).mean(0).sqrt()]) for t in tokens]).mean(0)
    torch.testing.assert_close(step_features(tokens), by_hand)


def test_a_price_is_weighed_against_what_is_gained():
    head = StepHead(torch.zeros(2, 3), torch.tensor([-0.1, 0.0, 0.1]), (1, 2, 4), 0.0, "")
    assert [replace(head, price=price).choose(torch.zeros(2)) for price in (0.0, 0.04, 0.06, 0.2)] == [4, 4, 2, 1]


def test_fitting_finds_what_can_be_found():
    """Half of the pictures gain from steps, and a feature says which; another feature says how hard they are."""
    rng = np.random.default_rng(0)
    dense, hard = rng.integers(0, 2, 800), rng.random(800)
    features = np.stack([dense + 0.1 * rng.standard_normal(800), hard, rng.standard_normal(800)], 1)
    gain = np.array([0.0, 0.2, 0.5])
    right = (rng.random((800, 1)) < 0.2 + 0.25 * hard[:, None] + dense[:, None] * gain).astype(float)
    data = fitting.Collected(features.astype(np.float32), right, np.array(["any"] * 800))
    points = fitting.curve(fitting.crossed(data), data.right, (1, 2, 4))
    enough = points[points[:, 1] >= right[:, 2].mean() - 0.01]
    assert 2.0 < enough[:, 0].min() < 3.0  # 2.5 where every dense picture has four and no other more than one
    by_samples = fitting.ridge(features[:2], right[:2], 5.0)  # more features than samples: the other way to solve it
    z = (features[:2] - features[:2].mean(0)) / (features[:2].std(0) + 1e-6)
    direct = np.linalg.solve(z.T @ z + 5 * np.eye(3), z.T @ (right[:2] - right[:2].mean(0)))
    np.testing.assert_allclose(by_samples[0] * (features[:2].std(0) + 1e-6)[:, None], direct, atol=1e-9)


def test_from_the_command_line(own, capsys, tmp_path):
    fit = ["fit-steps", str(own), "--task", "read", "--task", "shape", "--count", "8", "--threads", "1"]
    assert main([*fit, "--dry-run"]) == 0
    assert "nothing written" in capsys.readouterr().out
    assert not (own / FILE).exists()
    assert main([*fit, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["steps"] == [1, 2, 4]
    assert told["samples"] == 16
    engine = pvc.load(own, device="cpu")
    head = engine.step_head
    assert head.steps == (1, 2, 4)
    assert head.price == pytest.approx(told["price"])
    page = tmp_path / "page.png"
    pvc.media.write_image(page, picture())
    asked = ["ask", str(page), "What?", "--model", str(own), "--image-steps", "auto", "--json", "--max-new-tokens", "2"]
    assert main(asked) == 0
    taken = json.loads(capsys.readouterr().out)["media"][0]["steps"]
    assert taken in (1, 2, 4)
    assert main([*asked, "--budget", "5000"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["media"][0]["steps"] == taken
    assert main(["encode", str(page), "-o", str(tmp_path / "a.pvc"), "--model", str(own), "--image-steps", "auto"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == taken
    row = measure(engine, ["shape", "direction"], 5, image_steps="auto", threads=None)
    assert 1 <= row[0]["mean_steps"] <= 4
    assert "mean_steps" not in row[1]
    assert main(["ask", str(page), "What?", "--image-steps", "some"]) == 2
    assert "or auto" in capsys.readouterr().err


def test_a_plan_counts_the_most_and_leaves_the_choice(engine):
    engine.__dict__["step_head"] = head_of(engine, 2)
    plan = engine.plan(picture(), options=AUTO)
    assert plan.options[0].image_steps == "auto"
    assert "up to 4 steps" in str(plan)
    encoded = engine.encode([engine.open(picture())], plan.options)[0]
    assert (encoded.steps, len(encoded.tokens) * 2) == (2, plan.tokens)
    less = engine.plan(picture(), options=AUTO, budget=plan.tokens - 1)
    assert less.options[0].image_steps == 3  # what a budget leaves room for is taken


def test_refusals(own, engine):
    for name in ("image_steps", "max_tiles"):
        with pytest.raises(UsageError, match=name):
            MediaOptions(**{name: "many"})
    with pytest.raises(UsageError, match="only an engine"):
        engine.processor.image_processor([picture()], image_steps="auto")
    fresh = pvc.load(own, device="cpu")
    with pytest.raises(UsageError, match="fit-steps"):
        fresh.encode([fresh.open(picture())], AUTO)
    with pytest.raises(UsageError, match="several"):
        fitting.collect(fresh, (1, 2), ["compare"], 2)
    with pytest.raises(UsageError, match="video"):
        fitting.collect(fresh, (1, 2), ["direction"], 2)
    head_of(fresh, 2).save(own)
    assert pvc.load(own, device="cpu").step_head.choose(torch.zeros(64)) == 2
    assert pvc.load(own, device="cpu", dtype="bfloat16").step_head.steps == (1, 2, 4)
    with torch.no_grad():
        fresh.model.model.vision_tower.encoder.layer[0].mlp.fc1.weight.mul_(1.5)
    with pytest.raises(CheckpointError, match="other weights"):
        fresh.step_head  # noqa: B018  # reading it is what is tested


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path, head: path.write_bytes(b"rubbish"), "cannot read"),
        (lambda path, head: path.write_bytes(path.read_bytes()[:-4]), "cannot read"),
        (lambda path, head: replace(head, weight=torch.zeros(7, 3)).save(path.parent), "weight is"),
        (lambda path, head: replace(head, steps=(4, 2, 1)).save(path.parent), "weight is"),
        (lambda path, head: replace(head, price=float("nan")).save(path.parent), "make no sense"),
        (lambda path, head: replace(head, steps=(1, 2, 10**30)).save(path.parent), "make no sense"),
        (lambda path, head: replace(head, bias=torch.tensor([0, 1, float("nan")])).save(path.parent), "no numbers"),
    ],
)
def test_a_damaged_head(own, spoil, message):
    engine = pvc.load(own, device="cpu")
    head = head_of(engine, 1)
    spoil(head.save(own), head)
    with pytest.raises(CheckpointError, match=message):
        engine.step_head  # noqa: B018
