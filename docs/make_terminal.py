"""Draws docs/terminal.svg, the README's picture: runs the commands and shows what they really print.

python docs/make_terminal.py
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
COMMANDS = [
    'pvc ask examples/sign.png "What does it say?"',
    'pvc ask examples/chart.png "Which bar is the tallest?"',
    'pvc ask examples/shapes.mp4 "In which direction does the red circle move?"',
    'pvc ask examples/digits.mp4 "Which digits appear, in order?"',
    'pvc ask examples/sign.jpg "What does it say?"',
    'pvc ask examples/digits.mp4 "Which digits appear, in order?" --frames 4 --json',
]


def main() -> None:
    console = Console(record=True, width=104, file=open("/dev/null", "w"))  # noqa: SIM115  # lives as long as we do
    for command in COMMANDS:
        words = shlex.split(command)
        done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True)
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        console.print(Text((done.stdout + done.stderr).strip(), overflow="fold"))
    picture = console.export_svg(title="pvc")
    # rich names web fonts; a picture in a repository must not call home.
    picture = re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)
    (ROOT / "docs" / "terminal.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
