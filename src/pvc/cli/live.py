"""`pvc live SOURCE`: watch a video as it runs, a folder that fills up, or a camera, and answer questions meanwhile.

Frames and questions take turns in one thread; a second one reads what is typed. Called by `main.py`; the session is
`pvc.engine.live`'s, the frames are `pvc.media.live`'s.
"""

from __future__ import annotations

import json
import queue
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pvc.checkpoint.files import CheckpointFiles
from pvc.cli.options import Dtype, DtypeOption
from pvc.cli.progress import status
from pvc.errors import MediaError, PVCError, UsageError

if TYPE_CHECKING:
    from pvc.engine.live import LiveSession
    from pvc.media.live import Frame

POLL_S = 0.05
END = None  # of what is typed


def live(
    source: Annotated[Path, typer.Argument(help="Video file, folder of pictures, or camera (/dev/video0).")],
    ask: Annotated[
        list[str] | None, typer.Option(help="Ask this at the end (or see --every); may be given several times.")
    ] = None,
    every: Annotated[float | None, typer.Option(help="Ask all of --ask again after so many seconds of video.")] = None,
    fps: Annotated[float, typer.Option(help="Take at most so many frames a second.")] = 2.0,
    speed: Annotated[float, typer.Option(min=0.0, help="How fast a file runs; 0 as fast as it can be watched.")] = 1.0,
    seconds: Annotated[float | None, typer.Option(help="Stop after so many seconds of waiting for a folder.")] = None,
    window: Annotated[int | None, typer.Option(min=1, help="Steps that the tower remembers.")] = None,
    recent: Annotated[int | None, typer.Option(min=1, help="Latest frames that the language model keeps.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Maximum of tokens of an answer.")] = None,
    model: Annotated[Path | None, typer.Option(help="Model directory; the bundled model by default.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default the GPU if there is one.")
    ] = None,
    dtype: DtypeOption = Dtype.auto,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object an answer.")] = False,
) -> None:
    """Watch live and answer what is typed meanwhile: a line is a question, the end of input or Ctrl-C ends."""
    if every is not None and (not ask or not every > 0):
        raise UsageError("--every needs --ask, and seconds above 0")
    if not fps > 0:
        raise UsageError(f"--fps must be above 0, not {fps}")
    side = CheckpointFiles(model).media_settings.image_size
    kind = _kind(source)
    with status("loading the model"):
        from pvc.engine.engine import Engine
        from pvc.engine.live import FrameRetention

        keep = FrameRetention(recent=recent) if recent is not None else None
        session = Engine.load(model, device=device, dtype=dtype).live(window=window, keep=keep)
    watcher = Watcher(session, ask or [], every, max_new_tokens, json_output)
    if kind == "folder":
        frames = _folder(source, seconds)
    else:
        frames = _file(source, fps, side, speed) if kind == "file" else _camera(source, fps, side)
    watcher.watch(frames)


def _kind(source: Path) -> str:
    try:
        mode = source.stat().st_mode
    except OSError as error:
        raise MediaError(f"{source}: {error.strerror}", code="not_found") from error
    return "folder" if stat.S_ISDIR(mode) else "camera" if stat.S_ISCHR(mode) else "file"


def _file(source: Path, fps: float, side: int, speed: float) -> Iterator[Frame | None]:
    """A file's frames when their time has come; None while there is none, so that questions get their turn."""
    from pvc.media.live import video_frames

    started = time.monotonic()
    for frame, at in video_frames(source, fps, (side, side)):
        while speed > 0 and time.monotonic() - started < at / speed:
            yield None
            time.sleep(min(POLL_S, max(0.0, at / speed - (time.monotonic() - started))))
        yield frame, at


def _camera(source: Path, fps: float, side: int) -> Iterator[Frame | None]:
    from pvc.media.live import camera_frames

    yield from camera_frames(source, fps, (side, side))


def _folder(source: Path, seconds: float | None) -> Iterator[Frame | None]:
    from pvc.media.live import Folder

    folder, started = Folder(source), time.monotonic()
    while seconds is None or time.monotonic() - started < seconds:
        yield from folder.new()
        for line in folder.refused:
            print(f"pvc: warning: {line}", file=sys.stderr)
        folder.refused.clear()
        yield None
        time.sleep(POLL_S)


class Watcher:
    """Pushes frames, and answers questions: those typed as soon as they are, those given when their time has come."""

    def __init__(
        self, live: LiveSession, given: list[str], every: float | None, max_new_tokens: int | None, as_json: bool
    ) -> None:
        self.live, self.given, self.every, self.as_json = live, given, every, as_json
        self.options: dict[str, Any] = {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
        self.typed: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.at = 0.0
        self.ended = False

    def watch(self, frames: Iterator[Frame | None]) -> None:
        """Until the source or the input has ended; then the given questions are asked once more."""
        # With questions of its own it does not end with the input: a job without a terminal has none.
        threading.Thread(target=self._read, name="pvc-questions", daemon=True).start()
        due = self.every
        for item in frames:
            if item is not None:
                frame, self.at = item
                self.live.push(frame, self.at)
                self._show()
                if due is not None and self.every is not None and self.at >= due:
                    due = self.at + self.every
                    self._ask_given()
            self._answer_typed()
            if self.ended and not self.given:
                break
        if self.every is None or not self.live.pushed:
            self._ask_given()
        while not self.ended and not self.given and sys.stdin is not None and not sys.stdin.isatty():
            self._wait_for_input()
        self._answer_typed()

    def _wait_for_input(self) -> None:
        """A source that ended before a pipe has said all: its questions are still answered."""
        self._take(self.typed.get())

    def _read(self) -> None:
        for line in sys.stdin or ():
            self.typed.put(line)
        self.typed.put(END)

    def _answer_typed(self) -> None:
        while not self.typed.empty():
            self._take(self.typed.get())

    def _take(self, line: str | None) -> None:
        if line is END:
            self.ended = True
        elif line.strip():
            self._ask(line.strip())

    def _ask_given(self) -> None:
        for question in self.given:
            self._ask(question)

    def _ask(self, question: str) -> None:
        try:
            answer = self.live.ask(question, **self.options)
        except PVCError as error:
            print(f"pvc: {error}", file=sys.stderr)
            return
        if self.as_json:
            told = {
                "at": round(self.at, 3),
                "question": question,
                "answer": answer.text,
                "frames_seen": self.live.pushed,
                "frames_kept": len(self.live.timestamps),
                "bytes": self.live.nbytes,
                "timing": {key: round(value, 4) for key, value in answer.timing.items()},
            }
            print(json.dumps(told, ensure_ascii=False), flush=True)
        else:
            print(f"[{self.at:.1f}s] {question} {answer.text}", flush=True)

    def _show(self) -> None:
        if sys.stderr.isatty():
            most = self.live.max_nbytes
            bound = "" if most is None else f" of at most {most / 2**20:.1f}"
            text = f"{self.at:8.1f}s  {self.live.pushed} frames seen, {len(self.live.timestamps)} kept, "
            print(f"\r{text}{self.live.nbytes / 2**20:.1f}{bound} MiB", end="", file=sys.stderr, flush=True)


__all__ = ["live"]
