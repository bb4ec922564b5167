"""`pvc lab ablate PLAN.yaml`: run what is missing of an ablation, and write its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pvc.cli.progress import Journal
from pvc.errors import UsageError
from pvc.extras import require


def ablate(
    plan: Annotated[Path, typer.Argument(help="Plan, for example recipes/ablation/core.yaml.")],
    out: Annotated[Path | None, typer.Option(help="Records and report; by default NAME beside the plan.")] = None,
    work: Annotated[Path | None, typer.Option(help="Caches and weights; by default runs/ablation/NAME.")] = None,
    study: Annotated[list[str] | None, typer.Option(help="Only this study; may be given several times.")] = None,
    arm: Annotated[list[str] | None, typer.Option(help="Only this arm; may be given several times.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Only this seed; may be given several times.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU cores to use.")] = 1,
    report_only: Annotated[bool, typer.Option("--report-only", help="Train nothing, only write the report.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run and stop.")] = False,
) -> None:
    """Compare what is left of the method when parts are taken away. Finished runs are kept and not made again."""
    for module in ("pydantic", "yaml", "accelerate", "matplotlib"):
        require(module, "train")

    from pvc.lab.ablation.plan import load_plan, studies
    from pvc.lab.ablation.records import read_records, record_name

    loaded = load_plan(plan)
    arms = sorted({name for own in loaded.studies for name in own.arms})
    seeds = sorted({number for own in loaded.studies for number in own.seeds})
    _check("study", study, [own.name for own in loaded.studies])
    _check("arm", arm, arms)
    _check("seed", seed, seeds)
    records = out or plan.parent / loaded.name
    wanted = [
        (own.name, name, number)
        for own in loaded.studies
        for number in own.seeds
        for name in own.arms
        if (not study or own.name in study) and (not arm or name in arm) and (not seed or number in seed)
    ]
    missing = [run for run in wanted if not (records / record_name(*run)).exists()]
    if dry_run:
        for name, own_arm, number in missing:
            print(f"{name} {own_arm} seed {number}")
        print(f"{len(missing)} of {len(wanted)} runs to make")
        return

    from pvc.lab.ablation.report import write_report
    from pvc.lab.ablation.run import Place, run_plan

    if not report_only:
        import torch

        torch.set_num_threads(threads)
        folder = work or Path("runs") / "ablation" / loaded.name
        folder.mkdir(parents=True, exist_ok=True)
        journal = Journal(folder / "log.txt")
        place = Place(records, folder, journal)
        chosen = set(missing)
        try:
            run_plan(loaded, place, only=lambda *run: run in chosen)
        finally:
            journal.close()
    print(write_report(studies(loaded), read_records(records), records, remarks=loaded.remarks))


def _check(what: str, asked: Sequence[object] | None, known: Sequence[object]) -> None:
    """A word that names nothing would run nothing, and look like a finished ablation."""
    if unknown := [value for value in asked or () if value not in known]:
        raise UsageError(f"the plan has no {what} {unknown[0]}; it has {', '.join(map(str, known))}")


__all__ = ["ablate"]
