"""Contact sheets: all items of a kind in one picture, with questions and answers, for visual checks.

Called by `__main__.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.nano_suite.fonts import load_font
from benchmarks.nano_suite.items import Item
from PIL import Image, ImageDraw

_CELL, _ACROSS, _TEXT = (300, 250), 6, 64


def write_sheets(items: Sequence[Item], folder: Path, columns: int = _ACROSS) -> list[Path]:
    """Write one sheet per kind, `KIND.png`.

    Args:
        items: the items.
        folder: folder for the files.
        columns: items in a row of the sheet.

    Returns:
        Paths of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in dict.fromkeys(item.kind for item in items):
        path = folder / f"{kind}.png"
        _sheet([item for item in items if item.kind == kind], columns).save(path)
        written.append(path)
    return written


def _sheet(items: list[Item], columns: int) -> Image.Image:
    rows = -(-len(items) // columns)
    sheet = Image.new("RGB", (columns * _CELL[0], rows * (_CELL[1] + _TEXT)), (200, 200, 205))
    pen, font = ImageDraw.Draw(sheet), load_font("manrope", 12)
    for at, item in enumerate(items):
        left, top = at % columns * _CELL[0], at // columns * (_CELL[1] + _TEXT)
        _media(sheet, item, left, top)
        y = top + _CELL[1] - 4
        for turn in item.turns:
            expected = turn.question.expected.replace("\n", " / ")
            pen.text((left + 5, y), f"{item.number}. {turn.question.text}", fill=(0, 0, 0), font=font)
            pen.text((left + 5, y + 14), f"= {expected}", fill=(0, 70, 160), font=font)
            y += 31
    return sheet


def _media(sheet: Image.Image, item: Item, left: int, top: int) -> None:
    media = [medium for turn in item.turns for medium in turn.media]
    if not media:
        return
    high = (_CELL[1] - 8) // len(media)
    for at, medium in enumerate(media):
        frames = [canvas.finish() for canvas in medium.render()]
        across = min(4, len(frames)) if len(frames) > 1 else 1
        down = -(-len(frames) // across)
        for place, frame in enumerate(frames):
            frame.thumbnail(((_CELL[0] - 8) // across - 2, high // down - 2))
            x = left + 4 + place % across * ((_CELL[0] - 8) // across)
            sheet.paste(frame, (x, top + 4 + at * high + place // across * (high // down)))
