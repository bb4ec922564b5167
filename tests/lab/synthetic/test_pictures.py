"""Every question about a picture, also further ones, is answered again from the positions of its items."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from pvc.lab.synthetic import TASKS, Sample, make
from pvc.lab.synthetic.phrasing import is_sentence_request, remove_sentence_request, spell_number
from pvc.lab.synthetic.scene import LEVELS
from pvc.lab.synthetic.vocabulary import COLOURS, PLACES, PLURALS, SHAPES
from tests.lab.synthetic.kinds import SCENES

Scene = dict[str, Any]
Answer = Callable[[str, list[Scene]], str]
PICTURES = [name for name in SCENES if TASKS[name].kind == "image"]
SINGULAR = {plural: shape for shape, plural in PLURALS.items()}


def _y(item: Scene) -> float:
    return float(item["track"][0][1])


def _x(item: Scene) -> float:
    return float(item["track"][0][0])


def _lines(scene: Scene) -> list[str]:
    return [text["text"] for text in sorted(scene["texts"], key=_y)]


def _number(question: str) -> int:
    return int(re.findall(r"\d+", question)[0])


def _spelling(question: str, text: str) -> str:
    if "How many" in question:
        return str(len(text))
    places = {"first": 0, "second": 1, "before the last": -2, "last": -1}
    return next((text[i] for words, i in places.items() if words in question and "character" in question), text)


def read(question: str, scenes: list[Scene]) -> str:
    return _spelling(question, scenes[0]["texts"][0]["text"])


def page(question: str, scenes: list[Scene]) -> str:
    lines = _lines(scenes[0])
    if question.startswith("How many"):
        return str(len(lines))
    if match := re.fullmatch(r"In which line is (.*)\?", question):
        return str(lines.index(match[1]) + 1)
    return lines[int(re.findall(r"line (\d+)", question)[0]) - 1]


def rows(question: str, scenes: list[Scene]) -> str:
    return _lines(scenes[0])[_number(question) - 1]


def _place_of(item: Scene, scene: Scene) -> str:
    width, height = scene["extent"]
    x, y = _x(item) / width, _y(item) / height
    return min(PLACES, key=lambda place: abs(PLACES[place][0] - x) + abs(PLACES[place][1] - y))


def locate(question: str, scenes: list[Scene]) -> str:
    places = {text["text"]: _place_of(text, scenes[0]) for text in scenes[0]["texts"]}
    if match := re.match(r"Where is the text (.*)\?|In which part of the picture is (.*)\?", question):
        return places[match[1] or match[2]]
    return next(text for text, place in places.items() if place in question)


def needle(question: str, scenes: list[Scene]) -> str:
    lines = _lines(scenes[0])
    (base, many), (odd, once) = Counter("".join(lines)).most_common()
    assert many > once == 1
    row = next(i for i, line in enumerate(lines) if odd in line)
    if "row" in question:
        return str(row + 1)
    if "column" in question:
        return str(lines[row].index(odd) + 1)
    return base if "many times" in question else odd


def receipt(question: str, scenes: list[Scene]) -> str:
    texts = sorted(scenes[0]["texts"], key=lambda text: (_y(text), _x(text)))
    lines = {name["text"]: price["text"] for name, price in zip(texts[::2], texts[1::2], strict=True)}
    total = lines.pop(next(reversed(lines)))
    assert f"{sum(map(float, lines.values())):.{len(total.partition('.')[2])}f}" == total
    if "total" in question:
        return total
    if "cheapest" in question or "most" in question:
        return (min if "cheapest" in question else max)(lines, key=lambda name: float(lines[name]))
    if match := re.fullmatch(r"Which item costs (.*)\?", question):
        return next(name for name, price in lines.items() if price == match[1])
    return lines[re.findall(r"price of (.*)\?", question)[0]]


def chart(question: str, scenes: list[Scene]) -> str:
    """Read values as a person does: the top of a bar or point is beside a tick, or has its value above."""
    scene = scenes[0]
    names = {_x(t): t["text"] for t in scene["texts"] if _y(t) > 56}
    if scene.get("curves"):
        tops = dict(scene["curves"][0]["points"])
    else:
        tops = {p["x"]: p["y"] - p["h"] / 2 for p in scene["plates"] if p["x"] in names and p["h"] > 1.5 and p["w"] > 1}
    labels = [t for t in scene["texts"] if _y(t) <= 56]
    printed = {_x(t) for t in labels} == set(names)
    values = {}
    for x, name in names.items():
        beside = [t for t in labels if (_x(t) == x if printed else abs(_y(t) - tops[x]) < 0.01)]
        assert len(beside) == 1
        values[name] = int(beside[0]["text"])
    if "highest" in question or "lowest" in question:
        return (max if "highest" in question else min)(values, key=lambda name: values[name])
    if match := re.fullmatch(r"Which is larger, (.) or (.)\?", question):
        return max(match[1], match[2], key=lambda name: values[name])
    return str(len(values)) if "How many" in question else str(values[question[-2]])


def _figures(question: str, scene: Scene) -> list[Scene]:
    """Return the figures that the words of the question fit."""
    words = {SINGULAR.get(word, word) for word in re.findall(r"[a-z]+", question.lower())}
    shapes, colours = words & set(SHAPES), words & set(COLOURS)
    figures: list[Scene] = scene["figures"]
    return [f for f in figures if (not shapes or f["shape"] in shapes) and (not colours or f["colour"] in colours)]


def shape(question: str, scenes: list[Scene]) -> str:
    (figure,) = _figures(question, scenes[0])
    return str(figure["colour" if "colo" in question else "shape"])


def count(question: str, scenes: list[Scene]) -> str:
    if question.startswith("Are there more"):
        kinds = re.findall(r"more ([a-z]+)", question)
        return str(max(kinds, key=lambda kind: len(_figures(kind, scenes[0]))))
    return str(len(_figures(question, scenes[0])))


def place(question: str, scenes: list[Scene]) -> str:
    scene = scenes[0]
    there = [f for f in scene["figures"] if _place_of(f, scene) in question]
    if there:
        (figure,) = there
        return str(figure["shape"]) if "Which shape" in question else _article(f"{figure['colour']} {figure['shape']}")
    return (
        _place_of(_figures(question, scene)[0], scene)
        if "re is" in question or "part" in question
        else shape(question, scenes)
    )


def _article(thing: str) -> str:
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"


def describe(question: str, scenes: list[Scene]) -> str:
    """Use reading order: a figure that lies below all of another one is in a later row."""
    rows_: list[list[Scene]] = []
    for figure in sorted(scenes[0]["figures"], key=_y):
        if rows_ and _y(figure) - figure["h"] / 2 < min(_y(f) + f["h"] / 2 for f in rows_[-1]):
            rows_[-1].append(figure)
        else:
            rows_.append([figure])
    lines = [[f"{f['colour']} {f['shape']}" for f in sorted(row, key=_x)] for row in rows_]
    things = [thing for line in lines for thing in line]
    if "How many" in question or "Count" in question:
        return str(len(things))
    if match := re.fullmatch(r"What is to the (left|right) of the (.*)\?", question):
        line = next(line for line in lines if match[2] in line)
        others = line[: line.index(match[2])] if match[1] == "left" else line[line.index(match[2]) + 1 :]
        (only,) = others
        return _article(only)
    if "first" in question or "last" in question:
        return _article(things[0] if "first" in question else things[-1])
    named = [_article(thing) for thing in (lines[_number(question) - 1] if "row" in question else things)]
    return " and ".join(", ".join(named).rsplit(", ", 1))


def bars(question: str, scenes: list[Scene]) -> str:
    figures = sorted(scenes[0]["figures"], key=_x)
    if "How many" in question or "Count" in question:
        return str(len(figures))
    if "on the" in question:
        return str(figures[0 if "left" in question else -1]["colour"])
    named = _figures(question, scenes[0]) if "taller" in question else figures
    pick = min if "shortest" in question else max
    return str(pick(named, key=lambda f: f["h"])["colour"])


def compare(question: str, scenes: list[Scene]) -> str:
    names = ("first", "second")
    texts = ["".join(t["text"] for t in scene["texts"]) for scene in scenes]
    named = [i for i, name in enumerate(names) if name in question]
    if "missing" in question:
        i = 0 if question.index("first") < question.index("second") else 1
        (gone,) = set(texts[i]) - set(texts[1 - i])
        return gone
    if "same" in question:
        return "same" if texts[0] == texts[1] else "different"
    if match := re.search(r"larger|smaller", question):
        best = (max if match[0] == "larger" else min)(texts, key=int)
        return best if question.startswith("What is") else names[texts.index(best)]
    if any(texts):
        return texts[named[0]]
    counts = [len(_figures(question, scene)) for scene in scenes]
    if match := re.search(r"has (more|fewer)", question):
        return names[counts.index((max if match[1] == "more" else min)(counts))]
    return str(sum(counts) if "together" in question else counts[named[0]])


ANSWERS: dict[str, Answer] = {
    **{"read": read, "page": page, "locate": locate, "rows": rows, "needle": needle, "receipt": receipt},
    **{"chart": chart, "shape": shape, "count": count, "place": place, "describe": describe, "bars": bars},
    "compare": compare,
}


def _check(sample: Sample, answer: Answer) -> None:
    scenes = [sample.description, *sample.description.get("further", ())]
    for question, sample_answer in ((sample.question, sample.answer), *sample.more):
        expected = answer(remove_sentence_request(question), scenes)
        if is_sentence_request(question):
            assert sample_answer.endswith(".") and (sample_answer[0].isupper() or not sample_answer[0].isalpha())
            words = [expected, spell_number(int(expected))] if expected.isdigit() else [expected]
            words += [PLURALS[expected]] if expected in PLURALS else []
            assert any(word in sample_answer or word.capitalize() in sample_answer for word in words), (
                question,
                sample_answer,
                expected,
            )
        else:
            assert sample_answer == expected, (question, sample_answer, expected)


@pytest.mark.parametrize("task", PICTURES)
@pytest.mark.parametrize("split", ["train", "layouts", "colours", "fonts"])
def test_answers(task: str, split: Any) -> None:
    for level in range(1, LEVELS + 1):
        for seed in range(40 if split == "train" else 8):
            sample = make(task, seed, level=level, split=split)
            assert sample.level == level and sample.kind == "image"
            _check(sample, ANSWERS[task])


@pytest.mark.parametrize("task", [name for name in PICTURES if TASKS[name].tiles])
def test_large_pictures(task: str) -> None:
    shapes = set()
    for tiles in (2, 4):
        for seed in range(8):
            sample = make(task, seed, tiles=tiles, level=1 + seed % LEVELS)
            _check(sample, ANSWERS[task])
            shapes.add(sample.frames.shape[1:3])
            assert sample.patch_labels.shape[1:] == tuple(side // 8 for side in sample.frames.shape[1:3])
            width, height = sample.description["extent"]
            for text in sample.description["texts"]:
                (x, y) = text["track"][0]
                assert text["w"] / 2 <= x <= width - text["w"] / 2 and text["h"] / 2 <= y <= height - text["h"] / 2
    assert shapes == {(64, 128), (128, 64), (128, 128)}


@pytest.mark.parametrize("level", range(1, LEVELS + 1))
def test_rows_have_the_density_of_their_level(level: int) -> None:
    """A visual token covers 32 x 32 pixels: at 64 pixels, the level sets 2, 4, 8, 16 characters a token."""
    for seed in range(5):
        lines = _lines(make("rows", seed, level=level).description)
        assert len("".join(lines)) == 4 * 2**level and len({len(line) for line in lines}) == 1


def test_some_questions_request_sentences() -> None:
    questions = [make(task, seed).question for task in ("read", "place", "chart") for seed in range(200)]
    assert 0.08 < sum(map(is_sentence_request, questions)) / len(questions) < 0.22
