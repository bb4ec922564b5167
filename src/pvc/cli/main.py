"""`pvc`: the program. Turns every PVCError into one line on stderr and an exit code; commands are in their own files.

Exit codes: 0 done, 1 a bug of ours, 2 usage, 3 media refused or unreadable, 4 forbidden, 5 model or checkpoint,
130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys
import warnings

import typer

import pvc
from pvc.cli import processes
from pvc.cli.ask import ask
from pvc.cli.bench import bench
from pvc.cli.convert import convert
from pvc.cli.data import data
from pvc.cli.distill import distill
from pvc.cli.encode import encode
from pvc.cli.info import info
from pvc.cli.lab import lab
from pvc.cli.live import live
from pvc.cli.serve import serve
from pvc.cli.train import train
from pvc.errors import Interrupted, PVCError

app = typer.Typer(
    name="pvc",
    help="Vision-language models with one progressive token compressor for images and videos.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(ask)
app.command()(bench)
app.command()(convert)
app.add_typer(data, name="data")
app.command()(distill)
app.command()(encode)
app.command()(info)
app.add_typer(lab, name="lab")
app.command()(live)
app.command()(serve)
app.command()(train)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pvc {pvc.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", help="Show the version and exit.", callback=_version, is_eager=True
    ),
) -> None:
    """Vision-language models with one progressive token compressor for images and videos."""


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code. `--debug` (anywhere) shows tracebacks."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="backslashreplace")  # an answer may hold what the terminal cannot show
    if not debug:
        warnings.simplefilter("ignore")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        code = app(
            args=[argument for argument in arguments if argument != "--debug"], prog_name="pvc", standalone_mode=False
        )
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except Interrupted as error:
        # Every process of a launcher gets the signal; one line is enough.
        return error.exit_code if processes.rank() else _fail(str(error), error.exit_code)
    except PVCError as error:
        processes.record(error)
        if debug:
            raise
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print("pvc: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output (head, less) has gone; nothing is left to say, not even by the interpreter.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if debug:
            raise
        return _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1)
    except Exception as error:
        # Typer's own complaints about arguments have no public base class in all of its versions.
        if hasattr(error, "format_message"):
            if not error.format_message():  # no command at all: the help has been shown
                return 2
            return _fail(f"{error.format_message()} (see: pvc --help, pvc COMMAND --help)", 2)
        if processes.lost_peer(error):
            return _fail("another process of this run ended; its error, or the launcher's report, has the cause", 1)
        processes.record(error)
        if debug:
            raise
        return _fail(f"internal error: {type(error).__name__}: {error} (run again with --debug and report this)", 1)


def _fail(text: str, code: int) -> int:
    print(f"{processes.name()}: {_one_line(text)}", file=sys.stderr)
    return code


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() or c.isspace() else repr(c)[1:-1] for c in text).split())


__all__ = ["app", "main"]
