"""What was made before, looked up instead of made again."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from cwdpo.base.config import Config


class Made:
    """Remembers what was made; the cells of a grid differ in little."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}
        self._known: dict[Hashable, tuple[tuple[object, ...], Any]] = {}

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` returned when `key` came first; settings are frozen, so keys can hold them."""
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = make()
        return found

    def same(self, kind: str, parts: tuple[object, ...], make: Callable[[], Any]) -> Any:
        """What `make` returned for these very objects: seeds share the sections of their experiments.

        That saves comparing what is equal, and making what would be.
        """
        key = (kind, *map(id, parts))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = (parts, make())  # the parts are held: nothing else may get their ids
        return found[1]

    def slice(self, kind: str, parts: tuple[object, ...], make: Callable[[], Config]) -> Any:
        """The same for a slice of settings: one object wherever slices are equal."""

        def made() -> Any:
            found = make()
            return self.once(found, lambda: found)

        return self.same(kind, parts, made)
