"""A canvas for pictures and frames: text that is legible after tiling, and plain shapes.

The canvas renders at twice the size and reduces the result, so that edges are smooth. Called by every module that
renders.
"""

from __future__ import annotations

import math
from functools import lru_cache
from random import Random
from typing import Any

from benchmarks.nano_suite.fonts import FAMILIES, WEIGHTS, character_width, load_font
from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
SCALE = 2
SMALLEST = 6.0  # pixels of a character after tiling

# Common widths and heights, from 4:1 to 1:4.
WIDE = ((800, 200), (780, 260), (768, 256), (800, 400), (640, 320), (720, 360))
SQUARE = ((256, 256), (400, 400), (512, 512), (640, 480), (480, 480), (400, 300), (600, 400), (320, 320), (480, 640))
TALL = ((300, 600), (256, 512), (260, 700), (200, 800))
CLIP = ((256, 256), (320, 320), (320, 240), (400, 300))

COLOURS: dict[str, tuple[RGB, ...]] = {
    "red": ((217, 38, 38), (200, 16, 46)),
    "green": ((30, 150, 60), (46, 174, 82)),
    "blue": ((32, 84, 212), (20, 60, 180)),
    "yellow": ((250, 215, 30), (255, 228, 77)),
    "orange": ((247, 135, 20), (255, 122, 0)),
    "purple": ((128, 40, 160), (142, 68, 190)),
    "black": ((12, 12, 12), (24, 24, 24)),
    "white": ((255, 255, 255), (248, 248, 248)),
}
GROUNDS: tuple[RGB, ...] = (
    (255, 255, 255),
    (243, 238, 226),
    (226, 234, 240),
    (150, 152, 156),
    (96, 102, 110),
    (36, 40, 48),
)
# Background and letters of signs, labels and pages.
INKS: tuple[tuple[RGB, RGB], ...] = (
    ((255, 255, 255), (20, 20, 20)),
    ((250, 246, 235), (60, 40, 24)),
    ((22, 62, 122), (255, 255, 255)),
    ((18, 96, 62), (255, 255, 255)),
    ((176, 28, 36), (255, 255, 255)),
    ((250, 208, 40), (20, 20, 20)),
    ((30, 32, 38), (240, 240, 240)),
    ((228, 236, 244), (16, 48, 104)),
    ((240, 240, 240), (160, 20, 30)),
    ((226, 240, 226), (14, 80, 40)),
    ((88, 44, 120), (255, 255, 255)),
    ((30, 32, 38), (250, 214, 60)),
)


@lru_cache(maxsize=1)
def bundled_processor() -> Any:
    """Return the image processor of the bundled model: tiles of 64 pixels, at most 4 of them."""
    from pvc import PVCImageProcessor

    return PVCImageProcessor(size={"height": 64, "width": 64}, max_patches=4)


