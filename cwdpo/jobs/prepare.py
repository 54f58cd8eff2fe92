"""Before a submission: what must be taken back (damaged, stale, not available then but now) and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from cwdpo.base import files
from cwdpo.base.errors import ConfigError, NotAvailable
from cwdpo.base.sources import source_digests
from cwdpo.evaluate.benchmarks.benchmark import NONE_ASKED
from cwdpo.evaluate.benchmarks.captions import KarpathyCaptions
from cwdpo.evaluate.prepared import FOLDER as PREPARED
from cwdpo.evaluate.prepared import find_prepared
from cwdpo.evaluate.questions import QuestionsSpec
from cwdpo.evaluate.score import ScoreSpec
from cwdpo.graph import Node
from cwdpo.jobs.plan import Plan, Shown, make_plan
from cwdpo.metrics.domains import EMPTY
from cwdpo.metrics.java import find_java
from cwdpo.metrics.spice import FETCHED, NO_PARSER, has_spice_jars

OnStale = Literal["refuse", "accept", "recompute"]


def prepare(plan: Plan, on_stale: OnStale, say: Callable[[str], object]) -> Plan:
    """Bring the store to where work can start; returns the plan as it is then.

    Args:
        say: is told what was done, a line each.

    Raises:
        ConfigError: finished or unfinished work was made by other code and nobody said what to do with it.
    """
    _check_prepared(plan)
    damaged = _damaged(plan)
    if damaged and on_stale == "refuse":
        _refuse_stale(plan, plan.states())  # before anything is taken back
    lines = [_retire(plan, node, "damaged") for node in damaged]
    lines += [_retire(plan, node, "out of date") for node in _outdated_shares(plan)]
    states = plan.states()
    for node in plan.nodes:
        if states[node.id] in ("done", "stale"):  # a kill between the commit and the tidying leaves checkpoints behind
            files.remove_tree(node.artefact(plan.store).partial)
    stale, begun = _refuse_stale(plan, states) if on_stale == "refuse" else _made_by_other_code(plan, states)
    if on_stale == "accept":
        lines += [_accept(plan, node) for node in stale] + [_go_on(plan, node) for node in begun]
    else:
        # Children first: a kill in between must not leave a child standing on a parent that is computed anew.
        lines += [_retire(plan, node, "stale") for node in reversed(_with_descendants(plan, stale))]
        lines += [_start_over(plan, node) for node in begun]
    lines += [_retire(plan, node, "incomplete") for node in _available_now(plan)]
    for line in lines:
        say(line)
    return make_plan(plan.grid, plan.store) if lines else plan  # what was taken back may be shared out


def _made_by_other_code(plan: Plan, states: Mapping[str, Shown]) -> tuple[list[Node], list[Node]]:
    """Nodes that are finished, and nodes that are begun."""
    stale = [node for node in plan.nodes if states[node.id] == "stale"]
    return stale, [node for node in plan.nodes if states[node.id] != "running" and plan.unfinished_changed(node)]


def _refuse_stale(plan: Plan, states: Mapping[str, Shown]) -> tuple[list[Node], list[Node]]:
    """The same; raises `ConfigError` where there are any."""
    stale, begun = _made_by_other_code(plan, states)
    if stale or begun:
        raise ConfigError(_stale_message(plan, stale, begun))
    return stale, begun


def _check_prepared(plan: Plan) -> None:
    """Raise `ConfigError` where the files of a benchmark that is still to be read are not those that were prepared."""
    for node in plan.nodes:
        if isinstance(node.spec, QuestionsSpec) and node.spec.digest and node.artefact(plan.store).done() is None:
            find_prepared(node.spec.benchmark, plan.store.home / PREPARED).check()


def _damaged(plan: Plan) -> list[Node]:
    """Finished nodes with missing or changed files; scores, and what is about to be read, are checked byte by byte."""
    states = plan.states()
    damaged: list[Node] = []
    read: set[str] = set()
    for node in reversed(plan.nodes):
        finished = states[node.id] in ("done", "stale")
        checked = finished and (node.id in read or node.stage.name == "score")
        broken = states[node.id] == "damaged" or (checked and _changed_bytes(plan, node))
        if broken:
            damaged.append(node)
        if broken or not finished:
            read |= {parent.id for parent in node.parents}
    return damaged


def _outdated_shares(plan: Plan) -> list[Node]:
    """Finished shares of a stage whose inputs are to be computed again."""
    done = {node.id for node in plan.nodes if node.artefact(plan.store).done()}
    shares = [node for node in plan.nodes if node.share and node.id in done]
    return [node for node in shares if not all(parent.id in done for parent in node.parents)]


def _changed_bytes(plan: Plan, node: Node) -> bool:
    return bool(node.artefact(plan.store).missing_files(hashes=True))


def _retire(plan: Plan, node: Node, why: str) -> str:
    node.artefact(plan.store).retire()
    return f"{node.stage.name} {node.id[:16]} is {why}: computing it again"


def _accept(plan: Plan, node: Node) -> str:
    path = node.artefact(plan.store).folder / "accepted.json"
    sources = source_digests(node.stage.module, node.spec)
    files.write_json(path, {"sources": sources, "parents": plan.lineages(node)})
    return f"{node.stage.name} {node.id[:16]} accepted as it is"


def _go_on(plan: Plan, node: Node) -> str:
    artefact = node.artefact(plan.store)
    sources = source_digests(node.stage.module, node.spec)
    files.write_json(artefact.begun_file, {**artefact.begun(), "sources": sources})
    return f"{node.stage.name} {node.id[:16]}: going on with its unfinished work"


def _start_over(plan: Plan, node: Node) -> str:
    files.remove_tree(node.artefact(plan.store).partial)
    return f"{node.stage.name} {node.id[:16]}: unfinished work dropped, starting over"


def _with_descendants(plan: Plan, nodes: Iterable[Node]) -> list[Node]:
    """`nodes` and every finished node computed from one of them."""
    affected = {node.id for node in nodes}
    for node in plan.nodes:
        if affected & {parent.id for parent in node.parents}:
            affected.add(node.id)
    return [node for node in plan.nodes if node.id in affected and node.artefact(plan.store).done()]


def _stale_message(plan: Plan, stale: list[Node], begun: list[Node]) -> str:
    changed = {module for node in stale for module in plan.changed(node)}
    changed |= {module for node in begun for module in plan.unfinished_changed(node)}
    names = ", ".join(sorted(changed)[:5]) + (" ..." if len(changed) > 5 else "")
    return (
        f"{len(stale)} finished and {len(begun)} unfinished artefact(s) were computed by other code: {names} changed"
        " since.\nSay --accept-stale to keep them (the change does not touch results) or --recompute to compute them"
        " again."
    )


def _available_now(plan: Plan) -> list[Node]:
    """Finished scores that lack something that is there now: Java, or SPICE's parser in this home."""
    try:
        find_java()
    except NotAvailable:
        return []
    parser = has_spice_jars(plan.store.home / FETCHED)
    return [node for node in plan.nodes if _is_of_captions(node) and _lacks(plan, node, parser)]


def _is_of_captions(node: Node) -> bool:
    """Scores of other benchmarks lack what no program brings: questions, a judge."""
    return isinstance(node.spec, ScoreSpec) and isinstance(node.spec.benchmark, KarpathyCaptions)


def _lacks(plan: Plan, node: Node, parser: bool) -> bool:
    artefact = node.artefact(plan.store)
    if artefact.state() != "done":
        return False
    reasons: dict[str, str] = files.read_json(artefact.files / "scores.json")["unavailable"]
    brought = {metric: why for metric, why in reasons.items() if why != EMPTY and not why.startswith(NONE_ASKED)}
    others = [metric for metric in brought if not metric.endswith("spice")]
    return bool(others) or (parser and any(NO_PARSER in reason for reason in reasons.values()))
