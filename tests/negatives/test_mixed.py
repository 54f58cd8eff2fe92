"""Stated fractions from several sources: exact, drawn record by record, never from a source that has nothing."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwdpo.base.config import validate
from cwdpo.base.context import StageContext
from cwdpo.base.errors import ConfigError, DataError
from cwdpo.base.files import read_json, read_jsonl, write_jsonl
from cwdpo.base.runtime import Execution, Rank
from cwdpo.data.records import Record, Rejected, write_records
from cwdpo.negatives import stage
from cwdpo.negatives.answers import question_id
from cwdpo.negatives.mixed import TAKEN, Mixed, quotas, serve
from cwdpo.negatives.overview import perturbs_in
from cwdpo.negatives.rule import Perturb
from cwdpo.negatives.stage import NegativesSpec

ALL = frozenset("abc")
KINDS = [frozenset(names) for size in range(4) for names in combinations("abc", size)]
SHARES = st.lists(st.integers(0, 10), min_size=3, max_size=3).filter(any)


def shares_of(weights: Sequence[int]) -> dict[str, float]:
    """Shares of a, b and c."""
    return {name: weight / sum(weights) for name, weight in zip("abc", weights, strict=True)}


def mixed(of: Mapping[str, Any], **more: Any) -> Mixed:
    return validate(Mixed, {"source": "mixed", "of": of, **more}, "x")


# ---- quotas


def test_the_largest_remainders_get_what_whole_numbers_leave() -> None:
    """Of 10: 4.45, 3.35 and 2.2 give 4, 3 and 2; one is left, and 0.45 is the largest remainder."""
    assert quotas(10, {"a": 0.445, "b": 0.335, "c": 0.22}) == {"a": 5, "b": 3, "c": 2}
    assert quotas(10, {"a": 0.8, "b": 0.2}) == {"a": 8, "b": 2}
    assert quotas(3, {"a": 0.5, "b": 0.5}) == {"a": 2, "b": 1}
    assert quotas(0, {"a": 0.5, "b": 0.5}) == {"a": 0, "b": 0}


def test_a_share_that_binary_numbers_miss_is_exact_all_the_same() -> None:
    """0.29 * 100 is 28.999999999999996 in floating point."""
    assert quotas(100, {"a": 0.29, "b": 0.71}) == {"a": 29, "b": 71}


@given(st.integers(0, 100_000), SHARES)
def test_quotas_add_up_and_are_within_one(count: int, weights: list[int]) -> None:
    shares = shares_of(weights)
    found = quotas(count, shares)
    assert sum(found.values()) == count
    assert all(abs(found[name] - count * share) < 1 for name, share in shares.items())


# ---- who serves which record


@st.composite
def crowds(draw: Any) -> tuple[list[frozenset[str]], dict[str, float]]:
    return draw(st.lists(st.sampled_from(KINDS), max_size=40)), shares_of(draw(SHARES))


@settings(max_examples=300)
@given(crowds(), st.integers(0, 3))
def test_fractions_are_as_near_as_can_be(crowd: tuple[list[frozenset[str]], dict[str, float]], seed: int) -> None:
    """Hall's theorem: too many by as much as there are records that only some sources can serve, above their quotas."""
    usable, shares = crowd
    served = serve([str(number) for number in range(len(usable))], usable, shares, seed)
    assert all((name is None) == (not names) for name, names in zip(served, usable, strict=True))
    assert all(name is None or name in names for name, names in zip(served, usable, strict=True))
    counts, wished = Counter(served), quotas(sum(map(bool, usable)), shares)
    bound = max(
        sum(bool(names) and names <= some for names in usable) - sum(wished[name] for name in some) for some in KINDS
    )
    assert sum(max(0, counts[name] - wished[name]) for name in shares) == max(0, bound)


def test_sources_hand_over_records_that_others_can_serve_too() -> None:
    """a serves 2, b 1, c 1. Taken as they come, {a, b} would go to a, and the last {a, c} find a and c full."""
    usable = [frozenset("ab"), frozenset("ac"), frozenset("ac"), frozenset("ac")]
    served = serve(list("1234"), usable, {"a": 0.5, "b": 0.25, "c": 0.25}, 0)
    assert served[0] == "b"
    assert Counter(served) == {"a": 2, "b": 1, "c": 1}


