"""Sizes of pages, how the image processor tiles them, and colours, grounds and finishes of pages.

Text must stay legible after tiling, so `PageSize` converts pixels of a page to pixels of its tiles. Called by the page
tasks.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from pvc.lab.synthetic import palette
from pvc.lab.synthetic.pages.canvas import Box, Finish, Item, Words, compute_ink_box
from pvc.lab.synthetic.pages.faces import FACES, MONOSPACED, PROPORTIONAL, get_advance, get_cap_height
from pvc.lab.synthetic.scene import Backdrop
from pvc.lab.synthetic.seeding import Rng
from pvc.lab.synthetic.vocabulary import Rgb

TILE = 64  # pixels of a tile's side
MAX_TILES = 4
MIN_WIDTH = 5.0  # pixels of a tile per character: narrower text would teach guessing
MIN_CAP = 5.6  # pixels of a tile that a capital is high


@functools.lru_cache(maxsize=4096)
def compute_tile_grid(width: int, height: int, tile: int = TILE, max_tiles: int = MAX_TILES) -> tuple[int, int]:
    """Return the columns and rows of tiles that the image processor cuts a picture into.

    It is the grid whose aspect ratio is closest to the picture's. Among equals, the larger one is used if the picture
    has more than half of its pixels (InternVL's rule).

    Args:
        width: pixels of the picture.
        height: pixels of the picture.
        tile: pixels of a tile's side.
        max_tiles: maximum number of tiles.
    """
    grids = sorted(
        {
            (c, r)
            for n in range(1, max_tiles + 1)
            for c in range(1, n + 1)
            for r in range(1, n + 1)
            if 1 <= c * r <= max_tiles
        },
        key=lambda grid: grid[0] * grid[1],
    )
    best, distance = (1, 1), float("inf")
    for columns, rows in grids:
        difference = abs(width / height - columns / rows)
        if difference < distance:
            best, distance = (columns, rows), difference
        elif difference == distance and width * height > 0.5 * tile * tile * columns * rows:
            best = columns, rows
    return best


@dataclass(frozen=True)
class PageSize:
    """The size of a page.

    Attributes:
        width: pixels.
        height: pixels.
    """

    width: int
    height: int

    @property
    def across(self) -> float:
        """Pixels of the tiles per pixel of the page, horizontally."""
        return compute_tile_grid(self.width, self.height)[0] * TILE / self.width

    @property
    def down(self) -> float:
        """Pixels of the tiles per pixel of the page, vertically."""
        return compute_tile_grid(self.width, self.height)[1] * TILE / self.height

    def compute_min_size(self, face: str, text: str) -> float:
        """Return the smallest font size at which a line is legible after tiling.

        Args:
            face: one of `faces.FACES`.
            text: the line.
        """
        letters = max(1, len(text.replace(" ", "")))
        by_width = MIN_WIDTH * letters / (get_advance(face, text.replace(" ", "")) * self.across)
        return max(by_width, MIN_CAP / (get_cap_height(face) * self.down))

    def sample_font_size(self, rng: Rng, face: str, texts: list[str], width: float, height: float) -> float | None:
        """Sample a font size for lines that share it.

        Args:
            rng: random generator of the sample.
            face: one of `faces.FACES`.
            texts: the lines.
            width: maximum width of a line in pixels.
            height: maximum height of a line in pixels, from capital to baseline.

        Returns:
            The size in pixels, or None if the lines do not fit legibly.
        """
        min_size = max(self.compute_min_size(face, text) for text in texts)
        max_size = min(height / get_cap_height(face), min(width / get_advance(face, text) for text in texts))
        if max_size < min_size:
            return None
        # Small text is the skill to learn, so half of the lines are near the minimum.
        max_size = min(max_size, 6 * min_size)
        return round(min_size + (max_size - min_size) * rng.random() ** 1.6, 2)


def sample_page(rng: Rng) -> PageSize:
    """Sample the size of a page: aspect ratios from 1:4 to 4:1, at tile size or up to five times as large."""
    ratio = rng.weighted({"square": 0.22, "photo": 0.33, "wide": 0.3, "tall": 0.15})
    if ratio == "square":
        aspect = 1.0
    elif ratio == "photo":
        aspect = rng.choice((4 / 3, 3 / 2, 16 / 9, 3 / 4, 2 / 3, 9 / 16))
    else:
        aspect = 2 ** rng.uniform(0.3, 2.05)
        aspect = aspect if ratio == "wide" else 1 / aspect
    area = 2 ** rng.uniform(13.0, 17.6)
    width = max(48, min(800, round((area * aspect) ** 0.5)))
    return PageSize(width, max(48, min(800, round(width / aspect))))


def sample_small_page(rng: Rng) -> PageSize:
    """Sample a page of about a tile, for questions that need no detail."""
    aspect = 2 ** rng.uniform(-0.7, 0.7)
    width = round((rng.uniform(60, 120) ** 2 * aspect) ** 0.5)
    return PageSize(width, max(40, round(width / aspect)))


def sample_face(rng: Rng, monospaced: bool | None = None) -> str:
    """Sample a font face.

    Args:
        rng: random generator of the sample.
        monospaced: whether it is monospaced; None for any.
    """
    if monospaced is None:
        return rng.choice(tuple(FACES))
    return rng.choice(MONOSPACED if monospaced else PROPORTIONAL)


def sample_ink_and_paper(rng: Rng) -> tuple[Rgb, Rgb]:
    """Sample colours of text and ground: dark on light, light on dark, or colours with enough contrast."""
    style = rng.weighted({"paper": 0.34, "dark": 0.2, "colours": 0.46})
    if style == "paper":
        level, ink = rng.integer(225, 255), rng.integer(0, 60)
        return palette.jitter_colour(rng, (ink, ink, ink), 12), palette.jitter_colour(rng, (level, level, level), 10)
    if style == "dark":
        level, ink = rng.integer(0, 50), rng.integer(200, 255)
        return palette.jitter_colour(rng, (ink, ink, ink), 25), palette.jitter_colour(rng, (level, level, level), 12)
    if rng.chance(0.4):
        paper = palette.jitter_colour(rng, rng.choice(tuple(palette.COLOURS.values())), 25)
        extremes = [rgb for rgb in ((255, 255, 255), (0, 0, 0)) if _has_contrast(rgb, paper)]
        if extremes and rng.chance(0.7):
            return rng.choice(extremes), paper
    else:
        paper = palette.sample_rgb(rng)
    return palette.sample_contrasting(rng, paper, split="train_all"), paper


def _has_contrast(first: Rgb, second: Rgb) -> bool:
    return abs(palette.compute_luminance(first) - palette.compute_luminance(second)) >= palette.TEXT_CONTRAST


def sample_paper(rng: Rng, rgb: Rgb) -> Backdrop:
    """Sample a plain or slightly graded ground.

    Args:
        rng: random generator of the sample.
        rgb: its colour.
    """
    if rng.chance(0.78):
        return Backdrop(rgb)
    return Backdrop(rgb, palette.jitter_colour(rng, rgb, 28), rng.uniform(0, 360))


def build_rim(page_size: PageSize, inset: float, rgb: Rgb, items: Sequence[Item]) -> list[Item]:
    """Return a frame along the page's edge, or nothing if text would touch it.

    Args:
        page_size: size of the page.
        inset: distance from the edge and thickness in pixels.
        rgb: colour.
        items: what else is on the page.
    """
    clear = 2 * max(1.0, inset)
    for item in items:
        if isinstance(item, Words):
            x0, y0, x1, y1 = compute_ink_box(item)
            if min(x0, y0) < clear or x1 > page_size.width - clear or y1 > page_size.height - clear:
                return []
    return [Box(inset, inset, page_size.width - inset, page_size.height - inset, None, rgb, max(1.0, inset))]


def sample_finish(rng: Rng, page_size: PageSize) -> Finish:
    """Sample effects of camera and file format: most pages are clean, some are blurred, noisy or compressed.

    The blur is at most half a pixel of a tile, so that the smallest text stays legible.

    Args:
        rng: random generator of the sample.
        page_size: size of the page.
    """
    blur = rng.uniform(0.1, 0.5) / max(page_size.across, page_size.down) if rng.chance(0.15) else 0.0
    noise = rng.uniform(0.5, 6) if rng.chance(0.3) else 0.0
    quality = rng.integer(45, 92) if rng.chance(0.25) else 0
    return Finish(round(blur, 3), noise, rng.integer(0, (1 << 30) - 1) if noise else 0, quality)


__all__ = [
    "PageSize",
    "build_rim",
    "compute_tile_grid",
    "sample_face",
    "sample_finish",
    "sample_ink_and_paper",
    "sample_page",
    "sample_paper",
    "sample_small_page",
]
