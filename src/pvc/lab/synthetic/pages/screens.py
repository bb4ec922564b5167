"""Task `screen`: menus with prices, tables, dialogs, terminals, forms, tickets and lists, asked about one entry."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from pvc.lab.synthetic.pages import texts
from pvc.lab.synthetic.pages.canvas import Box, Canvas, Item, Words
from pvc.lab.synthetic.pages.faces import advance, cap_height
from pvc.lab.synthetic.pages.layout import Room, any_face, any_page, finish, ink_and_paper, paper, rim
from pvc.lab.synthetic.pages.signs import ORDINALS
from pvc.lab.synthetic.palette import contrasting, near
from pvc.lab.synthetic.phrasing import distinct
from pvc.lab.synthetic.scene import SceneOptions, SceneQA
from pvc.lab.synthetic.seeding import Rng, Split

Asks = list[tuple[str, str]]
_SIZE_TRIES = 40
_VISIBLE = 85.0  # Euclidean distance in RGB of a fill from the page that shows it clearly


class _Grid:
    """Cells of text in rows and columns, all in one face and size."""

    def __init__(self, dice: Rng, rows: list[list[str]], monospaced: bool | None = None, gap: float = 1.0) -> None:
        self.dice, self.rows = dice, rows
        for tries in itertools.count(1):
            # What fits none of the drawn pages fits the widest, at the latest in a monospaced face.
            self.room = any_page(dice) if tries <= _SIZE_TRIES else Room(720, 180)
            self.face = any_face(dice, monospaced)
            widths = [
                max(advance(self.face, row[c]) for row in rows if c < len(row)) for c in range(max(map(len, rows)))
            ]
            total = sum(widths) + gap * (len(widths) - 1)
            pitch = self.room.height / (len(rows) + 0.6)
            least = max(self.room.least_size(self.face, cell) for row in rows for cell in row if cell)
            most = min(0.94 * self.room.width / total, 0.64 * pitch / cap_height(self.face))
            if most >= least:
                break
        self.size = round(least + (min(most, 5 * least) - least) * dice.random() ** 1.4, 2)
        self.pitch = min(pitch, self.size * dice.uniform(1.35, 2.4))
        self.widths = [w * self.size for w in widths]
        self.gap = gap * self.size
        self.width = sum(self.widths) + self.gap * (len(widths) - 1)
        # The last column is often at the right edge of the page.
        self.spread = dice.chance(0.4) and len(widths) > 1
        self.left = (self.room.width - self.width) * (0.08 if self.spread else dice.uniform(0.05, 0.95))
        self.top = (self.room.height - self.pitch * len(rows)) * dice.uniform(0.1, 0.9)

    def column(self, c: int) -> float:
        """Return the left edge of a column."""
        if self.spread and c == len(self.widths) - 1:
            return self.room.width - self.left - self.widths[c]
        return self.left + sum(self.widths[:c]) + self.gap * c

    def baseline(self, row: int) -> float:
        return self.top + self.pitch * (row + 0.5) + self.size * cap_height(self.face) / 2

    def words(self, ink: tuple[int, int, int], right: bool = False) -> list[Item]:
        """Return the cells as text; `right` aligns all columns but the first to the right."""
        items: list[Item] = []
        for r, row in enumerate(self.rows):
            for c, cell in enumerate(row):
                if not cell:
                    continue
                x, anchor = self.column(c), "ls"
                if right and c:
                    x, anchor = x + self.widths[c], "rs"
                items.append(Words(cell, self.face, self.size, round(x, 1), round(self.baseline(r), 1), ink, anchor))
        return items

    def rule(self, row: int) -> float:
        """Return the height of the line above a row."""
        return self.top + self.pitch * row


def _sheet(grid: _Grid, items: list[Item], page: tuple[int, int, int]) -> Canvas:
    room = grid.room
    return Canvas(room.width, room.height, paper(grid.dice, page), tuple(items), finish(grid.dice, room))


def _menu(dice: Rng, split: Split) -> tuple[Canvas, Asks]:
    count = dice.integer(2, 5)
    things = texts.goods(dice, count)
    sign = dice.choice(("$", "", ""))
    prices: list[str] = []
    while len(prices) < count:
        price = texts.drawn(split, lambda: texts.price(dice, sign))
        if price not in prices:
            prices.append(price)
    rows = [[thing, price] for thing, price in zip(things, prices, strict=True)]
    title = dice.choice(("", "", "MENU", "Menu", "Prices", "Today", "PRICE LIST", "Cafe"))
    shown = [[title], *rows] if title else rows
    grid = _Grid(dice, shown)
    ink, page = ink_and_paper(dice)
    items = grid.words(ink, right=dice.chance(0.5))
    if title and dice.chance(0.4):
        y = round(grid.rule(1), 1)
        items.append(Box(grid.left, y, grid.column(1) + grid.widths[1], y + max(1, 0.05 * grid.size), ink))
    asks: Asks = []
    for thing, price in rows:
        forms = (
            f"What is the price of {thing}?",
            f"How much is the {thing}?",
            f"How much does the {thing} cost?",
            f"What does {thing} cost?",
            f"How much is {thing}?",
        )
        asks.append((dice.choice(forms), price))
        asks.append((dice.choice((f"What costs {price}?", f"Which item costs {price}?")), thing))
    value = {thing: float(price.strip("$")) for thing, price in rows}
    dearest, cheapest = max(value, key=lambda t: value[t]), min(value, key=lambda t: value[t])
    asks.append((dice.choice(("What is the most expensive item?", "What costs the most?")), dearest))
    asks.append((dice.choice(("What is the cheapest item?", "What costs the least?")), cheapest))
    if title:
        asks.append((dice.choice(("What is the title?", "What is the heading?", "What is at the top?")), title))
    return _sheet(grid, items, page), asks


def _receipt(dice: Rng, split: Split) -> tuple[Canvas, Asks]:
    count = dice.integer(1, 4)
    things = texts.goods(dice, count)
    cents = [25 * dice.integer(2, 40) for _ in things]
    total = f"{sum(cents) / 100:.2f}"
    name = dice.choice(("Total", "TOTAL", "Sum", "total"))
    rows = [[thing, f"{c / 100:.2f}"] for thing, c in zip(things, cents, strict=True)]
    grid = _Grid(dice, [*rows, [name, total]], monospaced=True if dice.chance(0.5) else None)
    ink, page = ink_and_paper(dice)
    items = grid.words(ink, right=True)
    y = round(grid.rule(count), 1)
    items.append(Box(grid.left, y, grid.column(1) + grid.widths[1], y + max(1, 0.05 * grid.size), ink))
    asks: Asks = [(dice.choice(("What is the total?", "How much is the total?", "What is the sum?")), total)] * 2
    for thing, price in rows:
        asks.append((dice.choice((f"What is the price of {thing}?", f"How much is the {thing}?")), price))
    return _sheet(grid, items, page), asks


def _cells(dice: Rng, split: Split) -> tuple[Canvas, Asks]:
    """A small table: names and one or two columns of numbers."""
    count, columns = dice.integer(2, 4), 1 if dice.chance(0.6) else 2
    keys = texts.names(dice, count) if dice.chance(0.6) else texts.DAYS[: 2 + dice.integer(0, 3)]
    heads = ["Name", *dice.sample(("Age", "Score", "Room", "Points", "Time", "City", "Wins"), columns)]
    rows = [[key, *(_entry(dice, head) for head in heads[1:])] for key in keys]
    has_heads = columns > 1 or dice.chance(0.6)
    grid = _Grid(dice, [heads, *rows] if has_heads else rows, gap=1.4)
    ink, page = ink_and_paper(dice)
    items: list[Item] = []
    if dice.chance(0.5):
        line = near(dice, ink, 40)
        right = grid.column(columns) + grid.widths[columns] + 0.3 * grid.size
        for r in range(len(grid.rows) + 1):
            y = round(grid.rule(r), 1)
            items.append(Box(max(0, grid.left - 0.3 * grid.size), y, right, y + max(1, 0.03 * grid.size), line))
    items += grid.words(ink)
    asks: Asks = []
    for row in rows:
        for head, cell in zip(heads[1:], row[1:], strict=True):
            asked = {"City": f"Which city is next to {row[0]}?", "Age": f"How old is {row[0]}?"}
            forms = [f"What is the {head.lower()} of {row[0]}?", f"Which {head.lower()} does {row[0]} have?"]
            if head in ("Points", "Wins"):
                forms = [f"How many {head.lower()} does {row[0]} have?", f"What are the {head.lower()} of {row[0]}?"]
            plain = [f"What is next to {row[0]}?", f"What is in the row of {row[0]}?"] if columns == 1 else []
            own = [asked[head]] if head in asked and has_heads else []
            asks.append((dice.choice([*(forms if has_heads else plain), *own]), cell))
    return _sheet(grid, items, page), asks


def _entry(dice: Rng, head: str) -> str:
    if head == "City":
        return dice.choice(("Paris", "Rome", "Berlin", "London", "Oslo", "Tokyo", "Lima", "Cairo"))
    if head == "Time":
        return f"{dice.integer(6, 22)}:{dice.choice(('00', '15', '30', '45'))}"
    if head == "Room":
        return f"{dice.choice('ABCDE')}{dice.integer(1, 29)}"
    return str(dice.integer(2, 99))


def _dialog(dice: Rng, split: Split) -> tuple[Canvas, Asks]:
    """A message with one to three buttons."""
    message = texts.phrase(dice, split, 16) + dice.choice(("", "?", "!", "."))
    buttons = texts.screen_words(dice, dice.integer(1, 3))
    while True:
        room, face = any_page(dice), any_face(dice, False)
        least = max(room.least_size(face, text) for text in (message, *buttons))
        widths = sum(advance(face, b) for b in buttons) + 1.6 * len(buttons)
        most = min(0.86 * room.width / advance(face, message), 0.9 * room.width / widths, room.height / 4.2)
        if most >= least:
            break
    size = round(least + (min(most, 5 * least) - least) * dice.random() ** 1.4, 2)
    ink, page = ink_and_paper(dice)
    label, fill = ink_and_paper(dice)
    middle, cap = room.width / 2, size * cap_height(face)
    y = room.height / 2 - 1.1 * size + cap / 2
    items: list[Item] = [Words(message, face, size, middle, round(y, 1), ink, "ms")]
    x, top = middle - widths * size / 2, room.height / 2 + 0.3 * size
    for button in buttons:
        w = (advance(face, button) + 1.2) * size
        edge = contrasting(dice, page, split="train_all") if dice.chance(0.5) else None
        if edge is None and math.dist(fill, page) < _VISIBLE:
            edge = label
        items.append(Box(x, top, x + w, top + 1.5 * size, fill, edge, 0.06 * size, 0.3 * size))
        items.append(Words(button, face, size, round(x + w / 2, 1), round(top + 0.75 * size + cap / 2, 1), label, "ms"))
        x += w + 0.4 * size
    asks: Asks = [
        (dice.choice(("What does the dialog say?", "What is the message?", "What does the message say?")), message),
        (
            dice.choice(
                ("What does the window say?", "What is the question?" if message[-1] == "?" else "Read the message.")
            ),
            message,
        ),
    ]
    if len(buttons) == 1:
        asks += [
            (q, buttons[0]) for q in ("What does the button say?", "Which button is there?", "What is on the button?")
        ]
    else:
        asks.append((dice.choice(("What is on the left button?", "What does the left button say?")), buttons[0]))
        asks.append((dice.choice(("What is on the right button?", "What does the right button say?")), buttons[-1]))
        asks.append(("How many buttons are there?", str(len(buttons))))
        asks.append((dice.choice(("Which buttons are there?", "What do the buttons say?")), " ".join(buttons)))
    return Canvas(room.width, room.height, paper(dice, page), tuple(items), finish(dice, room)), asks


def _terminal(dice: Rng, split: Split) -> tuple[Canvas, Asks]:
    """A command and what it printed."""
    command = dice.choice(("ls", "pwd", "date", "whoami", "make", "git log", "python", "cat notes", "top", "ls docs"))
    prompt = dice.choice(("$ ", "$ ", "> ", "# "))
    output = [_output(dice, split) for _ in range(dice.integer(1, 3))]
    if len(set(output)) < len(output):
        output = output[:1]
    grid = _Grid(dice, [[prompt + command], *([text] for text in output)], monospaced=True)
    if dice.chance(0.7):
        page = near(dice, (18, 20, 22), 16)
        ink = dice.choice(((230, 230, 230), (120, 230, 120), (250, 200, 90), (150, 210, 250)))
    else:
        ink, page = ink_and_paper(dice)
    asks: Asks = [
        (dice.choice(("Which command was typed?", "What command was run?", "What is the command?")), command),
        (dice.choice(("What is in line 1?", "What does the first line say?")), prompt + command),
    ]
    for i, text in enumerate(output):
        asks.append((dice.choice((f"What is in line {i + 2}?", f"What does the {ORDINALS[i + 1]} line say?")), text))
    if len(output) == 1:
        asks.append((dice.choice(("What is the output?", "What did it print?", "What was printed?")), output[0]))
    return _sheet(grid, grid.words(ink), page), asks


def _output(dice: Rng, split: Split) -> str:
    kind = dice.integer(0, 4)
    if kind == 0:
        return texts.word(dice, split, 8).lower() + dice.choice((".txt", ".py", ".png", ".md", ".csv"))
    if kind == 1:
        return dice.choice(("README", "LICENSE", "Makefile", "src", "tests", "docs", "notes.txt", "main.py", "data"))
    if kind == 2:
        return dice.choice(
            ("error: not found", "done", "ok", "killed", "no such file", "3 passed", "0 errors", "42 files")
        )
    return texts.number(dice, split) if kind == 3 else texts.word(dice, split, 9)


_FIELDS = ("Name", "City", "Date", "Room", "Seat", "Gate", "Price", "Time", "Phone", "Age", "Code", "Level", "Score")


def _form(dice: Rng, split: Split) -> tuple[Canvas, Asks]:
    """Fields with values, as on forms, tickets and badges."""
    fields = dice.sample(_FIELDS, dice.integer(2, 4))
    values = [_value(dice, split, field) for field in fields]
    colon = dice.choice((":", ":", ""))
    case = dice.choice((str.capitalize, str.upper, str.capitalize))
    rows = [[case(field) + colon, value] for field, value in zip(fields, values, strict=True)]
    title = dice.choice(("", "", "TICKET", "Badge", "Flight", "PASS", "Profile", "Order"))
    grid = _Grid(dice, [[title], *rows] if title else rows, gap=0.7)
    ink, page = ink_and_paper(dice)
    items = grid.words(ink)
    if dice.chance(0.35):
        edge, inset = contrasting(dice, page, split="train_all"), 0.015 * min(grid.room.width, grid.room.height)
        items = [*rim(grid.room, inset, edge, items), *items]
    asks: Asks = []
    for field, value in zip(fields, values, strict=True):
        low = field.lower()
        forms = [
            f"What is the {low}?",
            f"Which {low} is shown?",
            f"What does the field {field} say?",
            f"Read the {low}.",
        ]
        asks.append((dice.choice(forms), value))
    if title:
        asks.append((dice.choice(("What is the title?", "What is at the top?", "What is the heading?")), title))
    return _sheet(grid, items, page), asks


def _value(dice: Rng, split: Split, field: str) -> str:
    if field == "Name":
        return texts.names(dice, 1)[0]
    if field == "City":
        return _entry(dice, "City")
    if field == "Date":
        return texts.number(dice, split, "date")
    if field == "Time":
        return _entry(dice, "Time")
    if field == "Price":
        return texts.price(dice)
    if field in ("Room", "Seat", "Gate"):
        return (
            f"{dice.choice('ABCDEFGH')}{dice.integer(1, 59)}"
            if dice.chance(0.6)
            else f"{dice.integer(1, 40)}{dice.choice('ABCDEF')}"
        )
    if field == "Phone":
        return f"{dice.integer(200, 999)}-{dice.integer(1000, 9999)}"
    if field == "Code":
        return texts.number(dice, split, "code")
    return texts.drawn(split, lambda: str(dice.integer(1, 99)))


def _list(dice: Rng, split: Split) -> tuple[Canvas, Asks]:
    """A list of entries, numbered or with marks, one of them chosen."""
    count = dice.integer(3, 5)
    entries = texts.screen_words(dice, count) if dice.chance(0.5) else texts.goods(dice, count)
    mark = dice.choice(("- ", "* ", "", "1"))
    rows = [[(f"{i + 1}. " if mark == "1" else mark) + entry] for i, entry in enumerate(entries)]
    grid = _Grid(dice, rows)
    ink, page = ink_and_paper(dice)
    items, asks = grid.words(ink), []
    chosen = dice.integer(0, count - 1)
    if dice.chance(0.4):
        own, fill = ink_and_paper(dice)
        if math.dist(fill, page) < _VISIBLE:
            own, fill = page, ink
        top = grid.rule(chosen)
        bar = Box(
            max(0, grid.left - 0.3 * grid.size), top, grid.left + grid.width + 0.3 * grid.size, top + grid.pitch, fill
        )
        word = items[chosen]
        assert isinstance(word, Words)
        items[chosen] = Words(word.text, word.face, word.size, word.x, word.y, own, word.anchor)
        items.insert(0, bar)
        asks += [(q, entries[chosen]) for q in ("Which entry is highlighted?", "Which item is selected?")]
    for i, entry in enumerate(entries):
        forms = [f"What is the {ORDINALS[i]} item?", f"What is the {ORDINALS[i]} entry?", f"What is item {i + 1}?"]
        forms += ["What is the last item?"] * 2 if i == count - 1 else []
        asks.append((dice.choice(forms), entry))
    asks.append((dice.choice(("How many items are there?", "How many entries are in the list?")), str(count)))
    return _sheet(grid, items, page), asks


_KINDS: dict[Callable[[Rng, Split], tuple[Canvas, Asks]], float] = {
    _menu: 0.26,
    _receipt: 0.12,
    _cells: 0.17,
    _dialog: 0.14,
    _terminal: 0.1,
    _form: 0.13,
    _list: 0.08,
}


def screen(dice: Rng, wish: SceneOptions) -> SceneQA:
    """A menu, receipt, table, dialog, terminal, form or list; asked is one entry."""
    canvas, asks = dice.weighted(_KINDS)(dice, wish.split)
    first = dice.choice(asks)
    return SceneQA(canvas, *first, distinct(first[0], asks, 3, dice))


__all__ = ["screen"]
