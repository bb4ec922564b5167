"""Tasks about shapes that move, appear or do something again and again: `direction`, `appear` and `events`.

They choose what is shown and asked; looks come from `palette`. Used by `tasks`.
"""

from __future__ import annotations

from typing import Any

from pvc.lab.synthetic import palette
from pvc.lab.synthetic.clips import (
    WAYS,
    Ask,
    Path,
    anywhere,
    between,
    camera,
    drafted,
    during,
    home,
    in_colour,
    journey,
    journeys,
    laid_out,
    moments,
    other_colour,
    placed,
    redrawn,
    spans,
    times_word,
)
from pvc.lab.synthetic.objects import about_pairs, name_of, scatter
from pvc.lab.synthetic.phrasing import number_word
from pvc.lab.synthetic.scene import UNITS, Figure, Scene, SceneOptions, SceneQA
from pvc.lab.synthetic.seeding import Rng
from pvc.lab.synthetic.vocabulary import DIRECTIONS

Pair = tuple[str, str]

# Objects (least and most), their size and how far they move in the clip, in units, by level.
_MOTION = {
    1: ((1, 1), (15, 22), (28, 40)),
    2: ((1, 2), (13, 19), (20, 34)),
    3: ((2, 3), (12, 17), (14, 26)),
    4: ((3, 4), (9, 13), (9, 14)),
}
_SLANTED_FROM = 3
_FASTER = 1.5  # times as far: less is hard to see
# Objects, their size and the side of the grid they stand in, by level.
_APPEAR = {1: (2, (20, 28), 2), 2: (3, (16, 26), 2), 3: (4, (14, 24), 2), 4: (5, (10, 15), 3)}
# Objects, their size, how high they jump and how many events there are at most, by level.
_EVENTS = {1: (1, (18, 26), 18, 4), 2: (1, (13, 20), 14, 5), 3: (2, (12, 17), 11, 6), 4: (3, (9, 13), 7, 6)}
_LASTING_FROM = 24  # frames: in clips as long, events may last up to three frames
_WHICH_WAY = (
    "Which way does the {thing} move?",
    "In which direction does the {thing} move?",
    "Where does the {thing} move to?",
)
_HOW_OFTEN = ("How many times does the {thing} {do}?", "How often does the {thing} {do}?")
_ALL_IN_ORDER = ("In which order do the shapes appear?", "Name the shapes in the order they appear.")


def clip(dice: Rng, figures: tuple[Figure, ...], asked: dict[str, Any], level: int) -> Scene:
    """Shapes over time on a ground that none of them is lost on."""
    length = len(figures[0].track)
    times = palette.timestamps(dice, length)
    ground = palette.figure_backdrop(dice, [f.colour for f in figures])
    return Scene(ground, camera(dice, level), (), figures, (), length, times, asked)


def about(dice: Rng, pairs: list[Pair]) -> list[Ask]:
    """The colour of every shape and the shape of every colour, with sentences."""
    colours = dict(pairs)
    return [
        (question, answer, f"The {answer} is {colours[answer]}." if answer in colours else _is_coloured(pairs, answer))
        for question, answer in about_pairs(dice, pairs)
    ]


def _is_coloured(pairs: list[Pair], colour: str) -> str:
    return next(f"The {shape} is {own}." for shape, own in pairs if own == colour)


def way_ask(dice: Rng, pair: Pair, way: str) -> Ask:
    """Which way something moves."""
    thing = name_of(dice, *pair)
    return dice.choice(_WHICH_WAY).format(thing=thing), way, f"The {thing} moves {way}."


def stillness_ask(dice: Rng, pair: Pair, way: str) -> Ask:
    """Whether something moves."""
    thing = name_of(dice, *pair)
    answer = "it stands still" if way == "still" else "it moves"
    return f"Does the {thing} move or stand still?", answer, f"The {thing} {answer[3:]}."


