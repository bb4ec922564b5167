"""`pvc distill`: from the command line, what it costs, and the recipes for InternVL3."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pvc.cli.main import main
from pvc.convert import Options, convert
from pvc.errors import UsageError
from pvc.media import write_image, write_video
from pvc.train.distill.cost import stage_cost
from pvc.train.distill.defaults import build_recipe
from pvc.train.model_init import resolve_recipe
from pvc.train.recipe import DISTILL_DEFAULTS, load_recipe
from pvc.train.trainer import StageTrainer
from tests.convert import sources

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    source = sources.transformers_format(folder / "source", vision={"initializer_range": 1e-10})
    convert(source, folder / "student", Options(num_frames=4))
    convert(source, folder / "teacher", Options(ratio=0.5, image_steps=1))
    rng = np.random.default_rng(0)
    (folder / "media").mkdir()
    for number in range(3):
        write_image(folder / "media" / f"{number}.png", rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    write_video(folder / "media" / "clip.mp4", rng.integers(0, 255, (6, 32, 32, 3), dtype=np.uint8), 2.0)
    return folder


def arguments(home, *more):
    return ["distill", str(home / "student"), "--teacher", str(home / "teacher"), "--data", str(home / "media"), *more]


def test_a_run(home, tmp_path, capsys):
    out = tmp_path / "Run 1"
    more = ["--out", str(out), "--steps", "2", "--batch-size", "2", "--eval-data", str(home / "media")]
    assert main(arguments(home, *more)) == 0
    assert capsys.readouterr().out.strip() == str(out / "model")
    log = (out / "log.txt").read_text()
    assert "tensors are shared with the student" in log and "held-out: pictures in 1 step" in log
    recipe = json.loads((out / "recipe.json").read_text())
    assert recipe["name"] == "run-1" and recipe["stages"][0]["kind"] == "distill"
    assert main(arguments(home, *more)) == 0  # done before
    assert main(["ask", str(home / "media" / "0.png"), "what?", "--model", str(out / "model"), "--json"]) == 0
    assert main(arguments(home, *more, "--steps", "3")) == 2
    assert "another recipe" in capsys.readouterr().err


def test_help(capsys):
    assert main(["distill", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "without labels" in told and "--ratio 1/2" in told and "the same command resumes" in told


def test_what_it_would_cost(home, tmp_path, capsys):
    assert main(arguments(home, "--out", str(tmp_path / "run"), "--dry-run")) == 0
    told = capsys.readouterr().out
    assert "student: ok, 1 stage: distill" in told and "no language model" in told and "clip of 4 frames" in told
    assert not (tmp_path / "run").exists()
    assert main(arguments(home, "--out", str(tmp_path / "run"), "--loss", "answers", "--dry-run")) == 0
    assert "for the token loss only" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--loss", "words"], 2, "--loss: "),
        (["--target", "words"], 2, "--target: "),
        (["--learning-rate", "0"], 2, "--learning-rate: "),
        (["--eval-data", "nowhere"], 5, "nowhere is not a folder"),
        (["--data", "nowhere.jsonl"], 5, "cannot read nowhere.jsonl"),
    ],
)
def test_what_is_refused(home, tmp_path, capsys, more, code, message):
    assert main(arguments(home, "--out", str(tmp_path / "run"), *more)) == code
    assert message in capsys.readouterr().err


def test_the_cost_follows_the_shapes(home):
    recipe = resolve_recipe(build_recipe(home / "student", home / "teacher", [str(home / "media")]))
    from pvc.train.model_init import initial_processor

    cost = stage_cost(recipe, recipe.stages[0], initial_processor(recipe))
    one, two, four = (cost.operations[f"tile in {n} step{'s'[: n != 1]}"] for n in (1, 2, 4))
    # 64 patches and the class token through three layers of width 32, twice forward (teacher, student).
    forward = 3 * 65 * 2 * (4 * 32 * 32 + 2 * 32 * 48)
    assert one > 2 * forward
    assert one < two < four < 4 * one  # the layers below the temporal one run once
    assert cost.activations["tile in 1 step"] < cost.activations["tile in 4 steps"]
    assert 0 < cost.trained < cost.parameters
    answers = recipe.stages[0].distill.model_copy(update={"loss": "answers"})
    with pytest.raises(UsageError, match="only the cost of the token loss"):
        stage_cost(recipe, recipe.stages[0].model_copy(update={"distill": answers}), initial_processor(recipe))


@pytest.mark.parametrize("size", ["1b", "2b", "8b"])
def test_recipes_for_internvl3(size):
    path = RECIPES / f"distill-internvl3-{size}.yaml"
    (stage,) = load_recipe(path).stages
    assert stage.is_token_distillation and stage.distill.teacher == f"pvc-{size}-teacher"
    assert stage.trained == DISTILL_DEFAULTS["trained"] and stage.learning_rate == DISTILL_DEFAULTS["learning_rate"]
    assert set(stage.image_steps) == {1, 2, 4} and min(stage.file_frames) == 16
    assert f"--init-from pvc-{size} " in path.read_text()


class Both(torch.nn.Module):
    """Parameters with the names that conditioning on timesteps has."""

    def __init__(self):
        super().__init__()
        self.modulation = torch.nn.Linear(2, 2)
        self.timestep_embedding = torch.nn.Sequential(torch.nn.Linear(2, 2))
        self.linear_1 = torch.nn.Linear(2, 2)


def test_no_decay_of_what_conditions_on_timesteps():
    trainer = StageTrainer.__new__(StageTrainer)
    assert trainer.get_decay_parameter_names(Both()) == ["linear_1.weight"]
