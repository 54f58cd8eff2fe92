"""Limits of accounts and qualities of service beside those of a profile."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from typing import get_args

from cwdpo.base.errors import name_valid
from cwdpo.jobs.clusters import Kind, SlurmCluster
from cwdpo.jobs.doctor import slurm_site
from cwdpo.jobs.doctor.check import Finding, failure, ok, unchecked
from cwdpo.jobs.doctor.slurm_site import MANY, clock, minutes

PROFILE = "cluster profile"
Row = Mapping[str, str]


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
    account = _account(cluster)
    if isinstance(account, Finding):
        yield account
        return
    qualities = slurm_site.qualities()
    wrong = list(_unknown_qos(cluster, account, qualities))
    yield from wrong
    if not wrong:
        rows = [account, *(qualities[name] for name in sorted(_qos_names(cluster, account)) if name in qualities)]
        yield _submit(cluster, min(_least(rows, key) for key in ("MaxSubmit", "MaxSubmitPU")))
        yield _running(min(_least(rows, key) for key in ("MaxJobs", "MaxJobsPU")))
        yield from _walls(cluster, rows)


def _account(cluster: SlurmCluster) -> Row | Finding:
    """The association that jobs of this profile count for, or that there is none."""
    rows = slurm_site.associations()
    names = {row["Account"] for row in rows}
    name = cluster.account or slurm_site.default_account()
    found = [row for row in rows if row["Account"] == name]
    if found:
        return found[0]
    if not names:
        who = slurm_site.user()
        return failure("Slurm account", f"user {who} has no account", "ask the site to add you to one")
    return failure(
        "Slurm account", f"{slurm_site.user()} has no account {name_valid(name, names)}",
        f"{PROFILE}: account: one of {', '.join(sorted(names))}",
    )  # fmt: skip


def _qos_names(cluster: SlurmCluster, account: Row) -> set[str]:
    """Qualities that jobs of this profile use."""
    asked = {cluster.resources(kind).qos for kind in get_args(Kind)}
    allowed = account["QOS"].split(",")
    default = account.get("DefaultQOS") or (allowed[0] if len(allowed) == 1 else "")
    return {name or default for name in asked} - {""}


def _unknown_qos(cluster: SlurmCluster, account: Row, qualities: Mapping[str, Row]) -> Iterator[Finding]:
    allowed = [name for name in account["QOS"].split(",") if name]
    for name in sorted(_qos_names(cluster, account) - set(allowed)):
        text = f"account {account['Account']} may not use the QOS {name_valid(name, allowed)}"
        found = text if name in qualities else f"there is no QOS {name_valid(name, qualities)}"
        yield failure("Slurm QOS", found, f"{PROFILE}: qos: one of {', '.join(allowed)}")


def _least(rows: list[Row], key: str) -> int:
    return min((int(row[key]) for row in rows if row.get(key, "").isdigit()), default=MANY)


def _submit(cluster: SlurmCluster, site: int) -> Finding:
    name, mine = "Slurm MaxSubmit", cluster.max_submit
    if site == MANY:
        return ok(name, "no limit of jobs in the queue")
    if mine == 0 or mine > site:
        found = f"{site} jobs in the queue, but max_submit is {mine or 'no limit'}: Slurm refuses the rest of a grid"
        return failure(name, found, f"{PROFILE}: max_submit: {site}")
    return ok(name, f"{site} jobs in the queue; max_submit is {mine}")


def _running(site: int) -> Finding:
    return ok("Slurm MaxJobs", "no limit of jobs at work" if site == MANY else f"{site} jobs at work, the rest waits")


def _walls(cluster: SlurmCluster, rows: list[Row]) -> Iterator[Finding]:
    longest = min(minutes(row.get("MaxWall", "")) for row in rows)
    over = [kind for kind in get_args(Kind) if cluster.resources(kind).minutes > longest]
    for kind in over:
        found = f"{kind}.time is {clock(cluster.resources(kind).minutes)}, but account or QOS allow {clock(longest)}"
        yield failure("Slurm MaxWall", found, f'{PROFILE}: {kind}: {{time: "{clock(longest)}"}}')
    if not over:
        yield ok("Slurm MaxWall", "no limit of account or QOS" if longest == MANY else f"{clock(longest)} at most")