def test_what_one_source_cannot_serve_the_others_make_up_for() -> None:
    """Of 100 records 30 have nothing from a, whose quota is 80: 70 is the most it can have."""
    usable = [frozenset("b")] * 30 + [frozenset("ab")] * 70
    served = serve([str(number) for number in range(100)], usable, {"a": 0.8, "b": 0.2}, 0)
    assert Counter(served) == {"a": 70, "b": 30}


def assigned(count: int, share: float = 0.5, seed: int = 0, skip: int = -1) -> dict[str, str | None]:
    """Who serves records that both sources could serve, by id."""
    ids = [f"{number}#0" for number in range(count) if number != skip]
    shares = {"a": share, "b": 1 - share}
    return dict(zip(ids, serve(ids, [frozenset("ab")] * len(ids), shares, seed), strict=True))


def test_the_draw_follows_the_seed_and_spreads_over_the_records() -> None:
    one, again, other = (list(assigned(1000, seed=seed).values()) for seed in (1, 1, 2))
    assert one == again != other
    assert 200 < one[:500].count("a") < 300  # 250 expected, with a standard deviation of 8


@pytest.mark.parametrize("skip", [0, 500, 1000])
def test_a_record_more_gives_at_most_one_other_another_source(skip: int) -> None:
    before, after = assigned(1001, skip=skip), assigned(1001)
    assert sum(before[name] != after[name] for name in before) <= 1


def test_a_larger_share_adds_records_and_takes_none_away() -> None:
    """So that cells of a sweep over shares differ in what they mean to differ in."""
    sets = [{name for name, server in assigned(500, share).items() if server == "a"} for share in (0.2, 0.5, 0.8)]
    assert [len(names) for names in sets] == [100, 250, 400]
    assert sets[0] < sets[1] < sets[2]


# ---- the source


def record(number: int, chosen: str = "A red ball.", **more: Any) -> Record:
    content = {
        "id": f"{number}#0", "image_id": str(number), "image": f"{number}.jpg", "prompt": "?", "chosen": chosen,
        "references": (chosen,), "rejected": (Rejected(f"Given {number}.", "human"),), "split": "train",
        "portion": "stage2",
    }  # fmt: skip
    return Record(**{**content, **more})


def answered(folder: Path, texts: Mapping[int, Sequence[str]]) -> Path:
    """What a stage `answers` would have written: number of the record -> texts."""
    folder.mkdir(parents=True)
    rows = [
        {
            "id": question_id(f"{number}.jpg", "?"),
            "answers": [{"text": text, "truncated": False, "mean_logp": -1.0} for text in own],
        }
        for number, own in texts.items()
    ]
    write_jsonl(folder / "answers.jsonl", rows)
    return folder


POLICY = {"share": 0.8, "negatives": {"source": "own_answer"}}
DATA = {"negatives": {"source": "dataset"}}


def sources_of(source: Mixed, records: Sequence[Record], made: Mapping[str, Path]) -> Iterator[str | None]:
    return ((offer.rejected[0].source if offer.rejected else None) for offer in source.offers(records, made))


def test_each_record_is_served_by_one_source(tmp_path: Path) -> None:
    """Record 0's own answer is right, record 1's is empty, record 2 has no negative in the data."""
    records = [record(number) for number in range(10)]
    records[2] = record(2, rejected=(Rejected("A RED BALL.", "human"),), references=("A red ball.", "A RED BALL."))
    texts = {number: ["A cat."] for number in range(10)} | {0: ["a red ball"], 1: [""]}
    made = {"policy.answers": answered(tmp_path / "answers", texts)}
    found = list(sources_of(mixed({"policy": POLICY, "data": DATA}), records, made))
    assert found[:3] == ["human", "human", "own_answer"]
    assert Counter(found) == {"own_answer": 8, "human": 2}


def test_a_record_for_which_no_source_has_anything_gets_nothing(tmp_path: Path) -> None:
    records = [record(0, rejected=(Rejected("A red ball.", "human"),)), record(1)]
    made = {"policy.answers": answered(tmp_path / "answers", {0: ["A red ball"], 1: ["A cat."]})}
    assert list(sources_of(mixed({"policy": POLICY, "data": DATA}), records, made)) == [None, "own_answer"]


