"""What a pair may come with beside its chosen and its rejected response."""

from __future__ import annotations

from typing import Literal

Supply = Literal["revised", "dialogue"]

SUPPLIES: dict[Supply, str] = {
    "revised": "a revised answer beside each rejected response",
    "dialogue": "a corrective dialogue beside each rejected response",
}
"""In words, for messages."""
