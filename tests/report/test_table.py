"""The numbers of tables against pandas and scipy, from the files per item; what is best, and what captions say."""

from __future__ import annotations

import json
import math
import random
import re
import tracemalloc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from commands import plan_of
from made_up_grids import TRAINED, entry, give, item_rows, made_up, restored, score
from pretend import pretend_done, rescore

from cwdpo.jobs.plan import Plan
from cwdpo.metrics.captions import corpus_bleu
from cwdpo.report.content import Difference, Row, Table
from cwdpo.report.table import Wanted, tables
from cwdpo.statistics import bootstrap
from cwdpo.statistics.crossed import crossed_difference, crossed_interval
from cwdpo.statistics.power import detectable

SEEDS = range(5)

FILE = """
title: Beside SFT
grids: [small]
paper: {of: cwdpo, table: table1_main}
baseline: sft
columns:
  cider: {benchmark: captions, metric: cider, published: coco_cider}
  rouge_l: {benchmark: captions, metric: rouge_l, direction: lower, digits: 3, title: R, group: G}
rows:
  base: {stands_on: none, label: the base}
  sft: {stands_on: sft}
  dpo: {stands_on: sft}
  cw_dpo: {stands_on: sft_c}
groups: [sft]
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Five seeds, random values per item; a metric is their mean."""
    folder = tmp_path_factory.mktemp("grid")
    (folder / "beside.yaml").write_text(FILE)
    return made_up(folder, items=12)


@pytest.fixture
def plan(whole: Plan) -> Iterator[Plan]:
    with restored(whole):
        yield whole


def beside(plan: Plan, **wanted: Any) -> Table:
    """The table whose baseline is trained."""
    (found,) = tables(plan, wanted=Wanted((str(plan.store.home.parent / "beside.yaml"),), **wanted))
    return found


def automatic(plan: Plan, **wanted: Any) -> Table:
    """The table whose baseline is the base model."""
    (found,) = tables(plan, wanted=Wanted(**wanted))
    return found


def items(plan: Plan, cell: str) -> pd.DataFrame:
    """Values per item of a cell, without the code under test."""
    folder = score(plan, cell).artefact(plan.store).folder
    attempt = json.loads((folder / "DONE").read_text())["attempt"]
    return pd.read_parquet(folder / "attempts" / str(attempt) / "out" / "items.parquet").set_index("id")


def per_seed(plan: Plan, case: str, metric: str = "cider") -> list[float]:
    return per_seed_of(plan, case, SEEDS, metric)


def per_seed_of(plan: Plan, case: str, seeds: Iterable[int], metric: str = "cider") -> list[float]:
    return [100 * items(plan, f"{case}/{seed}")[metric].mean() for seed in seeds]


# ---- over seeds


@pytest.mark.parametrize("case", TRAINED)
@pytest.mark.parametrize("metric", ["cider", "rouge_l"])
def test_mean_spread_and_interval_over_seeds(whole: Plan, case: str, metric: str) -> None:
    values = pd.Series(per_seed(whole, case, metric))
    found = entry(automatic(whole), case, metric)
    assert found.mean == pytest.approx(values.mean())
    assert found.std == pytest.approx(values.std())
    low, high = scipy.stats.t.interval(0.95, 4, values.mean(), scipy.stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert [result.value for result in found.results] == pytest.approx(values.tolist())


def holm(p_values: Sequence[float]) -> list[float]:
    """As in the textbook: the smallest times m, the next one times m - 1 but not below, and so on."""
    order = np.argsort(p_values)
    found, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, p_values[place] * (len(p_values) - rank)))
        found[place] = highest
    return found


def differences(table: Table, column: str = "cider") -> dict[str, Difference]:
    return {row.key: found for row in table.rows if (found := row.entries[column].difference)}


