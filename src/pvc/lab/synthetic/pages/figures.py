"""Tasks `figures` (one to six shapes: what, which colour, where) and `tally` (up to nine to be counted)."""

from __future__ import annotations

from collections.abc import Sequence

from pvc.lab.synthetic import palette
from pvc.lab.synthetic.pages.canvas import Canvas, Item, Shape
from pvc.lab.synthetic.pages.layout import Room, any_page, finish, small_page
from pvc.lab.synthetic.phrasing import distinct, listed, with_article
from pvc.lab.synthetic.scene import Backdrop, SceneOptions, SceneQA
from pvc.lab.synthetic.seeding import Rng
from pvc.lab.synthetic.vocabulary import COLOUR_NAMES, COLOURS, PLURALS, SHAPES

Pair = tuple[str, str]
Asks = list[tuple[str, str]]
_TURNS = {"circle": 0, "square": 12, "triangle": 14, "star": 18, "cross": 14}
_LEAST = 8.0  # pixels of a tile that a shape is wide and high
PLACES = {
    "top left": (0.2, 0.2),
    "top right": (0.8, 0.2),
    "bottom left": (0.2, 0.8),
    "bottom right": (0.8, 0.8),
    "center": (0.5, 0.5),
    "top": (0.5, 0.2),
    "bottom": (0.5, 0.8),
    "left": (0.2, 0.5),
    "right": (0.8, 0.5),
}
SEE = (
    "What do you see?",
    "What is in the picture?",
    "What is in the image?",
    "What can you see?",
    "Describe the picture.",
    "Describe the image.",
    "Describe it.",
    "What is shown?",
    "What does the picture show?",
    "Name all objects.",
    "Which objects are there?",
    "List the objects.",
)
_WHAT = ("What is this?", "What is it?", *SEE)
_WHICH_SHAPE = (
    "What shape is this?",
    "Which shape is this?",
    "What shape is it?",
    "Which shape is shown?",
    "What shape do you see?",
)
_WHICH_COLOUR = (
    "What colour is it?",
    "What color is it?",
    "Which colour is it?",
    "What colour is this?",
    "What color is the shape?",
)
_COLOUR_OF = (
    "What colour is the {s}?",
    "What color is the {s}?",
    "Which colour is the {s}?",
    "Which color does the {s} have?",
    "What is the colour of the {s}?",
    "What is the color of the {s}?",
)
_SHAPE_OF = (
    "Which shape is {c}?",
    "What shape is {c}?",
    "What is {c}?",
    "What is the {c} shape?",
    "What shape is the {c} object?",
    "What is the {c} object?",
    "What shape does the {c} object have?",
)
_WHERE = (
    "Where is the {t}?",
    "In which part of the picture is the {t}?",
    "Where can you see the {t}?",
    "In which corner is the {t}?",
    "Where in the picture is the {t}?",
)
_HOW_MANY = (
    "How many {p} are there?",
    "How many {p} do you see?",
    "How many {p} can you see?",
    "How many {p} are in the picture?",
    "Count the {p}.",
    "What is the number of {p}?",
)
_ALL = ("objects", "shapes", "things")


def figure_ground(dice: Rng, colours: Sequence[str], clean: float = 0.6) -> Backdrop:
    """Draw a ground that none of the colours is lost on: plain and mostly white, grey or black, or textured."""
    if dice.chance(clean):
        plain = [(255, 255, 255), (245, 245, 240), (0, 0, 0), (40, 40, 45), (128, 128, 128), (210, 210, 215)]
        for rgb in dice.sample(plain, len(plain)):
            if palette.stands_apart(rgb, colours):
                return Backdrop(rgb)
    found = palette.figure_backdrop(dice, colours)
    textured = found.texture in ("ramp", "stripes", "checks")
    return found if textured else Backdrop(found.colour)


def room_for(dice: Rng, wish: SceneOptions) -> Room:
    """Draw the size of a picture of shapes: half of them are about a tile large."""
    return small_page(dice) if dice.chance(0.45) else any_page(dice)


def shape_at(dice: Rng, pair: Pair, x: float, y: float, w: float, h: float) -> Shape:
    """Return a shape in a shade of its colour, turned a little."""
    name, colour = pair
    turn = _TURNS[name] * dice.uniform(-1, 1) if dice.chance(0.4) else 0.0
    shrink = 1.0 if turn == 0 else 0.88
    rgb = palette.near(dice, COLOURS[colour], 14) if dice.chance(0.7) else COLOURS[colour]
    return Shape(name, round(x, 1), round(y, 1), round(w * shrink, 1), round(h * shrink, 1), rgb, round(turn, 1))


