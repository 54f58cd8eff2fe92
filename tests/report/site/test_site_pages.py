"""What stands on the pages of a report, read as files: numbers, reasons, links, and what is left out of big grids."""

from __future__ import annotations

import html
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from PIL import Image
from report.site.conftest import HOSTILE
from report.site.made_up import lines, make_up, write_grid
from typer.testing import CliRunner

from cwdpo.base.store import Store
from cwdpo.cli.main import app
from cwdpo.experiment import Cell, load_grid
from cwdpo.jobs.plan import Plan, make_plan
from cwdpo.jobs.probed import Recorded
from cwdpo.jobs.status import CellStatus, GridStatus
from cwdpo.report.content import Entry, Table
from cwdpo.report.figures.runs import Run, Runs
from cwdpo.report.matched import Result, result_of
from cwdpo.report.site.chart import chart
from cwdpo.report.site.curves import ShownChart, curves
from cwdpo.report.site.gallery import gallery
from cwdpo.report.site.limits import LIMITS
from cwdpo.report.site.pages import duration, number, slug
from cwdpo.report.site.probed import draw
from cwdpo.report.site.state import shown_state
from cwdpo.report.site.tables import marks, shown_table
from cwdpo.report.site.trainings import Training, Trainings, trainings
from cwdpo.report.site.writing import write_site
from cwdpo.report.table import Wanted, tables

VOID = {"meta", "link", "img", "input", "br"}


