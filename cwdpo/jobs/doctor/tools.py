"""What scoring needs beside Python: Java, and the jars that pycocoevalcap carries."""

from __future__ import annotations

from collections.abc import Iterator

from cwdpo.base.errors import NotAvailable
from cwdpo.jobs.doctor.check import Finding, guarded, ok, warning
from cwdpo.metrics.java import jar, java_version
from cwdpo.metrics.spice import spice_jars

JARS = {
    "METEOR": ("meteor/meteor-1.5.jar",),
    "tokenizer": ("tokenizer/stanford-corenlp-3.4.1.jar",),
}
"""What needs which files of pycocoevalcap."""


def check_tools() -> Iterator[Finding]:
    """Without them the scores read "not available", everything else works: warnings."""
    yield from guarded("Java", _java)
    for name, wanted in JARS.items():
        yield from guarded(name, _jars, name, wanted)
    yield from guarded("SPICE", _spice)


def _java() -> Iterator[Finding]:
    try:
        yield ok("Java", java_version())
    except NotAvailable as error:
        yield warning("Java", str(error), "until then captions are made, but their scores read 'not available'")


def _jars(name: str, wanted: tuple[str, ...]) -> Iterator[Finding]:
    try:
        missing = [relative for relative in wanted if not jar(relative).is_file()]
    except NotAvailable as error:
        yield warning(name, str(error), "make setup; until then scores read 'not available'")
        return
    if missing:
        yield warning(name, f"pycocoevalcap lacks {', '.join(missing)}", "install pycocoevalcap again: make setup")
    else:
        yield ok(name, "its jar is there")


def _spice() -> Iterator[Finding]:
    try:
        yield ok("SPICE", f"its parser is in {spice_jars()[0].parent}")
    except NotAvailable as error:
        yield warning("SPICE", str(error), "until then SPICE reads 'not available', the other scores do not need it")
