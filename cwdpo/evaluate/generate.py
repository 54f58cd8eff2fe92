"""Stage `generate`: a policy answers the items of a benchmark."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Any

from cwdpo.base.config import Config, Neutral
from cwdpo.base.context import Blocks, StageContext
from cwdpo.data.ahead import ahead
from cwdpo.data.encoding import Collator
from cwdpo.data.records import open_records
from cwdpo.evaluate.benchmarks import Benchmark
from cwdpo.model.config import Policy
from cwdpo.model.generate import Answer, Prompted, generate, goes_once, how_decoded
from cwdpo.model.inference import Replica, pending_of
from cwdpo.model.load import context_length


class GenerateSpec(Config):
    """The policy and the data are parents."""

    policy: Policy
    benchmark: Benchmark
    seed: Annotated[int, Neutral(0)] = 0
    """Only sampling reads it, so that a deterministic pass is shared by all seeds."""


def run(context: StageContext) -> None:
    """Write generations.jsonl (one row per item) and settings.json (what made it)."""
    spec: GenerateSpec = context.spec
    items = spec.benchmark.items(open_records(context.inputs["pairs"] / "records.jsonl"))
    blocks = Blocks(context, items, spec.benchmark.decoding.block)
    if pending_of(blocks):
        _answer(context, blocks)
    context.barrier()
    blocks.publish("generations.jsonl", "settings.json")


def _answer(context: StageContext, blocks: Blocks[Prompted]) -> None:
    """All blocks that are not there yet."""
    spec: GenerateSpec = context.spec
    decoding, items = spec.benchmark.decoding, blocks.items
    replica = Replica(context, spec.policy)
    settings = how_decoded(replica, spec.policy.dtype, decoding)
    blocks.keep("settings.json", {"prompt": spec.benchmark.prompt, **settings})
    collator = Collator(replica.processor, context.inputs["images"], context_length(replica.model))
    once = goes_once(context, replica, collator, items[0], spec.policy.dtype)
    turns = ahead(
        replica.blocks(blocks),
        lambda turn: blocks.members(turn[0]),
        lambda item: collator.prefix(item.image, item.prompt),
        context.execution.feed_workers,
    )
    with closing(turns):
        for (index, write), prefixes in turns:
            members = blocks.members(index)
            answers = generate(replica, collator, members, decoding, spec.seed, once, prefixes)
            if write:
                blocks.write(index, [_row(item, answer) for item, answer in zip(members, answers, strict=True)])


def _row(item: Prompted, answer: Answer) -> dict[str, Any]:
    row = {"id": item.id, "image": item.image, "text": answer.texts[0], "tokens": answer.tokens}
    if len(answer.texts) > 1:
        row["candidates"] = list(answer.texts)
    return {**row, "truncated": answer.truncated}