class Seen(HTMLParser):
    """Ids, addresses that are asked for, and texts of a page; its tags must be closed as they were opened."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == [], path

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        found = dict(attrs)
        self.ids += [str(found["id"])] if "id" in found else []
        self.addresses += [str(found[key]) for key in ("href", "src") if key in found]
        assert not [key for key in found if key == "style" or key.startswith("on")], "the policy would refuse it"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)


def pages(folder: Path) -> dict[str, Seen]:
    """Every page by its name."""
    return {path.relative_to(folder).as_posix(): Seen(path) for path in sorted(folder.rglob("*.html"))}


# ---- the folder hangs together


def test_every_link_leads_somewhere_in_the_folder(site: Path) -> None:
    found = pages(site)
    assert len(found) == 5 + 5, "five pages, and one for each case"
    for name, page in found.items():
        assert len(set(page.ids)) == len(page.ids), name
        for address in page.addresses:
            path, anchor = urldefrag(address)
            assert urlsplit(address).scheme in ("", "data"), f"{name}: {address}"
            target = (site / name).parent / unquote(path) if path else site / name
            assert address == "data:," or target.resolve().is_relative_to(site.resolve()), f"{name}: {address}"
            assert address == "data:," or target.is_file(), f"{name}: {address}"
            if anchor:
                assert anchor in found[target.resolve().relative_to(site.resolve()).as_posix()].ids, (
                    f"{name}: {address}"
                )


def test_nothing_is_asked_for_from_outside(site: Path) -> None:
    written = [path for path in site.rglob("*") if path.suffix in (".html", ".css", ".js")]
    assert {path.name for path in written} >= {"site.css", "site.js"}
    for path in written:
        assert not re.search(r"(https?:)?//[a-z0-9]|@import|url\(", path.read_text().replace("http://127.0.0.1", "")), (
            path
        )
    assert all("default-src 'none'" in path.read_text() for path in written if path.suffix == ".html")


def test_nothing_of_the_data_is_taken_for_markup(site: Path) -> None:
    raw = "".join(path.read_text() for path in site.rglob("*.html"))
    assert not any(text in raw for text in ("<script>alert", "<img src=x", "<b>bold", "<i>out", "<note>", "<sft>"))
    gallery = pages(site)["gallery-captions.html"]
    assert all(" ".join(text.split()) in gallery.text for text in HOSTILE)


# ---- tables and where they come from


def test_every_value_of_the_table_is_there_and_leads_to_its_seeds(site: Path, table: Table) -> None:
    html = (site / "index.html").read_text()
    found = pages(site)
    for row in table.rows:
        for column in table.columns:
            entry = row.entries[column.key]
            if entry.mean is None:
                continue
            shown = re.escape(f"{entry.mean:.1f}")
            (address,) = re.findall(rf'<a href="(cases/[^"]+#[^"]*{column.key}[^"]*)">(?:<strong>)?{shown}<', html)
            page = found[address.partition("#")[0]]
            for result in entry.results:
                assert f"{result.value:.1f}" in page.words
                assert result.origin in page.ids, "the row of the stage that has it"


def test_marks_are_words_and_reasons_are_told(site: Path) -> None:
    text = pages(site)["index.html"].text
    for words in ("best", "tied", "stale", "partial", "running 1/2", "queued 1/2", "failed 1/3"):
        assert words in text
    assert "failed: <i>out of memory</i> (dpo seed 2)." in text
    assert "1 The trained weights are identical to those of <sft>." in text
    assert "Two seeds cannot" not in text
    assert "scores x100; mean ± standard deviation over n seeds. two seeds cannot" in text
    assert "± is the standard deviation; n=2 where nothing else is said." in text
    assert "Differences are to base. In brackets the 95% interval. p is after Holm's correction" in text
    assert "Welch's t over seeds: speaks of new trainings." in text


def test_a_partial_cell_among_whole_ones_says_so() -> None:
    """Where all of a table is partial, its heading says that."""
    whole, partial = (Entry(mean=1.0, partial=one) for one in (False, True))
    assert [mark.text for mark in marks(partial, mixed=True)] == ["partial"]
    assert [*marks(partial, mixed=False), *marks(whole, mixed=True)] == []


def test_the_page_of_a_case_says_what_the_store_knows(plan: Plan, site: Path) -> None:
    text = pages(site)["cases/4-cw_dpo.html"].text
    for node in plan.wired["cw_dpo/0"].nodes():
        assert f"{node.stage.name}-{node.id[:16]}" in text
    assert "source perturb, for stage2" in text
    assert "objective cw_dpo, seed 1" in text
    assert "000000000000" in text, "the commit"
    assert '"learning_rate"' in text, "settings"


def test_names_of_cases_become_names_of_files() -> None:
    assert slug("hard stage2.beta=0.1/x", 3) == "3-hard-stage2.beta-0.1-x"
    assert slug("../..", 0) == "0-x"
    assert slug("ключ", 7) == "7-x"


def test_numbers_and_times() -> None:
    assert number(-1.25, 1) == "\N{MINUS SIGN}1.2"
    assert (number(-0.04, 1), number(None)) == ("0.0", "")
    assert [duration(value) for value in (None, 3.14, 59.9, 61.0, 3600.0 * 30 + 120)] == [
        "", "3.1 s", "60 s", "1 min 01 s", "30 h 02 min"
    ]  # fmt: skip


# ---- curves


def test_curves_are_means_over_seeds_with_a_band() -> None:
    seeds = {seed: recorded([{"step": step, "total": 3, "loss": seed + step} for step in (1, 2, 3)]) for seed in (0, 2)}
    found = curves(Trainings("stage1", (Training("sft", seeds),), 0))
    assert found is not None
    (one,) = found.charts
    assert one.rows == {"sft": ("2 [1, 3]", "3 [2, 4]", "4 [3, 5]")}
    assert found.csv.splitlines()[1] == "loss,sft,1,2,1,3,1.41421356,2,2"
    (line,) = one.chart.lines
    assert line.band
    assert [tick.label for tick in one.chart.x] == ["1", "2", "3"]
    start, end = (float(point.split(",")[1]) for point in (line.path[1:].split("L")[0], line.path.split("L")[-1]))
    assert start > end, "a larger loss is higher up"
    assert one.summary == "sft: 2 at step 1, 4 at step 3"


def test_a_metric_of_one_objective_has_no_line_for_others_and_no_complaint() -> None:
    with_margin = Training("dpo", {0: recorded([{"step": 1, "total": 1, "loss": 1.0, "margin": 0.5}])})
    without = Training("sft", {0: recorded([{"step": 1, "total": 1, "loss": 2.0}])})
    found = curves(Trainings("stage2", (with_margin, without), 0))
    assert found is not None
    assert {one.key: (list(one.rows), one.missing) for one in found.charts} == {
        "loss": (["dpo", "sft"], ()),
        "margin": (["dpo"], ()),
    }
    assert curves(Trainings("stage2", (Training("sft", {0: recorded([])}),), 0)) is None


def shown_loss(*seeds: list[float | None]) -> ShownChart:
    """The chart of the losses of some seeds, from step 1 on, beside a case that has all of its values."""
    made = {seed: recorded([{"step": k, "loss": loss} for k, loss in enumerate(seeds[seed], 1)]) for seed in range(3)}
    found = curves(Trainings("stage2", (Training("dpo", made), Training("sft", {0: made[0]})), 0))
    assert found is not None
    (one,) = found.charts
    return one


def test_where_seeds_have_diverged_a_line_is_dotted_and_says_so() -> None:
    one = shown_loss([1.0] * 5, [2.0, 2.0, None, None, None], [3.0, 3.0, None, None, None])
    dpo, sft = one.chart.lines
    assert [len(re.findall("[ML]", path)) for path in (dpo.path, dpo.dotted)] == [2, 4], "dotted from step 2 to 5"
    assert dpo.path.split("L")[-1] == dpo.dotted[1:].split("L")[0], "they meet"
    assert (sft.path.count("L"), sft.dotted) == (4, "")
    assert (dpo.label, sft.label) == ("dpo, 3 seeds; from step 3 on, 1 of 3 seeds", "sft, 1 seed")
    assert one.fewer == ("dpo: from step 3 on, 1 of 3 seeds",)
    assert one.rows["dpo"][1:3] == ("2 [1, 3]", "1 (1 of 3)")
    assert one.summary.startswith("dpo: 2 at step 1, 1 at step 5 (from step 3 on, 1 of 3 seeds); sft: ")


def test_what_fewer_seeds_have_is_told_stretch_by_stretch_or_counted() -> None:
    whole = [1.0] * 9
    gaps = [1.0, None, 1.0, 1.0, None, None, 1.0, 1.0, None]
    assert shown_loss(whole, whole, gaps).fewer == (
        "dpo: at step 2, 2 of 3 seeds; from step 5 to 6, 2 of 3 seeds; from step 9 on, 2 of 3 seeds",
    )
    many = [1.0, None] * 4 + [1.0]
    assert shown_loss(whole, whole, many).fewer == ("dpo: at 4 of 9 points, 2 of 3 seeds",)
    assert shown_loss(whole, [*[1.0] * 7, None, 1.0], many).fewer == ("dpo: at 4 of 9 points, 1 to 2 of 3 seeds",)
    assert shown_loss(whole, whole, whole).fewer == ()


def test_a_band_does_not_bridge_where_there_is_one_seed() -> None:
    other = [2.0, 2.0, None, 2.0, 2.0]
    dpo, _ = shown_loss([1.0] * 5, other, other).chart.lines
    assert dpo.band.count("Z") == 2


def test_a_seed_without_any_finite_value_is_told() -> None:
    one = shown_loss([1.0] * 2, [None] * 2, [1.0] * 2)
    assert one.missing == ("dpo: 1 of 3 seeds: no value is a finite number",)


def test_pages_say_which_seeds_have_diverged(plan: Plan, tmp_path: Path) -> None:
    changed = copied(plan, tmp_path)
    (node,) = (node for node in changed.wired["cw_dpo/1"].nodes() if node.stage.name == "stage2")
    events = node.artefact(changed.store).attempts / "1" / "events.jsonl"
    rows = [json.loads(line) for line in events.read_text().splitlines()]
    events.write_bytes(lines([{**row, "loss": None} if row["step"] > 20 else row for row in rows]))
    index = write_site(changed, [], tmp_path / "html")
    found = pages(index.parent)
    curves_page = found["curves.html"].text
    assert "A line is dotted where some of its seeds have no value" in curves_page
    assert "Dotted: cw_dpo: from step 21 on, 1 of 2 seeds." in curves_page
    assert (index.parent / "curves.html").read_text().count('stroke-dasharray="1.5 3"') == 1
    assert "loss is not a finite number at step 21." in found["diagnosis.html"].text


def copied(plan: Plan, folder: Path) -> Plan:
    """The made-up grid in another home."""
    home = shutil.copytree(plan.store.home, folder / "home")
    return make_plan(load_grid(str(write_grid(folder / "made-up.yaml", (0, 1)))), Store(home))


@pytest.mark.parametrize(("cases", "said"), [(2, ""), (3, "sft and 2 that share it: sft, b, c"), (12, "folded")])
def test_cases_that_share_a_training_are_named(cases: int, said: str, tmp_path: Path) -> None:
    """In full, also where a label names only the first of them."""
    names = ["sft", *"bcdefghijkl"][:cases]
    content = {name: {"stage1": {"objective": {"name": "sft"}}} for name in names}
    base = {"data": {"source": "demo_world"}, "model": "tiny", "benchmarks": []}
    path = tmp_path / "alike.yaml"
    path.write_text(json.dumps({"base": base, "cases": content}))
    plan = make_plan(load_grid(str(path)), Store(tmp_path / "home"))
    ((stage1,),) = [found.shown for found in trainings(plan)]
    assert (stage1.cases, stage1.shared_by) == (tuple(names), tuple(names) if said else ())
    (node,) = (node for node in plan.nodes if node.stage.name == "stage1")
    events = node.artefact(plan.store).attempts / "1" / "events.jsonl"
    events.parent.mkdir(parents=True)
    events.write_bytes(lines([{"event": "step", "step": 1, "total": 1, "loss": 1.0}]))
    found = pages(write_site(plan, [], tmp_path / "html").parent)
    texts = {name: found[f"{name}.html"].text for name in ("curves", "diagnosis")}
    if said == "folded":
        assert f"sft and 11 that share it: the 12 cases {', '.join(names)}" in texts["curves"]
        assert f"Shared by 12 cases {', '.join(names)}" in texts["diagnosis"]
    elif said:
        assert said in texts["curves"]
        assert "Shared by: sft, b, c" in texts["diagnosis"]
    else:
        assert not any("hared by" in text or "share it" in text for text in texts.values())


def test_a_constant_is_drawn_in_the_middle() -> None:
    import pandas as pd

    rows = pd.DataFrame(
        [{"line": "a", "step": step, "mean": 0.0, "low": 0.0, "high": 0.0, "n": 1, "seeds": 1} for step in (1, 2)]
    )
    (line,) = chart(rows, ["a"]).lines
    assert {point.split(",")[1] for point in line.path[1:].split("L")} == {"106"}, "between 10 and 202"


def recorded(points: list[dict[str, Any]]) -> Recorded:
    """A training without probes."""
    return Recorded(None, "not probed", points, "sft", None)


def test_figures_of_learning_dynamics_are_drawn_once_and_alike(tmp_path: Path) -> None:
    runs = Runs("stage1", {"sft": {0: Run({1: 2.0, 2: 1.0})}})
    figure3, *others = draw(runs, tmp_path)
    assert (figure3.name, figure3.image) == ("figure3", "figures/stage1-0-figure3.svg")
    assert [one for one in others if one.image] == []
    assert ("Training loss", "sft", "step 2", "1", "1", "1", "1") in figure3.rows
    content = (tmp_path / figure3.image).read_text()
    assert content.startswith("<?xml")
    assert content.count("<svg") == 1
    first = next(draw(runs, tmp_path / "again"))
    assert (tmp_path / "again" / first.image).read_text() == content


# ---- gallery


def test_the_gallery_is_bounded_and_begins_where_methods_differ_most(tmp_path: Path) -> None:
    plan = make_up(tmp_path / "made", seeds=(0,), items=62)
    found = gallery(plan, "captions", "gallery-captions.html", tmp_path / "site")
    assert (len(found.items), found.of) == (60, 62)
    spreads = [
        max(values) - min(values) for values in ([float(one.sort) for one in item.answers] for item in found.items)
    ]
    assert spreads == sorted(spreads, reverse=True)
    (first,) = found.items[0].pictures
    with Image.open(tmp_path / "site" / first.href) as image:
        assert (image.format, image.size) == ("JPEG", (first.width, first.height))
    assert {one.standing for one in found.items[0].answers} >= {"best", "worst"}


def unscored(plan: Plan, *cells: str) -> None:
    """Cells whose answers nobody has scored yet."""
    for cell in cells:
        (plan.wired[cell].scores["captions"].artefact(plan.store).folder / "DONE").unlink()


def test_a_method_is_shown_by_its_first_seed_that_has_answers(plan: Plan, tmp_path: Path) -> None:
    changed = copied(plan, tmp_path)
    unscored(changed, "sft/0", "dpo/0", "cw_dpo/0", "cw_dpo/1")
    found = gallery(changed, "captions", "gallery-captions.html", tmp_path / "site")
    assert found.methods == {"base": "base/0", "sft": "sft/1", "sft_c": "sft_c/0", "dpo": "dpo/1"}
    assert [reason.partition(":")[0] for reason in found.missing] == ["sft/0", "dpo/0", "cw_dpo/0"]
    assert (found.fault, found.left_out, found.of) == ("", 0, 8)


def test_methods_with_answers_are_looked_for_beyond_the_first(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = copied(plan, tmp_path)
    unscored(changed, "base/0", "sft/0", "sft/1")
    monkeypatch.setattr("cwdpo.report.site.gallery.LIMITS", LIMITS._replace(methods=2, told=1))
    found = gallery(changed, "captions", "gallery-captions.html", tmp_path / "site")
    assert list(found.methods) == ["sft_c", "dpo"]
    assert (len(found.missing), found.more_missing, found.left_out) == (1, 1, 1)
    text = pages(write_site(changed, [], tmp_path / "html").parent)["gallery-captions.html"].text
    assert "Left out as well: 1 more cell without answers." in text
    assert "1 more method of the grid is not shown" in text


def test_the_gallery_reads_no_more_answers_than_it_shows(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every byte that is read is hashed: a grid of thousands of cells would take minutes."""
    changed = copied(plan, tmp_path)
    unscored(changed, "sft/0", "sft/1", "sft_c/0", "sft_c/1")
    read: list[str] = []

    def counted(plan: Plan, cell: Cell, *rest: Any) -> Result:
        read.append(cell.name)
        return result_of(plan, cell, *rest)

    monkeypatch.setattr("cwdpo.report.site.gallery.result_of", counted)
    monkeypatch.setattr("cwdpo.report.site.gallery.LIMITS", LIMITS._replace(methods=2, told=1))
    gallery(changed, "captions", "gallery-captions.html", tmp_path / "site")
    assert read == ["base/0", "dpo/0", "sft/0"], "what is shown, and the one reason that is told"


