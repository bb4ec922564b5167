"""Task `outside`: there is no picture, or one like a photograph; the answer says so. Called by `tasks`.

Photographs are imitated by coloured noise of many scales and soft blobs. Real ones differ.
"""

from __future__ import annotations

from pvc.lab.synthetic import palette
from pvc.lab.synthetic.pages.canvas import Canvas, Cloud, Finish, Item, Shape
from pvc.lab.synthetic.pages.figures import SEE
from pvc.lab.synthetic.pages.layout import sample_page
from pvc.lab.synthetic.pages.signs import READ
from pvc.lab.synthetic.scene import Backdrop, SceneOptions, SceneQA
from pvc.lab.synthetic.seeding import Rng

NOTHING = "Nothing is shown."
NOT_KNOWN = "I only know drawings and screens."
_WITHOUT = (
    *SEE,
    *READ,
    "Which shape is it?",
    "What colour is the circle?",
    "How many stars are there?",
    "Which word is shown?",
    "Where is the square?",
    "What happens in the video?",
    "Which way does it move?",
    "Which digits appear, in order?",
    "What is in the second picture?",
    "Hello",
    "Hi",
    "What can you do?",
    "Who are you?",
    "What is the total?",
    "Which bar is the tallest?",
    "Is there a text?",
)
_ABOUT = (
    *SEE,
    *SEE,
    "What is this?",
    "What animal is this?",
    "Which animal do you see?",
    "What is in the photo?",
    "What does the photo show?",
    "Describe the photo.",
    "Who is this?",
    "Is there a person?",
    "Is this a dog?",
    "Is this a cat?",
    "Where was this taken?",
    "What is on the table?",
    "Is it day or night?",
    "What is the person doing?",
)


def _build_photograph(rng: Rng) -> Canvas:
    """Build a picture with the statistics of a photograph and no outlines to name."""
    page_size = sample_page(rng)
    tint = palette.jitter_colour(rng, (rng.integer(50, 205),) * 3, 50)
    slope, colour = rng.uniform(0.7, 2.0), 0.6 * rng.random() ** 2
    items: list[Item] = [Cloud(rng.integer(0, 1 << 30), slope, rng.uniform(25, 65), tint, colour)]
    # Blobs with edges would be shapes, so they are small, many, or at the rim, and blurred.
    for _ in range(rng.integer(0, 9)):
        size = rng.uniform(0.05, 0.5) * min(page_size.width, page_size.height)
        x, y = rng.uniform(0, page_size.width), rng.uniform(0, page_size.height)
        rgb = palette.jitter_colour(rng, tint, 70)
        items.append(Shape("circle", x, y, size * rng.uniform(0.5, 1.6), size, rgb))
    blur = rng.uniform(0.006, 0.03) * min(page_size.width, page_size.height)
    noise = rng.uniform(2, 12)
    finish = Finish(round(blur, 2), noise, rng.integer(0, 1 << 30), rng.integer(40, 92) if rng.chance(0.5) else 0)
    return Canvas(page_size.width, page_size.height, Backdrop(tint), tuple(items), finish)


def build_outside(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build a question without a picture, or one about a picture like a photograph.

    Args:
        rng: random generator of the sample.
        options: not used.
    """
    if rng.chance(0.3):
        return SceneQA(None, rng.choice(_WITHOUT), NOTHING)
    first, second = rng.sample(_ABOUT, 2)
    return SceneQA(_build_photograph(rng), first, NOT_KNOWN, ((second, NOT_KNOWN),) if first != second else ())


__all__ = ["NOTHING", "NOT_KNOWN", "build_outside"]
