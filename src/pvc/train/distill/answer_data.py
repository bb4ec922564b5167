"""Questions about media, the teacher's answers to them, and batches of both for the answer loss.

Called by `setup.py`.

Q tokens of an example.
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
from pvc.train.distill.teacher import PIXELS, TEACHER, get_teacher_text, run_teacher
from pvc.train.distill.teacher_cache import STORED, CacheKey, TeacherCache, TeacherOutputs, compute_stored_nbytes
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
REPORT_EVERY = 500  # examples
AnswerKey = tuple[str, str]  # medium and question


class AnswerLog:
    """The teacher's answers by medium and question, in a file that a later run of the same training reads.

    Args:
        path: JSON lines with `medium`, `question` and `answer`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[AnswerKey, str] = {}
        for entry in read_json_lines(path):
            self.answers[entry["medium"], entry["question"]] = entry["answer"]

    def add(self, key: AnswerKey, answer: str) -> None:
        """Log an answer.

        Args:
            key: medium and question.
            answer: of the teacher; "" if it has none.
        """
        self.answers[key] = answer
        append_json_line(self.path, {"medium": key[0], "question": key[1], "answer": answer})


class _Skipped(Exception):
    """An example need not be read, because its result is known."""


class AnswerDataset(MediaDataset):
    """Examples of a stage of kind distill: a medium, a question about it, and the teacher's answer.

    Args:
        *args: of `StageDataset`.
        answers: of the teacher.
        teacher: processor of the teacher.
        **kwargs: of `StageDataset`.
    """

    def __init__(self, *args: Any, answers: AnswerLog, teacher: PVCProcessor, **kwargs: Any) -> None:
        self.answer_log, self.teacher = answers, teacher
        self.cache: TeacherCache | None = None
        self._visit: Callable[[CacheKey, Sequence[dict[str, Any]]], None] | None = None
        self._encode_example: Callable[[Example], dict[str, torch.Tensor]] = self._encode_pair
        self._key: CacheKey = "", "", 0
        self._frames = 0
        super().__init__(*args, **kwargs)

    def _read_example(self, kind: str, position: int, index: int, frames: int) -> Example:
        self._frames = frames
        return super()._read_example(kind, position, index, frames)

    def _build_messages(self, record: Record, index: int) -> Sequence[dict[str, Any]]:
        media = [part for message in record.messages for part in message["content"] if part["type"] != "text"]
        questions = QUESTIONS[record.kind]
        question = questions[int(np.random.default_rng((self.seed, 4, index)).integers(len(questions)))]
        path = media[0][media[0]["type"]]
        is_file = len(media) == 1 and isinstance(path, (str, Path))
        medium = str(path) if is_file else f"{record.id}, line {record.line}"
        self._key = medium, question, self._frames if record.kind == "video" else 0
        messages = [{"role": "user", "content": [*media, {"type": "text", "text": question}]}]
        if self._visit is not None:
            self._visit(self._key, messages)
        answer = self.answer_log.answers.get((medium, question))
        if answer is None:
            return messages
        if not answer:
            raise PVCError(NO_ANSWER)
        return [*messages, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]

    def _encode(self, example: Example) -> dict[str, torch.Tensor]:
        assert self.processor is not None
        return self._encode_example(example)

    def _encode_pair(self, example: Example) -> dict[str, torch.Tensor]:
        return encode_pair(cast(PVCProcessor, self.processor), self.teacher, example)

    def _encode_stored(self, example: Example) -> dict[str, torch.Tensor]:
        assert self.cache is not None
        return encode_stored(cast(PVCProcessor, self.processor), example, self.cache.get(self._key))

    def _visit_examples(
        self,
        encode_example: Callable[[Example], dict[str, torch.Tensor]],
        visit: Callable[[CacheKey, Sequence[dict[str, Any]]], None],
    ) -> None:
        """Read all examples of the stage with functions other than in training.

        Args:
            encode_example: replaces the encoding.
            visit: gets the key and the question of every example before its media are opened; `_Skipped` skips it.
        """
        original = self._encode_example
        self._encode_example, self._visit = encode_example, visit
        try:
            for index in range(len(self)):
                try:
                    self[index]
                except _Skipped:
                    continue
        finally:
            self._encode_example, self._visit = original, None

    def ask_teacher(self, engine: Callable[[], Engine], report: Report) -> None:
        """Generate the teacher's missing answers to all questions of the stage, greedily.

        Args:
            engine: returns the loaded teacher.
            report: gets a line with the number of new answers.
        """

        def ask(example: Example) -> dict[str, torch.Tensor]:
            media = [part[part["type"]] for part in example.messages[0]["content"] if part["type"] != "text"]
            response = engine().chat().ask(self._key[1], media=media, max_new_tokens=MAX_NEW_TOKENS, temperature=0)
            answer = response.text.strip()
            self.answer_log.add(self._key[:2], answer)
            if not answer:
                raise PVCError(NO_ANSWER)
            return {}

        def visit(key: CacheKey, messages: Sequence[dict[str, Any]]) -> None:
            if key[:2] in self.answer_log.answers:
                raise _Skipped

        previous = len(self.answer_log.answers)
        self._visit_examples(ask, visit)
        count = len(self.answer_log.answers) - previous
        report(f"{self.stage.name}: {count} new answers of the teacher in {self.answer_log.path}")

    def count_missing_outputs(self, cache: TeacherCache) -> tuple[int, int]:
        """Return the number of examples whose outputs are not in the cache, and their maximum bytes; open no medium."""
        missing: set[CacheKey] = set()
        nbytes = 0

        def visit(key: CacheKey, messages: Sequence[dict[str, Any]]) -> None:
            nonlocal nbytes
            answer = self.answer_log.answers.get(key[:2], "")
            if answer and key not in cache and key not in missing:
                missing.add(key)
                reply = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
                text = [{"role": "user", "content": [messages[0]["content"][-1]]}, reply]
                labels = encode(self.teacher, Example(text, 1))["labels"]
                nbytes += compute_stored_nbytes(int((labels != IGNORED).sum()), labels.numel(), cache.width, cache.top)
            if answer:
                raise _Skipped

        self._visit_examples(self._encode_pair, visit)
        return len(missing), nbytes

    def store_outputs(
        self, cache: TeacherCache, engine: Callable[[], Engine], collator: AnswerCollator, report: Report
    ) -> None:
        """Run the teacher once for every example that is not in the cache.

        Args:
            cache: gets the outputs.
            engine: returns the loaded teacher.
            collator: for single examples.
            report: gets lines about the progress.
        """
        num_reported = len(cache.entries)

        def visit(key: CacheKey, messages: Sequence[dict[str, Any]]) -> None:
            if key in cache:
                raise _Skipped

        def store(example: Example) -> dict[str, torch.Tensor]:
            nonlocal num_reported
            model = engine().model
            batch = collator([replace(example, encoded=self._encode_pair(example))])
            inputs = {name: value.to(model.device) for name, value in batch.items()}
            media = {name: inputs.get(name) for name in PIXELS}
            cache.add(self._key, TeacherOutputs.from_run(*run_teacher(model, media, get_teacher_text(inputs))))
            if len(cache.entries) >= num_reported + REPORT_EVERY:
                num_reported = len(cache.entries)
                report(f"{self.stage.name}: outputs of the teacher: {num_reported} samples")
            return {}

        self._visit_examples(store, visit)
        mib = cache.nbytes / 2**20
        report(f"{self.stage.name}: outputs of the teacher: {len(cache.entries)} samples, {mib:,.1f} MiB stored")

    def use_cache(self, cache: TeacherCache) -> None:
        """Use stored outputs of the teacher instead of encoding its text."""
        self.cache, self._encode_example = cache, self._encode_stored


