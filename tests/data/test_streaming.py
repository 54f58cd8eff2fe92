"""A data set is read while it is used: what is held of it is a few numbers a record, and nothing else changes."""

from __future__ import annotations

import gc
import json
import os
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cwdpo.base import files, lines
from cwdpo.base.context import Blocks, StageContext
from cwdpo.base.errors import StoreError
from cwdpo.base.runtime import Execution, Rank
from cwdpo.data.records import open_records, read_records
from cwdpo.data.samples import DataOrder, Sample, load_samples
from cwdpo.train.reference import ReferenceLogps, load_reference

SMALL, LARGE = 500, 5_000  # records; those of 2,000 and 20,000 give the same ratios in four times the time


def record(number: int, portion: str = "stage2", text: str = "a red ball") -> dict[str, Any]:
    """Captions of an image do not lie together."""
    image, caption = str(number % 5), number // 5
    texts = [f"{text}, {number} {other}" for other in range(5)]
    return {
        "id": f"{image}#{caption}", "image_id": image, "image": f"{image}.jpg", "prompt": "?", "chosen": texts[0],
        "references": texts, "rejected": [], "split": "train", "portion": portion,
    }  # fmt: skip


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_set(folder: Path, records: Sequence[dict[str, Any]], rejected: Callable[[int], Sequence[str]]) -> None:
    """Records, and in another order the negatives and the reference of those that have rejected responses."""
    made = [(row["id"], rejected(number)) for number, row in enumerate(records)][::-1]
    write_rows(folder / "records.jsonl", records)
    write_rows(
        folder / "negatives.jsonl", [{"id": name, "rejected": [{"text": t} for t in texts]} for name, texts in made]
    )
    write_rows(
        folder / "reference.jsonl",
        [{"id": name, "chosen": -1.5, "rejected": [-2.5] * len(texts)} for name, texts in made if texts],
    )


def ids(samples: Sequence[Sample]) -> list[str]:
    return [sample.id for sample in samples]


