"""Preprocessing of pictures equals the published one: InternVL's dynamic tiling, written here from its description.

Description: all grids of 1 to `max_tiles` tiles are candidates, smaller areas first; the grid whose aspect ratio is
nearest to the picture's wins, and among equally near ones a later (larger) grid wins if the picture has more than
half as many pixels as the grid. The picture is resized (bicubic) to the whole grid and cut; when there are several
tiles, the whole picture resized to one tile (the thumbnail) comes last. Then ImageNet's mean and deviation.
"""

import numpy as np
import pytest
import torch
from PIL import Image

from pvc.errors import ForbiddenError, UsageError
from pvc.processing.image import PVCImageProcessor

MEAN = np.array([0.485, 0.456, 0.406])
DEVIATION = np.array([0.229, 0.224, 0.225])


def described_grid(width, height, side, max_tiles):
    candidates = sorted(
        {(i, j) for i in range(1, max_tiles + 1) for j in range(1, max_tiles + 1) if i * j <= max_tiles},
        key=lambda g: g[0] * g[1],
    )
    best, nearest = (1, 1), float("inf")
    for columns, rows in candidates:
        distance = abs(width / height - columns / rows)
        if distance < nearest or (distance == nearest and width * height > 0.5 * side * side * columns * rows):
            best, nearest = (columns, rows), distance
    return best


def described_pixels(picture, side, max_tiles):
    columns, rows = described_grid(*picture.size, side, max_tiles)
    whole = picture.resize((side * columns, side * rows), Image.Resampling.BICUBIC)
    tiles = [
        whole.crop((x * side, y * side, (x + 1) * side, (y + 1) * side)) for y in range(rows) for x in range(columns)
    ]
    if len(tiles) > 1:
        tiles.append(picture.resize((side, side), Image.Resampling.BICUBIC))
    scaled = np.stack([(np.asarray(tile, dtype=np.float64) / 255 - MEAN) / DEVIATION for tile in tiles])
    return scaled.transpose(0, 3, 1, 2)


def test_tile_grids_of_10000_random_sizes():
    processor = PVCImageProcessor()
    rng = np.random.default_rng(0)
    for _ in range(10_000):
        width, height = (int(2 ** rng.uniform(0, 12)) for _ in range(2))
        max_tiles = int(rng.integers(1, 13))
        columns, rows = described_grid(width, height, 448, max_tiles)
        tiles = columns * rows + (columns * rows > 1)
        assert processor.get_number_of_image_patches(height, width, {"max_patches": max_tiles}) == tiles, (
            width,
            height,
        )


@pytest.mark.parametrize("size", [(448, 448), (97, 333), (1000, 300), (31, 64), (640, 480)])
@pytest.mark.parametrize("max_tiles", [1, 6, 12])
def test_pixels_equal_the_description(size, max_tiles):
    rng = np.random.default_rng(size[0])
    picture = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    ours = PVCImageProcessor(max_patches=max_tiles)([picture], return_tensors="pt")
    expected = described_pixels(picture, 448, max_tiles)
    assert ours["image_grid_thw"].tolist() == [[len(expected), 1, 1]]
    assert ours["pixel_values"].dtype == torch.float32
    assert np.abs(ours["pixel_values"].numpy() - expected).max() < 1e-6


def test_all_kinds_of_input_are_equal(tmp_path):
    rng = np.random.default_rng(1)
    array = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    picture = Image.fromarray(array)
    picture.save(tmp_path / "a.png")
    processor = PVCImageProcessor(size={"height": 32, "width": 32})
    sources = [picture, array, tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes()]
    expected = processor([picture], return_tensors="pt")["pixel_values"]
    for source in [*sources, torch.from_numpy(array)]:
        assert torch.equal(processor([source], return_tensors="pt")["pixel_values"], expected)


def test_steps_per_picture():
    processor = PVCImageProcessor(size={"height": 32, "width": 32}, max_patches=2, image_steps=3)
    pictures = [Image.new("RGB", (40, 40)), Image.new("RGB", (80, 40))]
    batch = processor(pictures, return_tensors="pt")
    assert batch["image_grid_thw"].tolist() == [[1, 1, 1], [3, 1, 1]]
    assert batch["image_steps"].tolist() == [3, 3, 3, 3]
    assert processor(pictures, image_steps=[1, 4])["image_steps"] == [1, 4, 4, 4]
    with pytest.raises(UsageError, match="3 entries, but there are 2 images"):
        processor(pictures, image_steps=[1, 2, 3])
    with pytest.raises(UsageError, match="at least 1"):
        processor(pictures, image_steps=0)


