"""`pvc info`."""

import json

from tests.cli.helpers import run


def test_info(checkpoint):
    text = run("info", checkpoint, check=0).stdout
    assert "tokens per frame" in text
    assert "parameters, temporal" in text
    data = json.loads(run("info", checkpoint, "--json", check=0).stdout)
    assert data["tokens_per_frame"] == 1
    assert data["parameters"]["total"] == sum(v for k, v in data["parameters"].items() if k != "total")
    assert data["shape"]["temporal_layers"] == 2
    assert (data["dtypes"], data["dtype_on_this_cpu"]) == (["F32"], "float32")
    assert "computed in, on this CPU" in text


def test_info_of_nothing(tmp_path):
    assert "no config.json" in run("info", tmp_path, check=5).stderr
