"""Fault injection for the kill tests, loaded by every Python process that has this folder first on PYTHONPATH.

`$CWDPO_FAULTS` is a folder with points.json: at each point a process is killed once, just before or just after the
first call that makes a matching path visible. What was fired is a file in `fired/`; every DONE that was linked is a
line in `done.log`, so that a test can count commits.
"""

import builtins
import json
import os
import re
import signal

FOLDER = os.environ.get("CWDPO_FAULTS")


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(number) for number in file.read().split()]


def victims(who):
    """`worker` is this process alone, `cli` also the one that started it, `all` also its other workers."""
    parent = os.getppid()
    if who == "worker" or not _is_submit(parent):
        return [os.getpid()]
    siblings = [pid for pid in children(parent) if pid != os.getpid()] if who == "all" else []
    return [parent, *siblings, os.getpid()]


def _is_submit(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"submit" in file.read().split(b"\0")
    except OSError:
        return False


def fire(point):
    """Kill, unless this point has fired already."""
    path = os.path.join(FOLDER, "fired", point["name"])
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return
    for pid in victims(point["kill"]):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def watch(module, name, target_of):
    """Replace `module.name` by itself with the points of that name before and after."""
    original = getattr(module, name)
    mine = [point for point in POINTS if point["call"] == name]

    def watched(*args, **keywords):
        target = target_of(args, keywords)
        matching = [point for point in mine if target and re.search(point["target"], target)]
        for point in matching:
            if point["when"] == "before":
                fire(point)
        result = original(*args, **keywords)
        if name == "link" and target.endswith("/DONE"):
            log(target)
        for point in matching:
            if point["when"] == "after":
                fire(point)
        return result

    setattr(module, name, watched)


def log(target):
    descriptor = os.open(os.path.join(FOLDER, "done.log"), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(descriptor, f"{target}\n".encode())
    os.close(descriptor)


def second(args, keywords):
    return _path(args[1] if len(args) > 1 else keywords.get("dst"))


def first(args, keywords):
    return _path(args[0] if args else keywords.get("path"))


def written(args, keywords):
    """Target of an `open` that creates or appends."""
    mode = args[1] if len(args) > 1 else keywords.get("mode", "r")
    return _path(args[0] if args else keywords.get("file")) if set(mode) & set("wax") else ""


def _path(value):
    return os.fspath(value) if isinstance(value, str | os.PathLike) else ""


if FOLDER:
    with open(os.path.join(FOLDER, "points.json")) as opened:
        POINTS = json.load(opened)
    for function, target in (("rename", second), ("replace", second), ("link", second), ("mkdir", first)):
        watch(os, function, target)
    watch(builtins, "open", written)
