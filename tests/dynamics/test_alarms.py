"""Alarms on curves made by hand: each one fires, stays silent where one condition is just missed, and says when it
cannot tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwdpo.base.config import Config, validate
from cwdpo.base.errors import ConfigError
from cwdpo.dynamics.alarms import (
    ALARMS,
    Alarm,
    ConstraintNeverActive,
    Divergence,
    Evidence,
    Finding,
    Fine,
    LoserGradient,
    Peaking,
    Squeezing,
    StaleNegatives,
    Unjudged,
    Watch,
    examine,
    verdicts,
)

NAN, INF = math.nan, math.inf
ANY = settings(derandomize=True, database=None, deadline=None, max_examples=50)


def curve(every: int = 10, first: int = 0, **columns: Sequence[Any]) -> list[dict[str, Any]]:
    """Columns -> points, one every so many steps."""
    rows = zip(*columns.values(), strict=True)
    return [{"step": first + every * place, **dict(zip(columns, row, strict=True))} for place, row in enumerate(rows)]


def logged(**columns: Sequence[float]) -> list[dict[str, Any]]:
    """A training curve, one point a step."""
    return curve(every=1, first=1, **columns)


def probed(**columns: Sequence[float]) -> Evidence:
    return Evidence("stage2", "dpo", points=curve(**columns))


def trained(objective: str = "dpo", **columns: Sequence[float]) -> Evidence:
    return Evidence("stage2", objective, training=logged(**columns))


def found(alarm: Watch, evidence: Evidence) -> Finding:
    (verdict,) = verdicts(evidence, [alarm])
    assert isinstance(verdict, Finding), verdict
    assert verdict.name == alarm.name
    return verdict


def fine(alarm: Watch, evidence: Evidence) -> str:
    (verdict,) = verdicts(evidence, [alarm])
    assert isinstance(verdict, Fine), verdict
    return verdict.sentence


def unjudged(alarm: Watch, evidence: Evidence) -> str:
    (verdict,) = verdicts(evidence, [alarm])
    assert isinstance(verdict, Unjudged), verdict
    return verdict.reason


# ---- squeezing

SQUEEZED: Mapping[str, Sequence[float]] = {
    "mean_logp_chosen": [-1.5, -1.0, -1.25, -1.5],
    "mean_logp_hard": [-2.0, -2.0, -2.25, -3.0],
    "mean_logp_easy": [-4.0, -4.0, -4.75, -5.0],
    "top1": [0.5, 0.5, 0.625, 0.75],
}


def test_squeezing() -> None:
    """y+ is likeliest at step 10; from step 20 on both are below that, with more top-1 mass. y- is the mean of two."""
    finding = found(Squeezing(), probed(**SQUEEZED))
    assert finding.step == 20
    assert finding.sentence.startswith(
        "mean_logp of y+ went from -1 (step 10) to -1.5 (step 30), that of y- from -3 (step 10) to -4 (step 30), top-1"
        " mass from 0.5 (step 10) to 0.75 (step 30): "
    )
    assert "Try " in finding.sentence
    assert finding.values == {
        "step_from": 10, "step_to": 30, "mean_logp_chosen_from": -1.0, "mean_logp_chosen_to": -1.5,
        "mean_logp_rejected_from": -3.0, "mean_logp_rejected_to": -4.0, "top1_from": 0.5, "top1_to": 0.75,
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"mean_logp_chosen": [-1.5, -1.0, -1.25, -1.04]},  # y+ is back, less than 0.05 below
        {"mean_logp_easy": [-4.0, -4.0, -4.75, -2.95]},  # y- has not fallen
        {"top1": [0.5, 0.5, 0.625, 0.505]},  # no more than 0.01
        {"mean_logp_chosen": [-1.5, -1.25, -1.0, -0.75]},  # y+ rises
    ],
)
def test_squeezing_takes_all_three(change: Mapping[str, Sequence[float]]) -> None:
    assert "mean_logp of y+ went from -1.5 (step 0)" in fine(Squeezing(), probed(**{**SQUEEZED, **change}))


def test_squeezing_that_was_is_no_more() -> None:
    """Only what lasts up to the last probe, and since when."""
    back = {name: [*column, column[1]] for name, column in SQUEEZED.items()}
    assert "y+ was likeliest, -1, at step 10" in fine(Squeezing(), probed(**back))
    again = {name: [*column, column[1], column[3]] for name, column in SQUEEZED.items()}
    assert found(Squeezing(), probed(**again)).step == 50


def test_squeezing_by_thresholds_of_ones_own() -> None:
    fine(Squeezing(fall=0.6), probed(**SQUEEZED))
    fine(Squeezing(rise=0.3), probed(**SQUEEZED))


def test_squeezing_needs_negatives_and_two_probes() -> None:
    without = {"mean_logp_chosen": [-1.0, -2.0], "top1": [0.5, 0.9]}
    assert unjudged(Squeezing(), probed(**without)) == "the probes have no mean_logp of graded negatives"
    one = {name: column[:1] for name, column in SQUEEZED.items()}
    assert unjudged(Squeezing(), probed(**one)).startswith("1 of 1 probes have a finite mean_logp_chosen and top1")
    assert "have no top1" in unjudged(Squeezing(), probed(mean_logp_chosen=[1, 2], mean_logp_hard=[1, 2]))


def test_probes_without_numbers_are_passed_over() -> None:
    holes = {name: [*column[:2], NAN, *column[2:]] for name, column in SQUEEZED.items()}
    assert found(Squeezing(), probed(**holes)).step == 30


# ---- peaking


def test_peaking() -> None:
    finding = found(Peaking(), probed(entropy=[2.0, 0.9, 1.5, 0.75, 0.5]))
    assert finding.step == 30
    assert "from 2 (step 0) to 0.5 (step 40) nats, a loss of more than 50%" in finding.sentence
    assert finding.values == {"step_from": 0, "step_to": 40, "entropy_from": 2.0, "entropy_to": 0.5}


def test_peaking_by_exactly_the_share_is_none() -> None:
    told = fine(Peaking(), probed(entropy=[2.0, 0.5, 1.0]))
    assert told == "the mean token entropy went from 2 (step 0) to 1 (step 20) nats; alarming under 1"
    assert found(Peaking(share=0.4), probed(entropy=[2.0, 0.5, 1.0])).step == 10


@pytest.mark.parametrize("column", [[0.0, 0.0], [1.0, 3.0]])
def test_no_peaking(column: list[float]) -> None:
    fine(Peaking(), probed(entropy=column))


# ---- stale negatives

WEIGHTS = {"w_c_hard": [0.5, 0.3], "w_c_medium": [0.3, 0.05], "w_c_easy": [0.05, 0.01]}


def test_stale_negatives_of_probes() -> None:
    finding = found(StaleNegatives(), probed(**WEIGHTS))
    assert finding.step == 10
    assert finding.sentence.startswith(
        "the share of grades of probed negatives (3 of them) whose mean w_c is under 0.1 went from 33% (step 0) to 67%"
        " (step 10): "
    )
    assert finding.values == pytest.approx({"share_from": 1 / 3, "share_to": 2 / 3})


def test_a_weight_of_a_tenth_is_not_stale() -> None:
    assert "to 33% (step 10)" in fine(StaleNegatives(), probed(**{**WEIGHTS, "w_c_medium": [0.3, 0.1]}))


def test_stale_negatives_of_what_is_trained_on() -> None:
    """Steps 1 to 12; the mean over 2 is above one half from step 11 on."""
    shares = [0.25] * 10 + [1.0, 0.5]
    evidence = Evidence("stage2", "cw_dpo", curve(w_c_hard=[0.9, 0.9]), logged(**{"w_c_from_0.0": shares}))
    finding = found(StaleNegatives(window=2), evidence)
    assert finding.step == 11
    assert finding.sentence.startswith(
        "the share of pairs that are trained on (mean over 2 logged steps) whose w_c is under 0.1 went from 25% (step"
        " 2) to 75% (step 12): "
    )
    fine(StaleNegatives(window=2, most=0.75), evidence)


def test_half_is_not_most() -> None:
    told = fine(StaleNegatives(window=2), trained(**{"w_c_from_0.0": [1.0, 0.25, 0.75]}))
    assert told.endswith("went from 62% (step 2) to 50% (step 3); alarming above 50%")


def test_stale_negatives_cannot_be_told() -> None:
    assert unjudged(StaleNegatives(), Evidence("stage1", "sft", missing="probing is off")) == "probing is off"
    assert unjudged(StaleNegatives(), probed(entropy=[1, 2])) == "the probes have no w_c of graded negatives"
    early = trained("cw_dpo", **{"w_c_from_0.0": [1.0] * 9})
    assert unjudged(StaleNegatives(), early) == "9 of 9 logged steps of cw_dpo have a finite w_c_from_0.0; it takes 10"


# ---- constraint never active


def test_constraint_never_active() -> None:
    evidence = trained("sft_c", penalty_active=[0.0] * 10, nll_rejected=[4.5, *[5.0] * 8, 6.25])
    finding = found(ConstraintNeverActive(), evidence)
    assert finding.step == 10
    assert finding.sentence.startswith(
        "the penalty was active at none of 10 logged steps, 1 to 10, where nll of y- was 4.5 to 6.25 nats: sft_c is"
        " plain sft so far. Try "
    )
    assert finding.values == {"logged": 10, "nll_rejected_least": 4.5, "nll_rejected_most": 6.25}


def test_one_step_is_not_never() -> None:
    told = fine(ConstraintNeverActive(), trained("sft_c", penalty_active=[0, 0, 1, *[0] * 9]))
    assert told == "the penalty was active at 1 of 12 logged steps, first at step 3, last at step 3"


def test_constraint_cannot_be_told() -> None:
    alarm = ConstraintNeverActive()
    assert unjudged(alarm, trained(loss=[1.0] * 20)) == "the logged steps of dpo have no penalty_active"
    assert unjudged(alarm, Evidence("stage1", "sft_c")) == "there is no training curve"
    assert unjudged(alarm, trained("sft_c", penalty_active=[0.0] * 9)).endswith("it takes 10")
    assert "nll" not in found(alarm, trained("sft_c", penalty_active=[0.0] * 10)).sentence


# ---- the loser's gradient


def test_loser_gradient() -> None:
    evidence = trained(gradient_chosen=[1.0] * 6, gradient_rejected=[1.0, 1.0, 1.0, 10.0, 7.0, 5.0])
    finding = found(LoserGradient(window=2), evidence)
    assert finding.step == 4  # means 1, 1, 5.5, 8.5, 6 at steps 2 to 6
    assert "for y- from 1 (step 2) to 6 (step 6), for y+ from 1 (step 2) to 1 (step 6)" in finding.sentence
    assert finding.values["gradient_rejected_to"] == 6.0


def test_a_loser_that_pulls_just_five_times_as_much() -> None:
    evidence = trained(gradient_chosen=[1.0] * 10, gradient_rejected=[9.0, *[5.0] * 8, 1.0])
    assert fine(LoserGradient(), evidence).endswith("alarming above 5 times as much")


def test_no_winner_at_all() -> None:
    found(LoserGradient(), trained(gradient_chosen=[0.0] * 10, gradient_rejected=[0.1] * 10))
    fine(LoserGradient(), trained(gradient_chosen=[0.0] * 10, gradient_rejected=[0.0] * 10))


def test_loser_gradient_cannot_be_told() -> None:
    probes = Evidence("stage2", "grpo", curve(loser_gradient_dpo=[1, 2]), logged(loss=[1.0] * 20))
    assert unjudged(LoserGradient(), probes) == "the logged steps of grpo have no gradient_chosen"


# ---- divergence


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("column", ["loss", "grad_norm"])
def test_what_is_no_number(column: str, value: float) -> None:
    columns = {"loss": [1.0] * 4, "grad_norm": [1.0] * 4}
    columns[column] = [1.0, 1.0, value, value]
    finding = found(Divergence(), trained(**columns))
    assert finding.step == 3
    assert finding.sentence.startswith(f"{column} is {value} at step 3. Try ")


def test_what_a_file_has_no_form_for_is_no_number_either() -> None:
    """The store writes null for it."""
    points = [{"step": step, "loss": 1.0 if step < 3 else None, "grad_norm": 1.0} for step in range(1, 5)]
    finding = found(Divergence(), Evidence("stage2", "dpo", (), points))  # type: ignore[arg-type]
    assert finding.sentence.startswith("loss is not a finite number at step 3. Try ")


def test_an_exploding_gradient() -> None:
    norms = [1.0, 2.0, 1.0, 2.0, 1.0, 50.0, 60.0, 70.0, 1.0]
    finding = found(Divergence(), trained(grad_norm=norms))
    assert finding.step == 6
    # before the third: 1, 1, 1, 2, 2, 50, 60, of which 2 is the median
    assert "from 2 (median before) to 50 (step 6) and 70 (step 8), more than 10 times" in finding.sentence
    assert finding.values == {"usual": 2.0, "grad_norm_from": 50.0, "grad_norm_to": 70.0}


@pytest.mark.parametrize(
    "norms",
    [
        [1.0, 1.0, 1.0, 1.0, 1.0, 50.0, 50.0, 1.0, 50.0],  # not three in a row
        [1.0, 1.0, 1.0, 1.0, 1.0, 10.0, 10.0, 10.0],  # exactly ten times
        [1.0, 1.0, 1.0, 1.0, 50.0, 50.0, 50.0],  # before there is a usual norm: 5 of them
        [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0],  # nothing is many times 0
    ],
)
def test_no_explosion(norms: list[float]) -> None:
    assert f"the norm was {min(norms):.4g} to {max(norms):.4g}, last {norms[-1]:.4g}" in (
        fine(Divergence(), trained(grad_norm=norms))
    )


@ANY
@given(st.lists(st.sampled_from([1.0, 1.5, 100.0]), max_size=15), st.lists(st.floats(), max_size=5))
def test_what_has_diverged_stays_so(norms: list[float], later: list[float]) -> None:
    before, after = trained(grad_norm=norms), trained(grad_norm=[*norms, *later])
    found = examine(before, ["divergence"])
    finite = all(math.isfinite(value) for value in later)
    assert not found or not finite or examine(after, ["divergence"]) == found


def test_divergence_cannot_be_told() -> None:
    assert unjudged(Divergence(), Evidence("stage1", "sft")) == "there is no training curve"
    assert unjudged(Divergence(), trained(loss=[1.0])) == "the logged steps of dpo have no grad_norm"


# ---- all of them

NAMES = ["squeezing", "peaking", "stale_negatives", "constraint_never_active", "loser_gradient", "divergence"]


def test_they_are_known_by_name() -> None:
    assert list(ALARMS) == NAMES
    assert all(alarm.name == name for name, alarm in ALARMS.items())


def test_examine_by_name() -> None:
    evidence = probed(**SQUEEZED, entropy=[2.0, 1.0, 0.5, 0.5])
    assert [finding.name for finding in examine(evidence)] == ["squeezing", "peaking"]
    assert [finding.name for finding in examine(evidence, ["peaking", "divergence"])] == ["peaking"]
    assert examine(evidence, []) == []
    assert examine(evidence, [Peaking(share=0.9)]) == []


def test_an_unknown_name() -> None:
    with pytest.raises(ConfigError, match="unknown alarm 'squezing'; did you mean 'squeezing'"):
        examine(probed(), ["squezing"])


def test_no_evidence_is_no_alarm() -> None:
    assert examine(Evidence("stage1", "sft")) == []
    assert all(isinstance(verdict, Unjudged) for verdict in verdicts(Evidence("stage1", "sft")))


class Where(Config):
    alarms: tuple[Alarm, ...] = ()


def test_in_a_file() -> None:
    content = {"alarms": ["squeezing", {"name": "peaking", "share": 0.25}]}
    assert validate(Where, content, "grid.yaml").alarms == (Squeezing(), Peaking(share=0.25))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("sqeezing", "alarms.0: unknown name 'sqeezing'; did you mean 'squeezing'. valid: constraint_never_active, "),
        (
            {"name": "peaking", "shar": 0.3},
            "alarms.0.shar: unknown key 'shar'; did you mean 'share'. valid: name, share",
        ),
        ({"name": "peaking", "share": 1}, "alarms.0.share: .*less than 1; found 1"),
        ({"name": "divergence", "times": 1}, "alarms.0.times: .*greater than 1; found 1"),
        ({"share": 0.3}, "alarms.0: needs the key 'name'; valid: constraint_never_active, "),
    ],
)
def test_wrong_in_a_file(entry: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Where, {"alarms": [entry]}, "grid.yaml")


COLUMNS = [
    "mean_logp_chosen", "mean_logp_hard", "top1", "entropy", "w_c_hard", "w_c_easy", "w_c_from_0.0", "penalty_active",
    "nll_rejected", "gradient_chosen", "gradient_rejected", "loss", "grad_norm",
]  # fmt: skip
rows = st.lists(st.dictionaries(st.sampled_from(COLUMNS), st.floats() | st.none()), max_size=14).map(
    lambda found: [{**row, "step": step} for step, row in enumerate(found)]
)
evidences = st.builds(Evidence, st.just("stage2"), st.just("cw_dpo"), points=rows, training=rows)


@ANY
@given(evidences)
def test_whatever_is_recorded_there_is_a_verdict_of_each(evidence: Evidence) -> None:
    found = verdicts(evidence)
    assert [verdict.name for verdict in found] == NAMES
    assert verdicts(evidence) == found or any(value != value for value in _numbers(found))


def _numbers(found: Sequence[Any]) -> list[float]:
    return [value for verdict in found if isinstance(verdict, Finding) for value in verdict.values.values()]
