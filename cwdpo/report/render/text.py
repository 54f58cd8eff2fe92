"""Text from outside, such as labels and reasons, made fit to stand in a line; and numbers as tables print them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from cwdpo.report.content import Column, Difference

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""Stands for a character that would steer a terminal, turn the direction of writing, or cannot be written at all."""

DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the direction of what follows."""


@lru_cache(4096)  # of labels and reasons, which stand in thousands of cells
def plain(text: str) -> str:
    """One line that can be printed anywhere: white space is one blank, control characters are replaced."""
    line = " ".join(text.split())
    return line if line.isprintable() else "".join(REPLACEMENT if _steers(one) else one for one in line)


def _steers(character: str) -> bool:
    return character in DIRECTIONS or unicodedata.category(character) in ("Cc", "Cs")


def sentence(text: str) -> str:
    """With its full stop."""
    text = plain(text)
    return text if text.endswith((".", "!", "?")) else f"{text}."


def capital(text: str) -> str:
    """With a capital letter at its start."""
    return text[:1].upper() + text[1:]


def listed(parts: Iterable[str], most: int = 10) -> str:
    """`a, b, c`; what is too much to read is counted."""
    parts = list(parts)
    rest = [f"and {len(parts) - most:,} more"] if len(parts) > most + 1 else []
    return ", ".join([*(parts[:most] if rest else parts), *rest])


def fixed(value: float, digits: int) -> str:
    """`139.2`; what rounds to zero has no sign."""
    return _unsigned_zero(f"{value:.{digits}f}")


def signed(value: float, digits: int) -> str:
    """`+3.1`; what rounds to zero has no sign."""
    return _unsigned_zero(f"{value:+.{digits}f}")


def _unsigned_zero(text: str) -> str:
    return text if text.strip("+-0.") else text.lstrip("+-")


def published(value: float, digits: int) -> str:
    """A number of a paper, never rounded."""
    text = fixed(value, digits)
    return text if float(text) == value else repr(value)


def span(low: float, high: float, digits: int) -> str:
    """`[138.7, 139.7]`."""
    return f"[{fixed(low, digits)}, {fixed(high, digits)}]"


def signed_span(difference: Difference, digits: int) -> str:
    """`[+1.2, +5.0]`; "" where there are too few results for an interval."""
    if difference.low is None or difference.high is None:
        return ""
    return f"[{signed(difference.low, digits)}, {signed(difference.high, digits)}]"


def probability(difference: Difference) -> str:
    """`p=0.012` after the correction; "" where nothing was tested."""
    if difference.p is None:
        return ""
    if difference.adjusted is None:
        return f"{_p(difference.p)} uncorrected"
    return _p(difference.adjusted)


def _p(value: float) -> str:
    return "p<0.001" if value < 0.001 else f"p={value:.3f}"


def title(column: Column) -> str:
    """Title without the group; an arrow down where less is better."""
    return plain(column.title) + (" ↓" if lower_is_better(column) else "")


def lower_is_better(column: Column) -> bool:
    """Whether less is better; there are columns in which nothing is."""
    return column.ranked and not column.metric.higher


def full_title(column: Column) -> str:
    """The same with the group."""
    return f"{plain(column.group)} {title(column)}" if column.group else title(column)
