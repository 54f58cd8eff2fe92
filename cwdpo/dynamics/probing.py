"""Reading a probe set with a policy: one forward pass per sample, whatever is probed, into rows that any shard writes.

The row of a sample at one step is

    {"id", "responses": {kind: [tokens, logp, residual]}, "tokens": {"token": [...], "logp": [...], ...}}

with one value per token of the chosen response in `tokens`. What the policy at the start of the stage leaves behind for
divergences (see `looking.py`) lies in a file per block beside them: safetensors, and behind them their SHA-256.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwdpo.base import files
from cwdpo.base.context import StageContext
from cwdpo.base.errors import StoreError, TrainingError
from cwdpo.data.encoding import Collator, Group
from cwdpo.data.samples import Sample
from cwdpo.dynamics.alarms import Evidence, examine
from cwdpo.dynamics.points import Point
from cwdpo.dynamics.rows import GRADES, Probes, Row
from cwdpo.dynamics.samples import ProbeSample
from cwdpo.dynamics.settings import Cooling
from cwdpo.model.looking import Lens, Looked
from cwdpo.model.micro import Member, cut, groups_of_all, in_step
from cwdpo.model.scoring import Scorer
from cwdpo.model.trial import choose_scorer

if TYPE_CHECKING:
    from torch import Tensor

VALUES = ("logp", "entropy", "tv", "js")
SEAL = sha256().digest_size


@dataclass(frozen=True)
class Prober:
    """A policy with the probe set that it is asked about.

    Attributes:
        lens: how to look at it.
        start: folder for what the policy at the start leaves behind.
        lockstep: all ranks make the same module calls; then as many as a block of `longest` samples takes.
    """

    context: StageContext
    lens: Lens
    collator: Collator
    start: Path
    lockstep: bool
    longest: int

    def rows(self, index: int, samples: Sequence[ProbeSample], step: int, writes: bool = True) -> list[Row]:
        """The rows of block `index` under the policy as it is.

        Raises:
            TrainingError: a log-probability is not finite.
            StoreError: what the start left behind is damaged.
        """
        before = {} if step == 0 else self._before(index)
        found: dict[str, tuple[Row, Tensor]] = {}
        for part in self._parts(samples):
            looked = self._look(part, before)
            found |= dict(self._split(part, looked, {sample.id: sample for sample in samples}))
        if step == 0 and writes:
            self._keep(index, {name: kept for name, (_, kept) in found.items()})
        return [found[sample.id][0] for sample in samples]

    def _parts(self, samples: Sequence[ProbeSample]) -> list[list[Member]]:
        members = [
            Member(one.sample, (self.collator.group(one.sample, list(one.responses.values())),)) for one in samples
        ]
        execution, tokens = self.context.execution, self.lens.scorer.tokens
        if self.lockstep:
            return in_step(members, self.longest, execution, tokens, self.context.rank)
        return cut(members, execution, tokens)

    def _look(self, part: Sequence[Member], before: Mapping[str, Tensor]) -> Looked:
        import torch

        start = torch.cat([before[member.sample.id] for member in part]) if before else None
        return self.lens.look(groups_of_all(part), start)

    def _split(
        self, part: Sequence[Member], looked: Looked, samples: Mapping[str, ProbeSample]
    ) -> Iterator[tuple[str, tuple[Row, Tensor]]]:
        """(id, its row and what is kept of it) of every sample of a pass."""
        sums = zip(looked.lengths.tolist(), looked.logps.tolist(), looked.residuals.tolist(), strict=True)
        place = 0
        for member, length in zip(part, looked.first_lengths, strict=True):
            sample = samples[member.sample.id]
            own = dict(zip(sample.responses, islice(sums, len(sample.responses)), strict=True))
            _check(sample.id, own)
            where = slice(place, place + length)
            tokens = self._tokens(looked, where, member.groups[0].responses[0])
            row = {"id": sample.id, "responses": {kind: list(values) for kind, values in own.items()}, "tokens": tokens}
            yield sample.id, (row, looked.first.kept[where])
            place += length

    def _tokens(self, looked: Looked, where: slice, chosen: Sequence[int]) -> dict[str, Any]:
        first = looked.first
        return {
            "token": list(chosen),
            **{name: first.values[name][where].tolist() for name in VALUES},
            "top_tokens": first.top_tokens[where].tolist(),
            "top_probs": first.top_probs[where].tolist(),
        }

    def _keep(self, index: int, kept: Mapping[str, Tensor]) -> None:
        from safetensors.torch import save

        content = save({name: value.detach().cpu().contiguous() for name, value in kept.items()})
        files.write_bytes(self._path(index), content + sha256(content).digest())

    def _before(self, index: int) -> dict[str, Tensor]:
        from safetensors.torch import load

        content = self._start_of(index)
        if content is None:
            raise StoreError(f"{self._path(index)} is damaged; delete the folder 'partial' above it to start over")
        return dict(load(content))

    def _start_of(self, index: int) -> bytes | None:
        """What was left of the start of a block, where it is there and whole."""
        path = self._path(index)
        if not path.exists():
            return None
        content, seal = (found := path.read_bytes())[:-SEAL], found[-SEAL:]
        return content if sha256(content).digest() == seal else None

    def _path(self, index: int) -> Path:
        return self.start / f"{index:06d}.start"

    def has_start(self, index: int) -> bool:
        """Whether what the start of a block leaves behind is there."""
        return self._start_of(index) is not None


def scorer_of(
    context: StageContext, model: Any, collator: Collator, samples: Sequence[ProbeSample], dtype: str
) -> Scorer:
    """The quickest way to score a probe set's responses that the model takes. Collective."""

    def encode(sample: Sample) -> list[Group]:
        return [collator.group(sample, [sample.chosen, *sample.rejected])]

    return choose_scorer(context, model, collator.pad, [one.sample for one in samples], encode, dtype)


