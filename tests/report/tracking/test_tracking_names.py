"""Names and values that MLflow takes, by MLflow's own rules."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwdpo.report.tracking.curves import of_points, thinned
from cwdpo.report.tracking.names import flat, valid_name, valid_value

TEXTS = st.one_of(st.text(max_size=400), st.text(alphabet="a./_ (", max_size=12))


@given(TEXTS)
@settings(max_examples=150, deadline=None)
def test_mlflow_takes_every_name(text: str) -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_param, _validate_tag

    name = valid_name(text)
    _validate_metric_name(name)
    _validate_tag(name, "")
    assert _validate_param(name, valid_value(text)).value == valid_value(text)


@given(st.lists(TEXTS, min_size=2, max_size=2, unique=True))
@settings(max_examples=100, deadline=None)
def test_different_texts_stay_different(texts: list[str]) -> None:
    first, second = texts
    assert valid_name(first) != valid_name(second)
    assert valid_value(first) != valid_value(second)


@pytest.mark.parametrize("name", ["captions/cider", "stage2/w_c_from_0.1", "generate coco share 1/4", "score pope.2"])
def test_names_that_are_valid_stay(name: str) -> None:
    assert valid_name(name) == name


def test_a_long_value_is_cut_and_says_so() -> None:
    """Servers before MLflow 2.8 take 500 characters."""
    assert valid_value("x" * 500) == "x" * 500
    assert len(valid_value("x" * 5000)) == 500
    assert "... (5,000 characters, sha256 " in valid_value("x" * 5000)


def test_settings_become_dotted_keys() -> None:
    nested = {"a": {"b": 1, "none": None}, "c": [{"d": True}, {"d": "x"}], "e": [1, 2]}
    assert dict(flat(nested)) == {"a.b": 1, "c.0.d": True, "c.1.d": "x", "e": [1, 2]}


def test_only_finite_numbers_become_metrics() -> None:
    point: dict[str, Any] = {
        "time": 1.5, "event": "step", "step": 7, "total": 9,
        "loss": 0.25, "lost": None, "nan": math.nan, "inf": math.inf, "text": "x", "flag": True,
    }  # fmt: skip
    assert [tuple(one) for one in of_points("stage1", [point])] == [("stage1/loss", 0.25, 7, 1500)]


@pytest.mark.parametrize(("count", "kept"), [(0, 0), (1, 1), (2000, 2000), (2001, 2000), (7001, 2000)])
def test_long_curves_are_thinned_and_keep_both_ends(count: int, kept: int) -> None:
    points = [{"step": step} for step in range(count)]
    found = [point["step"] for point in thinned(points)]
    assert len(found) == len(set(found)) == kept
    assert found == sorted(found)
    assert found[:1] == [0][:count]
    assert found[-1:] == [count - 1][:count]
