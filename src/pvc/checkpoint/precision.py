"""The default precision of a checkpoint's computation. Needs no torch.

Called by `loading.py` and by `pvc info`, which prints the default for the CPU of the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pvc.checkpoint.files import Tensor

DTYPES = ("auto", "float32", "bfloat16", "float16")
# Number of parameters. Smaller models use float32: it takes at most 400 MB, and answers are equal on every machine.
SMALL_MODEL = 100_000_000

_CPUINFO = Path("/proc/cpuinfo")
# x86 lists its instruction sets as "flags", ARM as "Features".
_FIELDS = ("flags", "Features")
_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def has_bfloat16(cpuinfo: Path = _CPUINFO) -> bool:
    """Check whether the CPU has instructions that multiply bfloat16 matrices.

    Linux lists them in `/proc/cpuinfo`: `avx512_bf16` or `amx_bf16` on x86, `bf16` on ARM. Without that file the
    result is False.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    fields = (line.partition(":") for line in lines)
    return any(name.strip() in _FIELDS and not _BFLOAT16_FLAGS.isdisjoint(flags.split()) for name, _, flags in fields)


def default_dtype(tensors: Sequence[Tensor], device_type: str) -> str:
    """Choose the dtype for "auto".

    On a GPU it is bfloat16. On a CPU it is float32, with one exception: a model of at least `SMALL_MODEL` parameters
    that is stored in bfloat16 stays in bfloat16 if the CPU has instructions for it. Without them bfloat16 is emulated
    and slow.

    Args:
        tensors: every stored tensor of the checkpoint.
        device_type: "cpu", "cuda", ... as in `torch.device.type`.

    Returns:
        "float32" or "bfloat16".
    """
    if device_type != "cpu":
        return "bfloat16" if device_type == "cuda" else "float32"
    total = sum(tensor.count for tensor in tensors)
    # Modulations are stored in float32 beside bfloat16 weights, so the majority of the parameters decides.
    in_bfloat16 = sum(tensor.count for tensor in tensors if tensor.dtype == "BF16")
    should_use_bfloat16 = total >= SMALL_MODEL and 2 * in_bfloat16 > total and has_bfloat16()
    return "bfloat16" if should_use_bfloat16 else "float32"


__all__ = ["DTYPES", "SMALL_MODEL", "default_dtype", "has_bfloat16"]
