"""What a rejected response comes with: kept from file to file, left out where it is not, and given in a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cwdpo.base import files
from cwdpo.data.records import (
    Record,
    Rejected,
    SentenceScore,
    open_records,
    read_records,
    rejected_row,
    write_records,
)
from cwdpo.data.samples import Sample, load_samples

DIALOGUE = (("Is it blue?", "No, it is red."), ("Is it red?", "Yes."))
SCORES = (SentenceScore(1, True), SentenceScore(4, False))
PLAIN = Rejected("A cat.", "llm", "easy")
RICH = Rejected("A blue ball.", "llm", None, "A red ball.", DIALOGUE, SCORES)


def record(*rejected: Rejected) -> Record:
    return Record("1#0", "1", "1.jpg", "What?", "A red ball.", ("A red ball.",), rejected, "train", "stage1")


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = [record(), record(PLAIN, RICH)]
    write_records(tmp_path / "records.jsonl", written)
    assert read_records(tmp_path / "records.jsonl") == list(open_records(tmp_path / "records.jsonl")) == written


def test_what_is_not_there_leaves_no_trace(tmp_path: Path) -> None:
    """The bytes of the first version: artefacts and digests of older data stay good."""
    write_records(tmp_path / "records.jsonl", [record(PLAIN, Rejected("A dog.", "dataset"))])
    assert (tmp_path / "records.jsonl").read_text() == (
        '{"id": "1#0", "image_id": "1", "image": "1.jpg", "prompt": "What?", "chosen": "A red ball.", '
        '"references": ["A red ball."], "rejected": [{"text": "A cat.", "source": "llm", "grade": "easy"}, '
        '{"text": "A dog.", "source": "dataset", "grade": null}], "split": "train", "portion": "stage1"}\n'
    )


@pytest.mark.parametrize(
    ("extras", "row"),
    [
        ({}, {}),
        ({"revised": "A red ball."}, {"revised": "A red ball."}),
        ({"dialogue": DIALOGUE}, {"dialogue": DIALOGUE}),
        ({"scores": SCORES[:1]}, {"scores": ({"score": 1, "image_error": True},)}),
    ],
)
def test_each_is_written_alone(extras: dict[str, Any], row: dict[str, Any]) -> None:
    assert rejected_row(Rejected("x", "llm", **extras)) == {"text": "x", "source": "llm", "grade": None, **row}


@pytest.mark.parametrize(
    ("extras", "expected"),
    [
        ({}, set()),
        ({"scores": SCORES}, set()),
        ({"revised": "y"}, {"revised"}),
        ({"dialogue": DIALOGUE}, {"dialogue"}),
        ({"dialogue": DIALOGUE, "revised": "y"}, {"revised", "dialogue"}),
    ],
)
def test_a_rejected_response_knows_what_it_supplies(extras: dict[str, Any], expected: set[str]) -> None:
    assert Rejected("x", "llm", **extras).supplies == expected


# ---- samples


def sample(folder: Path, *rejected: Rejected) -> Sample:
    """The sample of a record whose negatives are these."""
    write_records(folder / "records.jsonl", [record()])
    row = {"id": "1#0", "rejected": [rejected_row(item) for item in rejected]}
    files.write_jsonl(folder / "negatives.jsonl", [row])
    (found,) = load_samples(folder, folder, "stage1")
    return found


def test_a_sample_has_everything_in_the_order_of_its_rejected_responses(tmp_path: Path) -> None:
    other = Rejected("A red cube.", "llm", None, "A red sphere.", DIALOGUE[1:], SCORES[1:])
    found = sample(tmp_path, RICH, other)
    assert found.rejected == ("A blue ball.", "A red cube.")
    assert found.revised == ("A red ball.", "A red sphere.")
    assert found.dialogues == (DIALOGUE, DIALOGUE[1:])
    assert found.scores == (SCORES, SCORES[1:])


def test_what_one_rejected_response_lacks_the_sample_lacks(tmp_path: Path) -> None:
    found = sample(tmp_path, RICH, Rejected("A red cube.", "llm", None, "A red sphere."))
    assert found.rejected == ("A blue ball.", "A red cube.")
    assert found.revised == ("A red ball.", "A red sphere.")
    assert (found.dialogues, found.scores) == ((), ())
    assert sample(tmp_path, PLAIN, RICH).revised == ()


def test_a_sample_without_rejected_responses_has_nothing_beside(tmp_path: Path) -> None:
    expected = Sample("1#0", "1", "1.jpg", "What?", "A red ball.")
    assert sample(tmp_path) == expected
    assert list(load_samples(tmp_path, None, "stage1")) == [expected]
