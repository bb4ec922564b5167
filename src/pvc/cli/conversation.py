"""The interactive conversation of `pvc ask` without a question.

`/add FILE...` shows further media, `/reset` forgets everything, `/help`, `/quit`; Ctrl-C stops an answer, not the
program. Lines from a pipe are questions, too. Called by `ask.py`.
"""

from __future__ import annotations

import shlex
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pvc import media as pvc_media
from pvc.cli.files import open_one
from pvc.errors import PVCError, UsageError

if TYPE_CHECKING:
    from pvc.engine.chat import Chat
    from pvc.engine.engine import Engine
    from pvc.engine.options import MediaOptions

HELP = "/add FILE... shows pictures or videos, /reset forgets everything, /quit ends; Ctrl-C stops an answer"


def converse(
    engine: Engine,
    opened: list[Any],
    media_options: MediaOptions,
    sampling: pvc_media.Sampling,
    said: dict[str, Any],
) -> None:
    """Read questions until the end of the input; `said` are the options of `Chat.stream`."""
    chat = engine.chat()
    interactive = sys.stdin.isatty()
    if interactive:
        import readline  # noqa: F401  # gives `input` line editing and a history

        print(f"pvc: {engine.name}. {HELP}.", file=sys.stderr)
    if opened:
        _show(chat, opened, media_options)
    while True:
        try:
            line = _read(interactive).strip()
        except EOFError:
            if interactive:
                print()
            return
        except KeyboardInterrupt:
            print("\n(/quit or Ctrl-D ends)", file=sys.stderr)
            continue
        if line in ("/quit", "/exit"):
            return
        if not line:
            continue
        try:
            if line.startswith("/"):
                _command(chat, line, engine, media_options, sampling)
            else:
                _answer(chat, line, said)
        except KeyboardInterrupt:
            print("\n(stopped)", file=sys.stderr)
        except PVCError as error:
            print(f"pvc: {error}", file=sys.stderr)


def _read(interactive: bool) -> str:
    """The next line; the prompt goes to stdout only where that is the terminal, never into a file of answers."""
    if interactive and not sys.stdout.isatty():
        print("> ", end="", file=sys.stderr, flush=True)
        return input()
    return input("> " if interactive else "")


def _command(chat: Chat, line: str, engine: Engine, options: MediaOptions, sampling: pvc_media.Sampling) -> None:
    name, _, rest = line.partition(" ")
    if name == "/add":
        side = int(dict(engine.processor.video_processor.size)["height"])
        _show(chat, [open_one(path, sampling, side) for path in _paths(rest.strip())], options)
    elif name == "/reset":
        chat.reset()
        print("(forgotten)", file=sys.stderr)
    else:
        print(HELP, file=sys.stderr)


def _paths(text: str) -> list[str]:
    """Return the files that `/add` names: one, or several as a shell has them, quoted or with escaped blanks.

    Raises:
        UsageError: no file is named, or a quote is not closed.
    """
    if not text:
        raise UsageError("/add needs a file: /add picture.png")
    path = Path(text).expanduser()
    if path.exists():  # with blanks that are not escaped
        return [str(path)]
    try:
        return [str(Path(part).expanduser()) for part in shlex.split(text)]
    except ValueError as error:
        raise UsageError(f"/add {text}: {error}") from error


def _show(chat: Chat, opened: list[Any], options: MediaOptions) -> None:
    for item in chat.add(opened, options):
        what = f"{len(item.timestamps)} frames" if item.kind == "video" else f"{item.tiles} tiles, {item.steps} steps"
        if sys.stderr.isatty():
            print(f"({item.kind} {item.name}: {what}, {len(item.tokens)} visual tokens)", file=sys.stderr)
        for warning in item.warnings:
            print(f"pvc: warning: {item.name}: {warning}", file=sys.stderr)


def _answer(chat: Chat, question: str, said: dict[str, Any]) -> None:
    try:
        with closing(chat.stream(question, **said)) as pieces:
            for piece in pieces:
                print(piece, end="", flush=True)
    except KeyboardInterrupt:
        print(" (stopped)", end="", file=sys.stderr)
    print(flush=True)


__all__ = ["converse"]
