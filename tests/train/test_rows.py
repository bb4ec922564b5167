"""Rows that cannot be trained on: counted, named by line, passed over up to a limit, never silently."""

import json
import shutil

import numpy as np
import pytest

from pvc.cli.main import main
from pvc.errors import ConfigError
from pvc.media import write_image
from pvc.testing import tiny_processor
from pvc.train.data.check import check_file, summarize
from pvc.train.data.mixture import ChatCollator, StageDataset
from pvc.train.recipe import Stage


def row(image="good.png", answer="a", value="<image>\nq"):
    return json.dumps(
        {"image": image, "conversations": [{"from": "human", "value": value}, {"from": "gpt", "value": answer}]}
    )


@pytest.fixture
def folder(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    write_image(tmp_path / "good.png", pixels)
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:300])
    (tmp_path / "folder.png").mkdir()
    return tmp_path


BAD = {
    2: (row("missing.png"), "No such file"),
    3: (row("cut.png"), "damaged"),
    4: (row("folder.png"), "folder.png"),
    5: (row(value="<image><image>\nq"), "more <image>"),
    6: (row(value="q"), "1 more of 'image'"),
    7: (row(answer=""), "no answer"),
    8: ('{"image": "good.png", "conv', "not JSON"),
    9: (b"\xff\xfe bad", "not UTF-8"),
    10: ("null", "not an object"),
    11: (json.dumps({"conversations": []}), "list of turns"),
    12: (json.dumps({"conversations": [{"from": "robot", "value": "x"}]}), "a turn must have"),
    13: (row(value="<image>\nhalf \ud83d"), "not valid Unicode"),
}


def written(folder, lines):
    path = folder / "rows.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines) + b"\n")
    return path


def everything(folder):
    return written(folder, [row(), *(line for line, _ in BAD.values()), row(answer="b")])


def stage(path, **changes):
    data = {"name": "s", "kind": "chat", "steps": 10, "batch_size": 4, "files": {str(path): 1.0}, "image_steps": 2}
    return Stage.model_validate({**data, **changes})


def test_every_bad_row_is_named_with_its_reason(folder):
    report = check_file(str(everything(folder)), tiny_processor(), frames=4)
    assert sorted(report.bad) == sorted(BAD)
    for line, (_, reason) in BAD.items():
        assert reason in report.bad[line], line
    assert (report.rows, len(report.lengths), dict(report.kinds)) == (14, 2, {"image": 2})
    tokens = report.describe()["visual_tokens"]
    assert tokens["total"] == 2 * report.visual[0] > 0


def test_the_good_ones_train(folder):
    told = []
    samples = StageDataset(stage(everything(folder), bad_rows=1.0), 0, 32, report=told.append)
    answers = {samples[index].messages[-1]["content"][0]["text"] for index in range(len(samples))}
    assert answers == {"a", "b"}
    assert len(told) == len(BAD), "each is told once"
    assert sum("line 3: passed over: " in line for line in told) == 1
    batch = ChatCollator(tiny_processor())([samples[0], samples[1]])
    assert len(batch["input_ids"]) == 2
    again = StageDataset(samples.stage, 0, 32)
    for index in reversed(range(len(samples))):
        assert samples[index].messages[-1] == again[index].messages[-1], "whatever was read before"


def test_too_many_are_too_many(folder):
    with pytest.raises(ConfigError, match=r"9 of 14 rows are bad.*\(8\): line 5: .*; and 4 more") as caught:
        StageDataset(stage(everything(folder), bad_rows=0.6), 0, 32)
    assert "\n" not in str(caught.value)
    few = written(folder, [row(), row("cut.png"), row("missing.png"), row(), row()])
    samples = StageDataset(stage(few, bad_rows=0.2), 0, 32)
    with pytest.raises(ConfigError, match="2 of 5 rows are bad"):
        for index in range(len(samples)):
            samples[index]
    with pytest.raises(ConfigError, match="no rows that could be trained on: line 1: not JSON"):
        StageDataset(stage(written(folder, ["{"]), bad_rows=1.0), 0, 32)


def test_none_is_left(folder):
    samples = StageDataset(stage(written(folder, [row("missing.png"), row("cut.png")]), bad_rows=1.0), 0, 32)
    with pytest.raises(ConfigError, match="no row is left"):
        samples[0]


def test_frames_of_files(folder):
    from pvc.media import write_video

    write_video(folder / "clip.mp4", np.zeros((12, 32, 32, 3), np.uint8), 4.0)
    turns = [{"from": "human", "value": "<video>\nq"}, {"from": "gpt", "value": "a"}]
    path = written(folder, [json.dumps({"video": "clip.mp4", "conversations": turns})])
    usual = StageDataset(stage(path), 0, 32, frames=5)
    assert len(usual[0].messages[0]["content"][0]["video"].timestamps) == 5
    drawn = StageDataset(stage(path, file_frames={3: 1, 6: 1}), 0, 32)
    counts = [len(drawn[index].messages[0]["content"][0]["video"].timestamps) for index in range(40)]
    assert set(counts) == {3, 6}
    assert all(len(set(counts[start : start + 4])) == 1 for start in range(0, 40, 4)), "one length a batch"


def test_too_long_rows(folder):
    path = written(folder, [row(), row(answer="word " * 100)])
    report = check_file(str(path), tiny_processor(), frames=4, longest=150)
    assert list(report.bad) == [2]
    assert "too long: " in report.bad[2]
    assert summarize([]) == {"total": 0, "least": 0, "median": 0, "p95": 0, "most": 0}
    assert summarize([3, 1, 2, 10]) == {"total": 16, "least": 1, "median": 3, "p95": 10, "most": 10}


def test_from_the_command_line(folder, capsys):
    path = everything(folder)
    assert main(["data", "check", str(path)]) == 3
    out = capsys.readouterr().out
    assert "14 rows, 2 good (2 image)" in out
    assert "line 9: not UTF-8 text" in out
    assert main(["data", "check", str(path), "--json"]) == 3
    (told,) = json.loads(capsys.readouterr().out)["files"]
    assert [one["line"] for one in told["bad"]] == sorted(BAD)
    assert main(["data", "check", str(written(folder, [row()]))]) == 0
    assert main(["data", "check", str(folder / "none.jsonl")]) == 2


def test_the_hostile_file(shared, tmp_path):
    for name in ("rows_corrupt.jsonl", "ok_rgb.png", "truncated.jpg"):
        shutil.copy(shared / "hostile" / name, tmp_path / name)
    report = check_file(str(tmp_path / "rows_corrupt.jsonl"), tiny_processor(), frames=4)
    assert len(report.lengths) == 1
    assert sorted(report.bad) == list(range(2, 12))


def test_null_is_no_picture(folder):
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    path = written(folder, [json.dumps({"image": None, "conversations": turns})])
    assert dict(check_file(str(path), tiny_processor(), frames=4).kinds) == {"text": 1}
