"""Files match their records, in the conversation form; writing resumes; records of other samples are rejected."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pvc.cli.main import main
from pvc.errors import UsageError
from pvc.lab.synthetic import TASKS, Sample, make, messages_of, write_dataset
from pvc.media import load_video
from pvc.media.sampling import Sampling
from pvc.processing.conversations import read_records

ALL_FRAMES = Sampling(fps=1000)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _check(row: dict[str, Any], sample: Sample, folder: Path) -> None:
    prompts, answers = row["conversations"][::2], row["conversations"][1::2]
    turns = [(sample.media, sample.question, sample.answer), *(((), *pair) for pair in sample.more)]
    turns += [(turn.media, turn.question, turn.answer) for turn in sample.turns]
    assert answers == [{"from": "gpt", "value": answer} for _, _, answer in turns]
    marked = ["".join(f"<{medium.kind}>\n" for medium in media) + question for media, question, _ in turns]
    assert prompts == [{"from": "human", "value": value} for value in marked]
    for kind in ("image", "video"):
        media = [medium for medium in sample.all_media if medium.kind == kind]
        assert (kind in row) == bool(media)
        files = [row[kind]] if isinstance(row.get(kind), str) else row.get(kind, [])
        assert len(set(files)) == len(files)
        for file, medium in zip(files, media, strict=True):
            if kind == "image":
                assert np.array_equal(np.asarray(Image.open(folder / file).convert("RGB")), medium.frames[0])
            else:
                video = load_video(folder / file, ALL_FRAMES)
                assert len(video.frames) == len(medium.frames)
                assert np.allclose(video.timestamps, medium.timestamps, atol=1e-3)
                assert np.abs(video.frames.astype(int) - medium.frames.astype(int)).mean() < 12


@pytest.mark.parametrize("task", [task for task in TASKS if task != "long"])
def test_files_match_their_records(tmp_path: Path, task: str) -> None:
    level = None if TASKS[task].pages else 2
    path = write_dataset(tmp_path / "set", task, 2, 4, "test", 64, level=2)
    rows = _rows(path)
    assert len({row["id"] for row in rows}) == 2
    for i, row in enumerate(rows):
        sample = make(task, 4 + i, split="test", level=level)
        for later in range(1, 100):
            if all(medium.timestamps[:1] in ((), (0.0,)) for medium in sample.all_media):
                break
            sample = make(task, 4 + i + 1_000_003 * later, split="test", level=level)
        assert (row["task"], row["level"], row["split"]) == (task, level or 1, "test")
        _check(row, sample, path.parent)
    for row, read in zip(rows, read_records(path), strict=True):
        assert read.id == row["id"] and read.kind == TASKS[task].kind
        assert len(read.messages) == len(row["conversations"])


def _form(messages: Sequence[dict[str, Any]], media: Callable[[Any], object]) -> list[tuple[str, list[object]]]:
    """Return messages as roles with their texts and media."""
    form = []
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        form.append((message["role"], [part.get("text") or media(part) for part in parts]))
    return form


@pytest.mark.parametrize("task", ["outside", "album", "reels", "screen", "captions"])
def test_records_are_read_back_to_the_same_conversation(tmp_path: Path, task: str) -> None:
    """The media are in the same turns, for any number of turns and media, also none."""
    path = write_dataset(tmp_path, task, 12, 0)
    rows, shapes = read_records(path), set()
    for seed, row in enumerate(rows):
        sample = make(task, seed)
        assert sample.all_media == () or sample.all_media[0].timestamps[:1] in ((), (0.0,))

        def size_of(part: dict[str, Any]) -> tuple[str, int, int, int]:
            if part["type"] == "image":
                return ("image", 1, *Image.open(part["image"]).size)
            video = load_video(part["video"], ALL_FRAMES)
            return ("video", len(video.frames), video.frames.shape[2], video.frames.shape[1])

        def drawn_size(part: dict[str, Any]) -> tuple[str, int, int, int]:
            if part["type"] == "image":
                return ("image", 1, part["image"].shape[1], part["image"].shape[0])
            return ("video", len(part["video"].frames), part["video"].frames.shape[2], part["video"].frames.shape[1])

        assert _form(row.messages, size_of) == _form(messages_of(sample), drawn_size)
        shapes.add((len(sample.media), len(sample.turns) > 0, any(turn.media for turn in sample.turns)))
    if task in ("album", "reels"):
        assert {(1, True, True), (2, True, False)} <= shapes
    if task == "outside":
        assert {(0, False, False), (1, False, False)} == shapes


def test_interrupted_writing_resumes(tmp_path: Path) -> None:
    whole = write_dataset(tmp_path / "whole", ["read", "shape"], 4, 0).read_text(encoding="utf-8")

    def stop(done: int, of: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "parts", ["read", "shape"], 4, 0, report=stop)
    part = tmp_path / "parts" / "data.jsonl.part"
    assert not (tmp_path / "parts" / "data.jsonl").exists()
    part.write_text(part.read_text(encoding="utf-8")[:-20], encoding="utf-8")  # the last record is incomplete
    seen: list[int] = []
    path = write_dataset(tmp_path / "parts", ["read", "shape"], 4, 0, report=lambda done, of: seen.append(done))
    assert path.read_text(encoding="utf-8") == whole and seen[0] == 4 and not part.exists()
    again = write_dataset(tmp_path / "parts", ["read", "shape"], 5, 0)
    assert again.read_text(encoding="utf-8").startswith(whole) and len(_rows(again)) == 10


def test_records_of_other_samples_are_rejected(tmp_path: Path) -> None:
    path = write_dataset(tmp_path, "read", 2, 0)
    before = path.read_text(encoding="utf-8")
    for options in ({"level": 1}, {"split": "test"}, {"seed": 7}, {"size": 96}):
        with pytest.raises(UsageError, match="other rows"):
            write_dataset(tmp_path, "read", 2, **{"seed": 0, **options})  # type: ignore[arg-type]
        assert path.read_text(encoding="utf-8") == before
    write_dataset(tmp_path, "read", 1, 7, force=True)
    assert [row["id"] for row in _rows(path)] == ["read-train-00000007"]
    path.write_text("no rows\n", encoding="utf-8")
    with pytest.raises(UsageError, match="other rows"):
        write_dataset(tmp_path, "read", 2, 0)


def test_the_command_writes_and_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "synth", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed and task.levels and task.levels in listed for name, task in TASKS.items())
    words = ["lab", "synth", "--task", "read", "--task", "match", "--count", "2", "--level", "1", "--split", "layouts"]
    words += ["--size", "96", "--frames", "6"]
    assert main([*words, str(tmp_path / "a")]) == 0
    rows = _rows(tmp_path / "a" / "data.jsonl")
    assert [row["task"] for row in rows] == ["read", "match"] * 2
    assert Image.open(tmp_path / "a" / rows[0]["image"]).size == (96, 96)
    assert len(load_video(tmp_path / "a" / rows[1]["video"], ALL_FRAMES).frames) == 6
    captured = capsys.readouterr()
    assert captured.out.strip().endswith("data.jsonl") and captured.err == ""


@pytest.mark.parametrize(
    "words",
    [
        "synth",
        "synth --task poem DIR",
        "synth --split dev --task read DIR",
        "synth --level 5 --task read DIR",
        "synth --tiles 3 --task page DIR",
        "synth --tiles 2 --task shape DIR",
        "synth --size 60 --task read DIR",
    ],
)
def test_invalid_arguments_are_rejected(tmp_path: Path, words: str) -> None:
    assert main(words.replace("DIR", str(tmp_path / "b")).split()) == 2


def test_the_documentation_has_every_task() -> None:
    text = (Path(__file__).parents[3] / "docs" / "synthetic.md").read_text(encoding="utf-8")
    for name, task in TASKS.items():
        kind = "picture" if task.kind == "image" else "clip"
        tail = "" if task.pages else f" {task.levels} | {'yes' if task.tiles else ''} |"
        assert f"| `{name}` | {kind} | {task.summary} |{tail}\n" in text
