"""Models whose weights stay in their files: each module's are read when it is called, and released afterwards.

A model of any size computes in the memory of its largest layer and its activations, in float32 on the CPU. Called by
`verify.py` and `reference.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from pvc.checkpoint.stored import StoredTensor
from pvc.errors import CheckpointError

TensorLookup = Callable[[str], StoredTensor]


def offloaded(build: Callable[[], PreTrainedModel], find: TensorLookup) -> PreTrainedModel:
    """Build a model without weights that computes as if it had been loaded in float32.

    Args:
        build: makes the model; called with the meta device as the default.
        find: the stored tensor behind the name of a parameter; raises CheckpointError where there is none.

    Returns:
        The model in eval mode. Calling it, or one of its modules, raises CheckpointError for a stored tensor of
        another shape. Embeddings read only the rows that they look up.
    """
    with torch.device("meta"):
        model = build().float().eval()
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.Embedding):
            vars(module)["forward"] = partial(embedded, find(f"{path}.weight"))
        elif path.rpartition(".")[2] == "rotary_emb":  # its buffers are computed from the configuration
            parent = model.get_submodule(path.rpartition(".")[0])
            parent.rotary_emb = type(module)(config=module.config)
        elif any(True for _ in module.parameters(recurse=False)):
            _read_when_called(module, f"{path}." if path else "", find)
    left = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    assert not left, left
    return model


def embedded(stored: StoredTensor, ids: torch.Tensor) -> torch.Tensor:
    """Look `(...)` ids up in a stored `(V, L)` embedding: `(..., L)` in float32."""
    distinct, places = ids.unique(return_inverse=True)
    rows = [stored.read(slice(number, number + 1)) for number in distinct.tolist()]
    return torch.cat(rows).float()[places]


def _read_when_called(module: nn.Module, prefix: str, find: TensorLookup) -> None:
    empty = dict(module.named_parameters(recurse=False))

    def read(module: nn.Module, args: Any) -> None:
        for name, parameter in empty.items():
            stored = find(f"{prefix}{name}")
            if stored.shape != tuple(parameter.shape):
                raise CheckpointError(
                    f"{stored.tensor.name} in {stored.path} is {list(stored.shape)}, but config.json asks for "
                    f"{list(parameter.shape)}"
                )
            setattr(module, name, nn.Parameter(stored.read().float(), requires_grad=False))

    def release(module: nn.Module, args: Any, output: Any) -> None:
        for name, parameter in empty.items():
            setattr(module, name, parameter)

    module.register_forward_pre_hook(read)
    module.register_forward_hook(release)


@contextmanager
def each_output(layers: Iterable[nn.Module], take: Callable[[torch.Tensor], object]) -> Iterator[None]:
    """Pass the hidden states that each of `layers` returns to `take`, in the order of their calls."""

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        take(output[0] if isinstance(output, tuple) else output)

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_hook(hook).remove)
        yield


__all__ = ["TensorLookup", "each_output", "embedded", "offloaded"]
