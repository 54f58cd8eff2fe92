"""Stage `probe_set`: held-out samples with graded negatives, controls and the base model's answers, written once.

Images are drawn by a hash of seed and id, one record each, so that another data set order draws the same. A record for
which a grade has no negative is passed over. What the base model answers is made in blocks, as everything that is
generated.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice

from cwdpo.base import files
from cwdpo.base.context import Blocks, StageContext
from cwdpo.base.errors import DataError
from cwdpo.base.identity import seed_from
from cwdpo.data.ahead import ahead
from cwdpo.data.encoding import Collator
from cwdpo.data.records import Record, open_records
from cwdpo.dynamics.rows import GRADES, Kind
from cwdpo.dynamics.samples import NAME, SETTINGS, ProbeSample
from cwdpo.dynamics.settings import ProbeSet, ProbeSetSpec
from cwdpo.model.decoding import Decoding
from cwdpo.model.generate import Prompted, generate, goes_once
from cwdpo.model.inference import Replica, pending_of
from cwdpo.model.load import context_length
from cwdpo.negatives.source import Offer, usable

ROOM = 4  # times as many candidates as samples: some records have no negative of some grade


def run(context: StageContext) -> None:
    """Write samples.jsonl, settings.json and summary.json.

    Raises:
        DataError: no record of the split has a negative of every grade.
    """
    spec: ProbeSetSpec = context.spec
    records = open_records(context.inputs["pairs"] / "records.jsonl")
    samples = chosen_samples(records, spec.set)
    blocks = Blocks(context, samples, spec.set.block)
    if pending_of(blocks):
        _answer(context, blocks)
    context.barrier()
    blocks.publish(NAME)
    if context.rank.is_first and not context.share:
        kinds = Counter(kind for row in blocks.rows() for kind in row["responses"])
        files.write_json(context.out / SETTINGS, spec.set.model_dump(mode="json"))
        files.write_json(context.out / "summary.json", {"samples": len(samples), "responses": dict(kinds)})


def chosen_samples(records: Sequence[Record], settings: ProbeSet) -> list[ProbeSample]:
    """The samples without the base model's answers; `DataError` where there is none."""
    candidates = _one_per_image(records, settings)
    given = settings.negatives.offers(candidates, {})
    complete = (
        (record, negatives)
        for record, offer in zip(candidates, given, strict=True)
        if (negatives := _one_per_grade(record, offer))
    )
    found = list(islice(complete, settings.samples))
    if not found:
        raise DataError(
            f"probe: none of {len(candidates)} records of split '{settings.split}' has a negative of every grade"
            " (hard, medium, easy); set probe.split to another one of val, train, test, or probe.negatives"
        )
    others = [found[number - 1][0].chosen for number in range(len(found))]
    return [
        _sample(record, graded, other, settings.seed) for (record, graded), other in zip(found, others, strict=True)
    ]


def _one_per_image(records: Iterable[Record], settings: ProbeSet) -> list[Record]:
    """Candidates in the order in which they are drawn."""
    first: dict[str, Record] = {}
    for record in records:
        if record.split == settings.split:
            known = first.setdefault(record.image_id, record)
            first[record.image_id] = min(known, record, key=lambda one: one.id)
    drawn = sorted(first.values(), key=lambda record: seed_from("probe", settings.seed, record.image_id))
    return drawn[: ROOM * settings.samples]


def _one_per_grade(record: Record, offer: Offer) -> dict[Kind, str]:
    """The first negative of every grade; nothing where one lacks it."""
    by_grade: dict[str, str] = {}
    for item in usable(record, offer, frozenset(), Counter()):
        by_grade.setdefault(str(item.grade), item.text)
    return {grade: by_grade[grade] for grade in GRADES} if set(GRADES) <= set(by_grade) else {}


def _sample(record: Record, graded: dict[Kind, str], other: str, seed: int) -> ProbeSample:
    controls: dict[Kind, str] = {
        "shuffled": shuffled(record.chosen, seed_from("shuffled", seed, record.id)),
        "other": other,
    }
    true = {record.chosen, *record.references}
    wrong = {kind: text for kind, text in controls.items() if text not in true}
    responses: dict[Kind, str] = {"chosen": record.chosen, **graded, **wrong}
    return ProbeSample(record.id, record.image_id, record.image, record.prompt, responses)


def shuffled(text: str, seed: int) -> str:
    """The same words in another order, where there is one."""
    words = drawn = text.split()
    chance = random.Random(seed)
    while drawn == words and len(set(words)) > 1:
        drawn = chance.sample(words, len(words))
    return " ".join(drawn)


def _answer(context: StageContext, blocks: Blocks[ProbeSample]) -> None:
    """Greedy answers of the base model to all blocks that have none yet."""
    spec: ProbeSetSpec = context.spec
    decoding = Decoding(max_new_tokens=spec.set.max_new_tokens, block=spec.set.block)
    replica = Replica(context, spec.policy)
    collator = Collator(replica.processor, context.inputs["images"], context_length(replica.model))
    once = goes_once(context, replica, collator, _prompted(blocks.items[0]), spec.policy.dtype)
    turns = ahead(
        replica.blocks(blocks),
        lambda turn: blocks.members(turn[0]),
        lambda item: collator.prefix(item.image, item.prompt),
        context.execution.feed_workers,
    )
    with closing(turns):
        for (index, write), prefixes in turns:
            members = blocks.members(index)
            answers = generate(replica, collator, list(map(_prompted, members)), decoding, 0, once, prefixes)
            if write:
                blocks.write(index, list(_rows(members, [answer.texts[0] for answer in answers])))


def _prompted(sample: ProbeSample) -> Prompted:
    return Prompted.about(sample.id, sample.image, sample.prompt)


def _rows(samples: Sequence[ProbeSample], answers: Sequence[str]) -> Iterator[dict[str, object]]:
    for sample, answer in zip(samples, answers, strict=True):
        row = sample.as_json()
        yield {**row, "responses": {**row["responses"], "greedy": answer}}