@redrawn
def direction(dice: Rng, wish: SceneOptions) -> SceneQA:
    """Shapes that move, each another way, or stand still; asked is the way of one that moves.

    Level 1: one large, fast shape; 2: up to two; 3: up to three, slanted ways too; 4: up to four, small, slow, noisy.
    """
    level = palette.level_of(dice, wish)
    length = palette.clip_length(dice, wish.frames, 2)
    (fewest, most), (low, high), (near, far) = _MOTION[level]
    pairs = palette.pairs(dice, wish.split, dice.integer(fewest, most))
    ways = dice.sample(tuple(WAYS if level >= _SLANTED_FROM else DIRECTIONS), len(pairs))
    ways = [ways[0], *("still" if dice.chance(0.35) else w for w in ways[1:])]
    ratio = palette.squash(dice)
    sizes = [palette.extents(dice, low, high, ratio, 24) for _ in pairs]

    def path(i: int) -> Path:
        if ways[i] == "still":
            return (anywhere(dice, sizes[i]),) * 2
        slow = i > 0 and level > 1 and dice.chance(0.4)
        travel = dice.uniform(near, far)
        return journey(dice, ways[i], sizes[i], max(6.0, 0.5 * travel) if slow else travel)

    def layout(ends: Path) -> tuple[object, ...]:
        return "direction", *palette.cell_of(*ends[0], 4), ways[0], len(pairs)

    paths = journeys(len(pairs), path, laid_out(wish.split, lambda: path(0), layout))
    tracks = [between(start, end, length) for start, end in paths]
    figures = [palette.figure(dice, *p, size, track) for p, size, track in zip(pairs, sizes, tracks, strict=True)]
    asked = {"shape": pairs[0][0], "colour": pairs[0][1], "direction": ways[0]}
    # Drawn last, so that nothing passes in front of the one that is asked for.
    scene = clip(dice, tuple(reversed(figures)), asked, level)
    moving = list(zip(pairs, ways, strict=True))
    asks = [way_ask(dice, pair, way) for pair, way in moving if way != "still"]
    others = _faster(dice, pairs, paths)
    if len(moving) > 1:  # one shape alone always moves
        still = [item for item in moving if item[1] == "still"]
        others.append(stillness_ask(dice, *dice.choice(still if still and dice.chance(0.6) else moving)))
    if others and dice.chance(0.2):
        asks.insert(0, others.pop())
    return drafted(dice, scene, [*asks, *others, *about(dice, pairs)], level)


