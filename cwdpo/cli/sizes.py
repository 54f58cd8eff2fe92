"""Numbers of bytes for people."""

from __future__ import annotations

UNITS = ("B", "kB", "MB", "GB", "TB")


def human(size: float) -> str:
    """`1.2 GB`, in powers of 1000."""
    for unit in UNITS[:-1]:
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} {UNITS[-1]}"
