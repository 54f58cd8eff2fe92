"""A job that asks one policy several benchmarks loads it once, and holds never two."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cwdpo.base.context import StageContext
from cwdpo.base.runtime import Execution, Rank
from cwdpo.model import inference
from cwdpo.model.config import Policy

POLICY = Policy(dtype="float32")


class Loaded:
    """In place of a replica: what is tested is when one is made, not what it holds."""

    alive: weakref.WeakSet[Loaded] = weakref.WeakSet()

    def __init__(self, context: StageContext, policy: Policy) -> None:
        assert not self.alive, "the one before must be gone before another one takes its memory"
        self.alive.add(self)


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    inference.release()
    monkeypatch.setattr(inference, "Replica", Loaded)
    yield
    inference.release()


def context(**inputs: Path) -> StageContext:
    nothing: Any = lambda *_, **__: None  # noqa: E731
    here = Path(".")
    return StageContext(None, {"model": Path("m"), **inputs}, here, here, here, Rank(), Execution(), nothing, nothing)


def test_the_same_policy_is_loaded_once() -> None:
    first = inference.replica_of(context(questions=Path("a")), POLICY)
    assert inference.replica_of(context(questions=Path("b")), POLICY) is first


@pytest.mark.parametrize(
    ("other", "policy"),
    [
        (context(model=Path("n")), POLICY),
        (context(adapter=Path("a")), POLICY),
        (context(), Policy(dtype="bfloat16")),
        (replace(context(), execution=Execution(inference="zero3")), POLICY),
        (replace(context(), rank=Rank(1, 1, 2)), POLICY),
    ],
    ids=["model", "adapter", "precision", "inference", "rank"],
)
def test_another_one_takes_its_place(other: StageContext, policy: Policy) -> None:
    first = id(inference.replica_of(context(), POLICY))
    second = inference.replica_of(other, policy)
    assert len(Loaded.alive) == 1
    assert inference.replica_of(other, policy) is second
    del second
    assert inference.replica_of(context(), POLICY) is not first


def test_a_stage_of_another_kind_has_the_memory_to_itself() -> None:
    inference.replica_of(context(), POLICY)
    inference.release()
    assert not Loaded.alive
