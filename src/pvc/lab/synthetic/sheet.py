"""A contact sheet: enlarged samples with questions and answers, for a person to judge.

Called by `docs/make_synthetic.py` and developers, who save the picture that it returns.
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
from pvc.lab.synthetic.tasks import get_task, make

_ZOOM = 2
_GAP = 6
_SHEET_WIDTH = 1100  # pixels that a row of the sheet may fill, unless one strip is wider
_LINE_HEIGHT = 11
_LETTER_WIDTH = 4.9  # pixels of a letter of the captions
_MAX_FRAMES = 8  # frames of a clip
_MAX_PAGE = (110, 80)  # pixels, before zoom, that a page may fill


def contact_sheet(
    tasks: Sequence[str],
    count: int,
    *,
    seed: int = 0,
    size: int = 64,
    split: Split = "train",
    zoom: int = _ZOOM,
    levels: Sequence[int] = (),
    frames: int = _MAX_FRAMES,
) -> Image.Image:
    """Return one picture with samples of several tasks, each above its questions and answers.

    Above the questions stands the task with its level. Clips appear as a few of their frames. Page tasks have no
    levels; their pictures are scaled down to fit.

    Args:
        tasks: names of tasks.
        count: samples of each task.
        seed: seed of the first sample of each task.
        size: pixels of a sample's side, before zoom.
        split: what samples may show.
        zoom: factor by which samples are enlarged.
        levels: levels of successive samples; sampled if there are none.
        frames: maximum number of frames of a clip on the sheet.

    Raises:
        UsageError: A task does not exist or does not take these options.
    """
    strips = []
    for task in map(get_task, tasks):
        for i in range(count):
            level = levels[i % len(levels)] if levels and not task.pages else None
            strips.append(_render_strip(make(task.name, seed + i, size=size, split=split, level=level), zoom, frames))
    rows: list[list[Image.Image]] = [[]]
    for strip in strips:
        if rows[-1] and sum(s.width + _GAP for s in rows[-1]) + strip.width > _SHEET_WIDTH:
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


def _render_strip(sample: Sample, zoom: int, max_frames: int) -> Image.Image:
    pages = get_task(sample.task).pages
    pictures = []
    for medium in sample.all_media:
        count = min(max_frames, len(medium.frames))
        indices = [round(i * (len(medium.frames) - 1) / max(1, count - 1)) for i in range(count)]
        pictures += [_fit_page(frame, zoom) if pages else _enlarge(frame, zoom) for frame in medium.frames[indices]]
    if not pictures:
        pictures = [Image.new("RGB", (_MAX_PAGE[0] * zoom, 1))]
    width, height = sum(picture.width + 2 for picture in pictures), max(picture.height for picture in pictures)
    width = max(width, _MAX_PAGE[0] * zoom if pages else 0)
    letters = int(width / _LETTER_WIDTH)
    title = sample.task if pages else f"{sample.task} {sample.level}"
    lines = [(title, (255, 200, 80))]
    turns = [(sample.question, sample.answer), *((turn.question, turn.answer) for turn in sample.turns)]
    for question, answer in turns:
        for text, ink in ((question, (230, 230, 230)), (answer, (120, 255, 120))):
            lines += [(line, ink) for line in textwrap.wrap(text, letters)]
    strip = Image.new("RGB", (width, height + _LINE_HEIGHT * len(lines) + 3), (20, 20, 20))
    x = 0
    for picture in pictures:
        strip.paste(picture, (x, 0))
        x += picture.width + 2
    pen = ImageDraw.Draw(strip)
    for i, (line, ink) in enumerate(lines):
        pen.text((2, height + 1 + i * _LINE_HEIGHT), line, fill=ink, font=fonts.load_font("sans", 9))
    return strip


def _enlarge(frame: NDArray[np.uint8], zoom: int) -> Image.Image:
    size = (frame.shape[1] * zoom, frame.shape[0] * zoom)
    return Image.fromarray(frame).resize(size, Image.Resampling.NEAREST)


def _fit_page(frame: NDArray[np.uint8], zoom: int) -> Image.Image:
    """Return a picture that is as large as the sheet has room for, at most `zoom` times its size."""
    height, width = frame.shape[:2]
    scale = min(zoom, zoom * _MAX_PAGE[0] / width, zoom * _MAX_PAGE[1] / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)