def test_differences_to_a_model_without_seeds_are_one_sample_tests(whole: Plan) -> None:
    base = 100 * items(whole, "base/0").cider.mean()
    tests = {case: scipy.stats.ttest_1samp(per_seed(whole, case), base) for case in TRAINED}
    adjusted = dict(zip(TRAINED, holm([test.pvalue for test in tests.values()]), strict=True))
    found = differences(automatic(whole))
    assert found.keys() == set(TRAINED)
    for case, test in tests.items():
        one, ends = found[case], test.confidence_interval()
        assert one.value == pytest.approx(np.mean(per_seed(whole, case)) - base)
        assert (one.low, one.high) == pytest.approx((ends.low - base, ends.high - base))
        assert (one.p, one.adjusted) == pytest.approx((test.pvalue, adjusted[case]))
        assert (one.test, one.covers) == ("one-sample t over seeds", "new trainings on these items")


def test_differences_to_a_trained_row_are_paired_or_welchs(whole: Plan) -> None:
    sft = per_seed(whole, "sft")
    base = 100 * items(whole, "base/0").cider.mean()
    tests = {
        "dpo": scipy.stats.ttest_rel(per_seed(whole, "dpo"), sft),  # it stands on the very same Stage 1, seed by seed
        "cw_dpo": scipy.stats.ttest_ind(per_seed(whole, "cw_dpo"), sft, equal_var=False),
    }
    of_base = scipy.stats.ttest_1samp(sft, base)
    adjusted = holm([of_base.pvalue, *(test.pvalue for test in tests.values())])
    found = differences(beside(whole))
    assert list(found) == ["base", "dpo", "cw_dpo"]
    assert [one.adjusted for one in found.values()] == pytest.approx(adjusted)
    for case, test in tests.items():
        ends = test.confidence_interval()
        assert (found[case].low, found[case].high) == pytest.approx((ends.low, ends.high))
    assert found["dpo"].test == "paired t over seeds, which share Stage 1"
    assert found["cw_dpo"].test == "Welch's t over seeds"
    ends = of_base.confidence_interval()
    assert found["base"].value == pytest.approx(base - np.mean(sft))
    assert (found["base"].low, found["base"].high) == pytest.approx((base - ends.high, base - ends.low))


def test_a_seed_that_one_row_lacks_leaves_the_pairs_of_the_others(plan: Plan) -> None:
    (node,) = [node for node in plan.wired["dpo/3"].nodes() if node.stage.name == "score"]
    (node.artefact(plan.store).folder / "DONE").unlink()
    table = beside(plan)
    sft, dpo = per_seed(plan, "sft"), [*per_seed_of(plan, "dpo", (0, 1, 2)), math.nan, *per_seed_of(plan, "dpo", (4,))]
    test = scipy.stats.ttest_rel(*(np.delete(values, 3) for values in (dpo, sft)))
    found = differences(table)["dpo"]
    assert (found.test, found.p) == ("paired t over seeds, which share Stage 1", pytest.approx(test.pvalue))
    marks = next(row.marks for row in table.rows if row.key == "dpo")
    assert "the difference is over the 4 seeds that share their Stage 1 with the baseline's" in marks


def marks_of(table: Table, row: str) -> tuple[str, ...]:
    return next(one.marks for one in table.rows if one.key == row)


def test_one_finished_seed_of_a_base_that_samples_is_no_constant(tmp_path: Path) -> None:
    plan = made_up(tmp_path, seeds=3, benchmarks="[{name: captions, decoding: {strategy: sample}}]")
    for seed in (1, 2):
        (score(plan, f"base/{seed}").artefact(plan.store).folder / "DONE").unlink()
    for kind in ("seeds", "seeds+items"):
        found = differences(automatic(plan, interval=kind))
        assert {one.p for one in found.values()} == {None}
        assert {one.covers for one in found.values()} == {"these results alone"}


def test_two_seeds_say_nothing_over_seeds_and_items(tmp_path: Path) -> None:
    table = automatic(made_up(tmp_path, seeds=2), interval="seeds+items")
    for case in TRAINED:
        assert (entry(table, case).low, differences(table)[case].p) == (None, None)
        assert "no interval over seeds and items: that takes three seeds" in marks_of(table, case)


