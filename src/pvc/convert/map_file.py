"""A key map from a file, for tensors whose names this project does not know.

JSON: a list of `{"source": "...", "target": "...", "transform": "same"}`. `{n}` stands for a layer's number, `{rest}`
for whatever follows. Several tensors that become one, or one that becomes several, are lists of names.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pvc.convert.keymap import Rule
from pvc.convert.transforms import TRANSFORMS
from pvc.errors import ConfigError, UsageError

_PLACE = re.compile(r"\{n\}|\{rest\}")
# Braces only as places, and neither of them twice.
_NAME = re.compile(r"(?!.*\{n\}.*\{n\})(?!.*\{rest\}.*\{rest\})(?:[^{}]|\{n\}|\{rest\})+")
# Tensors of a rule, by what becomes of them.
_COUNTS = {"same": (1, 1), "split_qkv": (1, 3), "split_wqkv": (1, 3), "layernorm_to_adaln": (2, 1), "widen": (1, 1)}


def read_map(path: Path) -> tuple[Rule, ...]:
    """Rules of a file; raises UsageError or ConfigError, which names the entry."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, list):
        raise ConfigError(f"{path} must hold a list of rules")
    return tuple(_rule(entry, f"{path}, rule {number}") for number, entry in enumerate(data, 1))


def _rule(entry: Any, where: str) -> Rule:
    if not isinstance(entry, dict) or not {"source", "target"} <= set(entry) <= {"source", "target", "transform"}:
        raise ConfigError(f"{where}: a rule has 'source', 'target' and, where it is not 'same', 'transform'")
    transform = entry.get("transform", "same")
    if not isinstance(transform, str) or transform not in TRANSFORMS:
        raise ConfigError(f"{where}: transform is {transform!r}; there are {', '.join(TRANSFORMS)}")
    sides = []
    for key in ("source", "target"):
        names = [entry[key]] if isinstance(entry[key], str) else entry[key]
        if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
            raise ConfigError(f"{where}: {key!r} must be a name or a list of names")
        sides.append(tuple(names))
        if not all(_NAME.fullmatch(name) for name in names):
            raise ConfigError(f"{where}: {{n}} and {{rest}} are the places there are, each once in a name")
    places = {tuple(sorted(_PLACE.findall(name))) for side in sides for name in side}
    if len(places) != 1:
        raise ConfigError(f"{where}: {{n}} and {{rest}} must be the same in every name")
    counts = (len(sides[0]), len(sides[1]))
    if counts != _COUNTS[transform]:
        wanted = " to ".join(str(count) for count in _COUNTS[transform])
        raise ConfigError(f"{where}: {transform!r} takes {wanted} names, not {counts[0]} to {counts[1]}")
    return Rule(sides[0], sides[1], transform)


__all__ = ["read_map"]
