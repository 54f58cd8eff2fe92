"""Limits of accounts and qualities of service beside those of a profile."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from cwdpo.base.errors import name_valid
from cwdpo.jobs.clusters import Kind, SlurmCluster
from cwdpo.jobs.doctor import slurm_site
from cwdpo.jobs.doctor.check import Finding, failure, ok, unchecked
from cwdpo.jobs.doctor.slurm_site import MANY, clock, minutes

PROFILE = "cluster profile"
KINDS: tuple[Kind, ...] = get_args(Kind)
Row = Mapping[str, str]


@dataclass(frozen=True)
class Level:
    """One thing that limits a job.

    Attributes:
        name: such as `QOS long`.
        minutes: of one job; MANY without a limit, as in the others.
        queued: jobs of a user in the queue.
        running: jobs of a user at work.
    """

    name: str
    minutes: int
    queued: int
    running: int

    @classmethod
    def of_account(cls, row: Row) -> Level:
        """From an association."""
        counts = (_count(row[key]) for key in ("MaxSubmit", "MaxJobs"))
        return cls(f"account {row['Account']}", minutes(row["MaxWall"]), *counts)

    @classmethod
    def of_quality(cls, row: Row) -> Level:
        """From a QOS."""
        counts = (_count(row[key]) for key in ("MaxSubmitPU", "MaxJobsPU"))
        return cls(f"QOS {row['Name']}", minutes(row["MaxWall"]), *counts)


def _count(text: str) -> int:
    return int(text) if text.isdigit() else MANY


Levels = Mapping[Kind, Sequence[Level]]
"""What limits each kind of job, the strongest first."""


def bound(levels: Sequence[Level], limit: Callable[[Level], int]) -> tuple[int, str]:
    """A limit and who sets it. Slurm takes that of the first level that has one, not the least."""
    return next(((limit(level), level.name) for level in levels if limit(level) != MANY), (MANY, ""))


def check_limits(cluster: SlurmCluster, config: Mapping[str, str]) -> Iterator[Finding]:
    """What accounting knows; a site without it has no such limits that we could see."""
    kind = config.get("AccountingStorageType", "")
    if kind in ("", "(null)", "accounting_storage/none"):
        yield ok("Slurm accounting", "none here; cwdpo works without, and there are no limits of accounts or QOS")
        return
    if shutil.which("sacctmgr") is None:
        yield unchecked("Slurm limits", "sacctmgr is not on the PATH", "ask the site for MaxSubmitJobs and MaxWall")
        return
    yield ok("Slurm accounting", kind.rpartition("/")[2])
    enforced = config.get("AccountingStorageEnforce", "")
    if "limits" not in enforced:
        yield ok("Slurm limits", f"not enforced (AccountingStorageEnforce is {enforced or 'none'})")
        return
    yield from _limits(cluster)


def _limits(cluster: SlurmCluster) -> Iterator[Finding]:
    rows = _account(cluster)
    if isinstance(rows, Finding):
        yield rows
        return
    site = Site(rows, slurm_site.qualities(), slurm_site.partitions())
    found = {kind: site.levels(cluster, kind) for kind in KINDS}
    faults = dict.fromkeys(entry for entry in found.values() if isinstance(entry, Finding))
    yield from faults
    levels = {kind: entry for kind, entry in found.items() if not isinstance(entry, Finding)}
    if not faults:
        yield _queued(cluster, levels)
        yield _running(levels)
        yield from _walls(cluster, levels)


def _account(cluster: SlurmCluster) -> Sequence[Row] | Finding:
    """The associations of the profile's account, of which there may be one a partition, or that there is none."""
    rows = slurm_site.associations()
    names = {row["Account"] for row in rows}
    name = cluster.account or slurm_site.default_account()
    found = [row for row in rows if row["Account"] == name]
    if found:
        return found
    if not names:
        who = slurm_site.user()
        return failure("Slurm account", f"user {who} has no account", "ask the site to add you to one")
    return failure(
        "Slurm account", f"{slurm_site.user()} has no account {name_valid(name, names)}",
        f"{PROFILE}: account: one of {', '.join(sorted(names))}",
    )  # fmt: skip


