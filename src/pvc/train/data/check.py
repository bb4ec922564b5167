"""Check files of conversations before a training. Called by `pvc data check`.

Every record is read, its media are decoded and processed as in training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pvc.errors import PVCError
from pvc.processing.conversations import Record
from pvc.processing.processor import PVCProcessor
from pvc.train.data.mixture import open_media
from pvc.train.data.records import RecordSource


@dataclass
class FileReport:
    """Contents of one file.

    Attributes:
        path: of the file.
        rows: number of records (lines that are not empty).
        bad: reasons by line.
        kinds: number of good records by their media: "image", "video" or "text".
        lengths: number of tokens of every good record.
        visual: number of visual tokens of every good record.
        answers: number of answer tokens of every good record.
    """

    path: str
    rows: int = 0
    bad: dict[int, str] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    lengths: list[int] = field(default_factory=list)
    visual: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {
            "path": self.path,
            "rows": self.rows,
            "good": len(self.lengths),
            "kinds": dict(self.kinds),
            "tokens": summarize(self.lengths),
            "visual_tokens": summarize(self.visual),
            "answer_tokens": summarize(self.answers),
            "bad": [{"line": line, "reason": reason} for line, reason in sorted(self.bad.items())],
        }


def summarize(values: list[int]) -> dict[str, int]:
    """Return sum, minimum, median, 95th percentile and maximum of numbers (all 0 if there are none)."""
    if not values:
        return {"total": 0, "least": 0, "median": 0, "p95": 0, "most": 0}
    low, middle, high, top = np.percentile(values, [0, 50, 95, 100], method="higher").astype(int).tolist()
    return {"total": sum(values), "least": low, "median": middle, "p95": high, "most": top}


def check_file(
    path: str,
    processor: PVCProcessor,
    *,
    frames: int,
    longest: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FileReport:
    """Read every record of a file, with its media.

    Args:
        path: of the file.
        processor: of the model.
        frames: number of frames of a video.
        longest: maximum number of tokens of a record.
        progress: gets the numbers of checked and of all records.

    Raises:
        UsageError: the file cannot be read.
    """
    file = RecordSource(path, max_bad_fraction=1.0, need_good=False)
    report = FileReport(path, rows=file.total or 0)
    records = file.read_good_records()
    for done, record in enumerate(records, 1):
        try:
            _check_record(record, processor, frames, longest, report)
        except PVCError as error:
            file.add_bad(record.line, str(error))
        progress(done, len(records))
    report.bad = file.bad
    return report


def _check_record(
    record: Record, processor: PVCProcessor, frames: int, longest: int | None, report: FileReport
) -> None:
    side = int(dict(processor.video_processor.size)["height"])
    batch = processor.apply_chat_template(
        [open_media(record.messages, frames, side)], tokenize=True, return_assistant_tokens_mask=True
    )
    ids = batch["input_ids"][0]
    visual = int(((ids == processor.image_token_id) | (ids == processor.video_token_id)).sum())
    if longest is not None and len(ids) > longest:
        raise PVCError(f"too long: {len(ids)} tokens, of which {visual} are visual; the limit is {longest}")
    report.lengths.append(len(ids))
    report.visual.append(visual)
    report.answers.append(int(batch["assistant_masks"].sum()))
    has_media = any(part["type"] != "text" for message in record.messages for part in message["content"])
    report.kinds[record.kind if has_media else "text"] += 1


__all__ = ["FileReport", "check_file"]
