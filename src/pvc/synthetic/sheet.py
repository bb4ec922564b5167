"""A contact sheet: samples enlarged, with question and answer, for a person to judge what a model is asked to see.

It leaves out files: save the picture it returns. Used by developers and the command line.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from pvc.synthetic import fonts
from pvc.synthetic.scene import Sample
from pvc.synthetic.seeding import Split
from pvc.synthetic.tasks import make, task_named

_ZOOM = 2
_CAPTION = 28
_GAP = 6


def contact_sheet(
    tasks: Sequence[str], count: int, *, seed: int = 0, size: int = 64, split: Split = "train", zoom: int = _ZOOM
) -> Image.Image:
    """`count` samples of each task: pictures side by side, clips one in a row with all their frames."""
    strips = [
        [_strip(make(task, seed + i, size=size, split=split), zoom) for i in range(count)]
        for task in tasks
        if task_named(task)
    ]
    rows: list[list[Image.Image]] = []
    for strip in strips:
        across = max(1, (16 * size * zoom) // max(s.width for s in strip))
        rows += [strip[i : i + across] for i in range(0, len(strip), across)]
    width = max(sum(s.width + _GAP for s in row) for row in rows)
    sheet = Image.new("RGB", (width, sum(row[0].height + _GAP for row in rows)), (60, 60, 60))
    y = 0
    for row in rows:
        x = 0
        for strip_image in row:
            sheet.paste(strip_image, (x, y))
            x += strip_image.width + _GAP
        y += row[0].height + _GAP
    return sheet


def _strip(sample: Sample, zoom: int) -> Image.Image:
    side = sample.frames.shape[1] * zoom
    frames = len(sample.frames)
    strip = Image.new("RGB", (frames * (side + 2), side + _CAPTION), (20, 20, 20))
    for i, frame in enumerate(sample.frames):
        strip.paste(Image.fromarray(frame).resize((side, side), Image.Resampling.NEAREST), (i * (side + 2), 0))
    pen = ImageDraw.Draw(strip)
    pen.text((2, side + 1), sample.question, fill=(230, 230, 230), font=fonts.font("sans", 9))
    pen.text((2, side + 13), sample.answer, fill=(120, 255, 120), font=fonts.font("sans-bold", 11))
    return strip
