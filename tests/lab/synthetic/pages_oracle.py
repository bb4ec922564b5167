"""Answers about pages computed a second time, from the items of a description alone.

Each rule is a pattern of a question and a function from the page (or the clip) and the words of the question to the
answer. Questions that name a medium of a conversation are answered from that medium.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from pvc.lab.synthetic.vocabulary import COLOURS, PLURALS

Item = dict[str, Any]
Rules = Sequence[tuple[str, Callable[..., str]]]
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
SINGULAR = {plural: name for name, plural in PLURALS.items()}


def colour_of(rgb: Sequence[int]) -> str:
    """Return the nearest named colour."""
    return min(COLOURS, key=lambda name: math.dist(COLOURS[name], rgb))


def yes(true: bool) -> str:
    """Return "yes" or "no"."""
    return "yes" if true else "no"


def a_thing(shape: Item) -> str:
    """Return the name of a shape with its article."""
    thing = f"{colour_of(shape['rgb'])} {shape['name']}"
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"


def listed(things: Sequence[str]) -> str:
    """Return things as a list in words."""
    return " and ".join(filter(None, [", ".join(things[:-1]), things[-1]]))


class Page:
    """The items of a canvas."""

    def __init__(self, canvas: Item) -> None:
        self.width, self.height = canvas["width"], canvas["height"]
        self.backdrop = canvas["backdrop"]
        self.items = canvas["items"]
        of: dict[str, list[Item]] = {kind: [] for kind in ("Words", "Box", "Shape", "Polyline", "Cloud")}
        for item in canvas["items"]:
            of[item["is"]].append(item)
        self.words, self.boxes, self.shapes, self.curves = of["Words"], of["Box"], of["Shape"], of["Polyline"]
        self.clouds = of["Cloud"]
        heights = sorted({word["y"] for word in self.words})
        lines = [sorted((w for w in self.words if w["y"] == y), key=lambda w: w["x"]) for y in heights]
        self.rows = [[word["text"] for word in line] for line in lines]

    def one(self, words: str) -> Item:
        """Return the only shape that a shape, a colour or both name."""
        shapes = [
            s for s in self.shapes if {s["name"], colour_of(s["rgb"])} >= set(words.split()) - {"shape", "object"}
        ]
        assert len(shapes) == 1, (words, shapes)
        return shapes[0]

    def filled(self) -> list[Item]:
        """Return signs, buttons and bars: boxes with a fill that are not lines."""
        thin = max(1.0, 0.008 * min(self.width, self.height)) * 1.01
        return [b for b in self.boxes if b["fill"] and min(b["x1"] - b["x0"], b["y1"] - b["y0"]) > thin]

    def inside(self) -> list[str]:
        """Return the texts on filled boxes, from left to right."""
        on = [
            w for w in self.words for b in self.filled() if b["x0"] <= w["x"] <= b["x1"] and b["y0"] < w["y"] < b["y1"]
        ]
        return [word["text"] for word in sorted(on, key=lambda w: w["x"])]

    def outside(self) -> str:
        """Return the only text that is not on a filled box."""
        (message,) = [word["text"] for word in self.words if word["text"] not in self.inside()]
        return message

    def pairs(self) -> dict[str, str]:
        """Return the first and last cell of the rows with several cells."""
        return {row[0]: row[-1] for row in self.rows if len(row) > 1}


# Texts


def _line(page: Page, number: str) -> str:
    row = page.rows[int(number) - 1 if number.isdigit() else -1 if number == "last" else ORDINALS.index(number)]
    assert len(row) == 1
    return row[0]


def _entry(page: Page, number: str) -> str:
    return re.sub(r"^(\d+\. |- |\* )", "", _line(page, number))


def _prices(page: Page) -> dict[str, float]:
    return {thing: float(price.strip("$")) for thing, price in page.pairs().items()}


def _best(values: dict[str, float], sign: int) -> str:
    ranked = sorted(values, key=lambda name: sign * values[name])
    assert len(ranked) == 1 or values[ranked[0]] != values[ranked[1]]
    return ranked[0]


def _total(page: Page) -> str:
    *rest, (_, total) = page.rows
    assert math.isclose(sum(float(row[1]) for row in rest), float(total))
    return total


def _cell(page: Page, head: str | None, key: str) -> str:
    """Return the cell of a row under a head, or the only one beside the row's name."""
    heads = [cell.lower() for cell in page.rows[0]]
    (row,) = [row for row in page.rows if row[0] == key]
    if head is None:
        assert len(row) == 2
        return row[1]
    return row[heads.index(head.lower())]


def _field(page: Page, name: str) -> str:
    (value,) = [row[1] for row in page.rows if len(row) == 2 and row[0].rstrip(":").lower() == name.lower()]
    return value