# ---- memory


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders of a small and a large set of records of 1.3 kB."""
    folders = {size: tmp_path_factory.mktemp(f"set{size}") for size in (SMALL, LARGE)}
    for size, folder in folders.items():
        rows = [{**record(number, text="x" * 180), "image_id": str(number)} for number in range(size)]
        write_set(folder, rows, lambda _: ("a wrong text", "another one"))
    return folders


def peak(work: Callable[[Path], object], folder: Path) -> int:
    """Bytes that Python and numpy held at most while `work` ran, its result included."""
    gc.collect()
    tracemalloc.start()
    try:
        kept = work(folder)
        found = tracemalloc.get_traced_memory()[1]
        del kept
    finally:
        tracemalloc.stop()
    return found


def growth(work: Callable[[Path], object], sets: dict[int, Path]) -> float:
    """Memory that a larger file takes more, over the bytes it has more."""
    peaks = {size: peak(work, folder) for size, folder in sets.items()}
    sizes = {size: (folder / "records.jsonl").stat().st_size for size, folder in sets.items()}
    return (peaks[LARGE] - peaks[SMALL]) / (sizes[LARGE] - sizes[SMALL])


def an_epoch(folder: Path) -> object:
    """What a Stage 2 does with its data, images drawn included."""
    samples = load_samples(folder, folder, "stage2", paired=True)
    reference = load_reference(folder, samples)
    order = DataOrder(samples, 64, seed=0, one_per_image=True)
    for step in range(order.steps_per_epoch):
        assert all(len(reference[sample.id].terms["rejected"]) == 2 for sample in order.batch(step))
    return samples, reference, order


def test_memory_does_not_grow_with_the_records(sets: dict[int, Path]) -> None:
    an_epoch(sets[SMALL])  # what is imported on the way is not counted
    # About 90 bytes a record, of 1,300 in the file; a list of samples alone takes 700.
    assert growth(an_epoch, sets) < 0.15
    assert growth(lambda folder: list(load_samples(folder, folder, "stage2")), sets) > 0.4


def test_all_records_can_be_gone_through_in_little_memory(sets: dict[int, Path]) -> None:
    def count(folder: Path) -> object:
        return sum(1 for found in reversed(open_records(folder / "records.jsonl")) if found.split == "train")

    assert growth(count, sets) < 0.05
    assert growth(lambda folder: read_records(folder / "records.jsonl"), sets) > 0.4


def test_many_rows_are_written_in_little_memory(sets: dict[int, Path], tmp_path: Path) -> None:
    def copy(folder: Path) -> object:
        rows = files.read_jsonl(folder / "records.jsonl")
        return files.write_jsonl(tmp_path / f"{folder.name}.jsonl", rows)

    assert growth(copy, sets) < 0.01
    for folder in sets.values():
        assert list(files.read_jsonl(tmp_path / f"{folder.name}.jsonl")) == list(
            files.read_jsonl(folder / "records.jsonl")
        )


def test_rows_that_stop_with_an_error_leave_what_was_there(tmp_path: Path) -> None:
    def rows() -> Any:
        yield {"id": "2"}
        raise StoreError("stopped")

    write_rows(tmp_path / "rows.jsonl", [{"id": "1"}])
    with pytest.raises(StoreError, match=r"^stopped$"):
        files.write_jsonl(tmp_path / "rows.jsonl", rows())
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
    assert list(files.read_jsonl(tmp_path / "rows.jsonl")) == [{"id": "1"}]


def test_blocks_are_joined_without_reading_their_items(tmp_path: Path) -> None:
    class Unread(Sequence[Any]):
        def __len__(self) -> int:
            return 5

        def __getitem__(self, number: Any) -> Any:
            raise AssertionError("read")

    nothing = lambda *_, **__: None  # noqa: E731
    context = StageContext(None, {}, tmp_path, tmp_path, tmp_path, Rank(), Execution(), nothing, nothing)
    blocks = Blocks(context, Unread(), 2)
    assert [blocks.length(index) for index in range(blocks.count)] == [2, 2, 1]
    for index in range(3):
        blocks.write(index, [{"id": index}] * blocks.length(index))
    assert [row["id"] for row in blocks.rows()] == [0, 0, 1, 1, 2]


def test_settings_that_changed_on_the_way_are_all_told(tmp_path: Path) -> None:
    """An upgrade between two attempts, or another machine for a share, must not be hidden by who came first or last."""
    nothing = lambda *_, **__: None  # noqa: E731
    inputs = {}
    for number, torch in enumerate(("2.6", "2.9")):
        folder = inputs[f"share-{number}"] = tmp_path / f"share{number}"
        files.write_jsonl(folder / "blocks" / f"{number:06d}.jsonl", [{"id": number}])
        files.write_json(folder / "settings.json", {"dtype": "float32", "versions": {"torch": torch, "x": "1"}})
    out, partial = tmp_path / "out", tmp_path / "partial"
    context = StageContext(None, inputs, out, partial, partial, Rank(), Execution(), nothing, nothing)
    for _ in range(2):  # one that was interrupted takes the same over again
        blocks = Blocks(context, [0, 1, 2], 1)
    blocks.keep("settings.json", {"dtype": "float32", "versions": {"torch": "2.9", "x": "1"}, "more": 1})
    blocks.write(2, [{"id": 2}])
    blocks.publish("rows.jsonl", "settings.json")
    assert [row["id"] for row in files.read_jsonl(out / "rows.jsonl")] == [0, 1, 2]
    assert files.read_json(out / "settings.json") == {
        "dtype": "float32",
        "versions": {"torch": {"different": ["2.6", "2.9"]}, "x": "1"},
        "more": {"different": [None, 1]},
    }


def test_settings_under_which_nothing_was_made_are_not_told(tmp_path: Path) -> None:
    nothing = lambda *_, **__: None  # noqa: E731
    context = StageContext(None, {}, tmp_path / "out", tmp_path, tmp_path, Rank(), Execution(), nothing, nothing)
    blocks = Blocks(context, [0, 1], 1)
    for torch in ("2.6", "2.9"):
        blocks.keep("settings.json", {"torch": torch})
    assert files.read_json(tmp_path / "settings.json") == {"torch": "2.9"}
    blocks.write(0, [{"id": 0}])
    blocks.keep("settings.json", {"torch": "3.0"})
    assert files.read_json(tmp_path / "settings.json") == {"torch": {"different": ["2.9", "3.0"]}}


# ---- what is read


def test_samples_are_what_the_files_say(tmp_path: Path) -> None:
    """Lines longer than any buffer, letters of several bytes, and line ends of other systems within a text."""
    rows = [record(n, text="ü\u2028" * size) for n, size in enumerate([1, 341, 342, 30_000, 1])]
    write_set(tmp_path, rows, lambda number: [f"é{k}" for k in range(number % 3)])
    samples = load_samples(tmp_path, tmp_path, "stage2")
    expected = [
        Sample(row["id"], row["image_id"], row["image"], "?", row["chosen"], ("é0", "é1")[: number % 3])
        for number, row in enumerate(rows)
    ]
    assert list(samples) == samples[:] == expected
    assert samples[1:4] == expected[1:4]
    assert [samples[-1], samples[0]] == [expected[-1], expected[0]]
    with pytest.raises(IndexError):
        samples[5]
    assert list(open_records(tmp_path / "records.jsonl")) == read_records(tmp_path / "records.jsonl")


def test_portions_follow_one_another_each_in_the_order_of_the_file(tmp_path: Path) -> None:
    write_rows(tmp_path / "records.jsonl", [record(n, portion=f"stage{1 + n % 2}") for n in range(5)])
    samples = load_samples(tmp_path, None, "stage2", "stage1")
    assert ids(samples) == ["1#0", "3#0", "0#0", "2#0", "4#0"]
    assert {sample.rejected for sample in samples} == {()}


def test_samples_without_a_rejected_response_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [record(n, portion="stage1" if n == 4 else "stage2") for n in range(5)]
    write_set(tmp_path, rows, lambda number: ["x"] * number)
    write_rows(tmp_path / "negatives.jsonl", list(files.read_jsonl(tmp_path / "negatives.jsonl"))[:-2])  # none of 1#0
    samples = load_samples(tmp_path, tmp_path, "stage2", paired=True)
    assert [(sample.id, len(sample.rejected)) for sample in samples] == [("2#0", 2), ("3#0", 3)]
    assert samples.left_out == 2
    every = load_samples(tmp_path, tmp_path, "stage2")
    assert (ids(every), every.left_out) == (["0#0", "1#0", "2#0", "3#0"], 0)


def test_ids_that_share_a_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "short_hash", lambda text: 7)
    write_set(tmp_path, [record(n) for n in range(4)], lambda number: ["x"] * number)
    samples = load_samples(tmp_path, tmp_path, "stage2", paired=True)
    assert [(sample.id, len(sample.rejected)) for sample in samples] == [("1#0", 1), ("2#0", 2), ("3#0", 3)]
    reference = load_reference(tmp_path, samples)
    assert reference["2#0"] == ReferenceLogps({"chosen": (-1.5,), "rejected": (-2.5, -2.5)})
    with pytest.raises(KeyError):
        reference["0#0"]


def test_threads_share_one_file(tmp_path: Path) -> None:
    write_set(tmp_path, [record(n) for n in range(300)], lambda number: [f"x{number}"])
    samples = load_samples(tmp_path, tmp_path, "stage2")
    expected = list(samples)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(samples.__getitem__, [*range(300)] * 5)) == expected * 5


def test_a_set_that_is_replaced_is_read_to_the_end(tmp_path: Path) -> None:
    """An artefact found damaged is computed again while a training may still read it."""
    write_set(tmp_path, [record(n) for n in range(9)], lambda number: [f"x{number}"])
    samples = load_samples(tmp_path, tmp_path, "stage2")
    expected = list(samples)
    for name in ("records", "negatives"):
        files.write_text(tmp_path / f"{name}.jsonl", "damaged\n")
    assert list(samples) == expected


def test_files_are_closed_with_the_samples(tmp_path: Path) -> None:
    write_set(tmp_path, [record(n) for n in range(9)], lambda number: [f"x{number}"])
    before = len(os.listdir("/proc/self/fd"))
    samples = load_samples(tmp_path, tmp_path, "stage2")
    assert len(os.listdir("/proc/self/fd")) == before + 2
    del samples
    assert len(os.listdir("/proc/self/fd")) == before


# ---- what is refused


@pytest.mark.parametrize("name", ["records", "negatives", "reference"])
@pytest.mark.parametrize("damage", [b'{"id": "2#0", ', b'{"id": "\xff"}', b""])
def test_a_damaged_line_is_named_before_anything_is_trained(name: str, damage: bytes, tmp_path: Path) -> None:
    write_set(tmp_path, [record(n) for n in range(4)], lambda number: ["x"])
    path = tmp_path / f"{name}.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:2], damage, lines[3], b""]))
    with pytest.raises(StoreError, match=rf"{name}\.jsonl, line 3 is damaged"):
        load_reference(tmp_path, load_samples(tmp_path, tmp_path, "stage2"))


def test_a_file_that_was_cut_is_named_with_its_last_line(tmp_path: Path) -> None:
    write_set(tmp_path, [record(n) for n in range(4)], lambda number: ["x"])
    path = tmp_path / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(StoreError, match=r"records\.jsonl, line 4 is damaged"):
        load_samples(tmp_path, tmp_path, "stage2")


def test_a_file_that_is_cut_later_is_named_with_the_place(tmp_path: Path) -> None:
    write_set(tmp_path, [record(n) for n in range(4)], lambda number: ["x"])
    samples = load_samples(tmp_path, tmp_path, "stage2")
    start = sum(map(len, (tmp_path / "records.jsonl").read_bytes().splitlines(keepends=True)[:3]))
    os.truncate(tmp_path / "records.jsonl", start)
    with pytest.raises(StoreError, match=rf"records\.jsonl, byte {start} is damaged"):
        samples[3]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot read .*records\.jsonl: No such file"):
        load_samples(tmp_path, None, "stage1")


def test_a_sample_without_its_whole_reference_is_named(tmp_path: Path) -> None:
    write_set(tmp_path, [record(n) for n in range(4)], lambda number: ["x", "y"])
    samples = load_samples(tmp_path, tmp_path, "stage2")
    rows = list(files.read_jsonl(tmp_path / "reference.jsonl"))
    write_rows(tmp_path / "reference.jsonl", [row for row in rows if row["id"] != "2#0"])
    with pytest.raises(StoreError, match="no complete entry for sample '2#0'"):
        load_reference(tmp_path, samples)
    write_rows(
        tmp_path / "reference.jsonl", [{**row, "rejected": row["rejected"][: int(row["id"][0])]} for row in rows]
    )
    with pytest.raises(StoreError, match="no complete entry for sample '0#0'"):
        load_reference(tmp_path, samples)


# ---- the order


@pytest.mark.parametrize(
    ("one_per_image", "expected"),
    [
        (False, ["4#1 1#0 0#2 1#1", "3#0 0#0 4#0 3#1", "2#1 0#1 2#0 1#2", "0#2 4#0 1#0 0#0"]),
        (True, ["2#1 3#1 4#0 1#2", "0#1", "4#0 0#1 2#1 3#0", "1#0"]),
    ],
)
def test_the_order_of_a_seed_stays_what_it_was(one_per_image: bool, expected: list[str], tmp_path: Path) -> None:
    """Batches of twelve captions of five images as the first version drew them: artefacts of that order exist."""
    write_rows(tmp_path / "records.jsonl", [record(n) for n in range(12)])
    order = DataOrder(load_samples(tmp_path, None, "stage2"), 4, seed=3, one_per_image=one_per_image)
    assert [" ".join(ids(order.batch(step))) for step in range(4)] == expected
