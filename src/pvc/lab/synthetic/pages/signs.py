"""Tasks `sign` (one word, number or phrase on a page) and `lines` (two to six lines of a page)."""

from __future__ import annotations

from pvc.lab.synthetic.pages import texts
from pvc.lab.synthetic.pages.canvas import Box, Canvas, Item, Words
from pvc.lab.synthetic.pages.faces import advance, cap_height
from pvc.lab.synthetic.pages.layout import Room, any_face, any_page, finish, ink_and_paper, paper, rim
from pvc.lab.synthetic.palette import contrasting, near
from pvc.lab.synthetic.phrasing import distinct
from pvc.lab.synthetic.scene import SceneOptions, SceneQA
from pvc.lab.synthetic.seeding import Rng, Split
from pvc.lab.synthetic.vocabulary import Rgb

READ = (
    "What does it say?",
    "What does the sign say?",
    "What is written here?",
    "What is written in the picture?",
    "What text is shown?",
    "What is the text?",
    "What does the text say?",
    "What does the picture say?",
    "What does the image say?",
    "Read the text.",
    "Read it.",
    "Read this.",
    "Read the sign.",
    "What can you read?",
    "Which text can you see?",
    "Transcribe the text.",
    "What is on the sign?",
    "What does the label say?",
    "What does the button say?",
    "What is on the label?",
)
READ_WORD = (
    "Which word is shown?",
    "Which word is this?",
    "What word is this?",
    "Which word is on the sign?",
    "What is the word?",
    "Which word do you see?",
    "What word can you read?",
    "What is the name?",
)
READ_NUMBER = (
    "Which number is shown?",
    "What number is this?",
    "What number do you see?",
    "Which number is on the sign?",
    "What is the number?",
    "Read the number.",
)
_READ_STYLE = {
    "price": ("What is the price?", "How much does it cost?", "How much is it?", "Which price is shown?"),
    "time": ("What time is it?", "What time is shown?", "Which time is on the sign?", "When does it open?"),
    "year": ("Which year is shown?", "What year is it?", "Which year do you see?", "What is the year?"),
    "percent": ("How many percent?", "What percentage is shown?", "What is the percentage?"),
    "date": ("Which date is shown?", "What is the date?"),
    "code": ("What is the code?", "Which room is it?", "What is the room number?", "Read the code."),
    "decimal": READ_NUMBER,
    "integer": READ_NUMBER,
}
_SEE = ("What do you see?", "What is in the picture?", "What is this?", "Describe the picture.", "What is shown?")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


def seen_text(text: str) -> str:
    """Return the answer to what is in a picture of text."""
    return f'the text "{text}"'


def place_text(
    dice: Rng, room: Room, text: str, face: str, share: tuple[float, float] = (0.9, 0.8)
) -> tuple[float, float, float] | None:
    """Draw a size and the place of the ink's left end and baseline for one line; None if it does not fit.

    share: parts of the page's width and height that the line may fill.
    """
    size = room.size_for(dice, face, [text], share[0] * room.width, share[1] * room.height)
    if size is None:
        return None
    width, height = size * advance(face, text), size * cap_height(face)
    spare_x, spare_y = room.width - width, room.height - height - 0.3 * size
    centred = dice.chance(0.55)
    x = spare_x / 2 if centred else spare_x * dice.uniform(0.05, 0.95)
    y = max(0.0, spare_y) * (0.5 if centred else dice.uniform(0.05, 0.95)) + height
    return size, round(x, 1), round(y, 1)


def _frame_of(dice: Rng, room: Room, box: tuple[float, float, float, float], page: Rgb) -> tuple[Item, Rgb, Rgb]:
    """Draw a sign, label or button behind a line: its box, its colour and the ink for it."""
    ink, fill = ink_and_paper(dice)
    x0, y0, x1, y1 = box
    pad_x, pad_y = dice.uniform(0.15, 0.6) * (y1 - y0), dice.uniform(0.25, 0.9) * (y1 - y0)
    edge = contrasting(dice, page, split="train_all") if dice.chance(0.5) else None
    radius = dice.choice((0.0, 0.0, 0.2, 0.5)) * (y1 - y0)
    x0, y0 = round(max(0.0, x0 - pad_x), 1), round(max(0.0, y0 - pad_y), 1)
    x1, y1 = round(min(room.width - 1.0, x1 + pad_x), 1), round(min(room.height - 1.0, y1 + pad_y), 1)
    return Box(x0, y0, x1, y1, fill, edge, max(1.0, 0.06 * (y1 - y0)), radius), fill, ink


