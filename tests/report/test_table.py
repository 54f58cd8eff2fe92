"""The numbers of a table against a second, independent computation from the files per item."""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from commands import MICRO, copy_home, cwdpo, node_of, plan_of, succeed
from pretend import pretend_done, write_grid

from cwdpo.base import files
from cwdpo.base.store import Store
from cwdpo.jobs.plan import Plan
from cwdpo.report.render import as_json, cells, markdown, print_tables
from cwdpo.report.table import Table, tables
from cwdpo.statistics import bootstrap

TRAINED = ("sft", "dpo", "cw_dpo")
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def table(finished: Path) -> Table:
    (found,) = tables(plan_of(finished))
    return found


def items(home: Path, case: str, seed: int) -> list[dict[str, Any]]:
    """Rows per item of the score of one cell, read without the code under test."""
    folder = node_of(home, "score", f"{case}/{seed}").artefact(Store(home)).folder
    attempt = json.loads((folder / "DONE").read_text())["attempt"]
    lines = (folder / "attempts" / str(attempt) / "out" / "items.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def bleu_4(rows: list[dict[str, Any]]) -> float:
    """Papineni's formula over the corpus, from the counts."""
    correct = [sum(row["bleu_correct"][k] for row in rows) for k in range(4)]
    guess = [sum(row["bleu_guess"][k] for row in rows) for k in range(4)]
    length, reference = sum(row["candidate_length"] for row in rows), sum(row["reference_length"] for row in rows)
    precision = math.prod((c + 1e-15) / (g + 1e-9) for c, g in zip(correct, guess, strict=True)) ** 0.25
    return precision * math.exp(min(0.0, 1 - reference / length))


CORPUS = {
    "bleu_4": bleu_4,
    "rouge_l": lambda rows: mean([row["rouge_l"] for row in rows]),
    "cider": lambda rows: mean([row["cider"] for row in rows]),
}


@pytest.mark.parametrize("metric", CORPUS)
@pytest.mark.parametrize("case", TRAINED)
def test_mean_and_spread_over_seeds(finished: Path, table: Table, case: str, metric: str) -> None:
    values = [100 * CORPUS[metric](items(finished, case, seed)) for seed in SEEDS]
    average = mean(values)
    spread = math.sqrt(sum((value - average) ** 2 for value in values) / (len(values) - 1))
    found = next(row for row in table.rows if row.case == case).values[metric]
    assert found.mean == pytest.approx(average, rel=1e-6, abs=1e-4)
    assert found.std == pytest.approx(spread, rel=1e-6, abs=1e-4)
    assert (found.n, found.missing, len(found.artefacts)) == (2, (), 2)


def test_the_numbers_are_not_all_alike(table: Table) -> None:
    """Otherwise the tests above could not fail."""
    ciders = {row.values["cider"].mean for row in table.rows}
    assert len(ciders) == len(table.rows)
    assert all(row.values["cider"].std for row in table.rows if row.case != "base")


@pytest.mark.parametrize("case", TRAINED)
def test_difference_to_the_baseline(finished: Path, table: Table, case: str) -> None:
    base = {row["id"]: 100 * row["cider"] for row in items(finished, "base", 0)}
    per_seed = [{row["id"]: 100 * row["cider"] for row in items(finished, case, seed)} for seed in SEEDS]
    gains = [mean([found[name] for found in per_seed]) - base[name] for name in base]
    found = next(row for row in table.rows if row.case == case).difference
    assert found is not None
    assert found.difference == pytest.approx(mean(gains), abs=1e-6)
    assert found.n == len(gains) == 8

    generator = random.Random(3)
    means = sorted(mean(generator.choices(gains, k=len(gains))) for _ in range(10_000))
    tolerance = 0.05 * (means[-1] - means[0])
    assert found.low == pytest.approx(means[249], abs=tolerance)
    assert found.high == pytest.approx(means[9749], abs=tolerance)


def test_a_deterministic_base_counts_once(table: Table) -> None:
    base = table.rows[0]
    assert base.case == table.baseline == "base"
    assert base.difference is None
    for value in base.values.values():
        assert (value.n, value.std, len(value.artefacts)) == (1, None, 1)
    assert re.fullmatch(r"\d+\.\d", cells(table, base)[-2])
    assert re.fullmatch(r"\d+\.\d ± \d+\.\d", cells(table, table.rows[1])[-2])


def test_different_adapters_are_not_flagged(table: Table) -> None:
    assert {row.marks for row in table.rows} == {()}


def test_identical_adapters_are_flagged(finished: Path, tmp_path: Path) -> None:
    home = copy_home(finished, tmp_path / "home")
    copied, original = (node_of(home, "stage2", cell).artefact(Store(home)) for cell in ("cw_dpo/1", "dpo/1"))
    weights = "adapter_model.safetensors"
    shutil.copy(original.files / weights, copied.files / weights)
    done, source = (json.loads((artefact.folder / "DONE").read_text()) for artefact in (copied, original))
    done["files"][weights] = source["files"][weights]
    (copied.folder / "DONE").write_text(json.dumps(done))

    (found,) = tables(plan_of(home))
    marks = {row.case: row.marks for row in found.rows}
    assert marks.pop("cw_dpo") == ("the trained weights are identical to those of dpo",)
    assert set(marks.values()) == {()}
    assert "cw_dpo: the trained weights are identical to those of dpo." in markdown([found])


# Rendering


def awkward(tmp_path: Path, name: str) -> list[Table]:
    """Tables of a grid with a case of an awkward name; nothing is computed."""
    grid = tmp_path / "awkward.yaml"
    cases = json.dumps({"base": {}, name: {"seed": 1}})
    benchmark = "[{name: captions}]"
    text = f"base: {{data: {{source: demo_world}}, model: {{source: tiny}}, benchmarks: {benchmark}}}\ncases: {cases}\n"
    grid.write_text(text)
    return tables(plan_of(tmp_path / "home", grid=grid))


def test_markdown_escapes_bars(tmp_path: Path) -> None:
    text = markdown(awkward(tmp_path, "a|b"))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert rows[3].startswith("| a\\|b | missing |")
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7}


