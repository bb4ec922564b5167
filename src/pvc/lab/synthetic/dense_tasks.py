"""Dense text: `rows`, a picture full of characters in equal cells, and `needle`, one odd character among equal ones.

The ablation study and reading tests of small models use `rows`: its level sets the number of characters in the picture
and changes nothing else. Called by `tasks`.
"""

from __future__ import annotations

from pvc.lab.synthetic import fonts, palette
from pvc.lab.synthetic.phrasing import phrase, select_distinct
from pvc.lab.synthetic.scene import UNITS, Scene, SceneOptions, SceneQA, Text
from pvc.lab.synthetic.seeding import Rng, Split, is_text_allowed

# Rows and columns of a level. A visual token at ratio 1/4 covers 32 x 32 pixels: at 64 pixels a side these are 2, 4, 8
# and 16 characters a token, at 32 pixels four times as many.
GRIDS = {1: (2, 4), 2: (4, 4), 3: (4, 8), 4: (8, 8)}
_HELD_OUT_GRIDS = {1: (2, 3), 2: (3, 5), 3: (5, 7), 4: (7, 7)}
# All of these differ at 8 x 16 pixels.
ALPHABET = "ABCDEFGHJKLMNPRSTUVWXYZ23456789"
_FONT, _HELD_OUT_FONT = "mono-bold", "typewriter"
_READ = ("What is in line {row}?", "Read line {row}.")
_MAX_QUESTIONS = 8  # questions of a sample
_NEEDLE_SIDES = {1: 3, 2: 4, 3: 6, 4: 8}
_SIMILAR_PAIRS = ("EF", "PR", "CG", "MN", "VY", "UV", "38", "56", "BR", "BP", "KX", "HN", "TY", "SZ", "27", "89")
_ODD = ("Which character is the odd one out?", "Which character is different from the others?")


def _sample_line(rng: Rng, options: SceneOptions, columns: int) -> str:
    while True:
        text = "".join(rng.choice(ALPHABET) for _ in range(columns))
        if is_text_allowed(text, options.split):
            return text


def build_rows(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build lines of characters in equal cells that fill the picture, and ask for the lines in random order.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level, (extent_w, extent_h) = palette.sample_level(rng, options), palette.sample_extent(rng, options)
    number, columns = (_HELD_OUT_GRIDS if options.split == "layouts" else GRIDS)[level]
    number, columns = number * int(extent_h / UNITS), columns * int(extent_w / UNITS)
    lines = [_sample_line(rng, options, columns) for _ in range(number)]
    ground = palette.sample_rgb(rng)
    rgb = palette.sample_contrasting(rng, ground, split=options.split)
    cell_w, cell_h = extent_w / columns, extent_h / number
    # Capitals of a monospaced face are about as wide as 0.75 of their height: the narrower direction limits the height.
    height = min(0.6 * cell_h, 1.15 * cell_w)
    font = _HELD_OUT_FONT if options.split == "fonts" else _FONT
    items = []
    for row, text in enumerate(lines):
        x = extent_w / 2 + rng.uniform(-0.08, 0.08) * cell_w
        y = (row + 0.5) * cell_h + rng.uniform(-0.08, 0.08) * cell_h
        width = extent_w - rng.uniform(0.16, 0.26) * cell_w
        items.append(Text(text, font, rgb, round(width, 3), round(height, 3), 0.0, 0.0, ((round(x, 3), round(y, 3)),)))
    order = rng.sample(range(number), number)
    pairs = [(rng.choice(_READ).format(row=row + 1), lines[row]) for row in order]
    facts = {"lines": lines, "order": order}
    effects = palette.sample_effects(rng, fine=True)
    scene = Scene(palette.Backdrop(ground), effects, (), (), tuple(items), asked=facts, extent=(extent_w, extent_h))
    return SceneQA(scene, *pairs[0], more=tuple(pairs[1:_MAX_QUESTIONS]), level=level)


def _sample_base_and_odd(rng: Rng, split: Split, level: int) -> tuple[str, str]:
    """Return the character that fills the grid and the odd one; half of the hardest pictures have similar ones."""
    while True:
        base, odd = rng.sample(rng.choice(_SIMILAR_PAIRS) if level == 4 and rng.chance(0.5) else ALPHABET, 2)
        if is_text_allowed(base + odd, split):
            return base, odd


def build_needle(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build a grid of one character with an odd one in it, and ask which it is, or where.

    Level: 3, 4, 6, 8 characters a side.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level, (width, height) = palette.sample_level(rng, options), palette.sample_extent(rng, options)
    side = _NEEDLE_SIDES[level]
    number, columns = side * int(height / UNITS), side * int(width / UNITS)
    base, odd = _sample_base_and_odd(rng, options.split, level)
    while True:
        row, column = rng.integer(0, number - 1), rng.integer(0, columns - 1)
        if palette.is_layout_allowed(options.split, "grid", number, columns, row, column):
            break
    ground = palette.sample_backdrop(rng)
    rgb = palette.sample_contrasting(rng, *palette.get_colours(ground), split=options.split)
    cell = UNITS / side
    cap = round(cell * rng.uniform(0.58, 0.74), 3)
    font = rng.choice(_get_needle_fonts(options.split))
    # Monospaced characters are 0.6 of the size wide and capitals 0.73 of it high: this sets them one cell apart.
    spacing = round(cell * 0.73 / cap - 0.6, 3)
    ink = round((columns - 1) * cell + 0.66 * cap, 3)
    items = []
    for i in range(number):
        text = base * column + odd + base * (columns - column - 1) if i == row else base * columns
        items.append(Text(text, font, rgb, ink, cap, spacing, 0.0, ((width / 2, round((i + 0.5) * cell, 3)),)))
    facts = {"base": base, "odd": odd, "row": row + 1, "column": column + 1}
    effects = palette.sample_effects(rng, fine=level >= 3)
    scene = Scene(ground, effects, (), (), tuple(items), asked=facts, extent=(width, height))
    candidates = [
        phrase(rng, rng.choice(_ODD), odd, f"The odd character is {odd}."),
        phrase(rng, "In which row is the odd character?", str(row + 1), f"The odd character is in row {row + 1}."),
        phrase(
            rng,
            "In which column is the odd character?",
            str(column + 1),
            f"The odd character is in column {column + 1}.",
        ),
        phrase(rng, "Which character is there many times?", base, f"The character {base} is there many times."),
    ]
    first_question = candidates[rng.weighted({0: 0.5, 1: 0.25, 2: 0.25})]
    return SceneQA(scene, *first_question, select_distinct(first_question[0], candidates, 4, rng), level=level)


def _get_needle_fonts(split: Split) -> tuple[str, ...]:
    even = ("mono", "mono-bold", "typewriter")  # an odd character must not move its neighbours
    return tuple(family for family in even if family in fonts.get_families(split))
