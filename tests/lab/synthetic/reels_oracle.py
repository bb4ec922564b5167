"""Answers about clips of pages and conversations, computed a second time from the items of a description alone."""

from __future__ import annotations

import re
from typing import Any

from pvc.lab.synthetic.pages.outside import NOT_KNOWN, NOTHING
from pvc.lab.synthetic.scene import SceneQA
from tests.lab.synthetic.pages_oracle import (
    ORDINALS,
    SINGULAR,
    Page,
    Rules,
    a_thing,
    answer_on,
    colour_of,
    listed,
)

Item = dict[str, Any]
_T = r"the ((?:\w+ )?\w+)"
_DIRECTIONS = {(1, 0): "right", (-1, 0): "left", (0, 1): "down", (0, -1): "up"}


class Clip:
    """The contents of the frames of a clip."""

    def __init__(self, reel: Item) -> None:
        self.frames = [Page(canvas) for canvas in reel["frames"]]
        assert len(reel["timestamps"]) == len(self.frames)
        self.sequence: list[str] = []  # texts in the order of their appearance
        before = None
        for page in self.frames:
            assert len(page.words) <= 1
            now = page.words[0] if page.words else None
            if now and now != before:
                self.sequence.append(now["text"])
            before = now
        # Frames of every shape, by kind and colour.
        self.tracks: dict[tuple[str, str], dict[int, Item]] = {}
        for number, page in enumerate(self.frames):
            for shape in page.shapes:
                self.tracks.setdefault((shape["name"], colour_of(shape["rgb"])), {})[number] = shape

    def one(self, words: str) -> dict[int, Item]:
        """Return the frames of the only shape that the words name."""
        requested = set(words.split()) - {"shape", "object"}
        tracks = [track for names, track in self.tracks.items() if set(names) >= requested]
        assert len(tracks) == 1, words
        return tracks[0]

    def in_order(self) -> list[tuple[str, str]]:
        """Return the shapes by their first frame, which are all different."""
        starts = {names: min(track) for names, track in self.tracks.items()}
        assert len(set(starts.values())) == len(starts)
        return sorted(starts, key=lambda names: starts[names])

    def at(self, frame: int) -> Item:
        """Return the only shape of a frame."""
        (shape,) = self.frames[frame].shapes
        return shape


def way(track: dict[int, Item]) -> str:
    """Return the direction along one axis; the other does not change."""
    first, last = track[min(track)], track[max(track)]
    dx, dy = last["x"] - first["x"], last["y"] - first["y"]
    assert min(abs(dx), abs(dy)) < 0.2 and max(abs(dx), abs(dy)) > 12
    return _DIRECTIONS[(dx > 1) - (dx < -1), (dy > 1) - (dy < -1)]


def runs(track: dict[int, Item]) -> str:
    """Return how often a shape appears."""
    return str(sum(frame - 1 not in track for frame in track))


def _order(clip: Clip) -> str:
    return ", ".join(name for name, _ in clip.in_order())


def _see(clip: Clip) -> str:
    return listed([a_thing(clip.tracks[names][min(clip.tracks[names])]) for names in clip.in_order()])


def _first_of(clip: Clip, one: str, other: str) -> str:
    return one if min(clip.one(one)) < min(clip.one(other)) else other


