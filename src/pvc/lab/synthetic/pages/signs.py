"""Tasks `sign` (one word, number or phrase on a page) and `lines` (two to six lines of a page).

Called by `tasks` and `albums`.
"""

from __future__ import annotations

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
from pvc.lab.synthetic.palette import jitter_colour, sample_contrasting
from pvc.lab.synthetic.phrasing import select_distinct
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
_READ_WORD = (
    "Which word is shown?",
    "Which word is this?",
    "What word is this?",
    "Which word is on the sign?",
    "What is the word?",
    "Which word do you see?",
    "What word can you read?",
    "What is the name?",
)
_READ_NUMBER = (
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
    "decimal": _READ_NUMBER,
    "integer": _READ_NUMBER,
}
_SEE = ("What do you see?", "What is in the picture?", "What is this?", "Describe the picture.", "What is shown?")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


def _format_seen_text(text: str) -> str:
    """Return the answer to what is in a picture of text."""
    return f'the text "{text}"'


def _place_text(
    rng: Rng, page_size: PageSize, text: str, face: str, share: tuple[float, float] = (0.9, 0.8)
) -> tuple[float, float, float] | None:
    """Sample font size, left end and baseline of one line; None if it does not fit.

    `share`: parts of the page's width and height that the line may fill.
    """
    size = page_size.sample_font_size(rng, face, [text], share[0] * page_size.width, share[1] * page_size.height)
    if size is None:
        return None
    width, height = size * get_advance(face, text), size * get_cap_height(face)
    spare_x, spare_y = page_size.width - width, page_size.height - height - 0.3 * size
    centred = rng.chance(0.55)
    x = spare_x / 2 if centred else spare_x * rng.uniform(0.05, 0.95)
    y = max(0.0, spare_y) * (0.5 if centred else rng.uniform(0.05, 0.95)) + height
    return size, round(x, 1), round(y, 1)


def _sample_sign_box(
    rng: Rng, page_size: PageSize, box: tuple[float, float, float, float], page: Rgb
) -> tuple[Item, Rgb, Rgb]:
    """Sample a sign, label or button behind a line: its box, its colour and the ink for it."""
    ink, fill = sample_ink_and_paper(rng)
    x0, y0, x1, y1 = box
    pad_x, pad_y = rng.uniform(0.15, 0.6) * (y1 - y0), rng.uniform(0.25, 0.9) * (y1 - y0)
    edge = sample_contrasting(rng, page, split="train_all") if rng.chance(0.5) else None
    radius = rng.choice((0.0, 0.0, 0.2, 0.5)) * (y1 - y0)
    x0, y0 = round(max(0.0, x0 - pad_x), 1), round(max(0.0, y0 - pad_y), 1)
    x1, y1 = round(min(page_size.width - 1.0, x1 + pad_x), 1), round(min(page_size.height - 1.0, y1 + pad_y), 1)
    return Box(x0, y0, x1, y1, fill, edge, max(1.0, 0.06 * (y1 - y0)), radius), fill, ink


def build_text_page(rng: Rng, text: str) -> Canvas:
    """Build a page with one line, on a sign or directly on the ground.

    Args:
        rng: random generator of the sample.
        text: the line.
    """
    while True:
        page_size, face = sample_page(rng), sample_face(rng)
        place = _place_text(rng, page_size, text, face)
        if place is not None:
            break
    size, x, y = place
    ink, page = sample_ink_and_paper(rng)
    items: list[Item] = []
    if rng.chance(0.35):
        box = (x, y - size * get_cap_height(face), x + size * get_advance(face, text), y)
        sign, _, ink = _sample_sign_box(rng, page_size, box, page)
        items = [sign]
    words = Words(text, face, size, x, y, ink)
    if not items and rng.chance(0.15):
        edge = sample_contrasting(rng, page, split="train_all")
        items = build_rim(page_size, 0.02 * min(page_size.width, page_size.height), edge, [words])
    items.append(words)
    return Canvas(
        page_size.width, page_size.height, sample_paper(rng, page), tuple(items), sample_finish(rng, page_size)
    )


