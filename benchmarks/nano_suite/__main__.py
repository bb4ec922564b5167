"""Measure a model on ordinary questions: `python -m benchmarks.nano_suite`, from the root of the repository.

Prints a table of right answers by kind; see README.md in this folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.nano_suite import pairs, report, width
from benchmarks.nano_suite.fonts import FAMILIES, font_path
from benchmarks.nano_suite.run import run_suite
from benchmarks.nano_suite.sheets import write_sheets
from benchmarks.nano_suite.suite import BUILDERS, build_suite, digest

from pvc.errors import PVCError


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nano_suite", description=__doc__)
    parser.add_argument("--model", type=Path, metavar="DIR", help="model directory; the bundled model by default")
    parser.add_argument(
        "--kind", action="append", choices=list(BUILDERS), default=[], help="only this kind; repeatable"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="at most N questions of each kind")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all questions with their answers")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="write a contact sheet per kind, without a model")
    parser.add_argument("--threads", type=int, default=1, help="CPU cores to use")
    parser.add_argument("--width", action="store_true", help="measure words by character width instead")
    parser.add_argument("--png", type=Path, default=Path("out/nano-suite-width.png"), help="where --width plots")
    parser.add_argument("--pairs", action="store_true", help="measure pairs of media in one conversation instead")
    options = parser.parse_args(arguments)
    if options.width and options.pairs:
        parser.error("--width and --pairs exclude each other")
    for name in ("limit", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, not {getattr(options, name)}")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parse(arguments)
    try:
        for family in FAMILIES:
            font_path(family)
        if options.pictures:
            for path in write_sheets(build_suite(options.kind, options.limit), options.pictures):
                print(path)
            return 0
        return measure(options)
    except PVCError as error:
        print(f"nano_suite: {error}", file=sys.stderr)
        return error.exit_code


def measure(options: argparse.Namespace) -> int:
    """Load the model, ask the questions, and print the table; returns the exit code."""
    import torch

    import pvc

    torch.set_num_threads(options.threads)
    engine = pvc.load(options.model)
    content: dict[str, Any] = {"model": engine.name}
    if options.width:
        results, cells = width.run_width(engine, options.limit)
        print(width.to_markdown(cells))
        width.plot(cells, options.png)
        content["cells"] = [{"ratio": cell.ratio, "width": cell.width, **cell.row.to_json()} for cell in cells]
    else:
        if options.pairs:
            results, table = pairs.run_pairs(engine, options.limit)
        else:
            items = build_suite(options.kind, options.limit)
            results = run_suite(engine, items)
            table = report.rows(results)
            content["digest"] = digest(items)
        print(report.to_markdown(table))
        content["table"] = {row.name: row.to_json() for row in table}
    for line in report.failures(results):
        print(f"nano_suite: {line}", file=sys.stderr)
    if options.json:
        content["items"] = [result.to_json() for result in results]
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
