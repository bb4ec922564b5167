"""Samples as files: PNG and MP4 with a `data.jsonl` of conversations, in the row format that training reads.

Files appear under their names only when they are complete, and an interrupted writing goes on where it stopped. It
leaves out patch labels and descriptions: those are for training on generated samples. Used by the command line.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pvc.errors import UsageError
from pvc.lab.synthetic.scene import Medium, Sample
from pvc.lab.synthetic.seeding import Split
from pvc.lab.synthetic.tasks import make, task_named

ROWS = "data.jsonl"
_STRIDE = 1_000_003  # from a seed whose clips no file can hold to the next that is tried


@dataclass(frozen=True)
class _Order:
    """What to write: the arguments of `make` for every row."""

    task: str
    seed: int
    size: int
    split: Split
    frames: int | None
    level: int | None
    tiles: int

    @property
    def name(self) -> str:
        """Id of the row; what is not the default stands in it, so that other samples have other names."""
        options = (("l", self.level), ("f", self.frames), ("p", None if self.size == 64 else self.size))
        parts = [f"{letter}{value}" for letter, value in options if value is not None]
        parts += [f"t{self.tiles}"] if self.tiles > 1 else []
        return "-".join([self.task, self.split, *parts, f"{self.seed:08d}"])

    def for_task(self) -> _Order:
        """Return the order without what its task ignores: pictures have no frames and pages no levels."""
        task = task_named(self.task)
        frames = self.frames if task.kind == "video" else None
        return replace(self, frames=frames, level=None if task.pages else self.level)

    def sample(self) -> Sample:
        """The sample, which is another seed's where a clip does not begin at 0 s: a video file always does."""
        options: dict[str, Any] = {k: getattr(self, k) for k in ("size", "split", "frames", "level", "tiles")}
        seed = self.seed
        while True:
            sample = make(self.task, seed, **options)
            if all(medium.timestamps[:1] in ((), (0.0,)) for medium in sample.all_media):
                return sample
            seed += _STRIDE


def write_dataset(
    directory: str | Path,
    tasks: str | Sequence[str],
    count: int,
    seed: int,
    split: Split = "train",
    size: int = 64,
    *,
    frames: int | None = None,
    level: int | None = None,
    tiles: int = 1,
    force: bool = False,
    report: Callable[[int, int], None] = lambda done, of: None,
) -> Path:
    """Write `count` samples of each task with seeds seed, seed + 1, ... and `data.jsonl`, whose path is returned.

    Rows: {"id", "task", "level", "split", "image" or "video" or both: a file name or a list of them, "conversations":
    [{"from": "human", "value": "<image>\\nQuestion"}, {"from": "gpt", "value": "Answer"}, ...]} with a placeholder per
    medium, in their order, at the beginning of the turn that shows it. A row without media has neither "image" nor
    "video". frames: of clips; pictures ignore it. level: page tasks ignore it. report: called with rows done and rows
    in all.
    Raises UsageError for what `make` refuses, and for a directory with other rows unless `force`, which replaces them.
    """
    names = [tasks] if isinstance(tasks, str) else list(tasks)
    orders = [
        _Order(name, seed + i, size, split, frames, level, tiles).for_task() for i in range(count) for name in names
    ]
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    rows, part = folder / ROWS, folder / f"{ROWS}.part"
    kept = _kept(rows if rows.exists() else part, orders, force)
    if rows.exists() and len(kept) == len(orders):
        report(len(orders), len(orders))
        return rows
    with part.open("w", encoding="utf-8", newline="\n") as out:
        out.writelines(f"{line}\n" for line in kept)
        for i, order in enumerate(orders[len(kept) :], len(kept)):
            report(i, len(orders))
            out.write(json.dumps(_row(folder, order), ensure_ascii=False) + "\n")
            out.flush()
    os.replace(part, rows)
    report(len(orders), len(orders))
    return rows


def _kept(file: Path, orders: list[_Order], force: bool) -> list[str]:
    """The complete rows that an earlier writing of the same samples has left; UsageError where there are others."""
    if not file.exists() or force:
        return []
    lines = file.read_text(encoding="utf-8").split("\n")[:-1]  # what comes after the last line end is torn
    try:
        found = [str(json.loads(line)["id"]) for line in lines]
    except (ValueError, KeyError, TypeError):
        found = [""]
    if found != [order.name for order in orders[: len(found)]]:
        raise UsageError(f"{file} holds other rows than the ones asked for; choose another directory, or use force")
    return lines


def _row(folder: Path, order: _Order) -> dict[str, Any]:
    sample = order.sample()
    several = len(sample.all_media) > 1
    files: dict[str, list[str]] = {}
    conversation: list[dict[str, str]] = []
    for turn in sample.conversation:
        marks = []
        for medium in turn.media:
            stem = f"{order.name}-{1 + sum(map(len, files.values()))}" if several else order.name
            files.setdefault(medium.kind, []).append(_write_medium(folder, stem, medium))
            marks.append(f"<{medium.kind}>")
        asked = "\n".join([*marks, turn.question])
        conversation += [{"from": "human", "value": asked}, {"from": "gpt", "value": turn.answer}]
    return {
        "id": order.name,
        "task": sample.task,
        "level": sample.level,
        "split": order.split,
        **{kind: names[0] if len(names) == 1 else names for kind, names in files.items()},
        "conversations": conversation,
    }


def _write_medium(folder: Path, stem: str, medium: Medium) -> str:
    # Imported here: drawing needs no codecs, and training on generated samples must work without them.
    from pvc.media.write import write_image, write_video

    if medium.kind == "image":
        write_image(folder / f"{stem}.png", medium.frames[0])
        return f"{stem}.png"
    times = medium.timestamps
    steps = {round(b - a, 6) for a, b in itertools.pairwise(times)}
    if len(steps) > 1:
        write_video(folder / f"{stem}.mp4", medium.frames, 10.0, times=times)
    else:
        write_video(folder / f"{stem}.mp4", medium.frames, 1 / steps.pop() if steps else 1.0)
    return f"{stem}.mp4"
