"""Rejected responses of three grades: which source each comes from, and what a record without one of them gets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cwdpo.base.config import validate
from cwdpo.base.errors import ConfigError
from cwdpo.base.files import write_jsonl
from cwdpo.data.records import Record, Rejected
from cwdpo.negatives.answers import question_id
from cwdpo.negatives.graded import Graded

CAPTIONS = ("A red ball on a table.", "Two small dogs in a blue car.", "Three cups under a green bed.")


def record(number: int, chosen: str) -> Record:
    wrong = (Rejected("Given.", "human", "hard"),)
    return Record(f"{number}#0", str(number), f"{number}.jpg", "?", chosen, (chosen,), wrong, "train", "stage1")


def records(*captions: str) -> list[Record]:
    return [record(number, text) for number, text in enumerate(captions)]


def graded(**of: Any) -> Graded:
    return validate(Graded, {"source": "graded", "of": of}, "x")


def changed(before: str, after: str) -> int:
    """Words of a caption that an edit took away."""
    return sum((Counter(before.lower().split()) - Counter(after.lower().split())).values())


def test_by_default_one_swap_three_swaps_and_the_caption_of_another_image() -> None:
    crowd = records(*CAPTIONS)
    for item, offer in zip(crowd, graded().offers(crowd, {}), strict=True):
        hard, medium, easy = offer.rejected
        assert [one.grade for one in offer.rejected] == ["hard", "medium", "easy"]
        assert (len(hard.how["old"]), len(medium.how["old"])) == (1, 3)
        assert changed(item.chosen, hard.text) < changed(item.chosen, medium.text)
        assert easy.text in {other.chosen for other in crowd} - {item.chosen}
        assert easy.source == "other image", "not the data's own rejected response"
        assert offer.chosen is None


def test_a_record_that_lacks_a_grade_has_none() -> None:
    """No edit is known for the first; the others are equal, so that only the first is another caption to them."""
    first, *others = graded().offers(records("Lorem ipsum.", CAPTIONS[0], CAPTIONS[0]), {})
    assert first.rejected == ()
    assert [offer.rejected[2].text for offer in others] == ["Lorem ipsum."] * 2


def test_a_caption_with_one_thing_to_swap_has_no_medium_one() -> None:
    """Its three swaps are the one of the hard one."""
    nouns = {"source": "perturb", "kinds": ["object"]}
    source = graded(hard=nouns, medium={**nouns, "edits": 3})
    first, second = source.offers(records("The ball.", "The dog in the car."), {})
    assert first.rejected == ()
    assert len({item.text for item in second.rejected}) == 3


def test_the_truth_is_no_grade() -> None:
    """The first is given as a rejected response what is a reference."""
    source = graded(easy={"source": "dataset"})
    right = replace(record(0, CAPTIONS[0]), references=(CAPTIONS[0], "Given."))
    wrong = record(1, CAPTIONS[1])
    assert [len(offer.rejected) for offer in source.offers([right, wrong], {})] == [0, 3]


def test_a_grade_may_come_from_the_policy(tmp_path: Path) -> None:
    """Its parts are named after the grade, and its several responses all have the grade."""

    def answered(texts: Sequence[str]) -> Path:
        rows = [{"text": text, "truncated": False, "mean_logp": -1.5} for text in texts]
        write_jsonl(tmp_path / "answers.jsonl", [{"id": question_id("0.jpg", "?"), "answers": rows}])
        return tmp_path

    source = graded(hard={"source": "sample", "count": 2}, easy={"source": "dataset"})
    assert list(source.parts()) == ["hard.answers"]
    made = {"hard.answers": answered([CAPTIONS[0].upper(), "A cat.", "A dog."])}
    (offer,) = source.offers(records(CAPTIONS[0]), made)
    assert [(item.grade, item.source.partition(":")[0]) for item in offer.rejected] == [
        ("hard", "sample"),
        ("hard", "sample"),
        ("medium", "perturb"),
        ("easy", "human"),
    ]
    assert [item.mean_logp for item in offer.rejected] == [-1.5, -1.5, None, None]
    made = {"hard.answers": answered([CAPTIONS[0].upper()])}
    (offer,) = source.offers(records(CAPTIONS[0]), made)
    assert offer.rejected == (), "the policy was right, so there is no hard one"
    assert offer.dropped == ("equal_to_truth",)


def test_captions_of_other_scripts_have_no_edits_unless_a_source_has_some() -> None:
    crowd = records("一只红色的球。", "كرة حمراء.", "一只猫。")
    assert all(offer.rejected == () for offer in graded().offers(crowd, {}))
    other = {"source": "dataset", "own": False}
    source = graded(hard=other, medium={"source": "dataset"}, easy={**other, "count": 2})
    for item, offer in zip(crowd, source.offers(crowd, {}), strict=True):
        assert {one.text for one in offer.rejected} == {one.chosen for one in crowd} - {item.chosen} | {"Given."}


@pytest.mark.parametrize(
    ("of", "message"),
    [({"harder": {}}, r"of\.harder"), ({"hard": {"source": "graded"}}, r"of\.hard.*'graded'")],
)
def test_other_grades_and_sources_are_refused(of: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        graded(**of)
