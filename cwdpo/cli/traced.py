"""What `cwdpo report --why` prints: a value, how it was made, its seeds, and the stages before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cwdpo.base.identity import canonical_json
from cwdpo.cli.show import duration
from cwdpo.report.content import Difference, Entry
from cwdpo.report.provenance import Step, Try, at
from cwdpo.report.render.text import fixed, full_title, plain, probability, sentence, signed, signed_span, span
from cwdpo.report.render.views import tested
from cwdpo.report.render.words import baseline_of, deterministic
from cwdpo.report.why import OfSeed, ScoreFiles, Traced

STANDINGS = {"best": "distinguishable from every other row", "tied": "the best mean, or not distinguishable from it"}


def told(traced: Traced) -> str:
    """All of it as text."""
    parts = [_head(traced), _settings(traced), *(_seed(traced, one) for one in traced.seeds), _stages(traced)]
    parts += [_total(traced), (f"{name + ':':9}{line}" for name, line in traced.commands.items())]
    return "\n".join("\n".join(part) + "\n" for part in parts)


def _head(traced: Traced) -> Iterator[str]:
    place, entry = traced.place, traced.entry
    yield f"{plain(place.row.label)}, {full_title(place.column)}: {traced.value}"
    yield f"  table {plain(place.table.title)} of grid {place.table.grid}; stands on Stage 1 of {place.row.stands_on}"
    yield from (f"  {line}" for line in _made(traced, entry))
    yield from (f"  {sentence(mark)}" for mark in place.row.marks)


def _made(traced: Traced, entry: Entry) -> Iterator[str]:
    """How the value was made of its results."""
    column, digits = traced.place.column, traced.place.column.metric.digits
    if entry.results:
        scale = f", stored values x{column.metric.scale:g}" if column.metric.scale != 1 else ""
        yield f"{_of_results(entry)}{scale}"
    if entry.low is not None and entry.high is not None:
        yield f"95% interval of the mean {span(entry.low, entry.high, digits)}"
    if entry.difference:
        yield _difference(entry.difference, baseline_of(traced.place.table), digits)
    if entry.standing:
        yield STANDINGS[entry.standing]
    if entry.partial:
        yield "partial: only some items were scored"


def _of_results(entry: Entry) -> str:
    seeds = ", ".join(str(seed) for result in entry.results for seed in result.seeds)
    if deterministic(entry):
        return f"one result, which all seeds share ({seeds}): nothing in it depends on the seed"
    if len(entry.results) == 1:
        return f"a single result (seed {seeds})"
    return f"mean ± standard deviation of {len(entry.results)} results (seeds {seeds})"


def _difference(found: Difference, baseline: str, digits: int) -> str:
    parts = filter(None, (signed(found.value, digits), signed_span(found, digits), probability(found)))
    return f"{' '.join(parts)} to {baseline}; {tested(found)}"


# ---- settings


def _settings(traced: Traced) -> Iterator[str]:
    if traced.differs:
        yield "set otherwise than in some other row"
        yield from (
            f"  {key}: {'not set' if value is None else _short(value)}" for key, value in traced.differs.items()
        )
    if traced.settings:
        yield "settings"
        yield from (f"  {name}: {_short(content)}" for name, content in traced.settings.items())


def _short(value: Any) -> str:
    return plain(value if isinstance(value, str) else canonical_json(value))


# ---- seeds


def _seed(traced: Traced, one: OfSeed) -> Iterator[str]:
    digits = traced.place.column.metric.digits
    if one.result:
        shared = f" (shared by seeds {', '.join(map(str, one.result.seeds))})" if len(one.result.seeds) > 1 else ""
        stale = ", computed by other code than is here now" if one.result.stale else ""
        yield f"seed {one.seed} ({one.cell}): {fixed(one.result.value, digits)}{shared}{stale}"
        yield from [f"  damaged: {plain(one.result.doubt)}"] if one.result.doubt else []
    else:
        reason = f": {plain(one.gap.reason)}" if one.gap and one.gap.reason else ""
        yield f"seed {one.seed} ({one.cell}): {one.gap.kind if one.gap else 'no value'}{reason}"
        yield from (f"    {line}" for line in one.causes)
    for score in one.scores:
        yield from _files(traced, score)
    yield f"  policy: {one.policy}"
    yield from _named("negatives", one.negatives)
    yield from _named("reference", one.reference) if one.reference else ["  reference: none is used"]
    yield from _named("probe", one.probes)


def _files(traced: Traced, score: ScoreFiles) -> Iterator[str]:
    home = traced.home
    yield f"  {score.title}: {home / score.summary}"
    if score.items:
        rows = f"{score.rows:,} rows" if isinstance(score.rows, int) else score.rows
        yield f"  per item: {home / score.items} ({rows})"
    if score.generations:
        yield f"  answers: {home / score.generations}"


def _named(kind: str, found: Mapping[str, str]) -> Iterable[str]:
    return (f"  {kind}: {folder} ({about})" for folder, about in found.items())


# ---- stages


def _stages(traced: Traced) -> Iterator[str]:
    needed: dict[str, list[int]] = {}
    for one in traced.seeds:
        for folder in one.stages:
            needed.setdefault(folder, []).append(one.seed)
    yield "stages, parents before children"
    for step in traced.steps:
        seeds = needed[step.folder]
        of = "" if len(seeds) == len(traced.seeds) else f" (seed {', '.join(map(str, seeds))})"
        yield f"{step.title} {step.folder}: {step.state}{of}"
        yield from (f"  {line}" for line in _step(traced, step))


def _step(traced: Traced, step: Step) -> Iterator[str]:
    if step.about:
        yield step.about
    if inputs := ", ".join(f"{role} {entry}" for role, entry in step.inputs.items()):
        yield f"from {inputs}"
    if step.made:
        yield ", ".join(
            filter(None, (_code(step), step.image, f"host {step.host}", f"{step.made.get('ranks')} rank(s)"))
        )
        yield from [f"versions: {versions}"] if (versions := _versions(step)) else []
    yield from (_try(one) for one in step.tries)
    yield from [_time(step)] if step.seconds is not None else []
    yield from [f"files: {traced.home / step.out}"] if step.out else []


def _code(step: Step) -> str:
    return f"commit {step.commit}" if step.made.get("commit") else step.commit


def _versions(step: Step) -> str:
    """Of Python and packages, as they were recorded."""
    packages = step.made.get("packages")
    found = {"python": step.made.get("python"), **(packages if isinstance(packages, dict) else {})}
    return ", ".join(f"{name} {version}" for name, version in found.items() if version)


def _try(one: Try) -> str:
    took = f" after {duration(one.seconds)}" if one.seconds is not None else ""
    where = [
        one.host,
        f"Slurm job {one.slurm}" if one.slurm else "",
        f"nodes {' '.join(one.nodes)}" if one.nodes else "",
    ]
    began = f", begun {at(one.started)}" if one.started is not None else ""
    reason = f": {plain(one.reason)}" if one.reason else ""
    return f"attempt {one.number}: {one.outcome}{took} ({', '.join(filter(None, where))}{began}){reason}"


def _time(step: Step) -> str:
    assert step.seconds is not None, "only called with a time"
    wall = f"{duration(step.seconds)} of wall time"
    if step.gpu_seconds is None:
        return f"{wall}; GPUs are not known before it is done"
    return f"{wall}; {_hours(step.gpu_seconds)}"


def _hours(gpu_seconds: float) -> str:
    return f"{gpu_seconds / 3600:.2f} GPU-hours" if gpu_seconds else "CPU only"


def _total(traced: Traced) -> Iterator[str]:
    done = sum(bool(step.made) for step in traced.steps)
    attempts = sum(len(step.tries) for step in traced.steps)
    known = "" if done == len(traced.steps) else " in stages that are done"
    yield (
        f"in all: {done} of {len(traced.steps)} stages done, {attempts} attempts,"
        f" {duration(traced.seconds)} of wall time, {_hours(traced.gpu_seconds)}{known}"
    )