def text_page(dice: Rng, text: str) -> Canvas:
    """Return a page that shows one line, on a sign or straight on the ground."""
    while True:
        room, face = any_page(dice), any_face(dice)
        placed = place_text(dice, room, text, face)
        if placed is not None:
            break
    size, x, y = placed
    ink, page = ink_and_paper(dice)
    items: list[Item] = []
    if dice.chance(0.35):
        box = (x, y - size * cap_height(face), x + size * advance(face, text), y)
        sign, _, ink = _frame_of(dice, room, box, page)
        items = [sign]
    words = Words(text, face, size, x, y, ink)
    if not items and dice.chance(0.15):
        edge = contrasting(dice, page, split="train_all")
        items = rim(room, 0.02 * min(room.width, room.height), edge, [words])
    items.append(words)
    return Canvas(room.width, room.height, paper(dice, page), tuple(items), finish(dice, room))


def one_text(dice: Rng, split: Split) -> tuple[str, tuple[str, ...]]:
    """Draw a text of one line and the questions that ask for it."""
    kind = dice.weighted({"word": 0.5, "phrase": 0.18, "number": 0.32})
    if kind == "word":
        return texts.word(dice, split), READ_WORD
    if kind == "phrase":
        return texts.phrase(dice, split), ()
    style = dice.weighted(texts.NUMERIC)
    return texts.number(dice, split, style), _READ_STYLE[style]


def sign(dice: Rng, wish: SceneOptions) -> SceneQA:
    """One line of text on a page of any aspect ratio; asked is what it says."""
    text, special = one_text(dice, wish.split)
    canvas = text_page(dice, text)
    chosen = dice.weighted({"read": 0.6, "special": 0.28 if special else 0.0, "see": 0.12})
    if chosen == "see":
        return SceneQA(canvas, dice.choice(_SEE), seen_text(text), ((dice.choice(READ), text),))
    question = dice.choice(special if chosen == "special" else READ)
    return SceneQA(canvas, question, text)


def lines_page(dice: Rng, found: list[str]) -> Canvas:
    """Return a page of lines, one below the other."""
    while True:
        room, face = any_page(dice), any_face(dice)
        pitch = room.height / (len(found) + dice.uniform(0.1, 1.0))
        size = room.size_for(dice, face, found, 0.92 * room.width, 0.62 * pitch)
        if size is not None:
            break
    # Lines of small text stand close to each other, as on paper.
    pitch = min(pitch, size * dice.uniform(1.25, 2.6))
    ink, page = ink_and_paper(dice)
    align = dice.weighted({"l": 0.5, "m": 0.4, "r": 0.1})
    widest = max(size * advance(face, text) for text in found)
    left = (room.width - widest) * (0.5 if align == "m" else dice.uniform(0.05, 0.95))
    top = (room.height - pitch * len(found)) * dice.uniform(0.1, 0.9)
    items: list[Item] = []
    for i, text in enumerate(found):
        x = left + {"l": 0.0, "m": widest / 2, "r": widest}[align]
        y = top + pitch * (i + 0.5) + size * cap_height(face) / 2
        own = near(dice, ink, 0)
        items.append(Words(text, face, size, round(x, 1), round(y, 1), own, f"{align}s"))
    return Canvas(room.width, room.height, paper(dice, page), tuple(items), finish(dice, room))


def line_asks(dice: Rng, found: list[str]) -> list[tuple[str, str]]:
    """Return questions about the lines of a page with their answers."""
    count, asks = len(found), []
    for i, text in enumerate(found):
        name = ORDINALS[i]
        forms = [
            f"What does the {name} line say?",
            f"What is in line {i + 1}?",
            f"What is in the {name} line?",
            f"Read line {i + 1}.",
            f"Read the {name} line.",
            f"What is written in line {i + 1}?",
        ]
        if i == count - 1:
            forms += ["What does the last line say?", "Read the last line.", "What is at the bottom?"] * 2
        if i == 0:
            forms += ["What is at the top?", "What is the title?", "What is the heading?"]
        asks.append((dice.choice(forms), text))
    return asks


def lines(dice: Rng, wish: SceneOptions) -> SceneQA:
    """Two to six lines; asked are all of them in order, or one."""
    count = dice.weighted({2: 0.4, 3: 0.3, 4: 0.17, 5: 0.08, 6: 0.05})
    found = texts.lines(dice, wish.split, count, 12 if count > 3 else 14)
    canvas = lines_page(dice, found)
    asks = line_asks(dice, found)
    everything = " ".join(found)
    whole = (dice.choice((*READ, *READ, "Read all lines.", "Read everything.", "What do the lines say?")), everything)
    how_many = (dice.choice(("How many lines are there?", "How many lines of text do you see?")), str(count))
    # All of a long page is a long answer; one line asks for the same skill at less cost.
    first = whole if dice.chance(0.5 if count < 4 else 0.25) else dice.choice(asks)
    others = [*asks, how_many, *([whole] if count < 4 else [])]
    return SceneQA(canvas, *first, distinct(first[0], others, 3, dice))


__all__ = [
    "ORDINALS",
    "READ",
    "line_asks",
    "lines",
    "lines_page",
    "one_text",
    "place_text",
    "seen_text",
    "sign",
    "text_page",
]
