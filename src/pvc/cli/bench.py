"""`pvc bench`: what an answer costs, phase by phase, against the published way and InternVL's recipe.

Called by `main.py`; measuring is `pvc.evaluate.cost`.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pvc.cli.options import Dtype, DtypeOption
from pvc.cli.progress import status
from pvc.errors import UsageError
from pvc.extras import require

FRAMES = 64


def bench(
    media: Annotated[
        list[Path] | None, typer.Argument(help="Pictures and videos; by default a drawn page and a drawn clip.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Model directory; the bundled model by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="Directory for bench.md, bench.png and bench.json.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames of a video.")] = FRAMES,
    image_steps: Annotated[int | None, typer.Option(min=1, help="Steps of a picture.")] = None,
    max_tiles: Annotated[int | None, typer.Option(min=1, help="Maximum of tiles of a large picture.")] = None,
    baseline: Annotated[list[str] | None, typer.Option(help="Only pvc, published or base; may be given again.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Length of every answer.")] = 16,
    repeats: Annotated[int, typer.Option(min=1, help="Runs, of which the median is taken.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="CPU cores to use.")] = 2,
    dtype: DtypeOption = Dtype.auto,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default the GPU if there is one.")
    ] = None,
) -> None:
    """Measure decoding, preparing, vision, prefill, generation and peak memory, as a table and a picture."""
    if out is not None:
        require("matplotlib", "train")
    with tempfile.TemporaryDirectory() as folder:
        paths = media or _drawn(Path(folder), frames)
        for path in paths:
            if not path.is_file():
                raise UsageError(f"{path}: no such file")
        with status("loading the model"):
            import torch

            from pvc.engine.engine import Engine
            from pvc.engine.options import MediaOptions
            from pvc.evaluate.cost import WAYS, measure_costs, peak_bytes
            from pvc.evaluate.cost_report import MEANING, draw, table

            torch.set_num_threads(threads)
            engine = Engine.load(model, device=device, dtype=dtype)
        options = MediaOptions(frames=frames, image_steps=image_steps, max_tiles=max_tiles)
        ways = tuple(baseline) if baseline else WAYS

        def report(line: str) -> None:
            if sys.stderr.isatty():
                print(line, file=sys.stderr)

        costs = measure_costs(engine, paths, options, ways=ways, tokens=tokens, repeats=repeats, report=report)
        if engine.model.device.type == "cpu":
            for cost in costs:
                path = next(path for path in paths if path.name == cost.medium)
                cost.peak_bytes = peak_bytes(model, cost.way, path, options, dtype)
    where = f"{engine.model.device.type}, {str(engine.model.dtype).removeprefix('torch.')}, {threads} threads"
    head = f"{engine.name}, {where}, {platform.machine()}; milliseconds, medians of {repeats} interleaved runs\n"
    text = f"{head}\n{table(costs, tokens)}\n\n" + "\n".join(f"- `{name}`: {MEANING[name]}" for name in ways)
    print(text)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "bench.md").write_text(text + "\n", encoding="utf-8")
        rows = [asdict(cost) for cost in costs]
        (out / "bench.json").write_text(json.dumps({"about": head.strip(), "costs": rows}, indent=1), encoding="utf-8")
        draw(costs, out / "bench.png")


def _drawn(folder: Path, frames: int) -> list[Path]:
    """A page of text and a clip, for whoever brings no files."""
    from pvc.lab.synthetic import make
    from pvc.media import write_image, write_video

    page = make("page", 1, size=256, level=2).media[0].frames[0]
    clip = make("long", 1, size=256, frames=max(frames, 64), level=1).media[0].frames
    write_image(folder / "page.png", page)
    write_video(folder / "clip.mp4", clip, 8.0)
    return [folder / "page.png", folder / "clip.mp4"]


__all__ = ["bench"]
