"""The report file, read by a parser written for this test and by one of CommonMark."""

from __future__ import annotations

import re
from itertools import groupby

from handmade import one, results, small, wide
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from cwdpo.report.content import Entry, Row
from cwdpo.report.render.markdown import code, markdown, md

SMALL = """\
| method | stands on | COCO CIDEr | COCO BLEU-4 | CHAIR_s ↓ |
| --- | --- | ---: | ---: | ---: |
| base | none | 128.8 | 31.2† | 32.0 |
| sft | none | 136.5 ± 0.7 | 31.4† (n=1, 1 failed) | running |
| CW-DPO | sft_c | **142.5 ± 0.7** | 31.1 ± 0.2 (stale) | 1 failed, 1 queued |
"""

DETAILS = """\
| sft | COCO CIDEr | 136.5 | [130.2, 142.8] |  |  |  |  |
| CW-DPO | COCO CIDEr | 142.5 | [136.2, 148.8] | +6.0 | [+3.0, +9.0] | 0.028 | Welch's t over seeds: speaks of\
 new trainings |
| CW-DPO | COCO BLEU-4 | 31.1 | [29.2, 33.1] |  |  |  |  |
"""

ORIGINS = """\
- base: coco score-b (seeds 0, 1); chair score-c (seeds 0, 1)
- sft: coco score-0000000000000000 (seed 0), score-0000000000000001 (seed 1), score-d (seed 0)
- CW-DPO (`cw_dpo`): coco score-0000000000000000 (seed 0), score-0000000000000001 (seed 1)
"""


def tables_in(text: str) -> list[list[list[str]]]:
    """Tables, rows, cells, as they were before escaping; a table is a block of lines that begin with a bar."""
    blocks = groupby(text.splitlines(), key=lambda line: line.startswith("|"))
    return [[_cells(line) for line in lines] for bar, lines in blocks if bar]


def _cells(line: str) -> list[str]:
    assert line.endswith(" |"), line
    raw = re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]
    return [re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cell.strip()) for cell in raw]


def test_the_small_table() -> None:
    text = markdown([small()], "## Learning dynamics\n\n- sft, stage1: nothing alarming in 2 seeds\n")
    assert text.startswith(f"# demo\n\n## Captions\n\n{SMALL}\nScores x100.\n")
    assert DETAILS in text
    assert (
        f"Where the numbers come from (folders of the store; `stage.json` in each names its parents):\n\n{ORIGINS}"
        in text
    )
    assert "\n## Learning dynamics\n" in text
    assert re.search(r"\nRendered by cwdpo \S+, [^\n]*: `cwdpo report --grid demo`\n$", text)


def test_all_rows_of_a_table_have_as_many_cells() -> None:
    for paper in (False, True):
        found = tables_in(markdown([small(), wide()], paper=paper))
        assert [(len(rows), {len(row) for row in rows}) for rows in found] == [
            (2 + 3, {5}),
            (2 + 3, {8}),
            (2 + 8, {14}),
            (2 + 7 * 12, {8}),
        ]


def test_what_computed_a_result_is_named() -> None:
    table = one(Entry(results(1.0), mean=1.0))
    (result,) = table.rows[2].entries["x"].results
    told = type(result)((4,), 1.0, "score-a + score-b", code="commit 0123 with changes")
    rows = (*table.rows[:2], Row("row", "row", "none", {"x": Entry((told,), mean=1.0)}))
    text = markdown([type(table)(**{**vars(table), "rows": rows})])
    assert "\n- row: score-a + score-b (seed 4, commit 0123 with changes)\n" in text
    assert "\n- usual: score-0000000000000000 (seed 0), score-0000000000000001 (seed 1)\n" in text
    nothing = markdown([one(Entry())])
    assert "\n- row: nothing yet\n" in nothing


AWKWARD = st.text(st.sampled_from("ab1 |\\`*_[](){}<>&;#+-.!~$=:'\"\n\t\x1b\u202eé日"), min_size=1, max_size=12)


def printed(text: str) -> str:
    """What shall be seen of it: a line, with signs in place of what steers."""
    return " ".join(text.split()).replace("\x1b", "\ufffd").replace("\u202e", "\ufffd")


@given(AWKWARD)
@settings(max_examples=60, deadline=None)
def test_any_label_is_seen_as_it_is(label: str) -> None:
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    table = one(Entry(results(1.0, 2.0), mean=1.5, std=0.7))
    rows = (*table.rows[:2], Row("key", label, "none", table.rows[2].entries, ("a mark",)))
    text = markdown([type(table)(**{**vars(table), "rows": rows})])
    tokens = parser.parse(text)
    first = next(place for place, token in enumerate(tokens) if token.type == "table_close")
    inline = [token for token in tokens[:first] if token.type == "inline"]
    assert _text(inline[-2]) == printed(label)
    assert _text(inline[-1]) == "1.5 ± 0.7"
    items = [token for token in tokens[first:] if token.type == "inline"]
    assert f"{printed(label)}: a mark." in map(_text, items)
    assert {token.type for token in tokens} & {"html_block", "hr", "code_block", "ordered_list_open"} == set()


def _text(token: object) -> str:
    children = token.children  # type: ignore[attr-defined]
    return "".join(child.content for child in children if child.type in ("text", "text_special", "code_inline"))


def test_names_stay_readable() -> None:
    assert md("cw_dpo, C=4.0 and l_floor=-3.0") == "cw_dpo, C=4.0 and l_floor=-3.0"
    assert code("a`b") == "`` a`b ``"
