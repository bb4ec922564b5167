"""Conversations in files: read as they stand, and every mistake named with its line."""

import json

import pytest

from pvc.errors import ConfigError, UsageError
from pvc.processing.conversations import read_records


def written(tmp_path, *rows):
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def turns(*values):
    return [{"from": ("human", "gpt")[place % 2], "value": value} for place, value in enumerate(values)]


def test_media_stand_where_their_placeholders_do(tmp_path):
    row = {
        "id": 7,
        "image": ["a.png", "b.png"],
        "video": "c.mp4",
        "conversations": turns("<image>\nfirst <video>\nthen <image> which?", "both <image>", "sure?", "yes"),
    }
    (read,) = read_records(written(tmp_path, row, ""))
    assert (read.id, read.line, read.kind) == ("7", 1, "video")
    assert [message["role"] for message in read.messages] == ["user", "assistant", "user", "assistant"]
    assert read.messages[0]["content"] == [
        {"type": "image", "image": tmp_path / "a.png"},
        {"type": "text", "text": "first "},
        {"type": "video", "video": tmp_path / "c.mp4"},
        {"type": "text", "text": "then "},
        {"type": "image", "image": tmp_path / "b.png"},
        {"type": "text", "text": " which?"},
    ]
    assert read.messages[1]["content"] == [{"type": "text", "text": "both <image>"}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "line 1: not JSON"),
        ("[1]", "not an object"),
        ({"conversations": []}, "'conversations'"),
        ({"conversations": [{"from": "robot", "value": "x"}]}, "'from'"),
        ({"conversations": [{"from": "human", "value": 3}]}, "'from'"),
        ({"image": 3, "conversations": turns("x")}, "'image' must be"),
        ({"image": "a.png", "conversations": turns("x")}, "1 more of 'image'"),
        ({"conversations": turns("<video>\nx")}, "more <video>"),
    ],
)
def test_mistakes_are_named(row, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        read_records(written(tmp_path, row))


def test_no_file_and_no_rows(tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        read_records(tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match="no rows"):
        read_records(written(tmp_path, ""))


def test_only_a_line_feed_ends_a_row(tmp_path):
    """Other separators may stand in a JSON string as they are."""
    row = {"conversations": turns("a\u2028b\x85c", "yes")}
    (read,) = read_records(written(tmp_path, json.dumps(row, ensure_ascii=False)))
    assert read.messages[0]["content"] == [{"type": "text", "text": "a\u2028b\x85c"}]


def test_a_row_that_is_nested_too_deeply_is_named(tmp_path):
    with pytest.raises(ConfigError, match="line 1: not JSON"):
        read_records(written(tmp_path, "[" * 100_000))
