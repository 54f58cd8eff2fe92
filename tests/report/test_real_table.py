"""Tables of a grid that was really computed, against a second, independent computation from the files per item."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import scipy.stats
from commands import MICRO, copy_home, cwdpo, node_of, plan_of, succeed

from cwdpo.base.store import Store
from cwdpo.report.content import Entry, Table
from cwdpo.report.render.markdown import markdown
from cwdpo.report.table import Wanted, tables

TRAINED = ("sft", "dpo", "cw_dpo")
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def table(finished: Path) -> Table:
    (found,) = tables(plan_of(finished))
    return found


def entry(table: Table, case: str, metric: str) -> Entry:
    return next(row for row in table.rows if row.key == case).entries[metric]


def items(home: Path, case: str, seed: int) -> pd.DataFrame:
    """Rows per item of the score of one cell, read without the code under test."""
    folder = node_of(home, "score", f"{case}/{seed}").artefact(Store(home)).folder
    attempt = json.loads((folder / "DONE").read_text())["attempt"]
    return pd.read_parquet(folder / "attempts" / str(attempt) / "out" / "items.parquet").set_index("id")


def bleu_4(rows: pd.DataFrame) -> float:
    """Papineni's formula over the corpus, from the counts."""
    correct, guess = (rows[name].map(list).tolist() for name in ("bleu_correct", "bleu_guess"))
    totals = [(sum(own[k] for own in correct), sum(own[k] for own in guess)) for k in range(4)]
    precision = math.prod((c + 1e-15) / (g + 1e-9) for c, g in totals) ** 0.25
    return precision * math.exp(min(0.0, 1 - rows.reference_length.sum() / rows.candidate_length.sum()))


CORPUS: dict[str, Callable[[pd.DataFrame], float]] = {
    "bleu_4": bleu_4,
    "rouge_l": lambda rows: float(rows.rouge_l.mean()),
    "cider": lambda rows: float(rows.cider.mean()),
}


def per_seed(home: Path, case: str, metric: str) -> list[float]:
    return [100 * CORPUS[metric](items(home, case, seed)) for seed in SEEDS]


@pytest.mark.parametrize("metric", CORPUS)
@pytest.mark.parametrize("case", TRAINED)
def test_mean_spread_and_difference_over_seeds(finished: Path, table: Table, case: str, metric: str) -> None:
    values = pd.Series(per_seed(finished, case, metric))
    base = 100 * CORPUS[metric](items(finished, "base", 0))
    found = entry(table, case, metric)
    assert (found.mean, found.std) == pytest.approx((values.mean(), values.std()), rel=1e-6, abs=1e-4)
    assert [result.seeds for result in found.results] == [(0,), (1,)]
    assert found.difference
    assert found.difference.value == pytest.approx(values.mean() - base, abs=1e-4)
    if values.std() > 0:
        assert found.difference.p == pytest.approx(scipy.stats.ttest_1samp(values, base).pvalue, rel=1e-4)


def test_the_numbers_are_not_all_alike(table: Table) -> None:
    """Otherwise the tests above could not fail."""
    assert len({entry(table, row.key, "cider").mean for row in table.rows}) == len(table.rows)
    assert all(entry(table, case, "cider").std for case in TRAINED)
    assert {row.marks for row in table.rows} == {()}


@pytest.mark.parametrize("case", TRAINED)
def test_every_metric_of_captions_is_known_to_be_made_of_items(finished: Path, case: str) -> None:
    for kind, covers in (("items", "these checkpoints"), ("seeds+items", "these results alone")):  # of two seeds
        (found,) = tables(plan_of(finished), wanted=Wanted(interval=kind))  # type: ignore[arg-type]
        assert not any("is not known" in note for note in found.notes)
        for column in found.columns:
            difference = entry(found, case, column.key).difference
            assert difference, column.key
            assert covers in difference.covers
            assert difference.value == pytest.approx(
                (entry(found, case, column.key).mean or 0) - (entry(found, "base", column.key).mean or 0), abs=1e-6
            )


def test_a_deterministic_base_counts_once(table: Table) -> None:
    assert table.baseline == table.rows[0].key == "base"
    for one in table.rows[0].entries.values():
        assert ([result.seeds for result in one.results], one.std, one.difference) == ([(0, 1)], None, None)


def give_weights(home: Path, cell: str, other: str) -> None:
    """Replace a trained adapter by another cell's."""
    copied, original = (node_of(home, "stage2", name).artefact(Store(home)) for name in (cell, other))
    weights = "adapter_model.safetensors"
    shutil.copy(original.files / weights, copied.files / weights)
    done, source = (json.loads((artefact.folder / "DONE").read_text()) for artefact in (copied, original))
    done["files"][weights] = source["files"][weights]
    (copied.folder / "DONE").write_text(json.dumps(done))


def test_identical_adapters_are_flagged(finished: Path, tmp_path: Path) -> None:
    home = copy_home(finished, tmp_path / "home")
    give_weights(home, "cw_dpo/1", "dpo/1")
    (found,) = tables(plan_of(home))
    marks = {row.key: row.marks for row in found.rows}
    assert marks.pop("cw_dpo") == ("the trained weights are identical to those of dpo (seed 1)",)
    assert set(marks.values()) == {()}
    assert "cw_dpo: the trained weights are identical to those of dpo (seed 1)." in markdown([found])


def test_the_report_file_says_where_every_number_comes_from(finished: Path, tmp_path: Path, table: Table) -> None:
    target = tmp_path / "deep" / "report.md"
    shown = succeed(cwdpo("report", "-g", MICRO, "--home", finished, "-o", target))
    assert f"written to {target}" in shown
    text = target.read_text()
    assert "Rendered by cwdpo" in text
    assert f"`cwdpo report --grid {MICRO}`" in text
    for row in table.rows:
        for result in row.entries["cider"].results:
            assert result.origin in text
            assert (finished / "store" / result.origin / "stage.json").is_file()
