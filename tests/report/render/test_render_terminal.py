"""Tables on a terminal, and as plain text."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from handmade import WIDE, one, results, small, wide
from rich.cells import cell_len

from cwdpo.report.content import Entry, Gap, Row, Table
from cwdpo.report.render.terminal import terminal

SMALL = """\
demo / Captions
                                     COCO
                   ─────────────────────────────────────────
method  stands on         CIDEr                       BLEU-4           CHAIR_s ↓
────────────────────────────────────────────────────────────────────────────────
base    none             128.8         31.2†                                32.0
────────────────────────────────────────────────────────────────────────────────
sft     none       136.5 ± 0.7         31.4† (n=1, 1 failed)             running
CW-DPO  sft_c      142.5 ± 0.7*  31.1 ± 0.2 (stale)           1 failed, 1 queued
"""

DETAILS = """\
Captions: 95% intervals of the mean
                               COCO
                   ────────────────────────────
method  stands on           CIDEr        BLEU-4
───────────────────────────────────────────────
sft     none       [130.2, 142.8]             –
CW-DPO  sft_c      [136.2, 148.8]  [29.2, 33.1]

Captions: differences to sft
                             COCO
                   ─────────────────────────
method  stands on                      CIDEr
────────────────────────────────────────────
CW-DPO  sft_c      +6.0 [+3.0, +9.0] p=0.028
In brackets the 95% interval. p is after Holm's correction over the rows of a column. Welch's t over seeds:
speaks of new trainings.
"""


@pytest.fixture(autouse=True)
def plain_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def printed(capsys: pytest.CaptureFixture[str], *tables: Table, paper: bool = False) -> str:
    print(terminal(tables, paper), end="")
    return capsys.readouterr().out


def test_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, small())
    assert text.startswith(SMALL)
    assert text.endswith(f"\n{DETAILS}")
    about = " ".join(text[len(SMALL) :].split())
    assert "*: distinguishable from every other row. †: the best mean, or not distinguishable from it." in about


def test_a_terminal_has_styles_instead_of_marks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "100"}.items():
        monkeypatch.setenv(name, value)
    text = printed(capsys, small())
    assert "\x1b[1m142.5 ± 0.7\x1b[0m  " in text
    assert "\x1b[4m31.4\x1b[0m (n=1, 1 failed)" in text
    assert "\x1b[36mrunning\x1b[0m" in text
    assert "Bold: distinguishable from every other row. Underlined: the best mean," in " ".join(text.split())
    assert "†" not in text


@pytest.mark.parametrize("paper", [False, True])
@pytest.mark.parametrize("width", [70, 80, 110, 300])
def test_wide_tables_are_cut_between_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, paper: bool
) -> None:
    if width != 110:
        monkeypatch.setenv("COLUMNS", str(width))
    text = printed(capsys, wide(), paper=paper)
    assert max(map(cell_len, text.splitlines())) <= width
    values = text.partition("Table 1: 95% intervals")[0]
    assert values.count("± 0.5") == 7 * 12
    assert len(re.findall(r"/ \d{3}\.0 \((?:0\.0|-1\.0)\)", values)) == (8 * 12 if paper else 0)
    assert text.count("[+0.3, +1.7]") == 12
    assert text.count("p=0.003") == 6 * 12


def test_columns_stand_below_their_group(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = printed(capsys, wide()).partition("Table 1: 95% intervals")[0].splitlines()
    groups: list[tuple[str, list[str]]] = []
    for place, line in enumerate(lines):
        if line.startswith("method"):
            above, rules = (lines[place - 2], lines[place - 1]) if "─" in lines[place - 1] else ("", "")
            heads = [(found.start(), found[0]) for found in re.finditer(r"\S+", line[19:])]
            spans = [(found.start() - 19, found.end() - 19) for found in re.finditer("─+", rules)]
            names = [(found.start() - 19, found[0]) for found in re.finditer(r"\S+", above)]
            for start, end in spans:
                (name,) = (name for at, name in names if start <= at < end)
                groups.append((name, [head for at, head in heads if start <= at < end]))
            groups += [("", [head]) for at, head in heads if not any(start <= at < end for start, end in spans)]
    assert dict(groups[:3]) == {name: list(titles) for name, titles in WIDE.items() if name}
    assert [head for _, (head,) in groups[3:]] == ["MMMU", "MMBench"]


@pytest.mark.parametrize("label", ["[bold]a", "x[/]", "[/red]", ":smile:", "a\\[b"])
def test_labels_are_no_markup(capsys: pytest.CaptureFixture[str], label: str) -> None:
    text = printed(capsys, _named(label))
    assert f"\n{label} " in text
    assert f"\n{label}: a {label} mark.\n" in text


def test_labels_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, _named("\x1b[31mred\x07\r\u202eback"))
    assert "\n\ufffd[31mred\ufffd \ufffdback " in text
    assert "\x1b" not in text


def test_long_labels_take_several_lines(capsys: pytest.CaptureFixture[str]) -> None:
    label = "cw_dpo with stage2.objective.beta=0.2 and stage1.objective.C=4.0 and the rest as it is"
    text = printed(capsys, _named(label))
    rows = text[text.index("\ncw_dpo with") :].splitlines()[1:5]
    assert [row[:36].rstrip() for row in rows][:3] == [
        "cw_dpo with",
        "stage2.objective.beta=0.2 and",
        "stage1.objective.C=4.0 and the rest",
    ]
    assert rows[0].endswith("1.5 ± 0.7")


def test_long_words_of_captions_are_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/a/" + "very-long-folder/" * 12
    text = printed(capsys, one(Entry(gaps=(Gap("failed", f"cannot read {path}: no such file", (0,)),))))
    assert path in text


def _named(label: str) -> Table:
    table = one(Entry(results(1.0, 2.0), mean=1.5, std=0.7))
    row = Row("key", label, "none", table.rows[2].entries, (f"a {label} mark",))
    return replace(table, rows=(*table.rows[:2], row))