def test_addresses_are_never_fetched():
    with pytest.raises(ForbiddenError, match="fetched"):
        PVCImageProcessor()(["http://127.0.0.1:9/a.png"])


def test_saved_and_loaded(tmp_path):
    processor = PVCImageProcessor(size={"height": 64, "width": 64}, max_patches=3, image_steps=2)
    processor.save_pretrained(tmp_path)
    again = PVCImageProcessor.from_pretrained(tmp_path)
    assert again.to_dict() == processor.to_dict()


def test_tiles_without_a_thumbnail():
    processor = PVCImageProcessor(size={"height": 32, "width": 32}, use_thumbnail=False)
    pictures = [
        Image.fromarray(np.random.default_rng(size).integers(0, 256, (40, size, 3), np.uint8)) for size in (90, 40, 130)
    ]
    plain = processor(pictures, return_tensors="np", image_steps=[1, 2, 3])
    whole = processor(pictures, return_tensors="np", image_steps=[1, 2, 3], use_thumbnail=True)
    counts = [row[0] for row in whole["image_grid_thw"].tolist()]
    assert min(counts) == 1 < max(counts)
    assert plain["image_grid_thw"].tolist() == [[max(1, count - 1), 1, 1] for count in counts]
    indices = [
        place
        for end, count in zip(np.cumsum(counts), counts, strict=True)
        for place in range(end - count, end - (count > 1))
    ]
    assert np.array_equal(plain["pixel_values"], whole["pixel_values"][indices])
    assert np.array_equal(plain["image_steps"], whole["image_steps"][indices])
    for picture, count in zip(pictures, counts, strict=True):
        assert processor.get_number_of_image_patches(40, picture.width) == max(1, count - 1)
        assert processor.get_number_of_image_patches(40, picture.width, {"use_thumbnail": True}) == count


@pytest.mark.parametrize("size", [(32, 32), (101, 57), (57, 101), (300, 7), (7, 300)])
def test_padding_equals_its_description(size):
    """The picture in the middle of a square of the mean colour, which is resized; a grey level for rounding twice."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    longest = max(size)
    square = Image.new("RGB", (longest, longest), tuple(int(255 * value) for value in MEAN))
    square.paste(picture, ((longest - size[0]) // 2, (longest - size[1]) // 2))
    expected = np.asarray(square.resize((32, 32), Image.Resampling.BICUBIC), dtype=np.float64)
    side = {"height": 32, "width": 32}
    for options in ({"max_patches": 1}, {"crop_to_patches": False}):
        processor = PVCImageProcessor(size=side, pad2square=True, **options)
        (found,) = processor([picture], return_tensors="np")["pixel_values"]
        levels = (found.transpose(1, 2, 0) * DEVIATION + MEAN) * 255
        assert np.abs(levels - expected).max() < 1.01
    tiled = PVCImageProcessor(size=side, pad2square=True)([picture], return_tensors="np")["pixel_values"]
    assert np.array_equal(tiled, PVCImageProcessor(size=side)([picture], return_tensors="np")["pixel_values"])


def test_a_narrow_picture_is_not_padded_to_its_whole_square(monkeypatch):
    picture = Image.new("RGB", (150, 30_000), (255, 255, 255))  # its square would be 2.7 GB
    areas, new = [], Image.new
    monkeypatch.setattr(
        Image, "new", lambda mode, size, *rest: areas.append(size[0] * size[1]) or new(mode, size, *rest)
    )
    processor = PVCImageProcessor(size={"height": 32, "width": 32}, max_patches=1, pad2square=True)
    assert processor([picture], return_tensors="np")["pixel_values"].shape == (1, 3, 32, 32)
    assert max(areas) == 150 * 30_000  # none is larger than the picture


def test_padding_needs_resizing():
    with pytest.raises(UsageError, match="padded pictures are always resized"):
        PVCImageProcessor(max_patches=1, pad2square=True)([Image.new("RGB", (9, 5))], do_resize=False)