def _top(page: Page, *_: str) -> str:
    return _extreme(page, "y", 1) if page.shapes else page.rows[0][0]


def _bottom(page: Page, *_: str) -> str:
    return _extreme(page, "y", -1) if page.shapes else page.rows[-1][0]


def _button(page: Page) -> str:
    return page.inside()[0] if page.inside() else _whole(page)


def _whole(page: Page, *_: str) -> str:
    assert page.words and not page.shapes
    return " ".join(itertools.chain.from_iterable(page.rows))


def _unless_fields(page: Page, name: str) -> str:
    """Return a field of a form, if the page has one of this name, otherwise its whole text."""
    fields = [row[0].rstrip(":").lower() for row in page.rows if len(row) == 2]
    return _field(page, name) if name.lower() in fields else _whole(page)


_LINES: Rules = [
    (r"How many lines (?:are there|of text do you see)", lambda p: str(len(p.rows))),
    (r"(?:What is (?:written )?in|Read) (?:line (\w+)|the (\w+) line)", lambda p, a, b: _line(p, a or b)),
    (r"What does the (\w+) line say", _line),
    (r"What is (?:at the top|the title|the heading)", _top),
    (r"What is at the bottom", _bottom),
]
_SCREENS: Rules = [
    (r"What is the total|How much is the total|What is the sum", _total),
    (r"What is the price of (.+)|How much (?:is|does) (?:the )?(.+?)(?: cost)?|What does (.+) cost",
     lambda p, *names: p.pairs()[next(filter(None, names))]),
    (r"What is the most expensive item|What costs the most", lambda p: _best(_prices(p), -1)),
    (r"What is the cheapest item|What costs the least", lambda p: _best(_prices(p), 1)),
    (r"(?:What|Which item) costs (.+)", lambda p, price: {v: k for k, v in p.pairs().items()}[price]),
    (r"What (?:is|are) the (\w+) of (\w+)|(?:Which|How many) (\w+) does (\w+) have",
     lambda p, a, b, c, d: _cell(p, a or c, b or d)),
    (r"Which (city) is next to (\w+)", _cell),
    (r"How old is (\w+)", lambda p, key: _cell(p, "Age", key)),
    (r"What is (?:next to|in the row of) (\w+)", lambda p, key: _cell(p, None, key)),
    (r"What does the (?:dialog|message|window) say|What is the (?:message|question)|Read the message", Page.outside),
    (r"What does the button say|Which button is there|What is on the button", _button),
    (r"What (?:is on|does) the (left|right) button(?: say)?", lambda p, side: p.inside()[0 if side == "left" else -1]),
    (r"How many buttons are there", lambda p: str(len(p.inside()))),
    (r"Which buttons are there|What do the buttons say", lambda p: " ".join(p.inside())),
    (r"Which command was typed|What command was run|What is the command", lambda p: p.rows[0][0][2:]),
    (r"What is the output|What did it print|What was printed", lambda p: _line(p, "2")),
    (r"Which entry is highlighted|Which item is selected", lambda p: re.sub(r"^(\d+\. |- |\* )", "", p.inside()[0])),
    (r"What is (?:item|the) (\w+)(?: item| entry)?", lambda p, n: (
        _entry(p, n) if n in (*ORDINALS, "last") or n.isdigit() else _unless_fields(p, n))),
    (r"How many (?:items are there|entries are in the list)", lambda p: str(len(p.rows))),
    (r"Which (\w+) is shown|What does the field (\w+) say|Read the (\w+)",
     lambda p, *names: _unless_fields(p, next(filter(None, names)))),
]  # fmt: skip

# Shapes


def _extreme(page: Page, axis: str, sign: int) -> str:
    ranked = sorted(page.shapes, key=lambda shape: sign * shape[axis])
    if len(ranked) > 1:
        apart = abs(ranked[0][axis] - ranked[1][axis]) / (page.width if axis == "x" else page.height)
        assert apart > 0.05, "which one it is cannot be seen"
    return a_thing(ranked[0])


def _place(page: Page, shape: Item) -> str:
    column = ["left", "", "right"][(shape["x"] > 0.35 * page.width) + (shape["x"] > 0.65 * page.width)]
    row = ["top", "", "bottom"][(shape["y"] > 0.35 * page.height) + (shape["y"] > 0.65 * page.height)]
    return " ".join(filter(None, (row, column))) or "center"


def _at(page: Page, place: str) -> str:
    place = re.sub("middle|centre", "center", place)
    (shape,) = [shape for shape in page.shapes if _place(page, shape) == place]
    return a_thing(shape)


