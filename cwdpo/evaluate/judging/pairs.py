"""A judge behind an endpoint is asked which of two answers is better, each pair in both orders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from string import Template
from typing import Any, cast, get_args

from cwdpo.base.context import StageContext
from cwdpo.base.identity import digest
from cwdpo.data.content import Content, Picture, pictures
from cwdpo.data.records import open_records
from cwdpo.endpoint.asking import FOLDER, Asking
from cwdpo.endpoint.exchange import Exchange, Settled, Unfit, check_willing, data_uri, message
from cwdpo.endpoint.replies import Replies, Reply, Request
from cwdpo.endpoint.settings import Endpoint
from cwdpo.endpoint.tally import Tally
from cwdpo.evaluate.benchmarks import AnyBenchmark
from cwdpo.evaluate.benchmarks.benchmark import Questions, read_questions
from cwdpo.evaluate.judging.stage import REPAIR
from cwdpo.evaluate.pairwise import Asked, Pair, Word
from cwdpo.evaluate.question import Question
from cwdpo.model.generate import Prompted

PROMPT = Path(__file__).with_name("pairwise.txt")
Words = tuple[Word | None, Word | None]
"""What was said of a pair, A's answer first and B's first; None in place of a reply that could not be used."""
BLIND = "You cannot see the image; go by the references."
SEEING = "The image comes with this message."
MARKS = " \t\r\n.\"'`*"
"""What may stand around a verdict."""


@dataclass(frozen=True)
class Ordered:
    """One request: a pair, B's answer first where it is swapped."""

    pair: Pair
    swapped: bool


@dataclass(frozen=True)
class PairJudge:
    """Says what is sent about a pair, and how replies are read.

    Attributes:
        images: whether the images are sent too.
    """

    endpoint: Endpoint
    images: bool = False

    def next_step(self, question: Ordered, replies: Sequence[Reply], images: Path) -> Request | Settled:
        """See `Asker`."""
        return Exchange(self.endpoint, self._opening(question, images), _read, _repair).after(replies)

    def _opening(self, question: Ordered, images: Path) -> Mapping[str, Any]:
        text = Template(prompt()).substitute(_texts(question, SEEING if self.images else BLIND))
        if not self.images:
            return message("user", text)
        uris = [data_uri(images / path) for path in question.pair.asked.images]
        shown = [{"type": "image_url", "image_url": {"url": uri}} for uri in uris]
        return {"role": "user", "content": [*shown, {"type": "text", "text": text}]}

    def settings(self) -> dict[str, Any]:
        """What verdicts depend on; the key is not among it."""
        endpoint = {**self.endpoint.canonical(), "base_url": self.endpoint.base_url}
        return {
            "judge": self.endpoint.model,
            "images": self.images,
            "endpoint": endpoint,
            "prompt": PROMPT.name,
            "prompt_digest": digest(prompt())[:16],
        }


@dataclass(frozen=True)
class Judgement:
    """What a judge said of pairs.

    Attributes:
        words: one for each pair, None for those that needed not be asked.
        unusable: replies that could not be used, by reason.
        examples: the first of those.
        told: replies asked for and found, tokens and cost.
    """

    words: list[Words | None]
    unusable: Mapping[str, int] = field(default_factory=dict)
    examples: Sequence[Mapping[str, str]] = ()
    told: Mapping[str, Any] = field(default_factory=dict)


def judge_pairs(context: StageContext, judge: PairJudge, pairs: Sequence[Pair]) -> Judgement:
    """Ask about every pair whose answers are not the same, in both orders; what was said before is not asked again.

    Args:
        context: says where replies are kept, and where the images are.

    Raises:
        Interrupted: a signal asked to stop; replies are kept.
        DataError: nothing can be used of any reply.
        ConfigError: the endpoint takes none of the requests.
        NotAvailable: the endpoint cannot be used, or its budget is used up; replies are kept.
    """
    words: list[Words | None] = [None] * len(pairs)
    places = [place for place, pair in enumerate(pairs) if not pair.same]
    found = Tally()
    with Replies(context.cache / FOLDER) as replies:
        asking = Asking(context, judge, replies)

        def take(index: int, settled: Sequence[Settled]) -> None:
            first, second = map(_word, settled)
            words[places[index]] = first, second
            found.add(pairs[places[index]].id, settled)

        asking.all(_questions(pairs, places), len(places), take)
        if found.dropped and not any(map(usable, words)):
            raise asking.nothing_usable(found.dropped, found.examples[0]["said"] if found.examples else "")
    told = {name: asking.counts[name] for name in ("asked", "cached", "refused")}
    return Judgement(words, dict(found.dropped), found.examples, {**told, **asking.spending.as_json()})


