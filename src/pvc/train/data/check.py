"""`pvc data check`: what files of conversations hold, before a training is paid for.

Every row is read, its media are decoded and go through the processor, as training would have it. Leaves out training.
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
    """One file.

    Attributes:
        rows: lines that are not empty. bad: reasons by line.
        kinds: good rows by their media: "image", "video" or "text".
        lengths, visual, answers: tokens of every good row: all, visual ones, those that are learned.
    """

    path: str
    rows: int = 0
    bad: dict[int, str] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    lengths: list[int] = field(default_factory=list)
    visual: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "path": self.path,
            "rows": self.rows,
            "good": len(self.lengths),
            "kinds": dict(self.kinds),
            "tokens": spread(self.lengths),
            "visual_tokens": spread(self.visual),
            "answer_tokens": spread(self.answers),
            "bad": [{"line": line, "reason": reason} for line, reason in sorted(self.bad.items())],
        }


def spread(values: list[int]) -> dict[str, int]:
    """Sum, least, median, 95th percentile and most."""
    if not values:
        return {"total": 0, "least": 0, "median": 0, "p95": 0, "most": 0}
    low, middle, high, most = np.percentile(values, [0, 50, 95, 100], method="higher").astype(int).tolist()
    return {"total": sum(values), "least": low, "median": middle, "p95": high, "most": most}


def check_file(
    path: str,
    processor: PVCProcessor,
    *,
    frames: int,
    longest: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FileReport:
    """Read every row of a file; `longest`: tokens that a row may have. Raises UsageError for a file that is none."""
    file = RecordSource(path, share=1.0, need_good=False)
    report = FileReport(path, rows=file.total or 0)
    rows = file.good()
    for done, row in enumerate(rows, 1):
        try:
            _check_row(row, processor, frames, longest, report)
        except PVCError as error:
            file.note(row.line, str(error))
        progress(done, len(rows))
    report.bad = file.bad
    return report


def _check_row(row: Record, processor: PVCProcessor, frames: int, longest: int | None, report: FileReport) -> None:
    side = int(dict(processor.video_processor.size)["height"])
    batch = processor.apply_chat_template(
        [open_media(row.messages, frames, side)], tokenize=True, return_assistant_tokens_mask=True
    )
    ids = batch["input_ids"][0]
    visual = int(((ids == processor.image_token_id) | (ids == processor.video_token_id)).sum())
    if longest is not None and len(ids) > longest:
        raise PVCError(f"too long: {len(ids)} tokens, of which {visual} are visual; the limit is {longest}")
    report.lengths.append(len(ids))
    report.visual.append(visual)
    report.answers.append(int(batch["assistant_masks"].sum()))
    has_media = any(part["type"] != "text" for message in row.messages for part in message["content"])
    report.kinds[row.kind if has_media else "text"] += 1


__all__ = ["FileReport", "check_file"]
