"""`cwdpo doctor`: what will not work, and what to do about it, before anything is submitted."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cwdpo.base.errors import ConfigError, Interrupted
from cwdpo.cli.app import ClusterOption, HomeOption, JsonOption, SetOption, Source, app, print_json

if TYPE_CHECKING:
    from cwdpo.jobs.doctor.check import Finding
    from cwdpo.jobs.doctor.login import Patient

COLOURS = {"ok": "green", "warning": "yellow", "failure": "red"}
WIDTH = 20


@app.command(
    epilog="Exit status: 0 nothing failed, though there may be warnings; 1 something failed."
    " Example: cwdpo doctor --cluster mine --grid coco --submit"
)
def doctor(
    cluster: ClusterOption = None,
    grid: Annotated[
        str | None,
        typer.Option("--grid", "-g", help="Look at the data and models of this grid, too: a name or a path."),
    ] = None,
    override: SetOption = None,
    home: HomeOption = None,
    submit: Annotated[
        bool, typer.Option("--submit", help="Slurm: one short job looks at compute nodes, in what jobs run in.")
    ] = False,
    wait: Annotated[float, typer.Option("--wait", min=0.1, help="Minutes to wait until that job starts.")] = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Check profile, image, store, Slurm's limits, tracking and tools; say what does not work and the remedy.

    A line each: ok, warning or failure. Computes nothing.
    """
    from cwdpo.jobs.doctor.login import Patient

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    source = Source(grid or "", tuple(override or []), home)
    if override and not grid:
        raise ConfigError("--set changes a grid: say which one with --grid")
    patient = Patient(source.store.home, cluster, source.load if grid else None)
    shown: dict[str, list[Finding]] = {"login": _printed(patient.login(), as_json)}
    if submit:
        if not as_json:
            typer.echo("On compute nodes:")
        shown["nodes"] = _printed(_probed(patient, 60 * wait), as_json)
    _conclude(shown, patient, as_json)


def _interrupt(number: int, frame: object) -> None:
    """A closed terminal or a `kill` takes the job away as Ctrl-C does."""
    raise Interrupted(f"stopped by {signal.Signals(number).name}")


def _printed(findings: Iterable[Finding], as_json: bool) -> list[Finding]:
    """All of them, each shown as soon as it is known."""
    found = []
    for finding in findings:
        found.append(finding)
        if not as_json:
            typer.echo(typer.style(finding.level, fg=COLOURS[finding.level]) + line(finding)[len(finding.level) :])
    return found


def line(finding: Finding) -> str:
    """One line: level, what was looked at, what it is like, and the remedy."""
    where = f"{', '.join(finding.nodes)}: " if finding.nodes else ""
    remedy = f" -> {finding.remedy}" if finding.remedy else ""
    text = " ".join(f"{where}{finding.found}{remedy}".split())
    return f"{finding.level:8} {finding.name:{WIDTH}} {text}"


def _probed(patient: Patient, seconds: float) -> Iterable[Finding]:
    """What a job finds on compute nodes; where none can be sent, that."""
    from cwdpo.jobs.clusters import SlurmCluster
    from cwdpo.jobs.doctor.check import guarded, unchecked
    from cwdpo.jobs.doctor.data import Assets, assets_of
    from cwdpo.jobs.doctor.probe import Probe

    if not isinstance(patient.cluster, SlurmCluster):
        reason = "its profile cannot be read" if patient.cluster is None else "the profile is no Slurm cluster's"
        yield unchecked("probe job", reason, "--cluster: a profile of kind slurm")
        return
    assets = assets_of(patient.grid) if patient.grid else Assets()
    probe = Probe(patient.cluster, patient.home, assets, lambda text: typer.echo(text, err=True))
    yield from guarded("probe job", probe.run, seconds)


def _conclude(shown: dict[str, list[Finding]], patient: Patient, as_json: bool) -> None:
    from cwdpo.jobs.clusters import SlurmCluster

    levels: list[str] = [finding.level for findings in shown.values() for finding in findings]
    counts = {level: levels.count(level) for level in COLOURS}
    if as_json:
        print_json(_as_json(shown, counts))
    else:
        typer.echo(f"{counts['ok']} ok, {counts['warning']} warning(s), {counts['failure']} failure(s)")
        if "nodes" not in shown and isinstance(patient.cluster, SlurmCluster):
            typer.echo("What compute nodes are like was not checked: --submit sends them one short job.")
    raise typer.Exit(1 if counts["failure"] else 0)


def _as_json(shown: dict[str, list[Finding]], counts: dict[str, int]) -> dict[str, Any]:
    places = {place: [finding.as_json() for finding in findings] for place, findings in shown.items()}
    return {"ok": counts["failure"] == 0, "counts": counts, "nodes": None, **places}
