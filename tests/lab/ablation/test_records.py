"""Records are read strictly: errors name the file and the key."""

import json

import pytest

from pvc.errors import ConfigError, UsageError
from pvc.lab.ablation.records import RunRecord, Study, read_record, read_records, write_record
from tests.lab.ablation.made_up import STILLS, data, result, subsets


def good():
    rows = [result("rows", 0.9, 4), result("rows", 0.5, 2)]
    return data("stills", "D", 0, rows, subsets=subsets(lambda kept: 0.5))


def test_a_record_survives_its_file(tmp_path):
    record = RunRecord.model_validate(good())
    path = write_record(record, tmp_path)
    assert path.name == "stills-D-0.json" and [p.name for p in tmp_path.iterdir()] == [path.name]
    assert read_record(path) == record
    assert read_records(tmp_path) == (record,)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda d: d.update(sedd=1), "sedd"),
        (lambda d: d.pop("commit"), "commit"),
        (lambda d: d.update(seed="0"), "seed"),
        (lambda d: d.update(tokens=4.0), "tokens"),
        (lambda d: d["train"].update(cpu_seconds=float("nan")), "train.cpu_seconds"),
        (lambda d: d["curve"][3].update(loss=float("inf")), "curve.3.loss"),
        (lambda d: d["evals"][0].update(teacher_forced=1.2), "evals.0.teacher_forced"),
        (lambda d: d["results"][1].update(right=501), "results.1: .*right of count: 501 of 500"),
        (lambda d: d["results"][1].update(steps=4), "two entries with the same task"),
        (lambda d: d["subsets"][5].update(kept=[2, 0]), "subsets.5"),
        (lambda d: d["subsets"][5].update(characters=0), "subsets.5.characters"),
        (lambda d: d["parameters"].update(total=7), "parameters"),
        (lambda d: d.update(arm="E"), "stills-E-0.json"),
        (lambda d: d.update(arm="../E"), "arm"),
    ],
)
def test_malformed_records_are_refused_with_file_and_key(change, key, tmp_path):
    content = good()
    change(content)
    (tmp_path / "stills-D-0.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=key) as caught:
        read_records(tmp_path)
    assert "stills-D-0.json" in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_not_json_or_missing(tmp_path):
    (tmp_path / "stills-D-0.json").write_text("{")
    with pytest.raises(ConfigError, match=r"stills-D-0\.json"):
        read_records(tmp_path)
    with pytest.raises(UsageError, match="no folder of runs"):
        read_records(tmp_path / "none")
    with pytest.raises(UsageError, match="cannot read"):
        read_record(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": {}}, "arms is empty"),
        ({"default_steps": {"A": 1}}, "default_steps"),
        ({"chance": {"colour": 0.1}}, "colour"),
        ({"kind": "sound"}, "sound"),
    ],
)
def test_studies_are_checked(change, message):
    with pytest.raises(ConfigError, match=message):
        Study(**{**vars(STILLS), **change})
