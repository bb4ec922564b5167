"""Questions outside the model's domain: without a medium, and with photograph-like pictures. Called by `suite.py`."""

from __future__ import annotations

from benchmarks.nano_suite.items import Item, Question, Turn, generators, picture, single
from benchmarks.nano_suite.photographs import SCENES, make_photograph

NOTHING = "Nothing is shown."
ONLY_KNOW = "I only know drawings and screens."
_SIZES = ((512, 512), (640, 480), (480, 640), (400, 300), (780, 260), (640, 320), (300, 600), (600, 400))
_WITHOUT = (
    "What do you see?",
    "What does it say?",
    "Describe the picture.",
    "What color is the circle?",
    "What is in the image?",
    "How many stars are there?",
    "Which word is on the sign?",
    "Can you read the text?",
    "What happens in the clip?",
    "Where is the square?",
    "What is this?",
    "Please describe what is shown.",
    "What number is shown?",
    "Is there a triangle?",
    "Which bar is the tallest?",
    "What can you tell me about this picture?",
)
_ABOUT_PHOTOGRAPHS = (
    "What do you see?",
    "What is in the picture?",
    "Describe the image.",
    "What is this?",
    "What does it show?",
    "Describe it.",
    "What is going on here?",
    "Can you tell me what this is?",
)


def outside(number: int) -> Item:
    """Build an item without a medium (every third one) or with a photograph-like picture."""
    rng, seed = generators("outside", number)
    if number % 3 == 0:
        text = _WITHOUT[number // 3 % len(_WITHOUT)]
        return Item("outside", number, (Turn(Question(text, NOTHING, "nothing")),))
    scene = SCENES[number % len(SCENES)]
    size = rng.choice(_SIZES)
    question = Question(rng.choice(_ABOUT_PHOTOGRAPHS), ONLY_KNOW, "only_know")
    return single("outside", number, picture(lambda: make_photograph(scene, size, seed)), question)
