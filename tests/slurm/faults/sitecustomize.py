"""Faults of `cwdpo submit`, loaded by every Python process that has this folder first on PYTHONPATH.

`$CWDPO_FAULTS` is a folder with settings.json:

    home        only what happens to its slurm/ and grids/ counts
    constants   module -> name -> value: waiting times, so that a test need not wait for minutes
    hostname    what this process believes its machine is called
    stop        a point at which the process stops itself (SIGSTOP), once
    kill        points at each of which one process kills itself (SIGKILL), once

A point is a moment just before or after something becomes visible to others: a rename, a new folder, a command of Slurm
that changes something. Every point that was passed is a line in `seen`, every one that stopped or killed a file in
`fired`. Unique names and digests are left out of the names of points.
"""

import builtins
import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess

FOLDER = os.environ.get("CWDPO_FAULTS")

UNIQUE = re.compile(r"cwdpo-\d{6}-\d{6}-\d{6}-[^/]*-(\w+)-[0-9a-f]{6}")
TEMPORARY = re.compile(r"/\.([^/]*)\.[0-9a-f]{8}\.tmp(/.*)?$")
DIGEST = re.compile(r"/code/(~?)[0-9a-f]{16}")
CHANGES = {("sbatch", "--parsable"), ("scancel", "--quiet"), ("scontrol", "update")}


def plain(path):
    """A path without what is different every time; "" for what does not matter."""
    if not path.startswith((f"{HOME}/slurm/", f"{HOME}/grids/")):
        return ""
    path = path[len(HOME) :]
    inside = TEMPORARY.search(path)
    path = DIGEST.sub(r"/code/\1#", TEMPORARY.sub(r"/~\1" + ("/..." if inside and inside[2] else ""), path))
    exactly = path.endswith("/submitted.json") or re.fullmatch(f"/slurm/[^/]*/{UNIQUE.pattern}", path)
    return UNIQUE.sub(r"\1" if exactly else "*", path)


def passed(point):
    """Say that this process is there, and do to it what shall be done there."""
    with original_open(os.path.join(FOLDER, "seen"), "a") as file:
        file.write(f"{point}\n")
    if point == SETTINGS.get("stop") and first(point):
        os.kill(os.getpid(), signal.SIGSTOP)
    if point in KILL and first(point):
        os.kill(os.getpid(), signal.SIGKILL)


def first(point):
    path = os.path.join(FOLDER, "fired", re.sub(r"[^\w~]+", "-", point))
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True


def watch(module, name, what, moments):
    """Replace `module.name` by itself with points around it; `what` names it by its arguments."""
    original = getattr(module, name)

    def watched(*args, **keywords):
        target = what(*args, **keywords)
        if target and "before" in moments:
            passed(f"before {name} {target}")
        result = original(*args, **keywords)
        if target and "after" in moments:
            passed(f"after {name} {target}")
        return result

    setattr(module, name, watched)


def second(source, target, **_):
    return visible(target)


def visible(path, *_, **__):
    """What is not inside a folder that is still to be renamed."""
    found = plain(os.fspath(path)) if isinstance(path, str | os.PathLike) else ""
    return "" if found.endswith("/...") else found


def inside_temporary(path, mode="r", *_, **__):
    """The first file in such a folder."""
    found = plain(os.fspath(path)) if isinstance(path, str | os.PathLike) and set(mode) & set("wxa") else ""
    return found if found.endswith("/...") else ""


def command(line, *_, **__):
    if tuple(line[:2]) not in CHANGES:
        return ""
    kind = UNIQUE.search(line[-1])
    return f"{line[0]} {kind[1] if kind else ''}".strip()


if FOLDER:
    original_open = open
    with open(os.path.join(FOLDER, "settings.json")) as opened:
        SETTINGS = json.load(opened)
    HOME, KILL = SETTINGS["home"], set(SETTINGS.get("kill", ()))
    for module_name, values in SETTINGS.get("constants", {}).items():
        vars(importlib.import_module(module_name)).update(values)
    if SETTINGS.get("hostname"):
        socket.gethostname = lambda: SETTINGS["hostname"]
    both = ("before", "after")
    watch(os, "rename", second, both)
    watch(os, "replace", second, both)
    watch(os, "mkdir", visible, ("after",))
    watch(shutil, "rmtree", visible, ("before",))
    watch(builtins, "open", inside_temporary, ("after",))
    watch(subprocess, "run", command, both)
