"""Samples as files: PNG and MP4 with a `data.jsonl` that names them, in the row format that training reads.

It leaves out patch labels and descriptions: those are for training on generated samples. Used by the command line.
"""

from __future__ import annotations

import json
from pathlib import Path

from pvc.synthetic.scene import Sample
from pvc.synthetic.seeding import Split
from pvc.synthetic.tasks import make, task_named


def write_dataset(
    directory: str | Path, task: str, count: int, seed: int, split: Split = "train", size: int = 64
) -> Path:
    """Write `count` samples with seeds seed, seed + 1, ... and `data.jsonl`, whose path is returned.

    Rows: {"id", "task", "image" or "video": file name within the directory, "question", "answer"}.
    """
    task_named(task)
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    rows = folder / "data.jsonl"
    with rows.open("w", encoding="utf-8") as out:
        for i in range(count):
            sample = make(task, seed + i, size=size, split=split)
            name = f"{task}-{split}-{seed + i:08d}"
            file = _write_media(folder, name, sample)
            row = {"id": name, "task": task, sample.kind: file, "question": sample.question, "answer": sample.answer}
            out.write(json.dumps(row) + "\n")
    return rows


def _write_media(folder: Path, name: str, sample: Sample) -> str:
    # Imported here: drawing needs no codecs, and training on generated samples must work without them.
    from pvc.media.write import write_image, write_video

    if sample.kind == "image":
        write_image(folder / f"{name}.png", sample.frames[0])
        return f"{name}.png"
    step = sample.timestamps[1] - sample.timestamps[0]
    write_video(folder / f"{name}.mp4", sample.frames, 1 / step)
    return f"{name}.mp4"
