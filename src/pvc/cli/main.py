"""`pvc`: the program. Turns every PVCError into one line on stderr and an exit code; commands are in their own files.

Exit codes: 0 done, 1 a bug of ours, 2 usage, 3 media refused or unreadable, 4 forbidden, 5 model or checkpoint,
130 interrupted.
"""

from __future__ import annotations

import os
import sys
import warnings

import typer

import pvc
from pvc.cli.ask import ask
from pvc.cli.evaluate import evaluate
from pvc.cli.info import info
from pvc.cli.train import train
from pvc.errors import PVCError

app = typer.Typer(
    name="pvc",
    help="Vision-language models with one progressive token compressor for images and videos.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(ask)
app.command()(info)
app.command("eval")(evaluate)
app.command()(train)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pvc {pvc.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", help="Show the version and exit.", callback=_version, is_eager=True),
) -> None:
    """Vision-language models with one progressive token compressor for images and videos."""


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code. `--debug` (anywhere) shows tracebacks."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    if not debug:
        warnings.simplefilter("ignore")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        app(args=[argument for argument in arguments if argument != "--debug"], prog_name="pvc")
    except SystemExit as stop:
        return int(stop.code or 0)
    except PVCError as error:
        if debug:
            raise
        print(f"pvc: {_one_line(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("pvc: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output (head, less) has gone; nothing is left to say, not even by the interpreter.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # the last resort: a bug of ours, told in one line unless --debug
        if debug:
            raise
        text = _one_line(f"{type(error).__name__}: {error}")
        print(f"pvc: internal error: {text} (run again with --debug and report this)", file=sys.stderr)
        return 1
    return 0


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() or c.isspace() else repr(c)[1:-1] for c in text).split())


def run() -> None:
    """Entry point of the `pvc` script."""
    sys.exit(main())


__all__ = ["app", "main", "run"]
