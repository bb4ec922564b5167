"""Tasks about shapes that move, appear or repeat an event: `direction`, `appear` and `events`.

Looks come from `palette`. Called by `tasks`; `moment_tasks` and `mixed_tasks` use its questions.
"""

from __future__ import annotations

from typing import Any

from pvc.lab.synthetic import palette
from pvc.lab.synthetic.clips import (
    WAYS,
    Path,
    Question,
    build_linear_track,
    build_scene_qa,
    build_track,
    format_count,
    get_position,
    recolour,
    replace_track,
    retry_layout,
    sample_clip_effects,
    sample_event_starts,
    sample_layout,
    sample_other_colour,
    sample_path,
    sample_paths,
    sample_point,
    sample_spans,
)
from pvc.lab.synthetic.objects import build_pair_questions, sample_name, scatter
from pvc.lab.synthetic.phrasing import spell_number
from pvc.lab.synthetic.scene import UNITS, Figure, Scene, SceneOptions, SceneQA
from pvc.lab.synthetic.seeding import Rng
from pvc.lab.synthetic.vocabulary import DIRECTIONS

Pair = tuple[str, str]

# By level: minimum and maximum number of objects, their size and how far they move in the clip, in units.
_MOTION = {
    1: ((1, 1), (15, 22), (28, 40)),
    2: ((1, 2), (13, 19), (20, 34)),
    3: ((2, 3), (12, 17), (14, 26)),
    4: ((3, 4), (9, 13), (9, 14)),
}
_MIN_DIAGONAL_LEVEL = 3
_MIN_SPEED_RATIO = 1.5  # ratio of the distances: a smaller one is hard to see
# By level: objects, their size and the side of their grid.
_APPEAR = {1: (2, (20, 28), 2), 2: (3, (16, 26), 2), 3: (4, (14, 24), 2), 4: (5, (10, 15), 3)}
# By level: objects, their size, how high they jump and the maximum number of events.
_EVENTS = {1: (1, (18, 26), 18, 4), 2: (1, (13, 20), 14, 5), 3: (2, (12, 17), 11, 6), 4: (3, (9, 13), 7, 6)}
_MIN_FRAMES_LONG_EVENTS = 24  # frames: from this length on, events last up to three frames
_WHICH_WAY = (
    "Which way does the {thing} move?",
    "In which direction does the {thing} move?",
    "Where does the {thing} move to?",
)
_HOW_OFTEN = ("How many times does the {thing} {do}?", "How often does the {thing} {do}?")
_ALL_IN_ORDER = ("In which order do the shapes appear?", "Name the shapes in the order they appear.")


def _build_clip(rng: Rng, figures: tuple[Figure, ...], facts: dict[str, Any], level: int) -> Scene:
    """Build a clip of shapes on a ground from which they are clearly different."""
    length = len(figures[0].track)
    times = palette.sample_timestamps(rng, length)
    ground = palette.sample_figure_backdrop(rng, [f.colour for f in figures])
    return Scene(ground, sample_clip_effects(rng, level), (), figures, (), length, times, facts)


def build_object_questions(rng: Rng, pairs: list[Pair]) -> list[Question]:
    """Ask for the colour of every shape and the shape of every colour, with sentences.

    Args:
        rng: random generator of the sample.
        pairs: (shape, colour) of every object.
    """
    colours = dict(pairs)
    return [
        (
            question,
            answer,
            f"The {answer} is {colours[answer]}." if answer in colours else _format_colour_sentence(pairs, answer),
        )
        for question, answer in build_pair_questions(rng, pairs)
    ]


def _format_colour_sentence(pairs: list[Pair], colour: str) -> str:
    return next(f"The {shape} is {pair_colour}." for shape, pair_colour in pairs if pair_colour == colour)


def build_direction_question(rng: Rng, pair: Pair, way: str) -> Question:
    """Ask which way an object moves.

    Args:
        rng: random generator of the sample.
        pair: shape and colour.
        way: its direction.
    """
    thing = sample_name(rng, *pair)
    return rng.choice(_WHICH_WAY).format(thing=thing), way, f"The {thing} moves {way}."