@dataclass(frozen=True)
class Site:
    """What accounting knows of one account.

    Attributes:
        accounts: its associations: for one partition each, or for all others where `Partition` is empty.
        qualities: QOS by name.
        partitions: by name.
    """

    accounts: Sequence[Row]
    qualities: Mapping[str, Row]
    partitions: Mapping[str, Row]

    def levels(self, cluster: SlurmCluster, kind: Kind) -> list[Level] | Finding:
        """What limits a kind of job, or why it has no place here."""
        wanted = cluster.resources(kind)
        partition = self._partition(wanted.partition)
        account = next((row for place in (partition, "") for row in self.accounts if row["Partition"] == place), None)
        if account is None:
            return self._elsewhere(partition)
        quality = wanted.qos or _default_qos(account)
        fault = self._qos_fault(account, quality)
        return fault or [*self._qualities(partition, quality), Level.of_account(account)]

    def _partition(self, wanted: str | None) -> str:
        """The first that is asked for, or the site's default; empty where there is none."""
        default = (name for name, entry in self.partitions.items() if entry.get("Default") == "YES")
        return wanted.split(",")[0] if wanted else next(default, "")

    def _elsewhere(self, partition: str) -> Finding:
        places = sorted(row["Partition"] for row in self.accounts)
        found = f"account {self.accounts[0]['Account']} is not for partition {name_valid(partition, places)}"
        return failure("Slurm account", found, f"{PROFILE}: account, or partition: one of {', '.join(places)}")

    def _qos_fault(self, account: Row, name: str) -> Finding | None:
        allowed = [one for one in account["QOS"].split(",") if one]
        if not name or name in allowed:
            return None
        text = f"account {account['Account']} may not use the QOS {name_valid(name, allowed)}"
        found = text if name in self.qualities else f"there is no QOS {name_valid(name, self.qualities)}"
        return failure("Slurm QOS", found, f"{PROFILE}: qos: one of {', '.join(allowed)}")

    def _qualities(self, partition: str, quality: str) -> list[Level]:
        """That of a partition goes before that of a job, but where the latter says otherwise."""
        names = [self.partitions.get(partition, {}).get("QoS", ""), quality]
        if "OverPartQOS" in self.qualities.get(quality, {}).get("Flags", ""):
            names.reverse()
        return [Level.of_quality(self.qualities[name]) for name in names if name in self.qualities]


def _default_qos(account: Row) -> str:
    allowed = account["QOS"].split(",")
    return account["DefaultQOS"] or (allowed[0] if len(allowed) == 1 else "")


def _least(levels: Levels, limit: Callable[[Level], int]) -> tuple[int, str]:
    """Of all kinds of jobs, which are counted alike in a profile."""
    return min(bound(found, limit) for found in levels.values())


def _queued(cluster: SlurmCluster, levels: Levels) -> Finding:
    name, mine = "Slurm MaxSubmit", cluster.max_submit
    site, who = _least(levels, lambda level: level.queued)
    if site == MANY:
        return ok(name, "no limit of jobs in the queue")
    if mine == 0 or mine > site:
        found = f"{site} jobs in the queue ({who}), but max_submit is {mine or 'no limit'}"
        return failure(name, f"{found}: Slurm refuses the rest of a grid", f"{PROFILE}: max_submit: {site}")
    return ok(name, f"{site} jobs in the queue ({who}); max_submit is {mine}")


def _running(levels: Levels) -> Finding:
    site, who = _least(levels, lambda level: level.running)
    found = "no limit of jobs at work" if site == MANY else f"{site} jobs at work ({who}), the rest waits"
    return ok("Slurm MaxJobs", found)


def _walls(cluster: SlurmCluster, levels: Levels) -> Iterator[Finding]:
    bounds = {kind: bound(found, lambda level: level.minutes) for kind, found in levels.items()}
    asked = {kind: cluster.resources(kind).minutes for kind in bounds}
    over = {kind: found for kind, found in bounds.items() if asked[kind] > found[0]}
    for kind, (longest, who) in over.items():
        text = f"{kind}.time is {clock(asked[kind])}, but {who} allows {clock(longest)}"
        yield failure("Slurm MaxWall", text, f'{PROFILE}: {kind}: {{time: "{clock(longest)}"}}, or another qos')
    if not over:
        longest, who = min(bounds.values())
        least = f"no job asks for more than is allowed, {clock(longest)} at the least ({who})"
        yield ok("Slurm MaxWall", "no limit of account or QOS" if longest == MANY else least)
