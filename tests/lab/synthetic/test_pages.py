"""Page tasks: answers match the items, texts are legible after tiling, all items are on the page."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from pvc.lab.synthetic import TASKS, make, messages_of
from pvc.lab.synthetic.pages.canvas import Box, Canvas, Finish, Reel, Shape, Words, render
from pvc.lab.synthetic.pages.faces import FACES, MONOSPACED, get_advance, get_cap_height, load_font
from pvc.lab.synthetic.pages.layout import compute_tile_grid
from pvc.lab.synthetic.pages.outside import NOTHING
from pvc.lab.synthetic.palette import compute_luminance
from pvc.lab.synthetic.scene import SceneOptions, SceneQA
from pvc.lab.synthetic.seeding import Rng, Split, is_text_allowed
from pvc.lab.synthetic.vocabulary import COLOURS, SHAPES
from pvc.processing.image import PVCImageProcessor
from tests.lab.synthetic import pages_oracle, reels_oracle
from tests.lab.synthetic.kinds import PAGES

TILE = 64
SPLITS: tuple[Split, ...] = ("train", "train_all", "test")


def build(task: str, seed: int, split: Split = "train_all", frames: int | None = None) -> SceneQA:
    """Return a sample before rendering."""
    return TASKS[task].build(Rng(split, task, seed), SceneOptions(split, frames))


def iter_scenes(task: str, seeds: int) -> Iterator[Canvas | Reel]:
    """Yield every picture and clip of some samples."""
    for seed in range(seeds):
        sample = build(task, seed)
        first = () if sample.scene is None else (sample.scene, *sample.further)
        for scene in (*first, *(medium for turn in sample.turns for medium in turn.media)):
            assert isinstance(scene, (Canvas, Reel))
            yield scene


def iter_canvases(task: str, seeds: int) -> Iterator[Canvas]:
    """Yield every picture and, of clips, the frames that differ."""
    for scene in iter_scenes(task, seeds):
        yield from dict.fromkeys(scene.frames) if isinstance(scene, Reel) else (scene,)


def filter_items(items: Sequence[object], kind: type) -> list[Any]:
    """Return the items of one class."""
    return [item for item in items if isinstance(item, kind)]


def get_ink_box(words: Words) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of the ink."""
    box = load_font(words.face, 200).getbbox(words.text, anchor=words.anchor)
    x0, y0, x1, y1 = (value * words.size / 200 for value in box)
    return words.x + x0, words.y + y0, words.x + x1, words.y + y1


def get_tile_scales(canvas: Canvas) -> tuple[float, float]:
    """Return the pixels of the tiles per pixel of the page, as transformers tiles it."""
    # Rows come first in its sizes and columns first in its result.
    columns, rows = get_optimal_tiled_canvas((canvas.height, canvas.width), (TILE, TILE), 1, 4)
    return columns * TILE / canvas.width, rows * TILE / canvas.height


@pytest.mark.parametrize("task", PAGES)
@pytest.mark.parametrize("split", SPLITS)
def test_answers_follow_from_the_items(task: str, split: Split) -> None:
    questions = 0
    for seed in range(150):
        questions += reels_oracle.check(build(task, seed, split), f"{task} {split} {seed}")
    assert questions >= 150


@pytest.mark.parametrize("frames", [4, 8, 16])
@pytest.mark.parametrize("task", ["captions", "motion"])
def test_clips_have_the_requested_frames(task: str, frames: int) -> None:
    for seed in range(60):
        clip = build(task, seed, frames=frames)
        assert isinstance(clip.scene, Reel) and len(clip.scene.frames) == frames
        reels_oracle.check(clip, f"{task} {seed}")


@pytest.mark.parametrize("task", PAGES)
def test_questions_vary_and_further_ones_differ(task: str) -> None:
    counts: Counter[str] = Counter()
    for seed in range(150):
        sample = build(task, seed)
        counts[sample.question] += 1
        forms = [question.replace("colour", "color").lower() for question, _ in sample.more]
        assert len({*forms, sample.question.replace("colour", "color").lower()}) == 1 + len(forms)
        answers = [sample.answer, *(answer for _, answer in sample.more), *(turn.answer for turn in sample.turns)]
        assert all(answers) and sample.question
    assert len(counts) >= 20 and counts.most_common(1)[0][1] < 40


