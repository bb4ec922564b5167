"""Files of JSON lines that a killed process left with half a line."""

from pvc.train.data.records import BadRowLog
from pvc.train.json_lines import append_json_line, read_json_lines


def test_a_line_after_half_a_line_is_a_line(tmp_path):
    path = tmp_path / "new" / "x.jsonl"
    assert list(read_json_lines(path)) == []
    append_json_line(path, {"a": 1})
    with path.open("a") as file:
        file.write('{"a": ')
    append_json_line(path, {"a": "zwölf"})
    assert list(read_json_lines(path)) == [{"a": 1}, {"a": "zwölf"}]


def test_bad_rows_after_a_kill(tmp_path):
    path = tmp_path / "bad_rows.jsonl"
    BadRowLog(path).add("x.jsonl", 3, "no answer")
    path.write_text(path.read_text()[:-4])
    BadRowLog(path).add("x.jsonl", 4, "too long")
    assert BadRowLog(path).get_reasons("x.jsonl") == {4: "too long"}