def _beside(page: Page, way: str, words: str) -> str:
    here = page.one(words)
    (other,) = [shape for shape in page.shapes if shape is not here]
    side = {
        "to the left of": other["x"] < here["x"],
        "to the right of": other["x"] > here["x"],
        "above": other["y"] < here["y"],
        "below": other["y"] > here["y"],
    }
    assert side[way], "the other one is not there"
    return a_thing(other)


def _larger(page: Page, sign: int) -> str:
    ranked = sorted(page.shapes, key=lambda shape: sign * shape["w"] * shape["h"])
    assert not 0.75 < ranked[0]["w"] * ranked[0]["h"] / (ranked[1]["w"] * ranked[1]["h"]) < 1.33
    return a_thing(ranked[0])


def _count(page: Page, words: str) -> str:
    words_set = {SINGULAR.get(word, word) for word in words.split()} - {"shapes", "objects", "things"}
    return str(sum({s["name"], colour_of(s["rgb"])} >= words_set for s in page.shapes))


def _see(page: Page) -> str:
    """Return all shapes, none before one that is clearly above it."""
    if not page.shapes:
        return f'the text "{_whole(page)}"'
    shapes = list(page.shapes)
    for i, later in enumerate(shapes):
        assert all(later["y"] + later["h"] / 2 > s["y"] - s["h"] / 2 for s in shapes[:i])
    return listed([a_thing(shape) for shape in shapes])


_T = r"the ((?:\w+ )?\w+)"
_SEE = (
    r"What (?:do|can) you see|What is (?:this|it|shown)|What is in the (?:picture|image)|Describe (?:it|the (?:picture|"
    r"image))|What does the picture show|Name all objects|Which objects are there|List the objects"
)
_SHAPES: Rules = [
    (_SEE, _see),
    (r"(?:What|Which) colou?r is (?:it|this)|What color is the shape",
     lambda p: colour_of(p.shapes[0]["rgb"]) if len(p.shapes) == 1 else "several"),
    (r"(?:What|Which) shape is (?:this|it|shown)|What shape do you see",
     lambda p: p.shapes[0]["name"] if len(p.shapes) == 1 else "several"),
    (r"(?:What|Which) shape is (larger|smaller)|Which is (bigger)|What is the (largest|smallest) shape",
     lambda p, *how: _larger(p, 1 if "small" in next(filter(None, how)) else -1)),
    (rf"(?:What|Which) colou?r is {_T}|Which color does {_T} have|What is the colou?r of {_T}",
     lambda p, *names: colour_of(p.one(next(filter(None, names)))["rgb"])),
    (r"(?:What|Which shape|What do you see) (?:is )?(?:at|on|in) the (top left|top right|bottom left|bottom right)"
     r"(?: corner)?", _at),
    (r"(?:What|Which shape|What do you see) (?:is )?in the (center|middle|centre)", _at),
    (r"(?:What|Which shape|What do you see) (?:is )?(?:at|on) the (left|right)(?: side)?",
     lambda p, side: _extreme(p, "x", 1 if side == "left" else -1)),
    (r"(?:What|Which shape|What do you see) (?:is )?(?:at the top|above)", lambda p: _extreme(p, "y", 1)),
    (r"(?:What|Which shape|What do you see) (?:is )?(?:at the bottom|below)", lambda p: _extreme(p, "y", -1)),
    (rf"Where is {_T}|In which (?:part of the picture|corner) is {_T}|Where can you see {_T}|"
     rf"Where in the picture is {_T}", lambda p, *names: _place(p, p.one(next(filter(None, names))))),
    (rf"Is {_T} to the left or to the right of {_T}",
     lambda p, a, b: "left" if p.one(a)["x"] < p.one(b)["x"] else "right"),
    (rf"Is {_T} above or below {_T}", lambda p, a, b: "above" if p.one(a)["y"] < p.one(b)["y"] else "below"),
    (rf"What is (to the left of|to the right of|above|below) {_T}", _beside),
    (r"(?:Is there|Do you see) an? (\w+) shape", lambda p, c: yes(any(colour_of(s["rgb"]) == c for s in p.shapes))),
    (r"(?:Is there|Do you see) an? (\w+)", lambda p, name: yes(any(s["name"] == name for s in p.shapes))),
    (r"Is the (\w+) (\w+)", lambda p, name, colour: yes(colour_of(p.one(name)["rgb"]) == colour)),
    (r"How many (.+?) (?:are there|do you see|can you see|are in the picture)|Count the (.+)|"
     r"What is the number of (.+)",
     lambda p, *names: _count(p, next(filter(None, names)))),
    (rf"(?:Which shape|What shape|What) is ({'|'.join(COLOURS)})|What is the (\w+) (?:shape|object)|"
     r"What shape (?:is|does) the (\w+) object(?: have)?",
     lambda p, *names: p.one(next(filter(None, names)))["name"]),
]  # fmt: skip