def encode_pair(student: PVCProcessor, teacher: PVCProcessor, example: Example) -> dict[str, torch.Tensor]:
    """Encode a conversation for the student and for the teacher.

    `answer` and `after` mark the positions that are compared; their numbers are equal on both sides.

    Args:
        student: processor.
        teacher: processor.
        example: with decoded media.

    Returns:
        Inputs of the student, and the teacher's text inputs with the prefix "teacher_".

    Raises:
        MismatchError: the numbers differ, because the two processors write the text in different ways.
    """
    encoded = encode(student, example)
    teacher_encoded = encode(teacher, Example(example.messages, 1, step_offset=example.step_offset))
    sample: dict[str, torch.Tensor] = {**encoded, **_mark_positions(encoded, student)}
    teacher_marks = _mark_positions(teacher_encoded, teacher)
    for name in MARKS:
        counts = int(sample[name].sum()), int(teacher_marks[name].sum())
        if counts[0] != counts[1]:
            raise MismatchError(
                f"{counts[0]} positions ({name}) of the student are compared with {counts[1]} of the teacher; both "
                "need the same chat template and tokenizer"
            )
    text: dict[str, torch.Tensor] = dict(teacher_marks)
    names = ("input_ids", "attention_mask", "labels")
    text |= {name: teacher_encoded[name] for name in names if name in teacher_encoded}
    return {**sample, **{f"{TEACHER}{name}": value for name, value in text.items()}}