def build_stillness_question(rng: Rng, pair: Pair, way: str) -> Question:
    """Ask whether an object moves.

    Args:
        rng: random generator of the sample.
        pair: shape and colour.
        way: its direction, or "still".
    """
    thing = sample_name(rng, *pair)
    answer = "it stands still" if way == "still" else "it moves"
    return f"Does the {thing} move or stand still?", answer, f"The {thing} {answer[3:]}."


@retry_layout
def build_direction(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build shapes that move in different directions or stand still, and ask for the direction of one that moves.

    Level 1: one large, fast shape; 2: up to two; 3: up to three, diagonal directions too; 4: up to four, small, slow,
    noisy.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level = palette.sample_level(rng, options)
    length = palette.sample_clip_length(rng, options.frames, 2)
    (min_count, max_count), (low, high), (min_travel, max_travel) = _MOTION[level]
    pairs = palette.sample_pairs(rng, options.split, rng.integer(min_count, max_count))
    directions = rng.sample(tuple(WAYS if level >= _MIN_DIAGONAL_LEVEL else DIRECTIONS), len(pairs))
    directions = [directions[0], *("still" if rng.chance(0.35) else w for w in directions[1:])]
    ratio = palette.sample_aspect_ratio(rng)
    sizes = [palette.sample_size(rng, low, high, ratio, 24) for _ in pairs]

    def sample_object_path(i: int) -> Path:
        if directions[i] == "still":
            return (sample_point(rng, sizes[i]),) * 2
        slow = i > 0 and level > 1 and rng.chance(0.4)
        travel = rng.uniform(min_travel, max_travel)
        return sample_path(rng, directions[i], sizes[i], max(6.0, 0.5 * travel) if slow else travel)

    def get_layout(ends: Path) -> tuple[object, ...]:
        return "direction", *palette.get_cell(*ends[0], 4), directions[0], len(pairs)

    paths = sample_paths(
        len(pairs), sample_object_path, sample_layout(options.split, lambda: sample_object_path(0), get_layout)
    )
    tracks = [build_linear_track(start, end, length) for start, end in paths]
    figures = [palette.sample_figure(rng, *p, size, track) for p, size, track in zip(pairs, sizes, tracks, strict=True)]
    facts = {"shape": pairs[0][0], "colour": pairs[0][1], "direction": directions[0]}
    # The object in question is rendered last, so that nothing hides it.
    scene = _build_clip(rng, tuple(reversed(figures)), facts, level)
    objects = list(zip(pairs, directions, strict=True))
    questions = [build_direction_question(rng, pair, way) for pair, way in objects if way != "still"]
    others = _build_speed_questions(rng, pairs, paths)
    if len(objects) > 1:  # a single shape always moves
        still_objects = [item for item in objects if item[1] == "still"]
        others.append(
            build_stillness_question(rng, *rng.choice(still_objects if still_objects and rng.chance(0.6) else objects))
        )
    if others and rng.chance(0.2):
        questions.insert(0, others.pop())
    return build_scene_qa(rng, scene, [*questions, *others, *build_object_questions(rng, pairs)], level)


def _build_speed_questions(rng: Rng, pairs: list[Pair], paths: list[Path]) -> list[Question]:
    """Ask which of two moves faster, for the first two that differ clearly."""
    distances = [((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5 for (x0, y0), (x1, y1) in paths]
    for i, (shape, _) in enumerate(pairs):
        for j, (other_shape, _) in enumerate(pairs[:i]):
            if (
                min(distances[i], distances[j]) > 0
                and not 1 / _MIN_SPEED_RATIO < distances[i] / distances[j] < _MIN_SPEED_RATIO
            ):
                first, second = rng.sample((shape, other_shape), 2)
                answer = shape if distances[i] > distances[j] else other_shape
                question = f"Which moves faster, the {first} or the {second}?"
                return [(question, answer, f"The {answer} moves faster.")]
    return []


@retry_layout
def build_appear(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build shapes that appear one after another and stay or go, and ask for their order.

    Level 1: two large shapes that stay; 2: three; 3: four; 4: five small ones in noise.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level = palette.sample_level(rng, options)
    length = palette.sample_clip_length(rng, options.frames, 2)
    number, (low, high), side = _APPEAR[level]
    pairs = palette.sample_pairs(rng, options.split, min(number, length))
    items = sample_layout(
        options.split,
        lambda: scatter(rng, pairs, low, high, side),
        lambda candidate: (
            "appear",
            *(palette.get_cell(*get_position(item), 8) for item in candidate[:2]),
            len(candidate),
        ),
    )
    stay_probability = 1.0 if level == 1 else rng.choice((1.0, 0.0, 0.5))
    lead = rng.integer(1, (length - len(pairs) + 1) // 2) if length > len(pairs) and rng.chance(0.3) else 0
    figures = []
    for item, (start, end) in zip(items, sample_spans(rng, length - lead, len(pairs), 3 - min(level, 2)), strict=True):
        first, last = lead + start, length if rng.chance(stay_probability) else lead + end
        figures.append(replace_track(item, build_track(get_position(item), [first <= f < last for f in range(length)])))
    scene = _build_clip(rng, tuple(figures), {"shapes": [s for s, _ in pairs], "colours": [c for _, c in pairs]}, level)
    questions = [
        *_build_order_questions(rng, pairs),
        ("How many shapes appear?", str(len(pairs)), f"{spell_number(len(pairs))} shapes appear."),
    ]
    order = rng.sample(range(len(questions) - 1), len(questions) - 1)
    return build_scene_qa(rng, scene, [*(questions[i] for i in order), questions[-1]], level)


def _build_order_questions(rng: Rng, pairs: list[Pair]) -> list[Question]:
    questions = []
    for when, (shape, colour) in (("first", pairs[0]), ("last", pairs[-1])):
        question = rng.choice(("Which shape appears {when}?", "What is the shape that appears {when}?"))
        questions.append((question.format(when=when), shape, f"The {shape} appears {when}."))
        spelling = rng.choice(("colour", "color"))
        question = f"What {spelling} is the shape that appears {when}?"
        questions.append((question, colour, f"The shape that appears {when} is {colour}."))
    if len(pairs) > 2:
        names = [shape for shape, _ in pairs]
        for i in range(len(pairs) - 1):
            thing, next_thing = sample_name(rng, *pairs[i]), sample_name(rng, *pairs[i + 1])
            after, before = names[i + 1], names[i]
            questions.append(
                (f"Which shape appears right after the {thing}?", after, f"The {after} appears after the {thing}.")
            )
            questions.append(
                (
                    f"Which shape appears right before the {next_thing}?",
                    before,
                    f"The {before} appears before the {next_thing}.",
                )
            )
        sentence = f"First the {names[0]} appears, then the {', then the '.join(names[1:])}."
        questions.append((rng.choice(_ALL_IN_ORDER), ", ".join(names), sentence))
    return questions


@retry_layout
def build_events(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build a shape that flashes in another colour, jumps or appears one to six times, and ask how often.

    Level 1: one large shape, at most four times; 2: smaller, at most five; 3: two shapes, at most six; 4: three small
    ones in noise, low jumps.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level = palette.sample_level(rng, options)
    length = palette.sample_clip_length(rng, options.frames, 3)
    number, (low, high), rise, max_count = _EVENTS[level]
    kind = rng.weighted({"flash": 0.4, "jump": 0.3, "appear": 0.3})
    pairs = palette.sample_pairs(rng, options.split, number)
    event_frames = rng.integer(1, 3) if length >= _MIN_FRAMES_LONG_EVENTS else 1
    max_count = min(max_count, length // (event_frames + 1))
    counts = [rng.integer(1, max_count) for _ in pairs]
    flash_colour = sample_other_colour(rng, [s for s, _ in pairs], [c for _, c in pairs])
    assert flash_colour is not None
    items = sample_layout(
        options.split,
        lambda: _sample_actors(rng, pairs, (low, high), rise if kind == "jump" else 0),
        lambda candidate: (
            "events",
            kind,
            *palette.get_cell(*get_position(candidate[0]), 4),
            len(candidate),
            counts[0],
        ),
    )
    figures: list[Figure] = []
    for item, times in zip(items, counts, strict=True):
        starts = sample_event_starts(rng, length, times, event_frames)
        is_active = [any(s <= f < s + event_frames for s in starts) for f in range(length)]
        figures += _build_event_figures(rng, item, kind, is_active, flash_colour, rise)
    facts = {"kind": kind, "shape": pairs[0][0], "colour": pairs[0][1], "counts": counts, "lit": flash_colour}
    scene = _build_clip(rng, tuple(figures), facts, level)
    verb = {"flash": f"turn {flash_colour}" if rng.chance(0.5) else "flash", "jump": "jump", "appear": "appear"}[kind]
    return build_scene_qa(rng, scene, _build_event_questions(rng, pairs, counts, kind, verb, flash_colour), level)


def _sample_actors(rng: Rng, pairs: list[Pair], bounds: tuple[float, float], rise: float) -> list[Figure]:
    """Sample shapes side by side, each with space above it for a jump."""
    column = UNITS / len(pairs)
    ratio = palette.sample_aspect_ratio(rng)
    items = []
    for i, (shape, colour) in enumerate(pairs):
        w, h = palette.sample_size(rng, *bounds, ratio, min(column - 3, 26))
        spare = max(0.0, (column - w) / 2 - 1)
        x = round(column * (i + 0.5) + rng.uniform(-spare, spare), 3)
        y = rng.uniform(h / 2 + 1 + rise, UNITS - h / 2 - 1)
        items.append(palette.sample_figure(rng, shape, colour, (w, h), ((x, y),)))
    return items


def _build_event_figures(
    rng: Rng, item: Figure, kind: str, is_active: list[bool], flash_colour: str, rise: float
) -> list[Figure]:
    """Build the shape over the clip: in its events it appears, is higher, or has another colour."""
    point = get_position(item)
    if kind == "appear":
        return [replace_track(item, build_track(point, is_active))]
    if kind == "jump":
        high = (point[0], round(point[1] - rise, 3))
        return [replace_track(item, tuple(high if b else point for b in is_active))]
    idle = replace_track(item, build_track(point, [not b for b in is_active]))
    return [idle, recolour(rng, item, flash_colour, build_track(point, is_active))]


def _build_event_questions(
    rng: Rng, pairs: list[Pair], counts: list[int], kind: str, verb: str, flash_colour: str
) -> list[Question]:
    third_person = (
        f"turns {flash_colour}" if verb.startswith("turn") else f"{verb}es" if verb == "flash" else f"{verb}s"
    )
    questions = []
    for pair, times in zip(pairs, counts, strict=True):
        # An object that flashes has two colours, so only its shape names it.
        thing = pair[0] if kind == "flash" else sample_name(rng, *pair)
        question = rng.choice(_HOW_OFTEN).format(thing=thing, do=verb)
        questions.append((question, str(times), f"The {thing} {third_person} {format_count(times)}."))
    if len(counts) > 1 and sorted(counts)[-1] > sorted(counts)[-2]:
        shape = pairs[counts.index(max(counts))][0]
        questions.append((f"Which shape {third_person} most often?", shape, f"The {shape} {third_person} most often."))
    if kind == "flash":
        shape, colour = rng.choice(pairs)
        questions.append((f"What colour does the {shape} turn?", flash_colour, f"The {shape} turns {flash_colour}."))
        questions.append((f"What colour is the {shape} at first?", colour, f"The {shape} is {colour} at first."))
        questions.append(("How many shapes are there?", str(len(pairs)), format_shape_count(len(pairs))))
        return questions
    return questions + build_object_questions(rng, pairs)


def format_shape_count(number: int) -> str:
    """Return a sentence with a number: "There is one shape.", "There are two shapes."."""
    return "There is one shape." if number == 1 else f"There are {spell_number(number)} shapes."
