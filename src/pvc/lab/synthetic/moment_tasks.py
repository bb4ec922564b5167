"""Tasks about moments: `change` (what an object becomes) and `when` (at which time).

Looks come from `palette`. Questions use times as the model reads them before each frame. Called by `tasks`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from pvc.lab.synthetic import fonts, palette
from pvc.lab.synthetic.clips import (
    Point,
    Question,
    build_scene_qa,
    build_track,
    format_time,
    get_position,
    recolour,
    replace_track,
    retry_layout,
    sample_clip_effects,
    sample_layout,
    sample_other_colour,
    sample_point,
    sample_times,
)
from pvc.lab.synthetic.lettering import fit_text, sample_code_or_word
from pvc.lab.synthetic.motion_tasks import Pair, build_object_questions
from pvc.lab.synthetic.objects import sample_name, scatter
from pvc.lab.synthetic.scene import UNITS, Backdrop, Figure, Scene, SceneOptions, SceneQA, Text
from pvc.lab.synthetic.seeding import Rng
from pvc.lab.synthetic.vocabulary import SHAPES

# By level: minimum and maximum number of objects, their size, the side of their grid, and possible events.
_CHANGE = {
    1: ((1, 2), (18, 27), 2, ("colour", "vanish", "appear")),
    2: ((2, 3), (15, 24), 2, ("colour", "vanish", "appear", "shape", "place")),
    3: ((3, 4), (12, 19), 3, ("colour", "vanish", "appear", "shape", "place")),
    4: ((4, 5), (9, 13), 3, ("colour", "vanish", "appear", "shape", "place")),
}
_EVENT_ANSWERS = {
    "colour": "it turns {new}",
    "shape": "it becomes a {new}",
    "vanish": "it vanishes",
    "appear": "it appears",
    "place": "it jumps to another place",
}
_VERBS = {
    "colour": ("change its colour", "changes its colour"),
    "shape": ("become another shape", "becomes another shape"),
    "vanish": ("vanish", "vanishes"),
    "appear": ("appear", "appears"),
    "place": ("jump to another place", "jumps to another place"),
}
# By level: objects, their size, and the side of their grid.
_WHEN = {1: (1, (18, 27), 2), 2: (2, (15, 24), 2), 3: (3, (12, 18), 3), 4: (4, (9, 13), 3)}
_WHEN_FORMS = ("When does the {thing} {do}?", "At what time does the {thing} {do}?")
_THIRD_PERSON = {"appear": "appears", "vanish": "vanishes", "flash up": "flashes up"}
_HEADLINE = 15.0  # units at the top reserved for a text


@retry_layout
def build_change(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build objects of which one changes at one moment, and ask which one and how.

    It changes its colour, shape or place, vanishes or appears.
    Level 1: one or two large objects; 2: up to three; 3: up to four; 4: up to five small ones, in noise.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level = palette.sample_level(rng, options)
    length = palette.sample_clip_length(rng, options.frames, 2)
    (min_count, max_count), (low, high), side, kinds = _CHANGE[level]
    pairs = palette.sample_pairs(rng, options.split, rng.integer(min_count, max_count))
    kind = rng.choice(kinds)
    shape, colour = pairs[0]
    new = _sample_replacement(rng, kind, pairs)
    if new is None:
        kind = "vanish"
    items = sample_layout(
        options.split,
        lambda: scatter(rng, pairs, low, high, side),
        lambda candidate: ("change", kind, *palette.get_cell(*get_position(candidate[0]), 8), len(candidate)),
    )
    moment = rng.integer(1, length - 1)
    before, after = [f < moment for f in range(length)], [f >= moment for f in range(length)]
    changing = _build_changing_figures(rng, items, kind, new, before, after)
    others = [replace_track(item, (get_position(item),) * length) for item in items[1:]]
    times = sample_times(rng, length)
    facts = {"kind": kind, "shape": shape, "colour": colour, "new": new, "moment": moment}
    figures = (*others, *changing)
    ground = palette.sample_figure_backdrop(rng, [f.colour for f in figures])
    scene = Scene(ground, sample_clip_effects(rng, level), (), figures, (), length, times, facts)
    return build_scene_qa(rng, scene, _build_change_questions(rng, pairs, kind, new, format_time(times[moment])), level)


def _sample_replacement(rng: Rng, kind: str, pairs: list[Pair]) -> str | None:
    """Return the new colour or shape, "" if neither changes, None if there is no other one."""
    if kind == "colour":
        return sample_other_colour(rng, [pairs[0][0]], [colour for _, colour in pairs])
    if kind == "shape":
        used, colour = [shape for shape, _ in pairs], pairs[0][1]
        available = [s for s in SHAPES if s not in used and palette.is_pair_allowed(s, colour, "train")]
        return rng.choice(available) if available else None
    return ""


def _build_changing_figures(
    rng: Rng, items: tuple[Figure, ...], kind: str, new: str | None, before: list[bool], after: list[bool]
) -> list[Figure]:
    """Build the first object before and after the moment."""
    item, point = items[0], get_position(items[0])
    if kind == "vanish":
        return [replace_track(item, build_track(point, before))]
    if kind == "appear":
        return [replace_track(item, build_track(point, after))]
    if kind == "place":
        target = _sample_free_point(rng, items)
        return [replace_track(item, tuple(point if b else target for b in before))]
    assert new
    if kind == "colour":
        return [replace_track(item, build_track(point, before)), recolour(rng, item, new, build_track(point, after))]
    size = (item.w, item.h)
    replacement = palette.sample_figure(rng, new, item.colour, size, build_track(point, after))
    return [replace_track(item, build_track(point, before)), dataclasses.replace(replacement, rgb=item.rgb)]


def _sample_free_point(rng: Rng, items: tuple[Figure, ...]) -> Point:
    """Return a point that is clearly elsewhere and touches no other object."""
    first, best, max_gap = items[0], get_position(items[0]), -1.0
    for _ in range(40):
        x, y = point = sample_point(rng, (first.w, first.h))
        gaps = [
            max(abs(x - get_position(i)[0]) - (first.w + i.w) / 2, abs(y - get_position(i)[1]) - (first.h + i.h) / 2)
            for i in items
        ]
        if min(gaps) > max_gap:
            best, max_gap = point, min(gaps)
        if max_gap > 2:
            break
    return best


def _build_change_questions(rng: Rng, pairs: list[Pair], kind: str, new: str | None, time: str) -> list[Question]:
    """Ask what happens, to which object, and when; then about objects that do not change."""
    shape, colour = pairs[0]
    event_answer = _EVENT_ANSWERS[kind].format(new=new)
    clause = event_answer.removeprefix("it ")
    verb, third_person = _VERBS[kind]
    questions: list[Question] = [
        (f"Which shape {third_person}?", shape, f"The {shape} {third_person}."),
        (f"What happens to the {shape}?", event_answer, f"The {shape} {clause}."),
        ("What changes?", f"the {shape} {clause}", f"The {shape} {clause}."),
        (f"When does the {shape} {verb}?", time, f"The {shape} {third_person} at {time}."),
    ]
    if kind == "colour":
        assert new
        questions.append((f"What colour does the {shape} turn?", new, f"The {shape} turns {new}."))
        questions.append((f"What colour was the {shape} before?", colour, f"The {shape} was {colour} before."))
    if kind == "shape":
        assert new
        questions.append((f"What does the {shape} become?", new, f"The {shape} becomes a {new}."))
    questions = rng.sample(questions, len(questions))
    static_questions = [(f"What happens to the {s}?", "nothing", f"Nothing happens to the {s}.") for s, _ in pairs[1:3]]
    return [*questions, *static_questions, *build_object_questions(rng, pairs[1:])]


@dataclass(frozen=True)
class _Event:
    """An event of an object.

    Attributes:
        item: the object.
        kind: "appear", "vanish", "flash up" or "turn".
        moment: frame in which it happens.
        new: the colour that it turns; None for other kinds.
    """

    item: Figure
    kind: str
    moment: int
    new: str | None

    def build_figures(self, rng: Rng, length: int) -> list[Figure]:
        """Build the object over the clip."""
        point, after = get_position(self.item), [f >= self.moment for f in range(length)]
        before = [not is_after for is_after in after]
        if self.kind == "turn":
            assert self.new
            recoloured = recolour(rng, self.item, self.new, build_track(point, after))
            return [replace_track(self.item, build_track(point, before)), recoloured]
        visible = {"appear": after, "vanish": before, "flash up": [f == self.moment for f in range(length)]}[self.kind]
        return [replace_track(self.item, build_track(point, visible))]

    def build_question(self, rng: Rng, time: str) -> Question:
        """Ask when it happens."""
        if self.kind == "turn":  # its first colour does not identify it
            thing, verb, third_person = self.item.shape, f"turn {self.new}", f"turns {self.new}"
        else:
            thing, verb, third_person = (
                sample_name(rng, self.item.shape, self.item.colour),
                self.kind,
                _THIRD_PERSON[self.kind],
            )
        return rng.choice(_WHEN_FORMS).format(thing=thing, do=verb), time, f"The {thing} {third_person} at {time}."


@retry_layout
def build_when(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build objects and a text that appear, vanish, flash up or change colour at different times, and ask for a time.

    Level 1: one large object appears or vanishes; 2: two; 3: three and a text; 4: four small ones and a text, in noise.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    level = palette.sample_level(rng, options)
    length = palette.sample_clip_length(rng, options.frames, 2)
    number, (low, high), side = _WHEN[level]
    has_headline = length > 4 and (level > 2 or rng.chance(0.2))
    number = min(number, length - 1 - has_headline)
    pairs = palette.sample_pairs(rng, options.split, number)

    def sample_objects() -> tuple[tuple[Figure, ...], list[int]]:
        items = scatter(rng, pairs, low, high, side)
        return tuple(_move_down(item) for item in items) if has_headline else items, rng.sample(
            range(1, length), number
        )

    items, moments = sample_layout(
        options.split,
        sample_objects,
        lambda candidate: (
            "when",
            *palette.get_cell(*get_position(candidate[0][0]), 8),
            number,
            round(8 * candidate[1][0] / length),
        ),
    )
    events = _sample_events(rng, items, moments, ("appear", "vanish") if level == 1 else (*_THIRD_PERSON, "turn"))
    times = sample_times(rng, length)
    figures = [figure for event in events for figure in event.build_figures(rng, length)]
    ground = palette.sample_figure_backdrop(rng, [figure.colour for figure in figures])
    questions = [event.build_question(rng, format_time(times[event.moment])) for event in events]
    texts: tuple[Text, ...] = ()
    if has_headline:
        moment = rng.choice([f for f in range(1, length) if f not in moments])
        texts = (_build_headline(rng, options, ground, moment, length),)
        time, text = format_time(times[moment]), texts[0].text
        questions.append((f"When does the text {text} appear?", time, f"The text {text} appears at {time}."))
        questions.append(("What does the text say?", text, f"The text says {text}."))
    frames_after_flash = {event.moment + 1 for event in events if event.kind == "flash up"}
    for event in events:
        if event.moment not in frames_after_flash:  # otherwise something happens to two shapes
            time, shape = format_time(times[event.moment]), event.item.shape
            sentence = f"Something happens to the {shape}."
            questions.append((f"To which shape does something happen at {time}?", shape, sentence))
    first, *others = (questions[i] for i in rng.sample(range(len(questions)), len(questions)))
    facts = {"kinds": [event.kind for event in events], "moments": moments}
    scene = Scene(ground, sample_clip_effects(rng, level), (), tuple(figures), texts, length, times, facts)
    return build_scene_qa(rng, scene, [first, *others], level)


def _move_down(item: Figure) -> Figure:
    """Return the object moved down and slightly flattened, so that the top of the picture is free."""
    (x, y), part = get_position(item), 1 - _HEADLINE / UNITS
    return dataclasses.replace(item, h=round(item.h * part, 3), track=((x, round(UNITS - (UNITS - y) * part, 3)),))


def _sample_events(rng: Rng, items: tuple[Figure, ...], moments: list[int], kinds: tuple[str, ...]) -> list[_Event]:
    used, events = [item.colour for item in items], []
    for item, moment in zip(items, moments, strict=True):
        kind = rng.choice(kinds)
        new = sample_other_colour(rng, [item.shape], used) if kind == "turn" else None
        if kind == "turn" and new is None:
            kind = "appear"
        used += [new] if new else []
        events.append(_Event(item, kind, moment, new))
    return events


def _build_headline(rng: Rng, options: SceneOptions, ground: Backdrop, moment: int, length: int) -> Text:
    """Build a text at the top that appears at a moment."""
    text = sample_code_or_word(rng, options.split, rng.integer(2, 5))
    w, h = fit_text(text, rng.uniform(9, 11))
    point = (rng.uniform(w / 2 + 1, UNITS - w / 2 - 1), round(_HEADLINE / 2, 3))
    rgb = palette.sample_contrasting(rng, *palette.get_colours(ground), split=options.split)
    track = build_track(point, [f >= moment for f in range(length)])
    return Text(text, rng.choice(fonts.get_families(options.split)), rgb, w, h, 0.0, 0.0, track)
