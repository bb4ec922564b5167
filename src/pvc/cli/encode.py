"""`pvc encode SOURCE -o FILE.pvc`: what the model sees of a picture or video, kept in a file to be asked and continued.

Called by `main.py`. The file is `pvc.engine.visual_state`'s.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pvc import media as pvc_media
from pvc.checkpoint.files import CheckpointFiles
from pvc.checkpoint.state_file import SUFFIX, StateFile, is_state_path, open_state
from pvc.cli.files import sampling_of
from pvc.cli.options import Dtype, DtypeOption
from pvc.cli.progress import status
from pvc.errors import MismatchError, UsageError

if TYPE_CHECKING:
    from pvc.engine.visual_state import VisualState


def encode(
    source: Annotated[Path, typer.Argument(help="Picture or video.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write, ending in .pvc; by default SOURCE.pvc.")
    ] = None,
    append: Annotated[
        Path | None,
        typer.Option(help="Continue this state with the frames of SOURCE. The result replaces it unless -o is given."),
    ] = None,
    time_offset: Annotated[
        float, typer.Option(help="With --append: seconds to add to SOURCE's times, for a file that begins at 0 again.")
    ] = 0.0,
    model: Annotated[Path | None, typer.Option(help="Model directory; the bundled model by default.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames of a video, evenly spaced.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second, instead of --frames.")] = None,
    times: Annotated[str | None, typer.Option(help="Take the frames at these seconds, e.g. 0.5,2,10.")] = None,
    image_steps: Annotated[int | None, typer.Option(min=1, help="Steps of a picture.")] = None,
    max_tiles: Annotated[int | None, typer.Option(min=1, help="Maximum of tiles of a large picture.")] = None,
    no_cache: Annotated[
        bool,
        typer.Option("--no-cache", help="Leave out the temporal cache: a smaller file, which cannot be continued."),
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default the GPU if there is one.")
    ] = None,
    dtype: DtypeOption = Dtype.auto,
) -> None:
    """Encode a picture or video once, into a file that `pvc ask` reads and that `--append` continues."""
    if is_state_path(source):
        raise UsageError(f"{source} is a visual state already; pass it to --append to continue it")
    if time_offset and append is None:
        raise UsageError("--time-offset is for --append")
    target = output or append or source.with_name(f"{source.name}{SUFFIX}")
    if not is_state_path(target):
        raise UsageError(f"a visual state is a file that ends in {SUFFIX}, not {target}")
    before = _to_continue(append) if append is not None else None
    settings = CheckpointFiles(model).media_settings
    side = (settings.image_size, settings.image_size)
    with status("opening media"):
        sampling = sampling_of(frames or settings.num_frames, fps, times)
        opened = pvc_media.load(str(source), sampling=sampling, size=side)
    for warning in opened.warnings:
        print(f"pvc: warning: {opened.name}: {warning}", file=sys.stderr)
    with status("loading the model"):
        from pvc.engine.engine import Engine
        from pvc.engine.options import MediaOptions
        from pvc.engine.visual_state import continue_state, encode_state, file_digest

        engine = Engine.load(model, device=device, dtype=dtype)
    options = MediaOptions(image_steps=image_steps, max_tiles=max_tiles)
    with status("encoding"):
        if before is None:
            state = encode_state(engine, opened, options, file_digest(source))
        else:
            kept = engine.load_state(before.path)
            state = continue_state(engine, kept, _frames_after(opened, kept, time_offset), file_digest(source))
        state.save(target, cache=not no_cache)
    print(json.dumps(_summary(target, state, no_cache)))


def _to_continue(path: Path) -> StateFile:
    """The header of a state that can be continued; refused before anything is decoded or loaded."""
    state = open_state(path)
    if state.kind != "video":
        raise UsageError(f"{path} is a picture: only videos are continued")
    if state.manifest["cache"] is None:
        raise UsageError(f"{path} was written without its cache (--no-cache) and cannot be continued")
    return state


def _frames_after(opened: Any, kept: VisualState, time_offset: float) -> pvc_media.Video:
    """Return the frames after those of `kept`, with `time_offset` added to their times; report those left out."""
    if not isinstance(opened, pvc_media.Video):
        raise UsageError(f"{opened.name} is a picture: only the frames of a video can be appended")
    last = kept.media.timestamps[-1]
    times = [time + time_offset for time in opened.timestamps]
    first = next((index for index, time in enumerate(times) if time > last), None)
    if first is None:
        raise MismatchError(
            f"{opened.name} ends at {times[-1]:g} s, and {kept.name} has come to {last:g} s already: there is nothing "
            "to append (a file whose times begin at 0 again needs --time-offset)"
        )
    if first:
        print(f"pvc: {first} frames up to {last:g} s are there already and passed over", file=sys.stderr)
    return replace(opened, frames=opened.frames[first:], timestamps=tuple(times[first:]), duration=None)


def _summary(target: Path, state: VisualState, no_cache: bool) -> dict[str, Any]:
    described = state.media.describe()
    return {
        "file": str(target),
        "bytes": target.stat().st_size,
        **{key: described[key] for key in ("kind", "frames", "tiles", "steps", "tokens", "timestamps")},
        "can_be_continued": state.cache is not None and not no_cache,
        "checkpoint": state.checkpoint,
    }


__all__ = ["encode"]
