"""Pages from templates: one environment, one frame, and how numbers and names are written in them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwdpo.base import files
from cwdpo.report.render.text import fixed

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
ASSETS = ("site.css", "site.js")

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Entry:
    """A link of the navigation; `href` from the top of the folder."""

    href: str
    label: str


@dataclass(frozen=True)
class Pages:
    """Writes pages into a folder.

    Attributes:
        about: what every page says of the grid: `grid`, `description`, `options`, `home`, `made`, `version`.
        navigation: links that every page has.
    """

    folder: Path
    about: Mapping[str, Any]
    navigation: tuple[Entry, ...]

    def write(self, path: str, template: str, title: str, section: str = "", **content: Any) -> None:
        """Write one page.

        Args:
            path: from the top of the folder.
            template: name of its file in `templates/`, without the ending.
            section: page of the navigation that it belongs to, where it is none of these itself.
        """
        place = {"up": "../" * path.count("/"), "here": path, "section": section or path}
        frame = {"title": title, "about": self.about, "navigation": self.navigation, **place}
        text = self._environment.get_template(f"{template}.html.jinja").render(**frame, **content)
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")  # the folder itself is written whole

    def write_assets(self) -> None:
        """Copy the style and the script."""
        for name in ASSETS:
            files.write_bytes(self.folder / name, (HERE / name).read_bytes())

    @cached_property
    def _environment(self) -> Environment:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        made = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        made.filters |= {"number": number, "count": count, "duration": duration, "pretty": pretty, "plural": plural}
        return made


def number(value: float | None, digits: int = 1) -> str:
    """With so many digits after the point, and a real minus sign; zero has none, and nothing is written of none."""
    return "" if value is None else real_minus(fixed(value, digits))


def real_minus(text: str) -> str:
    """Numbers as a page writes them."""
    return text.replace("-", MINUS)


def short(value: float) -> str:
    """Four significant digits, as short as they can be written."""
    return real_minus(f"{value:.4g}")


def count(value: float) -> str:
    """With thousands set apart."""
    return f"{value:,.0f}"


def plural(number_of: int, noun: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{number_of:,} {noun}{'' if number_of == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """`12 s`, `3 min 20 s`, `5 h 07 min`; nothing of none."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def pretty(value: Any) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def slug(text: str, place: int) -> str:
    """A name for a file or an anchor: unique by its place, of plain letters, whatever the file system."""
    return f"{place}-{re.sub(r'[^A-Za-z0-9._-]+', '-', text)[:60].strip('-.') or 'x'}".lower()
