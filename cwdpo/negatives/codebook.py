"""Dialogues that correct a rejected response by rule: the schema of `codebook.yaml`, and which of its questions fit."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path

from cwdpo.base.config import Config, read_yaml, validate
from cwdpo.data.records import Record, Rejected, Turn
from cwdpo.negatives.differences import ARTICLES, Difference, differences

SHORT = 3
"""Words of the longest answer that is asked for again rather than taken apart."""


class Questions(Config):
    """Wordings of one question; the answers begin with No and Yes."""

    no: list[Turn]
    """About what is wrong."""
    yes: list[Turn]
    """About what is right."""


class Codebook(Config):
    """The content of `codebook.yaml`; comments there say what each is for."""

    answer: Questions
    """Short answers to a question."""
    polar: Questions
    """Yes and no."""
    thing: Questions
    """Noun phrases."""
    phrase: Questions
    """Other phrases."""
    extra: list[Turn]
    """Phrases with nothing right in their place: about what is wrong."""
    reply: Questions
    """Whole answers to a question."""
    description: Questions
    """Whole descriptions."""


@cache
def codebook() -> Codebook:
    """The shipped codebook, read and validated once; raises `ConfigError` when it is damaged."""
    path = Path(__file__).with_name("codebook.yaml")
    return validate(Codebook, read_yaml(path), str(path))


def corrections(record: Record, rejected: Rejected, chance: random.Random) -> list[Turn]:
    """Questions that correct the rejected response, what tells most first; at least one about what is wrong.

    The right text is the revised answer where there is one, else the chosen response.

    Args:
        chance: draws the wordings.
    """
    wrong, right = rejected.text, rejected.revised or record.chosen
    question = record.prompt[: record.prompt.rfind("?") + 1]  # instructions may follow: "Answer in one word."
    if is_short(record, rejected):
        return _about_answers(_bare(wrong), _bare(right), question, chance)
    truths = (right, record.chosen, *record.references)
    phrases = [turn for found in differences(wrong, right) for turn in _about_phrase(found, truths, chance)]
    whole = codebook().reply if question else codebook().description
    return list(dict.fromkeys([*phrases, *_both(whole, chance, wrong=wrong, right=right, prompt=question)]))


def is_short(record: Record, rejected: Rejected) -> bool:
    """Whether both answers to a question are so short that they are asked for again, not taken apart."""
    texts = (rejected.text, rejected.revised or record.chosen)
    return "?" in record.prompt and max(len(text.split()) for text in texts) <= SHORT


def _bare(answer: str) -> str:
    return answer.rstrip(" .!") or answer


def _about_answers(wrong: str, right: str, question: str, chance: random.Random) -> list[Turn]:
    polar = {wrong.lower(), right.lower()} <= {"yes", "no"}
    questions = codebook().polar if polar else codebook().answer
    return _both(questions, chance, wrong=wrong, right=right, prompt=question)


def _about_phrase(found: Difference, truths: Collection[str], chance: random.Random) -> Iterator[Turn]:
    """Questions about one difference; what any true text says too is not denied."""
    phrases = {"wrong": found.wrong, "right": found.right}
    if found.things:
        phrases = {key: text[:1].lower() + text[1:] for key, text in phrases.items()}
    questions = codebook().thing if found.things else codebook().phrase
    if found.wrong and not any(_says(text, found.wrong) for text in truths):
        yield _turn(questions.no if found.right else codebook().extra, chance, phrases)
    if found.right:
        yield _turn(questions.yes, chance, phrases)


def _says(text: str, phrase: str) -> bool:
    """Whether the words of `phrase` stand in `text` in a row, articles aside."""
    return f" {_words(phrase)} " in f" {_words(text)} "


def _words(text: str) -> str:
    return " ".join(word for word in re.findall(r"\w+", text.lower()) if word not in ARTICLES)


def _both(questions: Questions, chance: random.Random, **texts: str) -> list[Turn]:
    return [_turn(wordings, chance, texts) for wordings in (questions.no, questions.yes)]


def _turn(wordings: list[Turn], chance: random.Random, texts: Mapping[str, str]) -> Turn:
    question, answer = (wording.format(**texts) for wording in chance.choice(wordings))
    return question, answer
