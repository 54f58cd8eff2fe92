"""From stages to elements: which stages share a job.

An element is one task of a job array: a list of stages that one set of processes computes in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cwdpo.graph import Node
from cwdpo.jobs.clusters import KINDS, Kind

Place = tuple[str, int]
"""(array name, index): where an element is, once it has been placed."""


Before = Callable[[Iterable[Place]], set[Place]]


def nothing_before(places: Iterable[Place]) -> set[Place]:
    """For a queue in which nothing waits."""
    return set()


@dataclass(frozen=True, eq=False)
class Element:
    """Stages that share a job.

    Attributes:
        label: what a human calls it.
        parents: elements that compute what it reads, and places of such elements that are in the queue already.
    """

    kind: Kind
    nodes: tuple[Node, ...]
    label: str
    parents: tuple[Element | Place, ...]

    @property
    def stage(self) -> str:
        """Name of its first stage."""
        return self.nodes[0].stage.name if self.nodes else ""


def elements(
    todo: Sequence[Node],
    bundled: Iterable[str],
    queued: Mapping[str, Place],
    labels: Mapping[str, str],
    before: Before = nothing_before,
) -> list[Element]:
    """Group what is to be computed.

    Args:
        todo: nodes to compute, parents before children.
        bundled: kinds whose stages share jobs (`SlurmCluster.bundle`).
        queued: id -> place of nodes that are in the queue already.
        labels: id -> what a human calls a node.
        before: places that must succeed before one of those given starts.

    Returns:
        Elements, parents before children.
    """
    kinds = set(bundled)
    groups: dict[Any, list[Node]] = {}
    waiting = {node.id for node in todo}
    for node in todo:
        groups.setdefault(_bundle_key(node, kinds, waiting), []).append(node)
    made: dict[str, Element] = {}
    found = []
    for group in _parents_first(list(groups.values())):
        element = _element(group, _nearest(_parents(group, made, queued), before), labels)
        made |= {node.id: element for node in group}
        found.append(element)
    return found


def _bundle_key(node: Node, kinds: set[str], waiting: set[str]) -> Any:
    """Nodes with equal keys share a job."""
    rule = _RULES.get(node.stage.name)
    if rule is None or KINDS[node.stage.name] not in kinds:
        return node.id
    return rule(node, waiting)


def _all_together(node: Node, waiting: set[str]) -> Any:
    """Data preparation that needs nothing but data preparation."""
    return "prepare" if _only_prepare(node, waiting) else node.id


def _only_prepare(node: Node, waiting: set[str]) -> bool:
    """True when everything still to be computed before this node is data preparation too."""
    return KINDS[node.stage.name] == "prepare" and all(
        parent.id not in waiting or _only_prepare(parent, waiting) for parent in node.parents
    )


def _same_policy(node: Node, waiting: set[str]) -> Any:
    """Generations of one policy."""
    return "generate", node.share, *policy_key(node)


def _same_asked_policy(node: Node, waiting: set[str]) -> Any:
    """Answers of one policy; what it says of them needs all shares of them, so it is a job of its own."""
    return node.stage.name, node.share, *policy_key(node)


def _same_scored_policy(node: Node, waiting: set[str]) -> Any:
    """Scores of one policy's generations; those that wait for a judge keep no other waiting."""
    generated = node.inputs["generate"]
    return ("score", *policy_key(generated)) if isinstance(generated, Node) and "judge" not in node.inputs else node.id


_RULES: dict[str, Callable[[Node, set[str]], Any]] = {
    "world": _all_together,
    "pairs": _all_together,
    "demo_benchmark": _all_together,
    "questions": _all_together,
    "negatives": _all_together,
    "answers": _same_asked_policy,
    "critique": _same_asked_policy,
    "generate": _same_policy,
    "score": _same_scored_policy,
}


def policy_key(node: Node) -> tuple[str, str]:
    """What tells apart the policies that nodes read: the model and the adapter."""
    found = [node.inputs.get(role) for role in ("model", "adapter")]
    model, adapter = [entry.id if isinstance(entry, Node) else str(getattr(entry, "path", "")) for entry in found]
    return model, adapter


def _parents_first(groups: list[list[Node]]) -> list[list[Node]]:
    """Groups in an order in which none needs a later one."""
    group_of = {node.id: number for number, group in enumerate(groups) for node in group}
    ordered: dict[int, None] = {}

    def visit(number: int) -> None:
        if number not in ordered:
            for parent in {group_of[parent.id] for node in groups[number] for parent in node.parents
                           if parent.id in group_of} - {number}:  # fmt: skip
                visit(parent)
            ordered[number] = None

    for number in range(len(groups)):
        visit(number)
    return [groups[number] for number in ordered]


def _element(group: list[Node], parents: tuple[Element | Place, ...], labels: Mapping[str, str]) -> Element:
    more = f" +{len(group) - 1}" if len(group) > 1 else ""
    label = labels.get(group[-1].id, group[-1].stage.name) + more
    return Element(KINDS[group[0].stage.name], tuple(group), label, parents)


def _parents(group: list[Node], made: Mapping[str, Element], queued: Mapping[str, Place]) -> list[Element | Place]:
    """What computes the inputs of a group, each once."""
    own = {node.id for node in group}
    found: dict[Any, Element | Place] = {}
    for parent in (parent for node in group for parent in node.parents if parent.id not in own):
        if parent.id in made:
            found.setdefault(id(made[parent.id]), made[parent.id])
        elif parent.id in queued:
            found.setdefault(queued[parent.id], queued[parent.id])
    return list(found.values())


def _nearest(parents: list[Element | Place], before: Before) -> tuple[Element | Place, ...]:
    """Parents without those that another parent waits for: its success says that they succeeded."""
    further = [entry for parent in parents if isinstance(parent, Element) for entry in _ancestors(parent)]
    elements = {id(entry) for entry in further if isinstance(entry, Element)}
    places = {entry for entry in further if not isinstance(entry, Element)}
    places |= before([*places, *(parent for parent in parents if not isinstance(parent, Element))])
    return tuple(parent for parent in parents if id(parent) not in elements and parent not in places)


def _ancestors(element: Element) -> Iterator[Element | Place]:
    """All that must succeed before `element` starts; some more than once."""
    for parent in element.parents:
        yield parent
        if isinstance(parent, Element):
            yield from _ancestors(parent)
