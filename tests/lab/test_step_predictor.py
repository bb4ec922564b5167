"""The step predictor: fitting, choosing, its file, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import pvc
from pvc.cli.main import main
from pvc.engine.encode import encode_picture
from pvc.engine.options import MediaOptions
from pvc.engine.visual_state import fingerprint
from pvc.errors import CheckpointError, UsageError
from pvc.lab.evaluate import steps as fitting
from pvc.lab.evaluate.accuracy import first_steps, measure
from pvc.lab.step_predictor import FILE, StepPredictor, predictor_for, step_features
from pvc.testing.tiny import write_tiny_checkpoint


def picture(seed=0, size=(64, 128)):
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)


def head_of(engine, favourite, steps=(1, 2, 4)):
    """One that always wants `favourite`, whatever it sees."""
    width = engine.model.config.text_config.hidden_size
    bias = torch.tensor([float(number == favourite) for number in steps])
    return StepPredictor(torch.zeros(2 * width, len(steps)), bias, steps, 0.01, fingerprint(engine.model, rounded=True))


@pytest.fixture
def engine(checkpoint):
    return pvc.load(checkpoint, device="cpu")


@pytest.fixture
def own(tmp_path):
    return write_tiny_checkpoint(tmp_path / "model")


def test_the_first_step_is_what_decides(engine):
    opened = engine.open(picture())
    seen = encode_picture(engine.model, engine.processor, opened, {"image_steps": 1})
    per_tile = seen.tokens.unflatten(0, (seen.tiles, -1))
    torch.testing.assert_close(first_steps(engine, [opened.image])[0], step_features(per_tile))
    tokens = torch.randn(3, 4, 5)
    by_hand = torch.stack([torch.cat([t.mean(0), ((t - t.mean(0)) ** 2).mean(0).sqrt()]) for t in tokens]).mean(0)
    torch.testing.assert_close(step_features(tokens), by_hand)


def test_a_price_is_weighed_against_what_is_gained():
    head = StepPredictor(torch.zeros(2, 3), torch.tensor([-0.1, 0.0, 0.1]), (1, 2, 4), 0.0, "")
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


def test_from_the_command_line(own, capsys):
    fit = ["lab", "fit-steps", str(own), "--task", "read", "--task", "shape", "--count", "8", "--threads", "1"]
    assert main([*fit, "--dry-run"]) == 0
    assert "nothing written" in capsys.readouterr().out
    assert not (own / FILE).exists()
    assert main([*fit, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["steps"] == [1, 2, 4]
    assert told["samples"] == 16
    engine = pvc.load(own, device="cpu")
    head = predictor_for(engine)
    assert head.steps == (1, 2, 4)
    assert head.price == pytest.approx(told["price"])
    row = measure(engine, ["shape", "direction"], 5, image_steps="auto", threads=None)
    assert 1 <= row[0]["mean_steps"] <= 4
    assert "mean_steps" not in row[1]
    assert main(["lab", "eval", "--model", str(own), "--count", "1", "--task", "shape", "--image-steps", "some"]) == 2
    assert "or auto" in capsys.readouterr().err


def test_refusals(own, engine):
    for name in ("image_steps", "max_tiles"):
        with pytest.raises(UsageError, match=name):
            MediaOptions(**{name: "many"})
    fresh = pvc.load(own, device="cpu")
    with pytest.raises(UsageError, match="fit-steps"):
        predictor_for(fresh)
    with pytest.raises(UsageError, match="several"):
        fitting.collect(fresh, (1, 2), ["compare"], 2)
    with pytest.raises(UsageError, match="video"):
        fitting.collect(fresh, (1, 2), ["direction"], 2)
    head_of(fresh, 2).save(own)
    assert predictor_for(pvc.load(own, device="cpu")).choose(torch.zeros(64)) == 2
    assert predictor_for(pvc.load(own, device="cpu", dtype="bfloat16")).steps == (1, 2, 4)
    with torch.no_grad():
        fresh.model.model.vision_tower.encoder.layer[0].mlp.fc1.weight.mul_(1.5)
    with pytest.raises(CheckpointError, match="other weights"):
        predictor_for(fresh)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path, head: path.write_bytes(b"rubbish"), "cannot read"),
        (lambda path, head: path.write_bytes(path.read_bytes()[:-4]), "cannot read"),
        (lambda path, head: replace(head, weight=torch.zeros(7, 3)).save(path.parent), "weight is"),
        (lambda path, head: replace(head, steps=(4, 2, 1)).save(path.parent), "weight is"),
        (lambda path, head: replace(head, price=float("nan")).save(path.parent), "make no sense"),
        (lambda path, head: replace(head, steps=(1, 2, 10**30)).save(path.parent), "make no sense"),
        (lambda path, head: replace(head, bias=torch.tensor([0, 1, float("nan")])).save(path.parent), "non-finite"),
    ],
)
def test_a_damaged_head(own, spoil, message):
    engine = pvc.load(own, device="cpu")
    head = head_of(engine, 1)
    spoil(head.save(own), head)
    with pytest.raises(CheckpointError, match=message):
        predictor_for(engine)