_TEXTS: Rules = [
    (r"Which (?:words appear(?:, in order)?)|What words are shown one after another|Read the words in order",
     lambda c: " ".join(c.sequence)),
    (r"Which (?:digit|letter|character|text) comes (first|last)|Which word appears (first|last)|"
     r"What does it say (first|at the end)", lambda c, *w: c.sequence[0 if "first" in w else -1]),
    (r"How many (?:digits|letters|characters|pieces) (?:appear|are there)", lambda c: str(len(c.sequence))),
    (r"Which (?:digits|numbers|letters|characters) .*|What (?:digits|letters) .*|Read the (?:digits|letters|characters)"
     r" in order|What is the sequence of digits", lambda c: "".join(c.sequence)),
    (r"Which word is (?:spelled|shown piece by piece)|What does the whole text say|Which text do the pieces make|"
     r"What do the pieces say together|Put the pieces together|What is the whole word|What is written, all together",
     lambda c: "".join(c.sequence)),
    (r"Which (?:word|text) appears(?: in the video)?|What does (?:the text|it|the video) say|What text appears"
     r"(?: in the video)?|What is written in the video|What word is shown|Read the text",
     lambda c: c.sequence[0] if len(c.sequence) == 1 else "several"),
]  # fmt: skip
_MOTION: Rules = [
    (rf"(?:Which way|In which direction|Which direction|Where) does {_T} move|Where is {_T} going|"
     rf"(?:Which way|In what direction) is {_T} moving|Does {_T} move left, right, up or down",
     lambda c, *names: way(c.one(next(filter(None, names))))),
    (r"(?:Which way|In which direction) does it move|Which way is it moving|Where does it go",
     lambda c: way(*c.tracks.values())),
    (rf"How (?:many times|often) does {_T} (?:flash|appear)", lambda c, name: runs(c.one(name))),
    (r"What appears first, the (\w+) or the (\w+)", _first_of),
    (r"(?:Which shape|What|Which object) (?:appears|comes) (first|last)",
     lambda c, w: c.in_order()[0 if w == "first" else -1][0]),
    (r"Which colou?r (?:appears|comes) first", lambda c: c.in_order()[0][1]),
    (r"In which order do the shapes appear|Which shapes appear, in order|Name the shapes in the order they appear",
     _order),
    (r"What do you see|What is in the video|Describe the video|What is shown", _see),
    (r"How many shapes (?:appear|are in the video)", lambda c: str(len(c.tracks))),
    (r"Which colour does the (?:\w+) become|What colou?r (?:is|does) the (?:\w+) (?:at the end|change to)",
     lambda c: colour_of(c.at(-1)["rgb"])),
    (r"(?:What|Which) colou?r (?:is|was) the (?:\w+) (?:at first|before|at the beginning)",
     lambda c: colour_of(c.at(0)["rgb"])),
    (r"How does the colou?r(?: of the \w+)? change",
     lambda c: f"from {colour_of(c.at(0)['rgb'])} to {colour_of(c.at(-1)['rgb'])}"),
    (r"What changes", lambda c: f"the colour of the {c.at(0)['name'] if c.at(0)['name'] == c.at(-1)['name'] else ''}"),
    (r"Which shape does the \w+ become|What does the \w+ turn into|Which shape is shown (?:last|at the end)",
     lambda c: c.at(-1)["name"]),
    (r"Which shape is shown (?:first|at the beginning)", lambda c: c.at(0)["name"]),
    (r"(?:What|Which) colou?r is the (\w+)", lambda c, name: colour_of(next(iter(c.one(name).values()))["rgb"])),
    (r"Which shape is (\w+)|What shape is the (\w+) object",
     lambda c, *names: next(iter(c.one(next(filter(None, names))).values()))["name"]),
]  # fmt: skip


def answer_in(clip: Clip, question: str) -> str:
    """Return the answer to a question about one clip."""
    for pattern, rule in _MOTION if clip.tracks else _TEXTS:
        if match := re.fullmatch(pattern, question.rstrip("?."), re.I):
            return rule(clip, *match.groups())
    raise AssertionError(f"no rule for {question!r}")


# Conversations

_MEDIUM = r"the (?:(first|second|third|fourth|last) )?(picture|image|video|clip)\b"
_KIND = {"picture": Page, "image": Page, "video": Clip, "clip": Clip}


def medium_of(item: Any) -> Page | Clip:
    """Return the page or clip of a canvas or reel."""
    values = item.description()
    return Page(values) if values["is"] == "Canvas" else Clip(values)


