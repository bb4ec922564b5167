"""Tasks `figures` (one to six shapes: what, which colour, where) and `tally` (up to nine to be counted).

Called by `tasks`, `films`, `graphs` and `albums`.
"""

from __future__ import annotations

from collections.abc import Sequence

from pvc.lab.synthetic import palette
from pvc.lab.synthetic.pages.canvas import Canvas, Item, Shape
from pvc.lab.synthetic.pages.layout import PageSize, sample_finish, sample_page, sample_small_page
from pvc.lab.synthetic.phrasing import add_article, join_names, select_distinct
from pvc.lab.synthetic.scene import Backdrop, SceneOptions, SceneQA
from pvc.lab.synthetic.seeding import Rng
from pvc.lab.synthetic.vocabulary import COLOUR_NAMES, COLOURS, PLURALS, SHAPES

Pair = tuple[str, str]
Questions = list[tuple[str, str]]
_MAX_ANGLES = {"circle": 0, "square": 12, "triangle": 14, "star": 18, "cross": 14}
_MIN_SIDE = 8.0  # pixels of a tile that a shape is wide and high
_PLACES = {
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


def sample_ground(rng: Rng, colours: Sequence[str], clean: float = 0.6) -> Backdrop:
    """Sample a ground from which the colours are clearly different: plain (white, grey, black), or textured.

    Args:
        rng: random generator of the sample.
        colours: colour names of the shapes on it.
        clean: probability of a plain white, grey or black ground.
    """
    if rng.chance(clean):
        plain = [(255, 255, 255), (245, 245, 240), (0, 0, 0), (40, 40, 45), (128, 128, 128), (210, 210, 215)]
        for rgb in rng.sample(plain, len(plain)):
            if palette.is_distinguishable(rgb, colours):
                return Backdrop(rgb)
    backdrop = palette.sample_figure_backdrop(rng, colours)
    is_patterned = backdrop.texture in ("ramp", "stripes", "checks")
    return backdrop if is_patterned else Backdrop(backdrop.colour)


def _sample_page_size(rng: Rng, options: SceneOptions) -> PageSize:
    """Sample the size of a picture of shapes: half of them are about a tile large."""
    return sample_small_page(rng) if rng.chance(0.45) else sample_page(rng)


def sample_shape(rng: Rng, pair: Pair, x: float, y: float, w: float, h: float) -> Shape:
    """Build a shape in a shade of its colour, rotated a little.

    Args:
        rng: random generator of the sample.
        pair: shape and colour.
        x: centre across in pixels, like `y`, `w` and `h`.
        y: centre down.
        w: width.
        h: height.
    """
    name, colour = pair
    turn = _MAX_ANGLES[name] * rng.uniform(-1, 1) if rng.chance(0.4) else 0.0
    shrink = 1.0 if turn == 0 else 0.88
    rgb = palette.jitter_colour(rng, COLOURS[colour], 14) if rng.chance(0.7) else COLOURS[colour]
    return Shape(name, round(x, 1), round(y, 1), round(w * shrink, 1), round(h * shrink, 1), rgb, round(turn, 1))


def _scatter(rng: Rng, page_size: PageSize, pairs: Sequence[Pair], large: float = 0.95) -> list[Shape] | None:
    """Sample shapes that do not touch, each in a cell of a grid; None if they would be too small."""
    count = len(pairs)
    columns, rows = _sample_grid(rng, page_size, count)
    cell_w, cell_h = page_size.width / columns, page_size.height / rows
    shapes = []
    low = max(_MIN_SIDE / page_size.across / cell_w, _MIN_SIDE / page_size.down / cell_h)
    if low > large:
        return None
    same = rng.uniform(low, large) if rng.chance(0.5) else None
    for pair, cell in zip(pairs, rng.sample(range(columns * rows), count), strict=True):
        row, column = divmod(cell, columns)
        part = same if same is not None else rng.uniform(low, large)
        # Shapes are seldom squeezed, because ellipses are rare in drawings.
        side_w, side_h = part * cell_w, part * cell_h
        if rng.chance(0.8):
            side_w = side_h = max(
                min(side_w, side_h), min(_MIN_SIDE / min(page_size.across, page_size.down), min(cell_w, cell_h))
            )
        else:
            side_w, side_h = min(side_w, 1.5 * side_h), min(side_h, 1.5 * side_w)
        spare_x, spare_y = (cell_w - side_w) / 2, (cell_h - side_h) / 2
        x = (column + 0.5) * cell_w + rng.uniform(-spare_x, spare_x) * 0.95
        y = (row + 0.5) * cell_h + rng.uniform(-spare_y, spare_y) * 0.95
        shapes.append(sample_shape(rng, pair, x, y, side_w, side_h))
    return shapes


def _sample_grid(rng: Rng, page_size: PageSize, count: int) -> tuple[int, int]:
    """Return columns and rows of about square cells, at least as many as shapes."""
    num_cells = count + (rng.integer(0, max(1, count)) if count > 1 or rng.chance(0.5) else 0)
    ratio = page_size.width / page_size.height
    columns = max(1, round((num_cells * ratio) ** 0.5))
    rows = max(1, -(-num_cells // columns))
    return columns, rows


def _build_picture(rng: Rng, page_size: PageSize, shapes: Sequence[Item], colours: Sequence[str]) -> Canvas:
    """Build a picture of shapes on a ground from which they are clearly different."""
    return Canvas(
        page_size.width, page_size.height, sample_ground(rng, colours), tuple(shapes), sample_finish(rng, page_size)
    )


def _sample_pair(rng: Rng) -> Pair:
    """Sample a shape and a colour."""
    return rng.choice(SHAPES), rng.choice(COLOUR_NAMES)


def _sample_name(rng: Rng, pair: Pair, pairs: Sequence[Pair]) -> str:
    """Return a name that fits one shape only: the shape, or with its colour."""
    alone = sum(name == pair[0] for name, _ in pairs) == 1
    return pair[0] if alone and rng.chance(0.6) else f"{pair[1]} {pair[0]}"


def _get_reading_order(shapes: Sequence[Shape], page_size: PageSize) -> list[int]:
    """Return the indices of shapes from left to right in rows from top to bottom."""
    left = sorted(range(len(shapes)), key=lambda i: shapes[i].y)
    rows: list[list[int]] = []
    for i in left:
        if rows and shapes[i].y - shapes[rows[-1][0]].y < 0.5 * (shapes[i].h + shapes[rows[-1][0]].h) / 2:
            rows[-1].append(i)
        else:
            rows.append([i])
    return [i for row in rows for i in sorted(row, key=lambda i: shapes[i].x)]


def _build_pair_questions(rng: Rng, pairs: Sequence[Pair]) -> Questions:
    """Ask for colours of shapes and shapes of colours that are on one object only."""
    questions: Questions = []
    for name, colour in pairs:
        if sum(other == name for other, _ in pairs) == 1:
            questions.append((rng.choice(_COLOUR_OF).format(s=name), colour))
        if sum(other == colour for _, other in pairs) == 1:
            questions.append((rng.choice(_SHAPE_OF).format(c=colour), name))
    return questions


def _build_relation_questions(rng: Rng, shapes: Sequence[Shape], pairs: Sequence[Pair]) -> Questions:
    """Ask which of two shapes is left of, above or larger than the other."""
    (a, b), (p, q) = shapes, pairs
    questions: Questions = []
    thing, other = _sample_name(rng, p, pairs), _sample_name(rng, q, pairs)
    if abs(a.x - b.x) > 0.6 * (a.w + b.w) / 2 and abs(a.x - b.x) > abs(a.y - b.y):
        left, right = (p, q) if a.x < b.x else (q, p)
        questions.append(
            (
                rng.choice(("What is on the left?", "Which shape is on the left?", "What is on the left side?")),
                _format_pair(left),
            )
        )
        questions.append(
            (
                rng.choice(("What is on the right?", "Which shape is on the right?", "What is on the right side?")),
                _format_pair(right),
            )
        )
        side = "left" if a.x < b.x else "right"
        questions.append((f"Is the {thing} to the left or to the right of the {other}?", side))
        questions.append((f"What is to the {'right' if side == 'left' else 'left'} of the {thing}?", _format_pair(q)))
    elif abs(a.y - b.y) > 0.6 * (a.h + b.h) / 2:
        high, low = (p, q) if a.y < b.y else (q, p)
        questions.append(
            (rng.choice(("What is at the top?", "Which shape is above?", "What is above?")), _format_pair(high))
        )
        questions.append(
            (rng.choice(("What is at the bottom?", "Which shape is below?", "What is below?")), _format_pair(low))
        )
        side = "above" if a.y < b.y else "below"
        questions.append((f"Is the {thing} above or below the {other}?", side))
        questions.append((f"What is {'below' if side == 'above' else 'above'} the {thing}?", _format_pair(q)))
    area = a.w * a.h / (b.w * b.h)
    if not 0.55 < area < 1.8:
        larger, smaller = (p, q) if area > 1 else (q, p)
        questions.append(
            (
                rng.choice(("Which shape is larger?", "What is the largest shape?", "Which is bigger?")),
                _format_pair(larger),
            )
        )
        questions.append(
            (rng.choice(("Which shape is smaller?", "What is the smallest shape?")), _format_pair(smaller))
        )
    return questions


def _format_pair(pair: Pair) -> str:
    return add_article(f"{pair[1]} {pair[0]}")


def build_objects_page(rng: Rng, options: SceneOptions, count: int) -> tuple[Canvas, list[Pair], list[Shape], PageSize]:
    """Build a picture of different objects.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
        count: number of objects.

    Returns:
        The picture; (shape, colour) of the objects and the shapes, both in reading order; the page's size.
    """
    while True:
        page_size = _sample_page_size(rng, options)
        pairs = list(dict.fromkeys(_sample_pair(rng) for _ in range(count)))
        if len(pairs) < count:
            continue
        shapes = _scatter(rng, page_size, pairs)
        if shapes is not None:
            break
    order = _get_reading_order(shapes, page_size)
    shapes, pairs = [shapes[i] for i in order], [pairs[i] for i in order]
    return _build_picture(rng, page_size, shapes, [c for _, c in pairs]), pairs, shapes, page_size


def build_figures(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build one to six shapes, and ask what they are, for their colours, or for their relation.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    if rng.chance(0.22):
        return _build_placed_figures(rng, options)
    count = rng.weighted({1: 0.34, 2: 0.3, 3: 0.2, 4: 0.08, 5: 0.05, 6: 0.03})
    canvas, pairs, shapes, _ = build_objects_page(rng, options, count)
    questions = _build_pair_questions(rng, pairs)
    whole = (rng.choice(_WHAT if count == 1 else SEE), join_names([_format_pair(pair) for pair in pairs]))
    if count == 1:
        questions += [(rng.choice(_WHICH_SHAPE), pairs[0][0]), (rng.choice(_WHICH_COLOUR), pairs[0][1])]
    if count == 2:
        questions += _build_relation_questions(rng, shapes, pairs)
    questions.append((rng.choice(_HOW_MANY).format(p=rng.choice(_ALL)), str(count)))
    absent, colour = rng.choice(SHAPES), rng.choice(COLOUR_NAMES)
    questions.append(
        (
            rng.choice((f"Is there a {absent}?", f"Do you see a {absent}?")),
            _format_yes(any(s == absent for s, _ in pairs)),
        )
    )
    questions.append((f"Is there {add_article(f'{colour} shape')}?", _format_yes(any(c == colour for _, c in pairs))))
    if count == 1:
        questions.append((f"Is the {pairs[0][0]} {colour}?", _format_yes(pairs[0][1] == colour)))
    first = whole if rng.chance(0.3) else rng.choice(questions)
    return SceneQA(canvas, *first, select_distinct(first[0], [whole, *questions], 4, rng))


def _format_yes(true: bool) -> str:
    return "yes" if true else "no"


def _build_placed_figures(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build shapes in corners, at edges and in the centre, and ask where one is, or what is there."""
    page_size = _sample_page_size(rng, options)
    corners = tuple(_PLACES)[:5]
    edges = ("center", "top", "bottom", "left", "right")
    place_names = corners if rng.chance(0.65) else edges
    count = rng.weighted({1: 0.4, 2: 0.3, 3: 0.2, 4: 0.1})
    places = rng.sample(place_names, count)
    pairs: list[Pair] = []
    while len(pairs) < count:
        pair = _sample_pair(rng)
        if all(pair[0] != s and pair[1] != c for s, c in pairs):
            pairs.append(pair)
    shapes = []
    for pair, place in zip(pairs, places, strict=True):
        # At most a third of the page, so that neighbours at the edges stay apart.
        low = _MIN_SIDE / min(page_size.across * page_size.width, page_size.down * page_size.height)
        w, h = (rng.uniform(min(low, 0.3), 0.31) * side for side in (page_size.width, page_size.height))
        if rng.chance(0.8):
            w = h = min(
                max(min(w, h), _MIN_SIDE / min(page_size.across, page_size.down)),
                0.33 * min(page_size.width, page_size.height),
            )
        px, py = _PLACES[place]
        x, y = (
            px * page_size.width + rng.uniform(-0.04, 0.04) * page_size.width,
            py * page_size.height + rng.uniform(-0.04, 0.04) * page_size.height,
        )
        x, y = min(max(x, w / 2), page_size.width - w / 2), min(max(y, h / 2), page_size.height - h / 2)
        shapes.append(sample_shape(rng, pair, x, y, w, h))
    canvas = _build_picture(rng, page_size, shapes, [c for _, c in pairs])
    questions: Questions = []
    for pair, place in zip(pairs, places, strict=True):
        thing = _sample_name(rng, pair, pairs)
        where = rng.choice(_WHERE)
        if "corner" in where and " " not in place:
            where = _WHERE[0]
        questions.append((where.format(t=thing), place))
        at = (
            "in the center"
            if place == "center"
            else f"at the {place}"
            if " " in place or place in ("top", "bottom")
            else f"on the {place}"
        )
        if place in ("top left", "top right", "bottom left", "bottom right") and rng.chance(0.4):
            at = f"in the {place} corner"
        middle = at.replace("center", rng.choice(("center", "middle", "centre")))
        questions.append(
            (
                rng.choice((f"What is {middle}?", f"Which shape is {middle}?", f"What do you see {middle}?")),
                _format_pair(pair),
            )
        )
    first = rng.choice(questions)
    return SceneQA(canvas, *first, select_distinct(first[0], [*questions, *_build_pair_questions(rng, pairs)], 4, rng))


def build_tally(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build one to nine shapes of a kind or colour, with others or alone, and ask for their number.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    number = rng.weighted({1: 0.08, 2: 0.12, 3: 0.15, 4: 0.17, 5: 0.16, 6: 0.14, 7: 0.08, 8: 0.05, 9: 0.05})
    others = 0 if rng.chance(0.45) else rng.integer(1, min(5, 10 - number))
    by_shape = rng.chance(0.65)
    kind, colour = _sample_pair(rng)
    while True:
        page_size = _sample_page_size(rng, options)
        if by_shape:
            shades = (colour,) if rng.chance(0.6) else COLOUR_NAMES
            pairs = [(kind, rng.choice(shades)) for _ in range(number)]
            rest = [s for s in SHAPES if s != kind]
            pairs += [(rng.choice(rest), rng.choice(COLOUR_NAMES)) for _ in range(others)]
        else:
            kinds = (kind,) if rng.chance(0.5) else SHAPES
            pairs = [(rng.choice(kinds), colour) for _ in range(number)]
            tones = [c for c in COLOUR_NAMES if c != colour]
            pairs += [(rng.choice(SHAPES), rng.choice(tones)) for _ in range(others)]
        shapes = _sample_row(rng, page_size, pairs) if rng.chance(0.2) else _scatter(rng, page_size, pairs, 0.85)
        if shapes is not None:
            break
    canvas = _build_picture(rng, page_size, shapes, [c for _, c in pairs])
    questions: Questions = []
    for name in sorted({s for s, _ in pairs}):
        questions.append((rng.choice(_HOW_MANY).format(p=PLURALS[name]), str(sum(s == name for s, _ in pairs))))
    for tone in sorted({c for _, c in pairs}):
        thing = rng.choice(("shapes", "objects"))
        questions.append((rng.choice(_HOW_MANY).format(p=f"{tone} {thing}"), str(sum(c == tone for _, c in pairs))))
    for name, tone in sorted(set(pairs)):
        questions.append((rng.choice(_HOW_MANY).format(p=f"{tone} {PLURALS[name]}"), str(pairs.count((name, tone)))))
    questions.append((rng.choice(_HOW_MANY).format(p=rng.choice(_ALL)), str(len(pairs))))
    target = PLURALS[kind] if by_shape else f"{colour} "
    first = rng.choice([candidate for candidate in questions if target in candidate[0]])
    return SceneQA(canvas, *first, select_distinct(first[0], questions, 4, rng))


def _sample_row(rng: Rng, page_size: PageSize, pairs: Sequence[Pair]) -> list[Shape] | None:
    """Build shapes of one size beside each other; None if they would be too small."""
    pitch = 0.96 * page_size.width / len(pairs)
    side = min(pitch * rng.uniform(0.6, 0.9), 0.9 * page_size.height)
    if side < _MIN_SIDE / min(page_size.across, page_size.down):
        return None
    y = side / 2 + (page_size.height - side) * rng.random()
    mixed = rng.sample(pairs, len(pairs))
    return [
        sample_shape(rng, pair, 0.02 * page_size.width + pitch * (i + 0.5), y, side, side)
        for i, pair in enumerate(mixed)
    ]


__all__ = ["SEE", "build_figures", "build_objects_page", "build_tally", "sample_ground"]
