"""CSV and JSON: every number comes back as it was."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from handmade import CIDER, KINDS, WELCH, one, small, wide
from hypothesis import given, settings
from hypothesis import strategies as st

from cwdpo.evaluate.question import Metric
from cwdpo.report.content import Column, Difference, Entry, Gap, Result, Row, Table
from cwdpo.report.render.csv import csv_text
from cwdpo.report.render.json import as_json

NUMBERS = st.floats(allow_nan=False)
MAYBE = st.none() | NUMBERS
SEEDS = st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True).map(tuple)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["=1+1", "'x", "-1", "a\rb", "\n"]
)
RESULTS = st.builds(Result, SEEDS, NUMBERS, TEXTS, st.booleans(), TEXTS, TEXTS)
GAPS = st.builds(Gap, st.sampled_from(KINDS), TEXTS, SEEDS)
DIFFERENCES = st.builds(Difference, NUMBERS, MAYBE, MAYBE, MAYBE, MAYBE, TEXTS, TEXTS)
ENTRIES = st.builds(
    Entry,
    st.lists(RESULTS, max_size=2).map(tuple),
    st.lists(GAPS, max_size=2).map(tuple),
    *([MAYBE] * 4),
    st.booleans(),
    st.sampled_from(["best", "tied", ""]),
    st.none() | DIFFERENCES,
    MAYBE,
)
COLUMNS = tuple(Column(key, key, "g", "b", CIDER, ranked=key == "x") for key in "xy")


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Two columns and one or two rows of anything."""
    rows = [
        Row(key, draw(TEXTS), draw(TEXTS), {"x": draw(ENTRIES), "y": draw(ENTRIES)}, (draw(TEXTS),))
        for key in draw(st.sampled_from(["a", "ab"]))
    ]
    return Table(
        "t", draw(TEXTS), "g", "", draw(TEXTS), COLUMNS, tuple(rows), "a", draw(st.booleans()), caption=(draw(TEXTS),)
    )


# JSON


def rebuilt(found: Mapping[str, Any]) -> Table:
    """A table from its JSON, as the documentation of the schema has it."""
    columns = tuple(Column(**{**column, "metric": Metric(**column["metric"])}) for column in found["columns"])
    lists = {name: tuple(found[name]) for name in ("caption", "notes", "groups")}
    return Table(**{**found, **lists, "columns": columns, "rows": tuple(map(_row, found["rows"]))})


def _row(found: Mapping[str, Any]) -> Row:
    entries = {key: _entry(entry) for key, entry in found["entries"].items()}
    return Row(found["key"], found["label"], found["stands_on"], entries, tuple(found["marks"]))


def _entry(found: Mapping[str, Any]) -> Entry:
    known = {key: value for key, value in found.items() if key not in ("n", "stale", "paper_difference")}
    numbers = {key: _number(known[key]) for key in ("mean", "std", "low", "high", "paper")}
    difference = found["difference"] and Difference(**_numbers(found["difference"]))
    results = tuple(Result(**{**_numbers(one), "seeds": tuple(one["seeds"])}) for one in found["results"])
    gaps = tuple(Gap(**{**one, "seeds": tuple(one["seeds"])}) for one in found["gaps"])
    return Entry(**{**known, **numbers, "results": results, "gaps": gaps, "difference": difference})


def _numbers(found: Mapping[str, Any]) -> dict[str, Any]:
    names = ("value", "low", "high", "p", "adjusted")
    return {key: _number(value) if key in names else value for key, value in found.items()}


def _number(value: Any) -> Any:
    return float(value) if value in ("inf", "-inf", "nan") else value


@given(tables())
@settings(max_examples=20, deadline=None)
def test_json_gives_everything_back(table: Table) -> None:
    text = json.dumps(as_json([table, small()]), allow_nan=False)
    assert list(map(rebuilt, json.loads(text))) == [table, small()]


def test_json_says_what_follows_from_the_rest() -> None:
    (found,) = as_json([small()])
    entry = found["rows"][2]["entries"]["coco_cider"]
    assert (entry["n"], entry["stale"], entry["paper_difference"]) == (2, False, 142.5 - 142.6)
    assert entry["results"][0] == {
        "seeds": [0], "value": 142.0, "origin": "score-0000000000000000", "stale": False, "code": "", "doubt": "",
    }  # fmt: skip
    assert found["rows"][2]["entries"]["coco_bleu"]["stale"] is True


def test_json_has_no_nan_and_no_hole() -> None:
    table = one(Entry((Result((0,), math.nan, "a"),), mean=math.nan))
    (found,) = json.loads(json.dumps(as_json([table]), allow_nan=False))
    assert found["rows"][2]["entries"]["x"]["mean"] == "nan"
    bare = replace(table, rows=(Row("r", "r", "none", {}),))
    assert as_json([bare])[0]["rows"][0]["entries"]["x"]["gaps"] == [{"kind": "not asked", "reason": "", "seeds": []}]


