"""What an endpoint writes is what training sees: real stages, from asking to the last step, for each kind of task."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import pytest
from endpoints import Standin, serving, texts_of
from harness import Micro

from cwdpo.base import files
from cwdpo.base.store import Store
from cwdpo.experiment import load_grid
from cwdpo.graph import Node
from cwdpo.jobs.events import curve
from cwdpo.jobs.plan import Plan, make_plan

STEPS = 2
PERTURB = {"source": "perturb"}


def written(text: str, model: str) -> str:
    """What a model makes of a text, whatever it is asked for."""
    return f"{text} Says {model}."


def reply(body: Mapping[str, Any]) -> str:
    """Of any task."""
    (text,), model = texts_of(body), body["model"]
    if "different wrong answers" in text:
        return json.dumps({"rewrites": [{"text": written(_after("true answer", text), model), "kind": "attribute"}]})
    if "sentences numbered" in text:
        numbered = re.findall(r"^\d+\. (.*)$", text, re.MULTILINE)
        scores = [{"score": 2, "image_error": True}] * len(numbered)
        return json.dumps({"scores": scores, "revised": written(" ".join(numbered), model)})
    turn = {"question": f"{_after('wrong answer', text)}?", "answer": written(_after("true answer", text), model)}
    return json.dumps({"dialogue": [turn]})


def _after(heading: str, text: str) -> str:
    (found,) = re.findall(rf"This is a {heading}:\n(.*)", text)
    return str(found)


def stage2(kind: str, endpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Stage 2 of a case."""
    optimization = {"batch_size": 4, "max_steps": STEPS, "learning_rate": 2e-3}
    settings: dict[str, dict[str, Any]] = {
        "dpo": {"negatives": {"source": "llm", "endpoint": endpoint}},
        "opa_dpo": {
            "negatives": {"source": "revised", "endpoint": endpoint, "max_new_tokens": 8},
            "sft_phase": {"optimization": optimization},
        },
        "nsft": {"negatives": {"source": "corrective", "of": PERTURB, "writer": {"endpoint": endpoint}}},
    }
    return {"objective": {"name": kind}, "optimization": optimization, **settings[kind]}


@dataclass(frozen=True)
class Trained:
    """A finished grid of two models behind the endpoint, `one` and `two`, and each kind of training with each."""

    plan: Plan

    def stage2(self, kind: str, model: str) -> Node:
        found = self.plan.wired[f"{kind} {model}/0"].policy
        assert found is not None
        return found

    def folder(self, node: Any) -> Path:
        return Path(node.artefact(self.plan.store).files)

    def curve(self, node: Any) -> list[dict[str, Any]]:
        return curve(node.artefact(self.plan.store))

    def negatives(self, kind: str, model: str) -> list[dict[str, Any]]:
        """Rows of what its training reads, each with a rejected response."""
        rows = list(files.read_jsonl(self.folder(self.stage2(kind, model).inputs["negatives"]) / "negatives.jsonl"))
        return [row for row in rows if row["rejected"]]

    def first_steps(self, kind: str, name: str) -> tuple[float, float]:
        """A measure of the first step of Stage 2, with either model."""
        one, two = (self.curve(self.stage2(kind, model))[0][name] for model in ("one", "two"))
        return one, two


def differ(values: tuple[float, float]) -> bool:
    """By more than rounding."""
    return abs(values[0] - values[1]) > 1e-3


@pytest.fixture(scope="module")
def trained(micro: Micro, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    home = tmp_path_factory.mktemp("llm-trained")
    with serving(Standin(reply)) as standin:
        endpoints = {name: {"model": name, "base_url": standin.url, "patience": 20} for name in ("one", "two")}
        base = {
            "data": {"source": "demo_world", "world": harness.WORLD}, "tuning": {"name": "lora", "rank": 4, "alpha": 8},
            "model": {"source": "checkpoint", "path": str(micro.model), "dtype": "float32"},
            "execution": {"micro_batch": 4},
        }  # fmt: skip
        cases = {
            f"{kind} {name}": {"stage2": stage2(kind, endpoint)}
            for kind in ("dpo", "opa_dpo", "nsft")
            for name, endpoint in endpoints.items()
        }
        grid = home / "grid.yaml"
        grid.write_text(json.dumps({"base": base, "cases": cases}))
        plan = make_plan(load_grid(str(grid)), Store(home))
        harness.compute(home, plan.nodes)
        return Trained(plan)


@pytest.mark.parametrize("kind", ["dpo", "opa_dpo", "nsft"])
def test_training_ends_with_finite_losses(trained: Trained, kind: str) -> None:
    for model in ("one", "two"):
        points = trained.curve(trained.stage2(kind, model))
        assert [point["step"] for point in points] == list(range(1, STEPS + 1))
        assert all(math.isfinite(point["loss"]) for point in points)


def test_rewrites_are_the_rejected_responses(trained: Trained) -> None:
    rows = trained.negatives("dpo", "one")
    assert len(rows) > 2 * STEPS
    for row in rows:
        (item,) = row["rejected"]
        assert (item["text"], item["source"]) == (written(row["chosen"], "one"), "llm:attribute")
        assert item["how"] == {"kind": "attribute", "model": "one"}
    assert differ(trained.first_steps("dpo", "mean_logp_rejected")), "nothing but what was written differs"


def test_corrections_stand_beside_the_policys_own_answers(trained: Trained) -> None:
    rows, phase = trained.negatives("opa_dpo", "two"), trained.stage2("opa_dpo", "two").inputs["adapter"]
    assert isinstance(phase, Node)
    assert len(rows) > 2 * STEPS
    for row in rows:
        (item,) = row["rejected"]
        assert (item["revised"], item["source"]) == (written(item["text"], "two"), "own_answer")
        assert item["scores"][0] == {"score": 2, "image_error": True}
    assert phase.stage.name == "sft_phase"
    assert phase.inputs["negatives"] is trained.stage2("opa_dpo", "two").inputs["negatives"]
    other = trained.stage2("opa_dpo", "one").inputs["adapter"]
    mine, elsewhere = (trained.curve(node)[0] for node in (phase, other))
    assert mine["nll_chosen"] == pytest.approx(elsewhere["nll_chosen"])
    assert differ((mine["nll_revised"], elsewhere["nll_revised"]))
    # Before the first step six terms are ln 2, two of them at 0.2; a sentence at 2 with an error weighs 2 * 3.
    assert trained.first_steps("opa_dpo", "loss") == pytest.approx((6 * 4.4 * math.log(2),) * 2)


def test_dialogues_are_about_the_rejected_responses_of_the_other_source(trained: Trained) -> None:
    rows = trained.negatives("nsft", "one")
    assert len(rows) > 2 * STEPS
    for row in rows:
        (item,) = row["rejected"]
        assert item["dialogue"] == [[f"{item['text']}?", written(row["chosen"], "one")]]
        assert item["source"].startswith("perturb:")
    assert not differ(trained.first_steps("nsft", "nll_chosen"))
    assert differ(trained.first_steps("nsft", "nll_dialogue"))