@pytest.mark.parametrize("kind", ["items", "seeds+items"])
def test_items_that_both_rows_lack_in_some_seed_are_said(plan: Plan, kind: str) -> None:
    """The means are over all that have a value, intervals and differences over those with one in every seed."""
    for case in ("sft", "dpo"):
        for seed in SEEDS:
            values = [0.1 * place + 0.01 * seed * place for place in range(11)]
            values += [None] if seed == 2 else [3.0]
            known = [value for value in values if value is not None]
            metrics = {"cider": sum(known) / len(known)}
            rescore(plan, score(plan, f"{case}/{seed}"), item_rows(values), metrics=metrics)
    table = beside(plan, interval=kind)
    what = ["the difference", "the interval"] if kind == "seeds+items" else ["the difference"]
    for one in what:
        assert f"{one} is over the 11 of 12 items that have a value in all results" in marks_of(table, "dpo")
    assert ("the interval is over the 11 of 12 items that have a value in all results" in marks_of(table, "sft")) == (
        kind == "seeds+items"
    )


def test_rows_over_other_items_or_rated_by_others_are_not_compared(plan: Plan) -> None:
    give(plan, {"base": [1.0], "sft": around(1.1), "dpo": around(3.0)[::-1], "cw_dpo": around(2.0)})
    assert entry(beside(plan), "dpo").standing == "best"
    for seed in SEEDS:
        rescore(plan, score(plan, f"dpo/{seed}"), items=7)
    table = beside(plan)
    assert (entry(table, "dpo").standing, entry(table, "dpo").difference) == ("", None)
    assert entry(table, "cw_dpo").standing == "best", "of those that can be compared"
    said = "its values are over 7 items, not 12 items, so that it is not compared with the other rows in CIDEr, G R"
    assert said in marks_of(table, "dpo")
    rated = {"judge": {"judge": "another", "prompt": "official"}}
    for seed in SEEDS:
        rescore(plan, score(plan, f"dpo/{seed}"), items=12, harness=rated)
    assert any(mark.startswith("it was rated by another, not ") for mark in marks_of(beside(plan), "dpo"))


def test_a_baseline_on_other_terms_takes_no_mark_from_the_other_rows(plan: Plan) -> None:
    """It alone is not compared, and the note says so of it alone, once for all columns."""
    give(plan, {"base": [1.0], "sft": around(1.1), "dpo": around(3.0)[::-1], "cw_dpo": around(2.0)})
    rescore(plan, score(plan, "base/0"), items=9, partial=True)
    table = automatic(plan)
    assert standing(table) == {"dpo": "best"}
    said = "its values are over 9 items (partial), not 12 items, so that it is not compared with the other rows in "
    assert [row.key for row in table.rows if any("not compared" in mark for mark in row.marks)] == ["base"]
    assert len([mark for mark in marks_of(table, "base") if mark.startswith(said)]) == 1
    assert [entry(table, case).difference for case in TRAINED] == [None, None, None]
    for seed in SEEDS:
        rescore(plan, score(plan, f"sft/{seed}"), items=9, partial=True)
    table = automatic(plan)
    assert entry(table, "sft").difference is not None, "both are on the same terms"
    assert entry(table, "dpo").difference is None
    alike = "its values are over 12 items, not 9 items (partial), so that it is compared with no row on other terms in "
    assert [row.key for row in table.rows if any(mark.startswith(alike) for mark in row.marks)] == ["dpo", "cw_dpo"]


def test_rows_about_other_data_are_not_compared(tmp_path: Path) -> None:
    """A case may have other data than the rest, whose test split captions are about."""
    made_up(tmp_path, seeds=2)
    grid = tmp_path / "small.yaml"
    world = "{train: 20, val: 2, test: 6, seed: 9}"
    other = f"  other: {{data: {{source: demo_world, world: {world}}}}}"
    grid.write_text(grid.read_text().replace("\nseeds:", f"\n{other}\nseeds:"))
    plan = plan_of(tmp_path / "other", grid=grid)
    pretend_done(plan, plan.nodes)
    table = automatic(plan)
    said = "it was asked about other data, so that it is not compared with the other rows in"
    said += " BLEU-4, METEOR, ROUGE-L, CIDEr"
    assert [row.key for row in table.rows if said in row.marks] == ["other"]
    assert (entry(table, "other").standing, entry(table, "other").difference) == ("", None)
    assert entry(table, "dpo").difference is not None


