"""The suite of ordinary questions: the rules for answers, its digest, and runs of it."""

import ast
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:  # `benchmarks` is not an installed package
    sys.path.insert(0, str(ROOT))

from benchmarks.nano_suite import __main__, fonts, matching, pairs, report, run, suite, width  # noqa: E402
from benchmarks.nano_suite.canvas import Canvas, character_width_after_tiling, find_grid  # noqa: E402
from benchmarks.nano_suite.sheets import write_sheets  # noqa: E402

from pvc.errors import MissingExtraError, UsageError  # noqa: E402

FOLDER = ROOT / "benchmarks" / "nano_suite"
DIGEST = "31978cf875e1e10f2fbebead5a0a6eb802a623247ab138582f577bb752772162"


@pytest.fixture(scope="module")
def items():
    """Build all items of the suite."""
    return suite.build_suite()


@pytest.mark.parametrize(
    ("rule", "expected", "answer"),
    [
        ("text", "HARBOR", "harbor"),
        ("text", "Harbor", "It says “Harbor”."),
        ("text", "Harbor", 'The text is: "HARBOR"'),
        ("text", "Open daily\nKeep left", "Open daily, keep left"),
        ("text", "Save file?", "Save file"),
        ("text", "It", "it"),
        ("sequence", "4 7 1", "4, 7, 1."),
        ("sequence", "SUNSET", "sun set"),
        ("number", "4.50", "It costs $4.50."),
        ("number", "€4.50", "4,50"),
        ("number", "35%", "35 percent"),
        ("number", "3", "There are three stars."),
        ("number", "2", "twice"),
        ("number", "10:45", "It is 10:45."),
        ("colour", "purple", "The circle is violet."),
        ("shape", "cross", "A plus."),
        ("shape", "circle", "a red circle"),
        ("place", "center", "in the middle"),
        ("place", "top left", "The star is in the upper-left corner."),
        ("place", "top", "top centre"),
        ("relation", "below", "It is underneath the circle."),
        ("direction", "up", "upwards"),
        ("growth", "grow", "It gets bigger."),
        ("yes_no", "no", "No, it is not."),
        ("describe", "A red circle and a blue star.", "There is a blue star. There is a red circle."),
        ("describe", "A gray cross.", "a grey plus"),
        ("describe_text", "HARBOR", 'A sign with the word "Harbor".'),
        ("nothing", "Nothing is shown.", "Nothing."),
        ("only_know", "I only know drawings and screens.", "Sorry, I only know drawings."),
    ],
)
def test_answers_that_count(rule, expected, answer):
    assert matching.lenient(rule, expected, answer)


@pytest.mark.parametrize(
    ("rule", "expected", "answer"),
    [
        ("text", "HARBOR", "HARBOUR"),
        ("text", "Harbor", "Harbor Hotel"),
        ("text", "four", "4"),
        ("text", "Open daily\nKeep left", "Open daily"),
        ("sequence", "4 7 1", "4 7"),
        ("sequence", "4 7 1", "1 7 4"),
        ("number", "3", "3 or 4"),
        ("number", "4.50", "450"),
        ("number", "3", "There are not 3."),
        ("number", "3", "13"),
        ("number", "3", ""),
        ("colour", "red", "red, green, blue, yellow"),
        ("colour", "red", "not red"),
        ("colour", "red", "reddish"),
        ("shape", "circle", "a circle or a square"),
        ("place", "top left", "top"),
        ("place", "top", "top left"),
        ("place", "center", "left"),
        ("place", "left", "left or right"),
        ("relation", "left", "left or right"),
        ("direction", "up", "up and down"),
        ("growth", "grow", "It grows or shrinks."),
        ("yes_no", "no", "yes"),
        ("yes_no", "yes", "yes or no"),
        ("describe", "A red circle and a blue star.", "A red circle."),
        ("describe", "A red circle and a blue star.", "A blue circle and a red star."),
        ("describe", "A red circle.", "A red circle and a blue star."),
        ("describe", "A red circle.", "A circle."),
        ("describe_text", "HARBOR", "Harbor hotel"),
        ("nothing", "Nothing is shown.", "I only know drawings and screens."),
        ("only_know", "I only know drawings and screens.", "Nothing is shown."),
        ("colour", "red", "red " * 40),
    ],
)
def test_answers_that_do_not_count(rule, expected, answer):
    assert not matching.lenient(rule, expected, answer)


