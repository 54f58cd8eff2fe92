"""The whole report as one folder: what is on which page."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.jobs.plan import Plan
from cwdpo.jobs.status import GridStatus, Overlay, grid_status
from cwdpo.report.content import Table
from cwdpo.report.provenance import Origins
from cwdpo.report.site.cases import case_pages, shown_cases
from cwdpo.report.site.curves import Curves, curves
from cwdpo.report.site.diagnosis import diagnosed
from cwdpo.report.site.folder import report_folder
from cwdpo.report.site.gallery import gallery
from cwdpo.report.site.limits import LIMITS
from cwdpo.report.site.pages import Entry, Pages
from cwdpo.report.site.probed import draw_probed
from cwdpo.report.site.state import shown_state
from cwdpo.report.site.tables import ShownTable, shown_table
from cwdpo.report.site.trainings import Trainings, trainings
from cwdpo.version import code_version

INDEX = "index.html"


def default_folder(plan: Plan) -> Path:
    """Where the report of a grid goes unless another folder is named."""
    return plan.folder / "html"


def write_site(plan: Plan, tables: Sequence[Table], folder: Path, overlay: Overlay | None = None) -> Path:
    """Write the report of a grid into a folder, whole or not at all, in place of an earlier one.

    Returns the path of its first page.

    Args:
        overlay: what a scheduler knows beyond the store.

    Raises:
        ConfigError: the folder has files that no report wrote; nothing is touched.
        StoreError: it cannot be written.
    """
    with report_folder(folder) as temporary:
        status = grid_status(plan, overlay)
        pages = Pages(temporary, _about(plan), _navigation(plan))
        pages.write_assets()
        linked = case_pages(plan)
        shown = [shown_table(table, place, linked) for place, table in enumerate(tables)]
        _write_index(pages, plan, status, shown)
        _write_trainings(pages, plan)
        for entry in _galleries(plan):
            _write_gallery(pages, plan, entry)
        _write_cases(pages, plan, status, shown)
    return folder / INDEX


def _about(plan: Plan) -> Mapping[str, Any]:
    code = code_version()
    commit = f", commit {str(code['commit'])[:12]}{' with changes' if code['dirty'] else ''}" if code["commit"] else ""
    return {
        "grid": plan.grid.name,
        "description": plan.grid.description,
        "options": plan.grid.options,
        "home": str(plan.store.home.resolve()),
        "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "version": f"cwdpo {code['version']}{commit}",
        "limits": LIMITS,
    }


def _galleries(plan: Plan) -> list[Entry]:
    """A page for each benchmark."""
    names = dict.fromkeys(name for wired in plan.wired.values() for name in wired.scores)
    return [Entry(f"gallery-{name}.html", name) for name in names]


def _navigation(plan: Plan) -> tuple[Entry, ...]:
    galleries = _galleries(plan)
    return (
        Entry(INDEX, "Tables"),
        Entry("curves.html", "Curves and figures"),
        *([Entry(galleries[0].href, "Gallery")] if galleries else []),
        Entry("diagnosis.html", "Diagnosis"),
        Entry("cases.html", "Provenance"),
    )


def _write_index(pages: Pages, plan: Plan, status: GridStatus, shown: Sequence[ShownTable]) -> None:
    state = shown_state(plan, status)
    pages.write(INDEX, "index", plan.grid.name, tables=shown, state=state)


def _write_trainings(pages: Pages, plan: Plan) -> None:
    found = trainings(plan)
    drawn = [(one, _curves(pages, one)) for one in found]
    figures = draw_probed(plan, pages.folder)
    pages.write("curves.html", "curves", "Curves and figures", stages=drawn, probed=figures)
    left_out = {one.stage: one.left_out for one in found}
    pages.write("diagnosis.html", "diagnosis", "Diagnosis", found=diagnosed(found), left_out=left_out)


def _curves(pages: Pages, found: Trainings) -> Curves | None:
    made = curves(found)
    if made:
        files.write_text(pages.folder / f"figures/{made.stage}.csv", made.csv)
    return made


def _write_gallery(pages: Pages, plan: Plan, entry: Entry) -> None:
    found = gallery(plan, entry.label, entry.href, pages.folder)
    galleries = _galleries(plan)
    title = f"Gallery: {entry.label}"
    pages.write(entry.href, "gallery", title, galleries[0].href, gallery=found, galleries=galleries)


def _write_cases(pages: Pages, plan: Plan, status: GridStatus, shown: Sequence[ShownTable]) -> None:
    origins = Origins(plan, status.states)
    tables = [(one.table, f"{INDEX}#{one.anchor}") for one in shown]
    listed = []
    for case in shown_cases(plan, origins, tables):
        pages.write(case.path, "case", f"{case.case}: where it comes from", "cases.html", case=case)
        listed.append((case.case, case.path, case.seeds, case.facts))
    left_out = len(plan.grid.cases) - len(listed)
    pages.write("cases.html", "cases", "Provenance", cases=listed, left_out=left_out)
