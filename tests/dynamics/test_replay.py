"""Replays on curves whose answer is known, and that a replay is what the rule would have said step by step."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwdpo.base.errors import DataError, NotAvailable
from cwdpo.dynamics.early_stop import Chosen, Margin
from cwdpo.dynamics.early_stop.rule import Rule
from cwdpo.dynamics.replay import replay

ANY = settings(derandomize=True, database=None, deadline=None, max_examples=50)
MARGINS = [0.0, 1.0, 2.0, 1.5, 1.25, 3.0]


def points(values: Sequence[float]) -> list[dict[str, float]]:
    """A probe every 10 steps, with the same values for both rules."""
    return [{"step": 10 * place, "margin": value, "mean_logp_chosen": value} for place, value in enumerate(values)]


def test_where_it_would_have_stopped() -> None:
    found = replay(Margin(patience=2), points(MARGINS), total=80)
    assert found.stop
    assert (found.stop.step, found.stop.best, found.saved, found.total) == (40, 20, 40, 80)
    assert (found.best, found.stopped, found.end) == ((20, 2.0), (40, 1.25), (50, 3.0))
    assert found.best_of_all == (50, 3.0)
    assert found.kept == (20, 2.0)


def test_the_text() -> None:
    assert replay(Margin(patience=2), points(MARGINS), total=80).text() == (
        "name=margin, patience=2, keep=best, min_change=0.0: stops at step 40 of 80, 40 steps less (50%): the margin"
        " has not risen by more than 0 nats above 2 (step 20) for 2 probes; it is 1.25 at step 40\n"
        "  best  step     20  margin 2  <- the policy that is kept\n"
        "  stop  step     40  margin 1.25\n"
        "  end   step     50  margin 3\n"
        "  it misses margin 3 at step 50: try more patience"
    )


def test_a_rule_that_never_stops_it() -> None:
    found = replay(Margin(patience=3), points(MARGINS))
    assert (found.stop, found.stopped, found.saved, found.total) == (None, None, 0, 50)
    assert found.best == found.best_of_all == found.end == (50, 3.0)
    assert found.text() == (
        "name=margin, patience=3, keep=best, min_change=0.0: never stops it in 6 probes, up to step 50 of 50\n"
        "  best  step     50  margin 3  <- the policy that is kept\n"
        "  end   step     50  margin 3"
    )


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        (Margin(patience=2), 20),
        (Margin(patience=2, keep="last"), 40),
        (Margin(patience=9), 50),
        (Margin(patience=9, keep="last"), 50),
        (Chosen(patience=1, fall=0.1), 20),
        (Chosen(patience=1, fall=0.1, keep="last"), 30),
    ],
)
def test_whose_policy_is_kept(rule: Rule, kept: int) -> None:
    found = replay(rule, points(MARGINS))
    assert found.kept.step == kept
    (marked,) = [line for line in found.text().split("\n") if line.endswith("  <- the policy that is kept")]
    assert f" {kept}  " in marked


def test_json() -> None:
    found = replay(Chosen(patience=2, fall=0.5), points([-1.0, -2.0, -2.0, math.nan]), total=40).as_json()
    assert found == {
        "rule": {"name": "chosen", "patience": 2, "keep": "best", "fall": 0.5},
        "metric": "mean_logp_chosen",
        "stop": {
            "step": 20,
            "best": 0,
            "why": "mean_logp of y+ has been more than 0.5 nats per token below its best, -1 at step 0, for 2 probes;"
            " it is -2 at step 20",
        },
        "total": 40,
        "saved": 20,
        "kept": 0,
        "at": {
            "best": {"step": 0, "value": -1.0},
            "stop": {"step": 20, "value": -2.0},
            "end": {"step": 30, "value": None},
            "best_of_all": {"step": 0, "value": -1.0},
        },
    }
    json.dumps(found, allow_nan=False)
    assert "stop" not in replay(Margin(), points(MARGINS)).as_json()["at"]


def test_what_cannot_be_replayed() -> None:
    with pytest.raises(NotAvailable, match="nothing was probed"):
        replay(Margin(), [])
    with pytest.raises(DataError, match="early stop 'chosen' reads mean_logp_chosen, which the probe of step 0 lacks"):
        replay(Chosen(), [{"step": 0, "margin": 0.0}])


rules = st.one_of(
    st.builds(Margin, patience=st.integers(1, 4), keep=st.sampled_from(["best", "last"])),
    st.builds(Chosen, patience=st.integers(1, 4), keep=st.sampled_from(["best", "last"])),
)
values = st.floats(-10, 10) | st.just(math.nan)
curves = st.tuples(st.floats(-10, 10), st.lists(values, max_size=12)).map(lambda found: points([found[0], *found[1]]))


@ANY
@given(rules, curves)
def test_a_replay_is_what_the_rule_says_probe_by_probe(rule: Rule, curve: list[dict[str, float]]) -> None:
    told = [rule.stop(curve[:count]) for count in range(1, len(curve) + 1)]
    first = next((stop for stop in told if stop), None)
    assert replay(rule, curve).stop == first


@ANY
@given(rules, curves, st.lists(values, max_size=4))
def test_what_comes_after_the_stop_changes_nothing_before_it(
    rule: Rule, curve: list[dict[str, float]], later: list[float]
) -> None:
    longer = [*curve, *({**point, "step": point["step"] + 10 * len(curve)} for point in points(later))]
    before, after = replay(rule, curve), replay(rule, longer)
    if before.stop:
        assert (after.stop, after.best, after.stopped, after.kept) == (
            before.stop, before.best, before.stopped, before.kept,
        )  # fmt: skip


@ANY
@given(rules, curves, st.integers(0, 50))
def test_steps_add_up(rule: Rule, curve: list[dict[str, float]], beyond: int) -> None:
    found = replay(rule, curve, total=found_total(curve) + beyond)
    assert 0 <= found.saved <= found.total
    assert found.saved + (found.stop.step if found.stop else found.total) == found.total
    assert found.best.value <= found.best_of_all.value
    assert found.text().count("\n") >= 2
    json.dumps(found.as_json(), allow_nan=False)


def found_total(curve: list[dict[str, float]]) -> int:
    return int(curve[-1]["step"]) or 1
