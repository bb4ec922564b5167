"""Questions about media, the teacher's answers to them, and batches of both for the answer loss.

Called by `setup.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pvc.engine.engine import Engine
from pvc.errors import MismatchError, PVCError
from pvc.processing.processor import PVCProcessor
from pvc.processing.rows import Row
from pvc.train.collate import IGNORED, MEDIA, ChatCollator, Item, bins, encode
from pvc.train.distill.answers import MARKS, TEACHER
from pvc.train.distill.media import MediaSamples

QUESTIONS = {
    "image": (
        "Describe this picture in detail.",
        "What text can be read in this picture?",
        "How many objects of each kind are there?",
        "Which colours are there, and what has them?",
        "Where are the main objects?",
        "What is in the background?",
    ),
    "video": (
        "Describe this video in detail.",
        "What happens in this video, in order?",
        "What changes between the beginning and the end?",
        "What text can be read in this video?",
        "How many objects of each kind are there?",
        "Which way do things move?",
    ),
}
MAX_NEW_TOKENS = 96
NO_ANSWER = "the teacher has no answer"
Key = tuple[str, str]


class Answers:
    """The teacher's answers by medium and question, in a text file that a later run of the same training reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[Key, str] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                entry = json.loads(line)
            except ValueError:  # killed while writing it
                continue
            self.known[entry["medium"], entry["question"]] = entry["answer"]

    def add(self, key: Key, answer: str) -> None:
        """Keep an answer."""
        self.known[key] = answer
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"medium": key[0], "question": key[1], "answer": answer}) + "\n")


class _Known(Exception):
    """The answer that is asked for is there."""


class AnswerSamples(MediaSamples):
    """Samples of a stage of kind distill: a medium, a question about it, and the teacher's answer.

    Args, beside those of `StageSamples`:
        answers: of the teacher. teacher: its processor.
    """

    def __init__(self, *args: Any, answers: Answers, teacher: PVCProcessor, **kwargs: Any) -> None:
        self.answers, self.teacher = answers, teacher
        self.asked: Callable[[Sequence[Any], str], str] | None = None
        self._key: Key = "", ""
        super().__init__(*args, **kwargs)

    def _messages(self, row: Row, index: int) -> Sequence[dict[str, Any]]:
        shown = [part for message in row.messages for part in message["content"] if part["type"] != "text"]
        questions = QUESTIONS[row.kind]
        question = questions[int(np.random.default_rng((self.seed, 4, index)).integers(len(questions)))]
        path = shown[0][shown[0]["type"]]
        is_file = len(shown) == 1 and isinstance(path, (str, Path))
        self._key = str(path) if is_file else f"{row.id}, line {row.line}", question
        if self.asked is not None:
            if self._key in self.answers.known:
                raise _Known
            return [{"role": "user", "content": shown}]
        answer = self.answers.known.get(self._key, "")
        if not answer:
            raise PVCError(NO_ANSWER)
        text = [{"type": "text", "text": question}]
        said = [{"type": "text", "text": answer}]
        return [{"role": "user", "content": [*shown, *text]}, {"role": "assistant", "content": said}]

    def _encoded(self, item: Item) -> dict[str, torch.Tensor]:
        assert self.processor is not None
        if self.asked is not None:
            media = [part[part["type"]] for part in item.messages[0]["content"]]
            answer = self.asked(media, self._key[1]).strip()
            self.answers.add(self._key, answer)
            if not answer:
                raise PVCError(NO_ANSWER)
            return {}
        return encode_pair(self.processor, self.teacher, item)

    def ask_teacher(self, engine: Engine, report: Callable[[str], None]) -> None:
        """Let the teacher answer all questions of the stage that it has not answered before, greedily."""

        def ask(media: Sequence[Any], question: str) -> str:
            return engine.chat().ask(question, media=media, max_new_tokens=MAX_NEW_TOKENS, temperature=0).text

        before, self.asked = len(self.answers.known), ask
        try:
            for index in range(len(self)):
                try:
                    self[index]
                except _Known:
                    continue
        finally:
            self.asked = None
        report(
            f"{self.stage.name}: {len(self.answers.known) - before} new answers of the teacher in {self.answers.path}"
        )