def test_a_source_without_a_share_needs_nothing_and_serves_nothing() -> None:
    source = mixed({"policy": {**POLICY, "share": 0}, "data": DATA})
    assert source.parts() == {}
    assert set(sources_of(source, [record(number) for number in range(9)], {})) == {"human"}


def test_parts_of_two_sources_of_one_kind_are_told_apart(tmp_path: Path) -> None:
    own = {"source": "own_answer"}
    source = mixed({"long": {"share": 0.5, "negatives": {**own, "max_new_tokens": 99}}, "short": {"negatives": own}})
    parts: Any = source.parts()
    assert {role: part.decoding.max_new_tokens for role, part in parts.items()} == {
        "long.answers": 99,
        "short.answers": 64,
    }
    made = {
        "long.answers": answered(tmp_path / "long", {n: ["Long."] for n in range(4)}),
        "short.answers": answered(tmp_path / "short", {n: ["Short."] for n in range(4)}),
    }
    offers = list(source.offers([record(number) for number in range(4)], made))
    assert Counter(offer.rejected[0].text for offer in offers) == {"Long.": 2, "Short.": 2}


def test_the_winner_of_a_source_stays_the_winner(tmp_path: Path) -> None:
    source = mixed({"seva": {"negatives": {"source": "augmented_image"}}})
    made = {
        "seva.clean": answered(tmp_path / "clean", {0: ["A dog."]}),
        "seva.noised": answered(tmp_path / "noised", {0: ["A fog."]}),
    }
    (offer,) = source.offers([record(0)], made)
    assert (offer.chosen, [item.text for item in offer.rejected]) == ("A dog.", ["A fog."])


def test_the_order_in_the_file_is_no_setting(tmp_path: Path) -> None:
    """It is not in the identity, so it must not be in the result."""
    records = [record(number) for number in range(21)]
    made = {"policy.answers": answered(tmp_path / "answers", {number: ["A cat."] for number in range(21)})}
    half = {**POLICY, "share": 0.5}
    one, other = mixed({"policy": half, "data": DATA}), mixed({"data": DATA, "policy": half})
    assert one == other
    assert hash(one) == hash(other)
    assert list(sources_of(one, records, made)) == list(sources_of(other, records, made))


# ---- the stage


def run(folder: Path, records: Sequence[Record], of: Mapping[str, Any], **more: Any) -> tuple[list[Any], Any]:
    """Rows and summary, as the stage writes them."""
    out = folder / "out"
    out.mkdir(parents=True)
    write_records(folder / "records.jsonl", records)
    spec = validate(NegativesSpec, {"negatives": {"source": "mixed", "of": of}, "portion": "stage2", **more}, "x")
    nothing = lambda *_, **__: None  # noqa: E731
    stage.run(StageContext(spec, {"pairs": folder}, out, out, out, Rank(), Execution(), nothing, nothing))
    return list(read_jsonl(out / "negatives.jsonl")), read_json(out / "summary.json")


BALL, CUP = "A red ball on a table.", "A green cup on a bed."
EDITS = {"negatives": {"source": "perturb", "of": "reference"}}


def test_a_source_serves_only_records_for_which_it_has_what_training_requires(tmp_path: Path) -> None:
    """Of 100 records 10 have a rejected response with a revised answer, whose quota is 50; edits all come with one."""
    revised = [Rejected("Given.", "human", revised="Right." if number < 10 else None) for number in range(100)]
    records = [record(n, BALL, references=(BALL, CUP), rejected=(item,)) for n, item in enumerate(revised)]
    rows, summary = run(tmp_path, records, {"data": {**DATA, "share": 0.5}, "edits": EDITS}, requires=["revised"])
    assert (summary["records"], summary["without"], summary["lacking"]) == (100, 0, 0)
    assert summary["served"] == {"data": 10, "edits": 90}
    assert all(item["revised"] for row in rows for item in row["rejected"])


