"""vLLM serves a PVC directory: a plugin that tells vLLM of the architecture, on its transformers backend.

vLLM loads it by itself (entry point group `vllm.general_plugins`), in every process. Its own endpoint trusts its
callers: text that spells a control token becomes one there, and media are decoded in its process (docs/serve.md).
"""

from __future__ import annotations

ARCHITECTURE = "PVCForConditionalGeneration"


def register() -> None:
    """Register the configuration, the processor and the architecture; may be called again and again."""
    from vllm import ModelRegistry

    import pvc.auto  # noqa: F401  # what vLLM looks up through transformers

    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, f"{__name__}:{ARCHITECTURE}")


def __getattr__(name: str) -> object:
    """The class, made when vLLM asks for it: importing this file must not import vLLM's models."""
    if name != ARCHITECTURE:
        raise AttributeError(name)
    from vllm.model_executor.models.transformers import TransformersMultiModalForCausalLM

    made = type(ARCHITECTURE, (TransformersMultiModalForCausalLM,), {"__module__": __name__})
    globals()[ARCHITECTURE] = made
    return made


__all__ = ["register"]