@lru_cache(maxsize=256)
def find_grid(width: int, height: int, processor: Any = None) -> tuple[int, int]:
    """Compute the columns and rows of the tiles that the processor cuts a picture into, without its thumbnail.

    Args:
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        processor: an image processor; by default that of the bundled model.
    """
    processor = processor or bundled_processor()
    count = processor.get_number_of_image_patches(height, width)
    tiles = max(1, count - 1 if processor.use_thumbnail else count)
    grids = [(columns, tiles // columns) for columns in range(1, tiles + 1) if tiles % columns == 0]
    return min(grids, key=lambda grid: abs(width / height - grid[0] / grid[1]))


def character_width_after_tiling(pixels: float, width: int, height: int, processor: Any = None) -> float:
    """Compute the width of a character after PVC has tiled its picture, in pixels.

    Args:
        pixels: width of the character in the picture.
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        processor: an image processor; by default that of the bundled model.
    """
    processor = processor or bundled_processor()
    columns = find_grid(width, height, processor)[0]
    return pixels * columns * int(dict(processor.size)["width"]) / width


class Canvas:
    """One picture, or one frame of a clip.

    Args:
        size: width and height in pixels.
        ground: colour of the background.
        is_frame: whether this is a frame of a clip, which PVC does not tile.

    Attributes:
        width: in pixels.
        height: in pixels.
        narrowest: the smallest mean character width so far, in pixels after tiling; infinite without text.
        outside: texts that do not fit into the picture.
    """

    def __init__(self, size: tuple[int, int], ground: RGB = (255, 255, 255), *, is_frame: bool = False) -> None:
        self.width, self.height = size
        self.columns = 1 if is_frame else find_grid(*size)[0]
        self.narrowest = math.inf
        self.outside: list[str] = []
        self._image = Image.new("RGB", (self.width * SCALE, self.height * SCALE), ground)
        self._pen = ImageDraw.Draw(self._image)

    def finish(self) -> Image.Image:
        """Return the picture at its size."""
        return self._image.reduce(SCALE)

    def tiled(self, pixels: float) -> float:
        """Compute the width after tiling, in pixels."""
        return pixels * self.columns * 64 / self.width

    def box(
        self,
        left: float,
        top: float,
        right: float,
        bottom: float,
        fill: RGB | None = None,
        outline: RGB | None = None,
        line: float = 2,
        radius: float = 0,
    ) -> None:
        """Fill or outline a rectangle.

        Args:
            left: left edge in pixels.
            top: top edge in pixels.
            right: right edge in pixels.
            bottom: bottom edge in pixels.
            fill: colour of the area, or None.
            outline: colour of the edge, or None.
            line: width of the edge in pixels.
            radius: radius of the corners in pixels.
        """
        corners = [value * SCALE for value in (left, top, right, bottom)]
        thick = max(1, round(line * SCALE)) if outline else 0
        self._pen.rounded_rectangle(corners, radius * SCALE, fill=fill, outline=outline, width=thick)

    def path(self, points: list[tuple[float, float]], colour: RGB, thick: float = 3) -> None:
        """Join points by straight lines.

        Args:
            points: x and y in pixels.
            colour: colour of the lines.
            thick: width of the lines in pixels.
        """
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        self._pen.line(scaled, fill=colour, width=max(1, round(thick * SCALE)), joint="curve")

    def disc(self, x: float, y: float, radius: float, colour: RGB) -> None:
        """Fill a circle.

        Args:
            x: of the centre, in pixels.
            y: of the centre, in pixels.
            radius: in pixels.
            colour: of the circle.
        """
        box = [(x - radius) * SCALE, (y - radius) * SCALE, (x + radius) * SCALE, (y + radius) * SCALE]
        self._pen.ellipse(box, fill=colour)

    def shape(self, name: str, x: float, y: float, radius: float, colour: RGB) -> None:
        """Fill a shape around a point.

        Args:
            name: "circle", "square", "triangle", "star" or "cross".
            x: of the point, in pixels.
            y: of the point, in pixels.
            radius: half of the shape's size in pixels.
            colour: of the shape.
        """
        if name == "circle":
            self.disc(x, y, radius, colour)
        elif name == "square":
            half = radius * 0.88
            self.box(x - half, y - half, x + half, y + half, fill=colour)
        elif name == "cross":
            arm = radius * 0.32
            self.box(x - radius, y - arm, x + radius, y + arm, fill=colour)
            self.box(x - arm, y - radius, x + arm, y + radius, fill=colour)
        else:
            self._pen.polygon([(px * SCALE, py * SCALE) for px, py in _corners(name, x, y, radius)], fill=colour)

    def text(
        self, string: str, x: float, y: float, size: float, colour: RGB, face: tuple[str, str], anchor: str = "mm"
    ) -> None:
        """Render one line of text at a point.

        Args:
            string: the text.
            x: of the point, in pixels.
            y: of the point, in pixels.
            size: font size in pixels.
            colour: of the letters.
            face: family and weight.
            anchor: position of the text at the point, in Pillow's notation.
        """
        scaled = round(size * SCALE)
        self.narrowest = min(self.narrowest, self.tiled(character_width(face[0], scaled, face[1]) / SCALE))
        font = load_font(face[0], scaled, face[1])
        left, top, right, bottom = font.getbbox(string, anchor=anchor)
        across, down = self.width * SCALE, self.height * SCALE
        if min(x * SCALE + left, y * SCALE + top, across - x * SCALE - right, down - y * SCALE - bottom) < 0:
            self.outside.append(string)
        self._pen.text((x * SCALE, y * SCALE), string, fill=colour, font=font, anchor=anchor)

    def fitting_size(self, strings: list[str], width: float, height: float, face: tuple[str, str]) -> int:
        """Compute the largest font size at which every line fits into an area.

        Args:
            strings: the lines.
            width: of the area, in pixels.
            height: of the area, in pixels.
            face: family and weight.
        """
        size = 8
        while size < 400:
            font = load_font(face[0], (size + 1) * SCALE, face[1])
            widest = max(font.getlength(string) for string in strings) / SCALE
            if widest > width or (size + 1) * 1.1 > height:
                break
            size += 1
        return size

    def smallest_size(self, face: tuple[str, str]) -> int:
        """Compute the smallest font size whose characters are wide enough after tiling."""
        size = 8
        while self.tiled(character_width(face[0], size * SCALE, face[1]) / SCALE) < SMALLEST:
            size += 1
        return size


def _corners(name: str, x: float, y: float, radius: float) -> list[tuple[float, float]]:
    if name == "triangle":
        drop = radius * 0.2
        return [(x, y - radius + drop), (x + radius, y + radius * 0.75 + drop), (x - radius, y + radius * 0.75 + drop)]
    if name == "star":
        points = []
        for number in range(10):
            reach = radius * 1.08 if number % 2 == 0 else radius * 0.45
            angle = math.pi * (number / 5 - 0.5)
            points.append((x + reach * math.cos(angle), y + reach * math.sin(angle)))
        return points
    raise ValueError(f"no such shape: {name}")


def pick_face(rng: Random) -> tuple[str, str]:
    """Choose a family and a weight."""
    return rng.choice(FAMILIES), rng.choice(WEIGHTS)


def pick_colours(rng: Random, names: list[str]) -> tuple[RGB, list[RGB]]:
    """Choose shades of colours, and a background with enough contrast to all of them.

    Args:
        rng: the generator.
        names: names of the colours.

    Returns:
        The background, and the shades in the order of `names`.
    """
    values = [rng.choice(COLOURS[name]) for name in names]
    grounds = [ground for ground in GROUNDS if all(_distance(ground, value) > 110 for value in values)]
    if not grounds:
        grounds = [max(GROUNDS, key=lambda ground: min(_distance(ground, value) for value in values))]
    return rng.choice(grounds), values


def _distance(first: RGB, second: RGB) -> float:
    return math.dist(first, second)
