"""`pvc convert SOURCE DEST`: an InternVL checkpoint (or a PVC base) becomes a PVC one, and back with `--to internvl`.

Called by `main.py`; the work is `pvc.convert`'s.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pvc.cli.progress import counting, status
from pvc.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pvc.convert.keymap import Rule
    from pvc.convert.options import ConversionReport, Options
    from pvc.convert.source import Source

RATIOS = {"1/2": 0.5, "1/4": 0.25, "1/8": 0.125}


def convert(
    source: Annotated[
        Path, typer.Argument(help="Directory of an InternVL checkpoint (of transformers, or original), or a PVC base.")
    ],
    dest: Annotated[Path | None, typer.Argument(help="Directory to write.")] = None,
    temporal_layers: Annotated[
        int | None, typer.Option(min=0, help="Temporal layers, from the top of the tower; by default a third of all.")
    ] = None,
    ratio: Annotated[str, typer.Option(help="Compression: 1/2 (the source's 256 tokens a frame), 1/4 or 1/8.")] = "1/4",
    init: Annotated[
        str,
        typer.Option(help="Compressor: exact (step t gives the source's token for block t) or mean (to be trained)."),
    ] = "exact",
    timestep: Annotated[
        str | None,
        typer.Option(help="cyclic, index or relative (as the paper's). Default: cyclic with --init exact, else index."),
    ] = None,
    timestep_limit: Annotated[
        int | None, typer.Option(min=1, help="With index timesteps: later steps count as this one.")
    ] = None,
    window: Annotated[int | None, typer.Option(min=1, help="Temporal window in steps; by default none.")] = None,
    image_steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of a picture. Default: the source's tokens in one of ours.")
    ] = None,
    num_frames: Annotated[int, typer.Option(min=1, help="Frames of a video where nothing else is asked for.")] = 16,
    key_map: Annotated[
        Path | None, typer.Option("--map", help="JSON file that says where tensors belong that we do not know.")
    ] = None,
    to: Annotated[str, typer.Option(help="pvc, or internvl for the way back.")] = "pvc",
    report: Annotated[
        bool, typer.Option("--report", help="Print which tensors of the source have a place, and which do not.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Compare the result with its source, layer by layer in float32.")
    ] = False,
) -> None:
    """Convert a checkpoint: InternVL 2, 2.5, 3 or 3.5 to PVC.

    By default a picture's four steps carry the source's tokens, so that answers about pictures are the source's.
    """
    if report:
        _print_mapping(source, key_map)
        return
    from pvc.convert.options import Options

    numbers = _ratio(ratio), timestep, timestep_limit, window, image_steps, num_frames, init
    _convert(source, dest, to, Options(temporal_layers, *numbers), key_map, check)


def _ratio(text: str) -> float:
    """Read "1/4" or "0.25"."""
    for name, value in RATIOS.items():
        if text in (name, f"{value:g}"):
            return value
    raise UsageError(f"--ratio must be one of {', '.join(RATIOS)}, not {text!r}")


def _print_mapping(source: Path, key_map: Path | None) -> None:
    from pvc.convert.mapping import mapping_lines

    print("\n".join(mapping_lines(source, _rules(key_map))))


def _convert(source: Path, dest: Path | None, to: str, options: Options, key_map: Path | None, check: bool) -> None:
    if to not in ("pvc", "internvl"):
        raise UsageError(f"--to must be pvc or internvl, not {to!r}")
    if dest is None:
        raise UsageError("a directory to write is missing: pvc convert SOURCE DEST")
    from pvc.convert.shards import refuse_existing

    refuse_existing(dest)
    if to == "pvc":
        _to_pvc(source, dest, options, key_map, check)
        return
    from pvc.convert.to_internvl import convert_to_internvl

    with counting("tensors") as progress:
        done = convert_to_internvl(source, dest, progress=progress)
    _tell(dest, done)


def _rules(key_map: Path | None) -> Sequence[Rule]:
    from pvc.convert.map_file import read_map

    return () if key_map is None else read_map(key_map)


def _to_pvc(source: Path, dest: Path, options: Options, key_map: Path | None, check: bool) -> None:
    from pvc.convert.from_internvl import convert as convert_to_pvc
    from pvc.convert.from_pvc import convert_pvc, is_pvc
    from pvc.convert.source import read_source

    if is_pvc(source):
        if check or key_map:
            raise UsageError(f"{source} is a PVC checkpoint: --check and --map are for conversions from InternVL")
        with counting("tensors") as progress:
            done = convert_pvc(source, dest, options, progress=progress)
        _tell(dest, done)
        return
    described = read_source(source, _rules(key_map))
    with counting("tensors") as progress:
        done = convert_to_pvc(described, dest, options, progress=progress)
    _tell(dest, done)
    if check:
        _check(described, dest)


def _check(source: Source, dest: Path) -> None:
    from pvc.convert.verify import compare

    with status("comparing"):
        found = compare(source, dest)
    for one in found:
        bound = "" if one.bound is None else f" (at most {one.bound:g})"
        print(f"{one.what}: largest difference {one.largest:.3g}, relative {one.relative:.3g}{bound}")
    failed = [one.what for one in found if not one.within]
    if failed:
        raise CheckpointError(f"{dest} does not compute what its source does: {', '.join(failed)}")


def _tell(dest: Path, report: ConversionReport) -> None:
    from pvc.convert.closed_form import MAX_RESIDUAL

    for warning in report.warnings:
        print(f"pvc: warning: {warning}", file=sys.stderr)
    added = f", {report.added_tokens} rows added to the vocabulary" if report.added_tokens else ""
    print(
        f"{dest}: {report.used} tensors of the source used, {report.made} new{added}; "
        f"{report.nbytes / 2**20:,.1f} MiB in {len(report.shards)} file{'s'[: len(report.shards) != 1]}"
    )
    if report.residual is not None:
        print(f"closed form: residual {report.residual:.2g} (at most {MAX_RESIDUAL:g})")


__all__ = ["convert"]