def usable(said: Words | None) -> tuple[Word, Word] | None:
    """What was said, where both replies could be used."""
    first, second = said or (None, None)
    return (first, second) if first and second else None


def _questions(pairs: Sequence[Pair], places: Sequence[int]) -> Iterator[Sequence[Ordered]]:
    return ([Ordered(pairs[place], swapped) for swapped in (False, True)] for place in places)


@cache
def prompt() -> str:
    """What the judge is asked, with places to fill in."""
    return PROMPT.read_text(encoding="utf-8").removesuffix("\n")


def _texts(question: Ordered, sight: str) -> dict[str, str]:
    asked, answers = question.pair.asked, question.pair.answers
    first, second = reversed(answers) if question.swapped else answers
    references = "\n".join(f"- {text}" for text in asked.references) or "none"
    return {"sight": sight, "question": asked.text, "references": references, "first": first, "second": second}


def _read(reply: Reply) -> Mapping[str, Any]:
    check_willing(reply)
    said = reply.text.strip(MARKS).lower()
    if said not in get_args(Word):
        cut = reply.finish == "length"
        raise Unfit("cut off" if cut else "it is not 1, 2 or tie", "it is not 1, 2 or tie and nothing else")
    return {"word": said}


def _repair(unfit: Unfit) -> str:
    return REPAIR.format(problem=unfit.problem)


def _word(settled: Settled) -> Word | None:
    return None if settled.made is None else cast(Word, settled.made["word"])


# ---- items as people and judges are shown them


def asked_of(benchmark: AnyBenchmark, inputs: Mapping[str, Path]) -> dict[str, Asked]:
    """Every item of a benchmark by its id.

    Args:
        inputs: folders by role, as stage `score` reads them.
    """
    known = dict(_known(benchmark, inputs))
    return {item.id: Asked(_text(item), tuple(item.images), *known[item.id]) for item in benchmark.items(inputs)}


def _known(benchmark: AnyBenchmark, inputs: Mapping[str, Path]) -> Iterator[tuple[str, tuple[tuple[str, ...], str]]]:
    """Each item with its references and its category."""
    if isinstance(benchmark, Questions):
        for question in read_questions(inputs["questions"]):
            yield question.id, (_truths(question, benchmark.references_in), question.category)
    else:
        for record in open_records(inputs["pairs"] / "records.jsonl"):
            yield record.image_id, (record.references, record.domain or "")


def _truths(question: Question, keys: Sequence[str]) -> tuple[str, ...]:
    """The texts under these keys of its truth, each once."""
    found: list[str] = []
    for value in (question.truth[key] for key in keys if key in question.truth):
        values = value if isinstance(value, list | tuple) else [value]
        found += [text.strip() for text in values if isinstance(text, str) and text.strip()]
    return tuple(dict.fromkeys(found))


def _text(item: Prompted) -> str:
    """All turns of the user."""
    return _numbered([_words(content) for content in (item.content, *item.later)])


def _words(content: Content) -> str:
    """A turn with the places of its images, where there are several."""
    places = [f"[image {number}]" for number in range(len(pictures(content)), 0, -1)]
    named = [places.pop() if isinstance(part, Picture) else part for part in content]
    if len(pictures(content)) == 1:
        named = [part for part in content if isinstance(part, str)]
    return re.sub(r"(\[image \d+\])(?=[\w\[])", r"\1 ", "".join(named)).strip()


def answer_of(row: Mapping[str, Any]) -> str:
    """A row of generations.jsonl as text: the answers to all turns, as they were generated."""
    return _numbered([str(text).strip() for text in (row.get("raw", row["text"]), *row.get("later", ()))])


def _numbered(texts: Sequence[str]) -> str:
    """As it is where there is one, else a line each with its number."""
    return texts[0] if len(texts) == 1 else "\n".join(f"{number}. {text}" for number, text in enumerate(texts, 1))
