"""Responses sampled while training: made block by block, kept in files, read back by every rank.

    partial/rollouts/generation.json                once: whether a prompt goes through the model once
    partial/rollouts/phase-000012/blocks/*.jsonl    a row per prompt

A row is `{"id", "samples": [{"tokens", "text", "truncated", "reward", "logps", "reference", "values"}]}`: token ids as
they were generated, and one number per token under the policy that sampled (`logps`, `values`) and under the policy at
the start of the stage (`reference`), where the objective asks for it. Which tokens are drawn depends on the seed, the
phase, the prompt and the number of the response alone, and files hold every float exactly, so that any number of ranks
makes the same files, and a phase that was begun before a kill is the one that is finished after it.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

from cwdpo.base import distributed, files
from cwdpo.base.context import Blocks
from cwdpo.base.errors import TrainingError
from cwdpo.data.ahead import ahead
from cwdpo.data.encoding import Collator, Group
from cwdpo.data.samples import Sample
from cwdpo.model.branches import Prefix
from cwdpo.model.generate import Prompted, Written, goes_once, write
from cwdpo.model.inference import TrainedReplica, answering, evaluating, pending_of
from cwdpo.model.logps import Scores
from cwdpo.model.micro import Member, cut, groups_of_all, in_step
from cwdpo.objectives.online import Experience, Online
from cwdpo.objectives.reading import LOGPS, Quantity, Reading
from cwdpo.train.config import Rollouts
from cwdpo.train.rewards.judge import Judge

if TYPE_CHECKING:
    from torch import Tensor

    from cwdpo.train.loop import Trainer

Row = dict[str, Any]
"""What is known of one prompt's responses."""

Numbers = dict[str, list[dict[str, list[float]]]]
"""Prompt -> of each of its responses, name -> a number per token."""


@dataclass(frozen=True)
class Phase:
    """Some prompts, and the steps that learn from the responses to them.

    Attributes:
        number: 0-based, over all epochs.
        start, end: its steps are start .. end - 1.
    """

    number: int
    start: int
    end: int
    prompts: Sequence[Sample]

    @property
    def compares(self) -> bool:
        """True where the policy changes within the phase: steps compare it with the one that sampled."""
        return self.end - self.start > 1


