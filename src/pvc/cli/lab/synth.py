"""`pvc lab synth`: samples of the procedural world as pictures, videos and a `data.jsonl` of conversations."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pvc.errors import UsageError


def synth(
    directory: Annotated[Path | None, typer.Argument(help="Directory to write to.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Task, or all; may be given several times.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Samples of each task.")] = 100,
    level: Annotated[
        int | None, typer.Option(help="Difficulty from 1 to 4; drawn by default. Page tasks ignore it.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, train_all, or held out: test, fonts, colours, layouts.")] = "train",
    size: Annotated[int, typer.Option(help="Pixels of a side (of a tile); a multiple of 8.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the first sample; the next ones follow.")] = 0,
    frames: Annotated[int | None, typer.Option(help="Frames of clips; drawn for each sample by default.")] = None,
    tiles: Annotated[int, typer.Option(help="1, 2 or 4 tiles a picture, for the tasks that can.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Replace other rows that the directory holds.")] = False,
    list_tasks: Annotated[bool, typer.Option("--list", help="Name the tasks and what their levels mean.")] = False,
) -> None:
    """Write generated samples with questions and exact answers. A writing that was stopped goes on where it stopped."""
    from pvc.lab.synthetic import TASKS, write_dataset

    if list_tasks:
        for entry in TASKS.values():
            print(f"{entry.name:<10} {entry.kind:<6} {entry.summary}\n{'':<17} levels: {entry.levels}")
        return
    if directory is None:
        raise UsageError("say where to write: pvc lab synth --task read DIR (pvc lab synth --list names the tasks)")
    wanted = list(dict.fromkeys(task or ["all"]))
    names = list(TASKS) if "all" in wanted else wanted
    options: dict[str, Any] = {"frames": frames, "level": level, "tiles": tiles, "force": force}
    with _progress() as report:
        rows = write_dataset(directory, names, count, seed, split, size, report=report, **options)  # type: ignore[arg-type]
    print(rows)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, of: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        line = bar.add_task("samples")
        yield lambda done, of: bar.update(line, completed=done, total=of)


__all__ = ["synth"]
