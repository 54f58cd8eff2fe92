"""`cwdpo compare`: which of two cells answers better, item by item, by the benchmark's own values or by a judge."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cwdpo.base.errors import ConfigError
from cwdpo.cli.app import GridOption, HomeOption, JsonOption, LimitOption, SetOption, app, open_plan, print_json

if TYPE_CHECKING:
    from cwdpo.jobs.plan import Plan
    from cwdpo.report.compare import Comparison

TOLD_EVERY = 10.0
"""Seconds between two lines that tell how far the judge is."""


@app.command(epilog="Example: cwdpo compare cw_dpo sft --grid demo --benchmark captions")
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="CASE/SEED, or CASE for all its seeds.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What A is compared with; a CASE by the same seeds.")],
    grid: GridOption,
    benchmark: Annotated[
        str | None,
        typer.Option("--benchmark", "-b", help="Name of a benchmark of the grid.  [default: the one that both have]"),
    ] = None,
    judge: Annotated[
        bool, typer.Option("--judge", help="Ask the grid's judge about each pair of answers, in both orders.")
    ] = False,
    images: Annotated[bool, typer.Option("--images", help="Send the judge the images too.")] = False,
    show: Annotated[int, typer.Option("--show", min=0, help="Items to print, those that differ most.")] = 3,
    override: SetOption = None,
    home: HomeOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the answers of two cells: win rate of A, by the benchmark's own value of each item or by a judge.

    Interrupted while a judge is asked, the same command goes on where it stopped.
    """
    if images and not judge:
        raise ConfigError("--images: they are for --judge, which is not there")
    from cwdpo.report.matched import only_benchmark

    plan, names = open_plan(grid, override, home, limit), (a, b)
    name = benchmark or only_benchmark(plan, names)
    found = _judged(plan, names, name, images) if judge else _valued(plan, names, name)
    content = found.as_json(show)
    path = found.write(plan.store.home / "grids" / plan.grid.name / "compare", content)
    if as_json:
        print_json(content)
    else:
        typer.echo("\n".join([*_lines(content), f"written to {path}, each pair to {path.stem}.parquet"]))


def _valued(plan: Plan, names: tuple[str, str], benchmark: str) -> Comparison:
    from cwdpo.report.compare import compare as compare_cells

    return compare_cells(plan, names, benchmark)


def _judged(plan: Plan, names: tuple[str, str], benchmark: str, images: bool) -> Comparison:
    """With a context such as a stage has; a signal to stop ends it after the calls that are under way."""
    import tempfile

    from cwdpo.base.context import StageContext
    from cwdpo.base.runtime import Execution, Rank
    from cwdpo.base.stopping import Stop
    from cwdpo.report.compare import compare as compare_cells

    Stop.install()
    with tempfile.TemporaryDirectory() as temporary:
        out, cache = Path(temporary), plan.store.home / "cache"
        context = StageContext(
            None, {}, out, out, cache, Rank(), Execution(), _Told(), lambda: None, stopping=Stop.requested
        )
        return compare_cells(plan, names, benchmark, context, images)