class Maker:
    """Samples, scores and judges responses with the policy that is being trained.

    Attributes:
        seconds: what the newest phase took; 0 where it lay on disk.
    """

    def __init__(self, trainer: Trainer, objective: Online, rollouts: Rollouts, judge: Judge) -> None:
        self._trainer, self._context, self._objective, self._judge = trainer, trainer.context, objective, judge
        self._decoding = rollouts.decoding.model_copy(update={"candidates": objective.samples})
        engine, self._collator = trainer.engine, trainer.collator
        self._replica = TrainedReplica(
            trainer.context.rank, engine.model, self._collator.processor, partitioned=engine.zero_stage == 3
        )
        self._never = _marks(self._collator)
        self._folder = trainer.context.partial / "rollouts"
        self.seconds = 0.0

    def rows(self, phase: Phase) -> list[Row]:
        """All rows of a phase, in the order of its prompts; what is not on disk yet is made. Collective.

        Raises:
            Interrupted: a signal asked to stop; finished blocks, and what was trained before, are kept.
            TrainingError: rows are gone that the policy, which has moved on, cannot make again.
        """
        blocks, self.seconds = self._blocks(phase), 0.0
        if pending_of(blocks):
            if self._trainer.progress.step > phase.start:
                raise TrainingError(
                    f"{blocks.path(0).parent}: responses that the policy has begun to learn from are gone; delete"
                    f" {self._trainer.checkpoints.folder} to start over"
                )
            self._make(phase, blocks)
        return self._read_once(blocks)

    def _read_once(self, blocks: Blocks) -> list[Row]:
        """All rows, read by one rank: a network file system shows a node late what others have just written."""
        rows = None
        if self._context.rank.is_first:
            os.listdir(blocks.path(0).parent)  # makes it look again
            rows = list(blocks.rows())
        found: list[Row] = distributed.from_first_rank(rows, self._context.rank)
        return found

    def drop_before(self, number: int) -> None:
        """Remove the rows of phases before this one."""
        for path in self._folder.glob("phase-*") if self._context.rank.is_first else ():
            if int(path.name.removeprefix("phase-")) < number:
                files.remove_tree(path)

    def _blocks(self, phase: Phase) -> Blocks:
        """Where the rows of a phase lie; stopping, and what is told of it, is up to this class."""
        own = replace(
            self._context,
            partial=self._folder / f"phase-{phase.number:06d}",
            event=lambda *_, **__: None,
            stopping=lambda: False,
        )
        return Blocks(own, phase.prompts, self._decoding.block)

    def _make(self, phase: Phase, blocks: Blocks) -> None:
        """All blocks that are not there yet."""
        began = time.perf_counter()
        turns = ahead(
            self._replica.blocks(blocks),
            lambda turn: blocks.members(turn[0]),
            self._prefix,
            self._context.execution.feed_workers,
        )
        with evaluating(self._replica.model), closing(turns):
            once = self._once(phase.prompts[0])
            for (index, writes), prefixes in turns:
                rows = self._block(phase, blocks.members(index), prefixes, once, blocks.length(0), writes)
                if writes:
                    blocks.write(index, rows)
                if self._trainer.asked_to_stop(together=self._replica.lockstep):
                    break
        self._context.barrier()  # a rank without blocks of its own may wait longer than an exchange may take
        if self._trainer.asked_to_stop(together=True):
            self._trainer.interrupt("sampling")
        self.seconds = time.perf_counter() - began
        self._context.event("rollouts", phase=phase.number, prompts=len(phase.prompts), seconds=self.seconds)

    def _prefix(self, sample: Sample) -> Prefix:
        """An encoded prompt that leaves room for the longest response."""
        return self._collator.group_of_ids(sample, [(0,) * self._decoding.max_new_tokens]).prefix

    def _block(
        self, phase: Phase, samples: Sequence[Sample], prefixes: Sequence[Prefix], once: bool, most: int, writes: bool
    ) -> list[Row]:
        """Rows of one block; none where nobody writes them.

        Args:
            most: prompts of the largest block.
        """
        written = self._written(phase, samples, prefixes, once)
        groups = [
            self._collator.group_of_ids(sample, [one.tokens for one in own])
            for sample, own in zip(samples, written, strict=True)
        ]
        scores = self._scored(samples, groups, phase.compares, most)
        return self._judged(samples, written, scores) if writes else []

    def _written(
        self, phase: Phase, samples: Sequence[Sample], prefixes: Sequence[Prefix], once: bool
    ) -> list[list[Written]]:
        """Responses to each prompt of a block."""
        names = [f"phase {phase.number}: {sample.id}" for sample in samples]
        items = [Prompted.about(name, one.image, one.prompt) for name, one in zip(names, samples, strict=True)]
        seed = self._trainer.spec.seed
        with answering(self._replica.model):
            return write(self._replica, self._collator, items, self._decoding, seed, once, prefixes, self._never)

    def _once(self, prompt: Sample) -> bool:
        """Whether a prompt goes through the model once, as it did when the stage began. Collective."""
        path, rank = self._folder / "generation.json", self._context.rank
        kept = files.read_json(path) if rank.is_first and path.exists() else None
        kept = distributed.from_first_rank(kept, rank)
        if kept is None:
            item = Prompted.about(prompt.id, prompt.image, prompt.prompt)
            with answering(self._replica.model):
                once = goes_once(self._context, self._replica, self._collator, item, self._trainer.spec.policy.dtype)
            kept = {"once": once}
            if rank.is_first:
                files.write_json(path, kept)
        return bool(kept["once"])

    def _judged(self, samples: Sequence[Sample], written: Sequence[Sequence[Written]], scores: Numbers) -> list[Row]:
        """Rows of one block."""
        ids = [sample.id for sample, own in zip(samples, written, strict=True) for _ in own]
        rewards = iter(self._judge(ids, [one.text for own in written for one in own]))
        return [
            {
                "id": sample.id,
                "samples": [
                    {**_said(one), "reward": next(rewards), **read}
                    for one, read in zip(own, scores[sample.id], strict=True)
                ],
            }
            for sample, own in zip(samples, written, strict=True)
        ]

    def _scored(self, samples: Sequence[Sample], groups: Sequence[Group], compares: bool, most: int) -> Numbers:
        """Prompt -> what is read of each of its responses."""
        members = [Member(sample, [group]) for sample, group in zip(samples, groups, strict=True)]
        execution, tokens = self._context.execution, self._trainer.scorer.tokens
        if self._replica.lockstep:
            parts = in_step(members, most, execution, tokens, self._context.rank)
        else:
            parts = cut(members, execution, tokens)
        found: Numbers = {}
        for part in parts:
            read = iter(self._read(groups_of_all(part), compares))
            for member in part:
                found.setdefault(member.sample.id, [next(read) for _ in range(self._objective.samples)])
        return found

    def _read(self, groups: Sequence[Group], compares: bool) -> list[dict[str, list[float]]]:
        """What is read of each response."""
        import torch

        scorer, start = self._trainer.scorer, self._trainer.start
        tables: dict[str, list[list[float]]] = {}
        with torch.no_grad():
            if compares or self._objective.looks_at_old:
                scores = scorer.read(groups, Reading(self._objective.reads.trained))
                tables["logps"] = _lists(scores, "logp")
                if self._objective.reads.values:
                    tables["values"] = _lists(scores, "value")
            if start:
                with start.active():
                    tables["reference"] = _lists(start.scorer(scorer).read(groups, LOGPS), "logp")
        responses = sum(len(group.responses) for group in groups)
        return [{name: table[number] for name, table in tables.items()} for number in range(responses)]


