"""Every method of the tables in every engine, against its plainest run: the same curve, measures and weights.

All combinations of how a method can be computed would be thousands; a pairwise cover has every two settings together
at least once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any

import harness
import pytest
import torch
import unsteady_worker
from campaign import IN_FULL
from harness import POLICY, Micro
from safetensors.torch import load_file

from cwdpo.base.config import validate
from cwdpo.base.errors import ConfigError
from cwdpo.base.files import read_jsonl
from cwdpo.base.store import Store
from cwdpo.data.encoding import Collator
from cwdpo.data.records import read_records
from cwdpo.data.samples import DataOrder, Sample, load_samples
from cwdpo.experiment import Experiment
from cwdpo.graph import Node
from cwdpo.jobs.events import curve
from cwdpo.model.config import Policy
from cwdpo.model.load import load_lora, load_model, load_policy_processor
from cwdpo.model.tiny import TinyQwen, build_tiny_qwen
from cwdpo.objectives import OpaDpo

Row = dict[str, Any]

STEPS, STOP = 3, 2
BATCH = 5  # over 2 ranks in micro-batches of 2 one rank has two of them, the other one and an idle one
OPTIMIZATION = {"batch_size": BATCH, "epochs": 2, "max_steps": STEPS, "learning_rate": 2e-3, "clip": 0.5}
TUNINGS = {"lora": {"name": "lora", "rank": 4, "alpha": 8}, "full": {"name": "full"}}

# Settings under which every term acts on a model to which every word costs about 6.5 nats.
STAGE1: dict[str, Row] = {
    "sft": {},
    "sft_c": {"weight": 0.5, "floor": 6.44},
    "sft_c_hard": {"floor": 7.0, "step": 0.3, "initial": 0.1},
    "sft_c_ceiling": {"weight": 0.5, "ceiling": 6.0},
    "sft_entropy": {"weight": 0.5},
    "sft_gentle": {"weight": 0.5},
    "sft_label_smoothing": {"smoothing": 0.3},
    "sft_revised": {},
}
STAGE2: dict[str, Row] = {
    "dpo": {},
    "cw_dpo": {"l_floor": -6.0},
    "fixed_weight_dpo": {},
    "focal_dpo": {},
    "v_dpo": {},
    "opa_dpo": {},
    "continual_sft": {},
    "nsft": {},
    "nsft, kl": {"kl": 0.5},
}
METHODS = {**STAGE1, **STAGE2}
SINGLE = ("sft", "sft_label_smoothing", "continual_sft")
"""What has no use for rejected responses."""

FACTORS: dict[str, tuple[Any, ...]] = {
    "method": tuple(METHODS),
    "tuning": tuple(TUNINGS),
    "zero_stage": (0, 1, 2, 3) if IN_FULL else (2, 3),
    "shared_prefix": (True, False),
    "micro_batch": (2, 4),
    "ranks": (1, 2),
    "rejected": (1, 2),
}
ENGINE = ("zero_stage", "shared_prefix", "micro_batch")
PLAINEST = {"zero_stage": 0, "shared_prefix": False, "chunked_head": False, "micro_batch": BATCH, "feed_workers": 0}
BF16 = {"dtype": "bfloat16"}
IN_BF16 = {"cw_dpo": {"zero_stage": 2, "micro_batch": 2}, "nsft, kl": {"zero_stage": 3, "micro_batch": 4}}

PAIRS = {"margin", "accuracy", "delta_chosen", "delta_rejected", "mean_logp_rejected"}
PULLS = {"gradient_chosen", "gradient_rejected"}
PENALTY = {"nll_rejected", "penalty", "penalty_active"}
BINS = {f"w_c_from_0.{tenth}" for tenth in range(10)}
MEASURES: dict[str, set[str]] = {
    "sft": {"nll_chosen"},
    "sft_c": {"nll_chosen", *PENALTY, *PULLS, "state_penalty_on"},
    "sft_c_hard": {"nll_chosen", *PENALTY, *PULLS, "state_multiplier"},
    "sft_c_ceiling": {"nll_chosen", *PENALTY, *PULLS, "state_penalty_on"},
    "sft_entropy": {"nll_chosen", "nll_rejected", "entropy_chosen", "entropy_rejected"},
    "sft_gentle": {"nll_chosen", "nll_rejected", "uniform_chosen", "uniform_rejected"},
    "sft_label_smoothing": {"nll_chosen", "uniform_chosen"},
    "sft_revised": {"nll_chosen", "nll_revised", "gradient_chosen", "gradient_revised"},
    "dpo": {*PAIRS, *PULLS},
    "cw_dpo": {*PAIRS, *PULLS, "w_c", "filtered", *BINS},
    "fixed_weight_dpo": {*PAIRS, *PULLS},
    "focal_dpo": {*PAIRS, *PULLS, "focal_weight"},
    "v_dpo": {*PAIRS, *PULLS, "guidance"},
    "opa_dpo": {*PAIRS, *PULLS, "gradient_revised", "loss_answers", "loss_images", "loss_anchor"},
    "continual_sft": {"nll_chosen"},
    "nsft": {"nll_chosen", "nll_dialogue", "gradient_chosen", "gradient_dialogue"},
    "nsft, kl": {"nll_chosen", "nll_dialogue", "kl_chosen", "kl_dialogue"},
}
ALWAYS = {"step", "total", "loss", "grad_norm", "learning_rate"}
CLOCK = {"event", "time", "seconds", "tokens_per_second"}


# ---------------------------------------------------------------------------------------------------------------------
# The cover


def possible(row: Row) -> bool:
    """The divergence is taken to a frozen adapter; and what has no use for rejected responses gets one set of them."""
    if row["method"] == "nsft, kl" and row["tuning"] == "full":
        return False
    return row["method"] not in SINGLE or row["rejected"] == 1


def cover(factors: Mapping[str, Sequence[Any]], possible: Callable[[Row], bool]) -> list[Row]:
    """Rows in which every two settings that are possible together occur: always the row with most new pairs.

    Among such rows the one with most new triples, so that what is free to choose is not always chosen alike.
    """
    rows = [dict(zip(factors, values, strict=True)) for values in product(*factors.values())]
    pairs, triples = (
        {number: set(combinations(row.items(), size)) for number, row in enumerate(rows) if possible(row)}
        for size in (2, 3)
    )
    missing, rare = set().union(*pairs.values()), set().union(*triples.values())
    chosen = []
    while missing:
        best = max(pairs, key=lambda number: (len(pairs[number] & missing), len(triples[number] & rare)))
        chosen.append(rows[best])
        missing -= pairs[best]
        rare -= triples[best]
    return chosen


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return cover(FACTORS, possible)


def test_every_two_settings_that_go_together_are_in_some_row(rows: list[Row]) -> None:
    impossible = {
        ("method", "tuning"): {("nsft, kl", "full")},
        ("method", "rejected"): {(method, 2) for method in SINGLE},
    }
    for one, other in combinations(FACTORS, 2):
        found = {(row[one], row[other]) for row in rows}
        expected = set(product(FACTORS[one], FACTORS[other])) - impossible.get((one, other), set())
        assert found == expected, (one, other)
    assert len(rows) < 1.2 * len(METHODS) * len(FACTORS["zero_stage"]), "not many more than there must be"


# ---------------------------------------------------------------------------------------------------------------------
# The trainings


class Runs:
    """All trainings, in one home.

    Attributes:
        nodes: what is trained, by a name that says how.
    """

    def __init__(self, micro: Micro, home: Path) -> None:
        self.micro, self.home = micro, home
        texts = [record.chosen for record in read_records(micro.pairs / "records.jsonl")]
        # ZeRO-3 leaves parameters of less than 100,000 numbers whole: these embeddings and feed-forward layers are not.
        build_tiny_qwen(TinyQwen(hidden_size=256, intermediate_size=448, image_size=32), texts, home / "model", seed=0)
        self.inputs = {**micro.inputs(), "model": home / "model"}
        self.negatives = {key: self._negatives(*key) for key in product(("stage1", "stage2"), (1, 2))}
        self.adapter = self._training("stage1", "sft", {}, "lora", 1, "adapter", {"micro_batch": BATCH})
        self.references = {key: self._reference(*key) for key in product(TUNINGS, (1, 2))}
        self.reference16 = self._reference("lora", 2, BF16)
        self.nodes: dict[str, Node] = {}

    def before(self) -> list[Node]:
        """What trainings read, in order."""
        return [*self.negatives.values(), self.adapter, *self.references.values(), self.reference16]

    def plainest(self, method: str, tuning: str, rejected: int, label: str = "plainest", **more: Any) -> Node:
        """The run in which nothing is shared, cut up or spread over ranks."""
        return self._node(method, tuning, rejected, label, PLAINEST, **more)

    def plainest_of(self, row: Row) -> Node:
        """The plainest run that must give the same as a row."""
        return self.plainest(row["method"], row["tuning"], row["rejected"])

    def of(self, row: Row) -> Node:
        label = ", ".join(f"{row[key]}" for key in (*ENGINE, "ranks"))
        return self._node(row["method"], row["tuning"], row["rejected"], label, {key: row[key] for key in ENGINE})

    def curve(self, node: Node) -> list[dict[str, float]]:
        """Points of a training curve without what a clock says."""
        points = curve(node.artefact(Store(self.home)))
        return [{key: value for key, value in point.items() if key not in CLOCK} for point in points]

    def weights(self, node: Node) -> dict[str, torch.Tensor]:
        (path,) = node.artefact(Store(self.home)).files.glob("*.safetensors")
        return load_file(path)

    def _node(self, method: str, tuning: str, rejected: int, label: str, execution: Row, **more: Any) -> Node:
        name = f"{method}, {tuning}, {rejected}: {label}"
        if name not in self.nodes:
            stage = "stage1" if method in STAGE1 else "stage2"
            settings = METHODS[method]
            self.nodes[name] = self._training(stage, method, settings, tuning, rejected, name, execution, **more)
        return self.nodes[name]

    def _training(
        self, stage: str, method: str, settings: Row, tuning: str, rejected: int, label: str, execution: Row,
        policy: Row = POLICY, reference: Node | None = None,
    ) -> Node:  # fmt: skip
        objective = {"name": method.partition(",")[0], **settings}
        spec = {"policy": policy, "tuning": TUNINGS[tuning], "optimization": OPTIMIZATION, "objective": objective}
        inputs = {**self.inputs, "negatives": self.negatives[stage, rejected]}
        if stage == "stage2":
            inputs |= self._start(tuning) | {"reference": reference or self.references[tuning, rejected]}
        return harness.node(stage, spec, inputs, label, **execution)

    def _start(self, tuning: str) -> dict[str, Any]:
        """What Stage 2 begins with: an adapter, or with full tuning the model itself."""
        return {"adapter": self.adapter} if tuning == "lora" else {}

    def _negatives(self, portion: str, count: int) -> Node:
        """Rejected responses that come with everything that any method asks for."""
        of = {"source": "perturb", "count": count, "of": "reference"}
        negatives = {"source": "corrective", "turns": 2, "of": of}
        return harness.node("negatives", {"negatives": negatives, "portion": portion}, {"pairs": self.micro.pairs})

    def _reference(self, tuning: str, count: int, policy: Row = POLICY) -> Node:
        """Log-probabilities of all terms of any method."""
        inputs = {**self.inputs, **self._start(tuning), "negatives": self.negatives["stage2", count]}
        spec = {"policy": policy, "terms": OpaDpo().terms, "masked_share": OpaDpo().masked_share}
        return harness.node("reference", spec, inputs)

    def from_elsewhere(self, method: str) -> Node:
        """A run whose policy starts from the adapter, but whose reference is the model without it."""
        return self.plainest(method, "lora", 2, "from elsewhere", reference=self.references["full", 2])

    def in_bf16(self, method: str) -> Node:
        """One of the runs in bf16."""
        more = {"policy": BF16, "reference": self.reference16}
        return self._node(method, "lora", 2, "bf16", IN_BF16[method], **more)


@pytest.fixture(scope="module")
def runs(micro: Micro, rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Everything computed: what comes before, trainings that are stopped, then jobs of one and of two ranks at once."""
    runs = Runs(micro, tmp_path_factory.mktemp("methods"))
    harness.compute(runs.home, runs.before())
    stopped = [runs.plainest(method, "lora", 1, "resumed") for method in ("sft_c_hard", "cw_dpo")]
    job = unsteady_worker.start(runs.home, stopped, STOP)
    assert harness.finish(job) == 0, harness.output(runs.home, stopped)
    plain = [runs.plainest_of(row) for row in rows]
    always = [runs.plainest(method, "lora", 1) for method in METHODS]
    always += [runs.plainest("sft_c", "full", 1), *(runs.plainest(method, "lora", 2) for method in IN_BF16)]
    elsewhere = [runs.from_elsewhere(method) for method in ("dpo", "cw_dpo")]
    one, two = ([runs.of(row) for row in rows if row["ranks"] == ranks] for ranks in (1, 2))
    one = list(dict.fromkeys([*plain, *always, *one, *elsewhere, *stopped, *map(runs.in_bf16, IN_BF16)]))
    jobs = [harness.start(runs.home, one), harness.start(runs.home, two, ranks=2)]
    statuses = [harness.finish(job) for job in jobs]
    assert statuses == [0, 0], harness.output(runs.home, [*one, *two])
    return runs


