"""PVCImageProcessor: pictures to tiles, InternVL's dynamic tiling with a thumbnail.

The tiling and the arithmetic are transformers' (GOT-OCR2's PIL backend, which InternVL shares); added are the
grid and the steps of every tile, and that pictures are opened by `pvc.media` with its limits and never fetched.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
    GotOcr2ImageProcessorKwargs,
    GotOcr2ImageProcessorPil,
)

from pvc import media
from pvc.errors import UsageError
from pvc.processing.fixed import check_fixed, square
from pvc.processing.urls import read_data_url


class PVCImageProcessorKwargs(GotOcr2ImageProcessorKwargs, total=False):  # type: ignore[call-arg]  # a TypedDict
    """`image_steps`: steps of every picture, one number or one per picture."""

    image_steps: int | list[int]


class PVCImageProcessor(GotOcr2ImageProcessorPil):
    """Pictures (paths, bytes, PIL pictures, arrays) to tiles.

    Output: `pixel_values` `(sum of tiles, 3, S, S)` float32, `image_grid_thw` `(images, 3)` with rows
    `[tiles, 1, 1]`, `image_steps` `(sum of tiles,)` int64.
    """

    valid_kwargs = PVCImageProcessorKwargs
    model_input_names = ["pixel_values", "image_grid_thw", "image_steps"]
    size = {"height": 448, "width": 448}
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    crop_to_patches = True
    min_patches = 1
    max_patches = 12
    image_steps: int | list[int] = 4

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """Open a picture, or a nested list of them, with `pvc.media`; `data:` addresses are decoded, others refused."""
        if isinstance(image_url_or_urls, (list, tuple)):
            return [self.fetch_images(item) for item in image_url_or_urls]
        return media.load_image(read_data_url(image_url_or_urls)).image

    def preprocess(self, images: Any, *args: Any, **kwargs: Any) -> Any:
        """Cut pictures into tiles; keyword arguments are those of `valid_kwargs`.

        Raises:
            UsageError: an option that cannot have this value.
        """
        check_fixed(kwargs, "image")
        if kwargs.get("size") is not None:
            kwargs["size"] = dict(zip(("height", "width"), square(kwargs["size"]), strict=True))
        crop, most = (
            getattr(self, name) if kwargs.get(name) is None else kwargs[name]
            for name in ("crop_to_patches", "max_patches")
        )
        if kwargs.get("do_resize") is False and crop and most > 1:
            raise UsageError("do_resize is False, but tiles are always resized; pass crop_to_patches=False, too")
        kwargs.pop("input_data_format", None)  # arrays have become PIL pictures
        return super().preprocess(self.fetch_images(images), *args, **kwargs)

    def _preprocess(self, images: list[np.ndarray], *args: Any, **kwargs: Any) -> Any:
        steps = kwargs.pop("image_steps", None)
        tensor_type = kwargs.pop("return_tensors", None)
        batch = super()._preprocess(images, *args, return_tensors=None, **kwargs)
        tiles = [int(count) for count in batch.pop("num_patches")]
        per_image = self._steps(steps, len(images))
        batch["image_grid_thw"] = [[count, 1, 1] for count in tiles]
        batch["image_steps"] = [step for step, count in zip(per_image, tiles, strict=True) for _ in range(count)]
        batch["pixel_values"] = [np.asarray(tile, dtype=np.float32) for tile in batch["pixel_values"]]
        return batch.convert_to_tensors(tensor_type)

    def _steps(self, steps: int | list[int] | None, images: int) -> list[int]:
        steps = self.image_steps if steps is None else steps
        if isinstance(steps, str):
            raise UsageError(f"image_steps must be a number here, not {steps!r}: only an engine can choose it (auto)")
        listed = [steps] * images if isinstance(steps, int) else [int(step) for step in steps]
        if len(listed) != images:
            raise UsageError(f"image_steps has {len(listed)} entries, but there are {images} images")
        if min(listed, default=1) < 1:
            raise UsageError(f"image_steps must be at least 1, not {min(listed)}")
        return listed


__all__ = ["PVCImageProcessor"]