@pytest.mark.parametrize("name", ["[bold]a", "x[/]", "[/red]"])
def test_terminal_shows_names_as_they_are(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_tables(awkward(tmp_path, name))
    assert f"│ {name} " in capsys.readouterr().out
    shown = succeed(cwdpo("status", "-g", tmp_path / "awkward.yaml", "--home", tmp_path / "home"))
    assert f"\n{name}/0 " in shown


def test_report_file_and_json_agree(finished: Path, tmp_path: Path, table: Table) -> None:
    target = tmp_path / "deep" / "report.md"
    shown = succeed(cwdpo("report", "-g", MICRO, "--home", finished, "-o", target))
    assert f"written to {target}" in "".join(shown.split("\n")) or str(target) in shown
    text = target.read_text()
    for row in table.rows:
        assert "| " + " | ".join(cells(table, row)) + " |" in text
    assert "Rendered by cwdpo" in text
    assert f"`cwdpo report --grid {MICRO}`" in text
    for row in table.rows:
        assert f"- {row.case}: {', '.join(row.origins)}" in text
        assert len(row.origins) == (1 if row.case == "base" else 2)
        for origin in row.origins:
            assert (finished / "store" / origin.split()[0] / "stage.json").is_file()
    files.write_json(tmp_path / "table.json", as_json([table]))  # plain numbers, no NaN
    assert json.loads((tmp_path / "table.json").read_text())[0]["rows"][1]["difference"]["n"] == 8


def test_a_grid_without_benchmarks_says_so(finished: Path) -> None:
    done = cwdpo("report", "-g", MICRO, "--home", finished, "-s", "benchmarks=[]")
    assert (done.returncode, done.stderr) == (2, "error: grid 'micro' has no benchmarks: there is nothing to report\n")


# Big grids


def made_up(folder: Path, seeds: int, items: int = 1000) -> Plan:
    """A finished store of 4 cells a seed, all scores made up."""
    plan = plan_of(folder / "home", grid=write_grid(folder / "big.yaml", first=1, second=2, seeds=seeds))
    pretend_done(plan, plan.nodes, items=items)
    return plan


def test_the_values_per_item_of_all_cells_are_not_held_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A score of 5,000 items is 16 MB of Python's objects, and login nodes are shared."""
    monkeypatch.setattr(bootstrap, "_BLOCK", 2**14)  # else its arrays are the peak
    peaks = []
    for seeds in (1, 5):
        (tmp_path / str(seeds)).mkdir()
        plan = made_up(tmp_path / str(seeds), seeds)
        assert plan.nodes
        tracemalloc.start()
        (found,) = tables(plan)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert all(row.difference for row in found.rows[1:])
    assert peaks[1] < 1.5 * peaks[0], peaks


def test_no_difference_where_an_item_was_scored_in_one_seed_only(tmp_path: Path) -> None:
    plan = made_up(tmp_path, seeds=2, items=5)
    cell = next(cell for cell in plan.grid.cells if cell.case != plan.grid.cases[0] and cell.seed == 1)
    (score,) = plan.wired[cell.name].scores.values()
    artefact = score.artefact(plan.store)
    path = artefact.files / "items.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    done = json.loads((artefact.folder / "DONE").read_text())
    content = path.read_bytes()
    done["files"]["items.jsonl"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (artefact.folder / "DONE").write_text(json.dumps(done))
    (found,) = tables(plan)
    assert {row.case for row in found.rows if row.difference is None} == {found.baseline, cell.case}
