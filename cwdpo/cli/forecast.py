"""What `plan` prints: the stages of a grid, what is missing before `submit`, and the forecast."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from cwdpo.cli.absent import absent_json, absent_lines
from cwdpo.cli.show import GAP, MOST_ROWS, Rows, console, duration, print_table, print_text
from cwdpo.cli.sizes import human
from cwdpo.graph import Node
from cwdpo.jobs.clusters import Cluster, SlurmCluster
from cwdpo.jobs.forecast.budget import Budget
from cwdpo.jobs.forecast.fitting import Fit
from cwdpo.jobs.forecast.forecast import TRAININGS, Forecast
from cwdpo.jobs.forecast.memory import Parts
from cwdpo.jobs.forecast.ranges import Range
from cwdpo.jobs.kept import starting_distributions
from cwdpo.jobs.plan import Plan, Shown
from cwdpo.jobs.status import counted
from cwdpo.pipeline import STAGES

MOST_CELLS = 8
"""Cells of a budget that are named."""


@dataclass(frozen=True)
class Question:
    """What is asked about a plan.

    Attributes:
        budget: hours.
        queue: jobs in Slurm's queue at a time.
        nodes: that jobs get at a time.
    """

    cluster: Cluster
    budget: float | None = None
    queue: int | None = None
    nodes: int | None = None


@dataclass(frozen=True)
class Answer:
    """A plan as it stands, with its forecast."""

    plan: Plan
    states: Mapping[str, Shown]
    forecast: Forecast
    budget: Budget | None

    def as_json(self) -> dict[str, Any]:
        """The plan, what is missing before it can be submitted, and the forecast."""
        provisional = [node.id for node in self.plan.nodes if node.provisional]
        return {
            **self.plan.as_json(self.states),
            "before_submit": absent_json(self.plan),
            "provisional": provisional,
            "forecast": self.forecast.as_json(self.budget),
        }


def answered(plan: Plan, question: Question) -> Answer:
    """A plan as it stands now, and what the rest of it takes."""
    states = plan.states()
    forecast = Forecast(plan, states, question.cluster, question.queue, question.nodes)
    return Answer(plan, states, forecast, None if question.budget is None else forecast.budget(question.budget))


def print_plan(answer: Answer, every: bool = False) -> None:
    """Distinct stages, how many cells use each, and what is done; then what is missing, and the forecast."""
    screen, plan, states = console(), answer.plan, answer.states
    print_text(screen, f"{plan.grid.name}: {plan.grid.description}\n")
    if every or len(plan.nodes) <= MOST_ROWS:
        print_table(screen, ("stage", "id", "cells", "state", "reads"), _stage_rows(plan, states, screen.width))
    else:
        print_table(screen, ("stage", "distinct", "state"), _folded_stages(plan, states))
        print_text(screen, "\n--all shows every stage")
    done = sum(state == "done" for state in states.values())
    print_text(
        screen,
        f"\n{len(plan.grid.cells)} cells, {len(plan.nodes)} distinct stages"
        f" ({plan.naive_count()} if nothing were shared), {done} done",
    )
    _print_absent(screen, plan)
    if not any(one.kind == "model" for one in plan.absent) and (kept := starting_distributions(plan.grid)):
        print_text(screen, kept)
    _print_forecast(screen, answer)


def _print_absent(screen: Console, plan: Plan) -> None:
    """What is not there, below a heading; nothing where all is."""
    if plan.absent:
        _print_wrapped(screen, "\nbefore submit (until then ids that end in ~ are provisional, and so is the rest):")
    for why, remedy in absent_lines(plan):
        _print_wrapped(screen, f"  {why}", indent=4)
        print_text(screen, f"    {remedy}")  # to be copied: never broken in two


def _print_wrapped(screen: Console, text: str, indent: int = 2) -> None:
    """A sentence, in as many lines as it takes; what has no blanks stays whole."""
    print_text(
        screen,
        textwrap.fill(
            text, screen.width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False,
            replace_whitespace=False,
        ),
    )  # fmt: skip


def _stage_rows(plan: Plan, states: Mapping[str, Shown], width: int) -> Rows:
    """A row per distinct stage, in the order of the data path; a provisional id has a mark behind it."""
    uses = Counter(node.id for wired in plan.wired.values() for node in wired.nodes())
    order = list(STAGES)
    nodes = sorted(plan.nodes, key=lambda node: order.index(node.stage.name))
    rows = [(node.title, _shown_id(node), str(uses[node.id]), states[node.id]) for node in nodes]
    left = width - sum(max(map(len, column)) + len(GAP) for column in zip(*rows, strict=True))
    return [(*row, _reads(node, left)) for row, node in zip(rows, nodes, strict=True)]


def _shown_id(node: Node) -> str:
    return f"{node.id[:16]}{'~' if node.provisional else ''}"


def _reads(node: Node, width: int) -> str:
    """The stages a node reads, as many on a line as fit."""
    lines = [""]
    for parent in node.parents:
        item = f"{parent.stage.name} {parent.id[:6]}"
        if lines[-1] and len(lines[-1]) + len(item) + 2 >= width:
            lines.append("")
        lines[-1] += f", {item}" if lines[-1] else item
    return ",\n".join(lines)


def _folded_stages(plan: Plan, states: Mapping[str, Shown]) -> Rows:
    """A row per kind of stage."""
    found: dict[str, Counter[str]] = {name: Counter() for name in STAGES}
    for node in plan.nodes:
        found[node.stage.name][states[node.id]] += 1
    return [(name, str(counts.total()), counted(counts)) for name, counts in found.items() if counts]


def _print_forecast(screen: Console, answer: Answer) -> None:
    """The rest of the plan in numbers; of a plan that is done, what is asked about a budget."""
    forecast = answer.forecast
    if forecast.missing:
        unit = "GPU-hours" if forecast.gpus else "process-hours"
        print_text(screen, "\nforecast of what is not done\n")
        print_table(screen, ("", "distinct", "unshared", "to compute", unit), list(_costs(forecast)))
        print_text(screen, "")
        for line in _sentences(forecast):
            _print_wrapped(screen, line)
    for line in _budget(answer):
        _print_wrapped(screen, line)


def _sentences(forecast: Forecast) -> Iterator[str]:
    """What no table shows."""
    yield _trainings(forecast)
    yield _makespan(forecast)
    yield from _memory(forecast)
    yield _storage(forecast)
    yield from map(str, forecast.calls)
    yield from (f"time: {line}" for line in forecast.limits_passed())
    yield f"hours, low to high: {forecast.interval()}"
    if assumed := forecast.assumptions():
        yield f"assumed: {'; '.join(assumed)}"


def _costs(forecast: Forecast) -> Iterator[tuple[str, ...]]:
    for stage in forecast.stages:
        known, unknown = _range(stage.hours) if stage.hours.high else "", "?" if stage.bases.get("unknown") else ""
        cost = " + ".join(filter(None, (known, unknown)))
        yield stage.stage, str(stage.distinct), str(stage.naive), str(stage.missing), cost or "-"
    yield (
        "all", str(len(forecast.plan.nodes)), str(sum(stage.naive for stage in forecast.stages)),
        str(len(forecast.missing)), _range(forecast.hours) + (" + ?" if forecast.bases["unknown"] else ""),
    )  # fmt: skip


def _range(found: Range) -> str:
    """`12.3 (6.1 to 30)`."""
    return f"{number(found.middle)} ({number(found.low)} to {number(found.high)})"


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value < 10 else f"{value:.3g}"


def _trainings(forecast: Forecast) -> str:
    own = [stage for stage in forecast.stages if stage.stage in TRAININGS]
    distinct, naive = sum(stage.distinct for stage in own), sum(stage.naive for stage in own)
    return f"trainings: {distinct} distinct, {naive} if no cell shared anything"


def _makespan(forecast: Forecast) -> str:
    """`makespan: 7h05m (3h to 20h), 145 jobs; ...`."""
    found, slurm = forecast.makespan, isinstance(forecast.cluster, SlurmCluster)
    limits = [f"{name} {value}" for name, value in vars(forecast.limits).items() if value]
    where = "" if not limits else f" ({', '.join(limits)})" if slurm else f" ({forecast.limits.nodes} at a time)"
    least = "at least " if forecast.bases["unknown"] else ""
    what_if = ", ".join(f"{count}: {duration(seconds)}" for count, seconds in forecast.what_if())
    text = (
        f"makespan: {least}{duration(found.middle)} ({duration(found.low)} to {duration(found.high)}) as"
        f" {len(forecast.schedule.jobs)} jobs{where}"
    )
    if limits:
        text += f"; without a limit {duration(forecast.unlimited.middle)}"
    if what_if:
        text += f"; by jobs {'in the queue' if slurm else 'at a time'}: {what_if}"
    return text


def _memory(forecast: Forecast) -> Iterator[str]:
    for fit in forecast.fits:
        what = ", ".join(filter(None, (fit.method, fit.need.model.name.rpartition("/")[2])))
        size = human(fit.parts.total)
        yield f"memory of {fit.stage} ({what}): {size} a rank{_verdict(fit)}: {_parts(fit.parts)}{_measured(fit)}"


def _verdict(fit: Fit) -> str:
    if not fit.memory:
        return ", and the profile does not say what a GPU has (node.gpu_memory_gb)"
    if fit.fits:
        return f" of {human(fit.memory)}: fits"
    if not fit.advice:
        return f" of {human(fit.memory)}: DOES NOT FIT, whatever is set: more or larger GPUs"
    changes = ", ".join(f"{key} {str(value).lower()}" for key, value in fit.advice.items())
    halved = fit.stage == "generate" and "decoding" in changes
    by_itself = " (where memory runs out it takes fewer items at a time by itself)" if halved else ""
    return f" of {human(fit.memory)}: DOES NOT FIT; it would with {changes}{by_itself}"


def _parts(parts: Parts) -> str:
    """The larger ones, named."""
    shown = {name: size for name, size in vars(parts).items() if size > 0.01 * parts.total}
    return ", ".join(f"{name} {human(size)}" for name, size in shown.items())


def _measured(fit: Fit) -> str:
    return f"; measured so far: {human(fit.measured)}" if fit.measured else ""


def _storage(forecast: Forecast) -> str:
    found = forecast.as_storage()
    largest = sorted(found["by"].items(), key=lambda entry: -entry[1])[:3]
    parts = ", ".join(f"{name} {human(size)}" for name, size in largest if size)
    running = found["checkpoints_of_a_training"]
    scarce = found["kept"] + running > found["free"]
    return (
        f"storage: {human(found['kept'])} ({parts})"
        f"{f', and {human(running)} of checkpoints for each training that runs' if running else ''};"
        f" {human(found['free'])} free{', which is NOT ENOUGH' if scarce else ''}"
    )


def _budget(answer: Answer) -> Iterator[str]:
    """Whether the hours are enough, and what they are enough for."""
    budget = answer.budget
    if budget is None:
        return
    unit = "GPU-hours" if answer.forecast.gpus else "process-hours"
    if budget.surely:
        yield f"budget: {number(budget.hours)} {unit} are enough, by the high estimate, too"
        return
    if budget.enough:
        yield f"budget: {number(budget.hours)} {unit} are enough by what is expected, not by the high estimate"
        return
    if budget.unknown:
        yield (
            f"budget: whether {number(budget.hours)} {unit} are enough CANNOT BE SAID: nobody knows what"
            f" {budget.unknown} stages take; the others need {_range(budget.needed)}"
        )
        return
    yield f"budget: {number(budget.hours)} {unit} are NOT enough: {_range(budget.needed)} are needed"
    named = ", ".join(budget.first[:MOST_CELLS]) + (", ..." if len(budget.first) > MOST_CELLS else "")
    which = f": {named}" if named else ""
    yield f"  {len(budget.first)} of {budget.cells} cells would be done before they are used up{which}"
    if budget.seeds:
        seeds = ",".join(map(str, budget.seeds))
        yield f"  enough for every cell of {len(budget.seeds)} seed(s): --set seeds=[{seeds}]"
