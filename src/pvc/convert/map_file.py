"""Reading of a key map from a JSON file, for tensors whose names this project does not know.

The file is a list of `{"source": "...", "target": "...", "transform": "same"}`. `{n}` stands for a layer's number,
`{rest}` for all that follows. If several tensors become one, or one becomes several, that side is a list of names.
Called by `pvc convert --map`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pvc.convert.keymap import Rule
from pvc.convert.transforms import TRANSFORMS
from pvc.errors import ConfigError, UsageError

_PLACEHOLDER = re.compile(r"\{n\}|\{rest\}")
# Braces are allowed in placeholders only, and each placeholder once.
_NAME = re.compile(r"(?!.*\{n\}.*\{n\})(?!.*\{rest\}.*\{rest\})(?:[^{}]|\{n\}|\{rest\})+")
# Numbers of source and target tensors of a rule, by transform.
_COUNTS = {"same": (1, 1), "split_qkv": (1, 3), "split_wqkv": (1, 3), "layernorm_to_adaln": (2, 1), "widen": (1, 1)}


def read_map(path: Path) -> tuple[Rule, ...]:
    """Read the rules of a key map file.

    Raises:
        UsageError: the file cannot be read.
        ConfigError: the file is not JSON or a rule is malformed; the message gives the rule's number.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, list):
        raise ConfigError(f"{path} must hold a list of rules")
    return tuple(_parse_rule(entry, f"{path}, rule {number}") for number, entry in enumerate(data, 1))


def _parse_rule(entry: Any, where: str) -> Rule:
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
            raise ConfigError(f"{where}: the only placeholders are {{n}} and {{rest}}, each at most once in a name")
    placeholders = {tuple(sorted(_PLACEHOLDER.findall(name))) for side in sides for name in side}
    if len(placeholders) != 1:
        raise ConfigError(f"{where}: {{n}} and {{rest}} must be the same in every name")
    counts = (len(sides[0]), len(sides[1]))
    if counts != _COUNTS[transform]:
        expected = " to ".join(str(count) for count in _COUNTS[transform])
        raise ConfigError(f"{where}: {transform!r} takes {expected} names, not {counts[0]} to {counts[1]}")
    return Rule(sides[0], sides[1], transform)


__all__ = ["read_map"]
