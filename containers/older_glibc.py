#!/usr/bin/env python3
"""Let programs built on glibc 2.38 start on Debian 12's 2.36, where all they ask of the newer one is strtol's kin.

Compilers on a newer Debian bind `strtol` to `__isoc23_strtol@GLIBC_2.38`, which differs in reading "0b101" only. Such a
symbol becomes the plain one of the oldest version: its name is the tail of the longer one, so nothing moves.
A program that asks for anything else that is too new is left alone and named.

    older_glibc.py FILE...
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from pathlib import Path

NEWEST = (2, 36)
OLDEST = "GLIBC_2.2.5"
"""The version x86-64 began with; every plain symbol of libc has it."""
PREFIX = "__isoc23_"
KIN = (f"{PREFIX}strto", f"{PREFIX}sscanf")
SYMBOL = 24
"""Bytes of an entry of .dynsym."""


@dataclass(frozen=True)
class Section:
    """Where a section lies in the file, and what its header says of it."""

    offset: int
    size: int
    link: int
    info: int


@dataclass(frozen=True)
class Need:
    """One version that the program asks for: its index in .gnu.version, its name, and where its record lies."""

    index: int
    name: str
    record: int

    @property
    def too_new(self) -> bool:
        """Newer than what Debian 12 has."""
        number = self.name.removeprefix("GLIBC_").split(".")
        return self.name.startswith("GLIBC_2") and tuple(map(int, number)) > NEWEST


class Program:
    """An ELF file for x86-64, in memory."""

    def __init__(self, data: bytearray) -> None:
        self.data = data
        table, size, count, names = self._header()
        headers = [struct.unpack_from("<IIQQQQIIQQ", data, table + size * number) for number in range(count)]
        sections = [Section(header[4], header[5], header[6], header[7]) for header in headers]
        self.sections = {
            self._text(sections[names], header[0]): section for header, section in zip(headers, sections, strict=True)
        }
        self.strings = sections[self.sections[".dynsym"].link] if ".dynsym" in self.sections else None

    def _header(self) -> tuple[int, int, int, int]:
        if self.data[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", self.data, 18)[0] != 62:
            raise ValueError("not a 64-bit x86 program")
        return (*struct.unpack_from("<Q", self.data, 0x28), *struct.unpack_from("<HHH", self.data, 0x3A))

    def _text(self, strings: Section, at: int) -> str:
        start = strings.offset + at
        return self.data[start : self.data.index(0, start)].decode()

    def needs(self) -> list[Need]:
        """Every version asked of any library."""
        wanted, found = self.sections.get(".gnu.version_r"), []
        at = wanted.offset if wanted else 0
        for _ in range(wanted.info if wanted else 0):
            _, count, _, first, following = struct.unpack_from("<HHIII", self.data, at)
            record = at + first
            for _ in range(count):
                _, _, index, name, step = struct.unpack_from("<IHHII", self.data, record)
                found.append(Need(index & 0x7FFF, self._text(self.strings, name), record))
                record += step
            at += following
        return found

    def lower(self) -> list[str]:
        """Bind what is too new to the oldest version; the symbols' names. `ValueError` names one that cannot be."""
        new = {need.index: need for need in self.needs() if need.too_new}
        if not new:
            return []
        oldest = next(need for need in self.needs() if need.name == OLDEST)
        changed = [self._rebind(number, new, oldest) for number in range(self.sections[".dynsym"].size // SYMBOL)]
        for need in new.values():  # nothing uses its index any more: it may ask for what is surely there
            self.data[need.record : need.record + 4] = self.data[oldest.record : oldest.record + 4]
            self.data[need.record + 8 : need.record + 12] = self.data[oldest.record + 8 : oldest.record + 12]
        return [name for name in changed if name]

    def _rebind(self, number: int, new: dict[int, Need], oldest: Need) -> str | None:
        version = self.sections[".gnu.version"].offset + 2 * number
        index = struct.unpack_from("<H", self.data, version)[0] & 0x7FFF
        if index not in new:
            return None
        symbol = self.sections[".dynsym"].offset + SYMBOL * number
        name_at = struct.unpack_from("<I", self.data, symbol)[0]
        name = self._text(self.strings, name_at)
        if not name.startswith(KIN):
            raise ValueError(f"needs {name} of {new[index].name}")
        struct.pack_into("<I", self.data, symbol, name_at + len(PREFIX))
        struct.pack_into("<H", self.data, version, oldest.index)
        return name


def main(paths: list[str]) -> int:
    """Change the files in place; 1 when one of them cannot run on Debian 12."""
    for path in map(Path, paths):
        try:
            program = Program(bytearray(path.read_bytes()))
            lowered = program.lower()
        except ValueError as error:
            print(f"{path.name}: {error}", file=sys.stderr)
            return 1
        if lowered:
            path.write_bytes(program.data)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
