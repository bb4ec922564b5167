"""The key map between InternVL's tensors and PVC's, as data that is read both ways.

Sources: the names that transformers writes for `internvl`, and those of the original chat format, `internvl_chat`.
Leaves out what the tensors become (`transforms.py`) and files (`from_internvl.py`).

`{n}` stands for a layer's number, `{rest}` for whatever follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pvc.errors import CheckpointError


@dataclass(frozen=True)
class Rule:
    """`sources` become `targets` in the way `transform` (a name in `transforms.TRANSFORMS`), and back."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    transform: str = "same"


@dataclass(frozen=True)
class Step:
    """One rule applied: tensors by their full names."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    transform: str


def _same(source: str, target: str) -> Rule:
    return Rule((source,), (target,))


def _projector(before: str, names: Sequence[str]) -> tuple[Rule, ...]:
    """Norm and linear layers, from their `names` under `before`."""
    norm, first, second = names
    ours = "model.multi_modal_projector"
    return (
        Rule(
            (f"{before}{norm}.weight", f"{before}{norm}.bias"), (f"{ours}.norm.modulation.bias",), "layernorm_to_adaln"
        ),
        Rule((f"{before}{first}.weight",), (f"{ours}.linear_1.weight",), "widen"),
        _same(f"{before}{first}.bias", f"{ours}.linear_1.bias"),
        _same(f"{before}{second}.{{rest}}", f"{ours}.linear_2.{{rest}}"),
    )


# What transformers keeps in memory, and what it writes: both are found in files.
_NAMES = ("layer_norm", "linear_1", "linear_2")
TRANSFORMERS = (
    _same("vision_tower.{rest}", "model.vision_tower.{rest}"),
    *_projector("multi_modal_projector.", _NAMES),
    _same("language_model.lm_head.{rest}", "lm_head.{rest}"),
    _same("language_model.model.{rest}", "model.language_model.{rest}"),
    _same("model.vision_tower.{rest}", "model.vision_tower.{rest}"),
    *_projector("model.multi_modal_projector.", _NAMES),
    _same("model.language_model.{rest}", "model.language_model.{rest}"),
    _same("lm_head.{rest}", "lm_head.{rest}"),
)

_LAYER, _OURS = "vision_model.encoder.layers.{n}", "model.vision_tower.encoder.layer.{n}"
_TRIPLE = tuple(f"{_OURS}.attention.{name}_proj" for name in "qkv")
_VISION = (
    _same("vision_model.embeddings.class_embedding", "model.vision_tower.embeddings.cls_token"),
    _same("vision_model.embeddings.position_embedding", "model.vision_tower.embeddings.position_embeddings"),
    _same(
        "vision_model.embeddings.patch_embedding.{rest}",
        "model.vision_tower.embeddings.patch_embeddings.projection.{rest}",
    ),
    Rule((f"{_LAYER}.attn.qkv.weight",), tuple(f"{name}.weight" for name in _TRIPLE), "split_qkv"),
    Rule((f"{_LAYER}.attn.qkv.bias",), tuple(f"{name}.bias" for name in _TRIPLE), "split_qkv"),
    _same(f"{_LAYER}.attn.proj.{{rest}}", f"{_OURS}.attention.projection_layer.{{rest}}"),
    _same(f"{_LAYER}.attn.q_norm.{{rest}}", f"{_OURS}.attention.q_norm.{{rest}}"),
    _same(f"{_LAYER}.attn.k_norm.{{rest}}", f"{_OURS}.attention.k_norm.{{rest}}"),
    _same(f"{_LAYER}.mlp.{{rest}}", f"{_OURS}.mlp.{{rest}}"),
    _same(f"{_LAYER}.norm1.{{rest}}", f"{_OURS}.layernorm_before.{{rest}}"),
    _same(f"{_LAYER}.norm2.{{rest}}", f"{_OURS}.layernorm_after.{{rest}}"),
    _same(f"{_LAYER}.ls1", f"{_OURS}.lambda_1"),
    _same(f"{_LAYER}.ls2", f"{_OURS}.lambda_2"),
    *_projector("", ("mlp1.0", "mlp1.1", "mlp1.3")),
)
_LANGUAGE = (
    _same("language_model.lm_head.{rest}", "lm_head.{rest}"),
    _same("language_model.model.{rest}", "model.language_model.{rest}"),
)
_BLOCK, _LLAMA = "language_model.model.layers.{n}", "model.language_model.layers.{n}"
_INTERNLM2 = (
    _same("language_model.output.{rest}", "lm_head.{rest}"),
    _same("language_model.model.tok_embeddings.{rest}", "model.language_model.embed_tokens.{rest}"),
    Rule(
        (f"{_BLOCK}.attention.wqkv.weight",),
        tuple(f"{_LLAMA}.self_attn.{name}_proj.weight" for name in "qkv"),
        "split_wqkv",
    ),
    _same(f"{_BLOCK}.attention.wo.{{rest}}", f"{_LLAMA}.self_attn.o_proj.{{rest}}"),
    _same(f"{_BLOCK}.feed_forward.w1.{{rest}}", f"{_LLAMA}.mlp.gate_proj.{{rest}}"),
    _same(f"{_BLOCK}.feed_forward.w3.{{rest}}", f"{_LLAMA}.mlp.up_proj.{{rest}}"),
    _same(f"{_BLOCK}.feed_forward.w2.{{rest}}", f"{_LLAMA}.mlp.down_proj.{{rest}}"),
    _same(f"{_BLOCK}.attention_norm.{{rest}}", f"{_LLAMA}.input_layernorm.{{rest}}"),
    _same(f"{_BLOCK}.ffn_norm.{{rest}}", f"{_LLAMA}.post_attention_layernorm.{{rest}}"),
    _same("language_model.model.norm.{rest}", "model.language_model.norm.{rest}"),
)
CHAT = (*_VISION, *_LANGUAGE)
CHAT_INTERNLM2 = (*_VISION, *_INTERNLM2)
# What transformers writes, for the way back.
BACK = TRANSFORMERS[: 1 + 4 + 2]


def plan(names: Iterable[str], rules: Sequence[Rule], inverse: bool = False) -> tuple[list[Step], list[str]]:
    """The steps that use every one of `names` once, and the names that no rule knows.

    `inverse` reads the rules from targets to sources; steps are then from PVC's names to InternVL's.

    Raises:
        CheckpointError: a rule needs several tensors and only some of them are there, or two make the same one.
    """
    present = set(names)
    steps: dict[tuple[str, ...], Step] = {}
    unknown = []
    for name in sorted(present):
        found = _applied(name, rules, inverse)
        if found is None:
            unknown.append(name)
            continue
        missing = [source for source in found.sources if source not in present]
        if missing:
            raise CheckpointError(f"{name} is there, but {', '.join(missing)} is missing beside it")
        steps[found.sources] = found
    made: dict[str, str] = {}
    for step in steps.values():
        for target in step.targets:
            if target in made:
                raise CheckpointError(f"{made[target]} and {step.sources[0]} both are {target}")
            made[target] = step.sources[0]
    return list(steps.values()), unknown


def _applied(name: str, rules: Sequence[Rule], inverse: bool) -> Step | None:
    for rule in rules:
        given, wanted = (rule.targets, rule.sources) if inverse else (rule.sources, rule.targets)
        for template in given:
            found = _pattern(template).fullmatch(name)
            if found:
                parts = found.groupdict()
                filled = [tuple(one.format(**parts) for one in side) for side in (given, wanted)]
                return Step(filled[0], filled[1], rule.transform)
    return None


def _pattern(template: str) -> re.Pattern[str]:
    escaped = re.escape(template).replace(r"\{n\}", r"(?P<n>\d+)").replace(r"\{rest\}", r"(?P<rest>.+)")
    return re.compile(escaped)


__all__ = ["BACK", "CHAT", "CHAT_INTERNLM2", "TRANSFORMERS", "Rule", "Step", "plan"]
