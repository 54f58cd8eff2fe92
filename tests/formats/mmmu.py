"""A small download of MMMU: one folder a subject, Parquet files with images inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from formats.pictures import picture

from cwdpo.data.demo_benchmarks.mmmu import cell, row, write_rows


def image(shade: int, suffix: str = ".png") -> dict[str, Any]:
    """A cell with a small picture."""
    return cell(picture((shade, 90, 200 - shade), f"a{suffix}"), f"picture_{shade}.png")


ROWS = {
    "Accounting": [
        row("Accounting_1", "<image 1> What is the balance?", "['$6', '$7,000', '$8', '$9']", "B", image(10)),
        # one image named twice, one not named at all
        row("Accounting_2", "Compare <image 1> and <image 2>. Does <image 1> rise?", "['Yes', 'No']", "A",
            image(20), image(21), image(22)),
        row("Accounting_3", "<image 1> How much is it?", "[]", "1,250.5", image(30)),
    ],
    "Art": [
        row("Art_1", "<image 1> Which one follows?", "['<image 2>', '<image 3>', '<image 4>', \"It's none\"]", "C",
            *(image(40 + number, ".jpg") for number in range(4))),
    ],
    "Mechanical_Engineering": [
        row("Mechanical_Engineering_1", "<image 1> Which part turns?", "[]", "['1/2', '0.5']", image(50)),
        row("Mechanical_Engineering_2", "<image 1> <image 3> Which interval?", "[]", "[0, 1]",
            image(60), None, image(62)),
    ],
}  # fmt: skip


def write(folder: Path) -> None:
    """Three subjects of the validation split, and files of the other splits, which are no part of it."""
    for subject, rows in ROWS.items():
        write_rows(folder, subject, rows)
        others = [{**one, "id": one["id"].replace("validation", "dev")} for one in rows]
        write_rows(folder, subject, others, "dev-00000-of-00001.parquet")
        write_rows(folder, subject, others, "test-00000-of-00001.parquet")
