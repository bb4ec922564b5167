"""Dense text: `rows`, a picture full of characters in equal cells of exact density, and `needle`, one odd among equals.

The ablation and the reading of small models are measured on `rows`, so a level means a number of characters in the
picture and nothing else changes with it. It leaves out proportional text (`text_tasks`). Used by `tasks`.
"""

from __future__ import annotations

from pvc.lab.synthetic import fonts, palette
from pvc.lab.synthetic.phrasing import distinct, phrase
from pvc.lab.synthetic.scene import UNITS, Scene, SceneOptions, SceneQA, Text
from pvc.lab.synthetic.seeding import Rng, Split, is_for

# Rows and columns of a level. A visual token at ratio 1/4 covers 32 x 32 pixels: at 64 pixels a side these are 2, 4, 8
# and 16 characters a token, at 32 pixels four times as many.
GRIDS = {1: (2, 4), 2: (4, 4), 3: (4, 8), 4: (8, 8)}
_HELD_OUT_GRIDS = {1: (2, 3), 2: (3, 5), 3: (5, 7), 4: (7, 7)}
# No two of these are alike at 8 x 16 pixels.
ALPHABET = "ABCDEFGHJKLMNPRSTUVWXYZ23456789"
_FONT, _HELD_OUT_FONT = "mono-bold", "typewriter"
_READ = ("What is in line {row}?", "Read line {row}.")
_MOST = 8  # lines that are asked for
_NEEDLE_SIDES = {1: 3, 2: 4, 3: 6, 4: 8}
_ALIKE = ("EF", "PR", "CG", "MN", "VY", "UV", "38", "56", "BR", "BP", "KX", "HN", "TY", "SZ", "27", "89")
_ODD = ("Which character is the odd one out?", "Which character is different from the others?")


def _line(dice: Rng, wish: SceneOptions, columns: int) -> str:
    while True:
        text = "".join(dice.choice(ALPHABET) for _ in range(columns))
        if is_for(text, wish.split):
            return text


def rows(dice: Rng, wish: SceneOptions) -> SceneQA:
    """Equal cells of characters that fill the picture; the lines are asked for in random order."""
    level, (extent_w, extent_h) = palette.level_of(dice, wish), palette.extent_of(dice, wish)
    number, columns = (_HELD_OUT_GRIDS if wish.split == "layouts" else GRIDS)[level]
    number, columns = number * int(extent_h / UNITS), columns * int(extent_w / UNITS)
    lines = [_line(dice, wish, columns) for _ in range(number)]
    ground = palette.any_rgb(dice)
    rgb = palette.contrasting(dice, ground, split=wish.split)
    cell_w, cell_h = extent_w / columns, extent_h / number
    # Capitals of a monospaced face are about as wide as 0.75 of their height: they fill the narrower way.
    height = min(0.6 * cell_h, 1.15 * cell_w)
    font = _HELD_OUT_FONT if wish.split == "fonts" else _FONT
    items = []
    for row, text in enumerate(lines):
        x = extent_w / 2 + dice.uniform(-0.08, 0.08) * cell_w
        y = (row + 0.5) * cell_h + dice.uniform(-0.08, 0.08) * cell_h
        width = extent_w - dice.uniform(0.16, 0.26) * cell_w
        items.append(Text(text, font, rgb, round(width, 3), round(height, 3), 0.0, 0.0, ((round(x, 3), round(y, 3)),)))
    order = dice.sample(range(number), number)
    pairs = [(dice.choice(_READ).format(row=row + 1), lines[row]) for row in order]
    facts = {"lines": lines, "order": order}
    look = palette.look(dice, fine=True)
    scene = Scene(palette.Backdrop(ground), look, (), (), tuple(items), asked=facts, extent=(extent_w, extent_h))
    return SceneQA(scene, *pairs[0], more=tuple(pairs[1:_MOST]), level=level)


def _base_and_odd(dice: Rng, split: Split, level: int) -> tuple[str, str]:
    """The character that fills the grid and the odd one, alike in half of the hardest pictures."""
    while True:
        base, odd = dice.sample(dice.choice(_ALIKE) if level == 4 and dice.chance(0.5) else ALPHABET, 2)
        if is_for(base + odd, split):
            return base, odd


def needle(dice: Rng, wish: SceneOptions) -> SceneQA:
    """A grid of one character with an odd one in it; asked is which, or where. Level: 3, 4, 6, 8 characters a side."""
    level, (width, height) = palette.level_of(dice, wish), palette.extent_of(dice, wish)
    side = _NEEDLE_SIDES[level]
    number, columns = side * int(height / UNITS), side * int(width / UNITS)
    base, odd = _base_and_odd(dice, wish.split, level)
    while True:
        row, column = dice.integer(0, number - 1), dice.integer(0, columns - 1)
        if palette.layout_is_for(wish.split, "grid", number, columns, row, column):
            break
    ground = palette.backdrop(dice)
    rgb = palette.contrasting(dice, *palette.colours_of(ground), split=wish.split)
    cell = UNITS / side
    cap = round(cell * dice.uniform(0.58, 0.74), 3)
    font = dice.choice(_needle_fonts(wish.split))
    # Monospaced characters are 0.6 of the size wide and capitals 0.73 of it high: this sets them one cell apart.
    spacing = round(cell * 0.73 / cap - 0.6, 3)
    ink = round((columns - 1) * cell + 0.66 * cap, 3)
    items = []
    for i in range(number):
        text = base * column + odd + base * (columns - column - 1) if i == row else base * columns
        items.append(Text(text, font, rgb, ink, cap, spacing, 0.0, ((width / 2, round((i + 0.5) * cell, 3)),)))
    facts = {"base": base, "odd": odd, "row": row + 1, "column": column + 1}
    look = palette.look(dice, fine=level >= 3)
    scene = Scene(ground, look, (), (), tuple(items), asked=facts, extent=(width, height))
    candidates = [
        phrase(dice, dice.choice(_ODD), odd, f"The odd character is {odd}."),
        phrase(dice, "In which row is the odd character?", str(row + 1), f"The odd character is in row {row + 1}."),
        phrase(
            dice,
            "In which column is the odd character?",
            str(column + 1),
            f"The odd character is in column {column + 1}.",
        ),
        phrase(dice, "Which character is there many times?", base, f"The character {base} is there many times."),
    ]
    asked = candidates[dice.weighted({0: 0.5, 1: 0.25, 2: 0.25})]
    return SceneQA(scene, *asked, distinct(asked[0], candidates, 4, dice), level=level)


def _needle_fonts(split: Split) -> tuple[str, ...]:
    even = ("mono", "mono-bold", "typewriter")  # only here does an odd character not move its neighbours
    return tuple(family for family in even if family in fonts.families(split))
