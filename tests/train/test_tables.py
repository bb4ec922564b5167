"""Rows from chat messages, tar shards and tables: read as what they are, and every mistake named."""

import io
import json
import tarfile

import numpy as np
import pytest

from pvc.errors import ConfigError, UsageError
from pvc.media import write_image, write_video
from pvc.processing.conversations import read_records
from pvc.testing import tiny_processor
from pvc.train.data.check import check_file
from pvc.train.data.mixture import ChatCollator, StageDataset
from pvc.train.data.readers import open_table
from pvc.train.data.records import BadRowLog, RecordSource
from pvc.train.recipe import FileMix, Stage

TURNS = [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]


@pytest.fixture
def picture(tmp_path):
    write_image(tmp_path / "p.png", np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    return (tmp_path / "p.png").read_bytes()


def stage(path, mix=1.0, **changes):
    data = {"name": "s", "kind": "chat", "steps": 10, "batch_size": 4, "files": {str(path): mix}, "image_steps": 2}
    return Stage.model_validate({**data, **changes})


def chat(*parts, answer="a", **more):
    return {"messages": [{"role": "user", "content": list(parts)}, {"role": "assistant", "content": answer}], **more}


def test_chat_messages(tmp_path):
    text = {"type": "text", "text": "what of <image>?"}
    rows = [
        chat({"type": "image", "path": "a.png"}, text, {"type": "video", "url": "file://b.mp4"}),
        chat({"type": "image"}, {"type": "image", "image": None, "text": None}, text, images=["a.png", "c.png"]),
        {"messages": [{"role": "system", "content": "be brief"}, *chat("x")["messages"]]},
    ]
    rows[2]["messages"][1]["content"] = "plain"
    path = tmp_path / "chat.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    first, second, third = read_records(path)
    kinds = [(part["type"], part[part["type"]]) for part in first.messages[0]["content"]]
    assert kinds == [("image", tmp_path / "a.png"), ("text", "what of <image>?"), ("video", tmp_path / "b.mp4")]
    assert [part.get("image") for part in second.messages[0]["content"][:2]] == [tmp_path / "a.png", tmp_path / "c.png"]
    assert [message["role"] for message in third.messages] == ["system", "user", "assistant"]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"messages": []}, "list of messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "'role'"),
        ({"messages": [{"role": "user", "content": 3}]}, "'content'"),
        (chat({"type": "audio", "path": "x"}), "'type'"),
        (chat({"type": "text"}), "'type'"),
        (chat({"type": "image"}), "more parts of type image"),
        (chat({"type": "image", "url": "https://x/y.png"}), "not an address"),
        (chat(images=["a.png"]), "1 more of 'image'"),
        (chat({"type": "image", "path": 3}), "must be a path"),
        ({"messages": [{"role": "assistant", "content": [{"type": "image", "path": "x"}]}]}, "only a user"),
        ({"image": "a", "images": ["b"], "conversations": TURNS}, "in one row"),
    ],
)
def test_mistakes_of_chat_messages(row, told, tmp_path):
    (tmp_path / "bad.jsonl").write_text(json.dumps(row))
    with pytest.raises(ConfigError, match=told):
        read_records(tmp_path / "bad.jsonl")