def test_one_seed_has_no_interval_and_no_test(tmp_path: Path) -> None:
    table = automatic(made_up(tmp_path, seeds=1))
    for case in TRAINED:
        found = entry(table, case)
        assert (found.std, found.low, found.high, found.standing) == (None, None, None, "")
        assert found.difference is not None
        assert (found.difference.low, found.difference.p, found.difference.adjusted) == (None, None, None)
        assert found.difference.value == pytest.approx((found.mean or 0) - (entry(table, "base").mean or 0))
    (said,) = [line for line in table.caption if "one result" in line]
    assert said.startswith("There is one result a row")


def test_a_base_model_that_samples_its_answers_has_seeds(tmp_path: Path) -> None:
    table = automatic(made_up(tmp_path, seeds=3, benchmarks="[{name: captions, decoding: {strategy: sample}}]"))
    assert len(entry(table, "base").results) == 3
    assert {one.test for one in differences(table).values()} == {"Welch's t over seeds"}


# ---- what is best


SPREAD = (-0.01, -0.005, 0.0, 0.005, 0.01)


def around(middle: float) -> list[float]:
    return [middle + part for part in SPREAD]


def standing(table: Table, column: str = "cider") -> dict[str, str]:
    return {row.key: row.entries[column].standing for row in table.rows if row.entries[column].standing}


def test_the_best_is_marked_where_it_is_told_from_every_other_row(plan: Plan) -> None:
    give(plan, {"base": [1.0], "sft": around(1.1), "dpo": around(1.2), "cw_dpo": around(1.3)})
    assert standing(beside(plan)) == {"cw_dpo": "best"}


def test_rows_that_cannot_be_told_from_the_best_are_tied_with_it(plan: Plan) -> None:
    give(plan, {"base": [1.0], "sft": around(1.1), "dpo": around(1.298), "cw_dpo": around(1.3)})
    assert standing(beside(plan)) == {"dpo": "tied", "cw_dpo": "tied"}


def test_less_is_best_where_the_column_says_so(plan: Plan) -> None:
    values = {"base": [1.4], "sft": around(1.1), "dpo": around(1.2)[::-1], "cw_dpo": around(1.3)}
    give(plan, values, metric="rouge_l")
    assert standing(beside(plan), "rouge_l") == {"sft": "best"}
    assert standing(automatic(plan), "rouge_l") == {"base": "best"}


def test_the_base_model_may_be_best(plan: Plan) -> None:
    """Its one result is all that there can be of it."""
    give(plan, {"base": [2.0], "sft": around(1.1), "dpo": around(1.2), "cw_dpo": around(1.3)})
    assert standing(beside(plan)) == {"base": "best"}


def test_one_finished_seed_of_several_is_not_taken_for_a_model_without_seeds(plan: Plan) -> None:
    """However high it is: it may be the luck of that seed."""
    give(plan, {"base": [1.0], "sft": around(1.1), "dpo": around(1.2), "cw_dpo": around(1.3)})
    for seed in (1, 2, 3, 4):
        (score(plan, f"cw_dpo/{seed}").artefact(plan.store).folder / "DONE").unlink()
    table = beside(plan)
    assert standing(table) == {}
    assert differences(table)["cw_dpo"].p is None


# ---- over items


def bootstrapped(rows: Sequence[Any], value: Any) -> tuple[float, float]:
    """Ends of the 95% percentile interval of `value` over rows drawn with replacement."""
    generator = random.Random(3)
    drawn = sorted(value(generator.choices(rows, k=len(rows))) for _ in range(4000))
    return drawn[99], drawn[3899]


def close(found: Difference, ends: tuple[float, float]) -> None:
    tolerance = 0.06 * (ends[1] - ends[0])
    assert found.low == pytest.approx(ends[0], abs=tolerance)
    assert found.high == pytest.approx(ends[1], abs=tolerance)


@pytest.mark.parametrize("case", ["dpo", "cw_dpo"])
def test_items_of_these_checkpoints_are_resampled_in_pairs(whole: Plan, case: str) -> None:
    own, other = (
        pd.concat([items(whole, f"{name}/{seed}").cider for seed in SEEDS], axis=1).mean(axis=1) * 100
        for name in (case, "sft")
    )
    gains = (own - other).tolist()
    found = differences(beside(whole, interval="items"))[case]
    assert found.value == pytest.approx(np.mean(gains))
    close(found, bootstrapped(gains, np.mean))
    assert (found.p, found.adjusted) == (None, None)
    assert found.covers == "these checkpoints on new items, and not of the variance of training"
    intervals = [entry(beside(whole, interval=kind), case) for kind in ("seeds", "items")]
    assert [(one.low, one.high) for one in intervals] == [(intervals[0].low, intervals[0].high)] * 2


