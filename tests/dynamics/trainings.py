"""Real trainings in a few steps, and what was probed of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness import POLICY, Micro

from cwdpo.base.store import Artefact, Store
from cwdpo.data.encoding import Collator
from cwdpo.dynamics.rows import IN_RUN, Probes, read_probes
from cwdpo.dynamics.samples import ProbeSample
from cwdpo.graph import Node
from cwdpo.jobs.events import events
from cwdpo.model.config import Policy
from cwdpo.model.load import context_length, load_policy_processor

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

EVERY = 2
SET = {"samples": 5, "split": "test", "block": 2, "max_new_tokens": 8}
"""Blocks of 2, 2 and 1 samples."""
BLOCKS = 3
LORA = {"name": "lora", "rank": 4, "alpha": 8}
DPO = {"name": "dpo"}
SFT_C = {"name": "sft_c", "weight": 0.5, "floor": 100.0}
STAGE1 = {"batch_size": 4, "max_steps": 5, "epochs": 20, "learning_rate": 2e-2}
STAGE2 = {"batch_size": 4, "max_steps": 7, "epochs": 20, "learning_rate": 2e-2}


@dataclass
class Trainings:
    """Trainings in one home; a node's label, which is its name here, tells it from those that compute the same.

    Attributes:
        prefix: before all labels, where several of these share a home.
    """

    home: Path
    micro: Micro
    prefix: str = ""
    nodes: dict[str, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.probe_set = self.nodes["probe_set"] = harness.node(
            "probe_set",
            {"policy": POLICY, "set": SET},
            {"model": self.micro.model, "pairs": self.micro.pairs, "images": self.micro.images},
            self.prefix,
        )
        self.first = self.stage1("first")
        own = self.micro.inputs(negatives=self.micro.negatives2, adapter=self.first)
        self.reference = self.nodes["reference"] = harness.node("reference", {"policy": POLICY}, own, self.prefix)

    def stage1(self, label: str, objective: Any = None, tuning: Any = None, **more: Any) -> Node:
        """Supervised training of 5 steps that keeps every second adapter; `more` is of `_trained`."""
        inputs = self.micro.inputs(negatives=self.micro.negatives1)
        content = {"objective": objective or SFT_C, "optimization": STAGE1, "tuning": tuning or LORA}
        return self._trained("stage1", label, content, inputs, **more)

    def stage2(self, label: str, objective: Any = None, inputs: Any = None, **more: Any) -> Node:
        """Preference training of 7 steps from the adapter of `first`; `more` is of `_trained`."""
        own = self.micro.inputs(negatives=self.micro.negatives2, adapter=self.first, reference=self.reference)
        content = {"objective": objective or DPO, "optimization": STAGE2, "tuning": LORA}
        return self._trained("stage2", label, content, {**own, **(inputs or {})}, **more)

    def _trained(
        self, stage: str, label: str, content: Mapping[str, Any], inputs: Mapping[str, Any], spec: Any = None,
        steering: Any = None, watched: bool = False, **execution: Any,
    ) -> Node:  # fmt: skip
        """A training.

        Args:
            spec: settings beside `content`.
            steering: what it acts on, beside `every`.
            watched: it is probed as it runs, and nothing acts on it.
        """
        own = dict(inputs)
        own |= {"probe_set": self.probe_set} if steering is not None else {"watched": self.probe_set} if watched else {}
        steered = {"steering": {"every": EVERY, **steering}} if steering is not None else {}
        told = {"probe_every": EVERY} if watched else {}
        settings = {"micro_batch": 2, "checkpoint_every": 3, "snapshot_every": EVERY, **told, **execution}
        whole = {"policy": POLICY, "seed": 3, **content, **steered, **(spec or {})}
        self.nodes[label] = harness.node(stage, whole, own, self.prefix + label, **settings)
        return self.nodes[label]

    def probe(self, label: str, run: Node, every: int = EVERY, **execution: Any) -> Node:
        """A node that reads the adapters of a training."""
        start = {role: run.inputs[role] for role in ("adapter",) if role in run.inputs}
        inputs = {"model": self.micro.model, "images": self.micro.images, **start}
        spec = {"policy": POLICY, "stage": run.stage.name, "every": every}
        inputs |= {"run": run, "probe_set": self.probe_set}
        self.nodes[label] = harness.node("probe", spec, inputs, self.prefix + label, **{"micro_batch": 2, **execution})
        return self.nodes[label]

    def entry(self, label: str) -> Artefact:
        return self.nodes[label].artefact(Store(self.home))

    def files(self, label: str) -> Path:
        return self.entry(label).files

    def adapter(self, label: str, *parts: str) -> Path:
        """The file of weights of the result, or of what lies in a folder of it."""
        return self.files(label).joinpath(*parts) / "adapter_model.safetensors"

    def probes(self, *labels: str) -> Probes:
        """What was recorded in one folder, or in those of all rounds."""
        folders = [self.files(label) for label in labels]
        return read_probes([folder / IN_RUN if (folder / IN_RUN).exists() else folder for folder in folders])

    def events(self, label: str, attempt: int, kind: str) -> list[dict[str, Any]]:
        path = self.entry(label).attempts / str(attempt) / "events.jsonl"
        return [row for row in events(path) if row["event"] == kind]

    def why(self, label: str) -> str:
        """What the newest attempt failed of."""
        result = self.entry(label).result(self.entry(label).newest())
        assert result is not None, harness.output(self.home, [self.nodes[label]])
        return f"{result['kind']}: {result['message']}"


KEY = {"responses": ["step", "id", "kind"], "tokens": ["step", "id", "position"]}


def by_key(probes: Probes) -> dict[str, pd.DataFrame]:
    """Both tables, a row for each key."""
    tables = {name: getattr(probes, name).set_index(key).sort_index() for name, key in KEY.items()}
    assert all(table.index.is_unique for table in tables.values())
    return tables


def assert_same(found: Probes, expected: Probes, tolerance: float = 0.0) -> None:
    """The same rows with the same numbers."""
    import numpy as np
    import pandas as pd

    for name, table in by_key(expected).items():
        mine = by_key(found)[name]
        pd.testing.assert_frame_equal(
            mine.drop(columns=["top_tokens", "top_probs"], errors="ignore"),
            table.drop(columns=["top_tokens", "top_probs"], errors="ignore"),
            check_exact=not tolerance, rtol=tolerance, atol=tolerance,
        )  # fmt: skip
        if "top_probs" in table:
            mine_top, top = (np.stack(one.top_probs.to_numpy()) for one in (mine, table))
            assert np.abs(mine_top - top).max() <= tolerance


class Reader:
    """Whole distributions by a model's own forward pass, a response at a time, in float64.

    Args:
        model: a folder.
        adapter: a PEFT folder, or None.
    """

    def __init__(self, micro: Micro, model: Path, adapter: Path | None = None) -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForImageTextToText

        loaded: Any = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float64)
        self._model = PeftModel.from_pretrained(loaded, adapter).double() if adapter else loaded
        self._model.eval()
        processor = load_policy_processor(Policy(dtype="float32"), micro.model)
        self._collator = Collator(processor, micro.images, context_length(loaded))

    def logps(self, sample: ProbeSample, text: str) -> Tensor:
        """Log-probabilities of every word at each token of a response. Shape (tokens, V)."""
        import torch

        group = self._collator.group(sample.sample, [text])
        (tokens,) = group.responses
        inputs = dict(group.prefix)
        after = torch.tensor([tokens])
        for key, value in group.prefix.items():
            if value.shape[:2] == (1, group.prefix_length):
                filling = {"input_ids": after, "attention_mask": torch.ones_like(after)}.get(
                    key, torch.zeros_like(after)
                )
                inputs[key] = torch.cat([value, filling], 1)
        with torch.no_grad():
            logits = self._model(**inputs).logits[0].double()
        return logits[group.prefix_length - 1 : -1].log_softmax(1)

    def tokens(self, sample: ProbeSample, text: str) -> list[int]:
        """Tokens of a response."""
        return list(self._collator.group(sample.sample, [text]).responses[0])
