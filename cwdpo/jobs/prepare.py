"""Before a submission: what must be taken back (damaged, stale, not available then but now) and what is refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from cwdpo.base import files
from cwdpo.base.errors import ConfigError, NotAvailable
from cwdpo.base.sources import source_digests
from cwdpo.jobs.plan import Plan
from cwdpo.metrics.java import find_java
from cwdpo.pipeline import Node

OnStale = Literal["refuse", "accept", "recompute"]


def prepare(plan: Plan, on_stale: OnStale) -> list[str]:
    """Bring the store to where work can start; returns what was done, a line each.

    Raises:
        ConfigError: finished artefacts were made by other code and nobody said what to do with them.
    """
    states = plan.states()
    for node in plan.nodes:
        if states[node.id] in ("done", "stale"):  # a kill between the commit and the tidying leaves checkpoints behind
            files.remove_tree(node.artefact(plan.store).partial)
    lines = [_retire(plan, node, "damaged") for node in plan.nodes if states[node.id] == "damaged"]
    stale = [node for node in plan.nodes if states[node.id] == "stale"]
    if stale and on_stale == "refuse":
        raise ConfigError(_stale_message(plan, stale))
    if on_stale == "accept":
        lines += [_accept(plan, node) for node in stale]
    elif stale:
        lines += [_retire(plan, node, "stale") for node in _with_descendants(plan, stale)]
    return lines + [_retire(plan, node, "incomplete") for node in _available_now(plan)]


def _retire(plan: Plan, node: Node, why: str) -> str:
    node.artefact(plan.store).retire()
    return f"{node.stage.name} {node.id[:16]} is {why}: computing it again"


def _accept(plan: Plan, node: Node) -> str:
    path = node.artefact(plan.store).folder / "accepted.json"
    files.write_json(path, {"sources": source_digests(node.stage.module, node.spec)})
    return f"{node.stage.name} {node.id[:16]} accepted as it is"


def _with_descendants(plan: Plan, nodes: Iterable[Node]) -> list[Node]:
    """`nodes` and every finished node computed from one of them."""
    affected = {node.id for node in nodes}
    for node in plan.nodes:
        if affected & {parent.id for parent in node.parents}:
            affected.add(node.id)
    return [node for node in plan.nodes if node.id in affected and node.artefact(plan.store).done()]


def _stale_message(plan: Plan, stale: list[Node]) -> str:
    changed = sorted({module for node in stale for module in plan.changed(node)})
    return (
        f"{len(stale)} finished artefact(s) were computed by other code: {', '.join(changed[:5])}"
        f"{' ...' if len(changed) > 5 else ''} changed since.\n"
        "Say --accept-stale to keep them (the change does not touch results) or --recompute to compute them again."
    )


def _available_now(plan: Plan) -> list[Node]:
    """Finished scores that lack something for want of Java, where Java is there now."""
    try:
        find_java()
    except NotAvailable:
        return []
    return [node for node in plan.nodes if node.stage.name == "score" and _lacks(plan, node)]


def _lacks(plan: Plan, node: Node) -> bool:
    artefact = node.artefact(plan.store)
    if artefact.state() != "done":
        return False
    reasons = files.read_json(artefact.files / "scores.json")["unavailable"]
    return any("Java" in reason for reason in reasons.values())