def shard(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            data = data if isinstance(data, bytes) else json.dumps(data).encode()
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def shards(tmp_path, picture):
    write_video(tmp_path / "v.mp4", np.zeros((6, 32, 32, 3), np.uint8), 4.0)
    video = (tmp_path / "v.mp4").read_bytes()
    video_turns = [{"from": "human", "value": "<video>\nq"}, TURNS[1]]
    shard(
        tmp_path / "s-000.tar",
        [
            ("x/one.png", picture),
            ("x/one.json", {"conversations": TURNS}),
            ("x/two.png", picture),
            ("x/two.txt", b"a caption\n"),
        ],
    )
    shard(
        tmp_path / "s-001.tar",
        [
            ("three.mp4", video),
            ("three.json", {"video": "mp4", "conversations": video_turns}),
            ("four.0.png", picture),
            ("four.1.png", picture),
            ("four.json", chat({"type": "image"}, {"type": "image"})),
            ("five.png", picture),
            ("six.json", {"conversations": TURNS}),
            ("seven.json", {"image": "other.png", "conversations": TURNS}),
            ("eight.json", b"{"),
        ],
    )
    return tmp_path / "s-*.tar"


def test_tar_shards(shards):
    rows = RecordSource(str(shards), 1.0)
    assert {row.id: row.kind for row in rows.read_good_records()} == {
        "x/one": "image",
        "x/two": "image",
        "three": "video",
        "four": "image",
    }
    assert {line: reason.split(":")[0].split(" in ")[0] for line, reason in rows.bad.items()} == {
        5: "five",
        6: "six",
        7: "seven",
        8: "eight",
    }
    samples = StageDataset(stage(shards, bad_rows=1.0), 0, 32, frames=3, processor=tiny_processor())
    seen = [samples[index] for index in range(len(samples))]
    answers = {item.messages[-1]["content"][0]["text"] for item in seen}
    assert answers == {"a", "a caption"}
    collate = ChatCollator(tiny_processor())
    for start in range(0, len(seen), 4):
        assert len(collate(seen[start : start + 4])["input_ids"]) == 4
    with pytest.raises(UsageError, match="no file is named like"):
        open_table("none-*.tar")


def test_a_broken_shard(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(UsageError, match="cannot read"):
        open_table(str(tmp_path / "x.tar"))


@pytest.fixture
def table(tmp_path, picture, monkeypatch):
    import datasets

    # It sleeps for seconds at the end of every round, which twelve rows reach soon.
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.01)
    rows = [
        chat({"type": "image"}, {"type": "text", "text": f"q{number}"}, answer=f"a{number}") for number in range(12)
    ]
    rows[5]["messages"][1]["content"] = [{"type": "text", "text": ""}]
    for row in rows:  # Arrow wants one type
        for message in row["messages"]:
            if isinstance(message["content"], str):
                message["content"] = [{"type": "text", "text": message["content"]}]
        row["images"] = [{"bytes": picture, "path": None}]
    data = datasets.Dataset.from_list(rows).cast_column("images", datasets.List(datasets.Image()))
    data.to_parquet(str(tmp_path / "t.parquet"))
    data.save_to_disk(str(tmp_path / "saved"))
    return tmp_path


@pytest.mark.parametrize("name", ["t.parquet", "saved"])
@pytest.mark.parametrize("stream", [False, True])
def test_tables_and_streams(table, name, stream):
    path = table / name
    made = stage(path, {"weight": 2, "stream": stream}, bad_rows=0.3)
    samples = StageDataset(made, 0, 32, processor=tiny_processor())
    answers = [samples[index].messages[-1]["content"][0]["text"] for index in range(40)]
    assert set(answers) == {f"a{number}" for number in range(12) if number != 5}
    # Every round has every row.
    assert len(set(answers[:12])) >= 11
    again = StageDataset(made, 0, 32, processor=tiny_processor())
    for index in (30, 3, 17, 39):
        assert again[index].messages[-1]["content"][0]["text"] == answers[index], "whatever was read before"
    assert next(iter(samples.sources.values()))[0].bad


def test_a_table_is_checked(table):
    report = check_file(str(table / "t.parquet"), tiny_processor(), frames=4)
    assert (report.rows, len(report.lengths), list(report.bad)) == (12, 11, [6])


def test_only_tables_are_streamed(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps({"conversations": TURNS}))
    with pytest.raises(ConfigError, match="streamed"):
        RecordSource(str(tmp_path / "x.jsonl"), 0.1, mix=FileMix(stream=True))
    with pytest.raises(UsageError, match="cannot read"):
        open_table(str(tmp_path / "none.parquet"))


def test_every_round_has_every_row(tmp_path, picture):
    rows = [{"image": "p.png", "conversations": [TURNS[0], {"from": "gpt", "value": str(n)}]} for n in range(10)]
    (tmp_path / "r.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    samples = StageDataset(stage(tmp_path / "r.jsonl", batch_size=5), 0, 32)
    answers = [samples[index].messages[-1]["content"][0]["text"] for index in range(40)]
    for start in range(0, 40, 10):
        assert sorted(answers[start : start + 10], key=int) == [str(n) for n in range(10)]
    assert answers[:10] != answers[10:20]
    assert "lines " in samples.describe_batch(3)


def test_bad_rows_are_counted_over_workers_and_runs(tmp_path, picture):
    good = {"image": "p.png", "conversations": TURNS}
    rows = [good, {**good, "image": "gone.png"}, good, {**good, "image": "gone too.png"}, good]
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    bad_row_log, told = tmp_path / "run" / "bad_rows.jsonl", []

    def through(share):
        samples = StageDataset(
            stage(path, bad_rows=share), 0, 32, report=told.append, bad_row_log=BadRowLog(bad_row_log)
        )
        return [samples[index].messages for index in range(20)]

    through(0.4)
    assert len(told) == 2
    bad_row_log.write_text(bad_row_log.read_text() + '{"file": "cut')
    through(0.4)
    assert len(told) == 2, "another run knows them"
    bad_row_log.write_text("\n".join(bad_row_log.read_text().splitlines()[:1]) + "\n")
    with pytest.raises(ConfigError, match="2 of 5 rows are bad"):
        through(0.2)


def test_too_long_rows_are_passed_over(tmp_path, picture):
    long = {"image": "p.png", "conversations": [TURNS[0], {"from": "gpt", "value": "word " * 100}]}
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in [{"image": "p.png", "conversations": TURNS}, long]))
    told = []
    samples = StageDataset(
        stage(path, bad_rows=0.5), 0, 32, report=told.append, processor=tiny_processor(), longest=150
    )
    assert {samples[index].messages[-1]["content"][0]["text"] for index in range(20)} == {"a"}
    assert len(told) == 1 and "too long" in told[0]
