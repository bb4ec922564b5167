"""Sizes of pages, how the product will tile them, and colours, grounds and finishes of pages.

Text must stay legible after tiling: `Room` knows how many pixels of a tile a pixel of the page becomes. Used by the
page tasks.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from pvc.lab.synthetic import palette
from pvc.lab.synthetic.pages.canvas import Box, Finish, Item, Words, ink_box
from pvc.lab.synthetic.pages.faces import FACES, MONOSPACED, PROPORTIONAL, advance, cap_height
from pvc.lab.synthetic.scene import Backdrop
from pvc.lab.synthetic.seeding import Rng
from pvc.lab.synthetic.vocabulary import Rgb

TILE = 64  # pixels of a tile's side
MOST_TILES = 4
LEAST_WIDTH = 5.0  # pixels of a tile per character: narrower text would teach guessing
LEAST_CAP = 5.6  # pixels of a tile that a capital is high


@functools.lru_cache(maxsize=4096)
def tile_grid(width: int, height: int, tile: int = TILE, most: int = MOST_TILES) -> tuple[int, int]:
    """Return the columns and rows of tiles that the image processor cuts a picture into.

    The grid of at most `most` tiles whose aspect ratio is closest to the picture's; of equals a larger one if the
    picture has more than half of its pixels (InternVL's rule).
    """
    grids = sorted(
        {(c, r) for n in range(1, most + 1) for c in range(1, n + 1) for r in range(1, n + 1) if 1 <= c * r <= most},
        key=lambda grid: grid[0] * grid[1],
    )
    best, distance = (1, 1), float("inf")
    for columns, rows in grids:
        own = abs(width / height - columns / rows)
        if own < distance:
            best, distance = (columns, rows), own
        elif own == distance and width * height > 0.5 * tile * tile * columns * rows:
            best = columns, rows
    return best


@dataclass(frozen=True)
class Room:
    """A page of width x height pixels; `across` and `down` are the pixels of the tiles per pixel of the page."""

    width: int
    height: int

    @property
    def across(self) -> float:
        return tile_grid(self.width, self.height)[0] * TILE / self.width

    @property
    def down(self) -> float:
        return tile_grid(self.width, self.height)[1] * TILE / self.height

    def least_size(self, face: str, text: str) -> float:
        """Return the smallest font size at which a line is legible after tiling."""
        letters = max(1, len(text.replace(" ", "")))
        by_width = LEAST_WIDTH * letters / (advance(face, text.replace(" ", "")) * self.across)
        return max(by_width, LEAST_CAP / (cap_height(face) * self.down))

    def size_for(self, dice: Rng, face: str, texts: list[str], width: float, height: float) -> float | None:
        """Draw a font size for lines that share it; None if they do not fit into `width` x `height` legibly.

        height: of one line, from capital to baseline.
        """
        least = max(self.least_size(face, text) for text in texts)
        most = min(height / cap_height(face), min(width / advance(face, text) for text in texts))
        if most < least:
            return None
        # Small text is what has to be learnt: half of the lines are near the least size.
        most = min(most, 6 * least)
        return round(least + (most - least) * dice.random() ** 1.6, 2)


def any_page(dice: Rng) -> Room:
    """Draw the size of a page: aspect ratios from 1:4 to 4:1, at tile size or up to five times as large."""
    ratio = dice.weighted({"square": 0.22, "photo": 0.33, "wide": 0.3, "tall": 0.15})
    if ratio == "square":
        wide = 1.0
    elif ratio == "photo":
        wide = dice.choice((4 / 3, 3 / 2, 16 / 9, 3 / 4, 2 / 3, 9 / 16))
    else:
        wide = 2 ** dice.uniform(0.3, 2.05)
        wide = wide if ratio == "wide" else 1 / wide
    area = 2 ** dice.uniform(13.0, 17.6)
    width = max(48, min(800, round((area * wide) ** 0.5)))
    return Room(width, max(48, min(800, round(width / wide))))


def small_page(dice: Rng) -> Room:
    """Draw a page of about a tile, for questions that need no detail."""
    wide = 2 ** dice.uniform(-0.7, 0.7)
    width = round((dice.uniform(60, 120) ** 2 * wide) ** 0.5)
    return Room(width, max(40, round(width / wide)))


def any_face(dice: Rng, monospaced: bool | None = None) -> str:
    """Draw a font face."""
    if monospaced is None:
        return dice.choice(tuple(FACES))
    return dice.choice(MONOSPACED if monospaced else PROPORTIONAL)


def ink_and_paper(dice: Rng) -> tuple[Rgb, Rgb]:
    """Draw colours of text and ground: dark on light, light on dark, or colours with enough contrast."""
    style = dice.weighted({"paper": 0.34, "dark": 0.2, "colours": 0.46})
    if style == "paper":
        level, ink = dice.integer(225, 255), dice.integer(0, 60)
        return palette.near(dice, (ink, ink, ink), 12), palette.near(dice, (level, level, level), 10)
    if style == "dark":
        level, ink = dice.integer(0, 50), dice.integer(200, 255)
        return palette.near(dice, (ink, ink, ink), 25), palette.near(dice, (level, level, level), 12)
    if dice.chance(0.4):
        paper = palette.near(dice, dice.choice(tuple(palette.COLOURS.values())), 25)
        extremes = [rgb for rgb in ((255, 255, 255), (0, 0, 0)) if _apart(rgb, paper)]
        if extremes and dice.chance(0.7):
            return dice.choice(extremes), paper
    else:
        paper = palette.any_rgb(dice)
    return palette.contrasting(dice, paper, split="train_all"), paper


def _apart(one: Rgb, other: Rgb) -> bool:
    return abs(palette.luminance(one) - palette.luminance(other)) >= palette.TEXT_CONTRAST


def paper(dice: Rng, rgb: Rgb) -> Backdrop:
    """Draw a plain ground, or one that is slightly graded."""
    if dice.chance(0.78):
        return Backdrop(rgb)
    return Backdrop(rgb, palette.near(dice, rgb, 28), dice.uniform(0, 360))


def rim(room: Room, inset: float, rgb: Rgb, items: Sequence[Item]) -> list[Item]:
    """Return a frame along the page's edge, `inset` pixels from it and as thick, or nothing if text would touch it."""
    clear = 2 * max(1.0, inset)
    for item in items:
        if isinstance(item, Words):
            x0, y0, x1, y1 = ink_box(item)
            if min(x0, y0) < clear or x1 > room.width - clear or y1 > room.height - clear:
                return []
    return [Box(inset, inset, room.width - inset, room.height - inset, None, rgb, max(1.0, inset))]


def finish(dice: Rng, room: Room) -> Finish:
    """Draw what a camera and a file format do: most pages are clean, some are blurred, noisy or compressed.

    The blur is at most half a pixel of a tile, so that the smallest text stays legible.
    """
    blur = dice.uniform(0.1, 0.5) / max(room.across, room.down) if dice.chance(0.15) else 0.0
    noise = dice.uniform(0.5, 6) if dice.chance(0.3) else 0.0
    quality = dice.integer(45, 92) if dice.chance(0.25) else 0
    return Finish(round(blur, 3), noise, dice.integer(0, (1 << 30) - 1) if noise else 0, quality)


__all__ = ["Room", "any_face", "any_page", "finish", "ink_and_paper", "paper", "rim", "small_page", "tile_grid"]