def _check(name: str, responses: Mapping[str, Sequence[float]]) -> None:
    wrong = {kind: values for kind, values in responses.items() if not all(map(math.isfinite, values))}
    if wrong:
        raise TrainingError(f"probe sample '{name}': its log-probabilities are {wrong}")


def response_rows(points: Mapping[int, Iterable[Row]], start: Iterable[Row], cooling: Cooling) -> Iterator[Row]:
    """Rows of responses.parquet, step by step; `start` are the rows of step 0."""
    before = {row["id"]: row["responses"] for row in start}
    for step, rows in points.items():
        for row in rows:
            for kind, (tokens, logp, residual) in row["responses"].items():
                yield {
                    "step": step, "id": row["id"], "kind": kind, "tokens": int(tokens), "logp": logp,
                    "delta_logp": logp - before[row["id"]][kind][1], "residual": residual,
                    "w_c": cooling_weight(logp / tokens, cooling) if kind in GRADES else None,
                }  # fmt: skip


def token_rows(points: Mapping[int, Iterable[Row]]) -> Iterator[Row]:
    """Rows of tokens.parquet, step by step."""
    for step, rows in points.items():
        for row in rows:
            for position, values in enumerate(zip(*row["tokens"].values(), strict=True)):
                yield {
                    "step": step,
                    "id": row["id"],
                    "position": position,
                    **dict(zip(row["tokens"], values, strict=True)),
                }


def cooling_weight(mean_logp: float, cooling: Cooling) -> float:
    """w_c = sigmoid((mean_logp - l_floor) / tau) (Eq. 6)."""
    return 0.5 * (1 + math.tanh((mean_logp - cooling.l_floor) / cooling.tau / 2))


def findings_of(points: Sequence[Point], stage: str, objective: str) -> list[dict[str, Any]]:
    """What is alarming by the probes alone, for probe.json: who writes it may not know the training's own curve."""
    found = examine(Evidence(stage, objective, points))
    return [{"name": one.name, "step": one.step, "sentence": one.sentence} for one in found]


def probes_in_memory(points: Mapping[int, Sequence[Row]], about: Mapping[str, Any], cooling: Cooling) -> Probes:
    """What the rows of some steps, step 0 among them, would be read back as."""
    import pandas as pd

    responses = pd.DataFrame(response_rows(points, points[0], cooling))
    return Probes(about, responses.astype({"w_c": float}), pd.DataFrame(token_rows(points)))
