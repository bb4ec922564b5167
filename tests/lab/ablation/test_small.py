"""The small ablation from the command line: records, a report with verdicts, and no run trained twice."""

import json
from pathlib import Path

import pytest

from pvc.cli.main import main

PLAN = Path(__file__).parents[3] / "recipes" / "ablation" / "small.yaml"


@pytest.mark.slow
def test_the_small_ablation_from_one_command(tmp_path, capsys):
    records, work = tmp_path / "records", tmp_path / "work"
    arguments = ["lab", "ablate", str(PLAN), "--out", str(records), "--work", str(work)]
    # Two pieces, as an interrupted ablation would be made.
    assert main([*arguments, "--seed", "0"]) == 0
    first = {path.name: path.read_bytes() for path in records.glob("*.json")}
    assert len(first) == 6
    assert main(arguments) == 0
    files = {path.name: path.read_bytes() for path in records.glob("*.json")}
    assert len(files) == 14
    assert all(files[name] == content for name, content in first.items())
    report = Path(capsys.readouterr().out.split()[-1])
    text = report.read_text(encoding="utf-8")
    for word in ("supported", "undecided", "(a)", "(e)"):
        assert word in text
    run = json.loads(files["stills-D-1.json"])
    assert len(run["subsets"]) == 15
    assert {result["steps"] for result in run["results"]} == {1, 2, 3, 4}
    # It has to learn something: the base reads, far above one in 31 characters.
    best = json.loads(files["stills-A-1.json"])["results"][0]
    assert best["teacher_forced_right"] / best["teacher_forced_tokens"] > 0.4
    assert list(report.parent.glob("*.png"))
    assert main([*arguments, "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("0 of 14")
