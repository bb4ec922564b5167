"""Task `screen`: menus with prices, tables, dialogs, terminals, forms, tickets and lists, asked about one entry.

Called by `tasks` and `albums`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from pvc.lab.synthetic.pages import texts
from pvc.lab.synthetic.pages.canvas import Box, Canvas, Item, Words
from pvc.lab.synthetic.pages.faces import get_advance, get_cap_height
from pvc.lab.synthetic.pages.layout import (
    PageSize,
    build_rim,
    sample_face,
    sample_finish,
    sample_ink_and_paper,
    sample_page,
    sample_paper,
)
from pvc.lab.synthetic.pages.signs import ORDINALS
from pvc.lab.synthetic.palette import jitter_colour, sample_contrasting
from pvc.lab.synthetic.phrasing import select_distinct
from pvc.lab.synthetic.scene import SceneOptions, SceneQA
from pvc.lab.synthetic.seeding import Rng, Split

Questions = list[tuple[str, str]]
_SIZE_TRIES = 40
_VISIBLE = 85.0  # minimum Euclidean distance in RGB of a fill from the page


class _Grid:
    """Cells of text in rows and columns, all in one face and size.

    Args:
        rng: random generator of the sample.
        rows: texts of the cells.
        monospaced: whether the face is monospaced; None for any.
        gap: space between columns, in parts of the font size.
    """

    def __init__(self, rng: Rng, rows: list[list[str]], monospaced: bool | None = None, gap: float = 1.0) -> None:
        self.rng, self.rows = rng, rows
        for tries in itertools.count(1):
            # A grid that fits none of the sampled pages fits the widest one, at the latest in a monospaced face.
            self.page_size = sample_page(rng) if tries <= _SIZE_TRIES else PageSize(720, 180)
            self.face = sample_face(rng, monospaced)
            widths = [
                max(get_advance(self.face, row[c]) for row in rows if c < len(row)) for c in range(max(map(len, rows)))
            ]
            total = sum(widths) + gap * (len(widths) - 1)
            pitch = self.page_size.height / (len(rows) + 0.6)
            min_size = max(self.page_size.compute_min_size(self.face, cell) for row in rows for cell in row if cell)
            max_size = min(0.94 * self.page_size.width / total, 0.64 * pitch / get_cap_height(self.face))
            if max_size >= min_size:
                break
        self.size = round(min_size + (min(max_size, 5 * min_size) - min_size) * rng.random() ** 1.4, 2)
        self.pitch = min(pitch, self.size * rng.uniform(1.35, 2.4))
        self.widths = [w * self.size for w in widths]
        self.gap = gap * self.size
        self.width = sum(self.widths) + self.gap * (len(widths) - 1)
        # The last column is often at the right edge of the page.
        self.spread = rng.chance(0.4) and len(widths) > 1
        self.left = (self.page_size.width - self.width) * (0.08 if self.spread else rng.uniform(0.05, 0.95))
        self.top = (self.page_size.height - self.pitch * len(rows)) * rng.uniform(0.1, 0.9)

    def get_column(self, c: int) -> float:
        """Return the left edge of a column in pixels."""
        if self.spread and c == len(self.widths) - 1:
            return self.page_size.width - self.left - self.widths[c]
        return self.left + sum(self.widths[:c]) + self.gap * c

    def get_baseline(self, row: int) -> float:
        """Return the baseline of a row in pixels."""
        return self.top + self.pitch * (row + 0.5) + self.size * get_cap_height(self.face) / 2

    def build_words(self, ink: tuple[int, int, int], right: bool = False) -> list[Item]:
        """Return the cells as text.

        Args:
            ink: colour.
            right: align all columns but the first to the right.
        """
        items: list[Item] = []
        for r, row in enumerate(self.rows):
            for c, cell in enumerate(row):
                if not cell:
                    continue
                x, anchor = self.get_column(c), "ls"
                if right and c:
                    x, anchor = x + self.widths[c], "rs"
                items.append(
                    Words(cell, self.face, self.size, round(x, 1), round(self.get_baseline(r), 1), ink, anchor)
                )
        return items

    def get_rule(self, row: int) -> float:
        """Return the height of the line above a row in pixels."""
        return self.top + self.pitch * row


def _build_canvas(grid: _Grid, items: list[Item], page: tuple[int, int, int]) -> Canvas:
    page_size = grid.page_size
    return Canvas(
        page_size.width,
        page_size.height,
        sample_paper(grid.rng, page),
        tuple(items),
        sample_finish(grid.rng, page_size),
    )


def _build_menu(rng: Rng, split: Split) -> tuple[Canvas, Questions]:
    count = rng.integer(2, 5)
    things = texts.sample_goods(rng, count)
    sign = rng.choice(("$", "", ""))
    prices: list[str] = []
    while len(prices) < count:
        price = texts.sample_for_split(split, lambda: texts.sample_price(rng, sign))
        if price not in prices:
            prices.append(price)
    rows = [[thing, price] for thing, price in zip(things, prices, strict=True)]
    title = rng.choice(("", "", "MENU", "Menu", "Prices", "Today", "PRICE LIST", "Cafe"))
    all_rows = [[title], *rows] if title else rows
    grid = _Grid(rng, all_rows)
    ink, page = sample_ink_and_paper(rng)
    items = grid.build_words(ink, right=rng.chance(0.5))
    if title and rng.chance(0.4):
        y = round(grid.get_rule(1), 1)
        items.append(Box(grid.left, y, grid.get_column(1) + grid.widths[1], y + max(1, 0.05 * grid.size), ink))
    questions: Questions = []
    for thing, price in rows:
        forms = (
            f"What is the price of {thing}?",
            f"How much is the {thing}?",
            f"How much does the {thing} cost?",
            f"What does {thing} cost?",
            f"How much is {thing}?",
        )
        questions.append((rng.choice(forms), price))
        questions.append((rng.choice((f"What costs {price}?", f"Which item costs {price}?")), thing))
    value = {thing: float(price.strip("$")) for thing, price in rows}
    dearest, cheapest = max(value, key=lambda t: value[t]), min(value, key=lambda t: value[t])
    questions.append((rng.choice(("What is the most expensive item?", "What costs the most?")), dearest))
    questions.append((rng.choice(("What is the cheapest item?", "What costs the least?")), cheapest))
    if title:
        questions.append((rng.choice(("What is the title?", "What is the heading?", "What is at the top?")), title))
    return _build_canvas(grid, items, page), questions


def _build_receipt(rng: Rng, split: Split) -> tuple[Canvas, Questions]:
    count = rng.integer(1, 4)
    things = texts.sample_goods(rng, count)
    cents = [25 * rng.integer(2, 40) for _ in things]
    total = f"{sum(cents) / 100:.2f}"
    name = rng.choice(("Total", "TOTAL", "Sum", "total"))
    rows = [[thing, f"{c / 100:.2f}"] for thing, c in zip(things, cents, strict=True)]
    grid = _Grid(rng, [*rows, [name, total]], monospaced=True if rng.chance(0.5) else None)
    ink, page = sample_ink_and_paper(rng)
    items = grid.build_words(ink, right=True)
    y = round(grid.get_rule(count), 1)
    items.append(Box(grid.left, y, grid.get_column(1) + grid.widths[1], y + max(1, 0.05 * grid.size), ink))
    questions: Questions = [
        (rng.choice(("What is the total?", "How much is the total?", "What is the sum?")), total)
    ] * 2
    for thing, price in rows:
        questions.append((rng.choice((f"What is the price of {thing}?", f"How much is the {thing}?")), price))
    return _build_canvas(grid, items, page), questions


def _build_table(rng: Rng, split: Split) -> tuple[Canvas, Questions]:
    """Build a small table: names and one or two columns of numbers."""
    count, columns = rng.integer(2, 4), 1 if rng.chance(0.6) else 2
    keys = texts.sample_names(rng, count) if rng.chance(0.6) else texts.DAYS[: 2 + rng.integer(0, 3)]
    heads = ["Name", *rng.sample(("Age", "Score", "Room", "Points", "Time", "City", "Wins"), columns)]
    rows = [[key, *(_sample_entry(rng, head) for head in heads[1:])] for key in keys]
    has_heads = columns > 1 or rng.chance(0.6)
    grid = _Grid(rng, [heads, *rows] if has_heads else rows, gap=1.4)
    ink, page = sample_ink_and_paper(rng)
    items: list[Item] = []
    if rng.chance(0.5):
        line = jitter_colour(rng, ink, 40)
        right = grid.get_column(columns) + grid.widths[columns] + 0.3 * grid.size
        for r in range(len(grid.rows) + 1):
            y = round(grid.get_rule(r), 1)
            items.append(Box(max(0, grid.left - 0.3 * grid.size), y, right, y + max(1, 0.03 * grid.size), line))
    items += grid.build_words(ink)
    questions: Questions = []
    for row in rows:
        for head, cell in zip(heads[1:], row[1:], strict=True):
            special_forms = {"City": f"Which city is next to {row[0]}?", "Age": f"How old is {row[0]}?"}
            forms = [f"What is the {head.lower()} of {row[0]}?", f"Which {head.lower()} does {row[0]} have?"]
            if head in ("Points", "Wins"):
                forms = [f"How many {head.lower()} does {row[0]} have?", f"What are the {head.lower()} of {row[0]}?"]
            plain = [f"What is next to {row[0]}?", f"What is in the row of {row[0]}?"] if columns == 1 else []
            special = [special_forms[head]] if head in special_forms and has_heads else []
            questions.append((rng.choice([*(forms if has_heads else plain), *special]), cell))
    return _build_canvas(grid, items, page), questions


def _sample_entry(rng: Rng, head: str) -> str:
    if head == "City":
        return rng.choice(("Paris", "Rome", "Berlin", "London", "Oslo", "Tokyo", "Lima", "Cairo"))
    if head == "Time":
        return f"{rng.integer(6, 22)}:{rng.choice(('00', '15', '30', '45'))}"
    if head == "Room":
        return f"{rng.choice('ABCDE')}{rng.integer(1, 29)}"
    return str(rng.integer(2, 99))


def _build_dialog(rng: Rng, split: Split) -> tuple[Canvas, Questions]:
    """Build a message with one to three buttons."""
    message = texts.sample_phrase(rng, split, 16) + rng.choice(("", "?", "!", "."))
    buttons = texts.sample_screen_words(rng, rng.integer(1, 3))
    while True:
        page_size, face = sample_page(rng), sample_face(rng, False)
        min_size = max(page_size.compute_min_size(face, text) for text in (message, *buttons))
        widths = sum(get_advance(face, b) for b in buttons) + 1.6 * len(buttons)
        max_size = min(
            0.86 * page_size.width / get_advance(face, message), 0.9 * page_size.width / widths, page_size.height / 4.2
        )
        if max_size >= min_size:
            break
    size = round(min_size + (min(max_size, 5 * min_size) - min_size) * rng.random() ** 1.4, 2)
    ink, page = sample_ink_and_paper(rng)
    label, fill = sample_ink_and_paper(rng)
    middle, cap = page_size.width / 2, size * get_cap_height(face)
    y = page_size.height / 2 - 1.1 * size + cap / 2
    items: list[Item] = [Words(message, face, size, middle, round(y, 1), ink, "ms")]
    x, top = middle - widths * size / 2, page_size.height / 2 + 0.3 * size
    for button in buttons:
        w = (get_advance(face, button) + 1.2) * size
        edge = sample_contrasting(rng, page, split="train_all") if rng.chance(0.5) else None
        if edge is None and math.dist(fill, page) < _VISIBLE:
            edge = label
        items.append(Box(x, top, x + w, top + 1.5 * size, fill, edge, 0.06 * size, 0.3 * size))
        items.append(Words(button, face, size, round(x + w / 2, 1), round(top + 0.75 * size + cap / 2, 1), label, "ms"))
        x += w + 0.4 * size
    questions: Questions = [
        (rng.choice(("What does the dialog say?", "What is the message?", "What does the message say?")), message),
        (
            rng.choice(
                ("What does the window say?", "What is the question?" if message[-1] == "?" else "Read the message.")
            ),
            message,
        ),
    ]
    if len(buttons) == 1:
        questions += [
            (q, buttons[0]) for q in ("What does the button say?", "Which button is there?", "What is on the button?")
        ]
    else:
        questions.append((rng.choice(("What is on the left button?", "What does the left button say?")), buttons[0]))
        questions.append((rng.choice(("What is on the right button?", "What does the right button say?")), buttons[-1]))
        questions.append(("How many buttons are there?", str(len(buttons))))
        questions.append((rng.choice(("Which buttons are there?", "What do the buttons say?")), " ".join(buttons)))
    return Canvas(
        page_size.width, page_size.height, sample_paper(rng, page), tuple(items), sample_finish(rng, page_size)
    ), questions


def _build_terminal(rng: Rng, split: Split) -> tuple[Canvas, Questions]:
    """Build a command and its output."""
    command = rng.choice(("ls", "pwd", "date", "whoami", "make", "git log", "python", "cat notes", "top", "ls docs"))
    prompt = rng.choice(("$ ", "$ ", "> ", "# "))
    output = [_sample_output(rng, split) for _ in range(rng.integer(1, 3))]
    if len(set(output)) < len(output):
        output = output[:1]
    grid = _Grid(rng, [[prompt + command], *([text] for text in output)], monospaced=True)
    if rng.chance(0.7):
        page = jitter_colour(rng, (18, 20, 22), 16)
        ink = rng.choice(((230, 230, 230), (120, 230, 120), (250, 200, 90), (150, 210, 250)))
    else:
        ink, page = sample_ink_and_paper(rng)
    questions: Questions = [
        (rng.choice(("Which command was typed?", "What command was run?", "What is the command?")), command),
        (rng.choice(("What is in line 1?", "What does the first line say?")), prompt + command),
    ]
    for i, text in enumerate(output):
        questions.append(
            (rng.choice((f"What is in line {i + 2}?", f"What does the {ORDINALS[i + 1]} line say?")), text)
        )
    if len(output) == 1:
        questions.append((rng.choice(("What is the output?", "What did it print?", "What was printed?")), output[0]))
    return _build_canvas(grid, grid.build_words(ink), page), questions


def _sample_output(rng: Rng, split: Split) -> str:
    kind = rng.integer(0, 4)
    if kind == 0:
        return texts.sample_word(rng, split, 8).lower() + rng.choice((".txt", ".py", ".png", ".md", ".csv"))
    if kind == 1:
        return rng.choice(("README", "LICENSE", "Makefile", "src", "tests", "docs", "notes.txt", "main.py", "data"))
    if kind == 2:
        return rng.choice(
            ("error: not found", "done", "ok", "killed", "no such file", "3 passed", "0 errors", "42 files")
        )
    return texts.sample_number(rng, split) if kind == 3 else texts.sample_word(rng, split, 9)


_FIELDS = ("Name", "City", "Date", "Room", "Seat", "Gate", "Price", "Time", "Phone", "Age", "Code", "Level", "Score")


def _build_form(rng: Rng, split: Split) -> tuple[Canvas, Questions]:
    """Build fields with values, as on forms, tickets and badges."""
    fields = rng.sample(_FIELDS, rng.integer(2, 4))
    values = [_sample_value(rng, split, field) for field in fields]
    colon = rng.choice((":", ":", ""))
    case = rng.choice((str.capitalize, str.upper, str.capitalize))
    rows = [[case(field) + colon, value] for field, value in zip(fields, values, strict=True)]
    title = rng.choice(("", "", "TICKET", "Badge", "Flight", "PASS", "Profile", "Order"))
    grid = _Grid(rng, [[title], *rows] if title else rows, gap=0.7)
    ink, page = sample_ink_and_paper(rng)
    items = grid.build_words(ink)
    if rng.chance(0.35):
        edge, inset = (
            sample_contrasting(rng, page, split="train_all"),
            0.015 * min(grid.page_size.width, grid.page_size.height),
        )
        items = [*build_rim(grid.page_size, inset, edge, items), *items]
    questions: Questions = []
    for field, value in zip(fields, values, strict=True):
        low = field.lower()
        forms = [
            f"What is the {low}?",
            f"Which {low} is shown?",
            f"What does the field {field} say?",
            f"Read the {low}.",
        ]
        questions.append((rng.choice(forms), value))
    if title:
        questions.append((rng.choice(("What is the title?", "What is at the top?", "What is the heading?")), title))
    return _build_canvas(grid, items, page), questions


def _sample_value(rng: Rng, split: Split, field: str) -> str:
    if field == "Name":
        return texts.sample_names(rng, 1)[0]
    if field == "City":
        return _sample_entry(rng, "City")
    if field == "Date":
        return texts.sample_number(rng, split, "date")
    if field == "Time":
        return _sample_entry(rng, "Time")
    if field == "Price":
        return texts.sample_price(rng)
    if field in ("Room", "Seat", "Gate"):
        return (
            f"{rng.choice('ABCDEFGH')}{rng.integer(1, 59)}"
            if rng.chance(0.6)
            else f"{rng.integer(1, 40)}{rng.choice('ABCDEF')}"
        )
    if field == "Phone":
        return f"{rng.integer(200, 999)}-{rng.integer(1000, 9999)}"
    if field == "Code":
        return texts.sample_number(rng, split, "code")
    return texts.sample_for_split(split, lambda: str(rng.integer(1, 99)))


def _build_list(rng: Rng, split: Split) -> tuple[Canvas, Questions]:
    """Build a list of entries, numbered or with marks, sometimes one of them highlighted."""
    count = rng.integer(3, 5)
    entries = texts.sample_screen_words(rng, count) if rng.chance(0.5) else texts.sample_goods(rng, count)
    prefix = rng.choice(("- ", "* ", "", "1"))
    rows = [[(f"{i + 1}. " if prefix == "1" else prefix) + entry] for i, entry in enumerate(entries)]
    grid = _Grid(rng, rows)
    ink, page = sample_ink_and_paper(rng)
    items, questions = grid.build_words(ink), []
    highlight = rng.integer(0, count - 1)
    if rng.chance(0.4):
        bar_ink, fill = sample_ink_and_paper(rng)
        if math.dist(fill, page) < _VISIBLE:
            bar_ink, fill = page, ink
        top = grid.get_rule(highlight)
        bar = Box(
            max(0, grid.left - 0.3 * grid.size), top, grid.left + grid.width + 0.3 * grid.size, top + grid.pitch, fill
        )
        word = items[highlight]
        assert isinstance(word, Words)
        items[highlight] = Words(word.text, word.face, word.size, word.x, word.y, bar_ink, word.anchor)
        items.insert(0, bar)
        questions += [(q, entries[highlight]) for q in ("Which entry is highlighted?", "Which item is selected?")]
    for i, entry in enumerate(entries):
        forms = [f"What is the {ORDINALS[i]} item?", f"What is the {ORDINALS[i]} entry?", f"What is item {i + 1}?"]
        forms += ["What is the last item?"] * 2 if i == count - 1 else []
        questions.append((rng.choice(forms), entry))
    questions.append((rng.choice(("How many items are there?", "How many entries are in the list?")), str(count)))
    return _build_canvas(grid, items, page), questions


_KINDS: dict[Callable[[Rng, Split], tuple[Canvas, Questions]], float] = {
    _build_menu: 0.26,
    _build_receipt: 0.12,
    _build_table: 0.17,
    _build_dialog: 0.14,
    _build_terminal: 0.1,
    _build_form: 0.13,
    _build_list: 0.08,
}


def build_screen(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build a menu, receipt, table, dialog, terminal, form or list, and ask for one entry.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    canvas, questions = rng.weighted(_KINDS)(rng, options.split)
    first = rng.choice(questions)
    return SceneQA(canvas, *first, select_distinct(first[0], questions, 3, rng))


__all__ = ["build_screen"]
