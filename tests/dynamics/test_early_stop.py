"""Rules of early stopping on curves whose answer is known, and what holds for any curve."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from cwdpo.base.config import Config, validate
from cwdpo.base.errors import ConfigError, DataError
from cwdpo.dynamics.early_stop import Chosen, EarlyStop, Margin, Stop
from cwdpo.dynamics.early_stop.option import parse_rule
from cwdpo.dynamics.early_stop.rule import Rule

NAN, INF = math.nan, math.inf
ANY = settings(derandomize=True, database=None, deadline=None, max_examples=50)


def points(rule: Rule, values: Sequence[float]) -> list[dict[str, float]]:
    """A probe every 10 steps."""
    return [{"step": 10 * place, rule.metric: value} for place, value in enumerate(values)]


def stop(rule: Rule, values: Sequence[float]) -> tuple[int, int] | None:
    """(step, best)."""
    found = rule.stop(points(rule, values))
    return (found.step, found.best) if found else None


# ---- margin


def test_margin_waits_for_a_rise() -> None:
    rule = Margin(patience=3)
    found = rule.stop(points(rule, [0, 1, 2, 1.9, 2, 1.7]))
    assert found == Stop(
        50, 20, "the margin has not risen by more than 0 nats above 2 (step 20) for 3 probes; it is 1.7 at step 50"
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        ([0], None),
        ([0, 0], None),
        ([0, 0, 0], (20, 0)),  # an equal margin is no rise, and the first of equals is the best
        ([0, 1, 1, 1.1], None),
        ([0, 1, 1, 1.1, 1, 1], (50, 30)),
        ([3, 2, 1, 9], (20, 0)),  # what comes later does not count
        ([0, NAN, NAN], (20, 0)),
        ([0, NAN, 1, NAN], None),
        ([0, INF, INF], (20, 0)),  # no number, so no rise
        ([0, -INF, 1], None),
    ],
)
def test_margin(values: list[float], expected: tuple[int, int] | None) -> None:
    assert stop(Margin(patience=2), values) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 1, 1], (30, 10)),  # exactly min_change is no rise
        ([0, 1.1, 1.1, 1.1], None),
        ([0, 0.4, 0.8, 1.2], None),  # small steps add up
        ([0, 0.4, 0.8, 0.9], (30, 30)),  # none of them a rise, yet the last one is the best
    ],
)
def test_margin_must_rise_by_more_than_min_change(values: list[float], expected: tuple[int, int] | None) -> None:
    assert stop(Margin(patience=3, min_change=1.0), values) == expected


# ---- chosen


def test_chosen_waits_for_a_fall() -> None:
    rule = Chosen(patience=2, fall=0.25)
    found = rule.stop(points(rule, [-2, -1, -1.5, -1.5]))
    assert found == Stop(
        30,
        10,
        "mean_logp of y+ has been more than 0.25 nats per token below its best, -1 at step 10, for 2 probes; it is"
        " -1.5 at step 30",
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        ([-1], None),
        ([-1, -1.25, -1.25, -1.25], None),  # exactly `fall` below is no fall
        ([-1, -1.26, -1.26], (20, 0)),
        ([-1, -2, -1, -2, -1], None),  # in a row
        ([-3, -2, -1, -1.1, -1.2], None),
        ([-3, -2, -1, -1.3, -1.3], (40, 20)),
        ([-1, -2, -2, 0], (20, 0)),
        ([-1, NAN, NAN], (20, 0)),  # no number is worse than any
        ([-1, -INF, -INF], (20, 0)),
        ([-1, NAN, -1, NAN], None),
        ([-1, INF, INF], (20, 0)),
        ([-1, INF, -1, -1], None),  # nor is it the best
    ],
)
def test_chosen(values: list[float], expected: tuple[int, int] | None) -> None:
    assert stop(Chosen(patience=2, fall=0.25), values) == expected


# ---- what holds for any curve

values = st.floats(-10, 10) | st.sampled_from([NAN, INF, -INF, 0.0, 1.0])
curves = st.tuples(st.floats(-10, 10), st.lists(values, max_size=15)).map(lambda found: [found[0], *found[1]])
rules = st.one_of(
    st.builds(Margin, patience=st.integers(1, 5), min_change=st.sampled_from([0.0, 0.5])),
    st.builds(Chosen, patience=st.integers(1, 5), fall=st.sampled_from([0.1, 2.0])),
)


@ANY
@given(rules, curves)
def test_a_prefix_decides_as_the_whole(rule: Rule, values: list[float]) -> None:
    whole = points(rule, values)
    found = rule.stop(whole)
    for count in range(len(whole) + 1):
        seen = found if found and found.step <= 10 * (count - 1) else None
        assert rule.stop(whole[:count]) == seen


@ANY
@given(rules, curves, st.lists(values, max_size=5))
def test_once_stopped_it_stays_stopped(rule: Rule, values: list[float], later: list[float]) -> None:
    found = rule.stop(points(rule, values))
    if found:
        assert rule.stop(points(rule, [*values, *later])) == found


@ANY
@given(rules, curves)
def test_never_before_patience_and_one_probes(rule: Rule, values: list[float]) -> None:
    found = rule.stop(points(rule, values))
    assert found is None or found.step >= 10 * rule.patience


@ANY
@given(rules, st.lists(st.floats(-10, 10), min_size=1, max_size=15))
def test_the_best_probe_is_before_the_stop_and_none_is_better(rule: Rule, values: list[float]) -> None:
    found = rule.stop(points(rule, values))
    if found:
        seen = values[: found.step // 10 + 1]
        assert seen.index(max(seen)) == found.best // 10


@ANY
@given(rules, st.lists(st.integers(-1000, 1000), min_size=1, max_size=15, unique=True))
def test_a_curve_that_rises_is_never_stopped(rule: Rule, values: list[int]) -> None:
    assert rule.stop(points(rule, sorted(values))) is None


@ANY
@given(st.integers(1, 5), st.lists(st.floats(-10, 10), min_size=1, max_size=15))
def test_margin_by_its_definition(patience: int, values: list[float]) -> None:
    """It stops at the first probe where the last `patience` ones do not exceed what was before them."""
    stops = [
        end
        for end in range(patience, len(values))
        if max(values[end - patience + 1 : end + 1]) <= max(values[: end - patience + 1])
    ]
    found = Margin(patience=patience).stop(points(Margin(), values))
    assert (found.step if found else None) == (10 * stops[0] if stops else None)


@ANY
@given(st.integers(1, 5), st.lists(st.floats(-10, 10), min_size=1, max_size=15))
def test_chosen_by_its_definition(patience: int, values: list[float]) -> None:
    """It stops at the first probe where each of the last `patience` ones is under the best up to it by 1."""
    fallen = [value < max(values[: place + 1]) - 1.0 for place, value in enumerate(values)]
    stops = [end for end in range(patience, len(values)) if all(fallen[end - patience + 1 : end + 1])]
    found = Chosen(patience=patience, fall=1.0).stop(points(Chosen(), values))
    assert (found.step if found else None) == (10 * stops[0] if stops else None)


# ---- what is refused


@pytest.mark.parametrize("rule", [Margin(), Chosen()])
def test_a_missing_column_is_named(rule: Rule) -> None:
    with pytest.raises(
        DataError, match=f"early stop '{rule.name}' reads {rule.metric}, which the probe of step 7 lacks"
    ):
        rule.stop([{"step": 0, rule.metric: 0.0}, {"step": 7, "entropy": 1.0}])


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_nothing_to_compare_with(value: float) -> None:
    with pytest.raises(DataError, match=r"reads margin, which is -?(nan|inf) at the first probe \(step 0\)"):
        Margin().stop(points(Margin(), [value, 1.0]))


class Where(Config):
    early_stop: EarlyStop


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"name": "margin", "patience": 0}, "early_stop.patience: Input should be greater than or equal to 1; found 0"),
        ({"name": "margin", "patience": 1.5}, "early_stop.patience: .*integer.*; found 1.5"),
        ({"name": "margin", "min_change": -1}, "early_stop.min_change: .*greater than or equal to 0; found -1"),
        ({"name": "margin", "min_change": INF}, "early_stop.min_change: .*finite"),
        ({"name": "margin", "fall": 1}, "unknown key 'fall'; valid: keep, min_change, name, patience"),
        ({"name": "chosen", "fall": 0}, "early_stop.fall: .*greater than 0; found 0"),
        ({"name": "chosen", "keep": "first"}, "early_stop.keep: .*'best' or 'last'; found 'first'"),
        ({"name": "margins"}, "unknown name 'margins'; did you mean 'margin'. valid: chosen, margin"),
        ({"patience": 3}, "early_stop: needs the key 'name'; valid: chosen, margin"),
    ],
)
def test_wrong_settings_are_named(content: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Where, {"early_stop": content}, "grid.yaml")


@pytest.mark.parametrize("rule", [Margin(patience=5, min_change=0.1, keep="last"), Chosen(fall=0.3)])
def test_settings_survive_json(rule: Rule) -> None:
    assert TypeAdapter(EarlyStop).validate_json(rule.model_dump_json()) == rule


# ---- on a command line


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("patience=3,name=margin", Margin(patience=3)),
        ("patience=4", Margin(patience=4)),
        (" name = chosen , fall = 0.2 , keep = last ", Chosen(fall=0.2, keep="last")),
    ],
)
def test_a_rule_in_one_word(text: str, rule: Rule) -> None:
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patience", "--early-stop patience: expected KEY=VALUE,..., such as name=margin,patience=3"),
        ("", "--early-stop : expected KEY=VALUE"),
        ("name=margin,", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("patence=3", "unknown key 'patence'; did you mean 'patience'. valid: keep, min_change, name, patience"),
        ("name=loss", "unknown name 'loss'; valid: chosen, margin"),
        ("patience=soon", "early_stop.patience: .*integer.*; found 'soon'"),
    ],
)
def test_a_wrong_word(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_rule(text)
