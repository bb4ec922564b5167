"""Questions about media, the teacher's answers to them, and batches of both for the answer loss.

Called by `setup.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from pvc.engine.engine import Engine
from pvc.errors import MismatchError, PVCError
from pvc.processing.conversations import Record
from pvc.processing.processor import PVCProcessor
from pvc.train.data.collate import IGNORED, MEDIA, ChatCollator, Example, encode, pack_rows
from pvc.train.distill.answers import MARKS
from pvc.train.distill.media import MediaDataset
from pvc.train.distill.teacher import PIXELS, TEACHER, run_teacher, teacher_text
from pvc.train.distill.teacher_cache import STORED, CacheKey, TeacherCache, TeacherOutputs, stored_nbytes
from pvc.train.json_lines import append_json_line, read_json_lines
from pvc.train.stage_log import Report

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
REPORT_EVERY = 500
Key = tuple[str, str]


class AnswerLog:
    """The teacher's answers by medium and question, in a text file that a later run of the same training reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[Key, str] = {}
        for entry in read_json_lines(path):
            self.known[entry["medium"], entry["question"]] = entry["answer"]

    def add(self, key: Key, answer: str) -> None:
        """Keep an answer."""
        self.known[key] = answer
        append_json_line(self.path, {"medium": key[0], "question": key[1], "answer": answer})


class _Skipped(Exception):
    """A sample need not be read: what is wanted of it is known."""


class AnswerDataset(MediaDataset):
    """Samples of a stage of kind distill: a medium, a question about it, and the teacher's answer.

    Args, beside those of `StageDataset`:
        answers: of the teacher.
        teacher: its processor.
    """

    def __init__(self, *args: Any, answers: AnswerLog, teacher: PVCProcessor, **kwargs: Any) -> None:
        self.answers, self.teacher = answers, teacher
        self.cache: TeacherCache | None = None
        self._visit: Callable[[CacheKey, Sequence[dict[str, Any]]], None] | None = None
        self._encode: Callable[[Example], dict[str, torch.Tensor]] = self._encode_pair
        self._key: CacheKey = "", "", 0
        self._frames = 0
        super().__init__(*args, **kwargs)

    def _row(self, kind: str, place: int, index: int, frames: int) -> Example:
        self._frames = frames
        return super()._row(kind, place, index, frames)

    def _messages(self, row: Record, index: int) -> Sequence[dict[str, Any]]:
        shown = [part for message in row.messages for part in message["content"] if part["type"] != "text"]
        questions = QUESTIONS[row.kind]
        question = questions[int(np.random.default_rng((self.seed, 4, index)).integers(len(questions)))]
        path = shown[0][shown[0]["type"]]
        is_file = len(shown) == 1 and isinstance(path, (str, Path))
        medium = str(path) if is_file else f"{row.id}, line {row.line}"
        self._key = medium, question, self._frames if row.kind == "video" else 0
        asked = [{"role": "user", "content": [*shown, {"type": "text", "text": question}]}]
        if self._visit is not None:
            self._visit(self._key, asked)
        answer = self.answers.known.get((medium, question))
        if answer is None:
            return asked
        if not answer:
            raise PVCError(NO_ANSWER)
        return [*asked, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]

    def _encoded(self, item: Example) -> dict[str, torch.Tensor]:
        assert self.processor is not None
        return self._encode(item)

    def _encode_pair(self, item: Example) -> dict[str, torch.Tensor]:
        return encode_pair(cast(PVCProcessor, self.processor), self.teacher, item)

    def _encode_stored(self, item: Example) -> dict[str, torch.Tensor]:
        assert self.cache is not None
        return encode_stored(cast(PVCProcessor, self.processor), item, self.cache.get(self._key))

    def _go_through(
        self,
        encode_item: Callable[[Example], dict[str, torch.Tensor]],
        visit: Callable[[CacheKey, Sequence[dict[str, Any]]], None],
    ) -> None:
        """Read all samples of the stage with other functions than in training."""
        before = self._encode
        self._encode, self._visit = encode_item, visit
        try:
            for index in range(len(self)):
                try:
                    self[index]
                except _Skipped:
                    continue
        finally:
            self._encode, self._visit = before, None

    def ask_teacher(self, engine: Callable[[], Engine], report: Report) -> None:
        """Let the teacher answer all questions of the stage that it has not answered before, greedily."""

        def ask(item: Example) -> dict[str, torch.Tensor]:
            media = [part[part["type"]] for part in item.messages[0]["content"] if part["type"] != "text"]
            response = engine().chat().ask(self._key[1], media=media, max_new_tokens=MAX_NEW_TOKENS, temperature=0)
            answer = response.text.strip()
            self.answers.add(self._key[:2], answer)
            if not answer:
                raise PVCError(NO_ANSWER)
            return {}

        def visit(key: CacheKey, messages: Sequence[dict[str, Any]]) -> None:
            if key[:2] in self.answers.known:
                raise _Skipped

        before = len(self.answers.known)
        self._go_through(ask, visit)
        count = len(self.answers.known) - before
        report(f"{self.stage.name}: {count} new answers of the teacher in {self.answers.path}")

    def missing_outputs(self, cache: TeacherCache) -> tuple[int, int]:
        """Count samples whose outputs are not in the cache yet, and their bytes, at most. No medium is opened."""
        seen: set[CacheKey] = set()
        nbytes = 0

        def visit(key: CacheKey, messages: Sequence[dict[str, Any]]) -> None:
            nonlocal nbytes
            answer = self.answers.known.get(key[:2], "")
            if answer and key not in cache and key not in seen:
                seen.add(key)
                said = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
                text = [{"role": "user", "content": [messages[0]["content"][-1]]}, said]
                labels = encode(self.teacher, Example(text, 1))["labels"]
                nbytes += stored_nbytes(int((labels != IGNORED).sum()), labels.numel(), cache.width, cache.top)
            if answer:
                raise _Skipped

        self._go_through(self._encode_pair, visit)
        return len(seen), nbytes

    def store_outputs(
        self, cache: TeacherCache, engine: Callable[[], Engine], collator: AnswerCollator, report: Report
    ) -> None:
        """Run the teacher once for every sample that is not in the cache."""
        reported = len(cache.places)

        def visit(key: CacheKey, messages: Sequence[dict[str, Any]]) -> None:
            if key in cache:
                raise _Skipped

        def store(item: Example) -> dict[str, torch.Tensor]:
            nonlocal reported
            model = engine().model
            batch = collator([replace(item, encoded=self._encode_pair(item))])
            moved = {name: value.to(model.device) for name, value in batch.items()}
            media = {name: moved.get(name) for name in PIXELS}
            cache.add(self._key, TeacherOutputs.from_run(*run_teacher(model, media, teacher_text(moved))))
            if len(cache.places) >= reported + REPORT_EVERY:
                reported = len(cache.places)
                report(f"{self.stage.name}: outputs of the teacher: {reported} samples")
            return {}

        self._go_through(store, visit)
        mib = cache.nbytes / 2**20
        report(f"{self.stage.name}: outputs of the teacher: {len(cache.places)} samples, {mib:,.1f} MiB stored")

    def use_cache(self, cache: TeacherCache) -> None:
        """Take the outputs of the teacher from `cache` instead of encoding its text."""
        self.cache, self._encode = cache, self._encode_stored


