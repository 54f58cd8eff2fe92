"""What MLflow takes as names and values, and what becomes of others."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import Any

from cwdpo.base.identity import digest

NAME_LIMIT = 250
VALUE_LIMIT = 500
"""Of a parameter; MLflow 3 takes 6,000 characters, servers before 2.8 only these."""


def valid_name(text: str) -> str:
    """The name itself where MLflow takes it, else one that it takes and that no other text gets."""
    clean = re.sub(r"[^A-Za-z0-9_\-. :/]", "_", text)
    if posixpath.normpath(clean) != clean or clean.startswith(("/", "..")) or clean == ".":
        clean = re.sub(r"[./]", "_", clean)
    if clean == text and 0 < len(clean) <= NAME_LIMIT:
        return clean
    return f"{clean[: NAME_LIMIT - 9]}-{digest(text)[:8]}"


def valid_value(value: Any) -> str:
    """As text; a longer one is cut and tells its length and digest, so that two of them differ where they differ."""
    text = str(value)
    if len(text) <= VALUE_LIMIT:
        return text
    about = f"... ({len(text):,} characters, sha256 {digest(text)[:16]})"
    return text[: VALUE_LIMIT - len(about)] + about


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything in nested mappings, and in lists of them; nothing for null."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flat(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from flat(item, f"{prefix}.{index}")
    elif value is not None:
        yield prefix, value