def sample_text(rng: Rng, split: Split) -> tuple[str, tuple[str, ...]]:
    """Sample a text of one line and the special questions that ask for it.

    Args:
        rng: random generator of the sample.
        split: the split of the text.
    """
    kind = rng.weighted({"word": 0.5, "phrase": 0.18, "number": 0.32})
    if kind == "word":
        return texts.sample_word(rng, split), _READ_WORD
    if kind == "phrase":
        return texts.sample_phrase(rng, split), ()
    style = rng.weighted(texts.NUMERIC)
    return texts.sample_number(rng, split, style), _READ_STYLE[style]


def build_sign(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build one line of text on a page of any aspect ratio, and ask what it says.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    text, special = sample_text(rng, options.split)
    canvas = build_text_page(rng, text)
    form = rng.weighted({"read": 0.6, "special": 0.28 if special else 0.0, "see": 0.12})
    if form == "see":
        return SceneQA(canvas, rng.choice(_SEE), _format_seen_text(text), ((rng.choice(READ), text),))
    question = rng.choice(special if form == "special" else READ)
    return SceneQA(canvas, question, text)


def _build_lines_page(rng: Rng, line_texts: list[str]) -> Canvas:
    """Build a page of lines, one below the other."""
    while True:
        page_size, face = sample_page(rng), sample_face(rng)
        pitch = page_size.height / (len(line_texts) + rng.uniform(0.1, 1.0))
        size = page_size.sample_font_size(rng, face, line_texts, 0.92 * page_size.width, 0.62 * pitch)
        if size is not None:
            break
    # Lines of small text stand close to each other, as on paper.
    pitch = min(pitch, size * rng.uniform(1.25, 2.6))
    ink, page = sample_ink_and_paper(rng)
    align = rng.weighted({"l": 0.5, "m": 0.4, "r": 0.1})
    widest = max(size * get_advance(face, text) for text in line_texts)
    left = (page_size.width - widest) * (0.5 if align == "m" else rng.uniform(0.05, 0.95))
    top = (page_size.height - pitch * len(line_texts)) * rng.uniform(0.1, 0.9)
    items: list[Item] = []
    for i, text in enumerate(line_texts):
        x = left + {"l": 0.0, "m": widest / 2, "r": widest}[align]
        y = top + pitch * (i + 0.5) + size * get_cap_height(face) / 2
        line_ink = jitter_colour(rng, ink, 0)
        items.append(Words(text, face, size, round(x, 1), round(y, 1), line_ink, f"{align}s"))
    return Canvas(
        page_size.width, page_size.height, sample_paper(rng, page), tuple(items), sample_finish(rng, page_size)
    )


def _build_line_questions(rng: Rng, line_texts: list[str]) -> list[tuple[str, str]]:
    """Ask for every line of a page."""
    count, questions = len(line_texts), []
    for i, text in enumerate(line_texts):
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
        questions.append((rng.choice(forms), text))
    return questions


def build_lines(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build two to six lines, and ask for all of them in order or for one.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    count = rng.weighted({2: 0.4, 3: 0.3, 4: 0.17, 5: 0.08, 6: 0.05})
    line_texts = texts.sample_lines(rng, options.split, count, 12 if count > 3 else 14)
    canvas = _build_lines_page(rng, line_texts)
    questions = _build_line_questions(rng, line_texts)
    everything = " ".join(line_texts)
    whole = (rng.choice((*READ, *READ, "Read all lines.", "Read everything.", "What do the lines say?")), everything)
    how_many = (rng.choice(("How many lines are there?", "How many lines of text do you see?")), str(count))
    # The whole of a long page is a long answer; one line trains the same skill at less cost.
    first = whole if rng.chance(0.5 if count < 4 else 0.25) else rng.choice(questions)
    others = [*questions, how_many, *([whole] if count < 4 else [])]
    return SceneQA(canvas, *first, select_distinct(first[0], others, 3, rng))


__all__ = ["ORDINALS", "READ", "build_lines", "build_sign", "build_text_page", "sample_text"]
