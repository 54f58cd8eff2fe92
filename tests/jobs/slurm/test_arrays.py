"""Which stages share a job, how jobs become arrays, and what each array waits for."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from commands import plan_of

from cwdpo.jobs.clusters import Kind
from cwdpo.jobs.slurm.arrays import Array, columns, limited, pack
from cwdpo.jobs.slurm.batch import index_list
from cwdpo.jobs.slurm.elements import Element, Place, elements
from cwdpo.jobs.slurm.submission import labels


def element(*parents: Element | Place, kind: Kind = "train") -> Element:
    return Element(kind, (), "", tuple(parents))


def packed(found: Sequence[Element], max_array: int = 1001) -> list[Array]:
    numbers = itertools.count()
    return pack(found, lambda kind: f"{kind}{next(numbers)}", max_array)


def dependencies(arrays: Sequence[Array]) -> list[str | None]:
    ids = {array.name: array.name for array in arrays} | {"old": "old"}
    return [array.dependency(ids) for array in arrays]


def test_seeds_of_one_method_pair_up() -> None:
    """Five trainings, five evaluations: two arrays, element by element."""
    trainings = [element() for _ in range(5)]
    scores = [element(training, kind="score") for training in trainings]
    arrays = packed([*trainings, *scores])
    assert [len(array.elements) for array in arrays] == [5, 5]
    assert dependencies(arrays) == [None, "aftercorr:train0"]
    assert [arrays[1].elements[i] for i in range(5)] == scores


def test_one_parent_many_children() -> None:
    """Three methods on one Stage 1: they start when that one element ends, not when its whole array does."""
    first, other = element(), element()
    arrays = packed([first, other, *(element(first) for _ in range(3))])
    assert dependencies(arrays) == [None, "afterok:train0_0"]


def test_methods_by_seeds_are_packed_the_shorter_way() -> None:
    """Two methods on each of five parents are two columns; five methods on each of two parents are two rows."""
    five = [element() for _ in range(5)]
    arrays = packed([*five, *(element(parent) for parent in five for _ in range(2))])
    assert dependencies(arrays) == [None, "aftercorr:train0", "aftercorr:train0"]
    two = [element() for _ in range(2)]
    arrays = packed([*two, *(element(parent) for parent in two for _ in range(5))])
    assert sorted(map(str, dependencies(arrays))) == ["None", "afterok:train0_0", "afterok:train0_1"]


def test_a_missing_sibling_keeps_the_index_of_its_parent() -> None:
    parents = [element() for _ in range(4)]
    arrays = packed([*parents, element(parents[1], kind="score"), element(parents[3], kind="score")])
    assert list(arrays[1].elements) == [1, 3]
    assert index_list(list(arrays[1].elements)) == "1,3"


def test_a_shared_parent_beside_the_own_one() -> None:
    """Stage 2 needs its Stage 1 and negatives that all share."""
    negatives = element(kind="prepare")
    first = [element() for _ in range(3)]
    arrays = packed([negatives, *first, *(element(parent, negatives) for parent in first)])
    assert dependencies(arrays)[-1] == "aftercorr:train1,afterok:prepare0_0"


def test_parents_in_the_queue_already() -> None:
    arrays = packed([element(("old", 3)), element(("old", 5))])
    assert dependencies(arrays) == ["aftercorr:old"]
    assert list(arrays[0].elements) == [3, 5]
    (alone,) = packed([element(("old", 3))])
    assert alone.dependency({"old": "17"}) == "afterok:17_3", "aftercorr finds no counterpart for an array of one"


def test_arrays_are_split_at_the_limit_of_the_site() -> None:
    parents = [element() for _ in range(10)]
    arrays = packed([*parents, *(element(parent, kind="score") for parent in parents)], max_array=4)
    assert [len(array.elements) for array in arrays] == [4, 4, 2, 4, 4, 2]
    assert all(max(array.elements) < 4 for array in arrays)
    assert dependencies(arrays)[3:] == ["aftercorr:train0", "aftercorr:train1", "aftercorr:train2"]


def test_every_element_waits_for_exactly_its_parents() -> None:
    """Random graphs: whatever the packing, each element waits for its own parents and for nothing else."""
    rng = random.Random(0)
    for _ in range(200):
        found: list[Element] = []
        for _ in range(rng.randrange(1, 30)):
            parents = rng.sample(found, min(len(found), rng.choice([0, 1, 1, 2, 3])))
            found.append(element(*parents, kind=rng.choice(["train", "generate"])))
        arrays = packed(found, max_array=rng.choice([2, 5, 1001]))
        places = {id(member): (array.name, i) for array in arrays for i, member in array.elements.items()}
        assert len(places) == len(found), "each once"
        order = [array.name for array in arrays]
        for array in arrays:
            for index, member in array.elements.items():
                expected = sorted(places[id(parent)] for parent in member.parents if isinstance(parent, Element))
                assert sorted(array.parents(index)) == expected
                assert all(order.index(name) < order.index(array.name) for name, _ in expected)


@pytest.mark.parametrize("counts", [[1], [1, 1, 1], [2, 2], [5, 5], [1, 1, 1, 9], [3, 3, 3], [1, 2, 3, 4, 5, 6]])
def test_no_packing_needs_fewer_arrays(counts: list[int]) -> None:
    """Against every way of giving each child either its parent's row or one of the columns."""
    best = columns(counts)
    found = sum(count > best for count in counts) + best
    for rows in itertools.chain.from_iterable(
        itertools.combinations(range(len(counts)), n) for n in range(len(counts) + 1)
    ):
        rest = [count for index, count in enumerate(counts) if index not in rows]
        assert len(rows) + max(rest, default=0) >= found


