"""What `cwdpo probe explain` says: findings, what is in order with its numbers, and what cannot be told."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from cwdpo.base.errors import ConfigError
from cwdpo.cli import probe
from cwdpo.cli.app import app
from cwdpo.dynamics.alarms import Evidence, Peaking
from cwdpo.dynamics.explain import diagnose, explain
from cwdpo.dynamics.points import points_of
from cwdpo.dynamics.rows import Probes
from cwdpo.jobs import probed as probed_cells
from cwdpo.jobs.probed import Recorded

PROBES = [
    {
        "step": step,
        "mean_logp_chosen": chosen,
        "mean_logp_hard": hard,
        "top1": top1,
        "entropy": entropy,
        "w_c_hard": w_c,
    }
    for step, chosen, hard, top1, entropy, w_c in [
        (0, -1.0, -2.0, 0.5, 2.0, 0.5),
        (10, -1.5, -3.0, 0.75, 1.5, 0.25),
        (20, -2.0, -4.0, 0.75, 1.25, 0.125),
    ]
]
TRAINING = [{"step": step, "loss": 0.5, "grad_norm": 1.0 + step} for step in range(1, 13)]


def test_a_training_with_a_finding() -> None:
    text = explain([Evidence("stage2", "dpo", PROBES, TRAINING, total=20)])
    first, looked, alarm, *others = text.split("\n")
    assert first == "stage2 (dpo): alarming: squeezing"
    assert looked == "  looked at: 3 probes, 0 to 20; 12 logged steps, 1 to 12, of 20 that are scheduled"
    assert alarm.startswith("  ALARM squeezing, since step 10: mean_logp of y+ went from -1 (step 0) to -2 (step 20)")
    assert others == [
        "  in order: peaking: the mean token entropy went from 2 (step 0) to 1.25 (step 20) nats; alarming under 1",
        "  in order: stale_negatives: the share of grades of probed negatives (1 of them) whose mean w_c is under 0.1"
        " went from 0% (step 0) to 0% (step 20); alarming above 50%",
        "  in order: divergence: loss and gradient norm were finite at 12 logged steps, 1 to 12; the norm was 2 to 13,"
        " last 13",
        "  constraint_never_active: not available: the logged steps of dpo have no penalty_active",
        "  loser_gradient: not available: the logged steps of dpo have no gradient_chosen",
    ]


def test_nothing_alarming() -> None:
    text = diagnose(Evidence("stage2", "dpo", PROBES[:2], TRAINING), ["peaking", "divergence", "loser_gradient"]).text()
    assert text.startswith("stage2 (dpo): nothing alarming in 2 of 3 respects\n")


def test_reasons_that_are_the_same_are_told_once() -> None:
    text = explain([Evidence("stage1", "sft_c", missing="probing is off")])
    assert text == (
        "stage1 (sft_c): nothing could be judged\n"
        "  looked at: no probes; no logged steps\n"
        "  squeezing, peaking, stale_negatives: not available: probing is off\n"
        "  constraint_never_active, loser_gradient, divergence: not available: there is no training curve"
    )


def test_stages_in_their_order() -> None:
    stages = [Evidence(name, "sft", missing="probing is off") for name in ("stage1", "stage2")]
    assert [part.split(" ")[0] for part in explain(stages).split("\n\n")] == ["stage1", "stage2"]
    assert explain([]) == ""


def test_json_has_the_same() -> None:
    found = diagnose(Evidence("stage2", "dpo", PROBES, TRAINING, total=20)).as_json()
    assert (found["stage"], found["objective"], found["probes"], found["logged"], found["total"]) == (
        "stage2", "dpo", [0, 10, 20], 12, 20,
    )  # fmt: skip
    (finding,) = found["findings"]
    assert (finding["name"], finding["step"], finding["values"]["mean_logp_chosen_to"]) == ("squeezing", 10, -2.0)
    assert list(found["in_order"]) == ["peaking", "stale_negatives", "divergence"]
    assert list(found["not_available"]) == ["constraint_never_active", "loser_gradient"]


def test_json_of_what_is_no_number() -> None:
    found = diagnose(Evidence("stage2", "dpo", training=[{"step": 1, "loss": math.nan}])).as_json()
    assert found["findings"][0]["values"] == {"loss": None}
    json.dumps(found, allow_nan=False)


def test_thresholds_of_ones_own() -> None:
    found = diagnose(Evidence("stage2", "dpo", PROBES), [Peaking(share=0.25)])
    assert [finding.step for finding in found.findings] == [20]


# ---- from recorded rows, and on the command line


def recorded_probes() -> Probes:
    """Two steps, one sample, a true answer of one token and a hard negative that goes from -2 to -4 nats."""
    responses = [
        {"step": step, "id": "a", "kind": kind, "tokens": 1, "logp": logp, "delta_logp": delta, "residual": 1.0,
         "w_c": w_c}
        for step, kind, logp, delta, w_c in [
            (0, "chosen", -1.0, 0.0, math.nan), (0, "hard", -2.0, 0.0, 0.5),
            (10, "chosen", -1.5, -0.5, math.nan), (10, "hard", -4.0, -2.0, 0.25),
        ]
    ]  # fmt: skip
    tokens = [
        {"step": step, "id": "a", "position": 0, "token": 7, "logp": -1.0, "entropy": entropy, "tv": 0.0, "js": 0.0,
         "top_tokens": [7, 1, 2, 3, 4], "top_probs": [top, 0.05, 0.05, 0.05, 0.05]}
        for step, entropy, top in [(0, 2.0, 0.5), (10, 0.5, 0.75)]
    ]  # fmt: skip
    return Probes({"beta": 0.1}, pd.DataFrame(responses), pd.DataFrame(tokens))


def test_points_of_what_was_recorded() -> None:
    first, last = points_of(recorded_probes())
    assert (first["step"], first["margin"], first["mean_logp_hard"]) == (0, 0.0, -2.0)
    assert (last["step"], last["margin"], last["mean_logp_chosen"], last["top1"]) == (10, 1.5, -1.5, 0.75)
    assert all(type(value) in (int, float) for value in last.values())


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of two stages, of which one was probed, and one that trains nothing."""
    nothing = Recorded(None, "probing is off", training=[], objective="sft", total=5)
    probed = Recorded(recorded_probes(), "", training=TRAINING, objective="dpo", total=20)
    cells = {"dpo/0": {"stage1": nothing, "stage2": probed}, "base/0": {}}
    monkeypatch.setattr(probed_cells, "recorded", lambda plan, cell: cells[cell])
    monkeypatch.setattr(probe, "open_plan", lambda *arguments: None)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["probe", *arguments, "--grid", "demo"])


