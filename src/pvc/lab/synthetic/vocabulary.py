"""The words of the procedural world: characters, shapes, colours, places, and the class ids of patches.

Pure data and look-ups. Called by all modules here and by stage-0 training, which needs PATCH_CLASSES.

Patch classes: 0 is background; 1..26 are A..Z, 27..36 are 0..9, 37..62 are a..z, 63..70 are marks; then
71 + 8 * shape index + colour index.
"""

from __future__ import annotations

Rgb = tuple[int, int, int]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = "0123456789"
LOWER = LETTERS.lower()
PUNCTUATION = ".,:-/%$#"
CHARACTERS = LETTERS + DIGITS + LOWER + PUNCTUATION
# O and 0, I and 1 differ by little more than their width, and pictures are squashed, so mixed strings avoid O and I,
# as number plates do.
SAFE_LETTERS = "".join(c for c in LETTERS if c not in "OI")

SHAPES = ("circle", "square", "triangle", "star", "cross")
PLURALS = {"circle": "circles", "square": "squares", "triangle": "triangles", "star": "stars", "cross": "crosses"}

# Eight colours that stay apart under the jitter of `CameraEffects`; pink and grey are left out because they do not.
COLOURS: dict[str, Rgb] = {
    "red": (214, 26, 32),
    "green": (28, 150, 52),
    "blue": (32, 72, 218),
    "yellow": (246, 226, 36),
    "orange": (246, 136, 16),
    "purple": (142, 44, 172),
    "white": (248, 248, 248),
    "black": (12, 12, 12),
}
COLOUR_NAMES = tuple(COLOURS)

PLACES: dict[str, tuple[float, float]] = {
    "top left": (0.22, 0.22),
    "top right": (0.78, 0.22),
    "bottom left": (0.22, 0.78),
    "bottom right": (0.78, 0.78),
    "center": (0.5, 0.5),
}
DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}

FIRST_SHAPE_CLASS = 1 + len(CHARACTERS)
PATCH_CLASSES = FIRST_SHAPE_CLASS + len(SHAPES) * len(COLOURS)
BACKGROUND_CLASS = 0

_CHARACTER_CLASS = {c: 1 + i for i, c in enumerate(CHARACTERS)}
_SHAPE_CLASS = {
    (shape, colour): FIRST_SHAPE_CLASS + len(COLOURS) * i + j
    for i, shape in enumerate(SHAPES)
    for j, colour in enumerate(COLOURS)
}
_NAMES = {BACKGROUND_CLASS: "background"}
_NAMES |= {v: k for k, v in _CHARACTER_CLASS.items()}
_NAMES |= {v: f"{colour} {shape}" for (shape, colour), v in _SHAPE_CLASS.items()}


def character_class(character: str) -> int:
    """Return the patch class of one of CHARACTERS."""
    return _CHARACTER_CLASS[character]


def shape_class(shape: str, colour: str) -> int:
    """Return the patch class of a shape in a colour.

    Args:
        shape: one of SHAPES.
        colour: one of COLOUR_NAMES.
    """
    return _SHAPE_CLASS[shape, colour]


def class_name(patch_class: int) -> str:
    """Return the name of a patch class: "background", "A", "red circle"."""
    return _NAMES[patch_class]
