"""One made-up grid and one browser for all pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from report.site.made_up import change_answers, difference, gap, make_up, table_of

from cwdpo.jobs.plan import Plan
from cwdpo.report.content import Entry, Table
from cwdpo.report.site.writing import write_site

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror="document.title=1">',
    "</script></style><b>bold</b>",
    "it's \"quoted\" & 'single' {{ 7 * 7 }} %}",
    "\u202eרמז על כדור אדום\u202c قطة حمراء",
    "javascript:alert(1)",
)
"""Answers of one method, item by item."""


@pytest.fixture(scope="session")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A finished grid with hostile answers of `sft/0`; who changes it takes a copy."""
    made = make_up(tmp_path_factory.mktemp("made-up"), seeds=(0, 1), items=8)
    change_answers(made, "sft/0", lambda row: {**row, "text": dict(enumerate(HOSTILE, 1)).get(int(row["id"]), "same")})
    return made


@pytest.fixture(scope="session")
def table(plan: Plan) -> Table:
    """A table with every mark there is."""
    found = table_of(plan)
    rows = {row.key: row for row in found.rows}
    changed = {
        "sft": {**rows["sft"].entries, "captions_cider": Entry(gaps=(gap("running"), gap("queued", seeds=(1,))))},
        "sft_c": {key: replace(one, results=(replace(one.results[0], stale=True), *one.results[1:]))
                  for key, one in rows["sft_c"].entries.items()},
        "dpo": {key: replace(one, standing="tied", partial=True, gaps=(gap("failed", "<i>out of memory</i>", (2,)),),
                             difference=difference(3.0)) for key, one in rows["dpo"].entries.items()},
        "cw_dpo": {key: replace(one, standing="best", paper=100.0, difference=difference(-9.0, 0.0001))
                   for key, one in rows["cw_dpo"].entries.items()},
    }  # fmt: skip
    marks = {"dpo": ("the trained weights are identical to those of <sft>",)}
    made = [replace(row, entries=changed.get(row.key, row.entries), marks=marks.get(row.key, ())) for row in found.rows]
    caption = ("scores x100; mean ± standard deviation over n seeds", "two seeds cannot show small differences")
    return replace(found, rows=tuple(made), paper="Table 1", caption=caption, notes=("a <note>",), groups=("dpo",))


@pytest.fixture(scope="session")
def site(plan: Plan, table: Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole report."""
    return write_site(plan, [table], tmp_path_factory.mktemp("site") / "html").parent


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
DRIVER = shutil.which("chromedriver") or ""
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Chromium."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("there is no chromium, or no chromedriver, on this machine")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()