def encode_pair(student: PVCProcessor, teacher: PVCProcessor, item: Example) -> dict[str, torch.Tensor]:
    """Encode a conversation for the student, and its text for the teacher under names with "teacher_" before them.

    `answer` and `after` mark the positions that are compared; there are equally many on both sides.

    Raises:
        MismatchError: there are not: the two processors write the text in different ways.
    """
    ours = encode(student, item)
    theirs = encode(teacher, Example(item.messages, 1, step_offset=item.step_offset))
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


def encode_stored(student: PVCProcessor, item: Example, outputs: TeacherOutputs) -> dict[str, torch.Tensor]:
    """Encode a conversation for the student, beside stored outputs of the teacher.

    Raises:
        MismatchError: the outputs are for another number of positions.
    """
    ours = encode(student, item)
    sample = {**ours, **_marks(ours, student)}
    for name, count in (("answer", len(outputs.indices)), ("after", len(outputs.hidden))):
        if int(sample[name].sum()) != count:
            raise MismatchError(
                f"{int(sample[name].sum())} positions ({name}) of the student are compared with {count} stored ones of "
                "the teacher; the data have changed, or both have different chat templates; start in another directory"
            )
    return {**sample, **outputs.named()}


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

    def __call__(self, items: Sequence[Example]) -> dict[str, torch.Tensor]:
        samples = [dict(item.encoded or {}) for item in items]
        texts = [[value for name, value in sample.items() if name.endswith("input_ids")] for sample in samples]
        lengths = [max(ids.shape[1] for ids in both) for both in texts]
        places = [[n] for n in range(len(samples))] if self.pack is None else pack_rows(lengths, self.pack)
        numbers = iter(range(1, len(samples) + 1))
        rows = [[self._numbered(samples[place], next(numbers)) for place in row] for row in places]
        batch = self.ours.rows(rows, extra=MARKS)
        if "teacher_hidden" in samples[0]:
            for key in STORED:
                batch[key] = torch.cat([sample[key] for row in rows for sample in row])
        else:
            theirs = [[_teacher_text(sample) for sample in row] for row in rows]
            texts_in_rows = self.theirs.rows(theirs, extra=MARKS)
            batch |= {f"{TEACHER}{name}": value for name, value in texts_in_rows.items()}
        for name in ("labels", "teacher_labels"):
            batch.pop(name, None)
        for key in MEDIA:
            if parts := [sample[key] for row in rows for sample in row if key in sample]:
                batch[key] = torch.cat(parts)
        return batch

    @staticmethod
    def _numbered(sample: dict[str, torch.Tensor], number: int) -> dict[str, torch.Tensor]:
        names = [f"{prefix}{name}" for prefix in ("", TEACHER) for name in MARKS]
        return {**sample, **{name: sample[name] * number for name in names if name in sample}}


def _teacher_text(sample: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(TEACHER): value for name, value in sample.items() if name.startswith(TEACHER)}


def first_batches(samples: AnswerDataset, collator: AnswerCollator, count: int) -> Iterator[dict[str, torch.Tensor]]:
    """The first samples of a stage, one by one."""
    return (collator([samples[place]]) for place in range(min(count, len(samples))))


__all__ = ["QUESTIONS", "AnswerCollator", "AnswerDataset", "AnswerLog", "encode_pair", "first_batches"]
