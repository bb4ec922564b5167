"""A contact sheet: samples enlarged, with question and answer, for a person to judge what a model is asked to see.

It leaves out files: save the picture it returns. Used by developers and the command line.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw

from pvc.synthetic import fonts
from pvc.synthetic.scene import Sample
from pvc.synthetic.seeding import Split
from pvc.synthetic.tasks import make, task_named

_ZOOM = 2
_GAP = 6
_WIDTH = 1100  # pixels that a row of the sheet may fill, unless one strip is wider
_LINE = 11
_LETTER = 4.9  # pixels of a letter of the captions
_MOST = 8  # frames that are shown of a clip


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

    Under each: task and level, the question, the answer.
    """
    strips = [
        _strip(
            make(task, seed + i, size=size, split=split, level=levels[i % len(levels)] if levels else None),
            zoom,
            frames,
        )
        for task in tasks
        if task_named(task)
        for i in range(count)
    ]
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
    pictures: list[Image.Image] = []
    for medium in sample.media:
        shown = min(most, len(medium.frames))
        chosen = [round(i * (len(medium.frames) - 1) / max(1, shown - 1)) for i in range(shown)]
        for frame in medium.frames[chosen]:
            large = (frame.shape[1] * zoom, frame.shape[0] * zoom)
            pictures.append(Image.fromarray(frame).resize(large, Image.Resampling.NEAREST))
    width, height = sum(picture.width + 2 for picture in pictures), max(picture.height for picture in pictures)
    letters = int(width / _LETTER)
    lines = [(f"{sample.task} {sample.level}", (255, 200, 80))]
    for text, ink in ((sample.question, (230, 230, 230)), (sample.answer, (120, 255, 120))):
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
