"""Fields of other servers' requests that are let pass where their value asks for nothing, and what is said otherwise.

Clients send many of these of themselves. A value that would change the answer is refused, for ignoring it would give
another answer than was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Means = Callable[[Any], bool]


def _one_of(*values: Any) -> Means:
    return lambda value: any(type(value) is type(one) and value == one for one in values)


def _number(*values: float) -> Means:
    return lambda value: type(value) in (int, float) and value in values


def _label(value: Any) -> bool:
    return isinstance(value, str)


# What each means here when its value asks for nothing; null always does.
REQUEST: dict[str, Means] = {
    "audio": lambda value: False,
    "best_of": _number(1),
    "frequency_penalty": _number(0),
    "function_call": _one_of("none", "auto"),
    "functions": _one_of([]),
    "ignore_eos": _one_of(False),
    "length_penalty": _number(1),
    "logit_bias": _one_of({}),
    "metadata": lambda value: isinstance(value, dict),
    "min_p": _number(0),
    "min_tokens": _number(0),
    "modalities": _one_of(["text"]),
    "parallel_tool_calls": _one_of(True, False),
    "presence_penalty": _number(0),
    "prompt_cache_key": _label,
    "repetition_penalty": _number(1),
    "response_format": _one_of({"type": "text"}),
    "safety_identifier": _label,
    "service_tier": _one_of("auto", "default"),
    "skip_special_tokens": _one_of(True),
    "store": _one_of(False),
    "tool_choice": _one_of("none", "auto"),
    "tools": _one_of([]),
    "top_k": _number(-1, 0),
    "use_beam_search": _one_of(False),
    "user": _label,
}
MESSAGE: dict[str, Means] = {
    "annotations": _one_of([]),
    "audio": lambda value: False,
    "function_call": lambda value: False,
    "reasoning_content": _one_of(""),
    "refusal": _one_of(""),
    "tool_calls": _one_of([]),
}
PART: dict[str, Means] = {"cache_control": lambda value: isinstance(value, dict)}
STREAM_OPTIONS: dict[str, Means] = {"include_obfuscation": _one_of(True, False)}


def without(data: Any, means: dict[str, Means], fields: set[str], where: str) -> Any:
    """`data` without what asks for nothing. Raises ValueError that names every other field that is not in `fields`."""
    if not isinstance(data, dict):
        return data
    kept = {name: value for name, value in data.items() if name in fields}
    others = {name: value for name, value in data.items() if name not in fields and value is not None}
    refused = [name for name, value in others.items() if name not in means or not means[name](value)]
    if refused:
        unknown = [name for name in refused if name not in means]
        told = []
        if unknown:
            told.append(f"{_listed(unknown)}: not a field of {where} on this server")
        if len(unknown) < len(refused):
            given = [name for name in refused if name in means]
            told.append(f"{_listed(given)}: not supported here; leave it out")
        raise ValueError("; ".join(told))
    return kept


def _listed(names: list[Any]) -> str:
    shown = [str(name)[:40] for name in names[:8]]
    return ", ".join(shown) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


__all__ = ["MESSAGE", "PART", "REQUEST", "STREAM_OPTIONS", "without"]
