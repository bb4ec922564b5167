"""Questions about one field of a menu, table, dialog, terminal, form or ticket. Called by `suite.py`."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from benchmarks.nano_suite.canvas import RGB, Canvas, pick_face
from benchmarks.nano_suite.items import Item, Question, generators, picture, single
from benchmarks.nano_suite.words import BUTTONS, CITIES, COMMANDS, DIALOGS, DISHES, GOODS, NAMES

Size = tuple[int, int]
Render = Callable[[Size, Random], Canvas]
SIZES = ((400, 300), (640, 480), (512, 512), (480, 640), (400, 400), (256, 256), (600, 400), (720, 720))
_THEMES: tuple[tuple[RGB, RGB, RGB], ...] = (  # background, letters, accent
    ((255, 255, 255), (24, 24, 28), (36, 90, 200)),
    ((250, 246, 236), (58, 38, 24), (160, 50, 36)),
    ((32, 36, 44), (236, 238, 242), (90, 170, 250)),
    ((236, 242, 238), (20, 52, 40), (24, 120, 84)),
)


def _rows(
    rows: list[tuple[str, str]], title: str, size: Size, rng: Random, numbers_from: int = 0, is_ruled: bool = False
) -> Canvas:
    """Render a title and rows of two columns, of which the second is aligned right."""
    ground, ink, accent = rng.choice(_THEMES)
    family = pick_face(rng)[0]
    canvas = Canvas(size, ground)
    width, height = size
    step = height / (len(rows) + (1.35 if title else 0.3))
    text_size = _row_size(canvas, rows, width * 0.9, step * 0.86, (family, "bold"))
    y = step * 0.15
    if title:
        canvas.box(0, 0, width, step * 1.05, fill=accent)
        canvas.text(title, width / 2, step * 0.53, text_size, (255, 255, 255), (family, "bold"))
        y = step * 1.15
    for at, (left, right) in enumerate(rows):
        face = (family, "bold" if at < numbers_from else "medium")
        canvas.text(left, width * 0.05, y + step / 2, text_size, ink, face, "lm")
        canvas.text(right, width * 0.95, y + step / 2, text_size, ink, face, "rm")
        y += step
        if is_ruled and at < len(rows) - 1:
            canvas.path([(width * 0.03, y), (width * 0.97, y)], accent, max(1, height / 200))
    return canvas


def _row_size(canvas: Canvas, rows: list[tuple[str, str]], width: float, height: float, face: tuple[str, str]) -> int:
    joined = [f"{left}  {right}" for left, right in rows]
    return max(canvas.smallest_size(face), canvas.fitting_size(joined, width, height, face))


def menu(rng: Random) -> tuple[Render, Question]:
    """Build a menu or price list."""
    is_food = rng.random() < 0.6
    names = rng.sample([name for name in (DISHES if is_food else GOODS) if len(name) <= 7], rng.randint(3, 4))
    prices = rng.sample(range(2, 30), len(names))
    rows = [
        (name, f"{price}.{rng.choice(('00', '50', '20', '90'))}") for name, price in zip(names, prices, strict=True)
    ]
    target = rng.randrange(len(rows))
    name, price = rows[target]
    if rng.random() < 0.7:
        text = rng.choice(("How much is the {}?", "What is the price of {}?", "What does the {} cost?"))
        question = Question(text.format(name.lower()), price, "number")
    else:
        others = tuple(other for other in names if other != name)
        question = Question(f"What costs {price}?", name, "choice", others)
    title = "MENU" if is_food else "PRICES"
    return lambda size, shade: _rows(rows, title, size, shade), question


def table(rng: Random) -> tuple[Render, Question]:
    """Build a table of names and points under a header."""
    names = rng.sample([name for name in NAMES if len(name) <= 5], 3)
    header = rng.choice((("Name", "Points"), ("Player", "Goals"), ("Team", "Wins"), ("Name", "Age")))
    values = [str(value) for value in rng.sample(range(2, 99), 3)]
    rows = [header, *zip(names, values, strict=True)]
    target = rng.randrange(3)
    if rng.random() < 0.6:
        unit = header[1].lower()
        text = f"How old is {names[target]}?" if unit == "age" else f"How many {unit} does {names[target]} have?"
        question = Question(text, values[target], "number")
    else:
        others = tuple(name for name in names if name != names[target])
        text = (
            f"Who is {values[target]} years old?"
            if header[1] == "Age"
            else f"Who has {values[target]} {header[1].lower()}?"
        )
        question = Question(text, names[target], "choice", others)
    return lambda size, shade: _rows(rows, "", size, shade, numbers_from=1, is_ruled=True), question


def dialog(rng: Random) -> tuple[Render, Question]:
    """Build a window with a title, a line and two buttons."""
    title, body = rng.choice(DIALOGS)
    buttons = rng.choice(BUTTONS)
    texts = [title, body, *buttons]
    text, expected = rng.choice(
        (
            ("What is the title of the window?", title),
            ("What does the left button say?", buttons[0]),
            ("Which button is on the right?", buttons[1]),
            ("What is written under the title?", body),
        )
    )
    question = Question(text, expected, "choice", tuple(other for other in texts if other != expected))
    return lambda size, shade: _dialog(title, body, buttons, size, shade), question


def _dialog(title: str, body: str, buttons: tuple[str, str], size: Size, rng: Random) -> Canvas:
    ground, ink, accent = rng.choice(_THEMES)
    family = pick_face(rng)[0]
    canvas = Canvas(size, (140, 150, 164))
    width, height = size
    left, right, top, bottom = width * 0.03, width * 0.97, height * 0.08, height * 0.92
    canvas.box(left, top, right, bottom, fill=ground, radius=width * 0.03)
    step = (bottom - top) / 3
    min_size = canvas.smallest_size((family, "medium"))
    canvas.box(left, top, right, top + step * 0.85, fill=accent, radius=width * 0.03)
    big = max(min_size, canvas.fitting_size([title, body], width * 0.88, step * 0.6, (family, "medium")))
    canvas.text(title, width / 2, top + step * 0.43, big, (255, 255, 255), (family, "medium"))
    canvas.text(body, width / 2, top + step * 1.4, big, ink, (family, "medium"))
    small = max(min_size, canvas.fitting_size(list(buttons), width * 0.34, step * 0.5, (family, "medium")))
    for place, label in zip((0.27, 0.73), buttons, strict=True):
        x, y = width * place, top + step * 2.45
        canvas.box(x - width * 0.21, y - step * 0.36, x + width * 0.21, y + step * 0.36, fill=accent, radius=step * 0.1)
        canvas.text(label, x, y, small, (255, 255, 255), (family, "medium"))
    return canvas


def terminal(rng: Random) -> tuple[Render, Question]:
    """Build a dark window with two commands and their output."""
    first, second = rng.sample(COMMANDS, 2)
    texts = [first[0], first[1], second[0], second[1]]
    text, expected = rng.choice(
        (
            ("What was the first command?", first[0]),
            (f"What is the output of {first[0]}?", first[1]),
            ("What is the last line?", second[1]),
            (f"What came out of {second[0]}?", second[1]),
        )
    )
    question = Question(text, expected, "choice", tuple(other for other in texts if other != expected))
    lines = [f"$ {first[0]}", first[1], f"$ {second[0]}", second[1]]
    return lambda size, shade: _terminal(lines, size, shade), question


def _terminal(lines: list[str], size: Size, rng: Random) -> Canvas:
    ground, ink = rng.choice(
        (((12, 14, 16), (90, 230, 120)), ((24, 26, 32), (240, 240, 240)), ((0, 32, 52), (250, 220, 120)))
    )
    family = pick_face(rng)[0]
    canvas = Canvas(size, ground)
    width, height = size
    step = height * 0.94 / len(lines)
    text_size = canvas.fitting_size(lines, width * 0.92, step * 0.75, (family, "medium"))
    text_size = max(canvas.smallest_size((family, "medium")), text_size)
    for at, line in enumerate(lines):
        canvas.text(line, width * 0.04, height * 0.03 + step * (at + 0.5), text_size, ink, (family, "medium"), "lm")
    return canvas


def form(rng: Random) -> tuple[Render, Question]:
    """Build a form with its fields filled in."""
    values = {
        "Name": rng.choice(NAMES),
        "City": rng.choice(CITIES),
        "Age": str(rng.randint(18, 80)),
        "Phone": f"{rng.randint(200, 999)} {rng.randint(100, 999)}",
        "Code": f"{rng.choice('ABCDEFGHKLMNPRT')}{rng.randint(10, 99)}",
        "Pet": rng.choice(("cat", "dog", "fish", "parrot", "hamster")),
    }
    names = rng.sample(list(values), 3)
    target = rng.choice(names)
    questions = {
        "Name": "What name is filled in?",
        "City": "Which city is entered?",
        "Age": "What age is given?",
        "Phone": "What is the phone number?",
        "Code": "What is the code?",
        "Pet": "Which pet is in the form?",
    }
    others = tuple(values[name] for name in names if name != target)
    question = Question(questions[target], values[target], "choice", others)
    fields = [(name, values[name]) for name in names]
    return lambda size, shade: _form(fields, size, shade), question


def _form(fields: list[tuple[str, str]], size: Size, rng: Random) -> Canvas:
    ground, ink, accent = rng.choice(_THEMES)
    family = pick_face(rng)[0]
    canvas = Canvas(size, ground)
    width, height = size
    step = height / len(fields)
    labels, values = [name for name, _ in fields], [value for _, value in fields]
    face = (family, "medium")
    text_size = min(
        canvas.fitting_size(labels, width * 0.36, step * 0.55, face),
        canvas.fitting_size(values, width * 0.46, step * 0.55, face),
    )
    text_size = max(canvas.smallest_size(face), text_size)
    for at, (label, value) in enumerate(fields):
        y = step * (at + 0.5)
        canvas.text(label, width * 0.03, y, text_size, ink, face, "lm")
        canvas.box(
            width * 0.44,
            y - step * 0.36,
            width * 0.98,
            y + step * 0.36,
            outline=accent,
            line=width / 150,
            radius=width / 60,
        )
        canvas.text(value, width * 0.48, y, text_size, ink, face, "lm")
    return canvas


def ticket(rng: Random) -> tuple[Render, Question]:
    """Build a ticket for a train or a flight."""
    start, goal = rng.sample(CITIES, 2)
    is_flight = rng.random() < 0.5
    place = ("Gate", f"{rng.choice('ABCDE')}{rng.randint(1, 30)}") if is_flight else ("Track", str(rng.randint(1, 24)))
    seat = ("Seat", f"{rng.randint(1, 39)}{rng.choice('ABCDEF')}")
    time = ("Time", f"{rng.randint(5, 22)}:{rng.randint(0, 59):02d}")
    rows = [("From", start), ("To", goal), place, rng.choice((seat, time))]
    target, expected = rows[rng.randrange(4)]
    text = {
        "From": "Where does the trip start?",
        "To": "Where does the trip go?",
        "Gate": "Which gate is it?",
        "Track": "What is the track?",
        "Seat": "What is the seat?",
        "Time": "At what time does it leave?",
    }[target]
    title = "BOARDING" if is_flight else "TRAIN"
    others = tuple(value for _, value in rows if value != expected)
    question = Question(text, expected, "choice", others)
    return lambda size, shade: _rows(rows, title, size, shade), question


_SCREENS = (menu, table, dialog, terminal, form, ticket)


def screen(number: int) -> Item:
    """Build an item about a field of a screen."""
    rng, seed = generators("screen", number)
    render, question = _SCREENS[number % len(_SCREENS)](rng)
    size = rng.choice(SIZES)
    return single("screen", number, picture(lambda: render(size, Random(seed))), question)
