"""Listing of where a source's tensors belong in a PVC model, and which have no place.

Called by `pvc convert --report`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pvc.checkpoint.files import Tensor
from pvc.convert.keymap import Rule, match_rules
from pvc.convert.source import read_source


def mapping_lines(directory: Path, rules: Sequence[Rule] = ()) -> list[str]:
    """Return one line per tensor: name, dtype and shape, the transform, and the target names.

    Args:
        directory: InternVL checkpoint, or a published PVC model in that format.
        rules: key map rules that are tried before those of the source's kind.

    Raises:
        CheckpointError: as for `read_source`.
        ConfigError: as for `read_source`.
    """
    source = read_source(directory, rules)
    steps, unknown = match_rules(source.tensors, source.rules)
    lines = []
    for step in sorted(steps, key=lambda step: step.sources):
        inputs = " + ".join(_describe(source.tensors[name]) for name in step.sources)
        transform = "" if step.transform == "same" else f" ({step.transform})"
        lines.append(f"{inputs} -> {', '.join(step.targets)}{transform}")
    lines += [f"{_describe(source.tensors[name])} -> no place" for name in unknown]
    return [*lines, f"{directory}: {len(source.tensors) - len(unknown)} tensors have a place, {len(unknown)} have none"]


def _describe(tensor: Tensor) -> str:
    return f"{tensor.name} {tensor.dtype} {list(tensor.shape)}"


__all__ = ["mapping_lines"]
