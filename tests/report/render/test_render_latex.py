r"""LaTeX: read by a parser written for this test; where there is pdflatex, compiled."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from handmade import WIDE, one, results, small, wide
from hypothesis import given, settings
from hypothesis import strategies as st

from cwdpo.report.content import Entry, Gap, Row, Table
from cwdpo.report.render.latex import latex
from cwdpo.report.render.tex import tex

SMALL = r"""
\begin{tabular}{@{}llrrr@{}}
\toprule
 &  & \multicolumn{2}{c}{COCO} &  \\
\cmidrule(lr){3-4}
method & stands on & CIDEr & BLEU-4 & CHAIR\_s $\downarrow$ \\
\midrule
base & none & 128.8 & \underline{31.2} & 32.0 \\
\midrule
sft & none & 136.5{\scriptsize$\pm$0.7} & \underline{31.4} {\scriptsize (n=1, 1 failed)} & \textit{running} \\
CW-DPO & sft\_c & \textbf{142.5}{\scriptsize$\pm$0.7} & 31.1{\scriptsize$\pm$0.2} {\scriptsize (stale)} & \textit{1 failed, 1 queued} \\
\bottomrule
\end{tabular}
"""  # noqa: E501

PUNCTUATION = r"""!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~"""

AWKWARD = (
    "[bold]a", "*starred", "a_b & 100% #1 {x} ~^", "back\\slash \\end{table}", "<script>", "--grid --set", "---",
    "''``", "?`!`<<>>,,", "\x1b[31m", "naïve Ångström čaj ő ł ß", "αβΩΣ ς Α", "± Δ − × ≤ ≥ … – — “a” ‘b’", "日本 🎉",
    "ﬁ ² €", "a\nb\n\nc", "$x$", "\\\\", "l_floor=-3.0", PUNCTUATION, *(one * 2 for one in PUNCTUATION),
)  # fmt: skip
"""Labels that break LaTeX, or come out as something else."""


def code_of(text: str) -> str:
    """Without comments."""
    return "\n".join(re.sub(r"(?<!\\)%.*", "", line) for line in text.splitlines())


def tabulars(text: str) -> Iterator[tuple[str, list[str]]]:
    """Columns and lines of each."""
    for found in re.finditer(r"\\begin\{tabular\}\{@\{\}(\w+)@\{\}\}\n(.*?)\\end\{tabular\}", code_of(text), re.DOTALL):
        yield found[1], found[2].splitlines()


def columns_of(row: str) -> int:
    """How many columns a row takes."""
    assert row.endswith(r" \\")
    spans = [int(width) for width in re.findall(r"\\multicolumn\{(\d+)\}", row)]
    return len(re.findall(r"(?<!\\)&", row)) + 1 + sum(spans) - len(spans)


def assert_balanced(text: str) -> None:
    code = code_of(text)
    bare = re.sub(r"\\[\\{}]", "", code)
    depth = 0
    for one_brace in re.findall(r"[{}]", bare):
        depth += 1 if one_brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    opened = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", code):
        opened.append(name) if kind == "begin" else None
        assert kind == "begin" or opened.pop() == name
    assert opened == []
    assert code.count(r"\ifdefined") == len(re.findall(r"\\fi\b", code))
    assert len(re.findall(r"(?<!\\)\$", code)) % 2 == 0


@pytest.mark.parametrize("paper", [False, True])
def test_every_row_has_as_many_columns_as_its_tabular(paper: bool) -> None:
    text = latex([small(), wide(), awkward()], paper)
    assert code_of(text).isascii()
    assert_balanced(text)
    found = list(tabulars(text))
    assert len(found) >= 3
    for columns, lines in found:
        rules = [
            line for line in lines if re.fullmatch(r"\\(top|mid|bottom)rule|(\\cmidrule\(lr\)\{\d+-\d+\} ?)+", line)
        ]
        assert rules[0] == r"\toprule"
        assert rules[-1] == r"\bottomrule"
        assert {columns_of(line) for line in lines if line not in rules} == {len(columns)}
        for start, end in re.findall(r"\\cmidrule\(lr\)\{(\d+)-(\d+)\}", "\n".join(rules)):
            assert 0 < int(start) <= int(end) <= len(columns)


def test_the_small_table() -> None:
    text = latex([small()])
    assert SMALL in text
    head, _, rest = text.partition(r"\begin{table}")
    assert re.match(r"% Made by cwdpo \S+, .*, with: cwdpo report --grid demo\n", head)
    assert r"\usepackage{booktabs}" in head
    assert all(line.startswith("%") or not line for line in head.splitlines())
    caption = re.search(r"\\caption\[\{Captions\}\]\{(.*)\}\n", rest)
    assert caption is not None
    assert caption[1].startswith("Captions. Scores x100. ")
    assert caption[1].endswith(
        r"\textbf{Bold}: distinguishable from every other row. \underline{Underlined}: the best mean, or not"
        " distinguishable from it."
    )
    assert re.findall(r"\\label\{(.*)\}", rest) == ["tab:main", "tab:main-intervals", "tab:main-differences"]
    notes = rest[rest.index(r"\begin{minipage}") : rest.index(r"\end{minipage}")]
    assert r"failed: out of memory (sft seed 1, CW-DPO seed 0; COCO BLEU-4, CHAIR\_s)." in notes
    assert "%   sft: coco score-0000000000000000 (seed 0), " in rest


def test_details_are_printed_on_request_only() -> None:
    text = latex([small()])
    optional = text[text.index(r"\ifdefined\cwdpodetails") : text.index("\n\\fi\n")]
    assert text.count(r"\begin{table}") == 3
    assert optional.count(r"\begin{table}") == 2
    assert r"CW-DPO & sft\_c & +6.0 {\scriptsize [+3.0, +9.0]} {\scriptsize p=0.028} \\" in optional


def test_wide_tables_go_on_below_each_other() -> None:
    """And every value is there once."""
    text = latex([wide()])
    values = text[: text.index(r"\ifdefined")]
    heads = [line.split(" & ")[2:] for _, lines in tabulars(values) for line in lines if line.startswith("method")]
    titles = [title.removesuffix(r" \\") for head in heads for title in head]
    assert titles == [title for group in WIDE.values() for title in group]
    assert len(re.findall(r"\$\\pm\$0\.5", values)) == 7 * 12
    assert len(heads) > 1


def test_tables_longer_than_a_page_go_on_in_another_float() -> None:
    table = small()
    rows = tuple(replace(table.rows[0], key=f"r{place}", label=f"r{place}") for place in range(100))
    text = latex([replace(table, rows=rows, notes=("a note",))])
    assert re.findall(r"\\label\{(.*)\}", text) == ["tab:main", "tab:main-2", "tab:main-3"]
    assert "Captions (2 of 3)." in text
    names = [line.split(" & ")[0] for _, lines in tabulars(text) for line in lines if line.startswith("r")]
    assert names == [f"r{place}" for place in range(100)]
    assert text.index("a note.") > text.index("tab:main-3")


def test_no_label_occurs_twice_in_a_file() -> None:
    """Two files of one name, one of a name that a number could make, and a long one."""
    table = small()
    rows = tuple(replace(table.rows[0], key=f"r{place}", label=f"r{place}") for place in range(100))
    long = replace(table, rows=rows)
    again = [replace(one, name=name) for one, name in ((long, "main"), (long, "main-2"), (table, "main"))]
    labels = re.findall(r"\\label\{(.*)\}", latex([table, *again]))
    assert labels[:6] == [
        "tab:main", "tab:main-intervals", "tab:main-differences", "tab:main-2", "tab:main-3", "tab:main-4",
    ]  # fmt: skip
    assert labels[-2:] == ["tab:main-intervals-2", "tab:main-differences-2"]
    assert len(set(labels)) == len(labels) == 12


def test_tables_of_benchmarks_have_the_name_of_their_grid_in_their_labels() -> None:
    """Else two grids of one paper could not both be referred to."""
    of_benchmark = replace(small(), name="captions", title="captions", notes=(), grid="my_demo")
    other = replace(of_benchmark, grid="other")
    labels = [re.findall(r"\\label\{(.*)\}", latex([table])) for table in (of_benchmark, other)]
    assert labels[0] == [
        "tab:my-demo-captions", "tab:my-demo-captions-intervals", "tab:my-demo-captions-differences",
    ]  # fmt: skip
    assert labels[1][0] == "tab:other-captions"


# Escapes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b", r"a\_b"),
        ("100% & #1", r"100\% \& \#1"),
        ("{x}", r"\{x\}"),
        ("\\", r"\textbackslash{}"),
        ("~^", r"\textasciitilde{}\textasciicircum{}"),
        ("<a>", r"\textless{}a\textgreater{}"),
        ("1.0 ± 0.1", r"1.0 $\pm$ 0.1"),
        ("Δ CIDEr ↓", r"$\Delta$ CIDEr $\downarrow$"),
        ("λ=-3.0", r"$\lambda$=$-$3.0"),
        ("gpt-4", "gpt-4"),
        ("--set", "-{}-set"),
        ("---", "-{}-{}-"),
        ("''", "'{}'"),
        ("é ñ Å", r"\'{e} \~{n} \r{A}"),
        ("日", r"\texttt{U+65E5}"),
        ("a\n\nb\x1b", r"a b\texttt{U+FFFD}"),
    ],
)
def test_escapes(text: str, expected: str) -> None:
    assert tex(text) == expected


COMMANDS = {
    r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\textless{}": "<",
    r"\textgreater{}": ">", r"\textbar{}": "|", r"\`{}": "`", r"{\ttfamily\char34}": '"', r"$-$": "-", "{}": "",
    **{f"\\{one}": one for one in "{}$&%#_"},
}  # fmt: skip


def untex(text: str) -> str:
    """What LaTeX prints of escaped ASCII; fails where anything is left that means something to it."""
    found = ""
    while text:
        command = next((one for one in COMMANDS if text.startswith(one)), None)
        assert command or text[0] not in "\\{}$&%#_~^", text
        found += COMMANDS[command] if command else text[0]
        text = text[len(command or "x") :]
    return found


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
@settings(max_examples=200, deadline=None)
def test_escaped_ascii_reads_as_it_was(text: str) -> None:
    assert untex(tex(text)) == " ".join(text.split())
    assert not re.search("--|''|``|<<|>>", tex(text))


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_becomes_one_line_of_balanced_ascii(text: str) -> None:
    escaped = tex(text)
    assert escaped.isascii()
    assert escaped.isprintable()
    assert_balanced(escaped)


def awkward() -> Table:
    """Every awkward text in every place that takes one."""
    table = one(Entry(results(1.0, 2.0), mean=1.5, std=0.7, standing="best"))
    rows = tuple(
        Row(f"r{place}", text, text, {"x": Entry(gaps=(Gap("failed", text, (place,)),))}, (text,))
        for place, text in enumerate(AWKWARD)
    )
    everything = " ".join(AWKWARD)
    columns = (replace(table.columns[0], title=PUNCTUATION, group="[group]*", judge=everything),)
    about = {"title": everything, "notes": AWKWARD, "caption": AWKWARD, "options": f"--grid '{everything}'"}
    return replace(table, rows=(*table.rows, *rows), columns=columns, name="a_b %&\\", groups=("r0", "r1"), **about)


DOCUMENT = r"""
\documentclass{article}
\usepackage{booktabs}
\begin{document}
\input{plain}
\clearpage
\newcommand{\cwdpodetails}{}
\input{paper}
\clearpage
\input{awkward}
\clearpage
\listoftables
\end{document}
"""


def has_latex() -> bool:
    if not shutil.which("pdflatex"):
        return False
    return subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not has_latex(), reason="needs pdflatex with booktabs (texlive-latex-recommended)")
def test_it_compiles_and_fits_the_page(tmp_path: Path) -> None:
    (tmp_path / "plain.tex").write_text(latex([small(), replace(wide(), name="wide")]))
    (tmp_path / "paper.tex").write_text(latex([replace(small(), name="s"), replace(wide(), name="w")], paper=True))
    (tmp_path / "awkward.tex").write_text(latex([awkward()]))
    (tmp_path / "document.tex").write_text(DOCUMENT)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    for _ in range(2):  # the list of tables is there at the second
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
        assert done.returncode == 0, done.stdout[-3000:]
    log = (tmp_path / "document.log").read_text(errors="replace")
    assert "multiply" not in log
    assert "undefined" not in log
    before, _, after = log.partition("(./awkward.tex")
    assert after
    assert not re.findall(r"Overfull \\hbox.*|.*Float too large.*", before)
