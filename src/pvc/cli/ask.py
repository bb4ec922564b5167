"""`pvc ask MEDIA... "question"`: an answer on stdout as it is generated, or a conversation.

Media are opened before torch is imported: a file that is refused costs no model.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pvc import media as pvc_media
from pvc.checkpoint.files import CheckpointFiles
from pvc.cli.budget import check_headers, open_planned, spending_of
from pvc.cli.files import open_one, refuse_for_states, sampling_of
from pvc.cli.jsonl import answer_rows, rows_file
from pvc.cli.options import Dtype, DtypeOption
from pvc.cli.progress import status
from pvc.errors import ForbiddenError, MediaError, UsageError
from pvc.processing.conversations import read_records

if TYPE_CHECKING:
    from pvc.engine.budget import Plan
    from pvc.engine.engine import Engine
    from pvc.engine.options import MediaOptions

_PICTURES = ".png .jpg .jpeg .webp .gif .bmp .tif .tiff .ico .jp2 .svg .heic .heif .avif .jxl .psd"
_VIDEOS = (
    ".mp4 .m4v .m4a .mov .mkv .webm .avi .ts .mts .m2ts .mpg .mpeg .m3u8 .h264 .flv .wmv .ogv .3gp .3g2 .mxf .vob .pvc"
)
_MEDIA_SUFFIXES = frozenset(f"{_PICTURES} {_VIDEOS}".split())


def sort_arguments(arguments: list[str]) -> tuple[list[str], str | None]:
    """Existing files are media, in order; the one argument left over is the question (None: no question).

    Raises:
        UsageError: two questions, or an empty one.
        MediaError: something that looks like a media file but is not there.
        ForbiddenError: an address on the network.
    """
    media: list[str] = []
    questions: list[str] = []
    for argument in arguments:
        if not argument.strip():
            raise UsageError("the question is empty")
        if "://" in argument.split(" ")[0]:
            raise ForbiddenError(f"{argument}: addresses are not fetched; download the file and give its path")
        if _exists(argument):
            media.append(argument)
        elif _looks_like_media(argument):
            raise MediaError(f"{argument}: no such file", code="not_found")
        else:
            questions.append(argument)
    if len(questions) > 1:
        listed = ", ".join(repr(question) for question in questions)
        raise UsageError(f"one question, please: {listed} are not files (quote the whole question)")
    return media, questions[0] if questions else None


def _exists(argument: str) -> bool:
    try:
        return Path(argument).exists()
    except (OSError, ValueError):  # too long for a name, or a null character in it: then it is text
        return False


def _looks_like_media(argument: str) -> bool:
    if any(character.isspace() for character in argument):
        # A path with spaces still ends in a media suffix; a question ends in words.
        return Path(argument).suffix.lower() in _MEDIA_SUFFIXES and not argument.rstrip().endswith("?")
    return Path(argument).suffix.lower() in _MEDIA_SUFFIXES or argument.startswith(("/", "./", "../", "~/"))


STEPS_HELP = "Steps of a picture: more steps see more detail."


def ask(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[MEDIA]... [QUESTION]", help="Pictures and videos, and the question.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Model directory; the bundled model by default.")] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frames of a video, evenly spaced; by default the checkpoint's number.")
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second, instead of --frames.")] = None,
    times: Annotated[str | None, typer.Option(help="Take the frames at these seconds, e.g. 0.5,2,10.")] = None,
    image_steps: Annotated[int | None, typer.Option(min=1, help=STEPS_HELP)] = None,
    max_tiles: Annotated[int | None, typer.Option(min=1, help="Maximum of tiles of a large picture.")] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TOKENS", help="Limit of visual tokens (512), memory to encode (2GB), or both."),
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Maximum of tokens of an answer.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is deterministic.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Seed of sampling (temperature > 0).")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default the GPU if there is one.")
    ] = None,
    dtype: DtypeOption = Dtype.auto,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Ask about pictures and videos. Without a question, start a conversation; for FILE.jsonl, ask all questions."""
    paths, question = sort_arguments(arguments or [])
    conversations = rows_file(paths, question)
    rows = read_records(conversations) if conversations else []
    if json_output and question is None and not rows:
        raise UsageError("--json needs a question")
    encoding = {"frames": frames, "fps": fps, "times": times, "image_steps": image_steps, "max_tiles": max_tiles}
    refuse_for_states(paths, **encoding, budget=budget)
    spending = spending_of(budget)
    if spending is not None and (question is None or rows):
        raise UsageError("--budget is for the media of one question")
    settings = CheckpointFiles(model).media_settings
    sampling = sampling_of(frames or settings.num_frames, fps, times)
    with status("opening media"):
        opened, decode_s = _open([] if rows else paths, sampling, settings.image_size, headers=spending is not None)
    with status("loading the model"):
        from pvc.engine.engine import Engine
        from pvc.engine.options import MediaOptions

        engine = Engine.load(model, device=device, dtype=dtype)
    media_options = MediaOptions(image_steps=image_steps, max_tiles=max_tiles)
    generation = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    if rows:
        answer_rows(engine, rows, media_options, sampling, generation, json_output)
        return
    if question is None:
        from pvc.cli.conversation import converse

        converse(engine, opened, media_options, sampling, generation)
        return
    plan: Plan | None = None
    if spending is not None:
        plan, opened, decode_s = open_planned(engine, paths, spending, media_options, sampling, frames)
    choice = plan.options if plan else media_options
    _answer_once(engine, opened, question, choice, generation, json_output, decode_s, plan)


def _answer_once(
    engine: Engine,
    opened: list[Any],
    question: str,
    options: MediaOptions | Sequence[MediaOptions],
    generation: dict[str, Any],
    json_output: bool,
    decode_s: float,
    plan: Plan | None,
) -> None:
    chat = engine.chat()
    for item in opened:
        for warning in item.warnings:
            print(f"pvc: warning: {item.name}: {warning}", file=sys.stderr)
    with status("encoding"):
        chat.add(opened, options)
    for piece in chat.stream(question, **generation):
        if not json_output:
            print(piece, end="", flush=True)
    if not json_output:
        print()
        return
    assert chat.last is not None
    described = chat.last.describe(engine.name)
    described["timing"]["decode_s"] = round(described["timing"]["decode_s"] + decode_s, 4)
    if plan is not None:
        described["plan"] = plan.describe()
    print(json.dumps(described, ensure_ascii=False))


def _open(paths: list[str], sampling: pvc_media.Sampling, side: int, headers: bool) -> tuple[list[Any], float]:
    """The media and the seconds that took; with `headers` they are only looked at, to be opened by a plan."""
    if headers:
        check_headers(paths, sampling)
        return [], 0.0
    started = time.perf_counter()
    opened = [open_one(path, sampling, side) for path in paths]
    return opened, time.perf_counter() - started


__all__ = ["ask", "sort_arguments"]