def bleu_rows(seed: int) -> list[dict[str, Any]]:
    """Counts of 1- to 4-grams of twelve captions."""
    generator = random.Random(seed)
    found = []
    for place in range(12):
        guess = [11 - k for k in range(4)]
        correct = [max(0, count - generator.randint(0, 5) - k) for k, count in enumerate(guess)]
        lengths = {"candidate_length": 11, "reference_length": generator.randint(9, 13)}
        found.append({"id": f"item {place}", "bleu_correct": correct, "bleu_guess": guess, **lengths})
    return found


def test_metrics_of_a_corpus_are_resampled_from_their_statistics(plan: Plan) -> None:
    rows = {case: [bleu_rows(10 * place + seed) for seed in SEEDS] for place, case in enumerate(("sft", "dpo"))}
    for case, of_case in rows.items():
        for seed, own in zip(SEEDS, of_case, strict=True):
            rescore(plan, score(plan, f"{case}/{seed}"), rows=own, metrics={"bleu_4": corpus_bleu(own)[3]})

    def difference(places: Sequence[int]) -> float:
        means = [np.mean([corpus_bleu([own[at] for at in places])[3] for own in rows[case]]) for case in ("dpo", "sft")]
        return 100 * float(means[0] - means[1])

    (plan.store.home.parent / "beside.yaml").write_text(FILE.replace("metric: cider", "metric: bleu_4"))
    try:
        table = beside(plan, interval="items")
        both = beside(plan, interval="seeds+items")
    finally:
        (plan.store.home.parent / "beside.yaml").write_text(FILE)
    found = differences(table)["dpo"]
    assert found.value == pytest.approx(difference(range(12)))
    close(found, bootstrapped(range(12), difference))
    crossed = differences(both)["dpo"]
    assert crossed.value == pytest.approx(difference(range(12)))
    assert crossed.covers == "new trainings on new items"
    cw_dpo = next(row for row in table.rows if row.key == "cw_dpo")
    assert cw_dpo.entries["cider"].difference is None
    assert any("its items do not give its BLEU-4" in mark for mark in cw_dpo.marks), "made-up values that are no BLEU"


def test_seeds_and_items_are_both_random(whole: Plan) -> None:
    def matrix(case: str) -> np.ndarray:
        return np.stack([100 * items(whole, f"{case}/{seed}").cider.sort_index().to_numpy() for seed in SEEDS])

    table = beside(whole, interval="seeds+items")
    pairs = matrix("dpo") - matrix("sft")  # they share Stage 1 seed by seed
    for row, expected in {
        "dpo": crossed_difference(pairs, np.zeros((1, pairs.shape[1]))),
        "cw_dpo": crossed_difference(matrix("cw_dpo"), matrix("sft")),
    }.items():
        found = differences(table)[row]
        assert (found.value, found.low, found.high, found.p) == pytest.approx(expected[:4])
        assert ("share Stage 1" in found.test) == (row == "dpo")
    interval = crossed_interval(matrix("dpo"))
    assert (entry(table, "dpo").low, entry(table, "dpo").high) == pytest.approx((interval.low, interval.high))
    fixed = crossed_difference(matrix("base")[:1], matrix("sft"))
    assert differences(table)["base"].p == pytest.approx(fixed.p)


def test_where_a_metric_is_not_known_to_be_made_of_items_that_is_said(plan: Plan) -> None:
    give(plan, {"base": [1.0], "sft": around(1.1), "dpo": around(1.2), "cw_dpo": around(1.3)})
    for kind in ("items", "seeds+items"):
        table = beside(plan, interval=kind)
        assert differences(table) == {}
        assert "CIDEr: no interval over items: how it is made of values per item is not known" in table.notes
        assert entry(table, "dpo").mean == pytest.approx(120.0)


