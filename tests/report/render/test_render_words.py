"""What a reader finds in a cell, and what the caption says of it; read from Markdown, whose cells end at bars."""

from __future__ import annotations

from dataclasses import replace

import pytest
from handmade import BLEU, CHAIR, CIDER, KINDS, SCORE, WELCH, one, results, small

from cwdpo.evaluate.question import Metric
from cwdpo.report.content import Column, Difference, Entry, Gap, GapKind, Result, Row, Table
from cwdpo.report.render.markdown import markdown


def cells(table: Table, paper: bool = False) -> list[str]:
    """Of the last row of the first table in the file."""
    first = markdown([table], paper=paper).split("\n\n")[2]
    return [cell.strip() for cell in first.splitlines()[-1].split("|")[1:-1]]


def shown(entry: Entry, metric: Metric = CIDER, paper: bool = False) -> str:
    """The last cell."""
    return cells(one(entry, metric), paper)[-1]


FIVE = {"mean": 139.24, "std": 0.44}
FAILED = Gap("failed", "out of memory", (3, 4))
DOUBT = Result((1,), 12.0, "score-b", doubt="generations.jsonl is not what was written")


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (Entry(results(10.0, 12.0), mean=11.0, std=1.4142), "11.0 ± 1.4"),
        (Entry((Result((0, 1), 116.2, "a"),), mean=116.2), "116.2"),
        (Entry(results(116.2), mean=116.2), "116.2 (n=1)"),
        (Entry(results(1, 2, 3), **FIVE), "139.2 ± 0.4 (n=3)"),
        (Entry(results(1, 2, 3), (FAILED,), **FIVE), "139.2 ± 0.4 (n=3, 2 failed)"),
        (Entry(results(1), (FAILED, Gap("running", "", (2,))), mean=1.0), "1.0 (n=1, 2 failed, 1 running)"),
        (Entry(results(1, 2, stale=True), **FIVE), "139.2 ± 0.4 (stale)"),
        (Entry((*results(1), Result((1,), 2, "b", True)), **FIVE), "139.2 ± 0.4 (1 of 2 stale)"),
        (Entry((*results(1), DOUBT), **FIVE), "139.2 ± 0.4 (1 of 2 in doubt)"),
        (Entry(results(1, 2), **FIVE, partial=True), "139.2 ± 0.4 (partial)"),
        (Entry(results(1, 2), **FIVE, standing="best"), "**139.2 ± 0.4**"),
        (Entry(results(1, 2, 3), **FIVE, standing="tied"), "139.2 ± 0.4† (n=3)"),
        (Entry(mean=2.0), "2.0"),
        (Entry(results(-0.01, -0.02), mean=-0.015, std=0.0), "0.0 ± 0.0"),
        (Entry(), "missing"),
        (Entry(gaps=(Gap("running", "", (0,)), Gap("running", "other", (1,)))), "running"),
        (Entry(gaps=(FAILED, Gap("queued", "", (0,)), Gap("queued", "", (1,)))), "2 failed, 2 queued"),
    ],
)
def test_an_entry_reads(entry: Entry, text: str) -> None:
    assert shown(entry) == text


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_gap_has_its_own_words(kind: GapKind) -> None:
    assert shown(Entry(gaps=(Gap(kind, "", (0, 1)),))) == kind


def test_what_a_row_says_nothing_of_was_not_asked() -> None:
    table = one(Entry())
    assert cells(replace(table, rows=(*table.rows[:2], Row("row", "row", "none", {}))))[-1] == "not asked"


def test_digits_are_those_of_the_metric() -> None:
    assert shown(Entry(results(2.5, 2.6), mean=2.55, std=0.0707), SCORE) == "2.55 ± 0.07"


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (Entry(results(1, 2), **FIVE, paper=142.6), "139.2 ± 0.4 / 142.6 (-3.4)"),
        (Entry(results(1, 2), **FIVE, paper=139.24), "139.2 ± 0.4 / 139.24 (0.0)"),  # published numbers are not rounded
        (Entry(results(1, 2), **FIVE, paper=139.0, standing="best"), "**139.2 ± 0.4** / 139.0 (+0.2)"),
        (Entry(gaps=(FAILED,), paper=142.6), "failed / 142.6"),
        (Entry(results(1, 2), **FIVE), "139.2 ± 0.4"),
    ],
)
def test_the_paper_beside(entry: Entry, text: str) -> None:
    assert shown(entry, paper=True) == text
    assert "/" not in shown(entry)


def test_where_nothing_was_published_nothing_is_said_of_it() -> None:
    text = "After the slash: the published number"
    assert text in markdown([one(Entry(results(1, 2), **FIVE, paper=142.6))], paper=True)
    assert text not in markdown([one(Entry(results(1, 2), **FIVE))], paper=True)


def test_the_usual_number_of_results_is_that_of_most_whole_entries() -> None:
    text = markdown([one(Entry(results(1), (Gap("failed", "", (1, 2)),), mean=1.0))])
    assert "± is the standard deviation; n=2 where nothing else is said." in text