def test_samples_are_generated_in_bounded_time() -> None:
    """Long names of six bars fit no page, so the search for one must end."""
    bars = set()
    for seed in range(1500):
        scene = build("graph", seed).scene
        assert isinstance(scene, Canvas)
        names = [words.text for words in filter_items(scene.items, Words)]
        bars |= {name for name in names if len(names) >= 6 and name.isalpha()}
    assert {"A", "F"} <= bars


# Strings


def _texts(sample: SceneQA) -> list[str]:
    """Return the texts that a question may ask for as a whole."""
    if isinstance(sample.scene, Canvas):
        return [words.text for words in filter_items(sample.scene.items, Words)]
    assert isinstance(sample.scene, Reel)
    sequence = reels_oracle.Clip(sample.scene.description()).sequence
    together = "".join(sequence)
    return [together] if together in (sample.answer, *(answer for _, answer in sample.more)) else sequence


@pytest.mark.parametrize("task", ["sign", "lines", "captions"])
def test_strings_are_in_one_split_only(task: str) -> None:
    seen: dict[str, set[str]] = {}
    for split in SPLITS:
        seen[split] = {text.upper() for seed in range(250) for text in _texts(build(task, seed, split))}
        assert all(is_text_allowed(text, split) for text in seen[split])
    assert not seen["test"] & (seen["train"] | seen["train_all"])


def test_messages_and_prices_of_screens_are_in_one_split_only() -> None:
    """Labels of forms and names of goods are in all splits."""
    for split in SPLITS:
        counts = Counter[str]()
        for seed in range(250):
            sample = build("screen", seed, split)
            for question, answer in ((sample.question, sample.answer), *sample.more):
                if question in ("Read the message.", "What is the message?", "What does the dialog say?"):
                    assert is_text_allowed(answer.rstrip("?!."), split)
                    counts["message"] += 1
                if price := re.fullmatch(r"(?:What|Which item) costs (.+)\?", question):
                    assert is_text_allowed(price[1], split) or price[1] in ("the most", "the least")
                    counts["price"] += 1
        assert min(counts["message"], counts["price"]) > 10


# Legibility


def test_the_grid_is_the_one_of_the_image_processor() -> None:
    rng = np.random.default_rng(0)
    sizes = {(int(w), int(h)) for w, h in np.exp(rng.uniform(np.log(20), np.log(1200), (6000, 2)))}
    sizes |= {(64 * a, 64 * b) for a in range(1, 9) for b in range(1, 9)} | {(a, a) for a in range(40, 300)}
    processor = PVCImageProcessor(size={"height": TILE, "width": TILE}, max_patches=4)
    for width, height in sorted(sizes):
        columns, rows = compute_tile_grid(width, height)
        assert (columns, rows) == get_optimal_tiled_canvas((height, width), (TILE, TILE), 1, 4)
        tiles = columns * rows
        assert processor.get_number_of_image_patches(height, width) == tiles + (tiles > 1)


@pytest.mark.parametrize("task", [task for task in PAGES if task not in ("figures", "tally", "motion", "outside")])
def test_characters_have_the_minimum_width_and_height(task: str) -> None:
    count = 0
    for canvas in iter_canvases(task, 120):
        across, down = get_tile_scales(canvas)
        for words in filter_items(canvas.items, Words):
            letters = words.text.replace(" ", "")
            assert get_advance(words.face, letters) * words.size * across / len(letters) >= 4.97
            assert get_cap_height(words.face) * words.size * down >= 5.55
            count += 1
    assert count > 100


