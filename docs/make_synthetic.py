"""Draw docs/synthetic.png and docs/synthetic-pages.png: samples of every task with questions and answers.

The first has every level of pictures and one sample of every task of clips, the second two samples of every page task.

python docs/make_synthetic.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps

from pvc.lab.synthetic import TASKS, contact_sheet

PICTURES = [name for name, task in TASKS.items() if task.kind == "image" and not task.pages]
CLIPS = [name for name, task in TASKS.items() if task.kind == "video" and not task.pages]
PAGES = [name for name, task in TASKS.items() if task.pages]
BITS = 5  # kept of every channel: noise cannot be compressed, and a palette would make spots of it


def main() -> None:
    scenes = [
        contact_sheet(PICTURES, 4, seed=3, levels=(1, 2, 3, 4), zoom=2),
        contact_sheet(CLIPS, 1, seed=3, levels=(2,), zoom=2, frames=4),
    ]
    write("synthetic.png", scenes)
    write("synthetic-pages.png", [contact_sheet(PAGES, 2, seed=3, zoom=2, frames=3)])


def write(name: str, sheets: list[Image.Image]) -> None:
    """Write sheets below each other."""
    whole = Image.new("RGB", (max(s.width for s in sheets), sum(s.height for s in sheets)), (60, 60, 60))
    y = 0
    for sheet in sheets:
        whole.paste(sheet, (0, y))
        y += sheet.height
    path = Path(__file__).parent / name
    ImageOps.posterize(whole, BITS).save(path, optimize=True)
    print(f"{path.name}: {whole.size}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