# ---------------------------------------------------------------------------------------------------------------------
# The same everywhere


@pytest.mark.parametrize("method", METHODS)
def test_every_engine_trains_the_same(runs: Runs, rows: list[Row], method: str) -> None:
    for row in (row for row in rows if row["method"] == method):
        mine, plain = runs.of(row), runs.plainest_of(row)
        found, expected = runs.curve(mine), runs.curve(plain)
        assert len(found) == len(expected) == STEPS
        for here, there in zip(found, expected, strict=True):
            assert here["loss"] == pytest.approx(there["loss"], abs=2e-5), row
            assert here == pytest.approx(there, abs=2e-4), row
        weights, plain_weights = runs.weights(mine), runs.weights(plain)
        assert distance(weights, plain_weights) < 2e-3 * distance(plain_weights, start(runs, row)), row


def distance(mine: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> float:
    """Norm of the difference. One weight alone tells little: AdamW moves it by the sign of a gradient near 0, too."""
    assert mine.keys() == theirs.keys()
    return math.sqrt(sum(float((mine[name] - theirs[name]).norm()) ** 2 for name in theirs))


def start(runs: Runs, row: Row) -> dict[str, torch.Tensor]:
    """The weights a row began with; of a fresh adapter only that its B is 0."""
    if row["tuning"] == "full":
        return load_file(runs.home / "model" / "model.safetensors")
    if row["method"] in STAGE2:
        return runs.weights(runs.adapter)
    after = runs.weights(runs.plainest_of(row))
    return {name: torch.zeros_like(value) if "lora_B" in name else value for name, value in after.items()}


def test_every_method_trains_something_else(runs: Runs) -> None:
    """Negative control: were two of them mixed up, the comparisons above would not show it."""
    results = {method: runs.weights(runs.plainest(method, "lora", 1)) for method in METHODS}
    moved = distance(results["dpo"], runs.weights(runs.adapter))
    assert moved > 0.1
    for one, other in combinations(results, 2):
        assert distance(results[one], results[other]) > 0.02 * moved, (one, other)


def test_the_first_loss_of_preference_methods_is_that_of_equal_policies(runs: Runs) -> None:
    """Every difference of log-probabilities is 0; opa_dpo has 2 terms of answers, 2 of images, 2 of its anchor."""
    first = {method: runs.curve(runs.plainest(method, "lora", 1))[0] for method in STAGE2}
    for method, factor in {"dpo": 1, "cw_dpo": 1, "fixed_weight_dpo": 1, "focal_dpo": 0.25, "opa_dpo": 4.4}.items():
        assert first[method]["loss"] == pytest.approx(factor * math.log(2), abs=1e-5), method
        assert first[method]["accuracy"] == 0.5, "no pair is won or lost"
    for part in ("answers", "images", "anchor"):
        assert first["opa_dpo"][f"loss_{part}"] == pytest.approx(2 * math.log(2), abs=1e-5)


def test_the_divergence_from_the_start_is_zero_at_the_start(runs: Runs, rows: list[Row]) -> None:
    for row in (row for row in rows if row["method"] == "nsft, kl"):
        first, *later = runs.curve(runs.of(row))
        for name in ("kl_chosen", "kl_dialogue"):
            assert first[name] == pytest.approx(0, abs=1e-6), row
            assert all(after[name] > before[name] + 1e-3 for before, after in pairwise([first, *later])), row


def test_bf16_follows_float32(runs: Runs) -> None:
    for method in IN_BF16:
        found = runs.curve(runs.in_bf16(method))
        expected = runs.curve(runs.plainest(method, "lora", 2))
        assert all(math.isfinite(value) for point in found for value in point.values())
        losses = [[point["loss"] for point in points] for points in (found, expected)]
        assert losses[0] == pytest.approx(losses[1], rel=0.02), method


@pytest.mark.parametrize("method", ["sft_c_hard", "cw_dpo"])
def test_a_resumed_training_is_the_undisturbed_one_byte_by_byte(runs: Runs, method: str) -> None:
    again, calm = (runs.plainest(method, "lora", 1, label) for label in ("resumed", "plainest"))
    assert again.artefact(Store(runs.home)).newest() == 2
    assert runs.curve(again) == runs.curve(calm)
    mine, theirs = (runs.weights(node) for node in (again, calm))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_the_multiplier_goes_on_where_it_stopped(runs: Runs) -> None:
    """Dual ascent by hand, from the logged means: step 3 was trained by a process that never saw step 1."""
    points = runs.curve(runs.plainest("sft_c_hard", "lora", 1, "resumed"))
    multiplier = 0.1
    for point in points:
        assert point["loss"] == pytest.approx(point["nll_chosen"] + multiplier * (7 - point["nll_rejected"]), abs=1e-5)
        multiplier += 0.3 * (7 - point["nll_rejected"])
        assert point["state_multiplier"] == pytest.approx(multiplier, abs=1e-5)
    assert multiplier > 0.3


def test_a_divergence_needs_lora() -> None:
    content = {
        "data": {"source": "demo_world", "world": {}}, "model": {"source": "tiny"}, "tuning": {"name": "full"},
        "stage2": {
            "objective": {"name": "nsft", "kl": 0.5},
            "negatives": {"source": "corrective", "of": {"source": "perturb"}},
        },
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"stage2: the KL divergence of objective 'nsft' .*needs tuning lora"):
        validate(Experiment, content, "grid")
    validate(Experiment, {**content, "tuning": {"name": "lora"}}, "grid")


# ---------------------------------------------------------------------------------------------------------------------
# What is logged


@pytest.mark.parametrize("method", METHODS)
def test_every_method_tells_what_it_is_judged_by(runs: Runs, method: str) -> None:
    for point in runs.curve(runs.plainest(method, "lora", 1)):
        assert point.keys() == ALWAYS | MEASURES[method]


def test_measures_are_what_they_are_called(runs: Runs) -> None:
    for point in runs.curve(runs.from_elsewhere("cw_dpo")):
        assert point["margin"] == pytest.approx(point["delta_chosen"] - point["delta_rejected"], abs=1e-5)
        assert sum(point[name] for name in BINS) == pytest.approx(1)
        assert 0 < point["w_c"] < 1
        assert sum(int(name[-1]) / 10 * point[name] for name in BINS) <= point["w_c"]
    floor = STAGE1["sft_c"]["floor"]
    curve = runs.curve(runs.plainest("sft_c", "full", 1))
    assert [point["penalty_active"] for point in curve] == [float(point["nll_rejected"] < floor) for point in curve]


@pytest.mark.parametrize("method", ["dpo", "cw_dpo"])
def test_the_pull_of_each_response_is_the_gradient_in_plain_logits(runs: Runs, method: str) -> None:
    """The first batch again, from all logits of a row for each response, with autograd."""
    point = runs.curve(runs.from_elsewhere(method))[0]
    expected = Plainly(runs).first_step(method)
    assert abs(point["margin"]) > 0.5, "the policy is not its own reference here"
    for name, value in expected.items():
        assert point[name] == pytest.approx(value, rel=1e-4), name


class Plainly:
    """The first global batch of the run from elsewhere, computed as one would on a blackboard."""

    def __init__(self, runs: Runs) -> None:
        store = Store(runs.home)
        files = {role: node.artefact(store).files for role, node in self._nodes(runs).items()}
        policy = Policy.model_validate(POLICY)
        processor = load_policy_processor(policy, runs.home / "model")
        self.model = load_lora(load_model(policy, runs.home / "model"), files["adapter"], trainable=False)
        self.collator = Collator(processor, runs.micro.images, 256)
        samples = load_samples(runs.micro.pairs, files["negatives"], "stage2", paired=True)
        self.batch = DataOrder(samples, BATCH, 0, False).batch(0)
        self.reference = {row["id"]: row for row in read_jsonl(files["reference"] / "reference.jsonl")}

    def _nodes(self, runs: Runs) -> dict[str, Node]:
        return {
            "adapter": runs.adapter, "negatives": runs.negatives["stage2", 2], "reference": runs.references["full", 2],
        }  # fmt: skip

    def logps(self, sample: Sample, text: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits that predict a response, as a leaf, and the log-probabilities of its tokens."""
        prefix = self.collator.prefix(sample.image, sample.prompt)
        response = torch.tensor([self.collator.response_ids(text)])
        inputs = {**prefix, "input_ids": torch.cat([prefix["input_ids"], response], 1)}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        kinds = prefix["mm_token_type_ids"]
        inputs["mm_token_type_ids"] = torch.cat([kinds, torch.zeros_like(response)], 1)
        with torch.no_grad():
            logits = self.model(**inputs).logits[0, -response.shape[1] - 1 : -1].double()
        logits.requires_grad_()
        return logits, logits.log_softmax(-1)[range(response.shape[1]), response[0]]

    def first_step(self, method: str) -> dict[str, float]:
        losses = []
        leaves: dict[str, list[torch.Tensor]] = {"chosen": [], "rejected": []}
        for sample in self.batch:
            before = self.reference[sample.id]
            logits, chosen = self.logps(sample, sample.chosen)
            leaves["chosen"].append(logits)
            for text, start in zip(sample.rejected, before["rejected"], strict=True):
                logits, rejected = self.logps(sample, text)
                leaves["rejected"].append(logits)
                weight = self.weight(rejected) if method == "cw_dpo" else 1.0
                margin = 0.1 * ((chosen.sum() - before["chosen"]) - weight * (rejected.sum() - start))
                losses.append(-margin.sigmoid().log() / len(sample.rejected) / BATCH)
        loss = torch.stack(losses).sum()
        loss.backward()
        norms = {
            f"gradient_{role}": math.sqrt(sum(float((leaf.grad**2).sum()) for leaf in of if leaf.grad is not None))
            for role, of in leaves.items()
        }
        return {"loss": loss.item(), **norms}

    def weight(self, rejected: torch.Tensor) -> float:
        """Eq. 6 at the floor -6, filtered under -7."""
        mean = rejected.mean().item()
        return 0.0 if mean < -7 else 1 / (1 + math.exp(-(mean + 6)))
