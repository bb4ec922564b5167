"""Tasks about shapes that move or appear: `direction` and `appear`.

They choose what is shown and asked; looks come from `palette`. Used by `tasks`.
"""

from __future__ import annotations

from typing import Any

from pvc.synthetic import palette
from pvc.synthetic.objects import about_pairs, distinct_pairs, further_questions, name_of, scatter
from pvc.synthetic.scene import UNITS, Draft, Figure, Scene, Track, Wish
from pvc.synthetic.seeding import Dice
from pvc.synthetic.vocabulary import DIRECTIONS

_WHICH_WAY = (
    "Which way does the {thing} move?",
    "In which direction does the {thing} move?",
    "Where does the {thing} move to?",
)
_APPEAR_SHAPE = ("Which shape appears {when}?", "What is the shape that appears {when}?")
_APPEAR_COLOUR = ("What colour is the shape that appears {when}?", "What color is the shape that appears {when}?")


def _clip(dice: Dice, figures: tuple[Figure, ...], asked: dict[str, Any]) -> Scene:
    length = len(figures[0].track)
    times = palette.timestamps(dice, length)
    ground = palette.figure_backdrop(dice, [f.colour for f in figures])
    return Scene(ground, palette.look(dice), (), figures, (), length, times, asked)


def _motion(dice: Dice, way: str, size: tuple[float, float], frames: int, least: float) -> Track:
    """A straight path of at least `least` units, all of it in the picture, with a slight drift to the side."""
    dx, dy = DIRECTIONS[way]
    along = size[0] if dx else size[1]
    across = size[1] if dx else size[0]
    room = UNITS - along - 2
    travel = dice.uniform(least, max(least, min(46.0, room)))
    start = along / 2 + 1 + dice.uniform(0, room - travel)
    drift = dice.uniform(-3, 3)
    level = dice.uniform(across / 2 + 4, UNITS - across / 2 - 4)
    points = []
    for f in range(frames):
        part = f / (frames - 1)
        ahead, aside = start + travel * part, level + drift * (part - 0.5)
        if dx + dy < 0:
            ahead = UNITS - ahead
        points.append((round(ahead, 3), round(aside, 3)) if dx else (round(aside, 3), round(ahead, 3)))
    return tuple(points)


def direction(dice: Dice, wish: Wish) -> Draft:
    """One to three shapes, each moving another way or standing still; asked is the way of one that moves."""
    length = palette.clip_length(dice, wish.frames, 2)
    pairs = distinct_pairs(dice, dice.integer(1, 3))
    ways = dice.sample(tuple(DIRECTIONS), len(pairs))
    ways = [ways[0], *("still" if dice.chance(0.35) else w for w in ways[1:])]
    ratio = palette.squash(dice)
    figures = []
    for (name, colour), way in zip(pairs, ways, strict=True):
        size = palette.extents(dice, 12, 20, ratio, 24)
        if way == "still":
            x = dice.uniform(size[0] / 2 + 1, UNITS - size[0] / 2 - 1)
            track: Track = ((x, dice.uniform(size[1] / 2 + 1, UNITS - size[1] / 2 - 1)),) * length
        else:
            track = _motion(dice, way, size, length, 20.0)
        figures.append(palette.figure(dice, name, colour, size, track))
    asked = {"shape": pairs[0][0], "colour": pairs[0][1], "direction": ways[0]}
    # Drawn last, so that nothing passes in front of the one that is asked for.
    scene = _clip(dice, tuple(reversed(figures)), asked)
    question = dice.choice(_WHICH_WAY).format(thing=name_of(dice, *pairs[0]))
    others = [
        (dice.choice(_WHICH_WAY).format(thing=name_of(dice, *pair)), way)
        for pair, way in zip(pairs[1:], ways[1:], strict=True)
        if way != "still"
    ]
    return Draft(scene, question, ways[0], further_questions(dice, others + about_pairs(dice, pairs), question))


def appear(dice: Dice, wish: Wish) -> Draft:
    """Two to four shapes appear one after another and stay or go; asked is the first or the last."""
    length = palette.clip_length(dice, wish.frames, 2)
    pairs = distinct_pairs(dice, dice.integer(2, min(4, length)))
    stays = dice.chance(0.6)
    placed = scatter(dice, pairs, 14, 26, 2)
    figures = []
    for item, (start, end) in zip(placed, palette.spans(dice, length, len(pairs)), strict=True):
        shown = range(start, length if stays else end)
        track = tuple(item.track[0] if f in shown else None for f in range(length))
        figures.append(Figure(item.shape, item.colour, item.rgb, item.w, item.h, item.angle, track))
    when = dice.choice(("first", "last"))
    name, colour = pairs[0] if when == "first" else pairs[-1]
    about = dice.choice(("shape", "colour"))
    asked = {"when": when, "about": about, "shape": name, "colour": colour}
    scene = _clip(dice, tuple(figures), asked)
    words = _APPEAR_SHAPE if about == "shape" else _APPEAR_COLOUR
    question = dice.choice(words).format(when=when)
    others = []
    for moment, (kind, shade) in (("first", pairs[0]), ("last", pairs[-1])):
        others.append((dice.choice(_APPEAR_SHAPE).format(when=moment), kind))
        others.append((dice.choice(_APPEAR_COLOUR).format(when=moment), shade))
    return Draft(scene, question, name if about == "shape" else colour, further_questions(dice, others, question))
