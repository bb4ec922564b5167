"""Questions about bar charts and line charts. Called by `suite.py`."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from benchmarks.nano_suite.canvas import COLOURS, RGB, Canvas, pick_face
from benchmarks.nano_suite.items import Item, Question, generators, picture, single
from benchmarks.nano_suite.words import DAYS, MONTHS, NAMES

Size = tuple[int, int]
SIZES = ((400, 300), (640, 480), (512, 512), (600, 400), (400, 400), (480, 480), (768, 256))
_THEMES: tuple[tuple[RGB, RGB], ...] = (
    ((255, 255, 255), (30, 30, 34)),
    ((248, 244, 234), (50, 40, 30)),
    ((38, 42, 50), (235, 235, 240)),
)


def _labels(rng: Random, min_count: int) -> tuple[list[str], str]:
    """Choose at least `min_count` labels in order, and their common noun; at most four words or six letters."""
    series, noun = rng.choice(
        (
            (MONTHS, "month"),
            (DAYS, "day"),
            ([name for name in NAMES if len(name) == 3], "name"),
            ("BCDEFGHKLM", "letter"),
        )
    )
    count = rng.randint(min_count, 6 if noun == "letter" else 4)
    if noun == "name":
        return rng.sample(series, count), noun
    start = rng.randint(0, len(series) - count)
    return list(series[start : start + count]), noun


def _bar_question(rng: Random, labels: list[str], values: list[int], noun: str, form: int) -> Question:
    target = rng.randrange(len(labels))
    if form == 0:
        text = rng.choice(
            ("Which bar is the tallest?", "Which bar is the highest?", f"Which {noun} has the largest value?")
        )
        best = labels[values.index(max(values))]
        return Question(text, best, "choice", tuple(label for label in labels if label != best))
    if form == 1:
        text = rng.choice(("Which bar is the smallest?", "Which bar is the lowest?", f"Which {noun} has the least?"))
        best = labels[values.index(min(values))]
        return Question(text, best, "choice", tuple(label for label in labels if label != best))
    if form == 2:
        label = labels[target]
        text = rng.choice(("What is the value of {}?", "What number is on the bar {}?", "How much is {}?"))
        return Question(text.format(label), str(values[target]), "number")
    text = rng.choice(("How many bars are there?", "How many bars does the chart have?", "Count the bars."))
    return Question(text, str(len(labels)), "number")


def _different_values(rng: Random, count: int) -> list[int]:
    """Choose values whose maximum and minimum are easy to see."""
    values = rng.sample(range(4, 17), count)
    values = [value * 5 if rng.random() < 0.5 else value * 5 + 2 for value in values]
    values[values.index(max(values))] += 15
    values[values.index(min(values))] -= 8
    return values


def bars(rng: Random, form: int) -> tuple[Callable[[Size, Random], Canvas], Question]:
    """Build a bar chart with its values above the bars, and a question.

    Args:
        rng: the generator.
        form: form of the question, 0 to 3.
    """
    labels, noun = _labels(rng, 2 if form == 3 else 3)
    count = len(labels)
    values = _different_values(rng, count)
    return lambda size, shade: _bars(labels, values, size, shade), _bar_question(rng, labels, values, noun, form)


def _bars(labels: list[str], values: list[int], size: Size, rng: Random) -> Canvas:
    ground, ink = rng.choice(_THEMES)
    face = pick_face(rng)
    canvas = Canvas(size, ground)
    width, height = size
    step = width * 0.96 / len(labels)
    text_size = _label_size(canvas, [*labels, *map(str, values)], step * 0.92, height * 0.17, face)
    base, top = height - text_size * 1.35, text_size * 1.45
    names = ["red", "green", "blue", "orange", "purple", "yellow"]
    shades = [rng.choice(names)] * len(labels) if rng.random() < 0.6 else rng.sample(names, len(labels))
    for at, (label, value, shade) in enumerate(zip(labels, values, shades, strict=True)):
        x = width * 0.02 + step * (at + 0.5)
        y = base - (base - top) * value / max(values)
        canvas.box(x - step * 0.32, y, x + step * 0.32, base, fill=COLOURS[shade][0])
        canvas.text(str(value), x, y - text_size * 0.62, text_size, ink, face)
        canvas.text(label, x, base + text_size * 0.68, text_size, ink, face)
    canvas.path([(width * 0.01, base), (width * 0.99, base)], ink, max(2, height / 160))
    return canvas


def _label_size(canvas: Canvas, strings: list[str], width: float, height: float, face: tuple[str, str]) -> int:
    return max(canvas.smallest_size(face), min(canvas.fitting_size(strings, width, height, face), canvas.height // 7))


def curve(rng: Random, form: int) -> tuple[Callable[[Size, Random], Canvas], Question]:
    """Build a line chart, and a question about its direction, maximum or minimum.

    Args:
        rng: the generator.
        form: form of the question, 0 to 2.
    """
    labels, noun = _labels(rng, 4)
    count = len(labels)
    if form == 0:
        is_rising = rng.random() < 0.5
        values = sorted(rng.sample(range(1, 10), count), reverse=not is_rising)
        question = Question("Does the line go up or down?", "up" if is_rising else "down", "direction")
    else:
        values = rng.sample(range(2, 8), count)
        target = rng.randrange(count)
        values[target] = 11 if form == 1 else -1
        extreme = "highest" if form == 1 else "lowest"
        text = rng.choice((f"At which {noun} is the line {extreme}?", f"Where is the line {extreme}?"))
        others = tuple(label for label in labels if label != labels[target])
        question = Question(text, labels[target], "choice", others)
    return lambda size, shade: _curve(labels, values, size, shade), question


def _curve(labels: list[str], values: list[int], size: Size, rng: Random) -> Canvas:
    ground, ink = rng.choice(_THEMES)
    face = pick_face(rng)
    canvas = Canvas(size, ground)
    width, height = size
    step = width * 0.96 / len(labels)
    text_size = _label_size(canvas, labels, step * 0.92, height * 0.17, face)
    base, top = height - text_size * 1.35, height * 0.08
    low, high = min(values) - 1, max(values)
    points = []
    for at, (label, value) in enumerate(zip(labels, values, strict=True)):
        x = width * 0.02 + step * (at + 0.5)
        points.append((x, base - (base - top) * (value - low) / (high - low)))
        canvas.text(label, x, base + text_size * 0.68, text_size, ink, face)
    colour = COLOURS[rng.choice(("red", "green", "blue", "orange", "purple"))][0]
    canvas.path([(width * 0.01, base), (width * 0.99, base)], ink, max(2, height / 160))
    canvas.path(points, colour, max(3, height / 60))
    for x, y in points:
        canvas.disc(x, y, height / 45, colour)
    return canvas


def chart(number: int) -> Item:
    """Build an item about a chart: two of three are bar charts, the third is a line chart."""
    rng, seed = generators("chart", number)
    render, question = curve(rng, number // 3 % 3) if number % 3 == 2 else bars(rng, (number - number // 3) % 4)
    size = rng.choice(SIZES)
    return single("chart", number, picture(lambda: render(size, Random(seed))), question)