# ---- what is damaged, and what is big


def test_damage_is_told_and_stops_nothing(plan: Plan, table: Table, tmp_path: Path) -> None:
    broken = copied(plan, tmp_path)
    for name, path in damages(broken):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] + b"\xff[]\n3\n") if name else path.unlink()
    found = pages(write_site(broken, [replace(table, name="x")], tmp_path / "html").parent)
    text = found["index.html"].text
    assert "damaged" in text
    shown = found["gallery-captions.html"].text
    assert "3.jpg: no such file" in shown
    assert "Left out: dpo/0" in shown
    assert "its files cannot be read" in found["cases/2-sft_c.html"].text


def damages(plan: Plan) -> Iterator[tuple[str, Path]]:
    """Files to spoil, each of another kind; those without a name are removed."""
    nodes = {
        cell: {node.stage.name: node.artefact(plan.store) for node in plan.wired[cell].nodes()} for cell in plan.wired
    }
    yield "", nodes["dpo/0"]["world"].files / "images" / "3.jpg"
    yield "items", nodes["dpo/0"]["score"].files / "items.parquet"
    yield "events", nodes["sft/0"]["stage1"].attempts / "1" / "events.jsonl"
    yield "DONE", nodes["cw_dpo/0"]["stage2"].folder / "DONE"
    yield "claim", nodes["sft_c/0"]["stage1"].attempts / "1" / "claim.json"
    yield "card", nodes["sft_c/1"]["stage1"].folder / "stage.json"


