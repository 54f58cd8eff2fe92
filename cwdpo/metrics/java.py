"""The Java runtime that the tokeniser and METEOR run in, and the jars that pycocoevalcap carries."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from cwdpo.base.errors import NotAvailable

_MISSING = (
    "Java not found: install a Java runtime, version 8 or newer (Debian: apt install default-jre-headless; "
    "conda: conda install openjdk), and put java on PATH or set JAVA_HOME"
)


def find_java() -> str:
    """Path of the java program: `$JAVA_HOME/bin/java`, else the one on PATH; `NotAvailable` when there is none."""
    home = os.environ.get("JAVA_HOME")
    found = (shutil.which("java", path=f"{home}/bin") if home else None) or shutil.which("java")
    if found is None:
        raise NotAvailable(_MISSING)
    return found


def java_version(timeout: float = 60.0) -> str:
    """The line in which java names its version, such as `openjdk version "17.0.15" 2025-04-15`.

    `NotAvailable` when there is no java or it does not answer within `timeout` seconds.
    """
    command = [find_java(), "-version"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=True).stderr
    except (OSError, subprocess.SubprocessError) as error:
        raise NotAvailable(f"Java does not run: {error}") from error
    # JAVA_TOOL_OPTIONS makes java print a line of its own first.
    return next((line for line in answer.splitlines() if " version " in line), answer.strip())


def java_command(heap_mb: int) -> list[str]:
    """Start of a java command line with at most `heap_mb` MiB of heap.

    UTF-8 whatever the locale (a bare container has none, and older Javas follow it); no statistics file in /tmp;
    the serial collector, because these programs work in one thread.
    """
    flags = ["-XX:+UseSerialGC", "-XX:-UsePerfData", "-Dfile.encoding=UTF-8"]
    return [find_java(), f"-Xmx{heap_mb}m", *flags]


def jar(relative: str) -> Path:
    """Path of a file inside the installed pycocoevalcap, found without importing it."""
    spec = find_spec("pycocoevalcap")
    if spec is None or spec.submodule_search_locations is None:
        raise NotAvailable("pycocoevalcap is not installed")
    return Path(next(iter(spec.submodule_search_locations))) / relative


def java_complaint(stderr: str) -> str:
    """What a failed java said, in one line: its error lines without the stack, else its last line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith("\tat ")]
    errors = [line for line in lines if "Error" in line or "Exception" in line or line.startswith("Could not")]
    return "; ".join((errors or lines[-1:])[:2]) or "it said nothing"