def scattered(dice: Rng, room: Room, pairs: Sequence[Pair], large: float = 0.95) -> list[Shape] | None:
    """Place shapes that do not touch, each in a cell of a grid; None where they would be too small."""
    count = len(pairs)
    columns, rows = _cells_for(dice, room, count)
    cell_w, cell_h = room.width / columns, room.height / rows
    placed = []
    low = max(_LEAST / room.across / cell_w, _LEAST / room.down / cell_h)
    if low > large:
        return None
    same = dice.uniform(low, large) if dice.chance(0.5) else None
    for pair, where in zip(pairs, dice.sample(range(columns * rows), count), strict=True):
        row, column = divmod(where, columns)
        part = same if same is not None else dice.uniform(low, large)
        # Shapes are seldom squeezed: a circle that is an ellipse is rare in drawings.
        side_w, side_h = part * cell_w, part * cell_h
        if dice.chance(0.8):
            side_w = side_h = max(min(side_w, side_h), min(_LEAST / min(room.across, room.down), min(cell_w, cell_h)))
        else:
            side_w, side_h = min(side_w, 1.5 * side_h), min(side_h, 1.5 * side_w)
        spare_x, spare_y = (cell_w - side_w) / 2, (cell_h - side_h) / 2
        x = (column + 0.5) * cell_w + dice.uniform(-spare_x, spare_x) * 0.95
        y = (row + 0.5) * cell_h + dice.uniform(-spare_y, spare_y) * 0.95
        placed.append(shape_at(dice, pair, x, y, side_w, side_h))
    return placed


