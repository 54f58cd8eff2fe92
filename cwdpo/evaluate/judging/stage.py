"""Stage `judge`: an endpoint rates every answer to a judged benchmark.

A row of judgements.jsonl is `{"id", "judgements": [...], "said": [...]}`: null in place of a reply that could not be
used, and the beginnings of those.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.config import Config
from cwdpo.base.context import StageContext
from cwdpo.base.errors import DataError
from cwdpo.base.identity import digest
from cwdpo.endpoint.asking import FOLDER, Asking
from cwdpo.endpoint.exchange import Exchange, Settled, Unfit, check_willing, message
from cwdpo.endpoint.replies import Replies, Reply, Request
from cwdpo.endpoint.settings import Endpoint
from cwdpo.endpoint.tally import Tally
from cwdpo.evaluate.benchmarks.benchmark import read_questions, was_asked
from cwdpo.evaluate.judging.judged import Judged
from cwdpo.evaluate.judging.known import AnyJudged
from cwdpo.evaluate.question import Answered

JUDGEMENTS = "judgements.jsonl"
REPAIR = "That could not be read: {problem}. Reply once more, in exactly the form that was asked for."


class JudgeSpec(Config):
    """The questions and the answers are parents."""

    benchmark: AnyJudged
    """As `Judged.for_judging` makes it."""
    endpoint: Endpoint
    """Who judges."""


@dataclass(frozen=True)
class Asked:
    """One request about an answer."""

    answered: Answered
    text: str


@dataclass(frozen=True)
class Judge:
    """Says what is sent to the endpoint about an answer, and how its replies are read."""

    benchmark: Judged
    endpoint: Endpoint

    def next_step(self, question: Asked, replies: Sequence[Reply], images: Path) -> Request | Settled:
        """See `Asker`."""

        def read(reply: Reply) -> Mapping[str, Any]:
            return {"value": self._rating(question.answered, reply)}

        return Exchange(self.endpoint, message("user", question.text), read, _repair).after(replies)

    def _rating(self, answered: Answered, reply: Reply) -> Any:
        check_willing(reply)
        try:
            return self.benchmark.rating(answered, reply.text)
        except Unfit:
            if reply.finish == "length":
                raise Unfit("cut off", "it was cut off; be brief") from None
            raise


def _repair(unfit: Unfit) -> str:
    return REPAIR.format(problem=unfit.problem)


def run(context: StageContext) -> None:
    """Write judgements.jsonl, settings.json (what made them) and summary.json (counts, tokens, cost).

    Raises:
        DataError: nothing can be used of any reply, or an answer is to no question.
        ConfigError: the endpoint refuses every request.
        NotAvailable: the endpoint cannot be used, or its budget is used up; replies are kept.
    """
    spec: JudgeSpec = context.spec
    answers = answers_of(context.inputs["questions"], context.inputs["generate"])
    judge, tally = Judge(spec.benchmark, spec.endpoint), Tally()
    with Replies(context.cache / FOLDER) as replies:
        asking = Asking(context, judge, replies)
        _write_rows(context, asking, answers, tally)
    counts = {name: asking.counts[name] for name in ("asked", "cached", "refused")}
    found = tally.as_json()
    told = {"answers": found["records"], "judgements": found["questions"], "used": found["made"]}
    settings = _settings(spec)
    summary = {**told, **{name: found[name] for name in ("repaired", "dropped")}, **counts, **asking.spending.as_json()}
    files.write_json(context.out / "settings.json", settings)
    files.write_json(context.out / "summary.json", {**summary, "examples": tally.examples, **settings})


def answers_of(questions: Path, generated: Path) -> list[Answered]:
    """Every answer with its question, in the order of the answers, but for those to questions that were not asked.

    Raises:
        DataError: an answer is to no question.
    """
    asked = {question.id: question for question in read_questions(questions)}
    path = generated / "generations.jsonl"
    found = []
    for row in files.read_jsonl(path):
        if row["id"] not in asked:
            raise DataError(f"{path}: an answer to '{row['id']}', which is no question of {questions}")
        if was_asked(row):
            found.append(Answered(asked[row["id"]], str(row.get("raw", row["text"])).strip()))
    return found


def _write_rows(context: StageContext, asking: Asking[Asked], answers: Sequence[Answered], tally: Tally) -> None:
    """One at a time, as they are settled; there is no file where nothing can be used."""
    spec: JudgeSpec = context.spec
    with files.file_written_whole(context.out / JUDGEMENTS) as file:

        def take(index: int, settled: Sequence[Settled]) -> None:
            name = answers[index].question.id
            tally.add(name, settled)
            file.write(_row(name, settled))

        questions = ([Asked(one, text) for text in spec.benchmark.requests(one)] for one in answers)
        asking.all(questions, len(answers), take)
        if tally.dropped and not tally.made:
            raise asking.nothing_usable(tally.dropped, tally.examples[0]["said"] if tally.examples else "")


def _row(name: str, settled: Sequence[Settled]) -> bytes:
    judgements = [None if one.made is None else one.made["value"] for one in settled]
    said = [one.said for one in settled if one.made is None]
    row = {"id": name, "judgements": judgements, "said": said}
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _settings(spec: JudgeSpec) -> dict[str, Any]:
    """What made the judgements; the key is not among it."""
    benchmark, endpoint = spec.benchmark, spec.endpoint
    own = benchmark.judge_text != benchmark.shipped_text()
    return {
        "judge": endpoint.model,
        "endpoint": {**endpoint.canonical(), "base_url": endpoint.base_url},
        "prompt": "an own text" if own else "the shipped one (rules only)",
        "prompt_digest": digest(benchmark.judge_text)[:16],
    }
