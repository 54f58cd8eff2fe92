"""Which stage an image falls to, and which samples a step is made of: never a matter of ranks or luck."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from cwdpo.data.karpathy import read_karpathy
from cwdpo.data.records import portion_of
from cwdpo.data.samples import DataOrder, Sample, load_samples

ROOT = Path(__file__).resolve().parents[2]


def samples(images: int, captions: int = 1) -> list[Sample]:
    """Captions of one image lie together, as the readers write them."""
    return [
        Sample(f"{image}#{number}", str(image), f"{image}.jpg", "?", f"caption {number}")
        for image in range(images)
        for number in range(captions)
    ]


def ids(batch: list[Sample]) -> list[str]:
    return [sample.id for sample in batch]


# ---- the split


def test_three_quarters_of_the_images_fall_to_stage_1() -> None:
    found = Counter(portion_of(str(number), "train", 0.75) for number in range(10_000))
    # Three standard deviations of a share of 0.75 over 10,000 draws are 0.013.
    assert found["stage1"] / 10_000 == pytest.approx(0.75, abs=0.013)
    assert found["stage1"] + found["stage2"] == 10_000


def test_the_split_is_a_hash_of_the_id() -> None:
    # First hex digits of `printf 1 | sha256sum`: 6b86 is 0.42 of ffff; of 2: d473, 0.83; of 3: 4e07, 0.30.
    assert [portion_of(name, "train", 0.75) for name in "123"] == ["stage1", "stage2", "stage1"]
    assert [portion_of(name, "train", 0.40) for name in "123"] == ["stage2", "stage2", "stage1"]
    assert [portion_of("1", split, 0.75) for split in ("val", "test")] == ["none", "none"]


def test_the_split_does_not_depend_on_the_process() -> None:
    code = "from cwdpo.data.records import portion_of as p; print([p(str(n), 'train', 0.75) for n in range(500)])"
    here = [portion_of(str(number), "train", 0.75) for number in range(500)]
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        there = subprocess.check_output([sys.executable, "-c", code], env=environment, cwd=ROOT, text=True)
        assert there.strip() == str(here)


def test_a_larger_share_only_moves_images_to_stage_1() -> None:
    small, large = ({n for n in range(2000) if portion_of(str(n), "train", s) == "stage1"} for s in (0.6, 0.8))
    assert small < large


def test_all_captions_of_an_image_are_on_one_side_and_neighbours_do_not_matter(tmp_path: Path) -> None:
    images = [
        {"filename": f"{number}.jpg", "split": "train", "imgid": number, "sentences": [{"raw": c} for c in "abcde"]}
        for number in range(200)
    ]
    for name, listed in (("whole", images), ("part", images[150:20:-1])):
        (tmp_path / name).write_text(json.dumps({"images": listed}))
    whole, part = (read_karpathy(tmp_path / name, "", "?", "all", 0.75) for name in ("whole", "part"))
    assert len(whole) == 1000
    sides = {record.image_id: record.portion for record in whole}
    assert all(sides[record.image_id] == record.portion for record in [*whole, *part])
    assert set(sides.values()) == {"stage1", "stage2"}


# ---- the order


def test_an_epoch_takes_every_sample_once() -> None:
    order = DataOrder(samples(10), batch_size=4, seed=0, one_per_image=False)
    assert order.steps_per_epoch == 3
    epochs = [[name for step in range(3) for name in ids(order.batch(3 * epoch + step))] for epoch in range(3)]
    assert [len(order.batch(step)) for step in range(6)] == [4, 4, 2, 4, 4, 2]
    assert all(sorted(epoch) == sorted(ids(samples(10))) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_a_batch_follows_from_seed_and_step_alone() -> None:
    forwards, backwards = (DataOrder(samples(50), 8, seed=1, one_per_image=False) for _ in range(2))
    steps = list(range(30))
    expected = [ids(forwards.batch(step)) for step in steps]
    assert [ids(backwards.batch(step)) for step in reversed(steps)] == expected[::-1]  # as after a resume
    other = DataOrder(samples(50), 8, seed=2, one_per_image=False)
    assert [ids(other.batch(step)) for step in steps] != expected


def test_a_batch_size_regroups_the_same_order() -> None:
    small, large = (DataOrder(samples(48), size, seed=1, one_per_image=False) for size in (4, 16))
    assert [n for step in range(12) for n in ids(small.batch(step))] == [
        n for step in range(3) for n in ids(large.batch(step))
    ]


def test_draw_takes_one_caption_per_image_and_others_in_the_next_epoch() -> None:
    order = DataOrder(samples(40, captions=5), batch_size=8, seed=3, one_per_image=True)
    assert order.steps_per_epoch == 5
    epochs = [[sample for step in range(5) for sample in order.batch(5 * epoch + step)] for epoch in range(40)]
    for epoch in epochs:
        assert sorted(sample.image_id for sample in epoch) == sorted(str(number) for number in range(40))
    drawn = [{sample.id for sample in epoch} for epoch in epochs]
    assert drawn[0] != drawn[1]
    assert set.union(*drawn) == set(ids(samples(40, captions=5)))
    # Uniform: each of the five wordings is drawn 320 times of 1,600; five standard deviations are 80.
    shares = Counter(sample.chosen for epoch in epochs for sample in epoch)
    assert all(abs(count - 320) < 80 for count in shares.values())


def test_draw_with_one_caption_per_image_is_a_plain_epoch() -> None:
    order = DataOrder(samples(12), batch_size=12, seed=3, one_per_image=True)
    assert sorted(ids(order.batch(0))) == sorted(ids(samples(12)))


# ---- samples from files


def test_samples_are_one_portion_with_its_negatives(tmp_path: Path) -> None:
    record = {"prompt": "?", "chosen": "c", "references": ["c"], "rejected": [], "split": "train"}
    rows = [
        {**record, "id": f"{name}#0", "image_id": name, "image": f"{name}.jpg", "portion": portion}
        for name, portion in [("a", "stage1"), ("b", "stage2"), ("c", "stage1"), ("d", "none")]
    ]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = {"id": "c#0", "rejected": [{"text": "x", "source": "s", "grade": None}, {"text": "y", "source": "s"}]}
    (tmp_path / "negatives.jsonl").write_text(json.dumps(made) + "\n")
    found = load_samples(tmp_path, tmp_path, "stage1")
    assert [(sample.id, sample.rejected) for sample in found] == [("a#0", ()), ("c#0", ("x", "y"))]
    assert ids(load_samples(tmp_path, None, "stage2")) == ["b#0"]
