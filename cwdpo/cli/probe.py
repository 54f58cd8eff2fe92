"""`cwdpo probe explain` and `replay`: what the probes of a training tell, and when a rule would have ended it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cwdpo.base.errors import ConfigError, DataError, name_valid
from cwdpo.cli.app import CellArgument, GridOption, HomeOption, JsonOption, SetOption, app, open_plan, print_json

if TYPE_CHECKING:
    from cwdpo.dynamics.alarms import Evidence
    from cwdpo.dynamics.early_stop import EarlyStop
    from cwdpo.dynamics.replay import Replay
    from cwdpo.jobs.plan import Plan
    from cwdpo.jobs.probed import Recorded

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

    found = evidence_of(open_plan(grid, override, home), cell, stage)
    if as_json:
        print_json({"run": cell, "stages": [dynamics.diagnose(evidence).as_json() for evidence in found]})
    else:
        typer.echo(dynamics.explain(found))


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
    return [_evidence(title, one) for title, one in found.items() if stage in (None, title)]


def _evidence(title: str, found: Recorded) -> Evidence:
    from cwdpo.dynamics.alarms import Evidence
    from cwdpo.dynamics.points import points_of

    points = points_of(found.probes) if found.probes else ()
    return Evidence(title, found.objective, points, found.training, found.missing, found.total)


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