def test_a_partial_table_says_so_in_its_title() -> None:
    title = "One (PARTIAL: only some items were scored)"
    partly = Entry(results(1, 2), **FIVE, partial=True)
    assert f"## {title}\n" in markdown([one(partly)])
    assert f"## {title}\n" in markdown([one(Entry(), partial=True)])
    whole = one(partly)
    rows = tuple(replace(row, entries={"x": partly}) for row in whole.rows)
    assert cells(replace(whole, rows=rows))[-1] == "139.2 ± 0.4"  # all are: the title says it


def test_arrows_say_where_less_is_better() -> None:
    table = one(Entry(), CHAIR)
    text = markdown([table])
    assert "| method | x ↓ |" in text
    assert "↓: lower is better." in text
    unranked = replace(table, columns=(replace(table.columns[0], ranked=False),))
    assert "↓" not in markdown([unranked])
    assert "↓" not in markdown([one(Entry(), BLEU)])


def test_what_rows_stand_on_is_a_column_only_where_it_differs() -> None:
    text = markdown([small()])
    assert "| CW-DPO | sft_c |" in text
    table = small()
    alike = replace(table, rows=tuple(replace(row, stands_on="sft_c") for row in table.rows))
    text = markdown([alike])
    assert "stands on |" not in text
    assert "Every row stands on Stage 1 of sft_c.\n" in text


def test_legends_are_of_what_is_there() -> None:
    best, tied = "distinguishable from every other row", "the best mean, or not distinguishable from it"
    text = markdown([small()])
    assert f"**Bold**: {best}.\n†: {tied}.\n" in text
    nothing = markdown([one(Entry(results(1, 2), **FIVE))])
    assert best not in nothing
    assert tied not in nothing


def test_captions_are_sentences() -> None:
    text = markdown([one(Entry(), caption=("scores x100", "All is well."), notes=("cw_dpo: a note",))])
    assert "\n\nScores x100.\nAll is well.\n" in text
    assert "\n- cw_dpo: a note.\n" in text


def test_judges_are_named() -> None:
    table = one(Entry(), SCORE)
    column = Column("x", "total", "MM-Vet", "mm_vet", SCORE, judge="gpt-4o, rules only")
    assert "Judged by gpt-4o, rules only: MM-Vet total.\n" in markdown([replace(table, columns=(column,))])


def test_reasons_name_rows_seeds_and_columns() -> None:
    assert "- failed: out of memory (sft seed 1, CW-DPO seed 0; COCO BLEU-4, CHAIR_s).\n" in markdown([small()])
    everywhere = one(Entry())
    gap = Entry(gaps=(Gap("not available", "METEOR needs Java", (0, 1)),))
    rows = tuple(replace(row, entries={"x": gap}) for row in everywhere.rows)
    assert "- not available: METEOR needs Java (every row).\n" in markdown([replace(everywhere, rows=rows)])
    doubtful = markdown([one(Entry((*results(10.0), DOUBT), mean=11.0, std=1.4))])
    assert "- in doubt: generations.jsonl is not what was written (row seed 1).\n" in doubtful


def test_many_rows_with_one_reason_are_counted() -> None:
    table = one(Entry())
    gap = {"x": Entry(gaps=(Gap("failed", "no", ()),))}
    rows = tuple(Row(str(place), f"r{place}", "none", gap) for place in range(1200))
    text = markdown([replace(table, rows=(*table.rows, *rows))])
    assert "- failed: no (r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, and 1,190 more).\n" in text


def test_marks_and_notes_stand_below() -> None:
    text = markdown([small()])
    assert "- CW-DPO: the trained weights are identical to those of dpo.\n- SPICE is not available: no Java.\n" in text


def test_differences_say_what_they_speak_of() -> None:
    table = small()
    rows = list(table.rows)
    items = Difference(-8.0, -9.0, -7.0, 0.0004, None, "paired bootstrap over items", "these checkpoints")
    rows[0] = replace(
        rows[0], entries={**rows[0].entries, "coco_cider": replace(rows[0].entries["coco_cider"], difference=items)}
    )
    few = Difference(1.0, None, None, None, None, WELCH, "new trainings")
    rows[1] = replace(rows[1], entries={**rows[1].entries, "chair": Entry(difference=few)})
    details = markdown([replace(table, rows=tuple(rows))]).partition("### Captions: intervals and differences\n")[2]
    found = [line.split(" | ")[4:] for line in details.splitlines() if line.startswith("| ")][2:]
    assert [row for row in found if row[0]] == [
        ["-8.0", "[-9.0, -7.0]", "<0.001 uncorrected", "paired bootstrap over items: speaks of these checkpoints |"],
        ["+1.0", "", "", "Welch's t over seeds: speaks of new trainings |"],
        ["+6.0", "[+3.0, +9.0]", "0.028", "Welch's t over seeds: speaks of new trainings |"],
    ]