def test_the_summary_says_how_many_records_each_served_and_each_response_by_which(tmp_path: Path) -> None:
    """The data has two rejected responses for each record; of four captions no edit is known."""
    given = tuple(Rejected(text, "human", how={"draw": 1}) for text in ("One.", "Two."))
    records = [record(number, BALL if number > 3 else "Lorem ipsum.", rejected=given) for number in range(8)]
    edits = {"negatives": {"source": "perturb"}}
    rows, summary = run(tmp_path, records, {"data": {**DATA, "share": 0.5}, "edits": edits})
    assert summary["served"] == {"data": 4, "edits": 4}
    assert rows[0]["rejected"][0]["how"] == {"draw": 1, "part": "data"}
    assert {item["how"]["part"] for row in rows[4:] for item in row["rejected"]} == {"edits"}


def test_why_no_source_has_anything_is_said(tmp_path: Path) -> None:
    """The data's is the truth, and lacks what is required where it is not."""
    records = [record(0, rejected=(Rejected("A red ball.", "human", revised="x"),)), record(1)]
    with pytest.raises(DataError, match="2 records: 1 times a response was the truth; 1 rejected responses were"):
        run(tmp_path, records, {"data": DATA}, requires=["revised"])


class Long(Sequence[Record]):
    """400 records, made when they are asked for, each with 100,000 characters that are wrong."""

    def __len__(self) -> int:
        return 400

    def __getitem__(self, number: Any) -> Any:
        if number >= len(self):
            raise IndexError
        return record(number, rejected=(Rejected("word " * 20_000, "human"),))


def test_no_source_is_held_in_memory() -> None:
    """All texts are 40 MB."""
    source = mixed({"one": {**DATA, "share": 0.5}, "other": DATA})
    tracemalloc.start()
    served = Counter(offer.rejected[0].how["part"] for offer in source.offers(Long(), {}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert served == {"one": 200, "other": 200}
    assert peak < 4e6


def test_names_of_sources_are_words_that_no_input_has() -> None:
    for name in (*TAKEN, "Data", "a.b", "share-1", "1st", "", "a\n"):
        with pytest.raises(ConfigError) as caught:
            mixed({name: DATA})
        assert str(caught.value) == (
            f"x: of: '{name}' cannot be the name of a source; valid: lower-case letters, digits and _, a letter first,"
            " but not adapter, images, model, negatives, pairs, share"
        )
    assert mixed({"own_2": DATA}).shares == {"own_2": 1.0}


def test_sources_by_rule_are_found_inside() -> None:
    edits = {"source": "perturb", "kinds": ["colour"]}
    source = mixed({"data": {**DATA, "share": 0.5}, "edits": {"negatives": edits}})
    assert list(perturbs_in(source)) == [Perturb(source="perturb", kinds=("colour",))]


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ({}, "of: names no source"),
        ({"a": DATA, "b": DATA}, "only one source may leave out its share; a, b do"),
        ({"a": {**DATA, "share": 0.5}}, "the shares are 0.5 together, not 1"),
        ({"a": {**DATA, "share": 0.7}, "b": {**DATA, "share": 0.7}, "c": DATA}, "the shares are 1.4 together, not 1"),
        ({"a": {**DATA, "share": 1.5}}, r"of\.a\.share: Input should be less than or equal to 1; found 1\.5"),
        ({"a": {"negatives": {"source": "mixed", "of": {"b": DATA}}}}, r"of\.a\.negatives.*'mixed'"),
    ],
)
def test_shares_that_are_no_whole_are_refused(of: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mixed(of)


def test_it_provides_what_all_of_its_sources_do() -> None:
    edits = {"negatives": {"source": "perturb", "of": "reference"}}
    revised = frozenset({"revised"})
    both = mixed({"data": {**DATA, "share": 0.5}, "edits": edits})
    assert both.provides(revised) == revised
    assert both.provides(frozenset()) == frozenset()
    assert mixed({"data": {**DATA, "share": 0}, "edits": edits}).provides(frozenset()) == revised


def test_a_share_is_part_of_the_identity() -> None:
    def canonical(share: float) -> Any:
        of = {"policy": {**POLICY, "share": share}, "data": DATA}
        spec = {"negatives": {"source": "mixed", "of": of}, "portion": "stage2"}
        return validate(NegativesSpec, spec, "x").canonical()

    assert canonical(0.2) != canonical(0.5)
    assert "share" not in canonical(0.2)["negatives"]["of"]["data"]
