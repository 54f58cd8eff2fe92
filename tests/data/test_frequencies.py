"""Document frequencies of training references, and rewards that read them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from cwdpo.base import files
from cwdpo.base.context import StageContext
from cwdpo.base.errors import NotAvailable
from cwdpo.base.runtime import Execution, Rank
from cwdpo.data import frequencies
from cwdpo.data.records import Record, write_records
from cwdpo.metrics.cider_d import CiderD
from cwdpo.train.rewards import CiderReward, ExactReward
from cwdpo.train.rewards.exact_answer import normalised


def record(name: str, image: str, split: Any, *references: str) -> Record:
    portion = "stage1" if split == "train" else "none"
    return Record(name, image, f"{image}.jpg", "?", references[0], references, (), split, portion)


RECORDS = [
    record("a#0", "a", "train", "A red ball.", "The ball, red!"),
    record("a#1", "a", "train", "A red ball.", "The ball, red!"),  # the same image again
    record("b#0", "b", "train", "A red cube."),
    record("c#0", "c", "train", "Two balls"),
    record("v#0", "v", "val", "A red ball"),
]
COUNTS = {"a": 2, "red": 2, "a red": 2}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("frequencies")
    write_records(folder / "pairs" / "records.jsonl", RECORDS)
    out = folder / "frequencies"
    nothing: Any = lambda *_, **__: None  # noqa: E731
    inputs = {"pairs": folder / "pairs"}
    frequencies.run(StageContext(None, inputs, out, folder, folder, Rank(), Execution(), nothing, nothing))
    return {"pairs": folder / "pairs", "frequencies": out}


def test_a_document_is_a_training_image_with_all_its_references(inputs: dict[str, Path]) -> None:
    rows = list(files.read_jsonl(inputs["frequencies"] / "frequencies.jsonl"))
    assert {row["ngram"]: row["images"] for row in rows} == COUNTS
    assert rows == sorted(rows, key=lambda row: row["ngram"].split())
    assert files.read_json(inputs["frequencies"] / "summary.json")["images"] == 3


def test_what_is_read_scores_as_what_was_counted(inputs: dict[str, Path]) -> None:
    loaded = frequencies.load_cider(inputs["frequencies"])
    assert loaded.documents == 3
    assert loaded.document_frequency == {tuple(ngram.split()): count for ngram, count in COUNTS.items()}


def test_the_reward_is_cider_d_against_all_references_of_the_image(inputs: dict[str, Path]) -> None:
    judge = CiderReward().judge(inputs)
    cider = CiderD({tuple(ngram.split()): count for ngram, count in COUNTS.items()}, 3)
    references = [["a", "red", "ball"], ["the", "ball", "red"]]
    found = judge(["a#1", "b#0", "a#0"], ["Red ball.", "A red cube", ""])
    assert found == [
        pytest.approx(cider.score(["red", "ball"], references)),
        # Every n-gram up to three agrees; there are none of four: 10 * 3 / 4.
        pytest.approx(7.5),
        0.0,
    ]
    assert found[0] > 0.5


def test_rare_words_weigh_more(inputs: dict[str, Path]) -> None:
    judge = CiderReward().judge(inputs)
    red, cube = judge(["b#0", "b#0"], ["red", "cube"])
    # "red" is in two of three images, "cube" in one: ln 1.5 against ln 3, over one norm, with one length penalty.
    assert cube / red == pytest.approx(math.log(3) / math.log(1.5))


def test_without_java_it_is_said_before_anything_is_sampled(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(NotAvailable, match="Java not found"):
        CiderReward().judge(inputs)


def test_an_exact_answer_is_equal_but_for_case_punctuation_and_articles(inputs: dict[str, Path]) -> None:
    judge = ExactReward().judge({"pairs": inputs["pairs"]})
    assert judge(["a#0", "a#0", "a#0", "b#0"], ["the RED ball", "ball red", "red", "a red ball"]) == [
        1.0,
        1.0,
        0.0,
        0.0,
    ]
    assert normalised("An answer: the 3rd, a-b!") == "answer 3rd a-b"


@pytest.mark.parametrize(("one", "other"), [("3.5", "35"), ("-5", "5"), ("1/2", "12"), ("10:30", "1030"), ("A", "")])
def test_different_answers_stay_different(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("1,000", "1000"), ("(B)", "b"), ("A.", "a"), ('"Yes!"', "yes"), ("$5.", "5"), ("the  Cat", "cat")],
)
def test_equal_answers_are_equal(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)


def test_saying_nothing_is_never_right(inputs: dict[str, Path]) -> None:
    judge = ExactReward().judge({"pairs": inputs["pairs"]})
    assert judge(["a#0", "a#0"], ["", "..."]) == [0.0, 0.0]
