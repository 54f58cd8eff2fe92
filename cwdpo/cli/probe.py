"""`cwdpo probe explain`, `replay` and `figures`: what the probes of a training tell, in words and pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cwdpo.base.errors import ConfigError, DataError, name_valid
from cwdpo.cli.app import CellArgument, GridOption, HomeOption, JsonOption, SetOption, app, open_plan, print_json

if TYPE_CHECKING:
    from cwdpo.dynamics.alarms import Evidence
    from cwdpo.dynamics.early_stop import EarlyStop
    from cwdpo.dynamics.replay import Replay
    from cwdpo.jobs.plan import Plan
    from cwdpo.report.figures.draw import Drawn

probe = typer.Typer(
    name="probe",
    help="Look at what probes recorded of a training.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(probe)

StageOption = Annotated[
    str | None, typer.Option("--stage", help="One training of the run, such as stage2.  [default: each]")
]


@probe.command(epilog="Example: cwdpo probe explain cw_dpo/0 --grid demo")
def explain(
    cell: CellArgument,
    grid: GridOption,
    stage: StageOption = None,
    override: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is alarming about the training of a run, what is in order, and what cannot be told, with the numbers."""
    from cwdpo.dynamics import explain as dynamics
    from cwdpo.jobs.probed import recorded

    plan = open_plan(grid, override, home)
    found = evidence_of(plan, cell, stage)
    if as_json:
        print_json({"run": cell, "stages": [dynamics.diagnose(evidence).as_json() for evidence in found]})
        return
    typer.echo(dynamics.explain(found))
    for name, one in recorded(plan, cell).items():
        if one.cost() and stage in (None, name):
            typer.echo(f"\n{name}: {one.cost()}")


@probe.command(epilog="Example: cwdpo probe replay cw_dpo/0 --grid demo --early-stop name=margin,patience=3")
def replay(
    cell: CellArgument,
    grid: GridOption,
    early_stop: Annotated[
        str, typer.Option("--early-stop", metavar="KEY=VALUE,...", help="Settings of the rule; its name is margin.")
    ] = "name=margin",
    stage: StageOption = None,
    override: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show where a rule would have ended the training of a run, what that saves, and the policy that it would keep."""
    from cwdpo.dynamics.early_stop.option import parse_rule

    rule = parse_rule(early_stop)
    found = {one.stage: replayed(rule, one) for one in evidence_of(open_plan(grid, override, home), cell, stage)}
    if as_json:
        stages = [{"stage": name, **_json(result)} for name, result in found.items()]
        print_json({"run": cell, "stages": stages})
    else:
        typer.echo("\n\n".join(f"{name}: {_text(result)}" for name, result in found.items()))


@probe.command(epilog="Example: cwdpo probe figures --grid demo --case dpo --case cw_dpo --stage stage2")
def figures(
    grid: GridOption,
    case: Annotated[
        list[str] | None, typer.Option("--case", help="A case to draw; may be repeated.  [default: all]")
    ] = None,
    stage: StageOption = None,
    figure: Annotated[
        list[str] | None,
        typer.Option("--figure", help="figure3 to figure6, delta_logp; may be repeated.  [default: all]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder.  [default: <home>/grids/<grid>/figures]")
    ] = None,
    override: SetOption = None,
    home: HomeOption = None,
) -> None:
    """Draw the paper's figures of learning dynamics: PNG, PDF and their data as CSV, seeds as bands."""
    plan = open_plan(grid, override, home)
    folder = out or plan.store.home / "grids" / plan.grid.name / "figures"
    for name in _stages(plan, stage):
        for drawn in _draw(plan, name, _cases(plan, case), figure, folder / name):
            typer.echo(f"{name}: {drawn.name}: {drawn.files[0] if drawn.files else 'not available'}")
            for reason in drawn.missing:
                typer.echo(f"  not available: {reason}")


def _draw(plan: Plan, stage: str, cases: list[str], figure: list[str] | None, folder: Path) -> list[Drawn]:
    """All figures of one stage, in place of those that were drawn before."""
    from cwdpo.base import files
    from cwdpo.report.figures.draw import FIGURES, draw_figures
    from cwdpo.report.gathered import gather

    for name in figure or ():
        if name not in FIGURES:
            raise ConfigError(f"--figure: unknown figure {name_valid(name, FIGURES)}")
    runs = gather(plan, stage, cases)
    with files.folder_written_whole(folder) as temporary:
        drawn = draw_figures(temporary, runs, tuple(figure or FIGURES))
    return [replace(one, files=tuple(folder / path.name for path in one.files)) for one in drawn]


def _stages(plan: Plan, stage: str | None) -> list[str]:
    """The stages that any case was probed in, or the one that was named."""
    found = list(dict.fromkeys(one.stage for wired in plan.wired.values() for one in wired.probed))
    if not found:
        raise ConfigError("nothing is probed in this grid: set probe, for example probe: {every: 100}")
    if stage is not None and stage not in found:
        raise ConfigError(f"--stage: {name_valid(stage, found)}")
    return [name for name in found if stage in (None, name)]


def _cases(plan: Plan, wanted: list[str] | None) -> list[str]:
    for case in wanted or ():
        if case not in plan.grid.cases:
            raise ConfigError(f"unknown case {name_valid(case, plan.grid.cases)}")
    return wanted or plan.grid.cases


def evidence_of(plan: Plan, cell: str, stage: str | None) -> list[Evidence]:
    """What was recorded of each training of a run, or of the one that `stage` names.

    Raises:
        ConfigError: there is no such run, or it has no such training.
    """
    from cwdpo.jobs.probed import recorded

    found = recorded(plan, cell)
    if not found:
        raise ConfigError(f"{cell} trains nothing")
    if stage is not None and stage not in found:
        raise ConfigError(f"--stage: {name_valid(stage, found)}")
    return [one.evidence(title) for title, one in found.items() if stage in (None, title)]


def replayed(rule: EarlyStop, evidence: Evidence) -> Replay | str:
    """What the rule would have done to a training, or why nobody knows."""
    from cwdpo.dynamics.replay import replay as replay_rule

    try:
        return replay_rule(rule, evidence.points, evidence.total) if evidence.points else evidence.missing
    except DataError as error:
        return str(error)


def _text(result: Replay | str) -> str:
    return f"not available: {result}" if isinstance(result, str) else result.text()


def _json(result: Replay | str) -> dict[str, Any]:
    return {"not_available": result} if isinstance(result, str) else result.as_json()
