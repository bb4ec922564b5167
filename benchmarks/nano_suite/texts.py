"""Questions about texts: one word, a number, a few lines. Called by `suite.py`."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from benchmarks.nano_suite.canvas import INKS, RGB, SQUARE, TALL, WIDE, Canvas, find_grid, pick_face
from benchmarks.nano_suite.items import Item, Medium, Question, generators, picture, single
from benchmarks.nano_suite.words import LINES, NAMES, WORDS

Size = tuple[int, int]
# Questions about one word, by the form of its picture.
_QUESTIONS = {
    "plain": ("What does it say?", "What is the text?", "What word is this?", "What is written here?"),
    "sign": ("Which word is on the sign?", "What does the sign say?", "What does it say?"),
    "label": ("What is on the label?", "Read the label.", "What is the text?"),
    "button": ("What does the button say?", "What is the text on the button?", "What does it say?"),
    "headline": ("What is the headline?", "What does the headline say?", "Read the text."),
    "badge": ("Which name is on the badge?", "What is the name?", "What name do you see?"),
}


def letters_that_fit(size: Size) -> int:
    """Compute how many characters of a line fit across a picture, with margins."""
    return int(find_grid(*size)[0] * 64 * 0.8 / 7.6)


def pick_size(rng: Random, number: int) -> Size:
    """Choose a square, wide or tall size; every second one is square.

    Args:
        rng: the generator.
        number: of the item.
    """
    return rng.choice((SQUARE, WIDE, SQUARE, TALL)[number % 4])


def pick_word(rng: Random, size: Size, names: bool = False) -> str:
    """Choose a word or name that fits across a picture, in upper, lower or title case.

    Args:
        rng: the generator.
        size: width and height of the picture in pixels.
        names: choose a name.

    Returns:
        At most eight letters.
    """
    max_length = min(8, letters_that_fit(size))
    word = rng.choice([word for word in (NAMES if names else WORDS) if len(word) <= max_length])
    return (
        rng.choice((str.upper, str.lower, str.title))(word) if not names else rng.choice((str.upper, str.title))(word)
    )


def word_picture(text: str, size: Size, form: str, seed: int) -> Medium:
    """Build a picture of one word.

    Args:
        text: the word.
        size: width and height in pixels.
        form: "plain", "sign", "label", "button", "headline" or "badge".
        seed: of the rendering.
    """
    return picture(lambda: _word(text, size, form, Random(seed)))


def _word(text: str, size: Size, form: str, rng: Random) -> Canvas:
    ground, ink = rng.choice(INKS)
    face = pick_face(rng)
    width, height = size
    canvas = Canvas(size, ground)
    reach = 0.9
    if form in ("sign", "button", "badge"):
        canvas = Canvas(size, (255, 255, 255) if sum(ground) < 600 else (186, 194, 202))
        inset = 0.03 * width
        tall = min(height * 0.46, width * 0.4) if form != "sign" else height * 0.46
        radius = {"sign": 0.04, "button": 0.25, "badge": 0.1}[form] * 2 * tall
        box = (inset, height / 2 - tall, width - inset, height / 2 + tall)
        canvas.box(*box, fill=ground, outline=ink if form != "button" else None, line=width / 100, radius=radius)
        reach = 0.84
    elif form == "label":
        canvas.path([(width * 0.04, height * 0.1), (width * 0.96, height * 0.1)], ink, height / 50)
        canvas.path([(width * 0.04, height * 0.9), (width * 0.96, height * 0.9)], ink, height / 50)
    largest = canvas.fitting_size([text], width * reach, height * (0.4 if form == "headline" else 0.6), face)
    min_size = canvas.smallest_size(face)
    text_size = max(min_size, int(largest * rng.uniform(0.62, 1.0)))
    y = height * (0.3 if form == "headline" else 0.5)
    canvas.text(text, width / 2, y, min(text_size, max(min_size, largest)), ink, face)
    if form == "headline":
        for row in range(3):  # the story below, as grey bars
            canvas.box(
                width * 0.1,
                height * (0.6 + 0.1 * row),
                width * (0.9 - 0.15 * (row == 2)),
                height * (0.63 + 0.1 * row),
                fill=_between(ground, ink),
            )
    return canvas


def _between(first: RGB, second: RGB) -> RGB:
    red, green, blue = ((3 * a + b) // 4 for a, b in zip(first, second, strict=True))
    return red, green, blue


def word(number: int) -> Item:
    """Build an item about one word or name."""
    rng, seed = generators("word", number)
    size = pick_size(rng, number + number // 6)
    form = tuple(_QUESTIONS)[number % len(_QUESTIONS)]
    text = pick_word(rng, size, names=form == "badge")
    question = Question(rng.choice(_QUESTIONS[form]), text, "text")
    return single("word", number, word_picture(text, size, form, seed), question)


def _year(rng: Random) -> tuple[str, str, str, str]:
    year = str(rng.randint(1850, 2035))
    return year, year, "number", rng.choice(("Which year is it?", "What year is shown?", "What does it say?"))


def _price(rng: Random) -> tuple[str, str, str, str]:
    price = (
        f"{rng.choice(('$', '€', '£'))}{rng.randint(1, 99)}.{rng.choice(('00', '25', '50', '75', '80', '95', '99'))}"
    )
    return price, price, "number", rng.choice(("What is the price?", "How much is it?", "What does it cost?"))


def _time(rng: Random) -> tuple[str, str, str, str]:
    time = f"{rng.randint(0, 23)}:{rng.randint(0, 59):02d}"
    return time, time, "number", rng.choice(("What time is it?", "What time does the clock show?"))


def _phone(rng: Random) -> tuple[str, str, str, str]:
    phone = f"555-{rng.randint(0, 9999):04d}"
    return phone, phone, "number", rng.choice(("What is the phone number?", "Which number should I call?"))


def _percentage(rng: Random) -> tuple[str, str, str, str]:
    share = f"{rng.randint(1, 100)}%"
    return share, share, "number", rng.choice(("What percentage is shown?", "How many percent?", "What does it say?"))


def _room(rng: Random) -> tuple[str, str, str, str]:
    room = str(rng.randint(1, 599))
    return f"Room {room}", room, "number", rng.choice(("Which room is this?", "What is the room number?"))


def _plain(rng: Random) -> tuple[str, str, str, str]:
    value = str(rng.randint(0, 9999))
    return value, value, "number", rng.choice(("Which number is it?", "What number do you see?", "Read the number."))


def _score(rng: Random) -> tuple[str, str, str, str]:
    score = f"{rng.randint(0, 9)}:{rng.randint(0, 9)}"
    return score, score, "number", rng.choice(("What is the score?", "How did the match end?"))


_NUMBERS: tuple[Callable[[Random], tuple[str, str, str, str]], ...] = (
    _year,
    _price,
    _time,
    _phone,
    _percentage,
    _room,
    _plain,
    _score,
)


def number_text(rng: Random, number: int) -> tuple[str, Question]:
    """Choose a number as printed, and a question about it.

    Args:
        rng: the generator.
        number: of the item.
    """
    printed, expected, rule, wording = _NUMBERS[number % len(_NUMBERS)](rng)
    return printed, Question(wording, expected, rule)


def number(number: int) -> Item:
    """Build an item about a year, price, time, telephone number, percentage, room or score."""
    rng, seed = generators("number", number)
    printed, question = number_text(rng, number)
    sizes = SQUARE + WIDE + (TALL if len(printed) <= 5 else ())
    size = rng.choice(sizes)
    form = rng.choice(("plain", "sign", "label", "button"))
    return single("number", number, word_picture(printed, size, form, seed), question)


_PLACES = ("first", "second", "last")


def lines(number: int) -> Item:
    """Build an item about two to four short lines, or about one of them."""
    rng, seed = generators("lines", number)
    size = rng.choice(SQUARE + (((640, 320), (800, 400)) if number % 4 == 0 else ()))
    count = 2 if size[0] >= 2 * size[1] else 2 + number % 3
    page = rng.sample([line for line in LINES if len(line) <= 12], count)
    if number % 2 == 0:
        wording = rng.choice(
            ("What does it say?", "Read the text.", "What is written here?", "What is the whole text?")
        )
        question = Question(wording, "\n".join(page), "text")
    else:
        place = rng.choice(_PLACES if count > 2 else ("first", "last"))
        wording = rng.choice(("What is the {} line?", "Read the {} line.", "What does the {} line say?"))
        question = Question(wording.format(place), page[{"first": 0, "second": 1, "last": -1}[place]], "text")
    return single("lines", number, picture(lambda: _page(page, size, Random(seed))), question)


def _page(page: list[str], size: Size, rng: Random) -> Canvas:
    ground, ink = rng.choice(INKS)
    face = pick_face(rng)
    canvas = Canvas(size, ground)
    width, height = size
    row = height * 0.92 / len(page)
    text_size = max(canvas.smallest_size(face), canvas.fitting_size(page, width * 0.9, row * 0.78, face))
    is_centred = rng.random() < 0.6
    for at, line in enumerate(page):
        y = height * 0.04 + row * (at + 0.5)
        canvas.text(
            line, width / 2 if is_centred else width * 0.05, y, text_size, ink, face, "mm" if is_centred else "lm"
        )
    return canvas
