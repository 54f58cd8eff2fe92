"""`cwdpo report --format html`, `--open` and `--serve` on a grid that was really computed."""

from __future__ import annotations

import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest
from commands import MICRO, command, cwdpo, environment, plan_of, succeed
from report.site.made_up import table_of
from typer.testing import CliRunner

from cwdpo.base.errors import ConfigError
from cwdpo.cli.main import app


def test_the_report_of_a_computed_grid_is_written_and_opened(finished: Path, tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    line = ("report", "-g", MICRO, "--home", finished, "-o", tmp_path / "html", "--open")
    shown = succeed(cwdpo(*line, BROWSER=f"{browser} %s"))
    assert shown == f"written to {tmp_path}/html/index.html\n"
    assert (tmp_path / "opened").read_text() == f"file://{tmp_path}/html/index.html\n"
    text = (tmp_path / "html" / "index.html").read_text()
    for row in table_of(plan_of(finished)).rows:
        for entry in row.entries.values():
            assert f"{entry.mean:.1f}<" in text
    gallery = (tmp_path / "html" / "gallery-captions.html").read_text()
    assert gallery.count("<article") == 8
    assert len(list((tmp_path / "html" / "images" / "captions").glob("*.jpg"))) == 8


def test_it_is_served_until_ctrl_c(finished: Path, tmp_path: Path) -> None:
    line = command("report", "-g", MICRO, "--home", finished, "-o", tmp_path / "html", "--serve")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(line, env=environment(PYTHONUNBUFFERED="1"), text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("written to ")
        address = process.stdout.readline().split(" at ")[1].split()[0]
        with urllib.request.urlopen(address, timeout=900) as answer:
            assert b"<title>micro</title>" in answer.read()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=900)
    assert (process.returncode, out.splitlines()[-1], err) == (0, "stopped", "")


def test_what_cannot_be_is_said_before_anything_is_written(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    line = ["report", "-g", str(MICRO), "--home", str(finished)]
    for options, reason in (
        (["--format", "csv", "--serve"], "--serve shows HTML"),
        (["--json", "--open"], "--open shows HTML"),
        (["--format", "html", "-o", str(tmp_path)], "thesis.tex, which no report wrote"),
    ):
        with pytest.raises(ConfigError, match=reason):
            CliRunner().invoke(app, [*line, *options], catch_exceptions=False)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
