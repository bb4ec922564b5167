"""PVCImageProcessor: cut pictures into tiles with InternVL's dynamic tiling and a thumbnail.

Tiling and arithmetic are those of transformers (GOT-OCR2's PIL backend, which InternVL shares). Additions: the grid and
the steps of every tile, tiles without a thumbnail, and padding to a square. Pictures are opened by `pvc.media` with its
limits and never fetched. Called by PVCProcessor.

S: tile size in pixels.
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
from pvc.processing.fixed import check_fixed, parse_size


class PVCImageProcessorKwargs(GotOcr2ImageProcessorKwargs, total=False):  # type: ignore[call-arg]  # a TypedDict
    """Options that transformers' processor does not have.

    Attributes:
        image_steps: steps of every picture: one number, or one per picture.
        use_thumbnail: whether a picture of several tiles is followed by the whole picture in one tile.
        pad2square: whether a picture that is not tiled is padded to a square with the mean colour, not squeezed.
    """

    image_steps: int | list[int]
    use_thumbnail: bool
    pad2square: bool


class PVCImageProcessor(GotOcr2ImageProcessorPil):
    """Converts pictures (paths, bytes, PIL pictures, arrays) to tiles.

    Output: `pixel_values` `(sum of tiles, 3, S, S)` float32, `image_grid_thw` `(images, 3)` with rows `[tiles, 1, 1]`,
    `image_steps` `(sum of tiles,)` int64.
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
        """Open a picture, or a nested list of them, with `pvc.media`. `data:` URLs are decoded, others rejected."""
        if isinstance(image_url_or_urls, (list, tuple)):
            return [self.fetch_images(item) for item in image_url_or_urls]
        return media.load_image(read_data_url(image_url_or_urls)).image

    def preprocess(self, images: Any, *args: Any, **kwargs: Any) -> Any:
        """Cut pictures into tiles.

        Args:
            images: one picture or a (nested) list.
            args: passed on to transformers.
            kwargs: the options in `valid_kwargs`.

        Returns:
            A BatchFeature; see the class.

        Raises:
            UsageError: an option with a value that is not supported.
            MediaError: a picture that is damaged or beyond the limits.
        """
        check_fixed(kwargs, "image")
        if kwargs.get("size") is not None:
            kwargs["size"] = dict(zip(("height", "width"), parse_size(kwargs["size"]), strict=True))
        crop_to_patches, max_patches, pad2square = (
            getattr(self, name) if kwargs.get(name) is None else kwargs[name]
            for name in ("crop_to_patches", "max_patches", "pad2square")
        )
        if kwargs.get("do_resize") is False and crop_to_patches and max_patches > 1:
            raise UsageError("do_resize is False, but tiles are always resized; pass crop_to_patches=False, too")
        if kwargs.get("do_resize") is False and pad2square:
            raise UsageError("do_resize is False, but padded pictures are always resized; pass pad2square=False, too")
        kwargs.pop("input_data_format", None)  # arrays have become PIL pictures
        return super().preprocess(self.fetch_images(images), *args, **kwargs)

    def _preprocess(self, images: list[np.ndarray], *args: Any, **kwargs: Any) -> Any:
        steps = kwargs.pop("image_steps", None)
        tensor_type = kwargs.pop("return_tensors", None)
        use_thumbnail, pad2square = kwargs.pop("use_thumbnail"), kwargs.pop("pad2square")
        if pad2square and not (kwargs["crop_to_patches"] and kwargs["max_patches"] > 1):
            side, resample, mean = kwargs["size"].height, kwargs["resample"], kwargs["image_mean"]
            images = [_pad_to_square(image, side, int(resample), mean) for image in images]
        batch = super()._preprocess(images, *args, return_tensors=None, **kwargs)
        tiles = [int(count) for count in batch.pop("num_patches")]
        if not use_thumbnail:
            batch["pixel_values"] = _drop_thumbnails(batch["pixel_values"], tiles)
            tiles = [max(1, count - 1) for count in tiles]
        per_image = self._list_steps(steps, len(images))
        batch["image_grid_thw"] = [[count, 1, 1] for count in tiles]
        batch["image_steps"] = [step for step, count in zip(per_image, tiles, strict=True) for _ in range(count)]
        batch["pixel_values"] = [np.asarray(tile, dtype=np.float32) for tile in batch["pixel_values"]]
        return batch.convert_to_tensors(tensor_type)

    def get_number_of_image_patches(self, height: int, width: int, images_kwargs: dict[str, Any] | None = None) -> int:
        """Return the number of tiles of a picture, including its thumbnail.

        Args:
            height: pixels of the picture.
            width: pixels of the picture.
            images_kwargs: options of `preprocess`.
        """
        count = int(super().get_number_of_image_patches(height, width, images_kwargs))
        use_thumbnail = (images_kwargs or {}).get("use_thumbnail", self.use_thumbnail)
        return count if use_thumbnail else max(1, count - 1)

    def _list_steps(self, steps: int | list[int] | None, images: int) -> list[int]:
        steps = self.image_steps if steps is None else steps
        if isinstance(steps, str):
            raise UsageError(f"image_steps must be a number here, not {steps!r}: only an engine can choose it (auto)")
        steps_per_image = [steps] * images if isinstance(steps, int) else [int(step) for step in steps]
        if len(steps_per_image) != images:
            raise UsageError(f"image_steps has {len(steps_per_image)} entries, but there are {images} images")
        if min(steps_per_image, default=1) < 1:
            raise UsageError(f"image_steps must be at least 1, not {min(steps_per_image)}")
        return steps_per_image


def _drop_thumbnails(pixels: list[np.ndarray], tiles: list[int]) -> list[np.ndarray]:
    """Leave out the last tile of every picture that has several."""
    ends = np.cumsum(tiles)
    last = {int(end) - 1 for end, count in zip(ends, tiles, strict=True) if count > 1}
    return [tile for index, tile in enumerate(pixels) if index not in last]


def _pad_to_square(image: np.ndarray, side: int, resample: int, mean: Any) -> np.ndarray:
    """Pad `(3, H, W)` uint8 to a square around its centre, and resize that to `(3, side, side)`.

    The longer edge is resized before the shorter one is padded: the whole square of a long, narrow picture may be far
    larger than the picture.
    """
    height, width = image.shape[1:]
    longest = max(height, width)
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    colour = tuple(int(value * 255) for value in mean)
    if width >= height:
        canvas, offset = (side, longest), (0, (longest - height) // 2)
        picture = picture.resize((side, height), resample)
    else:
        canvas, offset = (longest, side), ((longest - width) // 2, 0)
        picture = picture.resize((width, side), resample)
    result = Image.new("RGB", canvas, colour)
    result.paste(picture, offset)
    return np.asarray(result.resize((side, side), resample)).transpose(2, 0, 1)


def is_nested(images: Any) -> bool:
    """Return whether `images` has one list per text."""
    return (
        isinstance(images, (list, tuple)) and bool(images) and all(isinstance(item, (list, tuple)) for item in images)
    )


def flatten_images(images: Any) -> list[Any]:
    """Return one image or several (also nested, one list per text) as a flat list of images."""
    if isinstance(images, (list, tuple)):
        return [image for item in images for image in flatten_images(item)]
    if isinstance(images, np.ndarray) and images.ndim == 4:
        return list(images)
    assert images is None or isinstance(images, (Image.Image, np.ndarray, str, bytes)) or hasattr(images, "shape")
    return [] if images is None else [images]


__all__ = ["PVCImageProcessor", "PVCImageProcessorKwargs", "flatten_images", "is_nested"]