def test_a_wave_holds_no_element_without_its_parent() -> None:
    parents = [element() for _ in range(6)]
    arrays = packed([*parents, *(element(parent, kind="score") for parent in parents)])
    cut = limited(arrays, 8)
    assert [len(array.elements) for array in cut] == [6, 2]
    cut = limited(arrays, 4)
    assert [len(array.elements) for array in cut] == [4], "no child of a parent that had no room"
    assert limited(arrays, 0) == []
    assert limited(arrays, None) == arrays


def test_what_the_queue_waits_for_is_not_waited_for_twice(tmp_path: Path) -> None:
    """Preparation and pretraining are queued, pretraining after preparation: trainings wait for pretraining alone."""
    plan = plan_of(tmp_path)
    early = {node.id: ("old", 1 if node.stage.name == "pretrain" else 0) for node in plan.nodes
             if node.stage.name in ("world", "pairs", "negatives", "pretrain")}  # fmt: skip
    todo = [node for node in plan.nodes if node.stage.name == "stage1"]
    before = {("old", 1): {("old", 0)}, ("old", 0): set()}
    found = elements(todo, (), early, {}, lambda places: set().union(*(before[place] for place in places)))
    assert {member.parents for member in found} == {(("old", 1),)}


def test_the_micro_grid(tmp_path: Path) -> None:
    """Preparation is one job; every training, and the generations and scores of every policy, are their own."""
    plan = plan_of(tmp_path)
    found = elements(plan.nodes, ("prepare", "generate", "score"), {}, labels(plan))
    kinds = [[node.stage.name for node in member.nodes] for member in found]
    assert sum("world" in names for names in kinds) == 1
    assert all(set(names) <= {"world", "pairs", "negatives"} for names in kinds if "world" in names)
    assert all(len(names) == 1 for names in kinds if names[0] in ("stage1", "stage2", "reference", "pretrain"))
    arrays = packed(found)
    assert sum(len(array.elements) for array in arrays) == len(found)
    assert len(arrays) <= 11
    alone = elements(plan.nodes, (), {}, labels(plan))
    assert len(alone) == len(plan.nodes)
