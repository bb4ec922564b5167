"""`pvc ask FILE.jsonl`: every question of a file of conversations, and whether the answer is the one it has.

Called by `ask.py`. Leaves out measuring a model on fresh samples (`pvc lab eval`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pvc import media as pvc_media
from pvc.processing.conversations import Record

if TYPE_CHECKING:
    from pvc.engine.engine import Engine
    from pvc.engine.options import MediaOptions


def answer_rows(
    engine: Engine,
    rows: Sequence[Record],
    media_options: MediaOptions,
    sampling: pvc_media.Sampling,
    said: dict[str, Any],
    json_output: bool,
) -> None:
    """Ask row by row, each a conversation of its own; one line a question."""
    right = asked = 0
    side = int(dict(engine.processor.video_processor.size)["height"])
    for row in rows:
        system = [part["text"] for part in row.messages[0]["content"] if row.messages[0]["role"] == "system"]
        chat = engine.chat("".join(system) or None)
        for place, message in enumerate(row.messages):
            if message["role"] != "user":
                continue
            paths = [part[part["type"]] for part in message["content"] if part["type"] != "text"]
            question = "".join(part["text"] for part in message["content"] if part["type"] == "text")
            chat.add([pvc_media.load(path, sampling=sampling, size=(side, side)) for path in paths], media_options)
            answer = chat.ask(question, **said).text
            expected = _expected(row, place)
            asked += expected is not None
            right += answer == expected
            _print(row, question, answer, expected, json_output)
    if asked and not json_output:
        print(f"{right} of {asked} answers are the ones in the file")


def _expected(row: Record, place: int) -> str | None:
    following = row.messages[place + 1 : place + 2]
    if not following or following[0]["role"] != "assistant":
        return None
    return "".join(part["text"] for part in following[0]["content"])


def _print(row: Record, question: str, answer: str, expected: str | None, json_output: bool) -> None:
    if json_output:
        line = {"id": row.id, "question": question, "answer": answer, "expected": expected}
        print(json.dumps(line, ensure_ascii=False), flush=True)
        return
    note = "" if expected in (None, answer) else f"  (the file has: {expected})"
    print(f"{row.id}: {question} {answer}{note}", flush=True)


def rows_file(paths: list[str], question: str | None) -> Path | None:
    """The file of conversations, when that is all there is on the command line."""
    if len(paths) == 1 and question is None and paths[0].endswith(".jsonl"):
        return Path(paths[0])
    return None


__all__ = ["answer_rows", "rows_file"]