def experience_of(rows: Sequence[Row]) -> Experience:
    """Tables of all responses of a phase, in float64, so that sums over it do not round."""
    import torch

    samples = _samples(rows)
    lengths = torch.tensor([len(sample["tokens"]) for sample in samples])
    longest = int(lengths.max())

    def table(name: str) -> Tensor | None:
        if name not in samples[0]:
            return None
        return torch.tensor([sample[name] + [0.0] * (longest - len(sample[name])) for sample in samples]).double()

    return Experience(
        rewards=torch.tensor([sample["reward"] for sample in samples]).double(),
        mask=(torch.arange(longest) < lengths[:, None]).double(),
        old=table("logps"),
        reference=table("reference"),
        values=table("values"),
    )


def about(rows: Sequence[Row]) -> dict[str, float]:
    """What is logged of the responses of a phase."""
    samples = _samples(rows)
    rewards = [sample["reward"] for sample in samples]
    return {
        "reward": fmean(rewards),
        "reward_std": pstdev(rewards),
        "length": fmean(len(sample["tokens"]) for sample in samples),
        "truncated": fmean(sample["truncated"] for sample in samples),
    }


def _samples(rows: Sequence[Row]) -> list[Row]:
    return [sample for row in rows for sample in row["samples"]]


def _marks(collator: Collator) -> list[int]:
    """Special tokens but those that end an answer: a sampled one would stand for an image that is not there."""
    tokenizer = collator.processor.tokenizer
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return sorted({*tokenizer.all_special_ids, *added} - {*collator.ends})


def _lists(scores: Scores, quantity: Quantity) -> list[list[float]]:
    """A number per token of each response.

    Raises:
        TrainingError: one is not finite.
    """
    lengths = scores.lengths.long().tolist()
    lists = [row[:length] for row, length in zip(scores.tokens[quantity].tolist(), lengths, strict=True)]
    if not all(math.isfinite(value) for row in lists for value in row):
        raise TrainingError(f"a sampled response has a {quantity} that is not a finite number")
    return lists


def _said(one: Written) -> dict[str, Any]:
    return {"tokens": one.tokens, "text": one.text, "truncated": one.truncated}
