"""Makes the pictures next to it as real ones come about: `python examples/real/make.py` (needs Chromium and poppler).

A terminal and two web pages are screenshots of a browser; a letter is printed to PDF, rendered, and treated as a
scanner would. None of it is drawn by the synthetic world that
trains the bundled model. `questions.jsonl` asks about them.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

HERE = Path(__file__).parent
BROWSER = ("chromium", "chromium-browser", "google-chrome")
SHOP = """<body style="margin:0;background:#f4f1ea;font-family:sans-serif;text-align:center">
<div style="background:#14532d;color:white;font-size:120px;font-weight:bold;padding:30px">OPEN</div>
<div style="font-size:110px;margin-top:45px;color:#222">9:00</div>
<div style="font-size:90px;margin-top:40px;color:#b91c1c;font-weight:bold">SALE 50%</div></body>"""
PRICES = """<body style="margin:0;background:white;font-family:serif">
<table style="font-size:84px;width:100%;padding:30px">
<tr><td>Tea</td><td align=right>2.50</td></tr><tr><td>Cake</td><td align=right>4.20</td></tr>
<tr style="border-top:4px solid"><td><b>Total</b></td><td align=right><b>6.70</b></td></tr></table></body>"""
LETTER = """<body style="font-family:'DejaVu Serif',serif;font-size:60px;line-height:1.9;margin:60px">
INVOICE<br>No. 4711<br>Due 30 days</body>"""
QUESTIONS = [
    ("shop.png", "What is in line 1?", "OPEN"),
    ("shop.png", "What is in line 2?", "9:00"),
    ("shop.png", "What is in line 3?", "SALE 50%"),
    ("prices.png", "What is the total?", "6.70"),
    ("prices.png", "What is the price of Tea?", "2.50"),
    ("terminal.png", "What is in line 1?", "$ ls"),
    ("terminal.png", "What is in line 2?", "README"),
    ("scan.jpg", "What is in line 1?", "INVOICE"),
    ("scan.jpg", "What is in line 2?", "No. 4711"),
]


def browser(*arguments: str) -> None:
    """Run a headless browser; it is only needed here."""
    program = next((found for name in BROWSER if (found := shutil.which(name))), None)
    if program is None:
        sys.exit(f"this needs one of {', '.join(BROWSER)}")
    subprocess.run(
        [program, "--headless", "--no-sandbox", "--disable-gpu", *arguments], check=True, capture_output=True
    )


def screenshot(page: Path, target: Path, width: int, height: int) -> None:
    browser("--hide-scrollbars", f"--window-size={width},{height}", f"--screenshot={target}", page.as_uri())


def terminal(folder: Path) -> Path:
    """A terminal as rich exports it, in large print."""
    console = Console(record=True, width=12, height=4, force_terminal=True, file=io.StringIO())
    for line in ("$ ls", "README", "docs src", "$"):
        console.print(line, highlight=False)
    page = folder / "terminal.html"
    html = console.export_html(inline_styles=True)
    style = "body{margin:0;background:#101418!important} pre{font-size:96px;margin:30px;color:#e8e8e8!important}"
    page.write_text(f"{html}<style>{style}</style>", encoding="utf-8")
    return page


def scanned(page: Path, folder: Path) -> Image.Image:
    """The page printed to PDF, rendered at 72 dots an inch, turned a little, grey, with noise and uneven light."""
    pdf = folder / "letter.pdf"
    browser("--no-pdf-header-footer", f"--print-to-pdf={pdf}", page.as_uri())
    subprocess.run(["pdftoppm", "-r", "72", "-png", "-singlefile", str(pdf), str(folder / "letter")], check=True)
    paper = Image.open(folder / "letter.png").convert("L").crop((30, 60, 430, 360))
    turned = paper.rotate(1.2, Image.Resampling.BICUBIC, fillcolor=255)
    pixels = np.asarray(turned, np.float32)
    light = np.linspace(1.0, 0.86, pixels.shape[1], dtype=np.float32)[None]
    noise = np.random.default_rng(0).normal(0, 6, pixels.shape)
    return Image.fromarray(np.clip(pixels * 0.93 * light + noise, 0, 255).astype(np.uint8))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stem, source in (("shop", SHOP), ("prices", PRICES), ("letter", LETTER)):
            (folder / f"{stem}.html").write_text(f"<!doctype html><meta charset=utf-8>{source}", encoding="utf-8")
        screenshot(folder / "shop.html", HERE / "shop.png", 640, 640)
        screenshot(folder / "prices.html", HERE / "prices.png", 600, 480)
        screenshot(terminal(folder), HERE / "terminal.png", 640, 560)
        scanned(folder / "letter.html", folder).save(HERE / "scan.jpg", quality=60)
    with (HERE / "questions.jsonl").open("w", encoding="utf-8") as out:
        for number, (image, question, answer) in enumerate(QUESTIONS):
            turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
            out.write(
                json.dumps({"id": f"{number + 1}-{Path(image).stem}", "image": image, "conversations": turns}) + "\n"
            )


if __name__ == "__main__":
    main()
