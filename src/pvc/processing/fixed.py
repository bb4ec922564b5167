"""Check the options of transformers' image and video processors that have only one value here.

Called by both processors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pvc.errors import UsageError

# Values that request the only supported behaviour: pixels are cut and resized to squares on the CPU, channels come
# first in the output and last in arrays.
_FIXED: dict[str, tuple[Any, ...]] = {
    "do_pad": (None, False),
    "pad_size": (None,),
    "do_center_crop": (None, False),
    "crop_size": (None,),
    "image_seq_length": (None,),
    "return_metadata": (None, False),
    "data_format": (None, "channels_first"),
    "input_data_format": (None, "channels_last"),
    "default_to_square": (None, True),
    "do_convert_rgb": (None, True),
}


def check_fixed(kwargs: Mapping[str, Any], kind: str) -> None:
    """Reject values that an option cannot have.

    Args:
        kwargs: options by name; options with several values are ignored.
        kind: "image" or "video", for the error message.

    Raises:
        UsageError: the error names the option and the value that it always has.
    """
    for name, values in _FIXED.items():
        value = kwargs.get(name)
        value = getattr(value, "value", value)
        if value not in values:
            raise UsageError(f"{name} is {value!r}; {kind}s are processed with {values[-1]!r} only")
    if str(kwargs.get("device") or "cpu").split(":")[0] != "cpu":
        raise UsageError(f"device is {str(kwargs['device'])!r}; {kind}s are processed on the CPU, move the result")


def parse_size(size: Any) -> tuple[int, int]:
    """Parse a `size` of transformers to height and width in pixels.

    Raises:
        UsageError: anything but a number, two of them, or a mapping with `height` and `width`.
    """
    if isinstance(size, (list, tuple)) and len(size) == 2:
        height, width = size
    elif isinstance(size, Mapping):
        height, width = size.get("height"), size.get("width")
    else:
        height, width = getattr(size, "height", size), getattr(size, "width", size)
    for side in (height, width):
        if isinstance(side, bool) or not isinstance(side, int) or side < 1:
            raise UsageError(f"size must be {{'height': pixels, 'width': pixels}}, not {size!r}")
    return height, width


__all__ = ["check_fixed", "parse_size"]
