"""Tasks about moments: `change` (what became of it) and `when` (at which time).

They choose what is shown and asked; looks come from `palette`. Times are asked for as the model reads them before each
frame. Used by `tasks`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from pvc.lab.synthetic import fonts, palette
from pvc.lab.synthetic.clips import (
    Ask,
    Point,
    anywhere,
    camera,
    drafted,
    during,
    home,
    in_colour,
    laid_out,
    other_colour,
    placed,
    redrawn,
    seconds,
    stamp,
)
from pvc.lab.synthetic.lettering import draw_text, fitted
from pvc.lab.synthetic.motion_tasks import Pair, about
from pvc.lab.synthetic.objects import name_of, scatter
from pvc.lab.synthetic.scene import UNITS, Backdrop, Figure, Scene, SceneOptions, SceneQA, Text
from pvc.lab.synthetic.seeding import Rng
from pvc.lab.synthetic.vocabulary import SHAPES

# Objects (fewest and most), their size, the side of the grid they stand in, and what may happen, by level.
_CHANGE = {
    1: ((1, 2), (18, 27), 2, ("colour", "vanish", "appear")),
    2: ((2, 3), (15, 24), 2, ("colour", "vanish", "appear", "shape", "place")),
    3: ((3, 4), (12, 19), 3, ("colour", "vanish", "appear", "shape", "place")),
    4: ((4, 5), (9, 13), 3, ("colour", "vanish", "appear", "shape", "place")),
}
_HAPPENED = {
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
# Objects, their size, and the side of the grid they stand in, by level.
_WHEN = {1: (1, (18, 27), 2), 2: (2, (15, 24), 2), 3: (3, (12, 18), 3), 4: (4, (9, 13), 3)}
_AT = ("When does the {thing} {do}?", "At what time does the {thing} {do}?")
_DOES = {"appear": "appears", "vanish": "vanishes", "flash up": "flashes up"}
_HEADLINE = 15.0  # units at the top of the picture that a text has for itself


@redrawn
def change(dice: Rng, wish: SceneOptions) -> SceneQA:
    """At one moment one object changes its colour, shape or place, vanishes or appears; asked is which, and to what.

    Level 1: one or two large objects; 2: up to three; 3: up to four; 4: up to five small ones, in noise.
    """
    level = palette.level_of(dice, wish)
    length = palette.clip_length(dice, wish.frames, 2)
    (fewest, most), (low, high), side, kinds = _CHANGE[level]
    pairs = palette.pairs(dice, wish.split, dice.integer(fewest, most))
    kind = dice.choice(kinds)
    shape, colour = pairs[0]
    new = _new_one(dice, kind, pairs)
    if new is None:
        kind = "vanish"
    items = laid_out(
        wish.split,
        lambda: scatter(dice, pairs, low, high, side),
        lambda drawn: ("change", kind, *palette.cell_of(*home(drawn[0]), 8), len(drawn)),
    )
    moment = dice.integer(1, length - 1)
    before, after = [f < moment for f in range(length)], [f >= moment for f in range(length)]
    changing = _changing(dice, items, kind, new, before, after)
    others = [placed(item, (home(item),) * length) for item in items[1:]]
    times = seconds(dice, length)
    asked = {"kind": kind, "shape": shape, "colour": colour, "new": new, "moment": moment}
    figures = (*others, *changing)
    ground = palette.figure_backdrop(dice, [f.colour for f in figures])
    scene = Scene(ground, camera(dice, level), (), figures, (), length, times, asked)
    return drafted(dice, scene, _change_asks(dice, pairs, kind, new, stamp(times[moment])), level)


def _new_one(dice: Rng, kind: str, pairs: list[Pair]) -> str | None:
    """The new colour or shape, "" where nothing of both changes, None where there is no other one."""
    if kind == "colour":
        return other_colour(dice, [pairs[0][0]], [colour for _, colour in pairs])
    if kind == "shape":
        taken, colour = [shape for shape, _ in pairs], pairs[0][1]
        free = [s for s in SHAPES if s not in taken and palette.pair_is_for(s, colour, "train")]
        return dice.choice(free) if free else None
    return ""


def _changing(
    dice: Rng, items: tuple[Figure, ...], kind: str, new: str | None, before: list[bool], after: list[bool]
) -> list[Figure]:
    """The first object before and after the moment."""
    item, point = items[0], home(items[0])
    if kind == "vanish":
        return [placed(item, during(point, before))]
    if kind == "appear":
        return [placed(item, during(point, after))]
    if kind == "place":
        there = _free_place(dice, items)
        return [placed(item, tuple(point if b else there for b in before))]
    assert new
    if kind == "colour":
        return [placed(item, during(point, before)), in_colour(dice, item, new, during(point, after))]
    size = (item.w, item.h)
    becomes = palette.figure(dice, new, item.colour, size, during(point, after))
    return [placed(item, during(point, before)), dataclasses.replace(becomes, rgb=item.rgb)]


def _free_place(dice: Rng, items: tuple[Figure, ...]) -> Point:
    """Somewhere clearly elsewhere, touching no other object."""
    first, best, most = items[0], home(items[0]), -1.0
    for _ in range(40):
        x, y = point = anywhere(dice, (first.w, first.h))
        gaps = [
            max(abs(x - home(i)[0]) - (first.w + i.w) / 2, abs(y - home(i)[1]) - (first.h + i.h) / 2) for i in items
        ]
        if min(gaps) > most:
            best, most = point, min(gaps)
        if most > 2:
            break
    return best


def _change_asks(dice: Rng, pairs: list[Pair], kind: str, new: str | None, time: str) -> list[Ask]:
    """What happens, to which object, and when; then about objects that only stand there."""
    shape, colour = pairs[0]
    happened = _HAPPENED[kind].format(new=new)
    does = happened.removeprefix("it ")
    verb, which = _VERBS[kind]
    asks: list[Ask] = [
        (f"Which shape {which}?", shape, f"The {shape} {which}."),
        (f"What happens to the {shape}?", happened, f"The {shape} {does}."),
        ("What changes?", f"the {shape} {does}", f"The {shape} {does}."),
        (f"When does the {shape} {verb}?", time, f"The {shape} {which} at {time}."),
    ]
    if kind == "colour":
        assert new
        asks.append((f"What colour does the {shape} turn?", new, f"The {shape} turns {new}."))
        asks.append((f"What colour was the {shape} before?", colour, f"The {shape} was {colour} before."))
    if kind == "shape":
        assert new
        asks.append((f"What does the {shape} become?", new, f"The {shape} becomes a {new}."))
    asks = dice.sample(asks, len(asks))
    stays = [(f"What happens to the {s}?", "nothing", f"Nothing happens to the {s}.") for s, _ in pairs[1:3]]
    return [*asks, *stays, *about(dice, pairs[1:])]


@dataclass(frozen=True)
class Happening:
    """What happens to an object and in which frame; `new` is the colour that it turns."""

    item: Figure
    kind: str
    moment: int
    new: str | None

    def figures(self, dice: Rng, length: int) -> list[Figure]:
        """The object over the clip."""
        point, after = home(self.item), [f >= self.moment for f in range(length)]
        before = [not there for there in after]
        if self.kind == "turn":
            assert self.new
            turned = in_colour(dice, self.item, self.new, during(point, after))
            return [placed(self.item, during(point, before)), turned]
        shown = {"appear": after, "vanish": before, "flash up": [f == self.moment for f in range(length)]}[self.kind]
        return [placed(self.item, during(point, shown))]

    def ask(self, dice: Rng, time: str) -> Ask:
        """When it happens."""
        if self.kind == "turn":  # its first colour does not name it
            thing, do, does = self.item.shape, f"turn {self.new}", f"turns {self.new}"
        else:
            thing, do, does = name_of(dice, self.item.shape, self.item.colour), self.kind, _DOES[self.kind]
        return dice.choice(_AT).format(thing=thing, do=do), time, f"The {thing} {does} at {time}."


@redrawn
def when(dice: Rng, wish: SceneOptions) -> SceneQA:
    """Objects and a text appear, vanish, flash up or change colour, each at a time of its own; asked is a time.

    Level 1: one large object appears or vanishes; 2: two; 3: three and a text; 4: four small ones and a text, in noise.
    """
    level = palette.level_of(dice, wish)
    length = palette.clip_length(dice, wish.frames, 2)
    number, (low, high), side = _WHEN[level]
    headline = length > 4 and (level > 2 or dice.chance(0.2))
    number = min(number, length - 1 - headline)
    pairs = palette.pairs(dice, wish.split, number)

    def draw() -> tuple[tuple[Figure, ...], list[int]]:
        items = scatter(dice, pairs, low, high, side)
        return tuple(_lowered(item) for item in items) if headline else items, dice.sample(range(1, length), number)

    items, moments = laid_out(
        wish.split,
        draw,
        lambda drawn: ("when", *palette.cell_of(*home(drawn[0][0]), 8), number, round(8 * drawn[1][0] / length)),
    )
    happenings = _happenings(dice, items, moments, ("appear", "vanish") if level == 1 else (*_DOES, "turn"))
    times = seconds(dice, length)
    figures = [figure for happening in happenings for figure in happening.figures(dice, length)]
    ground = palette.figure_backdrop(dice, [figure.colour for figure in figures])
    asks = [happening.ask(dice, stamp(times[happening.moment])) for happening in happenings]
    texts: tuple[Text, ...] = ()
    if headline:
        moment = dice.choice([f for f in range(1, length) if f not in moments])
        texts = (_headline(dice, wish, ground, moment, length),)
        time, text = stamp(times[moment]), texts[0].text
        asks.append((f"When does the text {text} appear?", time, f"The text {text} appears at {time}."))
        asks.append(("What does the text say?", text, f"The text says {text}."))
    gone = {happening.moment + 1 for happening in happenings if happening.kind == "flash up"}
    for happening in happenings:
        if happening.moment not in gone:  # else something happens to two shapes
            time, shape = stamp(times[happening.moment]), happening.item.shape
            sentence = f"Something happens to the {shape}."
            asks.append((f"To which shape does something happen at {time}?", shape, sentence))
    first, *others = (asks[i] for i in dice.sample(range(len(asks)), len(asks)))
    asked = {"kinds": [h.kind for h in happenings], "moments": moments}
    scene = Scene(ground, camera(dice, level), (), tuple(figures), texts, length, times, asked)
    return drafted(dice, scene, [first, *others], level)


def _lowered(item: Figure) -> Figure:
    """The object moved down and flattened a little, so that the top of the picture is free."""
    (x, y), part = home(item), 1 - _HEADLINE / UNITS
    return dataclasses.replace(item, h=round(item.h * part, 3), track=((x, round(UNITS - (UNITS - y) * part, 3)),))


def _happenings(dice: Rng, items: tuple[Figure, ...], moments: list[int], kinds: tuple[str, ...]) -> list[Happening]:
    taken, happenings = [item.colour for item in items], []
    for item, moment in zip(items, moments, strict=True):
        kind = dice.choice(kinds)
        new = other_colour(dice, [item.shape], taken) if kind == "turn" else None
        if kind == "turn" and new is None:
            kind = "appear"
        taken += [new] if new else []
        happenings.append(Happening(item, kind, moment, new))
    return happenings


def _headline(dice: Rng, wish: SceneOptions, ground: Backdrop, moment: int, length: int) -> Text:
    """A text at the top that appears at a moment."""
    text = draw_text(dice, wish.split, dice.integer(2, 5))
    w, h = fitted(text, dice.uniform(9, 11))
    point = (dice.uniform(w / 2 + 1, UNITS - w / 2 - 1), round(_HEADLINE / 2, 3))
    rgb = palette.contrasting(dice, *palette.colours_of(ground), split=wish.split)
    track = during(point, [f >= moment for f in range(length)])
    return Text(text, dice.choice(fonts.families(wish.split)), rgb, w, h, 0.0, 0.0, track)