def _canvas_of_tiles(processor: PVCImageProcessor, picture: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return the tiles of a picture side by side, in grey levels, without the thumbnail."""
    batch = processor(picture, return_tensors="np")
    columns, rows = grid
    tiles = batch["pixel_values"][: columns * rows]
    assert len(batch["pixel_values"]) == columns * rows + (columns * rows > 1)
    whole = tiles.reshape(rows, columns, 3, TILE, TILE).transpose(0, 3, 1, 4, 2).reshape(rows * TILE, columns * TILE, 3)
    return whole * np.array(processor.image_std) * 255 + np.array(processor.image_mean) * 255


@pytest.mark.parametrize("task", ["sign", "lines", "screen"])
def test_texts_have_this_width_in_the_tiles_that_the_model_gets(task: str) -> None:
    """Render a page with and without a line and process both with the image processor; they differ where its ink is."""
    processor = PVCImageProcessor(size={"height": TILE, "width": TILE}, max_patches=4)
    narrowest = math.inf
    for canvas in iter_canvases(task, 25):
        words = filter_items(canvas.items, Words)[-1]
        behind = tuple(item for item in canvas.items if not isinstance(item, Words))
        with_text, without = (
            _canvas_of_tiles(
                processor,
                render(dataclasses.replace(canvas, items=items, finish=Finish())),
                compute_tile_grid(canvas.width, canvas.height),
            )
            for items in ((*behind, words), behind)
        )
        columns = np.flatnonzero((np.abs(with_text - without).max(-1) > 25).any(0))
        x0, _, x1, _ = get_ink_box(words)
        across, _ = get_tile_scales(canvas)
        measured = columns[-1] + 1 - columns[0]
        expected = (min(x1, canvas.width) - max(0, x0)) * across
        assert abs(measured - expected) < 2.5 + 0.03 * expected
        narrowest = min(narrowest, measured / len(words.text))
        # Contrast survives resizing: the darkest or lightest part of the strokes stands out.
        assert np.abs(with_text - without).max() > 45
    assert narrowest > 3.5  # a small "i" or "1" has less ink than its place is wide


@pytest.mark.parametrize("task", PAGES)
def test_items_stay_on_the_page(task: str) -> None:
    for canvas in iter_canvases(task, 150):
        for words in filter_items(canvas.items, Words):
            x0, y0, x1, y1 = get_ink_box(words)
            slack = 0.06 * words.size  # the tip of an f or of a slanted letter
            assert min(x0, y0) > -slack and x1 < canvas.width + slack and y1 < canvas.height + slack, words.text
        for box in filter_items(canvas.items, Box):
            slack = 0.03 * canvas.width  # the lines of a table may cross the edge
            assert min(box.x0, box.y0) > -0.6 and box.x1 < canvas.width + slack and box.y1 < canvas.height + 0.6
        if task != "outside":
            for shape in filter_items(canvas.items, Shape):
                assert shape.w / 2 - 1 < shape.x < canvas.width - shape.w / 2 + 1
                assert shape.h / 2 - 1 < shape.y < canvas.height - shape.h / 2 + 1


@pytest.mark.parametrize("task", [task for task in PAGES if task != "outside"])
def test_texts_and_shapes_do_not_touch(task: str) -> None:
    for canvas in iter_canvases(task, 150):
        words, shapes = filter_items(canvas.items, Words), filter_items(canvas.items, Shape)
        # Centre, and half of the extent in x and y.
        spots = [(s.x, s.y, s.w / 2, s.h / 2) for s in shapes]
        for w in words:
            x0, y0, x1, y1 = get_ink_box(w)
            spots.append(((x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2, (y1 - y0) / 2))
        for i, (x, y, w, h) in enumerate(spots):
            for x2, y2, w2, h2 in spots[:i]:
                over_x, over_y = w + w2 - abs(x - x2), h + h2 - abs(y - y2)
                touching = min(over_x / min(w, w2), over_y / min(h, h2))
                assert touching < 0.3, (task, canvas.width, canvas.height)
        for frame in [box for box in filter_items(canvas.items, Box) if box.fill is None]:
            for text in words:
                x0, y0, x1, y1 = get_ink_box(text)
                assert x0 > frame.x0 + frame.line - 1 and x1 < frame.x1 - frame.line + 1
                assert y0 > frame.y0 + frame.line - 1 and y1 < frame.y1 - frame.line + 1


def _grounds(canvas: Canvas, words: Words) -> list[tuple[int, int, int]]:
    """Return the colours behind the middle of a text."""
    x0, _, x1, _ = get_ink_box(words)
    x, y = (x0 + x1) / 2, words.y - get_cap_height(words.face) * words.size / 2
    boxes = [b for b in filter_items(canvas.items, Box) if b.fill and b.x0 <= x <= b.x1 and b.y0 <= y <= b.y1]
    if boxes:
        return [boxes[-1].fill]
    return [rgb for rgb in (canvas.backdrop.colour, canvas.backdrop.colour2) if rgb]


@pytest.mark.parametrize("task", [task for task in PAGES if task != "outside"])
def test_ink_contrasts_with_what_is_behind(task: str) -> None:
    for canvas in iter_canvases(task, 150):
        for words in filter_items(canvas.items, Words):
            levels = [compute_luminance(ground) for ground in _grounds(canvas, words)]
            assert min(abs(compute_luminance(words.rgb) - level) for level in levels) > 60, words.text
        for item in (
            *filter_items(canvas.items, Shape),
            *(b for b in filter_items(canvas.items, Box) if b.fill and not b.outline),
        ):
            rgb = item.rgb if isinstance(item, Shape) else item.fill
            if isinstance(item, Shape) or task in ("graph", "screen"):
                grounds = [ground for ground in (canvas.backdrop.colour, canvas.backdrop.colour2) if ground]
                assert min(math.dist(rgb, ground) for ground in grounds) > 40, (task, item)


@pytest.mark.parametrize("task", ["figures", "tally", "motion", "graph", "album"])
def test_shapes_and_bars_are_large_enough_and_of_a_named_colour(task: str) -> None:
    seen = set()
    for canvas in iter_canvases(task, 150):
        across, down = get_tile_scales(canvas)
        for shape in filter_items(canvas.items, Shape):
            assert shape.w * across > 6.9 and shape.h * down > 6.9
            nearest = sorted(math.dist(shape.rgb, rgb) for rgb in COLOURS.values())
            assert nearest[0] < 30 < nearest[1]
            seen.add((shape.name, pages_oracle.colour_of(shape.rgb)))
        if task == "graph":
            for bar in pages_oracle.Page(canvas.description()).filled():
                assert (bar["x1"] - bar["x0"]) * across > 1.8 and (bar["y1"] - bar["y0"]) * down > 1.8
    assert task == "graph" or len(seen) == len(SHAPES) * len(COLOURS)


# Pixels


def _lit(frames: np.ndarray, x: float, y: float) -> list[bool]:
    """Return for every frame whether the middle of a shape is visible, from pixels alone."""
    middle = frames[:, round(y) - 1 : round(y) + 2, round(x) - 1 : round(x) + 2].astype(float).mean((1, 2))
    ground = np.median(frames.reshape(len(frames), -1, 3), axis=1)
    return [bool(far) for far in np.abs(middle - ground).max(-1) > 40]


def test_flashes_can_be_counted_in_the_pixels() -> None:
    counts = Counter[str]()
    for seed in range(160):
        sample = make("motion", seed, frames=12)
        if "flash" not in sample.question:
            continue
        scene = build("motion", seed, "train", 12).scene
        assert isinstance(scene, Reel)
        (shape,) = {item for frame in scene.frames for item in frame.items}
        assert isinstance(shape, Shape)
        lit = _lit(sample.frames, *(v * sample.frames.shape[1] / 96 for v in (shape.x, shape.y)))
        assert str(sum(b and not a for a, b in zip([False, *lit], lit, strict=False))) == sample.answer
        counts[sample.answer] += 1
    assert set(counts) >= set("12345"[:4]) and sum(counts.values()) > 8


def test_directions_can_be_seen_in_the_pixels() -> None:
    ways = Counter[str]()
    for seed in range(120):
        sample = make("motion", seed, frames=8)
        scene = build("motion", seed, "train", 8).scene
        assert isinstance(scene, Reel)
        if sample.answer not in ("left", "right", "up", "down") or len(scene.frames[0].items) != 1:
            continue
        places = []
        for frame in (sample.frames[0], sample.frames[-1]):
            ground = np.median(frame.reshape(-1, 3), axis=0)
            rows, columns = np.nonzero(np.abs(frame - ground).max(-1) > 70)
            places.append((columns.mean(), rows.mean()))
        (x0, y0), (x1, y1) = places
        across = abs(x1 - x0) > abs(y1 - y0)
        assert sample.answer == (("left", "right")[int(x1 > x0)] if across else ("up", "down")[int(y1 > y0)])
        ways[sample.answer] += 1
    assert len(ways) == 4


# Conversations


@pytest.mark.parametrize("task", PAGES)
def test_messages_alternate_and_show_each_medium_once(task: str) -> None:
    turns_with_media = 0
    for seed in range(25):
        sample = make(task, seed)
        messages = messages_of(sample)
        assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert len(messages) == 2 * (1 + len(sample.more) + len(sample.turns))
        contents = [message["content"] for message in messages if not isinstance(message["content"], str)]
        parts = [part for content in contents for part in content]
        kinds = [part["type"] for part in parts if part["type"] != "text"]
        assert kinds == [medium.kind for medium in sample.all_media]
        assert messages[-1]["content"] == (
            sample.last_answer if sample.turns or not sample.more else sample.more[-1][1]
        )
        prompt = messages_of(sample, answers=False)
        assert prompt[-1]["role"] == "user" and len(prompt) == 1 + 2 * len(sample.turns)
        turns_with_media += any(turn.media for turn in sample.turns)
        assert (sample.kind == "video") == any(medium.kind == "video" for medium in sample.all_media)
        assert sample.all_media or sample.answer == NOTHING
    assert (turns_with_media > 3) == (task in ("album", "reels"))


def test_a_question_about_the_second_picture_is_answered_from_it() -> None:
    """The other picture would give another answer, and the question says which one it is about."""
    told_apart = 0
    for seed in range(300):
        sample = build("album", seed)
        scenes = [sample.scene, *sample.further, *(medium for turn in sample.turns for medium in turn.media)]
        pages = [reels_oracle.medium_of(scene) for scene in scenes]
        if len(pages) != 2:
            continue
        for question, answer in ((sample.question, sample.answer), *((t.question, t.answer) for t in sample.turns)):
            if not re.search(r"\bthe second (picture|image)\b", question) or len(sample.further) != 1:
                continue
            assert reels_oracle.answer_to(question, pages) == answer
            try:
                other = reels_oracle.answer_to(question, pages[::-1])
            except (AssertionError, KeyError, ValueError, IndexError):
                continue  # the first picture has no such thing
            told_apart += other != answer
    assert told_apart > 10


# Fonts


@pytest.mark.parametrize("face", FACES)
def test_every_face_has_the_characters_that_texts_use(face: str) -> None:
    characters = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,:-/%$#*?!")
    characters |= {">"} if face in MONOSPACED else set()
    loaded = load_font(face, 40)
    missing = loaded.getmask("\U0010fffd")
    masks = {c: loaded.getmask(c) for c in characters}
    for character, mask in masks.items():
        assert mask.getbbox(), f"{face} draws nothing for {character!r}"
        assert (mask.size, bytes(mask)) != (missing.size, bytes(missing)), f"{face} has no {character!r}"
    assert len({(mask.size, bytes(mask)) for mask in masks.values()}) >= len(characters) - 4
    assert 0.5 < get_cap_height(face) < 0.8 and 0.3 < get_advance(face, "a") < 0.8


def test_texts_use_no_other_characters() -> None:
    known = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,:-/%$#*?!> ")
    for task in PAGES:
        for canvas in iter_canvases(task, 150):
            for words in filter_items(canvas.items, Words):
                assert set(words.text) <= known
                assert ">" not in words.text or words.face in MONOSPACED
