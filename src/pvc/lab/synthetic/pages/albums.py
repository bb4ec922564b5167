"""Tasks `album` and `reels`: conversations about two to four pictures, or about pictures and clips.

Called by `tasks`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pvc.lab.synthetic.pages.canvas import Canvas, Reel
from pvc.lab.synthetic.pages.figures import build_figures, build_objects_page, build_tally
from pvc.lab.synthetic.pages.films import build_captions, build_motion
from pvc.lab.synthetic.pages.graphs import build_graph
from pvc.lab.synthetic.pages.screens import build_screen
from pvc.lab.synthetic.pages.signs import build_lines, build_sign, build_text_page, sample_text
from pvc.lab.synthetic.phrasing import add_article
from pvc.lab.synthetic.scene import SceneOptions, SceneQA, SceneTurn
from pvc.lab.synthetic.seeding import Rng
from pvc.lab.synthetic.vocabulary import PLURALS

Questions = list[tuple[str, str]]
_ORDER = ("first", "second", "third", "fourth")
_CLIP_FRAMES = {4: 2.0, 6: 2.0, 8: 3.0}


@dataclass(frozen=True)
class _Part:
    """A medium with questions that hold for it alone.

    Attributes:
        medium: the picture or clip.
        questions: questions with answers.
        text: the text on it, if it has only a text.
    """

    medium: Canvas | Reel
    questions: tuple[tuple[str, str], ...]
    text: str | None = None

    @property
    def noun(self) -> str:
        """What a question calls the medium: "picture" or "video"."""
        return "picture" if isinstance(self.medium, Canvas) else "video"


_Build = Callable[[Rng, SceneOptions], SceneQA]
_PICTURES: dict[_Build, float] = {
    build_sign: 0.4,
    build_figures: 0.3,
    build_tally: 0.1,
    build_screen: 0.08,
    build_graph: 0.08,
    build_lines: 0.04,
}
_CLIPS: dict[_Build, float] = {build_captions: 0.5, build_motion: 0.5}


def _build_part(rng: Rng, options: SceneOptions, clip: bool) -> _Part:
    if not clip and rng.chance(0.25):
        text, _ = sample_text(rng, options.split)
        return _Part(build_text_page(rng, text), (("What does it say?", text),), text)
    build = rng.weighted(_CLIPS if clip else _PICTURES)
    scene_qa = build(rng, replace(options, frames=rng.weighted(_CLIP_FRAMES) if clip else None))
    assert isinstance(scene_qa.scene, (Canvas, Reel))
    return _Part(scene_qa.scene, ((scene_qa.question, scene_qa.answer), *scene_qa.more))


def _build_question(rng: Rng, part: _Part, parts: Sequence[_Part], last: int) -> tuple[str, str]:
    """Ask about one medium. The question names it, unless it is the last one of the conversation so far."""
    question, answer = rng.choice(part.questions)
    place = next(i for i, other in enumerate(parts) if other is part)
    if place == last and rng.chance(0.6):
        return question, answer
    if rng.chance(0.35):
        return f"{_sample_medium_name(rng, place, parts)}: {question[0].lower()}{question[1:]}", answer
    return _name_medium(rng, question, place, parts), answer


def _sample_medium_name(rng: Rng, place: int, parts: Sequence[_Part]) -> str:
    """Return a phrase such as "In the second picture" that fits one medium only."""
    noun = parts[place].noun
    same_kind = [i for i, part in enumerate(parts) if part.noun == noun]
    if len(same_kind) == 1 and rng.chance(0.5):
        return f"In the {noun}"
    if len(same_kind) == len(parts):
        name = _ORDER[place] if place < len(parts) - 1 or rng.chance(0.7) else "last"
        noun = rng.choice(("picture", "picture", "image")) if noun == "picture" else rng.choice(("video", "clip"))
        return f"In the {name} {noun}"
    if len(same_kind) == 1:
        return f"In the {noun}"
    return f"In the {_ORDER[same_kind.index(place)]} {noun}"


def _name_medium(rng: Rng, question: str, place: int, parts: Sequence[_Part]) -> str:
    """Return a question with the name of its medium in it."""
    where = _sample_medium_name(rng, place, parts)
    inner = where[len("In ") :]
    for form, replacement in (
        ("What does it say?", f"What does {inner} say?"),
        ("What does the text say?", f"What does the text in {inner} say?"),
        ("What do you see?", f"What do you see in {inner}?"),
    ):
        if question == form:
            return replacement
    for form in ("the picture", "the image", "the video"):
        if form in question:
            return question.replace(form, inner)
    if question.endswith("?") and rng.chance(0.6) and "," not in question:
        return f"{question[:-1]} in {inner}?"
    return f"{where}, {question[0].lower()}{question[1:]}"


def _build_conversation(rng: Rng, parts: list[_Part], extra: Questions) -> SceneQA:
    """Ask about media that all come at once, or one after another."""
    together = rng.chance(0.5)
    turns: list[SceneTurn] = []
    if together:
        order = rng.sample(range(len(parts)), len(parts))
        media = tuple(part.medium for part in parts)
        questions = [_build_question(rng, parts[i], parts, len(parts) - 1 if not turns else -1) for i in order]
        questions = (
            questions[: rng.integer(1, 3)] if not extra else [rng.choice(extra), *questions[: rng.integer(0, 2)]]
        )
        turns = [SceneTurn((), question, answer) for question, answer in questions]
        turns[0] = replace(turns[0], media=media)
    else:
        for i, part in enumerate(parts):
            question, answer = rng.choice(part.questions)
            if i and rng.chance(0.35):
                question = _name_medium(rng, question, i, parts[: i + 1])
            turns.append(SceneTurn((part.medium,), question, answer))
            if rng.chance(0.3):
                back = rng.integer(0, i)
                turns.append(SceneTurn((), *_build_question(rng, parts[back], parts[: i + 1], i)))
        if extra and rng.chance(0.7):
            turns.append(SceneTurn((), *rng.choice(extra)))
    first = turns[0]
    return SceneQA(first.media[0], first.question, first.answer, (), first.media[1:], turns=tuple(turns[1:]))


def build_album(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build two to four pictures, and ask about each, about an earlier one, or for a comparison.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    if rng.chance(0.3):
        return _build_comparison(rng, options)
    count = rng.weighted({2: 0.7, 3: 0.2, 4: 0.1})
    return _build_conversation(rng, [_build_part(rng, options, False) for _ in range(count)], [])


def _build_comparison(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build two pictures of one kind, with questions about both."""
    if rng.chance(0.5):
        counts = [rng.integer(1, 4) for _ in range(2)]
        pages = [build_objects_page(rng, options, count) for count in counts]
        parts, extra = [], []
        for canvas, pairs, _, _ in pages:
            questions = ((f"How many {rng.choice(('shapes', 'objects'))} are there?", str(len(pairs))),)
            parts.append(_Part(canvas, questions))
        if counts[0] != counts[1]:
            more = "first" if counts[0] > counts[1] else "second"
            extra.append((rng.choice(("Which picture has more shapes?", "Which picture shows more objects?")), more))
        same = set(pages[0][1]) & set(pages[1][1])
        extra.append(("Is the same object in both pictures?", "yes" if same else "no"))
        for i, (_, pairs, _, _) in enumerate(pages):
            others, names = {name for name, _ in pages[1 - i][1]}, [name for name, _ in pairs]
            unique_names = [name for name in names if name not in others and names.count(name) == 1]
            if unique_names:
                extra.append((f"Which picture has {add_article(unique_names[0])}?", _ORDER[i]))
                extra.append((f"How many {PLURALS[unique_names[0]]} are in the {_ORDER[i]} picture?", "1"))
        return _build_conversation(rng, parts, extra)
    texts = [sample_text(rng, options.split)[0]]
    texts.append(texts[0] if rng.chance(0.3) else sample_text(rng, options.split)[0])
    parts = [_Part(build_text_page(rng, text), (("What does it say?", text),), text) for text in texts]
    extra = [("Do both pictures say the same?", "yes" if texts[0] == texts[1] else "no")]
    if texts[0] != texts[1]:
        extra += [(f"Which picture says {text}?", _ORDER[i]) for i, text in enumerate(texts)]
    extra.append((rng.choice(("What do the pictures say?", "Read both pictures.")), f"{texts[0]} and {texts[1]}"))
    return _build_conversation(rng, parts, extra)


def build_reels(rng: Rng, options: SceneOptions) -> SceneQA:
    """Build two or three media, at least one of them a clip, and ask about them.

    Args:
        rng: random generator of the sample.
        options: what the caller requests.
    """
    kinds = rng.choice(((True, False), (False, True), (True, True), (False, True), (True, False), (False, True, False)))
    return _build_conversation(rng, [_build_part(rng, options, clip) for clip in kinds], [])


__all__ = ["build_album", "build_reels"]
