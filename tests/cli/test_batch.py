"""`pvc ask FILE.jsonl`: every question of every row, in order, with what the file expects."""

import json

from pvc.lab.synthetic import write_dataset
from tests.cli.helpers import run


def test_a_file_of_conversations_is_answered(checkpoint, tmp_path):
    rows = write_dataset(tmp_path, ["shape", "direction", "compare"], 2, seed=3, size=32, frames=3)
    wanted = []
    for line in rows.read_text().splitlines():
        row = json.loads(line)
        turns = [turn["value"].split("\n")[-1] for turn in row["conversations"]]
        wanted += [(row["id"], question, answer) for question, answer in zip(turns[::2], turns[1::2], strict=True)]
    out = run("ask", rows, "--model", checkpoint, "--json", "--max-new-tokens", "3", check=0).stdout
    found = [json.loads(line) for line in out.splitlines()]
    assert [(row["id"], row["question"], row["expected"]) for row in found] == wanted
    assert len(wanted) > 10
    plain = run("ask", rows, "--model", checkpoint, "--max-new-tokens", "3", check=0).stdout.splitlines()
    assert len(plain) >= len(wanted) + 1
    right = sum(row["answer"] == row["expected"] for row in found)
    assert plain[-1] == f"{right} of {len(wanted)} answers are the ones in the file"


def test_a_bad_row_is_one_line(checkpoint, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"conversations": [{"from": "human", "value": "<image> what?"}]}\n')
    error = run("ask", path, "--model", checkpoint, check=5).stderr
    assert "line 1: more <image>" in error
    assert error.count("\n") == 1
    path.write_text('{"image": "no.png", "conversations": [{"from": "human", "value": "<image> what?"}]}\n')
    assert "no.png" in run("ask", path, "--model", checkpoint, check=3).stderr
