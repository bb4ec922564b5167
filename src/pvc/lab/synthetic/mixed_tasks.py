"""Tasks of several media or turns: `match` (a picture, then a clip) and `turns` (several questions about a clip).

Looks come from `palette`. Called by `tasks`.
"""

from __future__ import annotations

import dataclasses

from pvc.lab.synthetic import fonts, palette
from pvc.lab.synthetic.clips import (
    Path,
    Point,
    Question,
    build_linear_track,
    build_scene_qa,
    build_track,
    format_time,
    get_position,
    replace_track,
    retry_layout,
    sample_clip_effects,
    sample_layout,
    sample_path,
    sample_paths,
    sample_point,
    sample_spans,
    sample_times,
)
from pvc.lab.synthetic.lettering import fit_text, sample_code, sample_code_or_word
from pvc.lab.synthetic.motion_tasks import (
    Pair,
    build_direction_question,
    build_object_questions,
    build_stillness_question,
    format_shape_count,
)
from pvc.lab.synthetic.objects import sample_name, scatter
from pvc.lab.synthetic.phrasing import add_article, capitalise
from pvc.lab.synthetic.scene import UNITS, Backdrop, Scene, SceneOptions, SceneQA, Text, Track
from pvc.lab.synthetic.seeding import Rng
from pvc.lab.synthetic.vocabulary import COLOUR_NAMES, DIRECTIONS, SHAPES

# Objects in the clip and their size, by level.
_MATCH = {1: (1, (15, 21)), 2: (2, (13, 18)), 3: (3, (11, 15)), 4: (4, (8, 11))}
_MODES = {
    1: ("there", "time"),
    2: ("there", "time", "way"),
    3: ("there", "time", "way", "text"),
    4: ("time", "way", "text"),
}
# Objects, their size, and the characters of the text, by level.
_TURNS = {1: (1, (15, 20), (2, 3)), 2: (2, (13, 18), (3, 4)), 3: (3, (11, 15), (4, 5)), 4: (4, (8, 12), (5, 6))}
_STRIP = 15.0  # units at the top or bottom reserved for the text of `turns`
_MIN_TRAVEL = 12.0
_SAME = "the object in the picture"