def test_items_without_a_value_are_left_out_and_that_is_said(plan: Plan) -> None:
    """Such as those whose judge could not be read."""
    values: dict[str, list[float | None]] = {"sft": [0.5, 0.6, 0.7, 0.8], "dpo": [None, 0.7, 0.9, 0.8]}
    for case, own in values.items():
        known = [value for value in own if value is not None]
        for seed in SEEDS:
            node = score(plan, f"{case}/{seed}")
            rescore(plan, node, rows=item_rows(own), metrics={"cider": sum(known) / len(known)})
    table = beside(plan, interval="items")
    found = differences(table)["dpo"]
    assert found.value == pytest.approx(100 * (0.1 + 0.2 + 0.0) / 3)
    marks = next(row.marks for row in table.rows if row.key == "dpo")
    assert "the difference is over the 3 of 4 items that have a value in all results" in marks


def test_no_difference_over_items_while_seeds_are_missing(plan: Plan) -> None:
    (score(plan, "dpo/1").artefact(plan.store).folder / "DONE").unlink()
    table = beside(plan, interval="items")
    assert differences(table).keys() == {"base", "cw_dpo"}
    assert next(row.marks for row in table.rows if row.key == "dpo") == (
        "no difference over items while seeds are missing",
    )


def test_the_values_per_item_of_all_cells_are_not_held_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A score of 5,000 items is 16 MB of Python's objects, and login nodes are shared."""
    monkeypatch.setattr(bootstrap, "_BLOCK", 2**12)  # else its arrays are the peak
    peaks = []
    for seeds in (1, 5):
        (tmp_path / str(seeds)).mkdir()
        plan = made_up(tmp_path / str(seeds), seeds, items=300)
        assert plan.nodes
        tracemalloc.start()
        found = automatic(plan, interval="items")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert all(row.entries["cider"].difference for row in found.rows[1:])
    assert peaks[1] < 1.5 * peaks[0], peaks


def test_worst_and_best_items_are_those_of_graded_values(tmp_path: Path) -> None:
    plan = made_up(tmp_path, seeds=2, items=30)

    def said(values: Sequence[float]) -> list[str]:
        for seed in (0, 1):
            rescore(plan, score(plan, f"sft/{seed}"), rows=item_rows(values))
        return [note for note in automatic(plan, interval="items").notes if note.startswith("sft, captions: ACC10")]

    (graded,) = said([place / 100 for place in range(30)])
    assert graded.startswith("sft, captions: ACC10w 4.5, ACC10b 24.5 (mean CIDEr over the 10 items")
    assert said([float(place % 2) for place in range(30)]) == []
    for seed in (0, 1):  # means over seeds are between 0 and 1, the values are not
        rescore(
            plan, score(plan, f"sft/{seed}"), rows=item_rows([float(place % (seed + 2) == 0) for place in range(30)])
        )
    assert not any(note.startswith("sft, captions: ACC10") for note in automatic(plan, interval="items").notes)
    assert not any("ACC10" in note for note in automatic(plan).notes), "values per item are not read"


# ---- notes


def marks(table: Table) -> dict[str, tuple[str, ...]]:
    return {row.key: row.marks for row in table.rows if row.marks}


def same_weights(plan: Plan, cell: str, other: str) -> None:
    """Give a trained policy the digest of another one's weights."""
    policies = [plan.wired[name].policy for name in (cell, other)]
    assert all(policies)
    own, theirs = (policy.artefact(plan.store).folder / "DONE" for policy in policies if policy)
    done, source = json.loads(own.read_text()), json.loads(theirs.read_text())
    name = "adapter_model.safetensors"
    done["files"][name]["sha256"] = source["files"][name]["sha256"]
    own.write_text(json.dumps(done))


def test_identical_adapters_are_flagged(plan: Plan) -> None:
    assert marks(automatic(plan)) == {}, "different ones are not"
    same_weights(plan, "cw_dpo/1", "dpo/1")
    assert marks(automatic(plan)) == {"cw_dpo": ("the trained weights are identical to those of dpo (seed 1)",)}
    for seed in (0, 2, 3, 4):
        same_weights(plan, f"cw_dpo/{seed}", f"dpo/{seed}")
    assert marks(automatic(plan)) == {"cw_dpo": ("the trained weights are identical to those of dpo",)}


