"""Models whose weights stay in their files: a module's weights are read when it is called, and released afterwards.

A model of any size needs the memory of its largest layer and its activations, in float32 on the CPU. Called by
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


def offload(build: Callable[[], PreTrainedModel], find: TensorLookup) -> PreTrainedModel:
    """Build a model without weights that computes as if it had been loaded in float32.

    Args:
        build: builds the model; called with the meta device as the default.
        find: returns the stored tensor of a parameter name; raises CheckpointError if there is none.

    Returns:
        The model in eval mode. If a stored tensor has another shape, calling its module raises CheckpointError.
        Embeddings read only the rows that they look up.
    """
    with torch.device("meta"):
        model = build().float().eval()
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.Embedding):
            vars(module)["forward"] = partial(look_up_embedding, find(f"{path}.weight"))
        elif path.rpartition(".")[2] == "rotary_emb":  # its buffers are computed from the configuration
            parent = model.get_submodule(path.rpartition(".")[0])
            parent.rotary_emb = type(module)(config=module.config)
        elif any(True for _ in module.parameters(recurse=False)):
            _read_on_call(module, f"{path}." if path else "", find)
    unfilled = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    assert not unfilled, unfilled
    return model


def look_up_embedding(stored: StoredTensor, ids: torch.Tensor) -> torch.Tensor:
    """Look ids up in a stored embedding, reading only their rows.

    Args:
        stored: the embedding, `(V, L)`.
        ids: `(...)` int64.

    Returns:
        `(..., L)` float32.
    """
    distinct, inverse = ids.unique(return_inverse=True)
    rows = [stored.read(slice(number, number + 1)) for number in distinct.tolist()]
    return torch.cat(rows).float()[inverse]


def _read_on_call(module: nn.Module, prefix: str, find: TensorLookup) -> None:
    """Register hooks that read a module's parameters before each call and release them after it."""
    empty = dict(module.named_parameters(recurse=False))

    def read(module: nn.Module, args: Any) -> None:
        for name, parameter in empty.items():
            stored = find(f"{prefix}{name}")
            if stored.shape != tuple(parameter.shape):
                raise CheckpointError(
                    f"{stored.tensor.name} in {stored.path} is {list(stored.shape)}, but config.json requires "
                    f"{list(parameter.shape)}"
                )
            setattr(module, name, nn.Parameter(stored.read().float(), requires_grad=False))

    def release(module: nn.Module, args: Any, output: Any) -> None:
        for name, parameter in empty.items():
            setattr(module, name, parameter)

    module.register_forward_pre_hook(read)
    module.register_forward_hook(release)


@contextmanager
def capture_outputs(layers: Iterable[nn.Module], receive: Callable[[torch.Tensor], object]) -> Iterator[None]:
    """Pass the hidden states that layers return to a callback while the block runs.

    Args:
        layers: modules that return hidden states, or a tuple that begins with them.
        receive: called with the hidden states of each layer, in the order of the layers' calls.
    """

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        receive(output[0] if isinstance(output, tuple) else output)

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_hook(hook).remove)
        yield


__all__ = ["TensorLookup", "capture_outputs", "look_up_embedding", "offload"]
