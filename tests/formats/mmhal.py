"""A small download of MMHal-Bench: response_template.json, a list of records, and the folder images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from formats.pictures import picture

from cwdpo.data.demo_benchmarks import mmhal as made


def record(number: int) -> dict[str, Any]:
    """The record at a place of the list."""
    address = f"https://farm{number}.example.org/{1000 + number}/pic%20{number}_o.jpg?size=o"
    contents = ["Table", "Bowl", f"Fruit {number}"]
    return made.record(number, address, contents, f"Which fruit is number {number}?", f"It is fruit {number}.")


RECORDS = [record(number) for number in range(10)]


def write(folder: Path) -> None:
    """Write it as the repository has it."""
    made.write(folder, RECORDS, {f"pic {n}_o.jpg": picture((20 * n, 90, 200)) for n in range(len(RECORDS))})
