"""Any text as LaTeX that compiles and shows it as it is: pure ASCII, for every input encoding and font encoding."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from cwdpo.report.render.text import plain

ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\`{}",
    '"': r"{\ttfamily\char34}",  # else a curly one, or a shorthand of babel's
}
"""What means something to TeX."""

SYMBOLS = {
    "±": r"$\pm$",
    "\N{MINUS SIGN}": "$-$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≠": r"$\neq$",
    "≈": r"$\approx$",
    "∞": r"$\infty$",
    "←": r"$\leftarrow$",
    "→": r"$\rightarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "§": r"\S{}",
    "…": r"\ldots{}",
    "\N{EN DASH}": r"\textendash{}",
    "\N{EM DASH}": r"\textemdash{}",
    "\N{LEFT SINGLE QUOTATION MARK}": r"\textquoteleft{}",
    "\N{RIGHT SINGLE QUOTATION MARK}": r"\textquoteright{}",
    "“": r"\textquotedblleft{}",
    "”": r"\textquotedblright{}",
    "µ": r"$\mu$",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
}

ACCENTS = {
    "\u0300": r"\`",
    "\u0301": r"\'",
    "\u0302": r"\^",
    "\u0303": r"\~",
    "\u0304": r"\=",
    "\u0306": r"\u",
    "\u0307": r"\.",
    "\u0308": r"\"",
    "\u030a": r"\r",
    "\u030b": r"\H",
    "\u030c": r"\v",
    "\u0327": r"\c",
}
"""Combining characters, and what puts them on a letter in every font encoding."""

GREEK = {
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi",
    "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
    "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega",
}  # fmt: skip
"""Letters that TeX has a command for."""

NEGATIVE = re.compile(r"(?<![\w-])-(?=\d)")
"""A hyphen that is a minus."""


def tex(text: str) -> str:
    """One line of LaTeX that shows `text`.

    At the start of a row of a table, `[` and `*` would still be taken for options of what ends the row before.
    """
    line = NEGATIVE.sub("\N{MINUS SIGN}", plain(text))
    shown = "".join(map(_character, line))
    for one in "-'":  # two of them would become another character
        shown = shown.replace(one + one, f"{one}{{}}{one}").replace(one + one, f"{one}{{}}{one}")
    return shown


@cache
def _character(one: str) -> str:
    if one in ESCAPES:
        return ESCAPES[one]
    if one.isascii():
        return one
    return SYMBOLS.get(one) or _greek(one) or _accented(one) or rf"\texttt{{U+{ord(one):04X}}}"


def _greek(one: str) -> str | None:
    size, _, name = unicodedata.name(one, "").partition(" LETTER ")
    if size not in ("GREEK SMALL", "GREEK CAPITAL"):
        return None
    small = "lambda" if name == "LAMDA" else name.lower()
    command = small if size == "GREEK SMALL" else small.capitalize()
    return rf"$\{command}$" if command in GREEK else None


def _accented(one: str) -> str | None:
    """Such as e with an acute accent; None for what is not one ASCII letter with one accent."""
    letter, *accents = list(unicodedata.normalize("NFD", one))
    if len(accents) != 1 or accents[0] not in ACCENTS or not (letter.isascii() and letter.isalpha()):
        return None
    return f"{ACCENTS[accents[0]]}{{{letter}}}"
