"""Tasks `album` and `reels`: conversations about two to four pictures, or about pictures and clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pvc.lab.synthetic.pages.canvas import Canvas, Reel
from pvc.lab.synthetic.pages.figures import figures, objects_page, tally
from pvc.lab.synthetic.pages.films import captions, motion
from pvc.lab.synthetic.pages.graphs import graph
from pvc.lab.synthetic.pages.screens import screen
from pvc.lab.synthetic.pages.signs import lines, one_text, sign, text_page
from pvc.lab.synthetic.phrasing import with_article
from pvc.lab.synthetic.scene import SceneOptions, SceneQA, SceneTurn
from pvc.lab.synthetic.seeding import Rng
from pvc.lab.synthetic.vocabulary import PLURALS

Asks = list[tuple[str, str]]
_ORDER = ("first", "second", "third", "fourth")
_CLIP_FRAMES = {4: 2.0, 6: 2.0, 8: 3.0}


@dataclass(frozen=True)
class _Part:
    """A medium with questions that hold for it alone."""

    medium: Canvas | Reel
    asks: tuple[tuple[str, str], ...]
    text: str | None = None

    @property
    def noun(self) -> str:
        return "picture" if isinstance(self.medium, Canvas) else "video"


_Build = Callable[[Rng, SceneOptions], SceneQA]
_PICTURES: dict[_Build, float] = {
    sign: 0.4,
    figures: 0.3,
    tally: 0.1,
    screen: 0.08,
    graph: 0.08,
    lines: 0.04,
}
_CLIPS: dict[_Build, float] = {captions: 0.5, motion: 0.5}


def _part(dice: Rng, wish: SceneOptions, clip: bool) -> _Part:
    if not clip and dice.chance(0.25):
        text, _ = one_text(dice, wish.split)
        return _Part(text_page(dice, text), (("What does it say?", text),), text)
    build = dice.weighted(_CLIPS if clip else _PICTURES)
    draft = build(dice, replace(wish, frames=dice.weighted(_CLIP_FRAMES) if clip else None))
    assert isinstance(draft.scene, (Canvas, Reel))
    return _Part(draft.scene, ((draft.question, draft.answer), *draft.more))


def _about(dice: Rng, part: _Part, parts: Sequence[_Part], last: int) -> tuple[str, str]:
    """Return a question about one medium, which names it unless it is the one that was shown last."""
    question, answer = dice.choice(part.asks)
    place = next(i for i, other in enumerate(parts) if other is part)
    if place == last and dice.chance(0.6):
        return question, answer
    if dice.chance(0.35):
        return f"{_where(dice, place, parts)}: {question[0].lower()}{question[1:]}", answer
    return _named(dice, question, place, parts), answer


def _where(dice: Rng, place: int, parts: Sequence[_Part]) -> str:
    noun = parts[place].noun
    alike = [i for i, part in enumerate(parts) if part.noun == noun]
    if len(alike) == 1 and dice.chance(0.5):
        return f"In the {noun}"
    if len(alike) == len(parts):
        name = _ORDER[place] if place < len(parts) - 1 or dice.chance(0.7) else "last"
        noun = dice.choice(("picture", "picture", "image")) if noun == "picture" else dice.choice(("video", "clip"))
        return f"In the {name} {noun}"
    if len(alike) == 1:
        return f"In the {noun}"
    return f"In the {_ORDER[alike.index(place)]} {noun}"


def _named(dice: Rng, question: str, place: int, parts: Sequence[_Part]) -> str:
    """Return a question with the name of its medium put in."""
    where = _where(dice, place, parts)
    inner = where[len("In ") :]
    for plain, named in (
        ("What does it say?", f"What does {inner} say?"),
        ("What does the text say?", f"What does the text in {inner} say?"),
        ("What do you see?", f"What do you see in {inner}?"),
    ):
        if question == plain:
            return named
    for plain in ("the picture", "the image", "the video"):
        if plain in question:
            return question.replace(plain, inner)
    if question.endswith("?") and dice.chance(0.6) and "," not in question:
        return f"{question[:-1]} in {inner}?"
    return f"{where}, {question[0].lower()}{question[1:]}"


def _conversation(dice: Rng, parts: list[_Part], extra: Asks) -> SceneQA:
    """Ask about media that are all shown at once, or one after another."""
    together = dice.chance(0.5)
    turns: list[SceneTurn] = []
    if together:
        order = dice.sample(range(len(parts)), len(parts))
        media = tuple(part.medium for part in parts)
        asks = [_about(dice, parts[i], parts, len(parts) - 1 if not turns else -1) for i in order]
        asks = asks[: dice.integer(1, 3)] if not extra else [dice.choice(extra), *asks[: dice.integer(0, 2)]]
        turns = [SceneTurn((), question, answer) for question, answer in asks]
        turns[0] = replace(turns[0], media=media)
    else:
        for i, part in enumerate(parts):
            question, answer = dice.choice(part.asks)
            if i and dice.chance(0.35):
                question = _named(dice, question, i, parts[: i + 1])
            turns.append(SceneTurn((part.medium,), question, answer))
            if dice.chance(0.3):
                back = dice.integer(0, i)
                turns.append(SceneTurn((), *_about(dice, parts[back], parts[: i + 1], i)))
        if extra and dice.chance(0.7):
            turns.append(SceneTurn((), *dice.choice(extra)))
    first = turns[0]
    return SceneQA(first.media[0], first.question, first.answer, (), first.media[1:], turns=tuple(turns[1:]))


def album(dice: Rng, wish: SceneOptions) -> SceneQA:
    """Two to four pictures: about each, about an earlier one, or a comparison."""
    if dice.chance(0.3):
        return _compared(dice, wish)
    count = dice.weighted({2: 0.7, 3: 0.2, 4: 0.1})
    return _conversation(dice, [_part(dice, wish, False) for _ in range(count)], [])


def _compared(dice: Rng, wish: SceneOptions) -> SceneQA:
    """Two pictures of one kind, with questions about both."""
    if dice.chance(0.5):
        counts = [dice.integer(1, 4) for _ in range(2)]
        pages = [objects_page(dice, wish, count) for count in counts]
        parts, extra = [], []
        for canvas, pairs, _, _ in pages:
            asks = ((f"How many {dice.choice(('shapes', 'objects'))} are there?", str(len(pairs))),)
            parts.append(_Part(canvas, asks))
        if counts[0] != counts[1]:
            more = "first" if counts[0] > counts[1] else "second"
            extra.append((dice.choice(("Which picture has more shapes?", "Which picture shows more objects?")), more))
        same = set(pages[0][1]) & set(pages[1][1])
        extra.append(("Is the same object in both pictures?", "yes" if same else "no"))
        for i, (_, pairs, _, _) in enumerate(pages):
            others, names = {name for name, _ in pages[1 - i][1]}, [name for name, _ in pairs]
            own = [name for name in names if name not in others and names.count(name) == 1]
            if own:
                extra.append((f"Which picture has {with_article(own[0])}?", _ORDER[i]))
                extra.append((f"How many {PLURALS[own[0]]} are in the {_ORDER[i]} picture?", "1"))
        return _conversation(dice, parts, extra)
    texts = [one_text(dice, wish.split)[0]]
    texts.append(texts[0] if dice.chance(0.3) else one_text(dice, wish.split)[0])
    parts = [_Part(text_page(dice, text), (("What does it say?", text),), text) for text in texts]
    extra = [("Do both pictures say the same?", "yes" if texts[0] == texts[1] else "no")]
    if texts[0] != texts[1]:
        extra += [(f"Which picture says {text}?", _ORDER[i]) for i, text in enumerate(texts)]
    extra.append((dice.choice(("What do the pictures say?", "Read both pictures.")), f"{texts[0]} and {texts[1]}"))
    return _conversation(dice, parts, extra)


def reels(dice: Rng, wish: SceneOptions) -> SceneQA:
    """Two or three media, at least one of them a clip."""
    kinds = dice.choice(
        ((True, False), (False, True), (True, True), (False, True), (True, False), (False, True, False))
    )
    return _conversation(dice, [_part(dice, wish, clip) for clip in kinds], [])


__all__ = ["album", "reels"]