@pytest.mark.usefixtures("recorded")
def test_the_command() -> None:
    found = run("explain", "dpo/0")
    assert found.exit_code == 0
    assert found.output.startswith("stage1 (sft): nothing could be judged\n")
    assert "\n\nstage2 (dpo): alarming: squeezing, peaking\n" in found.output
    assert "stage1" not in run("explain", "dpo/0", "--stage", "stage2").output


@pytest.mark.usefixtures("recorded")
def test_the_command_for_scripts() -> None:
    found = json.loads(run("explain", "dpo/0", "--json").output)
    assert found["run"] == "dpo/0"
    assert [(stage["stage"], len(stage["findings"])) for stage in found["stages"]] == [("stage1", 0), ("stage2", 2)]


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("explain", "base/0"), "base/0 trains nothing"),
        (("explain", "dpo/0", "--stage", "stage3"), "--stage: 'stage3'; did you mean 'stage2'? valid: stage1, stage2"),
    ],
)
def test_what_is_not_there(arguments: tuple[str, ...], message: str) -> None:
    found = run(*arguments)
    assert isinstance(found.exception, ConfigError)
    assert message in str(found.exception)


@pytest.mark.usefixtures("recorded")
def test_the_command_replays() -> None:
    """The margin goes from 0 to 1.5 in the two probes there are."""
    found = run("replay", "dpo/0", "--early-stop", "patience=1")
    assert found.exit_code == 0
    assert found.output.startswith("stage1: not available: probing is off\n\nstage2: name=margin, patience=1, ")
    assert "never stops it in 2 probes, up to step 10 of 20" in found.output
    stages = json.loads(run("replay", "dpo/0", "--early-stop", "name=chosen,patience=1", "--json").output)["stages"]
    assert stages[0] == {"stage": "stage1", "not_available": "probing is off"}
    assert (stages[1]["stop"]["step"], stages[1]["saved"], stages[1]["kept"]) == (10, 10, 0)


@pytest.mark.usefixtures("recorded")
def test_the_command_names_a_wrong_key() -> None:
    found = run("replay", "dpo/0", "--early-stop", "patence=1")
    assert isinstance(found.exception, ConfigError)
    assert "unknown key 'patence'; did you mean 'patience'? valid: keep, min_change, name, patience" in (
        str(found.exception)
    )


def test_probes_without_what_a_rule_reads() -> None:
    from cwdpo.dynamics.early_stop import Margin

    reason = probe.replayed(Margin(), Evidence("stage1", "sft", [{"step": 0, "entropy": 1.0}]))
    assert reason == "early stop 'margin' reads margin, which the probe of step 0 lacks; it has: entropy, step"
