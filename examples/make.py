"""Draws the example files next to it: a sign, a chart, and two videos. `python examples/make.py`.

They are drawn here, with other fonts, sizes and layouts than the synthetic world that trained the bundled model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pvc.media import write_image, write_video

HERE = Path(__file__).parent
RED, GREEN, BLUE, YELLOW = (214, 40, 40), (30, 150, 70), (40, 80, 215), (245, 205, 40)


def sign() -> Image.Image:
    """An enamelled house number, 480 x 480."""
    picture = Image.new("RGB", (480, 480), (20, 60, 120))
    draw = ImageDraw.Draw(picture)
    draw.text((240, 240), "42", fill=(245, 245, 245), font=ImageFont.load_default(200), anchor="mm")
    for x, y in ((30, 240), (450, 240)):  # its screws
        draw.ellipse((x - 8, y - 8, x + 8, y + 8), fill=(70, 100, 150))
    return picture


def chart() -> Image.Image:
    """A bar chart of three values, 600 x 450."""
    picture = Image.new("RGB", (600, 450), (235, 235, 240))
    draw = ImageDraw.Draw(picture)
    for place, (height, colour) in enumerate([(150, RED), (330, BLUE), (230, GREEN)]):
        left = 110 + place * 150
        draw.rectangle((left, 400 - height, left + 95, 400), fill=colour)
    draw.line((70, 400, 560, 400), fill=(40, 40, 40), width=6)
    draw.line((70, 40, 70, 400), fill=(40, 40, 40), width=6)
    return picture


def shapes(frames: int = 48) -> np.ndarray:
    """A red circle goes right, a blue square goes up, a yellow triangle stands still: 2 s at 24 frames/s."""
    clip = []
    for number in range(frames):
        part = number / (frames - 1)
        picture = Image.new("RGB", (320, 240), (225, 225, 215))
        draw = ImageDraw.Draw(picture)
        draw.polygon([(250, 150), (295, 225), (205, 225)], fill=YELLOW)
        x, y = 45 + 190 * part, 65
        draw.ellipse((x - 32, y - 32, x + 32, y + 32), fill=RED)
        x, y = 80, 200 - 75 * part
        draw.rectangle((x - 30, y - 30, x + 30, y + 30), fill=BLUE)
        clip.append(np.asarray(picture))
    return np.stack(clip)


def digits(text: str = "472", frames: int = 72) -> np.ndarray:
    """Digits one after another, a second each at 24 frames/s."""
    font = ImageFont.load_default(150)
    clip = []
    for number in range(frames):
        picture = Image.new("RGB", (320, 240), (30, 50, 60))
        draw = ImageDraw.Draw(picture)
        place = number * len(text) // frames
        draw.text((90 + 70 * place, 120), text[place], fill=(250, 240, 200), font=font, anchor="mm")
        clip.append(np.asarray(picture))
    return np.stack(clip)


if __name__ == "__main__":
    write_image(HERE / "sign.png", sign())
    write_image(HERE / "chart.png", chart())
    write_video(HERE / "shapes.mp4", shapes(), fps=24)
    write_video(HERE / "digits.mp4", digits(), fps=24)