# CSV


def lines_of(content: list[Table]) -> list[dict[str, Any]]:
    """Read as the documentation says: texts are quoted, numbers are not."""
    header, *lines = csv.reader(io.StringIO(csv_text(content), newline=""), quoting=csv.QUOTE_NONNUMERIC)
    assert all(len(line) == len(header) for line in lines)
    return [dict(zip(header, line, strict=True)) for line in lines]


def as_text(field: str) -> str:
    return field.removeprefix("'")


@given(tables())
@settings(max_examples=20, deadline=None)
def test_csv_gives_every_number_back(table: Table) -> None:
    lines = iter(lines_of([table]))
    for row in table.rows:
        for column in table.columns:
            entry = row.entries[column.key]
            for found in (*entry.results, *entry.gaps) or (None,):
                line = next(lines)
                assert (line["row"], as_text(line["label"]), line["column"]) == (row.key, row.label, column.key)
                assert_is(line, entry)
                assert_is_of(line, found)
    assert next(lines, None) is None


def assert_is(line: Mapping[str, Any], entry: Entry) -> None:
    for name in ("mean", "std", "low", "high", "paper"):
        assert line[name] == ("" if getattr(entry, name) is None else getattr(entry, name))
    assert (line["n"], line["standing"]) == (len(entry.results), entry.standing)
    found = entry.difference
    names = {"difference": "value", "difference_low": "low", "difference_high": "high", "p": "p", "p_holm": "adjusted"}
    for name, attribute in names.items():
        value = getattr(found, attribute) if found else None
        assert line[name] == ("" if value is None else value)
    assert as_text(line["test"]) == (found.test if found else "")


def assert_is_of(line: Mapping[str, Any], found: Result | Gap | None) -> None:
    seeds = tuple(map(int, line["seeds"].split()))
    if isinstance(found, Result):
        assert (seeds, line["value"], as_text(line["origin"])) == (found.seeds, found.value, found.origin)
        assert (line["stale"], as_text(line["doubt"]), line["gap"]) == (str(found.stale).lower(), found.doubt, "")
    elif isinstance(found, Gap):
        assert (seeds, line["gap"], as_text(line["reason"])) == (found.seeds, found.kind, found.reason)
        assert line["value"] == ""
    else:
        assert (seeds, line["value"], line["gap"]) == ((), "", "")


def test_csv_by_hand() -> None:
    difference = Difference(1.5, -0.25, 3.25, 0.1, 0.2, WELCH, "new trainings")
    entry = Entry(
        (Result((0, 1), 0.1 + 0.2, "score-a", True, "commit 1"),),
        (Gap("failed", "out of memory, again", (2,)),),
        mean=0.1 + 0.2,
        difference=difference,
        paper=0.5,
    )
    table = one(entry)
    text = csv_text([replace(table, rows=(replace(table.rows[2], label='say "a"'),))])
    same = (
        '0.30000000000000004,"",1,"","","false","","other",1.5,-0.25,3.25,0.1,0.2,"Welch\'s t over seeds",'
        '"new trainings",0.5,-0.19999999999999996,""'
    )
    assert text.splitlines()[1:] == [
        '"one","g","row","say ""a""","none","x","","x","coco","cider","true","true","","0 1",0.30000000000000004,'
        '"score-a","true","commit 1","","","",' + same,
        '"one","g","row","say ""a""","none","x","","x","coco","cider","true","true","","2","",'
        '"","","","","failed","out of memory, again",' + same,
    ]


def test_csv_of_several_tables_has_one_header() -> None:
    lines = lines_of([small(), wide()])
    assert len(lines) == (1 + 2 + 2) + (1 + 2 + 2) + (1 + 1 + 2) + 12 * (1 + 7 * 5)
    assert {(line["table"], line["grid"]) for line in lines} == {("main", "demo"), ("main", "main")}


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "  =1", "\uff1d1", "'=1", "'"])
def test_no_text_is_a_formula(text: str) -> None:
    table = one(Entry(gaps=(Gap("failed", text, (0,)),)))
    line = lines_of([replace(table, rows=(replace(table.rows[2], label=text, marks=(text,)),))])[0]
    assert [line[name] for name in ("label", "reason", "marks")] == [f"'{text}"] * 3


def test_numbers_and_harmless_texts_stay() -> None:
    table = one(Entry((Result((0,), -1.5, "score-a"),), mean=-1.5))
    line = lines_of([replace(table, rows=(replace(table.rows[2], label="C=4.0"),))])[0]
    assert (line["value"], line["mean"], line["label"]) == (-1.5, -1.5, "C=4.0")
