"""Statistics of pairs, counted by hand."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cwdpo.negatives.summary import Spread, Statistics, distance_bin, edit_distance

RED = "A red ball on a bed."


def row(name: str, *rejected: dict[str, Any], chosen: str | None = RED) -> dict[str, Any]:
    known = {} if chosen is None else {"image": "1.jpg", "prompt": "?", "chosen": chosen}
    return {"id": name, **known, "rejected": list(rejected)}


def wrong(text: str, source: str = "perturb:colour", grade: str | None = None, **more: Any) -> dict[str, Any]:
    return {"text": text, "source": source, "grade": grade, **more}


def statistics(*rows: dict[str, Any]) -> dict[str, Any]:
    found = Statistics()
    for one in rows:
        found.add(one)
    return found.as_json()


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a red ball", "a red ball", 0),
        ("a red ball", "a blue ball", 1),
        ("a red ball", "a ball", 1),
        ("a ball", "a red ball", 1),
        ("a dog runs", "two dogs run", 3),
        ("", "a red ball", 3),
        ("red", "reds", 1),  # words, not letters
    ],
)
def test_words_are_inserted_removed_and_replaced(one: str, other: str, expected: int) -> None:
    assert edit_distance(one.split(), other.split()) == expected


def test_bins_of_the_histogram() -> None:
    found = {distance: distance_bin(distance) for distance in (0, 1, 2, 3, 4, 5, 6, 10, 11, 900)}
    assert list(found.values()) == ["0", "1", "2", "3", "4-5", "4-5", "6-10", "6-10", ">10", ">10"]


def test_a_spread_of_nothing_is_unknown() -> None:
    assert Spread().as_json() is None


def test_everything_is_counted() -> None:
    found = statistics(
        row("1#0", wrong("A blue ball on a bed.", grade="hard", mean_logp=-1.0), wrong("A cat.", "llm", "easy")),
        row("2#0", wrong("A blue ball on a bed.", mean_logp=-2.0, revised=RED), chosen="A ball."),
        row("3#0"),
    )
    assert found["records"] == 3
    assert found["pairs"] == 3
    assert found["rejected_per_record"] == {"0": 1, "1": 1, "2": 1}
    assert found["words"] == {
        "chosen": {"mean": pytest.approx(14 / 3, abs=1e-4), "min": 2, "max": 6},  # 6, 2, 6
        "rejected": {"mean": pytest.approx(14 / 3, abs=1e-4), "min": 2, "max": 6},  # 6, 2, 6
    }
    # red -> blue; A cat. keeps one of six words; A ball. gets four words and changes ball. to ball
    assert found["edit_distance"] == {
        "mean": pytest.approx((1 + 5 + 5) / 3, abs=1e-4),
        "min": 1,
        "max": 5,
        "histogram": {"0": 0, "1": 1, "2": 0, "3": 0, "4-5": 2, "6-10": 0, ">10": 0},
    }
    assert found["shared"] == {"texts": 1, "pairs": 2}
    assert found["with"] == {"revised": 1}
    assert found["sources"] == {
        "llm": {"pairs": 1, "words": 2, "edit_distance": 5},
        "perturb:colour": {"pairs": 2, "words": 6, "edit_distance": 3, "mean_logp": -1.5},
    }
    assert found["grades"] == {
        "easy": {"pairs": 1, "words": 2, "edit_distance": 5},
        "hard": {"pairs": 1, "words": 6, "edit_distance": 1, "mean_logp": -1},
    }


def test_a_text_twice_in_one_record_is_no_text_of_several_records() -> None:
    assert statistics(row("1#0", wrong("A cat."), wrong("A cat.", "llm")))["shared"] == {"texts": 0, "pairs": 0}


def test_rows_that_do_not_tell_the_chosen_response_have_no_distance() -> None:
    found = statistics(row("1#0", wrong("A cat."), chosen=None))
    assert found["edit_distance"] is None
    assert found["words"] == {"chosen": None, "rejected": {"mean": 2, "min": 2, "max": 2}}
    assert found["sources"]["perturb:colour"] == {"pairs": 1, "words": 2}


def test_100_000_pairs_take_seconds() -> None:
    one = row("1#0", *(wrong(f"A {colour} ball on a bed.") for colour in ("blue", "green", "pink", "grey")))
    found, began = Statistics(), time.process_time()
    for _ in range(25_000):
        found.add(one)
    assert found.pairs == 100_000
    assert time.process_time() - began < 20