def test_rows_that_are_one_training_say_so(tmp_path: Path) -> None:
    plan = made_up(tmp_path, seeds=2, name="twice")
    path = tmp_path / "twice.yaml"
    path.write_text(path.read_text().replace("  sft: {}\n", "  sft: {}\n  again: {}\n"))
    from commands import plan_of

    table = automatic(plan_of(tmp_path / "home", grid=path))
    assert marks(table) == {"again": ("it is the same training as sft",)}
    assert entry(table, "again").results == entry(table, "sft").results
    assert plan.nodes


def test_what_scoring_noted_and_counted_is_told_once(plan: Plan) -> None:
    rescore(plan, score(plan, "dpo/0"), notes=["not as published: 12 images"], counts={"empty answers": 2})
    rescore(plan, score(plan, "dpo/1"), notes=["not as published: 12 images"], counts={"empty answers": 1})
    notes = automatic(plan).notes
    assert notes.count("not as published: 12 images") == 1
    assert "empty answers: 3 of 192 in all rows" in notes, "16 scores of 12 items"


def test_rows_scored_by_different_harnesses_are_said(plan: Plan) -> None:
    assert not any("harness" in note for note in automatic(plan).notes)
    rescore(plan, score(plan, "dpo/0"), harness={"java": "another", "prompt": "made up"})
    (said,) = [note for note in automatic(plan).notes if "harness" in note]
    keys = "dtype, java, pycocoevalcap, tokenizer"
    assert said == f"the rows were not all scored with the same harness ({keys}): base, sft, dpo, cw_dpo unlike dpo"


def test_a_partial_score_is_marked(plan: Plan) -> None:
    rescore(plan, score(plan, "dpo/0"), partial=True)
    table = automatic(plan)
    assert table.partial
    assert [row.key for row in table.rows if row.entries["cider"].partial] == ["dpo"]


# ---- captions


def test_the_caption_says_what_five_seeds_can_show(plan: Plan) -> None:
    """By the noncentral t distribution: 5 a side and a spread of 1 show a difference of 2.02 in 4 of 5 cases."""
    give(plan, {"base": [1.0], "sft": around(1.1), "dpo": around(1.2), "cw_dpo": around(1.3)})
    (said,) = [line for line in beside(plan).caption if line.startswith("With n = 5 a row")]
    spread = np.std(SPREAD, ddof=1) * 100
    found = re.search(r"CIDEr ([\d.]+)", said)
    assert found
    smallest = float(found[1])
    critical = scipy.stats.t.ppf(0.975, 8)
    power = 1 - scipy.stats.nct.cdf(critical, 8, smallest / (spread * math.sqrt(2 / 5)))
    assert power == pytest.approx(0.8, abs=0.01)


def test_the_caption_says_what_so_many_seeds_can_show_where_columns_have_unlike_many(plan: Plan) -> None:
    gone = {"metrics": {"rouge_l": None}, "unavailable": {"rouge_l": "not available: made up"}}
    for case in TRAINED:
        for seed in SEEDS[3:]:
            rescore(plan, score(plan, f"{case}/{seed}"), **gone)
    (said,) = [line for line in beside(plan).caption if line.startswith("With n = 5 a row")]
    assert re.search(r": CIDEr \S+; with n = 3 a row: G R \S+$", said)


def test_the_caption_says_what_the_row_with_fewest_seeds_can_show(plan: Plan) -> None:
    gone = {"metrics": {"cider": None}, "unavailable": {"cider": "not available: made up"}}
    give(plan, {case: around(middle) for case, middle in zip(TRAINED, (1.0, 2.0, 3.0), strict=True)})
    for seed in SEEDS[2:]:
        rescore(plan, score(plan, f"cw_dpo/{seed}"), **gone)
    (said,) = [line for line in beside(plan).caption if line.startswith("With n = ")]
    spread = math.sqrt(fmean([(entry(beside(plan), case).std or 0) ** 2 for case in TRAINED]))
    assert said.startswith("With n = 2 in the row with fewest seeds and the spread")
    assert f": CIDEr {float(f'{detectable(spread, 2):.2g}'):g}; with n = 5 a row: G R " in said