class _Told:
    """Says how far the judge is, now and then."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, kind: str, **about: Any) -> None:
        if kind == "progress" and time.monotonic() - self._last >= TOLD_EVERY:
            self._last = time.monotonic()
            typer.echo(f"{about['done']:,} of {about['total']:,} pairs judged", err=True)


# ---- in words


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield _heading(found)
    yield f"win rate of {found['a']}: {_rate(found, found)}"
    yield f"  ({found['interval']})"
    yield from (f"  {name or 'no category'}: {_rate(found, one)}" for name, one in found["categories"].items())
    yield from _difference(found)
    yield from _judge(found)
    yield from (f"left out: {count:,} {name}" for name, count in found["left_out"].items())
    yield from (f"when these were scored: {count:,} {name}" for name, count in found["counts"].items())
    yield from (f"note: {note}" for note in found["notes"])
    for one in found["differ_most"]:
        yield from _pair(found, one)


def _heading(found: Mapping[str, Any]) -> str:
    partial = " (PARTIAL)" if found["partial"] else ""
    how = f"{_by(found)}, each pair in both orders" if found["judge"] else f"per-item {_title(found['difference'])}"
    pairs = f"{found['pairs']:,} pairs of answers to {found['items']:,} items ({_seeds(found)})"
    return f"{found['a']} against {found['b']} on {found['benchmark']}{partial}: {pairs}, by {how}"


def _seeds(found: Mapping[str, Any]) -> str:
    """`seeds 0, 1`; `seed 0 against seed 1` of two cells."""
    from cwdpo.report.render.words import seeds_said

    first, second = (found["seeds"][key] for key in ("a", "b"))
    said = " against ".join(dict.fromkeys(map(seeds_said, (first, second))))
    return f"{said}; what they share counts once" if len(found["cells"]) < len(first) else said


def _by(found: Mapping[str, Any]) -> str:
    """Who judged; it stands beside each number that comes of it."""
    return f"judge {found['judge']}" if found["judge"] else ""


def _title(difference: Mapping[str, Any]) -> str:
    judge = f" (judge {difference['judge']})" if difference["judge"] else ""
    return f"{difference['title']}{judge}"


def _rate(found: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    share, low, high = (f"{one['win_rate'][key]:.1%}" for key in ("share", "low", "high"))
    counts = f"{one['wins']:,} won, {one['ties']:,} tied, {one['losses']:,} lost"
    return ", ".join(filter(None, [f"{share} [{low}, {high}]", f"n = {one['pairs']:,} ({counts})", _by(found)]))


def _difference(found: Mapping[str, Any]) -> Iterator[str]:
    from cwdpo.report.render.text import signed

    one = found["difference"]
    if one is None:
        yield "difference of the benchmark's own values: not available, there are none"
        return
    scale = "" if one["scale"] == 1 else f" x{one['scale']:g}"
    mean, low, high = (signed(one[key], one["digits"]) for key in ("difference", "low", "high"))
    yield f"{_title(one)}{scale}, {found['a']} - {found['b']}: {mean} [{low}, {high}]"
    yield f"  (mean over {one['n']:,} items, of each the mean over seeds; paired bootstrap over items, 95%)"


def _judge(found: Mapping[str, Any]) -> Iterator[str]:
    """How far the judge can be relied on."""
    if found["judging"] is None:
        return
    bias, told = found["position_bias"], found["judging"]
    yield f"{_by(found)}: asked now {told['asked']:,}, said before {told['cached']:,}; {_sight(told)}"
    if bias["first"] is not None:
        yield f"  position bias: {bias['first']:.1%} of {bias['decided']:,} replies that choose take the first answer"
    if bias["disagree"] is not None:
        yield f"  {bias['disagree']:.1%} of {bias['pairs']:,} pairs come out otherwise in the other order"
    yield from (f"  replies that could not be used: {count:,} ({why})" for why, count in told["unusable"].items())
    yield from (f"    {example['id']}: {example['said']!r}" for example in told["examples"])


def _sight(told: Mapping[str, Any]) -> str:
    return "it was sent the images" if told["images"] else "it was sent no image"


def _pair(found: Mapping[str, Any], one: Mapping[str, Any]) -> Iterator[str]:
    winner = {"a": f"{found['a']} wins", "b": f"{found['b']} wins", "tie": "a tie"}[one["verdict"]]
    yield f"\n{one['id']}, seed {one['seed']}: {', '.join(filter(None, [winner, _by(found)]))}"
    for key in ("a", "b"):
        text = one[f"answer_{key}"].replace("\n", "\n    ")
        yield f"  {found[key]}{_value(found, one[f'value_{key}'])}: {text or '(nothing)'}"


def _value(found: Mapping[str, Any], value: float | None) -> str:
    from cwdpo.report.render.text import fixed

    one = found["difference"]
    return "" if value is None or one is None else f" ({_title(one)} {fixed(one['scale'] * value, one['digits'])})"
