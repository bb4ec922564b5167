"""Task `long`: a needle, a code or a shape, in one to three of very many frames that are plain or distracting.

Equal frames are rendered once (`veils`). Called by `tasks`.
"""

from __future__ import annotations

import dataclasses

from pvc.lab.synthetic import fonts, palette
from pvc.lab.synthetic.clips import (
    Question,
    build_scene_qa,
    build_track,
    format_time,
    get_position,
    replace_track,
    retry_layout,
    sample_clip_effects,
    sample_layout,
    sample_spans,
    sample_times,
)
from pvc.lab.synthetic.lettering import fit_text, sample_code
from pvc.lab.synthetic.objects import sample_name, scatter
from pvc.lab.synthetic.scene import UNITS, Backdrop, Figure, Scene, SceneOptions, SceneQA, Text
from pvc.lab.synthetic.seeding import Rng
from pvc.lab.synthetic.vocabulary import SHAPES

# By level: frames if no length is requested, frames with a needle, and number of sceneries.
_LEVELS = {1: (64, 3, 0), 2: (128, 2, 4), 3: (256, 2, 12), 4: (512, 1, 24)}
_DEFAULT_FRAMES = (64, 128)  # minimum and maximum of frames if neither level nor length is requested
_TOP = 20.0  # units at the top reserved for a code


def _sample_length_and_level(rng: Rng, options: SceneOptions) -> tuple[int, int]:
    level = palette.sample_level(rng, options)
    if options.frames is not None:
        return palette.sample_clip_length(rng, options.frames, 4), level
    return (_LEVELS[level][0] if options.level else rng.integer(*_DEFAULT_FRAMES)), level


@retry_layout
def build_long(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build a code, a shape or both that appear in a few of many frames, and ask what they are and when.

    Level: 64, 128, 256, 512 frames (64 to 128 if neither level nor length is requested); the needle is visible in 3, 2,
    2, 1 frames; other shapes come and go 0, 4, 12, 24 times.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    length, level = _sample_length_and_level(rng, options)
    _, event_frames, sceneries = _LEVELS[level]
    event_frames = min(event_frames, length // 4)
    pairs = palette.sample_pairs(rng, options.split, 4)
    items, start = sample_layout(
        options.split,
        lambda: (_move_down(scatter(rng, pairs, 13, 24, 2)), rng.integer(1, length - event_frames)),
        lambda candidate: ("long", *palette.get_cell(*get_position(candidate[0][0]), 8), 16 * candidate[1] // length),
    )
    needle, distractors = items[0], items[1:]
    ground = palette.sample_figure_backdrop(rng, [colour for _, colour in pairs])
    times = sample_times(rng, length)
    visible = [start <= f < start + event_frames for f in range(length)]
    shape, colour = pairs[0]
    kind = rng.weighted({"code": 0.4, "shape": 0.35, "both": 0.25})
    figures = _sample_distractors(rng, distractors, sceneries, length)
    texts: tuple[Text, ...] = ()
    questions: list[Question] = []
    if kind != "code":
        figures.append(replace_track(needle, build_track(get_position(needle), visible)))
        thing, time = sample_name(rng, shape, colour), format_time(times[start])
        questions.append((f"When does the {thing} appear?", time, f"The {thing} appears at {time}."))
        questions.append((f"What colour is the {shape}?", colour, f"The {shape} is {colour}."))
    if kind != "shape":
        other = start if kind == "code" else rng.integer(1, length - event_frames)
        texts = (_sample_code_text(rng, options, ground, [other <= f < other + event_frames for f in range(length)]),)
        text, time = texts[0].text, format_time(times[other])
        questions.append(("Which code appears?", text, f"The code {text} appears."))
        questions.append(("When does the code appear?", time, f"The code appears at {time}."))
    elif sceneries == 0:
        questions.append(("Which shape appears?", shape, f"The {shape} appears."))
    num_main = len(questions)
    questions += _build_presence_questions(rng, {figure.shape for figure in figures})
    facts = {"kind": kind, "shape": shape, "colour": colour, "begin": start, "lasting": event_frames}
    scene = Scene(ground, sample_clip_effects(rng, level), (), tuple(figures), texts, length, times, facts)
    first = rng.integer(0, num_main - 1)
    rest = [candidate for i, candidate in enumerate(questions) if i != first]
    return build_scene_qa(rng, scene, [questions[first], *rest], level)


def _build_presence_questions(rng: Rng, shapes: set[str]) -> list[Question]:
    """Ask whether a shape is in the clip: once for one that is, if any, and once for one that is not."""
    absent = rng.choice([other for other in SHAPES if other not in shapes])
    questions: list[Question] = [
        (f"Is there a {absent} in the video?", "no", f"No, there is no {absent} in the video.")
    ]
    present = rng.choice(sorted(shapes)) if shapes else None
    if present:
        questions.append((f"Is there a {present} in the video?", "yes", f"Yes, there is a {present} in the video."))
    return questions


def _move_down(items: tuple[Figure, ...]) -> tuple[Figure, ...]:
    """Return the objects moved down and flattened, so that the top of the picture is free."""
    part = 1 - _TOP / UNITS
    lowered = []
    for item in items:
        x, y = get_position(item)
        point = (x, round(UNITS - (UNITS - y) * part, 3))
        lowered.append(dataclasses.replace(item, h=round(item.h * part, 3), track=(point,)))
    return tuple(lowered)


def _sample_distractors(rng: Rng, items: tuple[Figure, ...], number: int, length: int) -> list[Figure]:
    """Sample which objects are visible in each of `number` parts of the clip."""
    if number == 0:
        return []
    parts = [
        (part, rng.sample(items, rng.integer(0, len(items)))) for part in sample_spans(rng, length, min(number, length))
    ]
    figures = []
    for item in items:
        visible = [item in present for (start, end), present in parts for _ in range(start, end)]
        if any(visible):
            figures.append(replace_track(item, build_track(get_position(item), visible)))
    return figures


def _sample_code_text(rng: Rng, options: SceneOptions, ground: Backdrop, visible: list[bool]) -> Text:
    """Sample a code at the top of some frames."""
    text = sample_code(rng, options.split, rng.integer(2, 5))
    w, h = fit_text(text, rng.uniform(10, 15))
    point = (rng.uniform(w / 2 + 1, UNITS - w / 2 - 1), round(_TOP / 2, 3))
    rgb = palette.sample_contrasting(rng, *palette.get_colours(ground), split=options.split)
    return Text(text, rng.choice(fonts.get_families(options.split)), rgb, w, h, 0.0, 0.0, build_track(point, visible))
