"""Stage `generate`: a policy answers the items of a benchmark."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Any

from cwdpo.base import files
from cwdpo.base.config import Config, Neutral
from cwdpo.base.context import Blocks, StageContext
from cwdpo.data.ahead import ahead
from cwdpo.data.encoding import Collator
from cwdpo.evaluate.answering import Answering
from cwdpo.evaluate.benchmarks import AnyBenchmark
from cwdpo.evaluate.benchmarks.benchmark import Questions
from cwdpo.model.config import Policy
from cwdpo.model.generate import Answer, Prompted, how_decoded
from cwdpo.model.inference import pending_of, replica_of
from cwdpo.model.load import context_length

GENERATIONS = "generations.jsonl"


class GenerateSpec(Config):
    """The policy and the data are parents."""

    policy: Policy
    benchmark: AnyBenchmark
    seed: Annotated[int, Neutral(0)] = 0
    """Only sampling reads it, so that a deterministic pass is shared by all seeds."""


def run(context: StageContext) -> None:
    """Write generations.jsonl (one row per item) and settings.json (what made it).

    A row is `{"id", "image", "text", "tokens", "truncated"}`, and where there is more to tell: `candidates` (best
    first), `raw` (the answer to a question with its line breaks, where that is another text), `later` (answers to later
    turns), `fault` (why an answer is missing).

    Raises:
        DataError: an image is wrong, or no item leaves room for an answer.
        ModelError: the model cannot be asked an item, or one item alone does not fit into memory.
    """
    spec: GenerateSpec = context.spec
    blocks = Blocks(context, spec.benchmark.items(context.inputs), spec.benchmark.decoding.block)
    if pending_of(blocks):
        _answer(context, blocks)
    context.barrier()
    blocks.publish(GENERATIONS, "settings.json")
    _tell_faults(context)


def _answer(context: StageContext, blocks: Blocks[Prompted]) -> None:
    """All blocks that are not there yet."""
    spec: GenerateSpec = context.spec
    decoding = spec.benchmark.decoding
    replica = replica_of(context, spec.policy)
    settings = how_decoded(replica, spec.policy.dtype, decoding)
    blocks.keep("settings.json", {**_asked(spec.benchmark), **settings})
    collator = Collator(replica.processor, context.inputs["images"], context_length(replica.model))
    answering = Answering(context, replica, collator, blocks.items, decoding)
    turns = ahead(
        replica.blocks(blocks),
        lambda turn: blocks.members(turn[0]),
        answering.encode,
        context.execution.feed_workers,
    )
    # Captions are scored word by word, so that nobody asks where their lines end.
    row = _row_with_lines if isinstance(spec.benchmark, Questions) else _row
    with closing(turns):
        for (index, write), prefixes in turns:
            members = blocks.members(index)
            answers = answering.answers(members, prefixes)
            if write:
                blocks.write(index, list(map(row, members, answers)))


def _asked(benchmark: AnyBenchmark) -> dict[str, Any]:
    """Every setting of the benchmark but how much of it is asked, and the prompt where it has one for all its items."""
    settings = {key: value for key, value in benchmark.canonical().items() if key not in ("decoding", "limit")}
    prompt = getattr(benchmark, "prompt", None)
    return {"benchmark": settings, **({} if prompt is None else {"prompt": prompt})}


def _row_with_lines(item: Prompted, answer: Answer) -> dict[str, Any]:
    raw = {"raw": answer.raw} if answer.raw != answer.texts[0] else {}
    return {**_row(item, answer), **raw}


def _row(item: Prompted, answer: Answer) -> dict[str, Any]:
    row = {"id": item.id, "image": item.image, "text": answer.texts[0], "tokens": answer.tokens}
    if len(answer.texts) > 1:
        row["candidates"] = list(answer.texts)
    row["truncated"] = answer.truncated
    if item.later:
        row["later"] = list(answer.later)
    return {**row, "fault": answer.fault} if answer.fault else row


def _tell_faults(context: StageContext) -> None:
    """An event with the number of answers that are missing, where the file is whole."""
    path = context.out / GENERATIONS
    if context.rank.is_first and path.exists():
        faults = sum("fault" in row for row in files.read_jsonl(path))
        if faults:
            context.event("generation", faults=faults)