def _named(question: str, media: list[Page | Clip]) -> Page | Clip:
    """Return the medium that a question names, or the last one."""
    for ordinal, noun in re.findall(_MEDIUM, question, re.I):
        alike = [medium for medium in media if isinstance(medium, _KIND[noun.lower()])]
        if ordinal:
            return alike[-1 if ordinal == "last" else ORDINALS.index(ordinal)]
        if len(alike) == 1:
            return alike[0]
    return media[-1]


def _about_one(question: str, medium: Page | Clip) -> str:
    answer = answer_on if isinstance(medium, Page) else answer_in
    noun = "picture" if isinstance(medium, Page) else "video"
    plain = re.sub(_MEDIUM, f"the {noun}", question, flags=re.I)
    plain = re.sub(rf"^In the {noun}[,:] ", "", plain)
    plain = re.sub(rf" in the {noun}, in order\?$", ", in order?", plain)
    inner = re.sub(rf" in the {noun}\b", "", plain)
    forms = [plain] if plain.lower() == f"what is in the {noun}?" else [inner, plain]
    for form in dict.fromkeys(forms):
        try:
            return answer(medium, form)  # type: ignore[arg-type]
        except AssertionError as error:
            if "no rule" not in str(error):
                raise
    raise AssertionError(f"no rule for {question!r}, {forms}")


def _things(page: Page) -> set[str]:
    return {a_thing(shape) for shape in page.shapes}


def _about_both(question: str, one: Page, other: Page) -> str | None:
    """Return the answer to a question that compares two pictures, or None if it does not."""
    names = ("first", "second")
    if match := re.fullmatch(r"Which picture has an? (\w+)\?", question):
        (place,) = [i for i, page in enumerate((one, other)) if any(s["name"] == match[1] for s in page.shapes)]
        return names[place]
    if match := re.fullmatch(rf"How many ({'|'.join(SINGULAR)}) are in the (first|second) picture\?", question):
        page = (one, other)[names.index(match[2])]
        return str(sum(shape["name"] == SINGULAR[match[1]] for shape in page.shapes))
    if re.fullmatch(r"Which picture (?:has|shows) more (?:shapes|objects)\?", question):
        assert len(one.shapes) != len(other.shapes)
        return names[len(other.shapes) > len(one.shapes)]
    if question == "Is the same object in both pictures?":
        return "yes" if _things(one) & _things(other) else "no"
    texts = [page.words[0]["text"] if page.words else "" for page in (one, other)]
    if question == "Do both pictures say the same?":
        return "yes" if texts[0] == texts[1] else "no"
    if match := re.fullmatch(r"Which picture says (.*)\?", question):
        assert texts.count(match[1]) == 1
        return names[texts.index(match[1])]
    return " and ".join(texts) if question in ("What do the pictures say?", "Read both pictures.") else None


def answer_to(question: str, media: list[Page | Clip]) -> str:
    """Return the answer to a question after these media."""
    if not media:
        return NOTHING
    if isinstance(media[0], Page) and media[0].clouds:
        return NOT_KNOWN
    if len(media) == 2 and isinstance(media[0], Page) and isinstance(media[1], Page):
        both = _about_both(question, media[0], media[1])
        if both is not None:
            return both
    return _about_one(question, _named(question, media))


def check(scene_qa: SceneQA, where: str) -> int:
    """Check every answer of a sample before rendering, and return the number of questions."""
    media: list[Page | Clip] = []
    scenes = [] if scene_qa.scene is None else [scene_qa.scene, *scene_qa.further]
    turns = [(scenes, scene_qa.question, scene_qa.answer), *(([], *pair) for pair in scene_qa.more)]
    turns += [(list(turn.media), turn.question, turn.answer) for turn in scene_qa.turns]
    for added, question, answer in turns:
        media += map(medium_of, added)
        expected = answer_to(question, media)
        assert answer == expected, f"{where}: {question!r} -> {answer!r}, not {expected!r}"
    return len(turns)
