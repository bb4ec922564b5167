"""Held-out strings, fonts, colour pairs, hues of text and layouts are never in training samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pvc.lab.synthetic import TASKS, make, palette
from pvc.lab.synthetic.fonts import FAMILIES, HELD_OUT, get_families
from pvc.lab.synthetic.scene import LEVELS
from pvc.lab.synthetic.seeding import SPLITS, Rng, Split, is_text_allowed
from pvc.lab.synthetic.vocabulary import COLOUR_NAMES, SHAPES
from tests.lab.synthetic.kinds import HELD_OUT_SPLITS, SCENES

Scene = dict[str, Any]
PICTURES = [name for name in SCENES if TASKS[name].kind == "image"]
SEEDS = 12


def _points(scene: Scene, items: str) -> list[tuple[float, float]]:
    return [tuple(item["track"][0]) for item in scene[items]]


def _fits(scene: Scene, split: Split, items: str, *parts: object) -> bool:
    return palette.is_arrangement_allowed(split, _points(scene, items), *parts)


# Whether a scene's layout belongs to a split, by task.
LAYOUTS: dict[str, Callable[[Scene, Split], bool]] = {
    "read": lambda scene, split: _fits(scene, split, "texts", len(scene["texts"][0]["text"])),
    "page": lambda scene, split: _fits(scene, split, "texts"),
    "locate": lambda scene, split: _fits(scene, split, "texts"),
    "shape": lambda scene, split: _fits(scene, split, "figures"),
    "count": lambda scene, split: _fits(scene, split, "figures"),
    "place": lambda scene, split: _fits(scene, split, "figures"),
    "describe": lambda scene, split: _fits(scene, split, "figures"),
    "compare": lambda scene, split: (
        _fits(scene, split, "figures")
        if scene["figures"]
        else _fits(scene, split, "texts", len(scene["texts"][0]["text"]))
    ),
}


def _scenes(task: str, split: Split) -> list[Scene]:
    samples = [
        make(task, seed, split=split, level=level).description
        for level in range(1, LEVELS + 1)
        for seed in range(SEEDS)
    ]
    return [scene for sample in samples for scene in (sample, *sample.get("further", ()))]


@pytest.mark.parametrize("task", PICTURES)
@pytest.mark.parametrize("split", ["train", *HELD_OUT_SPLITS])
def test_held_out_things_stay_held_out(task: str, split: Split) -> None:
    for scene in _scenes(task, split):
        fonts = {text["font"] for text in scene["texts"]}
        assert fonts <= set(get_families(split)) and not (split != "fonts" and fonts & set(HELD_OUT))
        pairs = [palette.get_colour_pair_split(f["shape"], f["colour"]) for f in scene["figures"]]
        assert split == "colours" or "colours" not in pairs
        if split == "colours" and pairs:
            assert "colours" in pairs
        grounds = {plate["rgb"] and tuple(plate["rgb"]) for plate in scene["plates"] if plate["w"] > 2 < plate["h"]}
        if task != "chart" and not grounds - {None}:
            ground = scene["backdrop"]
            for text in scene["texts"]:
                hues = palette.get_hue_pair_split(tuple(text["rgb"]), tuple(ground["colour"]))
                assert (hues == "colours") == (split == "colours")
        if task in LAYOUTS:
            assert LAYOUTS[task](scene, split)


@pytest.mark.parametrize("task", ["read", "page", "rows", "locate", "compare"])
def test_strings_are_in_one_split_only(task: str) -> None:
    for split in SPLITS:
        for scene in _scenes(task, split):
            assert all(is_text_allowed(word, split) for text in scene["texts"] for word in text["text"].split())


def test_facts_are_in_one_split_only() -> None:
    """The facts of a receipt, a chart or a needle belong to one split, as texts do."""
    for split in SPLITS:
        for scene in _scenes("receipt", split):
            assert all(is_text_allowed(f"{name} {price}", split) for name, price in scene["asked"]["items"])
        for scene in _scenes("needle", split):
            facts = scene["asked"]
            assert is_text_allowed(facts["base"] + facts["odd"], split)
            characters = sorted((len(t["text"]) for t in scene["texts"]), reverse=True)
            place = ("grid", len(characters), characters[0], facts["row"] - 1, facts["column"] - 1)
            assert palette.is_layout_allowed(split, *place)
        for scene in _scenes("chart", split):
            pairs = zip(scene["asked"]["names"], scene["asked"]["values"], strict=True)
            assert is_text_allowed(" ".join(f"{name}{value}" for name, value in pairs), split)


def test_only_train_all_shows_held_out_pairs_and_layouts_in_training() -> None:
    """Its strings and fonts are still those of "train"."""
    seen: dict[str, set[str]] = {"train": set(), "train_all": set()}
    splits = ("train", "train_all")
    for split in splits:
        for task in ("shape", "place", "count"):
            for scene in _scenes(task, split):
                seen[split] |= {palette.get_colour_pair_split(f["shape"], f["colour"]) for f in scene["figures"]}
                seen[split].add("layouts" if _fits(scene, "layouts", "figures") else "usual")
        for scene in _scenes("read", split):
            assert is_text_allowed(scene["texts"][0]["text"], "train") and not is_text_allowed(
                scene["texts"][0]["text"], "test"
            )
            assert not {text["font"] for text in scene["texts"]} & set(HELD_OUT)
            (text,), ground = scene["texts"], scene["backdrop"]["colour"]
            if not scene["plates"]:
                seen[split].add(f"hue {palette.get_hue_pair_split(tuple(text['rgb']), tuple(ground))}")
    assert seen["train"] == {"train", "usual", "hue train"}
    assert seen["train_all"] == {"train", "usual", "hue train", "colours", "layouts", "hue colours"}


def test_held_out_parts_are_small() -> None:
    held_out = [(s, c) for s in SHAPES for c in COLOUR_NAMES if palette.get_colour_pair_split(s, c) == "colours"]
    assert len(held_out) == 6 and {s for s, _ in held_out} == set(SHAPES)
    assert len(HELD_OUT) == 5 and set(get_families("train")) | set(HELD_OUT) == set(FAMILIES)
    share = sum(palette.get_layout_split("x", i) == "layouts" for i in range(4000)) / 4000
    assert 0.1 < share < 0.15


@pytest.mark.parametrize("split", SPLITS)
def test_pairs_are_of_the_split_and_all_different(split: Split) -> None:
    for seed in range(40):
        pairs = palette.sample_pairs(Rng(split, "pairs", seed), split, 5)
        assert all(palette.is_pair_allowed(*pair, split) for pair in pairs)
        assert len({s for s, _ in pairs}) == len({c for _, c in pairs}) == 5


@pytest.mark.parametrize("split", ["train", "colours"])
def test_text_contrasts_with_its_ground_whatever_the_hues(split: Split) -> None:
    for seed in range(400):
        rng = Rng(split, "contrast", seed)
        grounds = palette.get_colours(palette.sample_backdrop(rng))
        rgb = palette.sample_contrasting(rng, *grounds, split=split)
        assert min(abs(palette.compute_luminance(rgb) - palette.compute_luminance(ground)) for ground in grounds) > 70
        assert (palette.get_hue_pair_split(rgb, grounds[0]) == "colours") == (split == "colours")