def encode_stored(student: PVCProcessor, example: Example, outputs: TeacherOutputs) -> dict[str, torch.Tensor]:
    """Encode a conversation for the student, and add stored outputs of the teacher.

    Args:
        student: processor.
        example: with decoded media.
        outputs: of the teacher, for this example.

    Raises:
        MismatchError: the outputs are for another number of positions.
    """
    encoded = encode(student, example)
    sample = {**encoded, **_mark_positions(encoded, student)}
    for name, count in (("answer", len(outputs.indices)), ("after", len(outputs.hidden))):
        if int(sample[name].sum()) != count:
            raise MismatchError(
                f"{int(sample[name].sum())} positions ({name}) of the student are compared with {count} stored ones of "
                "the teacher; the data have changed, or both have different chat templates; start in another directory"
            )
    return {**sample, **outputs.get_batch()}


def _mark_positions(encoded: dict[str, torch.Tensor], processor: PVCProcessor) -> dict[str, torch.Tensor]:
    """Mark positions that predict a token of the answer, and positions of text after all media: `(1, Q)` of 0 and 1."""
    ids, labels = encoded["input_ids"], encoded["labels"]
    has_loss = (labels != IGNORED).long()
    visual = ((ids == processor.image_token_id) | (ids == processor.video_token_id)).long()
    after = visual.flip(-1).cumsum(-1).flip(-1) == 0
    return {"answer": _shift_left(has_loss), "after": after.long()}


def _shift_left(marks: torch.Tensor) -> torch.Tensor:
    """Shift `(1, Q)` marks one position to the left: a token is predicted by the position before it."""
    return torch.cat((marks[:, 1:], torch.zeros_like(marks[:, :1])), 1)


class AnswerCollator:
    """Collate examples of `encode_pair` or `encode_stored`, padded or packed; both texts are in the same rows.

    Args:
        processor: of the student.
        teacher: processor of the teacher.
        pack: maximum number of tokens of a packed row.
    """

    def __init__(self, processor: PVCProcessor, teacher: PVCProcessor, pack: int | None = None) -> None:
        self.pack = pack
        self.student_collator, self.teacher_collator = ChatCollator(processor, pack), ChatCollator(teacher, pack)

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return the inputs of `AnswerDistiller.forward`."""
        encoded = [dict(example.encoded or {}) for example in examples]
        texts = [[value for name, value in sample.items() if name.endswith("input_ids")] for sample in encoded]
        lengths = [max(ids.shape[1] for ids in both) for both in texts]
        row_indices = [[n] for n in range(len(encoded))] if self.pack is None else pack_rows(lengths, self.pack)
        numbers = iter(range(1, len(encoded) + 1))
        rows = [[self._number_marks(encoded[index], next(numbers)) for index in row] for row in row_indices]
        batch = self.student_collator.collate_text(rows, extra=MARKS)
        if "teacher_hidden" in encoded[0]:
            for key in STORED:
                batch[key] = torch.cat([sample[key] for row in rows for sample in row])
        else:
            teacher_rows = [[_select_teacher_text(sample) for sample in row] for row in rows]
            teacher_batch = self.teacher_collator.collate_text(teacher_rows, extra=MARKS)
            batch |= {f"{TEACHER}{name}": value for name, value in teacher_batch.items()}
        for name in ("labels", "teacher_labels"):
            batch.pop(name, None)
        for key in MEDIA:
            if parts := [sample[key] for row in rows for sample in row if key in sample]:
                batch[key] = torch.cat(parts)
        return batch

    @staticmethod
    def _number_marks(sample: dict[str, torch.Tensor], number: int) -> dict[str, torch.Tensor]:
        """Replace marks of 1 by the number of the example."""
        names = [f"{prefix}{name}" for prefix in ("", TEACHER) for name in MARKS]
        return {**sample, **{name: sample[name] * number for name in names if name in sample}}


def _select_teacher_text(sample: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(TEACHER): value for name, value in sample.items() if name.startswith(TEACHER)}


def iterate_first_batches(
    dataset: AnswerDataset, collator: AnswerCollator, count: int
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield batches of one example each, the first of a stage.

    Args:
        dataset: examples of the stage.
        collator: of the stage.
        count: maximum number of batches.
    """
    return (collator([dataset[index]]) for index in range(min(count, len(dataset))))


__all__ = ["QUESTIONS", "AnswerCollator", "AnswerDataset", "AnswerLog", "encode_pair", "iterate_first_batches"]
