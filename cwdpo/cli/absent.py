"""What has to be brought before a plan can be submitted, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cwdpo.data.sources import Files
from cwdpo.evaluate.benchmarks.benchmark import Questions
from cwdpo.evaluate.benchmarks.captions import PreparedCaptions
from cwdpo.evaluate.prepared import settings_of, ways
from cwdpo.jobs.plan import Plan
from cwdpo.model.config import Checkpoint
from cwdpo.supplies import Absent


def absent_lines(plan: Plan) -> Iterator[tuple[str, str]]:
    """Of each thing that is not there, what was found and what to do."""
    for one in plan.absent:
        yield f"{one.kind} {_name(one)}: {_why(one)}", _remedy(one, plan)


def absent_json(plan: Plan) -> list[dict[str, Any]]:
    """The same for a script."""
    return [
        {"kind": one.kind, "name": _name(one), "why": _why(one), "remedy": _remedy(one, plan)} for one in plan.absent
    ]


def _name(one: Absent) -> str:
    if isinstance(one.settings, Files):
        return str(one.settings.root / one.settings.annotations)
    return one.settings.path if isinstance(one.settings, Checkpoint) else str(getattr(one.settings, "name", ""))


def _why(one: Absent) -> str:
    """What was found, without what is said beside it: the key, the name, and the advice of `_remedy`."""
    text = one.why.removeprefix("data.root: ").removeprefix("model.path: ")
    text = text.removeprefix(f"benchmark '{_name(one)}' is ").partition("; where there is internet")[0]
    return text.partition(", then run: ")[0]


def _remedy(one: Absent, plan: Plan) -> str:
    """What to type."""
    if isinstance(one.settings, Files):
        return _where_it_is(one.settings, plan)
    if isinstance(one.settings, Checkpoint):
        return f"cwdpo fetch {plan.grid.options}"
    assert isinstance(one.settings, Questions | PreparedCaptions), "there is nothing else that is prepared"
    return ways(type(one.settings), one.settings.name, settings_of(one.settings))


def _where_it_is(data: Files, plan: Plan) -> str:
    """`--set data.root` moves the data of all cells, so it is for a grid whose data lie in one folder."""
    if {getattr(cell.experiment.data, "root", None) for cell in plan.grid.cells} == {data.root}:
        return "put the data there, or say where it is: --set data.root=FOLDER"
    return f"put the data there, or change its `root: {data.root}` in the grid"