@pytest.mark.parametrize(
    ("answer", "counts"),
    [
        ("Save", True),
        ("the save button", True),
        ("Save and Cancel", False),
        ("Cancel", False),
        ("Save file", False),
        ("not Save", False),
    ],
)
def test_choice_accepts_one_candidate_only(answer, counts):
    assert matching.lenient("choice", "Save", answer, ("Cancel", "Save file", "notes.txt")) is counts


def test_a_part_of_the_expected_answer_is_no_other_candidate():
    assert matching.lenient("choice", "Save file", "save file", ("Save", "Cancel"))
    assert not matching.lenient("choice", "Save file", "Save file or save", ("Save", "Cancel"))


def test_exact_ignores_only_the_space_around():
    assert matching.exact("Harbor", " Harbor\n") and not matching.exact("Harbor", "harbor")


def test_the_suite_is_the_same_everywhere(items):
    assert suite.digest(items) == DIGEST


def test_there_are_enough_questions(items):
    counts = [sum(item.kind == kind for item in items) for kind in suite.BUILDERS]
    assert len(counts) == 13 and min(counts) >= 44 and len(items) >= 570


def test_every_expected_answer_counts_and_no_other_candidate_does(items):
    for item in items:
        for question in (turn.question for turn in item.turns):
            assert matching.exact(question.expected, question.expected)
            assert matching.lenient(question.rule, question.expected, question.expected, question.others), question
            for other in question.others:
                assert not matching.lenient(question.rule, question.expected, other, question.others), question


def test_no_constant_answer_is_often_right(items):
    """A model that always returns the most common answer of a kind must have a low accuracy."""
    for kind in suite.BUILDERS:
        last = [item.turns[-1].question for item in items if item.kind == kind]
        best = max(
            sum(matching.lenient(q.rule, q.expected, answer, q.others) for q in last)
            for answer in {question.expected for question in last}
        )
        assert best / len(last) < (0.7 if kind == "outside" else 0.25), kind


def test_media_fit_their_pictures_and_are_legible(items):
    for item in items[::3]:
        for medium in (medium for turn in item.turns for medium in turn.media):
            frames = medium.render()
            sizes = {frame.finish().size for frame in frames}
            assert len(sizes) == 1
            assert len(frames) == 1 if medium.kind == "image" else 6 <= len(frames) <= 16
            shorter, longer = sorted(sizes.pop())
            assert 200 <= shorter <= longer <= 800 and longer <= 4 * shorter
            assert min(frame.narrowest for frame in frames) >= 6, (item.kind, item.number)
            assert not any(frame.outside for frame in frames), (item.kind, item.number)


def test_rendering_is_repeatable(items):
    for item in items[::60]:
        for medium in (medium for turn in item.turns for medium in turn.media):
            first, second = medium.render(), medium.render()
            assert [frame.finish().tobytes() for frame in first] == [frame.finish().tobytes() for frame in second]


def test_states_of_long_clips_last_two_frames():
    """PVC samples 8 frames of a clip, so a state of one frame might be missed in a longer clip."""
    from random import Random

    from benchmarks.nano_suite.clips import hold_states

    for states in range(2, 9):
        for seed in range(20):
            frames = hold_states(Random(seed), states)
            assert 6 <= len(frames) <= 16
            assert len(frames) <= 8 or min(frames.count(state) for state in range(states)) >= 2


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((512, 512), (2, 2)),
        ((640, 480), (2, 2)),
        ((800, 400), (2, 1)),
        ((780, 260), (3, 1)),
        ((800, 200), (4, 1)),
        ((300, 600), (1, 2)),
        ((200, 800), (1, 4)),
        ((60, 60), (1, 1)),
    ],
)
def test_the_grid_is_the_one_the_processor_cuts(size, grid):
    """Tile a horizontal ramp: the number of distinct left edges is the number of columns."""
    import numpy as np
    from benchmarks.nano_suite.canvas import bundled_processor

    processor = bundled_processor()
    assert find_grid(*size) == grid
    ramp = np.tile(np.linspace(0, 255, size[0]).astype(np.uint8)[None, :, None], (size[1], 1, 3))
    tiles = processor(ramp, return_tensors="np")["pixel_values"]
    tiles = tiles[:-1] if len(tiles) > 1 else tiles
    assert len(tiles) == grid[0] * grid[1]
    starts = tiles[:, 0, :, 0].mean(axis=1).round(2)
    assert len(set(starts)) == grid[0]


