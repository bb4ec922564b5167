"""The report of synthetic runs: its numbers are recomputed here, and missing runs are listed."""

import re
from dataclasses import replace
from statistics import mean, stdev

import pytest

from pvc.errors import ConfigError, UsageError
from pvc.lab.ablation.claims import CLAIMS, Claim, Contrast, judge
from pvc.lab.ablation.report import write_report
from pvc.lab.ablation.study_runs import StudyRuns
from tests.lab.ablation.made_up import STILLS, VIDEO, result, run, stills, subsets, video

T = {3: 4.30265, 4: 3.18245, 5: 2.77645}  # two-sided 95 %, by number of values


def claim(letter):
    return next(c for c in CLAIMS if c.letter == letter)


def accuracy(records, arm, task=None):
    """Characters right by seed at the last entry of a run (these made-up runs list it last)."""
    of = {}
    for record in records:
        if record.arm == arm:
            rows = [row for row in record.results if task in (None, row.task)]
            row = rows[-1]
            of[record.seed] = row.characters_right / row.characters
    return of


def by_hand(differences):
    half = T[len(differences)] * stdev(differences) / len(differences) ** 0.5
    centre = mean(differences)
    return f"{centre * 100:+.1f} ({(centre - half) * 100:+.1f} to {(centre + half) * 100:+.1f})"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A report with one run missing, one of another commit, and its text."""
    records = [r for r in stills() if (r.arm, r.seed) != ("D", 3)]
    records = [r.model_copy(update={"commit": "fed-dirty"}) if (r.arm, r.seed) == ("A", 1) else r for r in records]
    records += video()
    path = write_report([STILLS, VIDEO], records, tmp_path_factory.mktemp("report"), remarks={"d": "Looked at why."})
    return records, path, path.read_text(encoding="utf-8")


def test_paired_differences_are_over_common_seeds(written):
    records, _, text = written
    left, right = accuracy(records[:29], "D"), accuracy(records[:29], "A")
    seeds = sorted(set(left) & set(right))
    assert seeds == [0, 1, 2, 4]
    numbers = by_hand([left[s] - right[s] for s in seeds])
    assert f"| stills: D - A | {numbers} | 4 | no loss | supported |" in text
    assert "A has seed 3 alone, not used" in text
    assert "seed 1: the two runs are of different commits" in text


def test_video_is_judged_on_the_mean_over_tasks_and_shown_per_task(written):
    records, _, text = written
    runs = {(r.arm, r.seed): r for r in records if r.study == "video"}

    def score(arm, seed, task):
        row = next(row for row in runs[arm, seed].results if row.task == task)
        return row.characters_right / row.characters if task == "pieces" else row.right / row.count

    each = {t: [score("D", s, t) - score("B", s, t) for s in (0, 1, 2)] for t in VIDEO.tasks}
    means = [mean(each[t][s] for t in VIDEO.tasks) for s in (0, 1, 2)]
    assert f"| video: D - B, mean over tasks | {by_hand(means)} | 3 | gain |" in text
    for task, differences in each.items():
        assert f"| - {task} | {by_hand(differences)} | 3 | gain |" in text


def test_arm_values_have_every_seed_and_an_interval(written):
    records, _, text = written
    values = list(accuracy(records[:29], "B").values())
    half = T[5] * stdev(values) / 5**0.5
    low, high = (f"{(mean(values) + side * half) * 100:.1f}" for side in (-1, 1))
    shown = " ".join(f"{value * 100:.1f}" for value in values)
    assert f"| B | {mean(values) * 100:.1f} ({low} to {high}) |" in text
    assert f"| {shown} |" in text
    assert re.search(r"\| D \|.* \d+\.\d \d+\.\d \d+\.\d · \d+\.\d \|", text)


def test_what_is_missing_is_listed(written):
    _, _, text = written
    missing = text[text.index("## What is missing") :]
    assert "| stills | D | 3 | not run |" in missing
    assert "| video | F | 0, 1, 2, 3, 4 | not run |" in missing
    assert "**41 of 55 planned runs are finished**" in text
    assert re.search(r"\| F \| temporal attention only \| 8 \| not run", text)
    assert "| video: D - F, mean over tasks | - | 0 | gain | undecided (0 seeds) |" in text
    assert "F is not run" in text


def test_words_that_must_be_there(written):
    _, path, text = written
    assert "identical by construction" in text and "| F † |" in text
    assert "**commit differs between runs**" in text and "`fed-dirty`: stills A seed 1" in text
    assert "Looked at why." in text
    assert "a partition: each step adds about the same" in text
    assert "not supported if it ends below +0.5 point" in text
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        assert (path.parent / picture).read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in path.parent.glob("*.png")} == set(re.findall(r"\(([^)]+\.png)\)", text))


def test_subsets_are_averaged_over_seeds(written):
    records, _, text = written
    each = [r for r in records if (r.study, r.arm) == ("stills", "D")]
    whole = [next(s for s in r.subsets if len(s.kept) == 4) for r in each]
    first = [next(s for s in r.subsets if s.kept == (0,)) for r in each]
    gain = mean((w.characters_right - f.characters_right) / w.characters for w, f in zip(whole, first, strict=True))
    assert f"| stills: D, all steps - the first | {gain * 100:+.1f} (" in text
    assert text.count("| 1 2 3 4 |") == 2  # D and G


def test_the_same_records_give_the_same_report(tmp_path):
    records = video()
    one = write_report([VIDEO], records, tmp_path / "1").read_text()
    two = write_report([VIDEO], records[::-1], tmp_path / "2").read_text()
    assert one == two
    assert str(tmp_path) not in one


def test_no_run_at_all_says_so_and_old_plots_go(tmp_path):
    write_report([VIDEO], video(), tmp_path)
    assert (tmp_path / "claims.png").exists()
    text = write_report([STILLS, VIDEO], [], tmp_path).read_text()
    assert "**No run is finished yet** (0 of 55 planned)" in text
    assert not list(tmp_path.glob("*.png")) and ".png" not in text
    assert "**supported**" not in text and "**not supported**" not in text


def judged(letter, records, study=STILLS):
    return judge(claim(letter), {study.study: StudyRuns(study, records)})


def flat(arm, shares, steps, level=3):
    return [run("stills", arm, seed, [result("rows", share, steps, level)]) for seed, share in enumerate(shares)]


@pytest.mark.parametrize("share", [0.99, 0.03])
def test_ceiling_and_floor_decide_nothing(share):
    judgement = judged("a", flat("D", [share] * 5, 4) + flat("A", [share] * 5, 1))
    assert judgement.outcome == "undecided"
    expected = "at the ceiling: this density cannot tell them apart" if share > 0.5 else "at the floor"
    assert expected in judgement.findings[0].verdict.text
    assert judgement.findings[0].verdict.estimate.mean == 0


def test_a_ceiling_that_another_arm_misses_tells_them_apart():
    near = flat("D", [0.995] * 5, 4) + flat("A", [0.999] * 5, 1)
    judgement = judged("a", near + flat("B", [0.7] * 5, 1))
    assert judgement.outcome == "supported"
    assert any("B is not: this density does tell arms apart" in note for note in judgement.findings[0].notes)
    assert judged("a", near + flat("B", [0.96] * 5, 1)).outcome == "undecided"


def test_a_loss_is_not_hidden():
    records = flat("D", [0.80, 0.81, 0.79], 4) + flat("A", [0.90, 0.90, 0.91], 1)
    assert judged("a", records).outcome == "not supported"


def test_two_seeds_show_numbers_without_a_verdict(tmp_path):
    records = flat("D", [0.80, 0.81], 4) + flat("A", [0.90, 0.90], 1)
    text = write_report([STILLS], records, tmp_path).read_text()
    assert "undecided (2 seeds)" in text and "no conclusion (2 seeds)" in text
    single = write_report([STILLS], flat("D", [0.80], 4), tmp_path).read_text()
    assert "80.0 (78.2 to 81.7)¹" in single  # Wilson, 1600 of 2000


def test_levels_that_only_one_arm_has_do_not_count():
    easy = result("rows", 1.0, 4, level=1)
    left = [run("stills", "D", s, [easy, result("rows", 0.8, 4)]) for s in range(3)]
    judgement = judged("a", left + flat("A", [0.8] * 3, 1)).findings[0]
    assert (judgement.left, judgement.right) == pytest.approx((0.8, 0.8))
    assert "different levels" in judgement.notes[0]


def test_a_run_without_a_task_is_named_and_left_out(tmp_path):
    records = video()
    short = records[0].model_copy(update={"results": records[0].results[:2]})
    text = write_report([VIDEO], [short, *records[1:]], tmp_path).read_text()
    assert "| video | B | 0 | no result at 8 frames for pieces |" in text
    assert "B seed 0 has no result for pieces, not used" in text


def test_incomplete_subsets_are_named(tmp_path):
    some = subsets(lambda kept: 0.2 * len(kept))[:-1]
    records = [run("stills", "D", 0, [result("rows", 0.8, 4)], subsets=some)]
    text = write_report([STILLS], records, tmp_path).read_text()
    assert "D seed 0, rows: 14 subsets of steps [0, 1, 2, 3]; all 15 are needed" in text


def test_doubles_unplanned_runs_and_wrong_arguments(tmp_path):
    records = flat("A", [0.9], 1)
    with pytest.raises(ConfigError, match="two runs of study 'stills', arm 'A', seed 0"):
        write_report([STILLS], records * 2, tmp_path)
    with pytest.raises(ConfigError, match="two studies"):
        write_report([STILLS, STILLS], records, tmp_path)
    with pytest.raises(ConfigError, match="remarks on claims that are not made: z"):
        write_report([STILLS], records, tmp_path, remarks={"z": "?"})
    with pytest.raises(UsageError, match="at least one study"):
        write_report([], records, tmp_path)
    text = write_report([STILLS], [*records, *flat("X", [0.5], 1), *video()[:1]], tmp_path).read_text()
    assert "used nowhere: `stills-X-0.json`, `video-B-0.json`" in text


def test_a_claim_is_a_row_of_data():
    own = Claim("x", "Two steps beat plain 1/4.", (Contrast("stills", "D", "B", "better", "early stop", left_steps=2),))
    records = [run("stills", "D", s, [result("rows", 0.9, 4), result("rows", 0.7, 2)]) for s in range(3)]
    judgement = judge(own, {"stills": StudyRuns(STILLS, records + flat("B", [0.6] * 3, 1))})
    assert judgement.outcome == "supported"
    assert judgement.findings[0].verdict.estimate.mean == pytest.approx(0.1)


def test_claims_on_a_study_the_plan_lacks_are_undecided():
    judgement = judge(claim("c"), {"stills": StudyRuns(STILLS, [])})
    assert judgement.outcome == "undecided" and "not in this plan" in judgement.findings[0].verdict.text
    smaller = replace(STILLS, arms={"D": "PVC"}, default_steps={"D": 4})
    assert judge(claim("a"), {"stills": StudyRuns(smaller, [])}).findings[0].verdict.reason == "not in this plan"
