"""All trainings and readings of `test_probe_stage.py` and `test_steering.py`, in as few processes as can be.

Of torch and what stands on it a process takes ten seconds to start; a stage here takes two.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import harness
import mortal_worker
from trainings import LORA, STAGE1, Trainings

from cwdpo.base.context import Share
from cwdpo.base.errors import DataError, Interrupted, StoreError
from cwdpo.base.store import Artefact
from cwdpo.data.records import read_records
from cwdpo.model.tiny import TinyQwen, build_tiny_qwen
from cwdpo.train.config import Round

End = Mapping[str, Any]

LONG = {"optimization": {**STAGE1, "max_steps": 12}}
SFT = {"objective": {"name": "sft"}, "tuning": {**LORA, "dropout": 0.1}, "spec": {**LONG, "seed": 1}}
"""Its margin is at its best at the second of seven probes."""
RULE = {"name": "margin", "patience": 2}
NEVER = {"objective": {"name": "sft_c", "floor": 0.01}, "spec": LONG, "alarms": ["constraint_never_active"]}
FULL = {"tuning": {"name": "full"}, "spec": {"optimization": {**STAGE1, "learning_rate": 2e-3}}}
GRPO = {"name": "grpo", "samples": 2, "inner_epochs": 3}
PPO = {"name": "ppo", "samples": 2, "inner_epochs": 1}
ROUNDS = [Round(number=number, of=2) for number in range(2)]
ONE_STEP = {"optimization": {**STAGE1, "max_steps": 1}}
SLOW: dict[str, Any] = {"spec": {"optimization": {**STAGE1, "max_steps": 3, "learning_rate": 1e-3}}, "watched": True}
PARTED: dict[str, dict[str, Any]] = {
    "lora": {"tuning": {"name": "lora", "rank": 64, "alpha": 64}, **SLOW},
    "full": {"tuning": {"name": "full"}, **SLOW},
}
"""Trainings of the larger model."""

SECOND = "/step-000004/000001.json"
"""Of the third of five steps the second block: 8 of 15 are read when it is there."""
READINGS: dict[str, End] = {
    "killed": {"signal": "SIGKILL", "file": SECOND},
    "asked": {"signal": "SIGTERM", "file": SECOND},
    "damaged": {"signal": "SIGKILL", "file": SECOND},
}
"""Where readings of `dpo` end at first."""
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "000000.start": lambda content: content[:-40] + bytes([content[-40] ^ 1]) + content[-39:],
    "000001.start": lambda content: content[:100],
}
"""What becomes of two blocks' starts of `damaged` then: one bit is another, and the end is missing."""

WATCHED: dict[str, End] = {
    "before a checkpoint": {"signal": "SIGKILL", "event": {"event": "probe", "step": 2}},
    "after a probe": {"signal": "SIGKILL", "event": {"event": "probe", "step": 4}},
    "in a probe": {"signal": "SIGKILL", "file": "/probe/step-000004/blocks/000001.jsonl"},
    "after a checkpoint": {"signal": "SIGKILL", "event": {"event": "checkpoint", "step": 6}},
    "to two ranks": {"signal": "SIGKILL", "event": {"event": "step", "step": 5}},
    "asked in a probe": {"signal": "SIGTERM", "file": "/probe/step-000004/blocks/000001.jsonl"},
}
"""Where the training `dpo`, watched, ends at first; its checkpoints are at 3 and 6."""

HIT: dict[str, End] = {
    "best": {"signal": "SIGKILL", "event": {"event": "checkpoint", "step": 6}},
    "best, stopped": {"signal": "SIGKILL", "event": {"event": "stopped_early"}},
    "sampled": {"signal": "SIGKILL", "event": {"event": "step", "step": 5}},
    "ordered": {"signal": "SIGKILL", "event": {"event": "step", "step": 5}},
    "grpo": {"signal": "SIGKILL", "event": {"event": "checkpoint", "step": 3}},
    "full": {"signal": "SIGKILL", "event": {"event": "step", "step": 5}},
    "round": {"signal": "SIGKILL", "event": {"event": "probe", "step": 4}},
    "never": {"signal": "SIGKILL", "event": {"event": "step", "step": 9}},
}
"""Where others do; each is called `hit, ...`."""

