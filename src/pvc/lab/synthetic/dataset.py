"""Writes samples as PNG and MP4 files with a `data.jsonl` of conversations, the record format that training reads.

A file appears under its final name only when it is complete. If writing is interrupted, the next call continues.
Patch labels and descriptions are not written; only training on generated samples uses them. Called by the command line.
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
from pvc.lab.synthetic.tasks import get_task, make

RECORDS = "data.jsonl"
_SEED_STRIDE = 1_000_003  # added to a seed whose clips cannot be written to a file


@dataclass(frozen=True)
class _SampleSpec:
    """The arguments of `make` for one record."""

    task: str
    seed: int
    size: int
    split: Split
    frames: int | None
    level: int | None
    tiles: int

    @property
    def name(self) -> str:
        """Id of the record: it contains every option that is not the default, so that no two samples share an id."""
        options = (("l", self.level), ("f", self.frames), ("p", None if self.size == 64 else self.size))
        parts = [f"{letter}{value}" for letter, value in options if value is not None]
        parts += [f"t{self.tiles}"] if self.tiles > 1 else []
        return "-".join([self.task, self.split, *parts, f"{self.seed:08d}"])

    def for_task(self) -> _SampleSpec:
        """Return the spec without the options that its task ignores: frames of pictures and levels of pages."""
        task = get_task(self.task)
        frames = self.frames if task.kind == "video" else None
        return replace(self, frames=frames, level=None if task.pages else self.level)

    def generate(self) -> Sample:
        """Generate the sample. If a clip does not begin at 0 s, as files do, use the sample of another seed."""
        options: dict[str, Any] = {k: getattr(self, k) for k in ("size", "split", "frames", "level", "tiles")}
        seed = self.seed
        while True:
            sample = make(self.task, seed, **options)
            if all(medium.timestamps[:1] in ((), (0.0,)) for medium in sample.all_media):
                return sample
            seed += _SEED_STRIDE


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
    r"""Write samples of tasks as files and `data.jsonl`, and return the path of the latter.

    A record is {"id", "task", "level", "split", "image" and "video" (a file name or a list of them; absent without such
    media), "conversations"}. A conversation is [{"from": "human", "value": "<image>\nQuestion"}, {"from": "gpt",
    "value": "Answer"}, ...]. A turn begins with one placeholder per medium that it adds, in their order.

    Args:
        directory: folder to write to; it is created if it does not exist.
        tasks: name of a task, or several.
        count: samples of each task.
        seed: seed of the first sample; the next ones follow.
        split: what the samples may show.
        size: pixels of a tile's side.
        frames: length of clips; tasks of pictures ignore it.
        level: difficulty; page tasks ignore it.
        tiles: size of pictures in tiles.
        force: replace the records of other samples that the directory holds.
        report: called with the number of records written and of all records.

    Raises:
        UsageError: `make` rejects the options, or the directory holds other records and `force` is false.
    """
    names = [tasks] if isinstance(tasks, str) else list(tasks)
    specs = [
        _SampleSpec(name, seed + i, size, split, frames, level, tiles).for_task()
        for i in range(count)
        for name in names
    ]
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / RECORDS, folder / f"{RECORDS}.part"
    lines = _read_complete_records(path if path.exists() else part, specs, force)
    if path.exists() and len(lines) == len(specs):
        report(len(specs), len(specs))
        return path
    with part.open("w", encoding="utf-8", newline="\n") as out:
        out.writelines(f"{line}\n" for line in lines)
        for i, spec in enumerate(specs[len(lines) :], len(lines)):
            report(i, len(specs))
            out.write(json.dumps(_write_record(folder, spec), ensure_ascii=False) + "\n")
            out.flush()
    os.replace(part, path)
    report(len(specs), len(specs))
    return path


def _read_complete_records(file: Path, specs: list[_SampleSpec], force: bool) -> list[str]:
    """Return the complete lines that an earlier call with the same samples has written."""
    if not file.exists() or force:
        return []
    lines = file.read_text(encoding="utf-8").split("\n")[:-1]  # the last line may be incomplete
    try:
        ids = [str(json.loads(line)["id"]) for line in lines]
    except (ValueError, KeyError, TypeError):
        ids = [""]
    if ids != [spec.name for spec in specs[: len(ids)]]:
        raise UsageError(f"{file} holds other rows than the requested ones; choose another directory, or use force")
    return lines


def _write_record(folder: Path, spec: _SampleSpec) -> dict[str, Any]:
    """Write the media of a sample and return its record."""
    sample = spec.generate()
    several = len(sample.all_media) > 1
    files: dict[str, list[str]] = {}
    conversation: list[dict[str, str]] = []
    for turn in sample.conversation:
        marks = []
        for medium in turn.media:
            stem = f"{spec.name}-{1 + sum(map(len, files.values()))}" if several else spec.name
            files.setdefault(medium.kind, []).append(_write_medium(folder, stem, medium))
            marks.append(f"<{medium.kind}>")
        prompt = "\n".join([*marks, turn.question])
        conversation += [{"from": "human", "value": prompt}, {"from": "gpt", "value": turn.answer}]
    return {
        "id": spec.name,
        "task": sample.task,
        "level": sample.level,
        "split": spec.split,
        **{kind: names[0] if len(names) == 1 else names for kind, names in files.items()},
        "conversations": conversation,
    }


def _write_medium(folder: Path, stem: str, medium: Medium) -> str:
    """Write a medium as a PNG or MP4 file and return the file's name."""
    # Imported here: rendering needs no codecs, and training on generated samples must work without them.
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
