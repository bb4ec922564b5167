"""Draws docs/synthetic.png: one sample of every task and level of pictures, and one of every task of clips.

python docs/make_synthetic.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps

from pvc.synthetic import TASKS, contact_sheet

PICTURES = [name for name, task in TASKS.items() if task.kind == "image"]
CLIPS = [name for name, task in TASKS.items() if task.kind == "video"]
BITS = 5  # kept of every channel: noise cannot be compressed, and a palette would make spots of it


def main() -> None:
    sheets = [
        contact_sheet(PICTURES, 4, seed=3, levels=(1, 2, 3, 4), zoom=2),
        contact_sheet(CLIPS, 1, seed=3, levels=(2,), zoom=2, frames=4),
    ]
    whole = Image.new("RGB", (max(s.width for s in sheets), sum(s.height for s in sheets)), (60, 60, 60))
    whole.paste(sheets[0], (0, 0))
    whole.paste(sheets[1], (0, sheets[0].height))
    path = Path(__file__).parent / "synthetic.png"
    ImageOps.posterize(whole, BITS).save(path, optimize=True)
    print(f"{path.name}: {whole.size}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
