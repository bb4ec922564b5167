"""Task `outside`: nothing is shown, or something like a photograph; the answer says so.

Photographs are imitated by coloured noise of many scales, soft blobs and horizons. Real ones differ.
"""

from __future__ import annotations

from pvc.lab.synthetic import palette
from pvc.lab.synthetic.pages.canvas import Canvas, Cloud, Finish, Item, Shape
from pvc.lab.synthetic.pages.figures import SEE
from pvc.lab.synthetic.pages.layout import any_page
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


def photograph(dice: Rng) -> Canvas:
    """Return a picture with the statistics of a photograph and no outlines to name."""
    room = any_page(dice)
    tint = palette.near(dice, (dice.integer(50, 205),) * 3, 50)
    slope, colour = dice.uniform(0.7, 2.0), 0.6 * dice.random() ** 2
    items: list[Item] = [Cloud(dice.integer(0, 1 << 30), slope, dice.uniform(25, 65), tint, colour)]
    # Blobs without edges would be shapes: they are small, many, or at the rim, and blurred.
    for _ in range(dice.integer(0, 9)):
        size = dice.uniform(0.05, 0.5) * min(room.width, room.height)
        x, y = dice.uniform(0, room.width), dice.uniform(0, room.height)
        rgb = palette.near(dice, tint, 70)
        items.append(Shape("circle", x, y, size * dice.uniform(0.5, 1.6), size, rgb))
    blur = dice.uniform(0.006, 0.03) * min(room.width, room.height)
    noise = dice.uniform(2, 12)
    finish = Finish(round(blur, 2), noise, dice.integer(0, 1 << 30), dice.integer(40, 92) if dice.chance(0.5) else 0)
    return Canvas(room.width, room.height, Backdrop(tint), tuple(items), finish)


def outside(dice: Rng, wish: SceneOptions) -> SceneQA:
    """Nothing, or what only looks like a photograph."""
    if dice.chance(0.3):
        return SceneQA(None, dice.choice(_WITHOUT), NOTHING)
    first, second = dice.sample(_ABOUT, 2)
    return SceneQA(photograph(dice), first, NOT_KNOWN, ((second, NOT_KNOWN),) if first != second else ())


__all__ = ["NOTHING", "NOT_KNOWN", "outside", "photograph"]
