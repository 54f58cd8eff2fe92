"""What `prune` prints and does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from cwdpo.base.errors import ConfigError
from cwdpo.base.store import Store
from cwdpo.cli.app import Source, print_json
from cwdpo.cli.show import console, print_table, print_text
from cwdpo.cli.sizes import human
from cwdpo.jobs.needs import Needs
from cwdpo.jobs.plan import Plan
from cwdpo.jobs.prune import KINDS, Item, Kind, find, remove
from cwdpo.jobs.slurm.ledger import Ledger
from cwdpo.jobs.slurm.lock import locked

WAIT_SECONDS = 120.0


def prune(store: Store, keep: Sequence[str], unused: bool, yes: bool, as_json: bool) -> None:
    """Show what can go, or remove it.

    Args:
        keep: grids to take as their files say now.

    Raises:
        ConfigError: unused artefacts are asked for where no grid is known.
    """
    plans = [Source(name, (), store.home).plan() for name in keep]
    if yes:
        with locked(Ledger(store).folder / "lock", WAIT_SECONDS, lambda text: typer.echo(text, err=True)) as check:
            needs = _needs(store, plans, unused)
            items = remove(find(store, needs, unused), needs, check)
    else:
        needs = _needs(store, plans, unused)
        items = find(store, needs, unused)
    print_json(_as_json(store, items, needs, yes)) if as_json else _print(store, items, needs, unused, yes)


def _needs(store: Store, plans: Sequence[Plan], unused: bool) -> Needs:
    needs = Needs(store, plans)
    if unused and not needs.grids:
        raise ConfigError(f"--unused: no grid was submitted from {store.home}; name those you need with --keep-grid")
    return needs


def _as_json(store: Store, items: Sequence[Item], needs: Needs, removed: bool) -> dict[str, Any]:
    return {
        "home": str(store.home),
        "removed": removed,
        "bytes": sum(item.bytes for item in items),
        "classes": {kind: {"items": count, "bytes": size} for kind, count, size in _classes(items)},
        "items": [{"class": item.kind, "path": str(item.path), "bytes": item.bytes} for item in items],
        "grids": {grid.name: {"options": grid.options, "stages": len(grid.reads)} for grid in needs.grids},
    }


def _classes(items: Sequence[Item]) -> list[tuple[Kind, int, int]]:
    """Kind, number and bytes of what was found."""
    by_kind = {kind: [item.bytes for item in items if item.kind == kind] for kind in KINDS}
    return [(kind, len(sizes), sum(sizes)) for kind, sizes in by_kind.items() if sizes]


def _print(store: Store, items: Sequence[Item], needs: Needs, unused: bool, removed: bool) -> None:
    screen = console()
    if unused:
        for grid in needs.grids:
            print_text(screen, f"needed: {grid.name}, {len(grid.reads)} stages ({grid.options})")
        print_text(screen, "")
    if not items:
        print_text(screen, f"nothing to remove in {store.home}")
        return
    rows = [(kind, str(count), human(size), KINDS[kind]) for kind, count, size in _classes(items)]
    total = human(sum(item.bytes for item in items))
    print_table(
        screen, ("class", "items", "size", "what"), [*rows, ("total", str(len(items)), total, f"in {store.home}")]
    )
    print_text(
        screen, f"\nremoved, {total} freed" if removed else "\nnothing was removed; --yes removes it, --json lists it"
    )
