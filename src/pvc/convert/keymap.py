"""Key map between InternVL's tensor names and PVC's, as data that is read in both directions.

Sources are the names that transformers writes for `internvl`, and those of the original chat format, `internvl_chat`.
`{n}` stands for a layer's number, `{rest}` for all that follows. The transforms themselves are in `transforms.py`.
Called by `from_internvl.py`, `to_internvl.py` and `mapping.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pvc.errors import CheckpointError


@dataclass(frozen=True)
class Rule:
    """One rule of the key map, valid in both directions.

    Attributes:
        sources: templates of InternVL's names.
        targets: templates of PVC's names.
        transform: key of `transforms.TRANSFORMS`.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    transform: str = "same"


@dataclass(frozen=True)
class Step:
    """One rule applied to tensors.

    Attributes:
        sources: full names of the tensors to read.
        targets: full names of the tensors to write.
        transform: key of `transforms.TRANSFORMS`.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    transform: str


def _rename(source: str, target: str) -> Rule:
    return Rule((source,), (target,))


def _build_projector_rules(before: str, names: Sequence[str]) -> tuple[Rule, ...]:
    """Build the rules of the projector from the names of its norm and linear layers under the prefix `before`."""
    norm, first, second = names
    ours = "model.multi_modal_projector"
    return (
        Rule(
            (f"{before}{norm}.weight", f"{before}{norm}.bias"), (f"{ours}.norm.modulation.bias",), "layernorm_to_adaln"
        ),
        Rule((f"{before}{first}.weight",), (f"{ours}.linear_1.weight",), "widen"),
        _rename(f"{before}{first}.bias", f"{ours}.linear_1.bias"),
        _rename(f"{before}{second}.{{rest}}", f"{ours}.linear_2.{{rest}}"),
    )


# Names that transformers uses in memory, and names that it writes: files contain either.
_NAMES = ("layer_norm", "linear_1", "linear_2")
TRANSFORMERS = (
    _rename("vision_tower.{rest}", "model.vision_tower.{rest}"),
    *_build_projector_rules("multi_modal_projector.", _NAMES),
    _rename("language_model.lm_head.{rest}", "lm_head.{rest}"),
    _rename("language_model.model.{rest}", "model.language_model.{rest}"),
    _rename("model.vision_tower.{rest}", "model.vision_tower.{rest}"),
    *_build_projector_rules("model.multi_modal_projector.", _NAMES),
    _rename("model.language_model.{rest}", "model.language_model.{rest}"),
    _rename("lm_head.{rest}", "lm_head.{rest}"),
)

_LAYER, _OURS = "vision_model.encoder.layers.{n}", "model.vision_tower.encoder.layer.{n}"
_QKV_PROJECTIONS = tuple(f"{_OURS}.attention.{name}_proj" for name in "qkv")
_VISION = (
    _rename("vision_model.embeddings.class_embedding", "model.vision_tower.embeddings.cls_token"),
    _rename("vision_model.embeddings.position_embedding", "model.vision_tower.embeddings.position_embeddings"),
    _rename(
        "vision_model.embeddings.patch_embedding.{rest}",
        "model.vision_tower.embeddings.patch_embeddings.projection.{rest}",
    ),
    Rule((f"{_LAYER}.attn.qkv.weight",), tuple(f"{name}.weight" for name in _QKV_PROJECTIONS), "split_qkv"),
    Rule((f"{_LAYER}.attn.qkv.bias",), tuple(f"{name}.bias" for name in _QKV_PROJECTIONS), "split_qkv"),
    _rename(f"{_LAYER}.attn.proj.{{rest}}", f"{_OURS}.attention.projection_layer.{{rest}}"),
    _rename(f"{_LAYER}.attn.q_norm.{{rest}}", f"{_OURS}.attention.q_norm.{{rest}}"),
    _rename(f"{_LAYER}.attn.k_norm.{{rest}}", f"{_OURS}.attention.k_norm.{{rest}}"),
    _rename(f"{_LAYER}.mlp.{{rest}}", f"{_OURS}.mlp.{{rest}}"),
    _rename(f"{_LAYER}.norm1.{{rest}}", f"{_OURS}.layernorm_before.{{rest}}"),
    _rename(f"{_LAYER}.norm2.{{rest}}", f"{_OURS}.layernorm_after.{{rest}}"),
    _rename(f"{_LAYER}.ls1", f"{_OURS}.lambda_1"),
    _rename(f"{_LAYER}.ls2", f"{_OURS}.lambda_2"),
    *_build_projector_rules("", ("mlp1.0", "mlp1.1", "mlp1.3")),
)
_LANGUAGE = (
    _rename("language_model.lm_head.{rest}", "lm_head.{rest}"),
    _rename("language_model.model.{rest}", "model.language_model.{rest}"),
)
_BLOCK, _LLAMA = "language_model.model.layers.{n}", "model.language_model.layers.{n}"
_INTERNLM2 = (
    _rename("language_model.output.{rest}", "lm_head.{rest}"),
    _rename("language_model.model.tok_embeddings.{rest}", "model.language_model.embed_tokens.{rest}"),
    Rule(
        (f"{_BLOCK}.attention.wqkv.weight",),
        tuple(f"{_LLAMA}.self_attn.{name}_proj.weight" for name in "qkv"),
        "split_wqkv",
    ),
    _rename(f"{_BLOCK}.attention.wo.{{rest}}", f"{_LLAMA}.self_attn.o_proj.{{rest}}"),
    _rename(f"{_BLOCK}.feed_forward.w1.{{rest}}", f"{_LLAMA}.mlp.gate_proj.{{rest}}"),
    _rename(f"{_BLOCK}.feed_forward.w3.{{rest}}", f"{_LLAMA}.mlp.up_proj.{{rest}}"),
    _rename(f"{_BLOCK}.feed_forward.w2.{{rest}}", f"{_LLAMA}.mlp.down_proj.{{rest}}"),
    _rename(f"{_BLOCK}.attention_norm.{{rest}}", f"{_LLAMA}.input_layernorm.{{rest}}"),
    _rename(f"{_BLOCK}.ffn_norm.{{rest}}", f"{_LLAMA}.post_attention_layernorm.{{rest}}"),
    _rename("language_model.model.norm.{rest}", "model.language_model.norm.{rest}"),
)
CHAT = (*_VISION, *_LANGUAGE)
CHAT_INTERNLM2 = (*_VISION, *_INTERNLM2)
# Names that transformers writes, for conversion back to InternVL.
EXPORT = TRANSFORMERS[: 1 + 4 + 2]


def match_rules(names: Iterable[str], rules: Sequence[Rule], inverse: bool = False) -> tuple[list[Step], list[str]]:
    """Match tensor names with the rules of a key map.

    Args:
        names: of the tensors to convert.
        rules: the first one that matches a name is used.
        inverse: read the rules from targets to sources; steps then lead from PVC's names to InternVL's.

    Returns:
        Steps that use each matched name once, and the names that match no rule.

    Raises:
        CheckpointError: a rule needs several tensors and only some exist, or two steps write the same tensor.
    """
    present = set(names)
    steps: dict[tuple[str, ...], Step] = {}
    unknown = []
    for name in sorted(present):
        step = _apply_rules(name, rules, inverse)
        if step is None:
            unknown.append(name)
            continue
        missing = [source for source in step.sources if source not in present]
        if missing:
            raise CheckpointError(f"{name} needs {', '.join(missing)}, which the checkpoint lacks")
        steps[step.sources] = step
    sources: dict[str, str] = {}
    for step in steps.values():
        for target in step.targets:
            if target in sources:
                raise CheckpointError(f"{sources[target]} and {step.sources[0]} both become {target}")
            sources[target] = step.sources[0]
    return list(steps.values()), unknown


def _apply_rules(name: str, rules: Sequence[Rule], inverse: bool) -> Step | None:
    for rule in rules:
        inputs, outputs = (rule.targets, rule.sources) if inverse else (rule.sources, rule.targets)
        for template in inputs:
            match = _compile_pattern(template).fullmatch(name)
            if match:
                parts = match.groupdict()
                names = [tuple(other.format(**parts) for other in side) for side in (inputs, outputs)]
                return Step(names[0], names[1], rule.transform)
    return None


def _compile_pattern(template: str) -> re.Pattern[str]:
    escaped = re.escape(template).replace(r"\{n\}", r"(?P<n>\d+)").replace(r"\{rest\}", r"(?P<rest>.+)")
    return re.compile(escaped)


__all__ = ["CHAT", "CHAT_INTERNLM2", "EXPORT", "TRANSFORMERS", "Rule", "Step", "match_rules"]
