"""Lists where a source's tensors belong in a PVC model, and which have no place. Called by `pvc convert --report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pvc.checkpoint.files import Tensor
from pvc.convert.keymap import Rule, plan
from pvc.convert.source import read_source


def mapping_lines(directory: Path, rules: Sequence[Rule] = ()) -> list[str]:
    """Return one line per tensor: its name, dtype and shape, what becomes of it, and where it belongs.

    Args:
        directory: of an InternVL checkpoint, also of a published PVC model.
        rules: a key map's, tried before those of the source's kind.

    Raises:
        CheckpointError, ConfigError: as `read_source` does.
    """
    source = read_source(directory, rules)
    steps, unknown = plan(source.tensors, source.rules)
    lines = []
    for step in sorted(steps, key=lambda step: step.sources):
        shown = " + ".join(_described(source.tensors[name]) for name in step.sources)
        transform = "" if step.transform == "same" else f" ({step.transform})"
        lines.append(f"{shown} -> {', '.join(step.targets)}{transform}")
    lines += [f"{_described(source.tensors[name])} -> no place" for name in unknown]
    return [*lines, f"{directory}: {len(source.tensors) - len(unknown)} tensors have a place, {len(unknown)} have none"]


def _described(tensor: Tensor) -> str:
    return f"{tensor.name} {tensor.dtype} {list(tensor.shape)}"


__all__ = ["mapping_lines"]
