"""Accuracy by character width: one word in pictures of five aspect ratios, at eight character widths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from benchmarks.nano_suite.canvas import INKS, SCALE, Canvas, character_width_after_tiling, find_grid, pick_face
from benchmarks.nano_suite.fonts import character_width
from benchmarks.nano_suite.items import SEED, Item, Question, picture, single
from benchmarks.nano_suite.report import Row, last_row
from benchmarks.nano_suite.run import Result, run_item, with_progress
from benchmarks.nano_suite.words import WORDS

from pvc.lab.evaluate.intervals import wilson

if TYPE_CHECKING:
    from pvc.engine import Engine

RATIOS = {"4:1": (800, 200), "2:1": (640, 320), "1:1": (512, 512), "1:2": (320, 640), "1:4": (200, 800)}
WIDTHS = (4, 5, 6, 7, 8, 10, 12, 16)
PER_CELL = 24


@dataclass(frozen=True)
class Cell:
    """The right answers of one aspect ratio and character width.

    Attributes:
        ratio: a key of `RATIOS`.
        width: of a character after tiling, in pixels.
        row: the right answers.
    """

    ratio: str
    width: int
    row: Row


def longest_word(size: tuple[int, int], width: int) -> int:
    """Compute how many letters fit across a picture, at most eight.

    Args:
        size: width and height of the picture in pixels.
        width: of a letter after tiling, in pixels.
    """
    return min(8, int(find_grid(*size)[0] * 64 * 0.95 / (width * 1.12)))


def width_item(ratio: str, width: int, number: int) -> Item:
    """Build an item about a word of three to eight lower-case letters, `width` pixels wide each after tiling.

    Args:
        ratio: a key of `RATIOS`.
        width: mean width of a character after tiling, in pixels.
        number: number of the item within its cell.
    """
    rng = Random(f"{SEED}/width/{ratio}/{width}/{number}")
    size = RATIOS[ratio]
    letters = 3 + number % (longest_word(size, width) - 2)
    word = rng.choice([word for word in WORDS if len(word) == letters])
    seed = rng.getrandbits(32)
    question = Question("What does it say?", word, "text")
    return single(f"{ratio} {width}", number, picture(lambda: _word(word, size, width, Random(seed))), question)


def _word(word: str, size: tuple[int, int], width: int, rng: Random) -> Canvas:
    (ground, ink), face = rng.choice(INKS), pick_face(rng)
    canvas = Canvas(size, ground)
    per_pixel = character_width(face[0], 1000, face[1]) / 1000
    font_size = round(width / character_width_after_tiling(per_pixel, *size) * SCALE) / SCALE
    canvas.text(word, size[0] / 2, size[1] / 2, font_size, ink, face)
    return canvas


def run_width(engine: Engine, limit: int | None = None) -> tuple[list[Result], list[Cell]]:
    """Ask for the words of all aspect ratios and widths.

    Args:
        engine: the model.
        limit: maximum number of items for each ratio and width.

    Returns:
        Results of all items, and the right answers for each ratio and width.
    """
    each = PER_CELL if limit is None else min(limit, PER_CELL)
    places = [(ratio, width, number) for ratio in RATIOS for width in WIDTHS for number in range(each)]
    results = [run_item(engine, width_item(*place)) for place in with_progress(places, "words")]
    cells = []
    for ratio in RATIOS:
        for width in WIDTHS:
            name = f"{ratio} {width}"
            cells.append(Cell(ratio, width, last_row(name, [result for result in results if result.kind == name])))
    return results, cells


def to_markdown(cells: list[Cell]) -> str:
    """Format the right words in percent, one line per aspect ratio and one for all."""
    lines = [f"| width : height | {' | '.join(f'{width} px' for width in WIDTHS)} |", f"|---|{'---:|' * len(WIDTHS)}"]
    for ratio in [*RATIOS, "all"]:
        values = []
        for width in WIDTHS:
            chosen = [cell.row for cell in cells if cell.width == width and ratio in (cell.ratio, "all")]
            values.append(f"{100 * sum(row.lenient for row in chosen) / sum(row.count for row in chosen):.0f}")
        lines.append(f"| {ratio} | {' | '.join(values)} |")
    return "\n".join(lines)


def plot(cells: list[Cell], path: Path) -> None:
    """Plot one curve per aspect ratio, and one for all with its interval.

    Args:
        cells: the results.
        path: the PNG file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), dpi=130)
    for ratio in RATIOS:
        shares = [100 * cell.row.lenient / cell.row.count for cell in cells if cell.ratio == ratio]
        axes.plot(WIDTHS, shares, marker="o", markersize=3.5, linewidth=1.2, label=ratio)
    rows = [[cell.row for cell in cells if cell.width == width] for width in WIDTHS]
    right = [sum(row.lenient for row in group) for group in rows]
    count = [sum(row.count for row in group) for group in rows]
    low, high = zip(*(wilson(*pair) for pair in zip(right, count, strict=True)), strict=True)
    axes.plot(WIDTHS, [100 * r / n for r, n in zip(right, count, strict=True)], color="black", linewidth=2, label="all")
    axes.fill_between(WIDTHS, [100 * v for v in low], [100 * v for v in high], color="black", alpha=0.15)
    axes.set(xlabel="mean character width after tiling, pixels", ylabel="words read correctly, %", ylim=(0, 100))
    axes.set_xticks(WIDTHS)
    axes.grid(alpha=0.3)
    axes.legend(title="width : height", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
