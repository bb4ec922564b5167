"""Dense text: `rows`, a picture full of characters in equal cells, whose density is exact.

The ablation and the reading of small models are measured on it, so a level means a number of characters in the
picture and nothing else changes with it. It leaves out proportional text (`text_tasks`). Used by `tasks`.
"""

from __future__ import annotations

from pvc.synthetic import palette
from pvc.synthetic.scene import LEVELS, UNITS, Draft, Scene, Text, Wish
from pvc.synthetic.seeding import Dice, string_split

# Rows and columns of a level. A visual token at ratio 1/4 covers 32 x 32 pixels: at 64 pixels a side these are 2, 4, 8
# and 16 characters a token, at 32 pixels four times as many.
GRIDS = {1: (2, 4), 2: (4, 4), 3: (4, 8), 4: (8, 8)}
# No two of these are alike at 8 x 16 pixels.
ALPHABET = "ABCDEFGHJKLMNPRSTUVWXYZ23456789"
_FONT = "mono-bold"
_READ = ("What is in line {row}?", "Read line {row}.")


def _line(dice: Dice, wish: Wish, columns: int) -> str:
    while True:
        text = "".join(dice.choice(ALPHABET) for _ in range(columns))
        if (string_split(text) == "train") == (wish.split == "train"):
            return text


def rows(dice: Dice, wish: Wish) -> Draft:
    """Equal cells of characters that fill the picture; the lines are asked for in random order."""
    level = wish.level or dice.integer(1, LEVELS)
    number, columns = GRIDS[level]
    lines = [_line(dice, wish, columns) for _ in range(number)]
    ground = palette.any_rgb(dice)
    rgb = palette.contrasting(dice, ground)
    cell_w, cell_h = UNITS / columns, UNITS / number
    # Capitals of a monospaced face are about as wide as 0.75 of their height: they fill the narrower way.
    height = min(0.6 * cell_h, 1.15 * cell_w)
    items = []
    for row, text in enumerate(lines):
        x = UNITS / 2 + dice.uniform(-0.08, 0.08) * cell_w
        y = (row + 0.5) * cell_h + dice.uniform(-0.08, 0.08) * cell_h
        width = UNITS - dice.uniform(0.16, 0.26) * cell_w
        items.append(Text(text, _FONT, rgb, round(width, 3), round(height, 3), 0.0, 0.0, ((round(x, 3), round(y, 3)),)))
    order = dice.sample(range(number), number)
    pairs = [(dice.choice(_READ).format(row=row + 1), lines[row]) for row in order]
    scene = Scene(
        palette.Backdrop(ground), palette.look(dice), (), (), tuple(items), asked={"lines": lines, "order": order}
    )
    return Draft(scene, *pairs[0], more=tuple(pairs[1:]), level=level)