def encode_pair(student: PVCProcessor, teacher: PVCProcessor, item: Item) -> dict[str, torch.Tensor]:
    """Encode a conversation for the student, and its text for the teacher under names with "teacher_" before them.

    `answer` and `after` mark the positions that are compared; there are equally many on both sides.

    Raises:
        MismatchError: there are not: the two processors write the text in different ways.
    """
    ours = encode(student, item)
    theirs = encode(teacher, Item(item.messages, 1, step_offset=item.step_offset))
    sample: dict[str, torch.Tensor] = {**ours, **_marks(ours, student)}
    marked = _marks(theirs, teacher)
    for name in MARKS:
        counts = int(sample[name].sum()), int(marked[name].sum())
        if counts[0] != counts[1]:
            raise MismatchError(
                f"{counts[0]} positions ({name}) of the student are compared with {counts[1]} of the teacher; both "
                "need the same chat template and tokenizer"
            )
    text: dict[str, torch.Tensor] = dict(marked)
    text |= {name: theirs[name] for name in ("input_ids", "attention_mask", "labels") if name in theirs}
    return {**sample, **{f"{TEACHER}{name}": value for name, value in text.items()}}


def _marks(encoded: dict[str, torch.Tensor], processor: PVCProcessor) -> dict[str, torch.Tensor]:
    """Where a position predicts a token of the answer, and where text comes after all media: `(1, Q)` of 0 and 1."""
    ids, labels = encoded["input_ids"], encoded["labels"]
    learned = (labels != IGNORED).long()
    visual = ((ids == processor.image_token_id) | (ids == processor.video_token_id)).long()
    after = visual.flip(-1).cumsum(-1).flip(-1) == 0
    return {"answer": _earlier(learned), "after": after.long()}


def _earlier(marks: torch.Tensor) -> torch.Tensor:
    """Move `(1, Q)` marks one position to the front: a token is predicted by the position before it."""
    return torch.cat((marks[:, 1:], torch.zeros_like(marks[:, :1])), 1)


class AnswerCollator:
    """Samples of `encode_pair` to a batch, padded or packed; both texts lie in the same rows."""

    def __init__(self, processor: PVCProcessor, teacher: PVCProcessor, pack: int | None = None) -> None:
        self.pack = pack
        self.ours, self.theirs = ChatCollator(processor, pack), ChatCollator(teacher, pack)

    def __call__(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        samples = [dict(item.encoded or {}) for item in items]
        lengths = [max(sample["input_ids"].shape[1], sample["teacher_input_ids"].shape[1]) for sample in samples]
        places = [[n] for n in range(len(samples))] if self.pack is None else bins(lengths, self.pack)
        numbers = iter(range(1, len(samples) + 1))
        rows = [[self._numbered(samples[place], next(numbers)) for place in row] for row in places]
        teacher_rows = [
            [
                {name.removeprefix(TEACHER): value for name, value in sample.items() if name.startswith(TEACHER)}
                for sample in row
            ]
            for row in rows
        ]
        batch = self.ours.rows(rows, extra=MARKS)
        theirs = self.theirs.rows(teacher_rows, extra=MARKS)
        batch |= {f"{TEACHER}{name}": value for name, value in theirs.items()}
        for name in ("labels", "teacher_labels"):
            batch.pop(name)
        for key in MEDIA:
            if parts := [sample[key] for row in rows for sample in row if key in sample]:
                batch[key] = torch.cat(parts)
        return batch

    @staticmethod
    def _numbered(sample: dict[str, torch.Tensor], number: int) -> dict[str, torch.Tensor]:
        names = [f"{prefix}{name}" for prefix in ("", TEACHER) for name in MARKS]
        return {**sample, **{name: sample[name] * number for name in names}}


def first_batches(samples: AnswerSamples, collator: AnswerCollator, count: int) -> Iterator[dict[str, torch.Tensor]]:
    """The first samples of a stage, one by one."""
    return (collator([samples[place]]) for place in range(min(count, len(samples))))


__all__ = ["QUESTIONS", "AnswerCollator", "AnswerSamples", "Answers", "encode_pair", "first_batches"]