OTHERS: dict[str, End] = {
    # Heard in the step after it: the checkpoint is that of step 4.
    "stopped": {"signal": "SIGTERM", "event": {"event": "step", "step": 3}},
    "changed": {"signal": "SIGKILL", "event": {"event": "step", "step": 5}},
    "without its start": {"signal": "SIGKILL", "event": {"event": "step", "step": 5}},
}


class Runs(Trainings):
    """Everything by its name; `parted` are those of a larger model."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.parted = Trainings(self.home, replace(self.micro, model=self.home / "larger"), "parted, ")
        self._plain()
        self._steered("")
        self._read()
        self._of_ranks()

    def _plain(self) -> None:
        self.stage2("dpo")
        self.stage2("dpo, watched", watched=True)
        self.stage1("sft", **SFT)
        self.stage1("sft, watched", **SFT, watched=True, alarms=["divergence", "squeezing"])
        self.stage1("full, unwatched", **FULL)
        self.stage1("none kept", spec=ONE_STEP, snapshot_every=0)
        self.nodes["frequencies"] = harness.node("frequencies", {}, {"pairs": self.micro.pairs})
        self._online("ppo", PPO)
        for label, watched in (("watched", True), ("kept", False)):
            first = self.stage2(f"{label} 0", spec={"round": ROUNDS[0]}, watched=watched)
            self.stage2(f"{label} 1", inputs={"previous": first}, spec={"round": ROUNDS[1]}, watched=watched)

    def _steered(self, prefix: str) -> None:
        """Trainings that act on their probes, or tell of them."""
        self.stage1(f"{prefix}best", **SFT, steering={"early_stop": RULE})
        self.stage1(f"{prefix}last", **SFT, steering={"early_stop": {**RULE, "keep": "last"}})
        self.stage2(f"{prefix}sampled", steering={"curriculum": {"name": "sampled"}})
        self.stage2(f"{prefix}ordered", steering={"curriculum": {"name": "ordered"}})
        rule = {**RULE, "patience": 4, "min_change": 100.0}
        self._online(f"{prefix}grpo", GRPO, steering={"early_stop": rule})
        self.stage1(f"{prefix}full", **FULL, watched=True)
        self.stage1(f"{prefix}never", **NEVER, watched=True)

    def _online(self, label: str, objective: Any, **more: Any) -> None:
        """A training of 10 steps that samples its own responses, in phases of six steps (grpo) or two (ppo)."""
        decoding = {"strategy": "sample", "max_new_tokens": 6, "block": 2}
        settings = {
            "rollouts": {"prompts": 4, "reward": {"name": "cider_d"}, "decoding": decoding},
            "optimization": {"batch_size": 2, "epochs": 9, "max_steps": 10, "learning_rate": 2e-3},
        }
        self.stage2(label, objective, inputs={"frequencies": self.nodes["frequencies"]}, spec=settings, **more)

    def _read(self) -> None:
        """Readings of kept adapters, one of them shared by four jobs: there are three blocks."""
        run = self.nodes["dpo"]
        for label in ("first", "sft", "ppo"):
            self.probe(f"{label}, read", self.nodes[label])
        for number in range(2):
            self.probe(f"read {number}", self.nodes[f"kept {number}"])
        self.probe("read", run)
        self.probe("every third", run, every=3)
        self.probe("none kept, read", self.nodes["none kept"])
        self.probe("full, read", self.nodes["full, unwatched"])
        alone = self.probe("shared", run)
        shares = {f"share-{number}": replace(alone, share=Share(number, 4)) for number in range(4)}
        del self.nodes["shared"]
        self.nodes |= {**shares, "shared": replace(alone, inputs={**alone.inputs, **shares})}

    def _of_ranks(self) -> None:
        """What runs on two ranks, and beside it on one."""
        run = self.nodes["dpo"]
        self.probe("two ranks", run)
        self.probe("lock-step", run, inference="zero3")
        self.probe("tensor-parallel", run, inference="tensor_parallel", replica_size=2)
        self.stage1("first, two ranks")
        for label, kind in PARTED.items():
            self.parted.stage1(label, **kind)
            self.parted.stage1(f"{label}, ZeRO 3", **kind, zero_stage=3)
        self.parted.probe("lora, read", self.parted.nodes["lora, ZeRO 3"])

    def _cut(self) -> dict[str, End]:
        """Nodes that end in the middle, and where."""
        for label in READINGS:
            self.probe(label, self.nodes["dpo"])
        for label in WATCHED:
            self.stage2(label, watched=True, snapshot_every=0)
        self._steered("hit, ")
        self.stage1("hit, best, stopped", **SFT, steering={"early_stop": RULE})
        self.stage2("hit, round", inputs={"previous": self.nodes["watched 0"]}, spec={"round": ROUNDS[1]}, watched=True)
        self.stage2("stopped")
        self.stage2("changed", snapshot_every=0)
        self.stage2("without its start", steering={"curriculum": {"name": "ordered"}})
        return {**READINGS, **WATCHED, **{f"hit, {label}": end for label, end in HIT.items()}, **OTHERS}

    def left(self, label: str) -> Artefact:
        """What had been written of it when it ended in the middle."""
        return Artefact(self.home / "left" / label, "")

    def known(self) -> Runs:
        """The same with the nodes that were run again, as they were run at last."""
        self._cut()
        self.stage2("changed", watched=True)
        return self

    def make(self) -> None:
        """Run everything."""
        self._make_larger()
        self._undisturbed()
        self._disturbed()

    def _make_larger(self) -> None:
        """A model with parameters of more than 100,000 numbers; smaller ones ZeRO-3 does not part at all."""
        texts = [record.chosen for record in read_records(self.micro.pairs / "records.jsonl")]
        build_tiny_qwen(TinyQwen(intermediate_size=1024), texts, self.parted.micro.model, seed=0)

    def _undisturbed(self) -> None:
        """One job of one rank, in which three readings are refused."""
        refused = ("every third", "none kept, read", "full, read")
        later = (*refused, "two ranks", "lock-step", "tensor-parallel", "first, two ranks")
        nodes = [node for label, node in self.nodes.items() if label not in later]
        nodes += [self.parted.nodes[label] for label in ("probe_set", *PARTED)]
        nodes += [self.nodes[label] for label in refused]
        status = harness.finish(harness.start(self.home, nodes))
        assert status == DataError.exit_code, harness.output(self.home, nodes)

    def _disturbed(self) -> None:
        """One job in which each stage dies, one of one rank and one of two that go on with them."""
        ends = self._cut()
        nodes = [self.nodes[label] for label in ends]
        statuses = mortal_worker.run(self.home, list(zip(nodes, ends.values(), strict=True)))
        expected = {"SIGTERM": Interrupted.exit_code, "SIGKILL": -signal.SIGKILL}
        assert statuses == [expected[end["signal"]] for end in ends.values()], harness.output(self.home, nodes)
        for label in (*READINGS, "stopped"):
            shutil.copytree(self.entry(label).partial, self.left(label).partial)
        self._damage()
        self.known()
        *again, last = (self.nodes[label] for label in ends if label != "to two ranks")
        status = harness.finish(harness.start(self.home, [*again, last]))
        assert status == StoreError.exit_code, harness.output(self.home, [*again, last])
        own = [self.nodes[label] for label in ("two ranks", "lock-step", "tensor-parallel", "first, two ranks")]
        own += [self.parted.nodes[label] for label in ("lora, ZeRO 3", "full, ZeRO 3", "lora, read")]
        harness.compute(self.home, [self.nodes["to two ranks"], *own], ranks=2)

    def _damage(self) -> None:
        for name, damage in DAMAGES.items():
            path = self.entry("damaged").partial / "start" / name
            path.write_bytes(damage(path.read_bytes()))
        (self.entry("without its start").partial / "probe" / "step-000000" / "point.json").unlink()