def _cells_for(dice: Rng, room: Room, count: int) -> tuple[int, int]:
    """Return columns and rows of about square cells, at least as many as shapes."""
    wanted = count + (dice.integer(0, max(1, count)) if count > 1 or dice.chance(0.5) else 0)
    ratio = room.width / room.height
    columns = max(1, round((wanted * ratio) ** 0.5))
    rows = max(1, -(-wanted // columns))
    return columns, rows


def picture(dice: Rng, room: Room, shapes: Sequence[Item], colours: Sequence[str]) -> Canvas:
    """Return shapes on a ground that none of them is lost on."""
    return Canvas(room.width, room.height, figure_ground(dice, colours), tuple(shapes), finish(dice, room))


def any_pair(dice: Rng) -> Pair:
    """Draw a shape and a colour."""
    return dice.choice(SHAPES), dice.choice(COLOUR_NAMES)


def named(dice: Rng, pair: Pair, pairs: Sequence[Pair]) -> str:
    """Return a name that fits one shape only: the shape, or with its colour."""
    alone = sum(name == pair[0] for name, _ in pairs) == 1
    return pair[0] if alone and dice.chance(0.6) else f"{pair[1]} {pair[0]}"


def reading_order(shapes: Sequence[Shape], room: Room) -> list[int]:
    """Return the places of shapes from left to right in rows from top to bottom."""
    left = sorted(range(len(shapes)), key=lambda i: shapes[i].y)
    rows: list[list[int]] = []
    for i in left:
        if rows and shapes[i].y - shapes[rows[-1][0]].y < 0.5 * (shapes[i].h + shapes[rows[-1][0]].h) / 2:
            rows[-1].append(i)
        else:
            rows.append([i])
    return [i for row in rows for i in sorted(row, key=lambda i: shapes[i].x)]


def pair_asks(dice: Rng, pairs: Sequence[Pair]) -> Asks:
    """Return questions about the colour of every shape and the shape of every colour that is on one of them only."""
    asks: Asks = []
    for name, colour in pairs:
        if sum(other == name for other, _ in pairs) == 1:
            asks.append((dice.choice(_COLOUR_OF).format(s=name), colour))
        if sum(other == colour for _, other in pairs) == 1:
            asks.append((dice.choice(_SHAPE_OF).format(c=colour), name))
    return asks


def _relations(dice: Rng, shapes: Sequence[Shape], pairs: Sequence[Pair]) -> Asks:
    """Return questions about which of two shapes is left of, above or larger than the other."""
    (a, b), (p, q) = shapes, pairs
    asks: Asks = []
    thing, other = named(dice, p, pairs), named(dice, q, pairs)
    if abs(a.x - b.x) > 0.6 * (a.w + b.w) / 2 and abs(a.x - b.x) > abs(a.y - b.y):
        left, right = (p, q) if a.x < b.x else (q, p)
        asks.append(
            (
                dice.choice(("What is on the left?", "Which shape is on the left?", "What is on the left side?")),
                _thing(left),
            )
        )
        asks.append(
            (
                dice.choice(("What is on the right?", "Which shape is on the right?", "What is on the right side?")),
                _thing(right),
            )
        )
        side = "left" if a.x < b.x else "right"
        asks.append((f"Is the {thing} to the left or to the right of the {other}?", side))
        asks.append((f"What is to the {'right' if side == 'left' else 'left'} of the {thing}?", _thing(q)))
    elif abs(a.y - b.y) > 0.6 * (a.h + b.h) / 2:
        high, low = (p, q) if a.y < b.y else (q, p)
        asks.append((dice.choice(("What is at the top?", "Which shape is above?", "What is above?")), _thing(high)))
        asks.append((dice.choice(("What is at the bottom?", "Which shape is below?", "What is below?")), _thing(low)))
        side = "above" if a.y < b.y else "below"
        asks.append((f"Is the {thing} above or below the {other}?", side))
        asks.append((f"What is {'below' if side == 'above' else 'above'} the {thing}?", _thing(q)))
    area = a.w * a.h / (b.w * b.h)
    if not 0.55 < area < 1.8:
        larger, smaller = (p, q) if area > 1 else (q, p)
        asks.append(
            (dice.choice(("Which shape is larger?", "What is the largest shape?", "Which is bigger?")), _thing(larger))
        )
        asks.append((dice.choice(("Which shape is smaller?", "What is the smallest shape?")), _thing(smaller)))
    return asks


def _thing(pair: Pair) -> str:
    return with_article(f"{pair[1]} {pair[0]}")


def objects_page(dice: Rng, wish: SceneOptions, count: int) -> tuple[Canvas, list[Pair], list[Shape], Room]:
    """Return a picture of so many shapes, at most one of each kind, in reading order."""
    while True:
        room = room_for(dice, wish)
        pairs = list(dict.fromkeys(any_pair(dice) for _ in range(count)))
        if len(pairs) < count:
            continue
        shapes = scattered(dice, room, pairs)
        if shapes is not None:
            break
    order = reading_order(shapes, room)
    shapes, pairs = [shapes[i] for i in order], [pairs[i] for i in order]
    return picture(dice, room, shapes, [c for _, c in pairs]), pairs, shapes, room


def figures(dice: Rng, wish: SceneOptions) -> SceneQA:
    """One to six shapes; asked is what they are, their colours, or how they lie to each other."""
    if dice.chance(0.22):
        return _at_places(dice, wish)
    count = dice.weighted({1: 0.34, 2: 0.3, 3: 0.2, 4: 0.08, 5: 0.05, 6: 0.03})
    canvas, pairs, shapes, _ = objects_page(dice, wish, count)
    asks = pair_asks(dice, pairs)
    whole = (dice.choice(_WHAT if count == 1 else SEE), listed([_thing(pair) for pair in pairs]))
    if count == 1:
        asks += [(dice.choice(_WHICH_SHAPE), pairs[0][0]), (dice.choice(_WHICH_COLOUR), pairs[0][1])]
    if count == 2:
        asks += _relations(dice, shapes, pairs)
    asks.append((dice.choice(_HOW_MANY).format(p=dice.choice(_ALL)), str(count)))
    absent, colour = dice.choice(SHAPES), dice.choice(COLOUR_NAMES)
    asks.append(
        (dice.choice((f"Is there a {absent}?", f"Do you see a {absent}?")), _yes(any(s == absent for s, _ in pairs)))
    )
    asks.append((f"Is there {with_article(f'{colour} shape')}?", _yes(any(c == colour for _, c in pairs))))
    if count == 1:
        asks.append((f"Is the {pairs[0][0]} {colour}?", _yes(pairs[0][1] == colour)))
    first = whole if dice.chance(0.3) else dice.choice(asks)
    return SceneQA(canvas, *first, distinct(first[0], [whole, *asks], 4, dice))


def _yes(true: bool) -> str:
    return "yes" if true else "no"


def _at_places(dice: Rng, wish: SceneOptions) -> SceneQA:
    """Return shapes in corners, at edges and in the centre; asked is where one is, or what is there."""
    room = room_for(dice, wish)
    corners = tuple(PLACES)[:5]
    edges = ("center", "top", "bottom", "left", "right")
    options = corners if dice.chance(0.65) else edges
    count = dice.weighted({1: 0.4, 2: 0.3, 3: 0.2, 4: 0.1})
    places = dice.sample(options, count)
    pairs: list[Pair] = []
    while len(pairs) < count:
        pair = any_pair(dice)
        if all(pair[0] != s and pair[1] != c for s, c in pairs):
            pairs.append(pair)
    shapes = []
    for pair, place in zip(pairs, places, strict=True):
        # A third of the page at most, so that neighbours in the edges stay apart.
        low = _LEAST / min(room.across * room.width, room.down * room.height)
        w, h = (dice.uniform(min(low, 0.3), 0.31) * side for side in (room.width, room.height))
        if dice.chance(0.8):
            w = h = min(max(min(w, h), _LEAST / min(room.across, room.down)), 0.33 * min(room.width, room.height))
        px, py = PLACES[place]
        x, y = (
            px * room.width + dice.uniform(-0.04, 0.04) * room.width,
            py * room.height + dice.uniform(-0.04, 0.04) * room.height,
        )
        x, y = min(max(x, w / 2), room.width - w / 2), min(max(y, h / 2), room.height - h / 2)
        shapes.append(shape_at(dice, pair, x, y, w, h))
    canvas = picture(dice, room, shapes, [c for _, c in pairs])
    asks: Asks = []
    for pair, place in zip(pairs, places, strict=True):
        thing = named(dice, pair, pairs)
        where = dice.choice(_WHERE)
        if "corner" in where and " " not in place:
            where = _WHERE[0]
        asks.append((where.format(t=thing), place))
        at = (
            "in the center"
            if place == "center"
            else f"at the {place}"
            if " " in place or place in ("top", "bottom")
            else f"on the {place}"
        )
        if place in ("top left", "top right", "bottom left", "bottom right") and dice.chance(0.4):
            at = f"in the {place} corner"
        middle = at.replace("center", dice.choice(("center", "middle", "centre")))
        asks.append(
            (
                dice.choice((f"What is {middle}?", f"Which shape is {middle}?", f"What do you see {middle}?")),
                _thing(pair),
            )
        )
    first = dice.choice(asks)
    return SceneQA(canvas, *first, distinct(first[0], [*asks, *pair_asks(dice, pairs)], 4, dice))


def tally(dice: Rng, wish: SceneOptions) -> SceneQA:
    """One to nine shapes of a kind or colour, among others or alone; asked is how many."""
    number = dice.weighted({1: 0.08, 2: 0.12, 3: 0.15, 4: 0.17, 5: 0.16, 6: 0.14, 7: 0.08, 8: 0.05, 9: 0.05})
    others = 0 if dice.chance(0.45) else dice.integer(1, min(5, 10 - number))
    by_shape = dice.chance(0.65)
    kind, colour = any_pair(dice)
    while True:
        room = room_for(dice, wish)
        if by_shape:
            shades = (colour,) if dice.chance(0.6) else COLOUR_NAMES
            pairs = [(kind, dice.choice(shades)) for _ in range(number)]
            rest = [s for s in SHAPES if s != kind]
            pairs += [(dice.choice(rest), dice.choice(COLOUR_NAMES)) for _ in range(others)]
        else:
            kinds = (kind,) if dice.chance(0.5) else SHAPES
            pairs = [(dice.choice(kinds), colour) for _ in range(number)]
            tones = [c for c in COLOUR_NAMES if c != colour]
            pairs += [(dice.choice(SHAPES), dice.choice(tones)) for _ in range(others)]
        shapes = _in_row(dice, room, pairs) if dice.chance(0.2) else scattered(dice, room, pairs, 0.85)
        if shapes is not None:
            break
    canvas = picture(dice, room, shapes, [c for _, c in pairs])
    asks: Asks = []
    for name in sorted({s for s, _ in pairs}):
        asks.append((dice.choice(_HOW_MANY).format(p=PLURALS[name]), str(sum(s == name for s, _ in pairs))))
    for tone in sorted({c for _, c in pairs}):
        thing = dice.choice(("shapes", "objects"))
        asks.append((dice.choice(_HOW_MANY).format(p=f"{tone} {thing}"), str(sum(c == tone for _, c in pairs))))
    for name, tone in sorted(set(pairs)):
        asks.append((dice.choice(_HOW_MANY).format(p=f"{tone} {PLURALS[name]}"), str(pairs.count((name, tone)))))
    asks.append((dice.choice(_HOW_MANY).format(p=dice.choice(_ALL)), str(len(pairs))))
    wanted = PLURALS[kind] if by_shape else f"{colour} "
    first = dice.choice([ask for ask in asks if wanted in ask[0]])
    return SceneQA(canvas, *first, distinct(first[0], asks, 4, dice))


def _in_row(dice: Rng, room: Room, pairs: Sequence[Pair]) -> list[Shape] | None:
    """Place shapes of one size beside each other."""
    pitch = 0.96 * room.width / len(pairs)
    side = min(pitch * dice.uniform(0.6, 0.9), 0.9 * room.height)
    if side < _LEAST / min(room.across, room.down):
        return None
    y = side / 2 + (room.height - side) * dice.random()
    mixed = dice.sample(pairs, len(pairs))
    return [shape_at(dice, pair, 0.02 * room.width + pitch * (i + 0.5), y, side, side) for i, pair in enumerate(mixed)]


__all__ = ["SEE", "any_pair", "figure_ground", "figures", "objects_page", "pair_asks", "picture", "tally"]
