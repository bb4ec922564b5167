"""Answers computed a second time, from the tracks of a description alone and by other rules than in the tasks.

Each rule is a pattern of a question and a function from the clip and the words of the question to the short answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from pvc.lab.synthetic.phrasing import is_sentence_request, remove_sentence_request, spell_number
from pvc.lab.synthetic.scene import Sample
from pvc.lab.synthetic.vocabulary import COLOURS, SHAPES

Item = dict[str, Any]
_COMPASS = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")


class Clip:
    """The facts of one clip, read from its description."""

    def __init__(self, scene: dict[str, Any], picture: dict[str, Any] | None = None) -> None:
        self.figures: list[Item] = scene["figures"]
        self.texts: list[Item] = scene["texts"]
        self.times = [f"{time:.1f}s" for time in scene["timestamps"]]
        self.asked = scene["asked"]
        self.hidden = [any(veil["shown"][f] for veil in scene["veils"]) for f in range(scene["frames"])]
        self.picture = picture["figures"][0] if picture else None

    def named(self, words: str) -> list[Item]:
        """Return the figures that a shape, a colour or both name."""
        if self.picture and "the picture" in words:
            words = f"{self.picture['colour']} {self.picture['shape']}"
        shape = next((s for s in SHAPES if s in words.split()), None)
        colour = next((c for c in COLOURS if c in words.split()), None)
        assert shape or colour, words
        return [f for f in self.figures if shape in (None, f["shape"]) and colour in (None, f["colour"])]

    def one(self, words: str) -> Item:
        """Return the only figure that the words name."""
        (figure,) = self.named(words)
        return figure

    def in_order(self) -> list[Item]:
        """Return the figures by their first frame, which are all different."""
        firsts = [first(f) for f in self.figures]
        assert len(set(firsts)) == len(firsts)
        return sorted(self.figures, key=first)

    def at(self, frame: int) -> dict[str, tuple[str, Any]]:
        """Return colour and place of every shape in a frame."""
        return {f["shape"]: (f["colour"], f["track"][frame]) for f in self.figures if f["track"][frame]}

    def moments(self, shape: str) -> list[int]:
        """Return the frames in which a shape differs from the frame before."""
        states = [self.at(f).get(shape) for f in range(len(self.times))]
        return [f for f in range(1, len(states)) if states[f] != states[f - 1]]


def first(item: Item) -> int:
    """Return the first frame that contains an item."""
    return next(i for i, point in enumerate(item["track"]) if point)


def runs(flags: list[bool]) -> int:
    """Return how often a flag becomes true."""
    return sum(b and not a for a, b in zip([False, *flags], flags, strict=False))


def way(item: Item) -> str:
    """Return the direction from the first place to the last, or "still"."""
    places = [point for point in item["track"] if point]
    dx, dy = (b - a for a, b in zip(places[0], places[-1], strict=True))
    if math.hypot(dx, dy) < 0.1:
        return "still"
    turn = math.atan2(dy, dx) / (math.pi / 4)
    assert abs(turn - round(turn)) < 0.25, "a way that is not clear"
    return _COMPASS[round(turn) % 8]


def speed(item: Item) -> float:
    """Return the distance over the clip."""
    places = [point for point in item["track"] if point]
    return math.dist(places[0], places[-1])


def _whole(clip: Clip) -> str:
    """Return all characters in the order of their appearance."""
    return "".join(text["text"] for text in sorted(clip.texts, key=first))


def _count_events(clip: Clip, thing: str, do: str) -> str:
    figures = clip.named(thing)
    kind = clip.asked["kind"]
    if kind == "flash":
        lit = min(figures, key=lambda f: f["track"][0] is not None)
        return str(runs([point is not None for point in lit["track"]]))
    (figure,) = figures
    if kind == "appear":
        return str(runs([point is not None for point in figure["track"]]))
    low = max(point[1] for point in figure["track"])
    return str(runs([point[1] < low for point in figure["track"]]))


def _most_events(clip: Clip) -> str:
    counts = {f["shape"]: int(_count_events(clip, f["shape"], "")) for f in clip.figures}
    best = [shape for shape, number in counts.items() if number == max(counts.values())]
    assert len(best) == 1
    return best[0]


def _happened(clip: Clip, shape: str) -> str:
    moments = clip.moments(shape)
    if not moments:
        return "nothing"
    (moment,) = moments
    before, after = clip.at(moment - 1).get(shape), clip.at(moment).get(shape)
    if before is None:
        return "it appears"
    if after is None:
        appeared = [s for s in clip.at(moment) if s not in clip.at(moment - 1)]
        return f"it becomes a {appeared[0]}" if appeared else "it vanishes"
    return f"it turns {after[0]}" if before[0] != after[0] else "it jumps to another place"


def _changed(clip: Clip) -> str:
    return next(s for s in sorted({f["shape"] for f in clip.figures}, key=_is_new(clip)) if clip.moments(s))


def _is_new(clip: Clip) -> Callable[[str], bool]:
    """Return a sort key that puts last the shapes that replace another one at the change."""
    return lambda shape: shape not in clip.at(0)


def _time_of(clip: Clip, thing: str) -> str:
    """Return the only moment of a thing; of a flash, its first."""
    shapes = {f["shape"] for f in clip.named(thing)}
    (shape,) = shapes
    return clip.times[clip.moments(shape)[0]]


def _below(clip: Clip, thing: str) -> str:
    x = next(point[0] for point in clip.one(thing)["track"] if point)
    near = [t for t in clip.texts for point in t["track"] if point and abs(point[0] - x) < 1]
    return str(near[0]["text"])


def _line(clip: Clip, number: str) -> str:
    return str(sorted(clip.texts, key=lambda t: t["track"][first(t)][1])[int(number) - 1]["text"])


def _faster(clip: Clip, one: str, other: str) -> str:
    return one if speed(clip.one(one)) > speed(clip.one(other)) else other


def _legible(clip: Clip) -> list[int]:
    (text,) = clip.texts
    return [f for f, point in enumerate(text["track"]) if point and not clip.hidden[f]]


_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
_CHARACTER = "(?:character|digit|letter)"
_T = "the (.+?)"  # a thing
_RULES: list[tuple[str, Callable[..., str]]] = [
    (f"What colou?r is {_T} at first|What colour was {_T} before", lambda c, a, b: c.at(0)[a or b][0]),
    ("What colou?r is the shape that appears (first|last)", lambda c, w: c.in_order()[w == "last" and -1]["colour"]),
    (f"What colou?r is {_T}|Which colour does {_T} have", lambda c, a, b: c.one(a or b)["colour"]),
    ("What colour does the (\\w+) turn", lambda c, s: next(f["colour"] for f in c.named(s) if not f["track"][0])),
    ("Which object is in the picture", lambda c: f"{c.picture['colour']} {c.picture['shape']}"),
    ("(?:Which|What) shape is (\\w+)", lambda c, colour: c.one(colour)["shape"]),
    ("What (?:shape )?is the (\\w+) (?:one|object)", lambda c, colour: c.one(colour)["shape"]),
    (f"(?:Which way|In which direction|Where) does {_T} move(?: to| in the video)?", lambda c, t: way(c.one(t))),
    (f"Does {_T} move or stand still", lambda c, t: "it stands still" if way(c.one(t)) == "still" else "it moves"),
    ("Which moves faster, the (\\w+) or the (\\w+)", _faster),
    ("(?:Which shape|What is the shape that) appears (first|last)",
     lambda c, w: c.in_order()[w == "last" and -1]["shape"]),
    (f"Which shape appears right after {_T}", lambda c, t: c.in_order()[c.in_order().index(c.one(t)) + 1]["shape"]),
    (f"Which shape appears right before {_T}", lambda c, t: c.in_order()[c.in_order().index(c.one(t)) - 1]["shape"]),
    ("In which order do the shapes appear|Name the shapes in the .*",
     lambda c: ", ".join(f["shape"] for f in c.in_order())),
    ("How many shapes (?:appear|are there|are in the video)", lambda c: str(len({f["shape"] for f in c.figures}))),
    (f"How (?:often|many times) does {_T} (.*)", _count_events),
    ("Which shape .* most often", _most_events),
    ("What happens to the (\\w+)", _happened),
    ("What changes", lambda c: f"the {_changed(c)} {_happened(c, _changed(c)).removeprefix('it ')}"),
    ("Which shape (?:changes|becomes|vanishes|appears|jumps).*", _changed),
    ("Which shape appears", lambda c: c.in_order()[0]["shape"]),
    ("What does the (\\w+) become", lambda c, s: _happened(c, s).removeprefix("it becomes a ")),
    ("(?:When|At what time) does the (?:text \\w+|code) appear", lambda c: c.times[first(c.texts[0])]),
    ("To which shape does something happen at (.*)", lambda c, t: next(
        f["shape"] for f in c.figures if c.times.index(t) in c.moments(f["shape"]))),
    (f"(?:When|At what time) does {_T} (?:change|become|vanish|appear|flash up|jump|turn).*", _time_of),
    ("Is there a (\\w+) in the video", lambda c, s: "yes" if any(f["shape"] == s for f in c.figures) else "no"),
    ("(?:Is|Does) the object in the picture (?:appear )?in the video",
     lambda c: "yes" if c.named("the picture") else "no"),
    ("What does the text say|Which code appears|Which text can you see", lambda c: c.texts[0]["text"]),
    (f"(?:In the video, w|W)hich text is below {_T}", _below),
    ("(?:What is in|Read) line (\\d)", _line),
    ("When can the text be read for the first time", lambda c: c.times[_legible(c)[0]]),
    ("In how many frames can the text be read", lambda c: str(len(_legible(c)))),
    (f"What is the (\\w+) {_CHARACTER}", lambda c, o: _whole(c)[_ORDINALS.index(o)]),
    (f"Which {_CHARACTER} comes after (\\w)", lambda c, x: _whole(c)[_whole(c).index(x) + 1]),
    (f"How many {_CHARACTER}s are there", lambda c: str(len(_whole(c)))),
    ("What does the (\\w+) piece say", lambda c, o: sorted(c.texts, key=first)[_ORDINALS.index(o)]["text"]),
    ("(?:Which (?:digits|letters|text)|What (?:digits|letters|text|is the whole|does it)|Read the).*", _whole),
]  # fmt: skip


def answer_to(question: str, clip: Clip) -> str:
    """Return the short answer; raise AssertionError if no rule fits the question."""
    plain = remove_sentence_request(question).rstrip("?.")
    for pattern, rule in _RULES:
        match = re.fullmatch(pattern, plain)
        if match:
            return rule(clip, *match.groups())
    raise AssertionError(f"no rule for {question!r}")


def check(sample: Sample) -> None:
    """Check every answer of a sample, also those of later turns."""
    description = sample.description
    if "further" in description:
        clip = Clip(description["further"][0], description)
        clip.asked = description["asked"]
    else:
        clip = Clip(description)
    for question, answer in ((sample.question, sample.answer), *sample.more):
        expected = answer_to(question, clip)
        where = f"{sample.task} seed {description['seed']} level {sample.level}: {question!r} -> {answer!r}"
        if not is_sentence_request(question):
            assert answer == expected, f"{where}, not {expected!r}"
            continue
        assert answer.endswith(".") and (answer[0].isupper() or answer[0].isdigit()), where
        words = expected.split() if expected not in ("nothing", "yes", "no") else [expected]
        if expected.isdigit():
            words = [f"{expected}|{spell_number(int(expected))}|{('never', 'once', 'twice')[min(2, int(expected))]}"]
        for word in words:
            match = re.search(rf"\b({word.strip(',')})\b", answer, re.I)
            assert match or word in ("it", "something") or "Something happens" in answer, f"{where}, no {word!r}"