def _faster(dice: Rng, pairs: list[Pair], paths: list[Path]) -> list[Ask]:
    """Which of two moves faster, for the first two that differ clearly."""
    gone = [((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5 for (x0, y0), (x1, y1) in paths]
    for i, (one, _) in enumerate(pairs):
        for j, (other, _) in enumerate(pairs[:i]):
            if min(gone[i], gone[j]) > 0 and not 1 / _FASTER < gone[i] / gone[j] < _FASTER:
                first, second = dice.sample((one, other), 2)
                answer = one if gone[i] > gone[j] else other
                question = f"Which moves faster, the {first} or the {second}?"
                return [(question, answer, f"The {answer} moves faster.")]
    return []


@redrawn
def appear(dice: Rng, wish: SceneOptions) -> SceneQA:
    """Shapes appear one after another and stay or go; asked is which one comes first, last, after or before another.

    Level 1: two large shapes that stay; 2: three; 3: four; 4: five small ones in noise.
    """
    level = palette.level_of(dice, wish)
    length = palette.clip_length(dice, wish.frames, 2)
    number, (low, high), side = _APPEAR[level]
    pairs = palette.pairs(dice, wish.split, min(number, length))
    items = laid_out(
        wish.split,
        lambda: scatter(dice, pairs, low, high, side),
        lambda drawn: ("appear", *(palette.cell_of(*home(item), 8) for item in drawn[:2]), len(drawn)),
    )
    stays = 1.0 if level == 1 else dice.choice((1.0, 0.0, 0.5))
    lead = dice.integer(1, (length - len(pairs) + 1) // 2) if length > len(pairs) and dice.chance(0.3) else 0
    figures = []
    for item, (start, end) in zip(items, spans(dice, length - lead, len(pairs), 3 - min(level, 2)), strict=True):
        first, last = lead + start, length if dice.chance(stays) else lead + end
        figures.append(placed(item, during(home(item), [first <= f < last for f in range(length)])))
    scene = clip(dice, tuple(figures), {"shapes": [s for s, _ in pairs], "colours": [c for _, c in pairs]}, level)
    asks = [
        *_order_asks(dice, pairs),
        ("How many shapes appear?", str(len(pairs)), f"{number_word(len(pairs))} shapes appear."),
    ]
    order = dice.sample(range(len(asks) - 1), len(asks) - 1)
    return drafted(dice, scene, [*(asks[i] for i in order), asks[-1]], level)


def _order_asks(dice: Rng, pairs: list[Pair]) -> list[Ask]:
    asks = []
    for when, (shape, colour) in (("first", pairs[0]), ("last", pairs[-1])):
        question = dice.choice(("Which shape appears {when}?", "What is the shape that appears {when}?"))
        asks.append((question.format(when=when), shape, f"The {shape} appears {when}."))
        spelling = dice.choice(("colour", "color"))
        question = f"What {spelling} is the shape that appears {when}?"
        asks.append((question, colour, f"The shape that appears {when} is {colour}."))
    if len(pairs) > 2:
        names = [shape for shape, _ in pairs]
        for i in range(len(pairs) - 1):
            one, other = name_of(dice, *pairs[i]), name_of(dice, *pairs[i + 1])
            after, before = names[i + 1], names[i]
            asks.append((f"Which shape appears right after the {one}?", after, f"The {after} appears after the {one}."))
            asks.append(
                (f"Which shape appears right before the {other}?", before, f"The {before} appears before the {other}.")
            )
        sentence = f"First the {names[0]} appears, then the {', then the '.join(names[1:])}."
        asks.append((dice.choice(_ALL_IN_ORDER), ", ".join(names), sentence))
    return asks


@redrawn
def events(dice: Rng, wish: SceneOptions) -> SceneQA:
    """A shape flashes in another colour, jumps or shows up once to six times; asked is how often.

    Level 1: one large shape, at most four times; 2: smaller, at most five; 3: two shapes, at most six; 4: three small
    ones in noise, low jumps.
    """
    level = palette.level_of(dice, wish)
    length = palette.clip_length(dice, wish.frames, 3)
    number, (low, high), rise, most = _EVENTS[level]
    kind = dice.weighted({"flash": 0.4, "jump": 0.3, "appear": 0.3})
    pairs = palette.pairs(dice, wish.split, number)
    lasting = dice.integer(1, 3) if length >= _LASTING_FROM else 1
    most = min(most, length // (lasting + 1))
    counts = [dice.integer(1, most) for _ in pairs]
    lit = other_colour(dice, [s for s, _ in pairs], [c for _, c in pairs])
    assert lit is not None
    items = laid_out(
        wish.split,
        lambda: _actors(dice, pairs, (low, high), rise if kind == "jump" else 0),
        lambda drawn: ("events", kind, *palette.cell_of(*home(drawn[0]), 4), len(drawn), counts[0]),
    )
    figures: list[Figure] = []
    for item, times in zip(items, counts, strict=True):
        starts = moments(dice, length, times, lasting)
        busy = [any(s <= f < s + lasting for s in starts) for f in range(length)]
        figures += _acting(dice, item, kind, busy, lit, rise)
    asked = {"kind": kind, "shape": pairs[0][0], "colour": pairs[0][1], "counts": counts, "lit": lit}
    scene = clip(dice, tuple(figures), asked, level)
    do = {"flash": f"turn {lit}" if dice.chance(0.5) else "flash", "jump": "jump", "appear": "appear"}[kind]
    return drafted(dice, scene, _event_asks(dice, pairs, counts, kind, do, lit), level)


def _actors(dice: Rng, pairs: list[Pair], bounds: tuple[float, float], rise: float) -> list[Figure]:
    """Shapes side by side, each with room above it for a jump."""
    column = UNITS / len(pairs)
    ratio = palette.squash(dice)
    items = []
    for i, (shape, colour) in enumerate(pairs):
        w, h = palette.extents(dice, *bounds, ratio, min(column - 3, 26))
        spare = max(0.0, (column - w) / 2 - 1)
        x = round(column * (i + 0.5) + dice.uniform(-spare, spare), 3)
        y = dice.uniform(h / 2 + 1 + rise, UNITS - h / 2 - 1)
        items.append(palette.figure(dice, shape, colour, (w, h), ((x, y),)))
    return items


def _acting(dice: Rng, item: Figure, kind: str, busy: list[bool], lit: str, rise: float) -> list[Figure]:
    """The shape through the clip: in its events it shows up, is somewhat higher, or has another colour."""
    point = home(item)
    if kind == "appear":
        return [placed(item, during(point, busy))]
    if kind == "jump":
        high = (point[0], round(point[1] - rise, 3))
        return [placed(item, tuple(high if b else point for b in busy))]
    idle = placed(item, during(point, [not b for b in busy]))
    return [idle, in_colour(dice, item, lit, during(point, busy))]


def _event_asks(dice: Rng, pairs: list[Pair], counts: list[int], kind: str, do: str, lit: str) -> list[Ask]:
    does = f"turns {lit}" if do.startswith("turn") else f"{do}es" if do == "flash" else f"{do}s"
    asks = []
    for pair, times in zip(pairs, counts, strict=True):
        # What flashes has two colours, so its shape names it.
        thing = pair[0] if kind == "flash" else name_of(dice, *pair)
        question = dice.choice(_HOW_OFTEN).format(thing=thing, do=do)
        asks.append((question, str(times), f"The {thing} {does} {times_word(times)}."))
    if len(counts) > 1 and sorted(counts)[-1] > sorted(counts)[-2]:
        shape = pairs[counts.index(max(counts))][0]
        asks.append((f"Which shape {does} most often?", shape, f"The {shape} {does} most often."))
    if kind == "flash":
        shape, colour = dice.choice(pairs)
        asks.append((f"What colour does the {shape} turn?", lit, f"The {shape} turns {lit}."))
        asks.append((f"What colour is the {shape} at first?", colour, f"The {shape} is {colour} at first."))
        asks.append(("How many shapes are there?", str(len(pairs)), there_are(len(pairs))))
        return asks
    return asks + about(dice, pairs)


def there_are(number: int) -> str:
    """ "There is one shape.", "There are two shapes." """
    return "There is one shape." if number == 1 else f"There are {number_word(number)} shapes."
