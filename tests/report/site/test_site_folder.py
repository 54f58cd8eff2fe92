"""The folder of a report replaces an earlier report, whole, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cwdpo.base.errors import ConfigError
from cwdpo.report.site.folder import report_folder


def write(folder: Path, **contents: str) -> None:
    with report_folder(folder) as temporary:
        (temporary / "cases").mkdir()
        for name, text in contents.items():
            (temporary / "cases" / name).write_text(text)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_report_replaces_the_one_before(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "html"
    write(folder, one="1", two="2")
    (folder / ".DS_Store").write_text("left by a viewer")
    write(folder, three="3")
    assert names(folder) == {"cases/three", "cwdpo-report.json"}
    assert json.loads((folder / "cwdpo-report.json").read_text())["files"] == ["cases/three"]
    assert [path.name for path in folder.parent.iterdir()] == ["html"]


@pytest.mark.parametrize("where", ["mine.txt", "cases/mine.txt", ".git"])
def test_files_of_a_user_stop_it(tmp_path: Path, where: str) -> None:
    folder = tmp_path / "html"
    write(folder, one="1")
    (folder / where).write_text("precious")
    with pytest.raises(ConfigError, match=rf"{folder} has {where}, which no report wrote"):
        write(folder, two="2")
    assert names(folder) == {"cases/one", "cwdpo-report.json", where}


def test_a_folder_that_never_was_a_report(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("precious")
    with pytest.raises(ConfigError, match=r"has 0\.txt \(and 2 more\)"):
        write(tmp_path, one="1")
    with pytest.raises(ConfigError, match=r"0\.txt is a file"):
        write(tmp_path / "0.txt", one="1")
    assert len(names(tmp_path)) == 3


def test_what_appears_while_it_is_written_stops_it_too(tmp_path: Path) -> None:
    folder = tmp_path / "html"

    def interrupted() -> None:
        with report_folder(folder):
            folder.mkdir()
            (folder / "late.txt").write_text("precious")

    with pytest.raises(ConfigError, match=r"has late\.txt"):
        interrupted()
    assert names(tmp_path) == {"html/late.txt"}


def test_a_fault_leaves_the_report_before(tmp_path: Path) -> None:
    folder = tmp_path / "html"
    write(folder, one="1")

    def failing() -> None:
        with report_folder(folder) as temporary:
            (temporary / "two").write_text(str(1 / 0))

    with pytest.raises(ZeroDivisionError):
        failing()
    assert names(tmp_path) == {"html/cases/one", "html/cwdpo-report.json"}


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write(tmp_path / "link", one="1")
    write(tmp_path / "link", two="2")
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "real") == {"cases/two", "cwdpo-report.json"}
