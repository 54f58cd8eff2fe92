"""What Slurm says of itself: its configuration, partitions, nodes, and limits. The only place here that asks it."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cwdpo.jobs.clusters import Resources, minutes_of
from cwdpo.jobs.slurm import commands

MANY = 10**9
"""Minutes, or jobs, where there is no limit."""


@dataclass(frozen=True)
class Node:
    """One node as `sinfo` shows it.

    Attributes:
        memory: MB.
        gpus: type -> number; the type is empty where the site names none.
    """

    name: str
    cpus: int
    memory: int
    gpus: Mapping[str, int]
    state: str
    features: frozenset[str]

    @property
    def usable(self) -> bool:
        """False for one that is down, drained or reserved away."""
        return re.match(r"idle|mix|alloc|comp|plan", self.state) is not None

    def fits(self, wanted: Resources, gpu_type: str | None) -> bool:
        """True when a job's share of one node fits this one."""
        gpus = self.gpus.get(gpu_type, 0) if gpu_type else sum(self.gpus.values())
        return (
            wanted.tasks_per_node * wanted.cpus_per_task <= self.cpus
            and wanted.memory_gb * 1024 <= self.memory
            and wanted.gpus_per_node <= gpus
            and (_is_word(wanted.constraint) <= self.features)
        )

    def __str__(self) -> str:
        gpus = ", ".join(f"{count} {name or 'GPU'}(s)" for name, count in self.gpus.items()) or "no GPU"
        return f"{self.cpus} cores, {self.memory / 1024:.0f} GB, {gpus}"


def _is_word(constraint: str | None) -> frozenset[str]:
    """The feature of a plain constraint; others, such as `a|b`, are Slurm's to judge."""
    return frozenset([constraint]) if constraint and re.fullmatch(r"[\w.-]+", constraint) else frozenset()


@dataclass(frozen=True)
class Job:
    """One job in the queue, with its state and what it waits for."""

    state: str
    reason: str


def job(name: str) -> Job | None:
    """This user's job of that name as long as the controller knows it, ended ones too."""
    asked = ("--user", str(os.getuid()), "--name", name, "--states=all", "--format=%T|%r")
    lines = commands.run(["squeue", "--noheader", *asked]).splitlines()
    return Job(*lines[0].split("|", 1)) if lines else None


def config() -> dict[str, str]:
    """`scontrol show config`."""
    lines = commands.run(["scontrol", "show", "config"]).splitlines()
    return {key.strip(): value.strip() for key, sign, value in (line.partition("=") for line in lines) if sign}


def partitions() -> dict[str, dict[str, str]]:
    """Name -> what `scontrol show partition` says."""
    lines = commands.run(["scontrol", "show", "partition", "--oneliner"]).splitlines()
    found = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
    return {entry["PartitionName"]: entry for entry in found if "PartitionName" in entry}


def nodes(partition: str) -> list[Node]:
    """The nodes of a partition."""
    layout = "%N|%c|%m|%G|%T|%f"
    text = commands.run(["sinfo", "--noheader", "--Node", "--partition", partition, "--format", layout])
    return [_node(line) for line in dict.fromkeys(text.splitlines()) if line.count("|") >= 5]


def _node(line: str) -> Node:
    name, cpus, memory, gres, state, features = line.split("|", 5)
    return Node(name, _number(cpus), _number(memory), gpus_in(gres), state, frozenset(features.split(",")))


def _number(text: str) -> int:
    """`16`, or `16+` of nodes that differ."""
    return int(re.sub(r"\D", "", text) or 0)


def gpus_in(gres: str) -> dict[str, int]:
    """{"a100": 4} for `gpu:a100:4(S:0-1),craynetwork:4`; {"": 2} for `gpu:2`."""
    found: dict[str, int] = {}
    for kind, count in re.findall(r"(?:^|,)gpu:(?:([^:,(]*):)?(\d+)", gres):
        found[kind] = found.get(kind, 0) + int(count)
    return found


def minutes(limit: str) -> int:
    """Minutes of a limit as Slurm writes it; a very large number where there is none."""
    try:
        return minutes_of(limit)
    except ValueError:
        return MANY


def clock(total: int) -> str:
    """`1-02:30:00` for minutes."""
    days, rest = divmod(total, 24 * 60)
    return f"{f'{days}-' if days else ''}{rest // 60:02d}:{rest % 60:02d}:00"


def user() -> str:
    """Whose limits count."""
    return pwd.getpwuid(os.getuid()).pw_name


def associations() -> list[dict[str, str]]:
    """This user's accounts with their limits; one may be there once for a partition and once for all others."""
    fields = ("Account", "Partition", "QOS", "DefaultQOS", "MaxJobs", "MaxSubmit", "MaxWall")
    return _table(fields, "assoc", f"user={user()}")


def qualities() -> dict[str, dict[str, str]]:
    """QOS by name with its limits of one user."""
    return {row["Name"]: row for row in _table(("Name", "Flags", "MaxJobsPU", "MaxSubmitPU", "MaxWall"), "qos")}


def default_account() -> str | None:
    """The account of jobs that name none."""
    rows = _table(("DefaultAccount",), "user", user())
    return rows[0]["DefaultAccount"] if rows else None


def _table(fields: tuple[str, ...], *what: str) -> list[dict[str, Any]]:
    command = ["sacctmgr", "--noheader", "--parsable2", "show", *what, f"format={','.join(fields)}"]
    lines = commands.run(command).splitlines()
    return [dict(zip(fields, line.split("|"), strict=False)) for line in lines if line.strip()]