def test_character_width_after_tiling():
    assert character_width_after_tiling(40, 800, 200) == pytest.approx(40 * 256 / 800)
    assert character_width_after_tiling(40, 512, 512) == pytest.approx(10)


def test_width_items_have_the_width_they_state():
    for ratio in width.RATIOS:
        for pixels in width.WIDTHS:
            item = width.width_item(ratio, pixels, 0)
            canvas = item.turns[0].media[0].render()[0]
            assert canvas.narrowest == pytest.approx(pixels, rel=0.05) and not canvas.outside


def test_text_beyond_the_edge_is_noticed():
    canvas = Canvas((256, 256))
    canvas.text("considerable", 128, 128, 90, (0, 0, 0), ("manrope", "bold"))
    assert canvas.outside == ["considerable"]


def test_pairs_are_of_different_kinds():
    built = pairs.build_pairs()
    used = [(item.kind, item.number) for pair in built for item in pair]
    assert len(built) == 40 and len(set(used)) == 80
    assert all(first.kind != second.kind for first, second in built)


def test_a_missing_font_names_the_package(monkeypatch):
    monkeypatch.setitem(fonts._FAMILIES, "none", ("font-none", "font_none_xyz", "files", "None", "Bold", ""))
    with pytest.raises(MissingExtraError, match="font-none is not installed.*pip install font-hanken-grotesk"):
        fonts.font_path("none")


def test_nothing_is_shared_with_the_training_data():
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in getattr(node, "names", [])] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith(("pvc.lab.synthetic", "pvc.train", "pvc.lab.ablation")) for name in names)


def test_house_rules():
    for path in FOLDER.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 450 and ast.get_docstring(ast.parse(text))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, node.name


def test_contact_sheets(tmp_path):
    written = write_sheets(suite.build_suite(["clip_text", "outside"], 2), tmp_path / "sheets")
    assert [path.name for path in written] == ["clip_text.png", "outside.png"]


def test_a_model_is_measured(checkpoint, tmp_path, capsys):
    target = tmp_path / "results.json"
    arguments = ["--model", str(checkpoint), "--kind", "word", "--kind", "conversation", "--limit", "2"]
    assert __main__.main([*arguments, "--json", str(target)]) == 0
    assert "| conversation: both questions | 2 |" in capsys.readouterr().out
    content = json.loads(target.read_text(encoding="utf-8"))
    assert content["table"]["total"]["count"] == 4 and len(content["items"][-1]["replies"]) == 2
    assert str(tmp_path) not in target.read_text(encoding="utf-8") and content["model"] == checkpoint.name


def test_width_and_pairs_are_measured(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(width, "RATIOS", {"4:1": (800, 200), "1:4": (200, 800)})
    picture = tmp_path / "curve.png"
    assert __main__.main(["--model", str(checkpoint), "--width", "--limit", "1", "--png", str(picture)]) == 0
    assert "| 1:4 |" in capsys.readouterr().out and picture.stat().st_size > 0
    assert __main__.main(["--model", str(checkpoint), "--pairs", "--limit", "2"]) == 0
    assert "| second question after another medium | 2 |" in capsys.readouterr().out


def test_an_error_of_the_product_is_a_wrong_answer_and_reported():
    class Broken:
        def ask(self, *args, **kwargs):
            raise UsageError("no such thing")

    item = suite.build_suite(["word"], 1)[0]
    reply = run.ask(Broken(), item.turns[0].question, [], [])
    assert not reply.lenient and reply.error == "UsageError: no such thing"
    result = run.Result("word", 0, (reply,))
    assert report.failures([result]) == ["word 0: UsageError: no such thing"]
    assert report.rows([result])[0].lenient == 0
