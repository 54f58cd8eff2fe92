"""What a check finds, and how checks are run: one that breaks is a finding too, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cwdpo.base.errors import CwdpoError, Interrupted

Level = Literal["ok", "warning", "failure"]


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        name: what was looked at.
        found: what it is like.
        remedy: what to do about it; empty where nothing has to be done, or where `found` says it already.
        nodes: where it was found, when not everywhere alike.
    """

    name: str
    level: Level
    found: str
    remedy: str = ""
    nodes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For files and scripts."""
        return {**asdict(self), "nodes": list(self.nodes)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Finding:
        """As `as_json` wrote it."""
        return cls(**{**content, "nodes": tuple(content["nodes"])})


def ok(name: str, found: str) -> Finding:
    """All is well."""
    return Finding(name, "ok", found)


def warning(name: str, found: str, remedy: str) -> Finding:
    """It works, but something is worth a look."""
    return Finding(name, "warning", found, remedy)


def failure(name: str, found: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(name, "failure", found, remedy)


def unchecked(name: str, reason: str, remedy: str = "") -> Finding:
    """Nobody knows: never `ok`."""
    return Finding(name, "warning", f"not checked: {reason}", remedy)


def guarded(name: str, check: Callable[..., Iterable[Finding]], *arguments: Any) -> Iterator[Finding]:
    """What a check finds; if it breaks, that it did, in place of the rest."""
    try:
        yield from check(*arguments)
    except Interrupted:
        raise
    except CwdpoError as error:
        yield failure(name, str(error), "")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        yield failure(name, f"{where}{error.strerror or error}", "see that this file or folder can be read and written")
    except Exception as error:  # a fault in a check must not hide what the others find
        yield failure(
            name, f"this check broke: {type(error).__name__}: {error}", "please report it; the rest was checked"
        )
