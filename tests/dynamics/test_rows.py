"""The files of probes: what is read is what was written, in single precision; damage is named, and no file is half."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwdpo.base.errors import StoreError
from cwdpo.dynamics import rows as module
from cwdpo.dynamics.probing import cooling_weight, probes_in_memory, response_rows, token_rows
from cwdpo.dynamics.rows import (
    ABOUT,
    KINDS,
    RESPONSES,
    TOKENS,
    read_probes,
    response_schema,
    token_schema,
    write_probes,
)
from cwdpo.dynamics.settings import Cooling

ABOUT_ROUND: Mapping[str, Any] = {"stage": "stage2", "beta": 0.1, "total": 40, "seconds": 2.5}


def response(step: int, name: str = "a", kind: str = "hard", **values: Any) -> dict[str, Any]:
    plain = {"tokens": 3, "logp": -1.5, "delta_logp": 0.25, "residual": 0.5, "w_c": 0.125}
    return {"step": step, "id": name, "kind": kind, **plain, **values}


def token(step: int, name: str = "a", position: int = 0, **values: Any) -> dict[str, Any]:
    plain = {"token": 7, "logp": -0.5, "entropy": 1.5, "tv": 0.25, "js": 0.125}
    top = {"top_tokens": [7, 3], "top_probs": [0.5, 0.25]}
    return {"step": step, "id": name, "position": position, **plain, **top, **values}


def about(*steps: int, **more: Any) -> dict[str, Any]:
    return {**ABOUT_ROUND, "steps": list(steps), **more}


def written(
    folder: Path, responses: Sequence[Mapping[str, Any]], tokens: Sequence[Mapping[str, Any]], *steps: int
) -> Path:
    write_probes(folder, responses, tokens, about(*steps))
    return folder


def plain(table: Any) -> list[dict[str, Any]]:
    """Rows of a table, a missing number as None."""
    columns = {name: table[name].tolist() for name in table.columns}
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, map(_plain, row), strict=True)) for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if isinstance(value, float) and np.isnan(value) else value


# ---------------------------------------------------------------------------------------------------------------------
# There and back


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    """Numbers that single precision holds exactly, a null weight, any text as an id."""
    responses = [response(0, "ä/1 #0"), response(0, "b", "chosen", w_c=None, logp=-(2.0**20))]
    tokens = [token(0, "ä/1 #0"), token(0, "b", 1, top_tokens=[], top_probs=[]), token(10, "b")]
    found = read_probes([written(tmp_path, responses, tokens, 0, 10)])
    assert plain(found.responses) == responses
    assert plain(found.tokens) == tokens
    assert found.about == about(0, 10)


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    """Names like `key=value` mean columns to some who read Parquet."""
    folder = written(tmp_path / "seed=3" / "step=9", [response(0)], [token(0)], 0)
    found = read_probes([folder])
    assert plain(found.responses) == [response(0)]
    assert plain(found.tokens) == [token(0)]


FLOAT32 = st.floats(width=32, allow_nan=False)
RESPONSE = st.builds(
    response,
    step=st.integers(0, 2**31 - 1),
    name=st.text(st.characters(exclude_categories=["Cs"])),
    kind=st.sampled_from(KINDS),
    tokens=st.integers(1, 2**31 - 1),
    **{name: FLOAT32 for name in ("logp", "delta_logp", "residual")},
    w_c=st.none() | st.floats(0, 1, width=32),
)


@settings(derandomize=True, database=None, deadline=None, max_examples=30)
@given(responses=st.lists(RESPONSE, max_size=8, unique_by=lambda row: (row["step"], row["id"], row["kind"])))
def test_any_numbers_of_single_precision_come_back(
    responses: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = written(tmp_path_factory.mktemp("probe"), responses, [], 0)
    assert plain(read_probes([folder]).responses) == sorted(responses, key=lambda row: row["step"])


def test_numbers_are_rounded_to_single_precision_and_steps_are_whole(tmp_path: Path) -> None:
    third = 1 / 3
    rows = [response(0, logp=-third, w_c=third)]
    found = read_probes([written(tmp_path, rows, [token(0, top_probs=[third, 0.1])], 0)])
    assert float(found.responses.logp[0]) == float(np.float32(-third)) != -third
    assert float(found.responses.w_c[0]) == float(np.float32(third))
    assert found.tokens.top_probs[0].dtype == np.float32
    assert found.tokens.top_tokens[0].dtype == np.int32
    single = {"logp", "delta_logp", "residual", "w_c", "entropy", "tv", "js"}
    for table in (found.responses, found.tokens):
        assert {name for name in table.columns if table[name].dtype == np.float32} == single & set(table.columns)
        assert {name for name in table.columns if table[name].dtype == np.int32} == {
            "step", "tokens", "position", "token",
        } & set(table.columns)  # fmt: skip


def test_the_files_have_the_columns_that_are_documented(tmp_path: Path) -> None:
    written(tmp_path, [response(0)], [token(0)], 0)
    for name, schema in ((RESPONSES, response_schema()), (TOKENS, token_schema())):
        assert pq.read_schema(tmp_path / name).equals(schema)


def test_no_rows_are_files_with_all_columns(tmp_path: Path) -> None:
    found = read_probes([written(tmp_path, [], [])])
    assert (len(found.responses), len(found.tokens)) == (0, 0)
    assert list(found.responses.columns) == response_schema().names
    assert list(found.tokens.columns) == token_schema().names


@pytest.mark.parametrize("count", [1, 3, 4, 10])
def test_rows_are_written_a_group_at_a_time(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more of them are drawn at once: a long training's rows do not lie in memory together."""
    monkeypatch.setattr(module, "GROUP_ROWS", 3)
    rows = [response(step) for step in range(count)]
    written(tmp_path, rows, [token(0)], *range(count))
    file = pq.ParquetFile(tmp_path / RESPONSES)
    groups = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
    assert groups == [3] * (count // 3) + [count % 3] * (count % 3 > 0)
    assert plain(read_probes([tmp_path]).responses) == rows


# ---------------------------------------------------------------------------------------------------------------------
# Rounds


def test_rounds_are_one_course_without_double_rows(tmp_path: Path) -> None:
    """Each round has read the start again: what the first one read of it counts."""
    rounds = [
        written(tmp_path / "0", [response(0), response(10)], [token(0), token(10)], 0, 10),
        written(tmp_path / "1", [response(0, logp=-9.0), response(20)], [token(0, logp=-9.0), token(20)], 0, 20),
        written(tmp_path / "2", [response(20), response(30)], [token(20), token(30), token(30, position=1)], 20, 30),
    ]
    found = read_probes(rounds)
    assert plain(found.responses) == [response(step) for step in (0, 10, 20, 30)]
    assert plain(found.tokens) == [*(token(step) for step in (0, 10, 20, 30)), token(30, position=1)]
    assert found.about == about(0, 10, 20, 30, seconds=7.5)
    assert list(found.responses.index) == list(range(4))


def test_rows_come_by_step_and_otherwise_as_they_were_written(tmp_path: Path) -> None:
    rows = [response(10, "b"), response(10, "a"), response(0, "b"), response(0, "a")]
    found = read_probes([written(tmp_path, rows, [token(0)], 0, 10)])
    assert plain(found.responses) == [*rows[2:], *rows[:2]]


def test_a_round_without_rows_adds_nothing(tmp_path: Path) -> None:
    first, second = written(tmp_path / "0", [response(0)], [token(0)], 0), written(tmp_path / "1", [], [])
    found = read_probes([first, second])
    assert plain(found.responses) == [response(0)]
    assert plain(found.tokens) == [token(0)]


# ---------------------------------------------------------------------------------------------------------------------
# Damage


@pytest.mark.parametrize("name", [RESPONSES, TOKENS, ABOUT])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    written(tmp_path, [response(0)], [token(0)], 0)
    (tmp_path / name).unlink()
    with pytest.raises(StoreError, match=name):
        read_probes([tmp_path])


@pytest.mark.parametrize("name", [RESPONSES, TOKENS, ABOUT])
def test_a_file_that_is_cut_is_named_wherever_it_ends(tmp_path: Path, name: str) -> None:
    written(tmp_path, [response(0)], [token(0)], 0)
    whole = (tmp_path / name).read_bytes()
    for end in range(0, len(whole) - 1, 41):  # the last byte of a JSON file is a line break
        (tmp_path / name).write_bytes(whole[:end])
        with pytest.raises(StoreError, match=name):
            read_probes([tmp_path])


@pytest.mark.parametrize("name", [RESPONSES, TOKENS])
def test_a_damaged_byte_changes_no_number(tmp_path: Path, name: str) -> None:
    """Wherever it lies among the rows: the file is refused by name, or the byte tells nothing of them."""
    written(tmp_path, [response(step) for step in range(20)], [token(step) for step in range(20)], 0)
    path = tmp_path / name
    rows, whole = rows_or_refusal(tmp_path), path.read_bytes()
    end = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")  # where the description of the columns begins
    found = []
    for place in range(4, end, 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        found.append(rows_or_refusal(tmp_path))
    refusals = [one for one in found if one != rows]
    assert all(one.startswith(f"refused: {path}") for one in refusals)
    assert len(refusals) > len(found) / 2


def rows_or_refusal(folder: Path) -> str:
    """All rows as text, else why they cannot be read."""
    try:
        found = read_probes([folder])
    except StoreError as error:
        return f"refused: {error}"
    return str([*plain(found.responses), *plain(found.tokens)])


class Broken(Exception):
    """What a reader of rows may stumble over."""


def breaking(rows: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    yield from rows
    raise Broken


@pytest.mark.parametrize("rows", [0, 2, 5])
def test_rows_that_cannot_be_made_leave_no_file(tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a whole one nor a part, also where groups were written before; what was written before stays."""
    monkeypatch.setattr(module, "GROUP_ROWS", 2)
    with pytest.raises(Broken):
        write_probes(tmp_path / "a", breaking([response(0)] * rows), [token(0)], about(0))
    assert list((tmp_path / "a").iterdir()) == []
    with pytest.raises(Broken):
        write_probes(tmp_path / "b", [response(0)], breaking([token(0)] * rows), about(0))
    assert [path.name for path in (tmp_path / "b").iterdir()] == [RESPONSES]


def test_what_was_there_stays_where_new_rows_cannot_be_made(tmp_path: Path) -> None:
    written(tmp_path, [response(0)], [token(0)], 0)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(Broken):
        write_probes(tmp_path, breaking([response(5)]), [], about(5))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_row_of_another_kind_is_no_file(tmp_path: Path) -> None:
    with pytest.raises((pa.ArrowException, TypeError, ValueError)):
        write_probes(tmp_path, [response(0, logp="much")], [], about(0))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_told_of_the_probes_is_written_last(tmp_path: Path) -> None:
    """Whoever finds probe.json finds the rows."""
    with pytest.raises(ValueError, match="JSON"):
        write_probes(tmp_path, [response(0)], [token(0)], about(0, beta=float("nan")))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([RESPONSES, TOKENS])


# ---------------------------------------------------------------------------------------------------------------------
# Rows of what a probe finds

COOLING = Cooling(l_floor=-3.0, tau=0.5)
START = [
    {
        "id": "a",
        "responses": {"chosen": [2, -3.0, 0.5], "easy": [4, -16.0, 0.25], "other": [1, -7.0, 0.0]},
        "tokens": {
            "token": [5, 2], "logp": [-1.0, -2.0], "entropy": [0.5, 0.25], "tv": [0.0, 0.0], "js": [0.0, 0.0],
            "top_tokens": [[5, 1], [1, 2]], "top_probs": [[0.5, 0.25], [0.75, 0.125]],
        },
    },
]  # fmt: skip
LATER = json.loads(json.dumps(START).replace("-16.0", "-12.0").replace("-3.0", "-2.0"))


def test_rows_of_responses_by_hand() -> None:
    found = list(response_rows({0: START, 5: LATER}, START, COOLING))
    weight = 1 / (1 + np.exp(2.0))  # (-4 + 3) / 0.5
    assert [list(row.values()) for row in found] == [
        [0, "a", "chosen", 2, -3.0, 0.0, 0.5, None],
        [0, "a", "easy", 4, -16.0, 0.0, 0.25, pytest.approx(weight)],
        [0, "a", "other", 1, -7.0, 0.0, 0.0, None],
        [5, "a", "chosen", 2, -2.0, 1.0, 0.5, None],
        [5, "a", "easy", 4, -12.0, 4.0, 0.25, pytest.approx(0.5)],
        [5, "a", "other", 1, -7.0, 0.0, 0.0, None],
    ]
    assert list(found[0]) == response_schema().names


def test_rows_of_tokens_by_hand() -> None:
    found = list(token_rows({0: START, 5: LATER}))
    assert [list(row.values()) for row in found[:2]] == [
        [0, "a", 0, 5, -1.0, 0.5, 0.0, 0.0, [5, 1], [0.5, 0.25]],
        [0, "a", 1, 2, -2.0, 0.25, 0.0, 0.0, [1, 2], [0.75, 0.125]],
    ]
    assert [row["step"] for row in found] == [0, 0, 5, 5]
    assert list(found[0]) == token_schema().names


@settings(derandomize=True, database=None, deadline=None)
@given(mean=st.floats(-1e4, 0), l_floor=st.floats(-10, 0), tau=st.floats(1e-3, 10))
def test_the_cooling_weight_is_equation_6(mean: float, l_floor: float, tau: float) -> None:
    from scipy.special import expit

    weight = cooling_weight(mean, Cooling(l_floor=l_floor, tau=tau))
    assert weight == pytest.approx(expit((mean - l_floor) / tau), abs=1e-12)


def test_rows_in_memory_are_those_of_the_files(tmp_path: Path) -> None:
    points = {0: START, 5: LATER}
    memory = probes_in_memory(points, about(0, 5), COOLING)
    write_probes(tmp_path, response_rows(points, START, COOLING), token_rows(points), about(0, 5))
    files = read_probes([tmp_path])
    assert plain(memory.tokens) == plain(files.tokens)
    assert plain(memory.responses) == [
        {**row, "w_c": row["w_c"] and pytest.approx(row["w_c"])} for row in plain(files.responses)
    ]
    assert memory.about == files.about