def test_a_big_table_is_cut_and_that_is_said(table: Table) -> None:
    row = table.rows[-1]
    big = replace(table, rows=tuple(replace(row, key=f"case {place}", label=f"case {place}") for place in range(2010)))
    found = shown_table(big, 0, {"case 3": "cases/3.html"})
    assert (len(found.rows), found.left_out) == (2000, 10)
    assert found.rows[3].entries[0].href.startswith("cases/3.html#")
    assert found.rows[4].entries[0].href == ""


@pytest.mark.parametrize("asked", [(), ("PATH",)])
def test_the_command_that_shows_all_rows_does(
    plan: Plan, asked: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "it's mine.yaml"
    rows = {case: {"stands_on": "none"} for case in plan.grid.cases}
    columns = {"cider": {"benchmark": "captions", "metric": "cider"}}
    path.write_text(json.dumps({"title": "Mine", "grids": ["x"], "columns": columns, "rows": rows}))
    wanted = Wanted(tuple(str(path) if one == "PATH" else one for one in asked), paper=True)
    monkeypatch.setattr("cwdpo.report.site.tables.LIMITS", LIMITS._replace(cases=1))
    index = write_site(plan, tables(plan, wanted=wanted), tmp_path / "html")
    found = re.search(r"rows are shown; the other .*? are in <code>(.*?)</code>", index.read_text(encoding="utf-8"))
    assert found
    program, *words = shlex.split(html.unescape(found[1]))
    assert program == "cwdpo"
    done = CliRunner().invoke(app, [*words, "--home", str(plan.store.home)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert all(f'"{case}"' in done.stdout for case in plan.grid.cases)


def test_a_big_grid_is_counted_by_case(plan: Plan) -> None:
    cells = [
        CellStatus(f"a {case}", seed, "a", {"score": "done" if seed else "failed"})
        for case in range(90)
        for seed in (0, 1)
    ]
    done = dict.fromkeys((node.id for node in plan.nodes), "done")
    failures = [(f"score-{place}", "out of memory\nlog: x") for place in range(70)]
    found = shown_state(plan, GridStatus(done, cells, failures, [], {}, []))  # type: ignore[arg-type]
    assert (found.folded, found.by) == (True, "case")
    assert found.rows["a 7"] == {"score": "1 done\n1 failed"}
    assert (len(found.failures), found.more_failures) == (50, 20)
    assert found.failures[0] == ("score-0", "out of memory")
    assert found.counts == {"done": 10}


@pytest.mark.parametrize(
    ("cases", "seeds", "by", "rows"),
    [(50, 2, "cell", 100), (51, 2, "case", 51), (101, 1, "case of the grid file", 2)],
)
def test_rows_of_the_state_say_what_they_are(plan: Plan, cases: int, seeds: int, by: str, rows: int) -> None:
    cells = [
        CellStatus(f"{'ab'[case % 2]} {case}", seed, "ab"[case % 2], {"score": "done"})
        for case in range(cases)
        for seed in range(seeds)
    ]
    done = dict.fromkeys((node.id for node in plan.nodes), "done")
    found = shown_state(plan, GridStatus(done, cells, [], [], {}, []))  # type: ignore[arg-type]
    assert (found.by, len(found.rows), found.folded) == (by, rows, by != "cell")


def test_a_grid_without_trainings_and_without_values(tmp_path: Path) -> None:
    grid = tmp_path / "empty.yaml"
    grid.write_text("base: {data: {source: demo_world}, model: tiny, benchmarks: [{name: captions}]}\n")
    plan = make_plan(load_grid(str(grid)), Store(tmp_path / "home"))
    table = Table("captions", "Captions", "empty", "--grid empty", "", (), (), "default")
    found = pages(write_site(plan, [table], tmp_path / "html").parent)
    assert "0 of 1 cell done" in found["index.html"].text
    assert "no method has answers yet" in found["gallery-captions.html"].text
    assert "Nothing is trained in this grid." in found["curves.html"].text
    assert "Nothing is trained in this grid." in found["diagnosis.html"].text


# ---- colours


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`, WCAG 2.2."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_contrast(site: Path, scheme: int) -> None:
    """At least 4.5 : 1 (WCAG AA) wherever a colour is read, and 3 : 1 for lines of charts."""
    blocks = re.findall(r":root \{(.*?)\}", (site / "site.css").read_text(), re.DOTALL)
    named = dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[scheme]))
    pairs = [(ink, ground, 4.5) for ink in ("ink", "soft", "link", "focus") for ground in ("ground", "panel")]
    pairs += [(kind, f"{kind}-ground", 4.5) for kind in ("good", "bad", "warn", "calm", "busy")]
    pairs += [("ink", "warn-ground", 4.5), ("soft", "warn-ground", 4.5), ("good", "ground", 4.5)]
    pairs += [(f"c{place}", "ground", 3.0) for place in range(7)]
    for ink, ground, least in pairs:
        light, dark = sorted((luminance(named[ink]), luminance(named[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= least, (ink, ground)
