"""Which words dialogues stress, against numbers worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from cwdpo.base.files import write_jsonl
from cwdpo.negatives.word_shift import dialogues_of, word_shift

WITH = [(("Is it a dog?", "No, a truck."),)]  # is it a dog no a truck: 7 words
WITHOUT = [(("Might it provide?", "It might."), ("A dog?", "No."))]  # might it provide it might a dog no: 8 words


def test_rates_and_shift_are_those_worked_out_by_hand() -> None:
    shift = {word.word: word for word in word_shift(WITH, WITHOUT).words}
    assert set(shift) == {"is", "it", "a", "dog", "no", "truck", "might", "provide"}
    assert (shift["a"].here, shift["a"].there) == (pytest.approx(2000 / 7), pytest.approx(1000 / 8))
    odds = math.log((0.5 / 7.5) / (2.5 / 6.5))  # might: none of 7, two of 8
    assert shift["might"].z == pytest.approx(odds / math.sqrt(1 / 0.5 + 1 / 7.5 + 1 / 2.5 + 1 / 6.5))


def test_what_is_stressed_comes_first_and_things_are_counted() -> None:
    shift = word_shift(WITH, WITHOUT)
    assert shift.gained(3) == ["is", "truck", "a"]
    assert shift.lost(2) == ["might", "provide"]
    assert shift.things == (pytest.approx(2 / 7), pytest.approx(1 / 8))  # dog and truck; dog


def test_equal_dialogues_do_not_shift() -> None:
    shift = word_shift(WITH, WITH)
    assert {word.z for word in shift.words} == {0.0}
    assert shift.gained() == shift.lost() == []


def test_dialogues_are_read_from_what_the_stage_wrote(tmp_path: Path) -> None:
    rejected = [{"text": "x", "dialogue": [["Is it a dog?", "No, a truck."]]}, {"text": "y"}]
    write_jsonl(tmp_path / "negatives.jsonl", [{"id": "1#0", "rejected": rejected}])
    assert list(dialogues_of(tmp_path)) == WITH