# Charts


class Chart:
    """Bars or points with their names, values and sizes."""

    def __init__(self, page: Page) -> None:
        low = max((word["y"] for word in page.words), default=0)
        names = [word for word in page.words if word["y"] == low]
        values = [word for word in page.words if word["y"] != low]
        self.points = list(page.curves[0]["points"]) if page.curves else []
        bars = [] if self.points else page.filled()
        lying = len(bars) > 1 and len({bar["x0"] for bar in bars}) == 1
        self.rgbs = [bar["fill"] for bar in bars] or [page.curves[0]["rgb"]]
        middles = [(b["x0"] + b["x1"]) / 2 for b in bars] or [x for x, _ in self.points]
        self.sizes = [b["x1"] - b["x0"] if lying else b["y1"] - b["y0"] for b in bars] or [-y for _, y in self.points]
        self.names, self.values = [], []
        for middle, rgb in zip(middles, self.rgbs if bars else itertools.repeat(None), strict=False):
            at = [w["text"] for w in names if abs(w["x"] - middle) < 0.2]
            self.names.append(at[0] if at else colour_of(rgb))
            self.values.append(next((w["text"] for w in values if abs(w["x"] - middle) < 0.2), None))
        assert len(set(self.names)) == len(self.names)

    def best(self, sign: int) -> str:
        """Return the name of the smallest (`sign` 1) or largest (`sign` -1) bar or point."""
        ranked = sorted(range(len(self.sizes)), key=lambda i: sign * self.sizes[i])
        assert abs(self.sizes[ranked[0]] - self.sizes[ranked[1]]) > 0.01 * max(map(abs, self.sizes))
        return self.names[ranked[0]]

    def value(self, name: str) -> str:
        """Return the printed value; values have the same order as the bars."""
        numbers = [int(value) for value in self.values]
        for (a, x), (b, y) in itertools.pairwise(sorted(zip(numbers, self.sizes, strict=True))):
            assert a == b or x < y or min(x, y) < 0.2 * max(self.sizes)
        return str(self.values[self.names.index(name)])


def _trend(page: Page, up: str, down: str) -> str:
    heights = [y for _, y in page.curves[0]["points"]]
    assert heights in (sorted(heights), sorted(heights, reverse=True))
    return up if heights[0] > heights[-1] else down


_CHARTS: Rules = [
    (r"(?:Which bar is|What is)(?: the)? (?:tallest|highest|largest|longest)(?: bar)?|(?:Which|What) colou?r is the "
     r"(?:longest|largest) bar|Where is the line highest|Which point is the highest|Where is the maximum",
     lambda p: Chart(p).best(-1)),
    (r"(?:Which bar is|What is)(?: the)? (?:shortest|lowest|smallest)(?: bar)?|(?:Which|What) colou?r is the "
     r"(?:shortest|smallest) bar|Where is the line lowest|Which point is the lowest|Where is the minimum",
     lambda p: Chart(p).best(1)),
    (r"What is the value of (\w+)|How high is (\w+)|What value does (\w+) have|Which number is above (\w+)",
     lambda p, *names: Chart(p).value(next(filter(None, names)))),
    (r"What is the (?:highest|largest) value", lambda p: Chart(p).value(Chart(p).best(-1))),
    (r"How many bars (?:are there|do you see|does the chart have)|Count the bars", lambda p: str(len(Chart(p).names))),
    (r"What colou?r is the (first|last) bar", lambda p, n: colour_of(Chart(p).rgbs[0 if n == "first" else -1])),
    (r"What colour is the line|Which color does the line have", lambda p: colour_of(p.curves[0]["rgb"])),
    (r"How many points (?:are there|does the line have)", lambda p: str(len(p.curves[0]["points"]))),
    (r"Is the line rising or falling", lambda p: _trend(p, "rising", "falling")),
    (r"Does the line go up or down", lambda p: _trend(p, "up", "down")),
]  # fmt: skip


def answer_on(page: Page, question: str) -> str:
    """Return the answer to a question about one picture."""
    plain = question.rstrip("?.")
    if len(page.words) == 1 and not page.shapes:
        return _see(page) if re.fullmatch(_SEE, plain, re.I) else page.words[0]["text"]
    rules: Rules = _SHAPES if page.shapes else _CHARTS if page.curves or len(page.filled()) > 1 else ()
    for pattern, rule in (*rules, *([] if page.shapes else [*_LINES, *_SCREENS])):
        match = re.fullmatch(pattern, plain, re.I)
        if match:
            return rule(page, *match.groups())
    assert page.words and not rules, f"no rule for {question!r}"
    return _whole(page)
