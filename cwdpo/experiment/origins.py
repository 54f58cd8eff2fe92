"""Which file, case or option wrote the key that an experiment is refused for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cwdpo.base.config import fault_line


@dataclass(frozen=True)
class Layer:
    """What one place says of an experiment.

    Attributes:
        before: of a key in a message, such as `main.yaml: base.`.
        content: nested, or with dotted keys.
        within: section that the place is all about, and does not name: `model` of a model file.
    """

    before: str
    content: Mapping[str, Any]
    within: str = ""

    def key(self, path: str) -> str:
        """A dotted path of the experiment as this place spells it."""
        return path.removeprefix(f"{self.within}.") if self.within else path


def told(layers: Callable[[], Sequence[Layer]], where: str) -> Callable[[str, str], str]:
    """A line about a fault at a dotted path, beginning with the place that wrote it.

    Args:
        layers: each laid over those before it; asked for once there is a fault.
        where: of the whole, such as `main.yaml, case 'dpo'`; the beginning where no single place is to blame.
    """

    def line(path: str, fault: str) -> str:
        layer = _author(layers(), path, section=fault == "is required")
        if layer is None:
            return fault_line(where, path, fault)
        after = "" if layer.before.startswith(where) else f" ({where})"
        return f"{layer.before}{layer.key(path)}: {fault}{after}"

    return line


def _author(layers: Sequence[Layer], path: str, section: bool) -> Layer | None:
    """The last to set a value at the path.

    Args:
        section: asks who wrote the section of the path; nothing lies there.
    """
    parts = path.split(".")[: -1 if section else None] if path else []
    found = [(layer, value) for layer in layers if parts and (value := _said(layer.content, parts)) is not None]
    if not found:
        return None
    last, value = found[-1]
    return last if len(found) == 1 or not isinstance(value, Mapping) else None


def _said(content: Any, parts: Sequence[str]) -> Any:
    """What lies at a path, or in place of a section that it leads through; None is nothing."""
    if not parts or not isinstance(content, Mapping):
        return content
    for key, value in content.items():
        named = str(key).split(".")
        below = _said(value, parts[len(named) :]) if list(parts[: len(named)]) == named else None
        if below is not None:
            return below
        if named[: len(parts)] == list(parts):
            return {}
    return None
