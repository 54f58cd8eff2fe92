"""What a data set costs a Stage 2 before and beside its model: memory and seconds for 1,000 to 100,000 records.

The records are made up: one caption, five references and two rejected responses an image, no pictures. Each way of
reading them is a process of its own, which goes once through all batches with the reference of every sample.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from measure import publish

from cwdpo.base import files
from cwdpo.data.records import read_records
from cwdpo.data.samples import DataOrder, Sample, load_samples
from cwdpo.jobs.memory import peak_bytes, reset_peak
from cwdpo.train.reference import ReferenceLogps, load_reference

SIZES = (1_000, 10_000, 100_000)
Data = tuple[Sequence[Sample], Mapping[str, ReferenceLogps]]


def main() -> None:
    """Measure every size both ways and write results/data.md."""
    rows = []
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            write_data(Path(folder), size)
            bytes_on_disk = sum(path.stat().st_size for path in Path(folder).iterdir())
            for how in WAYS:
                found = json.loads(subprocess.check_output([sys.executable, __file__, folder, how]))
                each = 1e6 * found["epoch"] / size
                memory = f"{found['memory'] / 1e6:.1f}"
                rows.append(
                    (f"{size:,}", how, f"{bytes_on_disk / 1e6:.0f}", memory, f"{found['open']:.2f}", f"{each:.0f}")
                )
    columns = ("records", "how", "MB of files", "MB more at most", "seconds to open", "µs a sample of a batch")
    publish(__file__, "A large data set", columns, rows, NOTES)


NOTES = (
    "Memory is the peak of the process above what it had with everything imported. Held: the same in lists and"
    " dictionaries. To open is to check every line, to find the samples with a rejected response and that each has its"
    " reference, and to group them by image. Training reads every batch and its reference once."
)


def write_data(folder: Path, size: int) -> None:
    """records.jsonl, negatives.jsonl and reference.jsonl of so many Stage-2 samples."""
    files.write_jsonl(folder / "records.jsonl", map(record, range(size)))
    files.write_jsonl(folder / "negatives.jsonl", map(negatives, range(size)))
    files.write_jsonl(folder / "reference.jsonl", map(reference, range(size)))


def record(number: int) -> dict[str, object]:
    """One image with one caption that is trained on, and five references."""
    return {
        "id": f"{number}#0", "image_id": str(number), "image": f"train2014/COCO_train2014_{number:012}.jpg",
        "prompt": "Describe the image briefly.", "chosen": caption(number), "rejected": [], "split": "train",
        "references": [caption(number + other) for other in range(5)], "portion": "stage2",
    }  # fmt: skip


def negatives(number: int) -> dict[str, object]:
    """Two rejected responses."""
    rejected = [{"text": f"Not {caption(number + k)}", "source": "made up", "grade": None} for k in range(2)]
    return {"id": f"{number}#0", "rejected": rejected}


def reference(number: int) -> dict[str, object]:
    """Three log-probabilities with as many digits as real ones."""
    return {"id": f"{number}#0", "chosen": -12.3456789 - number, "rejected": [-23.456789 - number, -34.56789 - number]}


def caption(number: int) -> str:
    """As long as captions of COCO are."""
    return f"A man number {number} with a red helmet on a small moped on a dirt road."


def streamed(folder: Path) -> Data:
    """As Stage 2 does."""
    samples = load_samples(folder, folder, "stage2", paired=True)
    return samples, load_reference(folder, samples)


def held(folder: Path) -> Data:
    """All of it in memory."""
    rejected = {
        row["id"]: tuple(item["text"] for item in row["rejected"])
        for row in files.read_jsonl(folder / "negatives.jsonl")
    }
    samples = [
        Sample(record.id, record.image_id, record.image, record.prompt, record.chosen, rejected[record.id])
        for record in read_records(folder / "records.jsonl")
    ]
    rows = files.read_jsonl(folder / "reference.jsonl")
    return samples, {
        row["id"]: ReferenceLogps({"chosen": (row["chosen"],), "rejected": tuple(row["rejected"])}) for row in rows
    }


WAYS: dict[str, Callable[[Path], Data]] = {"streamed": streamed, "held": held}


def measured(read: Callable[[Path], Data], folder: Path) -> dict[str, float]:
    """Bytes above those of this process now, and seconds to open the data and to go through one epoch."""
    import numpy as np  # noqa: F401  # not counted

    reset_peak()
    before = peak_bytes()["memory"]
    began = time.perf_counter()
    samples, reference = read(folder)
    order = DataOrder(samples, batch_size=64, seed=0, one_per_image=True)
    opened = time.perf_counter()
    for step in range(order.steps_per_epoch):
        for sample in order.batch(step):
            assert len(reference[sample.id].rejected) == len(sample.rejected)
    ended = time.perf_counter()
    return {"memory": peak_bytes()["memory"] - before, "open": opened - began, "epoch": ended - opened}


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measured(WAYS[sys.argv[2]], Path(sys.argv[1]))))
    else:
        main()