def test_the_caption_says_that_an_interval_below_0_is_of_too_few_seeds(tmp_path: Path) -> None:
    plan = made_up(tmp_path, seeds=2)
    give(plan, {"sft": [0.1, 0.9], "dpo": [0.5, 0.51], "cw_dpo": [0.6, 0.61]})
    (said,) = [line for line in automatic(plan).caption if "know no bounds" in line]
    assert "below 0" in said
    assert "CIDEr" in said
    give(plan, {"sft": [0.5, 0.51]})
    assert not any("know no bounds" in line and "CIDEr" in line for line in automatic(plan).caption)


def test_the_caption_says_items_scale_and_that_stages_are_confounded(whole: Plan) -> None:
    first, *others = automatic(whole).caption
    assert first == "12 items of benchmark captions; scores x100"
    assert "Intervals of means are Student's over seeds: they speak of new trainings on these items" in others
    assert any(line.startswith("Rows stand on different Stages 1 (none, sft, sft_c)") for line in others)
    both = beside(whole, interval="seeds+items").caption
    assert any("seeds and items as random" in line for line in both)


# ---- beside the paper


def test_published_numbers_stand_beside_ours(whole: Plan) -> None:
    table = beside(whole, paper=True)
    assert {row.key: row.entries["cider"].paper for row in table.rows} == {
        "base": 128.8, "sft": 136.5, "dpo": 136.9, "cw_dpo": 142.6,
    }  # fmt: skip
    assert {row.entries["rouge_l"].paper for row in table.rows} == {None}
    assert table.paper == "Table 1 of arXiv 2510.11978"
    (said,) = [line for line in table.caption if line.startswith("Published: ")]
    assert said == (
        "Published: Table 1 of arXiv 2510.11978, Qwen2.5-VL-72B with LoRA, 5 seeds; here: the tiny model of the demo"
    )
    assert not any(line.startswith("Published: ") for line in beside(whole).caption), "only on request"


# ---- the layout of a file


def test_a_table_file_decides_what_is_shown_and_how(whole: Plan) -> None:
    table = beside(whole)
    assert (table.name, table.title, table.baseline, table.groups) == ("beside", "Beside SFT", "sft", ("sft",))
    assert [(row.key, row.label, row.stands_on) for row in table.rows] == [
        ("base", "the base", "none"), ("sft", "sft", "sft"), ("dpo", "dpo", "sft"), ("cw_dpo", "cw_dpo", "sft_c"),
    ]  # fmt: skip
    second = table.columns[1]
    assert (second.title, second.group, second.metric.digits, second.metric.higher) == ("R", "G", 3, False)


def of_row(table: Table, key: str) -> Row:
    return next(row for row in table.rows if row.key == key)


def changed(plan: Plan, changes: Mapping[str, str]) -> Table:
    """The table of the file with some of its text replaced."""
    text = FILE
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = plan.store.home.parent / "changed.yaml"
    path.write_text(text)
    (found,) = tables(plan, wanted=Wanted((str(path),)))
    return found


def test_another_stage_1_than_the_file_has_is_said_beside_the_row(whole: Plan) -> None:
    table = changed(whole, {"cw_dpo: {stands_on: sft_c}": "cw_dpo: {stands_on: sft_c_hard}"})
    assert of_row(table, "cw_dpo").stands_on == "sft_c"
    assert of_row(table, "cw_dpo").marks == (
        "in this grid it stands on Stage 1 of sft_c, not of sft_c_hard as the table file has it",
    )


def test_rows_and_columns_that_the_grid_has_not_are_not_asked(whole: Plan) -> None:
    table = changed(whole, {"  dpo:": "  ppo:", "benchmark: captions, metric: rouge_l": "benchmark: pope, metric: f1"})
    assert {column: [gap.kind for gap in one.gaps] for column, one in of_row(table, "ppo").entries.items()} == {
        "cider": ["not asked"], "rouge_l": ["not asked"],
    }  # fmt: skip
    assert of_row(table, "ppo").entries["cider"].paper == 139.2
    assert [gap.kind for gap in of_row(table, "sft").entries["rouge_l"].gaps] == ["not asked"]
    assert entry(table, "sft").mean is not None
