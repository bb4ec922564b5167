"""Measurements of `pvc bench`: equal visual tokens where ways must agree, and the number of tokens of each way."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import pvc
from pvc.cli.main import main
from pvc.engine.options import MediaOptions
from pvc.errors import UsageError
from pvc.evaluate import cost as costs
from pvc.media import write_video


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / "a.png")
    write_video(folder / "b.mp4", rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8), fps=2)
    return [folder / "a.png", folder / "b.mp4"]


def test_the_published_way_gives_the_same_visual_tokens(checkpoint, files):
    engine = pvc.load(checkpoint, device="cpu")
    for path in files:
        opened = engine.open(path)
        ours, theirs = (costs._encode(engine, way, opened, MediaOptions()) for way in ("pvc", "published"))
        assert (ours.kind, ours.tiles, ours.steps) == (theirs.kind, theirs.tiles, theirs.steps)
        assert (ours.tokens - theirs.tokens).abs().max() <= 1e-5 * ours.tokens.abs().max()


def test_the_base_has_four_times_the_tokens_and_the_same_tower(checkpoint):
    engine = pvc.load(checkpoint, device="cpu")
    base = costs.build_engine("base", engine)
    assert base.processor.tokens_per_frame == 4 * engine.processor.tokens_per_frame
    assert base.model.config.vision_config.num_temporal_layers == 0
    full, base_state = engine.model.state_dict(), base.model.state_dict()
    tower = [name for name in base_state if "vision_tower" in name]
    assert tower
    assert all(torch.equal(full[name], base_state[name]) for name in tower)
    assert engine.processor.tokens_per_frame == engine.model.config.tokens_per_frame


def test_a_table_a_picture_and_numbers(checkpoint, files, tmp_path, capsys):
    options = ["--repeats", "1", "--tokens", "3", "--threads", "1", "--baseline", "pvc", "--baseline", "base"]
    assert main(["bench", str(files[1]), "--model", str(checkpoint), "--out", str(tmp_path), *options]) == 0
    printed = capsys.readouterr().out
    assert printed.strip() == (tmp_path / "bench.md").read_text().strip()
    rows = json.loads((tmp_path / "bench.json").read_text())["costs"]
    assert [(row["medium"], row["way"]) for row in rows] == [("b.mp4", "pvc"), ("b.mp4", "base")]
    for row in rows:
        assert set(row["seconds"]) == set(costs.PHASES)
        assert all(value >= 0 for value in row["seconds"].values())
        assert row["second"] > 0
    assert rows[1]["visual_tokens"] == 4 * rows[0]["visual_tokens"]
    assert (tmp_path / "bench.png").read_bytes()[:4] == b"\x89PNG"


def test_what_cannot_be_measured(checkpoint, files):
    engine = pvc.load(checkpoint, device="cpu")
    with pytest.raises(UsageError, match="unknown ways: magic"):
        costs.measure_costs(engine, files, ways=["magic"])
    assert main(["bench", "nowhere.png"]) == 2
