"""Rejected responses that a language model writes: what is offered, and what is asked in any language."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from endpoints import Standin, ask, record, serving, texts_of

from cwdpo.data.records import Record, Rejected
from cwdpo.negatives.written import Written

SAID = {
    "A red ball.": [("A blue ball.", "attribute"), ("Two red balls.", "count"), ("A red ball.", "object")],
    "一只红色的球在桌子上。": [("一只蓝色的球在桌子上。", "attribute")],
    "two": [("not two at all", "count")],
    "So weit: " + "rot " * 2500: [("So weit: " + "rot " * 2499 + "blau", "attribute")],
}


def reply(body: Mapping[str, Any]) -> str:
    (chosen,) = [chosen for chosen in SAID if f"true answer:\n{chosen.strip()}\n" in texts_of(body)[0]]
    return json.dumps({"rewrites": [{"text": text, "kind": kind} for text, kind in SAID[chosen]]}, ensure_ascii=False)


@pytest.fixture
def standin() -> Iterator[Standin]:
    with serving(Standin(reply)) as server:
        yield server


def offers(standin: Standin, tmp_path: Path, records: list[Record], **settings: Any) -> list[tuple[Rejected, ...]]:
    endpoint = {"model": "m", "base_url": standin.url}
    source = Written.model_validate({"source": "llm", "endpoint": endpoint, **settings})
    out = ask(tmp_path, source.parts()["llm"], records).out
    return [offer.rejected for offer in source.offers(records, {"llm": out})]


def test_what_is_written_says_what_was_made_wrong(standin: Standin, tmp_path: Path) -> None:
    (found,) = offers(standin, tmp_path, [record(1, references=("A red ball.", "The ball."))], count=5)
    assert found == (
        Rejected("A blue ball.", "llm:attribute", how={"kind": "attribute", "model": "m"}),
        Rejected("Two red balls.", "llm:count", how={"kind": "count", "model": "m"}),
    )
    (text,) = texts_of(standin.asked[0])
    assert "Write 5 different wrong answers." in text
    assert "\nThe ball.\n" in text


def test_no_more_than_asked_for_and_only_of_the_kinds(standin: Standin, tmp_path: Path) -> None:
    assert [item.text for item in offers(standin, tmp_path, [record(1)])[0]] == ["A blue ball."]
    assert [item.text for item in offers(standin, tmp_path, [record(1)], kinds=["count"])[0]] == ["Two red balls."]


def test_any_language_and_any_length_pass(standin: Standin, tmp_path: Path) -> None:
    records = [record(number, chosen.strip()) for number, chosen in enumerate(SAID)]
    found = offers(standin, tmp_path, records)
    assert [items[0].text for items in found] == [said[0][0] for said in SAID.values()]
    assert len(found[3][0].text) > 10_000


def test_a_record_of_which_nothing_could_be_used_is_offered_nothing(standin: Standin, tmp_path: Path) -> None:
    records = [record(1), record(2, "two")]
    first, second = offers(standin, tmp_path, records, kinds=["attribute"])
    assert len(first) == 1
    assert second == ()
