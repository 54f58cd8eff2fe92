"""Means, and the reasons where there are none."""

from __future__ import annotations

from cwdpo.evaluate.benchmarks.shares import NOT_ASKED, mean_of, unavailable


def test_a_mean_does_not_depend_on_the_order() -> None:
    values = [0.1] * 10 + [1e16, 1.0, -1e16]
    assert mean_of(values) == mean_of(reversed(values)) == 2.0 / 13


def test_a_mean_of_nothing_is_no_zero() -> None:
    assert mean_of(()) is None
    assert mean_of([0.0, 0]) == 0.0


def test_only_what_has_no_value_has_a_reason() -> None:
    corpus = {"all": 0.0, "some": None, "few": None}
    assert unavailable(corpus) == dict.fromkeys(("some", "few"), NOT_ASKED)
    assert unavailable(corpus, "not available: why") == dict.fromkeys(("some", "few"), "not available: why")
    assert NOT_ASKED.startswith("not available: ")
