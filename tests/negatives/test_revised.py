"""The policy's own answers beside a language model's smallest correction of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from endpoints import Ran, Standin, ask, record, serving, texts_of

from cwdpo.base.files import write_jsonl
from cwdpo.data.records import Record, Rejected, SentenceScore
from cwdpo.negatives.answers import question_id
from cwdpo.negatives.llm.revise import Revise, sentences
from cwdpo.negatives.revised import Revised


def revision(body: Mapping[str, Any]) -> str:
    """Says green for blue; every sentence that says blue is wrong about the image."""
    numbered = re.findall(r"^\d+\. (.*)$", texts_of(body)[0], re.MULTILINE)
    scores = [{"score": 1 if "blue" in text else 4, "image_error": "blue" in text} for text in numbered]
    return json.dumps({"scores": scores, "revised": " ".join(numbered).replace("blue", "green")})


@pytest.fixture
def standin() -> Iterator[Standin]:
    with serving(Standin(revision)) as server:
        yield server


def revised(standin: Standin, **more: Any) -> Revised:
    endpoint = {"model": "m", "base_url": standin.url, "patience": 5}
    return Revised.model_validate({"source": "revised", "endpoint": endpoint, **more})


def answers(folder: Path, said: Mapping[str, str], records: Sequence[Record]) -> Path:
    """What the stage `answers` writes."""
    rows = [
        {"id": question_id(one.image, one.prompt), "image": one.image, "prompt": one.prompt,
         "answers": [{"text": said[one.id], "tokens": 3, "truncated": one.id == "2#0", "mean_logp": -0.5}]}
        for one in records
    ]  # fmt: skip
    write_jsonl(folder / "answers.jsonl", rows)
    return folder


def run(standin: Standin, tmp_path: Path, said: Sequence[str]) -> tuple[Ran, list[tuple[Rejected, ...]]]:
    """What the endpoint made of these answers to as many records, and what the source offers."""
    records = [record(number, "A green ball.", references=("A green ball.", "A ball.")) for number in range(len(said))]
    folder = answers(tmp_path / "answers", dict(zip([one.id for one in records], said, strict=True)), records)
    source = revised(standin)
    ran = ask(tmp_path, source.parts()["llm"], records, inputs={"answers": folder})
    made = {"answers": folder, "llm": ran.out}
    return ran, [offer.rejected for offer in source.offers(records, made)]


def test_an_answer_comes_with_its_correction_and_its_scores(standin: Standin, tmp_path: Path) -> None:
    _, (found, _, cut) = run(standin, tmp_path, ["A blue ball. It is round.", "A blue cube.", "A blue ba"])
    scores = (SentenceScore(1, True), SentenceScore(4, False))
    assert found == (
        Rejected(
            "A blue ball. It is round.", "own_answer", revised="A green ball. It is round.", scores=scores,
            mean_logp=-0.5, how={"rank": 0, "model": "m"},
        ),
    )  # fmt: skip
    assert cut[0].how == {"rank": 0, "truncated": True, "model": "m"}


def test_the_prompt_shows_sentences_and_truths(standin: Standin, tmp_path: Path) -> None:
    run(standin, tmp_path, ["A blue ball. It is round."])
    (text,) = texts_of(standin.asked[0])
    assert "1. A blue ball.\n2. It is round.\n" in text
    assert "A green ball." in text
    assert "\nA ball.\n" in text


def test_right_and_empty_answers_are_not_asked_about(standin: Standin, tmp_path: Path) -> None:
    ran, offers = run(standin, tmp_path, ["a GREEN ball", "A ball.", " ", "A blue ball."])
    assert len(standin.asked) == 1
    assert ran.summary["not_asked"] == {"answer equal to the truth": 2, "empty answer": 1}
    assert [len(items) for items in offers] == [0, 0, 0, 1]


def test_an_answer_that_comes_back_is_right_and_dropped(standin: Standin, tmp_path: Path) -> None:
    ran, offers = run(standin, tmp_path, ["A green round thing.", "A blue ball."])
    assert ran.summary["dropped"] == {"nothing to correct": 1}
    assert offers[0] == ()
    assert len(standin.asked) == 2  # it is not told to find something


def test_scores_that_do_not_fit_the_sentences_are_left_out(standin: Standin, tmp_path: Path) -> None:
    score = {"score": 2, "image_error": True}
    standin.answer = lambda body: json.dumps({"scores": [score], "revised": "A green ball. It is round."})
    ran, ((item,),) = run(standin, tmp_path, ["A blue ball. It is round."])
    assert item.scores == ()
    assert item.revised == "A green ball. It is round."
    assert ran.summary["lacking"] == {"scores that fit the sentences": 1}


def test_scores_outside_one_to_four_are_repaired(standin: Standin, tmp_path: Path) -> None:
    wrong = json.dumps({"scores": [{"score": 5, "image_error": True}], "revised": "A green ball."})
    standin.answer = lambda body: wrong if len(body["messages"]) == 1 else revision(body)
    ran, ((item,),) = run(standin, tmp_path, ["A blue ball."])
    assert item.scores == (SentenceScore(1, True),)
    assert ran.summary["repaired"] == 1
    assert "scores.0.score" in texts_of(standin.asked[1])[-1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A ball. It is red!  Is it?", ["A ball.", "It is red!", "Is it?"]),
        ("No stop", ["No stop"]),
        ('He says "go." Then 3.5 balls.', ['He says "go."', "Then 3.5 balls."]),
        ("一只猫。它在睡觉。", ["一只猫。", "它在睡觉。"]),
        ("Ein Ball. Über ihm ein Ast.", ["Ein Ball.", "Über ihm ein Ast."]),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_a_text_of_ten_thousand_characters_and_another_language_pass(standin: Standin, tmp_path: Path) -> None:
    long = "Ein blauer Ball, blue. " * 450
    _, ((item,),) = run(standin, tmp_path, [long.strip()])
    assert len(item.text) > 10_000
    assert len(item.scores) == 450
    assert item.revised == item.text.replace("blue", "green")


def test_both_parts_read_the_same_answers() -> None:
    source = revised(Standin(revision, url="http://x/v1"), max_new_tokens=9, block=2)
    parts = source.parts()
    assert isinstance(parts["llm"], Revise)
    assert parts["llm"].parts() == {"answers": parts["answers"]}
    assert source.provides(frozenset()) == {"revised"}
