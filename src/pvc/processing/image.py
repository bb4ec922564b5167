"""PVCImageProcessor: pictures to tiles, InternVL's dynamic tiling with a thumbnail.

The tiling and the arithmetic are transformers' (GOT-OCR2's PIL backend, which InternVL shares); added are the
grid and the steps of every tile, tiles without a thumbnail, padding to a square, and that pictures are opened by
`pvc.media` with its limits and never fetched.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
    GotOcr2ImageProcessorKwargs,
    GotOcr2ImageProcessorPil,
)

from pvc import media
from pvc.errors import UsageError
from pvc.processing.data_urls import read_data_url
from pvc.processing.fixed import check_fixed, square


class PVCImageProcessorKwargs(GotOcr2ImageProcessorKwargs, total=False):  # type: ignore[call-arg]  # a TypedDict
    """Options that transformers' processor does not have.

    Attributes:
        image_steps: steps of every picture, one number or one per picture.
        use_thumbnail: whether a picture of several tiles is followed by the whole picture in one tile.
        pad2square: whether a picture that is not tiled is padded to a square with the mean colour, not squeezed.
    """

    image_steps: int | list[int]
    use_thumbnail: bool
    pad2square: bool


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
    use_thumbnail = True
    pad2square = False

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
        crop, most, pads = (
            getattr(self, name) if kwargs.get(name) is None else kwargs[name]
            for name in ("crop_to_patches", "max_patches", "pad2square")
        )
        if kwargs.get("do_resize") is False and crop and most > 1:
            raise UsageError("do_resize is False, but tiles are always resized; pass crop_to_patches=False, too")
        if kwargs.get("do_resize") is False and pads:
            raise UsageError("do_resize is False, but padded pictures are always resized; pass pad2square=False, too")
        kwargs.pop("input_data_format", None)  # arrays have become PIL pictures
        return super().preprocess(self.fetch_images(images), *args, **kwargs)

    def _preprocess(self, images: list[np.ndarray], *args: Any, **kwargs: Any) -> Any:
        steps = kwargs.pop("image_steps", None)
        tensor_type = kwargs.pop("return_tensors", None)
        thumbnail, pads = kwargs.pop("use_thumbnail"), kwargs.pop("pad2square")
        if pads and not (kwargs["crop_to_patches"] and kwargs["max_patches"] > 1):
            side, resample, mean = kwargs["size"].height, kwargs["resample"], kwargs["image_mean"]
            images = [_padded(image, side, int(resample), mean) for image in images]
        batch = super()._preprocess(images, *args, return_tensors=None, **kwargs)
        tiles = [int(count) for count in batch.pop("num_patches")]
        if not thumbnail:
            batch["pixel_values"] = _without_thumbnails(batch["pixel_values"], tiles)
            tiles = [max(1, count - 1) for count in tiles]
        per_image = self._steps(steps, len(images))
        batch["image_grid_thw"] = [[count, 1, 1] for count in tiles]
        batch["image_steps"] = [step for step, count in zip(per_image, tiles, strict=True) for _ in range(count)]
        batch["pixel_values"] = [np.asarray(tile, dtype=np.float32) for tile in batch["pixel_values"]]
        return batch.convert_to_tensors(tensor_type)

    def get_number_of_image_patches(self, height: int, width: int, images_kwargs: dict[str, Any] | None = None) -> int:
        """Return how many tiles a picture of `height` and `width` pixels is cut into, its thumbnail included."""
        count = int(super().get_number_of_image_patches(height, width, images_kwargs))
        thumbnail = (images_kwargs or {}).get("use_thumbnail", self.use_thumbnail)
        return count if thumbnail else max(1, count - 1)

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


def _without_thumbnails(pixels: list[np.ndarray], tiles: list[int]) -> list[np.ndarray]:
    """Leave out the last tile of every picture that has several."""
    ends = np.cumsum(tiles)
    last = {int(end) - 1 for end, count in zip(ends, tiles, strict=True) if count > 1}
    return [tile for place, tile in enumerate(pixels) if place not in last]


def _padded(image: np.ndarray, side: int, resample: int, mean: Any) -> np.ndarray:
    """Pad `(3, H, W)` uint8 to a square around its centre, and resize that to `(3, side, side)`.

    The shorter edge is padded after the longer one is resized: the whole square of a long, narrow picture may be far
    larger than the picture.
    """
    height, width = image.shape[1:]
    longest = max(height, width)
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    colour = tuple(int(value * 255) for value in mean)
    if width >= height:
        canvas, place = (side, longest), (0, (longest - height) // 2)
        picture = picture.resize((side, height), resample)
    else:
        canvas, place = (longest, side), ((longest - width) // 2, 0)
        picture = picture.resize((width, side), resample)
    square = Image.new("RGB", canvas, colour)
    square.paste(picture, place)
    return np.asarray(square.resize((side, side), resample)).transpose(2, 0, 1)


__all__ = ["PVCImageProcessor"]