@retry_layout
def build_match(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build a picture of an object, then a clip, and ask about the object in the clip.

    Asks whether it is in the clip, when, which way it moves, or which text is below it.
    Level 1: one large object in the clip; 2: two; 3: three, and the text; 4: four small ones, in noise.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level = palette.sample_level(rng, options)
    length = palette.sample_clip_length(rng, options.frames, 3)
    number = _MATCH[level][0]
    mode = rng.choice(_MODES[level])
    if mode == "text":
        number = min(number, 3)  # texts must fit beside each other
    pairs = palette.sample_pairs(rng, options.split, min(number, length - 1) if mode == "time" else number)
    pair = pairs[0]
    is_present = mode != "there" or rng.chance(0.5)
    if not is_present:
        pair = _sample_absent_pair(rng, options, pairs)
    picture = _build_picture(rng, options, pair)
    clip, questions = _CLIPS[mode](rng, options, pairs, length, level)
    answers = ("yes", f"Yes, {_SAME} is in the video.") if is_present else ("no", f"No, {_SAME} is not in the video.")
    presence: Question = (rng.choice((f"Is {_SAME} in the video?", f"Does {_SAME} appear in the video?")), *answers)
    shape, colour = pair
    thing = f"{colour} {shape}"
    questions.append(("Which object is in the picture?", thing, f"{add_article(thing)} is in the picture."))
    first = presence if mode == "there" else questions[0]
    rest = [candidate for candidate in (presence, *questions) if candidate is not first]
    if not is_present:  # questions about it make no sense
        rest = [candidate for candidate in rest if _SAME not in candidate[0]]
    facts = {"mode": mode, "shape": pair[0], "colour": pair[1], "there": is_present}
    return build_scene_qa(rng, dataclasses.replace(picture, asked=facts), [first, *rest], level, further=(clip,))


def _sample_absent_pair(rng: Rng, options: SceneOptions, pairs: list[Pair]) -> Pair:
    """Sample an object that is not in the clip, if possible with the shape or the colour of the first one."""
    shape, colour = pairs[0]
    others = [
        (s, c)
        for s in SHAPES
        for c in COLOUR_NAMES
        if palette.is_pair_allowed(s, c, options.split) and (s, c) not in pairs
    ]
    similar = [pair for pair in others if (pair[0] == shape) != (pair[1] == colour)]
    return rng.choice(similar if similar and rng.chance(0.6) else others)


def _build_picture(rng: Rng, options: SceneOptions, pair: Pair) -> Scene:
    """Build a picture of one object."""
    size = palette.sample_size(rng, 18, 34, palette.sample_aspect_ratio(rng), 44)

    def sample_place() -> Point:
        return sample_point(rng, size)

    point = sample_layout(options.split, sample_place, lambda candidate: ("match", *palette.get_cell(*candidate, 8)))
    figure = palette.sample_figure(rng, *pair, size, (point,))
    return Scene(palette.sample_figure_backdrop(rng, [pair[1]]), palette.sample_effects(rng), (), (figure,))


def _build_moving_clip(
    rng: Rng, options: SceneOptions, pairs: list[Pair], length: int, level: int
) -> tuple[Scene, list[Question]]:
    """Build objects that move in different directions."""
    ways = rng.sample(tuple(DIRECTIONS), len(pairs))
    sizes = [palette.sample_size(rng, *_MATCH[level][1], 1.0, 24) for _ in pairs]
    min_travel, max_travel = (20, 34) if level < 3 else (12, 22)

    def sample_direction_path(i: int) -> Path:
        return sample_path(rng, ways[i], sizes[i], rng.uniform(min_travel, max_travel))

    paths = sample_paths(len(pairs), sample_direction_path, sample_direction_path(0))
    figures = [
        palette.sample_figure(rng, *pair, size, build_linear_track(*ends, length))
        for pair, size, ends in zip(pairs, sizes, paths, strict=True)
    ]
    ground = palette.sample_figure_backdrop(rng, [colour for _, colour in pairs])
    # The object in question is rendered last, so that nothing hides it.
    figures.reverse()
    times = palette.sample_timestamps(rng, length)
    scene = Scene(ground, sample_clip_effects(rng, level), (), tuple(figures), (), length, times)
    questions: list[Question] = [
        (f"Which way does {_SAME} move in the video?", ways[0], capitalise(f"{_SAME} moves {ways[0]}."))
    ]
    return scene, questions + [
        build_direction_question(rng, pair, way) for pair, way in zip(pairs[1:], ways[1:], strict=True)
    ]


def _build_appearing_clip(
    rng: Rng, options: SceneOptions, pairs: list[Pair], length: int, level: int
) -> tuple[Scene, list[Question]]:
    """Build objects that appear one after another in any order, none in the first frame."""
    items = scatter(rng, pairs, *_MATCH[level][1], 2)
    starts = rng.sample(range(1, length), len(pairs))
    stays_visible = rng.chance(0.5)
    figures = []
    for item, start in zip(items, starts, strict=True):
        end = length if stays_visible else min(length, start + rng.integer(1, 3))
        figures.append(replace_track(item, build_track(get_position(item), [start <= f < end for f in range(length)])))
    ground = palette.sample_figure_backdrop(rng, [colour for _, colour in pairs])
    times = sample_times(rng, length)
    scene = Scene(ground, sample_clip_effects(rng, level), (), tuple(figures), (), length, times)
    stamps = [format_time(times[start]) for start in starts]
    sentence = capitalise(f"{_SAME} appears at {stamps[0]}.")
    questions: list[Question] = [(f"When does {_SAME} appear in the video?", stamps[0], sentence)]
    for pair, time in zip(pairs[1:], stamps[1:], strict=True):
        thing = sample_name(rng, *pair)
        questions.append((f"When does the {thing} appear in the video?", time, f"The {thing} appears at {time}."))
    return scene, questions


def _build_labelled_clip(
    rng: Rng, options: SceneOptions, pairs: list[Pair], length: int, level: int
) -> tuple[Scene, list[Question]]:
    """Build objects side by side with a text below each, all at once or one after another."""
    column = UNITS / len(pairs)
    order = rng.sample(range(len(pairs)), len(pairs))
    parts = sample_spans(rng, length, len(pairs), 2) if rng.chance(0.5) else [(0, length)] * len(pairs)
    ground = palette.sample_figure_backdrop(rng, [colour for _, colour in pairs])
    rgb = palette.sample_contrasting(rng, *palette.get_colours(ground), split=options.split)
    family, top = rng.choice(fonts.get_families(options.split)), rng.uniform(14, 36)
    figures, texts, labels = [], [], list[str]()
    for pair, slot, (start, end) in zip(pairs, order, parts, strict=True):
        label = sample_code(rng, options.split, 2)
        while label in labels:
            label = sample_code(rng, options.split, 2)
        labels.append(label)
        x = round(column * (slot + 0.5), 3)
        visible = [start <= f < end for f in range(length)]
        size = palette.sample_size(rng, *_MATCH[level][1], 1.0, column - 4)
        figures.append(palette.sample_figure(rng, *pair, size, build_track((x, top), visible)))
        w, h = fit_text(label, rng.uniform(9, 11), column - 3)
        texts.append(Text(label, family, rgb, w, h, 0.0, 0.0, build_track((x, round(top + 19, 3)), visible)))
    times = palette.sample_timestamps(rng, length)
    scene = Scene(ground, sample_clip_effects(rng, level), (), tuple(figures), tuple(texts), length, times)
    sentence = f"The text below {_SAME} is {labels[0]}."
    questions: list[Question] = [(f"In the video, which text is below {_SAME}?", labels[0], sentence)]
    for pair, label in zip(pairs[1:], labels[1:], strict=True):
        thing = sample_name(rng, *pair)
        questions.append((f"Which text is below the {thing}?", label, f"The text below the {thing} is {label}."))
    return scene, questions


_CLIPS = {
    "there": _build_moving_clip,
    "way": _build_moving_clip,
    "time": _build_appearing_clip,
    "text": _build_labelled_clip,
}


@retry_layout
def build_turns(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build a clip of moving shapes and a text, and ask for colours, directions, order, number and the text.

    Level 1: one large shape, two or three characters; 2: two; 3: three; 4: four small ones, six characters, noise.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level = palette.sample_level(rng, options)
    length = palette.sample_clip_length(rng, options.frames, 3)
    number, bounds, lengths = _TURNS[level]
    pairs = palette.sample_pairs(rng, options.split, number)
    directions = ["still" if rng.chance(0.25) else direction for direction in rng.sample(tuple(DIRECTIONS), number)]
    text = sample_code_or_word(rng, options.split, rng.integer(*lengths))
    on_top = rng.chance(0.5)
    room = (_STRIP, UNITS) if on_top else (0.0, UNITS - _STRIP)
    sizes = [palette.sample_size(rng, *bounds, 1.0, 20) for _ in pairs]

    def sample_object_path(i: int) -> Path:
        if directions[i] == "still":
            return (sample_point(rng, sizes[i], room),) * 2
        return sample_path(rng, directions[i], sizes[i], rng.uniform(_MIN_TRAVEL, 28), room)

    first = sample_layout(
        options.split,
        lambda: sample_object_path(0),
        lambda ends: ("turns", *palette.get_cell(*ends[0], 8), directions[0], number, on_top),
    )
    paths = sample_paths(number, sample_object_path, first)
    one_by_one = number > 1 and length // 2 >= number and rng.chance(0.5)
    starts = sorted(rng.sample(range(length // 2), number)) if one_by_one else [0] * number
    figures = []
    for pair, size, ends, start in zip(pairs, sizes, paths, starts, strict=True):
        track: Track = (None,) * start + build_linear_track(*ends, length - start)
        figures.append(palette.sample_figure(rng, *pair, size, track))
    ground = palette.sample_figure_backdrop(rng, [colour for _, colour in pairs])
    line = _build_text_line(rng, options, ground, text, on_top, length)
    times = palette.sample_timestamps(rng, length)
    facts = {"text": text, "ways": directions, "starts": starts}
    scene = Scene(ground, sample_clip_effects(rng, level), (), tuple(figures), (line,), length, times, facts)
    questions = [
        build_direction_question(rng, pair, direction)
        for pair, direction in zip(pairs, directions, strict=True)
        if direction != "still"
    ]
    questions.append(build_stillness_question(rng, *rng.choice(list(zip(pairs, directions, strict=True)))))
    questions += _build_turn_questions(pairs, text, one_by_one) + rng.sample(build_object_questions(rng, pairs), 2)
    return build_scene_qa(rng, scene, rng.sample(questions, len(questions)), level, 5)


def _build_turn_questions(pairs: list[Pair], text: str, one_by_one: bool) -> list[Question]:
    number = len(pairs)
    questions: list[Question] = [
        ("What does the text say?", text, f"The text says {text}."),
        ("How many shapes are in the video?", str(number), format_shape_count(number)),
    ]
    if one_by_one:
        for when, (shape, _) in (("first", pairs[0]), ("last", pairs[-1])):
            questions.append((f"Which shape appears {when}?", shape, f"The {shape} appears {when}."))
    return questions


def _build_text_line(rng: Rng, options: SceneOptions, ground: Backdrop, text: str, on_top: bool, length: int) -> Text:
    """Build the text in its strip, in all frames or in consecutive ones."""
    w, h = fit_text(text, rng.uniform(9, 10.5))
    middle = _STRIP / 2 if on_top else UNITS - _STRIP / 2 - 1  # space for tails
    point = (rng.uniform(w / 2 + 1, UNITS - w / 2 - 1), middle)
    start = 0 if rng.chance(0.5) else rng.integer(0, length - 2)
    end = length if start == 0 and rng.chance(0.5) else rng.integer(min(length, start + 2), length)
    rgb = palette.sample_contrasting(rng, *palette.get_colours(ground), split=options.split)
    track = build_track(point, [start <= f < end for f in range(length)])
    return Text(text, rng.choice(fonts.get_families(options.split)), rgb, w, h, 0.0, 0.0, track)
