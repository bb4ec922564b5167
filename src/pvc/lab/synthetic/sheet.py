"""A contact sheet: samples enlarged, with question and answer, for a person to judge what a model is asked to see.

It leaves out files: save the picture it returns. Used by developers and the command line.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pvc.lab.synthetic import fonts
from pvc.lab.synthetic.scene import Sample
from pvc.lab.synthetic.seeding import Split
from pvc.lab.synthetic.tasks import make, task_named

_ZOOM = 2
_GAP = 6
_WIDTH = 1100  # pixels that a row of the sheet may fill, unless one strip is wider
_LINE = 11
_LETTER = 4.9  # pixels of a letter of the captions
_MOST = 8  # frames that are shown of a clip
_PAGE = (110, 80)  # pixels, before zoom, that a page may fill


def contact_sheet(
    tasks: Sequence[str],
    count: int,
    *,
    seed: int = 0,
    size: int = 64,
    split: Split = "train",
    zoom: int = _ZOOM,
    levels: Sequence[int] = (),
    frames: int = _MOST,
) -> Image.Image:
    """`count` samples of each task, of these levels in turn (drawn if there are none), clips with some of their frames.

    Under each: task and level, the questions, the answers. Page tasks have no levels; their pictures are made smaller
    to fit.
    """
    strips = []
    for task in map(task_named, tasks):
        for i in range(count):
            level = levels[i % len(levels)] if levels and not task.pages else None
            strips.append(_strip(make(task.name, seed + i, size=size, split=split, level=level), zoom, frames))
    rows: list[list[Image.Image]] = [[]]
    for strip in strips:
        if rows[-1] and sum(s.width + _GAP for s in rows[-1]) + strip.width > _WIDTH:
            rows.append([])
        rows[-1].append(strip)
    width = max(sum(s.width + _GAP for s in row) for row in rows)
    heights = [max(s.height for s in row) + _GAP for row in rows]
    sheet = Image.new("RGB", (width, sum(heights)), (60, 60, 60))
    y = 0
    for row, height in zip(rows, heights, strict=True):
        x = 0
        for strip in row:
            sheet.paste(strip, (x, y))
            x += strip.width + _GAP
        y += height
    return sheet


def _strip(sample: Sample, zoom: int, most: int) -> Image.Image:
    pages = task_named(sample.task).pages
    pictures = []
    for medium in sample.all_media:
        shown = min(most, len(medium.frames))
        chosen = [round(i * (len(medium.frames) - 1) / max(1, shown - 1)) for i in range(shown)]
        pictures += [_fitted(frame, zoom) if pages else _enlarged(frame, zoom) for frame in medium.frames[chosen]]
    if not pictures:
        pictures = [Image.new("RGB", (_PAGE[0] * zoom, 1))]
    width, height = sum(picture.width + 2 for picture in pictures), max(picture.height for picture in pictures)
    width = max(width, _PAGE[0] * zoom if pages else 0)
    letters = int(width / _LETTER)
    title = sample.task if pages else f"{sample.task} {sample.level}"
    lines = [(title, (255, 200, 80))]
    asked = [(sample.question, sample.answer), *((turn.question, turn.answer) for turn in sample.turns)]
    for question, answer in asked:
        for text, ink in ((question, (230, 230, 230)), (answer, (120, 255, 120))):
            lines += [(line, ink) for line in textwrap.wrap(text, letters)]
    strip = Image.new("RGB", (width, height + _LINE * len(lines) + 3), (20, 20, 20))
    x = 0
    for picture in pictures:
        strip.paste(picture, (x, 0))
        x += picture.width + 2
    pen = ImageDraw.Draw(strip)
    for i, (line, ink) in enumerate(lines):
        pen.text((2, height + 1 + i * _LINE), line, fill=ink, font=fonts.font("sans", 9))
    return strip


def _enlarged(frame: NDArray[np.uint8], zoom: int) -> Image.Image:
    size = (frame.shape[1] * zoom, frame.shape[0] * zoom)
    return Image.fromarray(frame).resize(size, Image.Resampling.NEAREST)


def _fitted(frame: NDArray[np.uint8], zoom: int) -> Image.Image:
    """Return a picture that is as large as the sheet has room for, at most `zoom` times its size."""
    height, width = frame.shape[:2]
    scale = min(zoom, zoom * _PAGE[0] / width, zoom * _PAGE[1] / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)
