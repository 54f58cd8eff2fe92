"""What a paper printed, as data: its tables, and the facts of its protocol that its numbers depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import model_validator

from cwdpo.base.config import Config, read_yaml, validate
from cwdpo.base.errors import ConfigError, name_valid
from cwdpo.experiment import find_config


class PaperTable(Config):
    """One table of a paper, in its own units: captioning metrics x100, accuracies in percent."""

    number: str
    """How the paper calls it, such as `Table 1`."""
    columns: tuple[str, ...]
    """Keys, as `published` of a table file's columns names them."""
    rows: dict[str, tuple[float | None, ...]]
    """Key -> a number for each column; null where the paper prints none."""
    text_value: dict[str, dict[str, float]] = {}
    """Row -> column -> what the paper's text says: where the table has no number, or another one."""
    remarks: tuple[str, ...] = ()
    """What a reader must know beside the numbers, a sentence each without its full stop."""

    @model_validator(mode="after")
    def _complete(self) -> PaperTable:
        for row, values in self.rows.items():
            if len(values) != len(self.columns):
                raise ValueError(f"rows.{row}: {len(values)} numbers for {len(self.columns)} columns")
        return self


class PaperFile(Config):
    """The keys of a file in `configs/paper/`."""

    title: str
    """Of the paper."""
    short: str
    """How tables name it, such as `arXiv 2510.11978`."""
    protocol: dict[str, Any]
    """What its numbers depend on, as far as it says so; `backbone` names the model."""
    tables: dict[str, PaperTable]
    """By the names that table files use."""

    @model_validator(mode="after")
    def _model_named(self) -> PaperFile:
        if "backbone" not in self.protocol:
            raise ValueError("protocol.backbone: is required")
        return self


class PaperReference(Config):
    """Which table of which paper a table file is laid out after."""

    of: str
    """A file in `configs/paper/`."""
    table: str
    """One of its tables."""


@dataclass(frozen=True)
class Published:
    """One table of one paper."""

    paper: PaperFile
    table: PaperTable

    @property
    def source(self) -> str:
        """Such as `Table 1 of arXiv 2510.11978`."""
        return f"{self.table.number} of {self.paper.short}"

    @property
    def protocol(self) -> str:
        """The model of its numbers, and how many seeds they are over where it says so."""
        seeds = self.paper.protocol.get("seeds")
        return f"{self.paper.protocol['backbone']}{f', {seeds} seeds' if seeds else ''}"

    @property
    def rows(self) -> set[str]:
        """Keys of rows, of the table and of the text."""
        return {*self.table.rows, *self.table.text_value}

    @property
    def columns(self) -> set[str]:
        """The same of columns."""
        return {*self.table.columns, *(column for said in self.table.text_value.values() for column in said)}

    def value(self, row: str, column: str) -> float | None:
        """The number of the table, else that of the text; None where there is neither."""
        printed = self._printed(row, column)
        return self._said(row, column) if printed is None else printed

    def contradicted(self, row: str, column: str) -> float | None:
        """What the text says where the table says something else."""
        printed, said = self._printed(row, column), self._said(row, column)
        return None if printed is None or printed == said else said

    def _printed(self, row: str, column: str) -> float | None:
        if row not in self.table.rows or column not in self.table.columns:
            return None
        return self.table.rows[row][self.table.columns.index(column)]

    def _said(self, row: str, column: str) -> float | None:
        return self.table.text_value.get(row, {}).get(column)


def load_paper(name: str) -> PaperFile:
    """A file in `configs/paper/`, checked.

    Raises:
        ConfigError: names the file and the key.
    """
    path = find_config("paper", name)
    return validate(PaperFile, read_yaml(path), str(path))


def published(reference: PaperReference, where: str) -> Published:
    """The table that a table file refers to.

    Raises:
        ConfigError: there is no such paper or table.
    """
    try:
        paper = load_paper(reference.of)
    except ConfigError as error:
        raise ConfigError(f"{where}: paper.of: {error}") from error
    if reference.table not in paper.tables:
        raise ConfigError(f"{where}: paper.table: unknown table {name_valid(reference.table, paper.tables)}")
    return Published(paper, paper.tables[reference.table])
