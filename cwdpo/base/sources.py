"""Digests of the code a stage is made of, so that an artefact made by other code can be marked stale.

The digest is over the syntax tree without docstrings, so comments and formatting do not matter. Plumbing (`cwdpo.base`)
is left out, for it changes where and how files are kept, not what is computed; only `identity`, which seeds are derived
by, counts. A data file beside a module that the module names (`lexicon.yaml`) counts by its bytes. Pages that only show
results are left out too, and so are the `__init__` files that register the members of unions: a stage depends on the
objective, benchmark or source of negatives its own specification names, so adding another one makes nothing stale.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from cwdpo.base.config import Config

PACKAGE = Path(__file__).resolve().parent.parent
PLUMBING = "cwdpo.base"
SEEDS = "cwdpo.base.identity"
LOOKS = frozenset({"cwdpo.negatives.page", "cwdpo.negatives.summary"})
"""Modules that only show what others have made."""


def source_digests(module: str, spec: Config) -> dict[str, str]:
    """Name -> digest for `module`, the modules that define `spec`, and every module of this package they import."""
    return dict(_digests(module, _modules_of(spec)))


@cache
def _digests(module: str, defining: frozenset[str]) -> dict[str, str]:
    """The same for the modules that define a specification; thousands of stages share a few sets of them."""
    found: dict[str, str] = {}
    waiting = [module, *defining]
    while waiting:
        name = waiting.pop()
        if name not in found and _counts(name) and _path_of(name).is_file():
            digests, imported = _read(_path_of(name), name)
            found |= digests
            waiting += imported
    return dict(sorted(found.items()))


def _counts(name: str) -> bool:
    return name == SEEDS or not (name.startswith(PLUMBING) or name in LOOKS)


def changed_sources(recorded: dict[str, str], module: str, spec: Config) -> list[str]:
    """Modules whose code differs from what an artefact recorded."""
    now = _digests(module, _modules_of(spec))
    if recorded == now:
        return []
    return sorted(name for name in {*recorded, *now} if recorded.get(name) != now.get(name))


@cache
def _modules_of(spec: Config) -> frozenset[str]:
    """Modules that define `spec` and what is nested in it."""
    nested = [one for _, value in spec for one in _configs_in(value)]
    return frozenset([type(spec).__module__]).union(*(_modules_of(value) for value in nested))


def _configs_in(value: object) -> list[Config]:
    """A specification, or those in a mapping or a sequence."""
    if isinstance(value, Mapping):
        return [one for item in value.values() for one in _configs_in(item)]
    if isinstance(value, tuple | list):
        return [one for item in value for one in _configs_in(item)]
    return [value] if isinstance(value, Config) else []


@cache
def _read(path: Path, name: str) -> tuple[dict[str, str], list[str]]:
    """Digests of a module's code and of the data it names, and the modules of this package it imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = _without_docstrings(tree)
    code = hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]
    return {name: code, **_data_files(path, nodes)}, _imports(nodes)


def _path_of(name: str) -> Path:
    return PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py")


def _imports(nodes: list[ast.AST]) -> list[str]:
    """Names of modules of this package that a module imports; `from package import name` may name a module."""
    names = []
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return [name for name in names if name.partition(".")[0] == "cwdpo"]


def _data_files(path: Path, nodes: list[ast.AST]) -> dict[str, str]:
    """Digests of the files beside a module that it names."""
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    named = [item for item in path.parent.iterdir() if item.name in texts and item.suffix != ".py" and item.is_file()]
    parent = path.parent.relative_to(PACKAGE.parent).as_posix()
    return {f"{parent}/{item.name}": hashlib.sha256(item.read_bytes()).hexdigest()[:16] for item in named}


def _without_docstrings(tree: ast.Module) -> list[ast.AST]:
    """All nodes that are left after every docstring was taken out."""
    nodes, texts = list(ast.walk(tree)), set()
    for node in nodes:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            texts |= {part for item in node.body if _is_text(item) for part in ast.walk(item)}
            node.body = [item for item in node.body if not _is_text(item)]
    return [node for node in nodes if node not in texts]


def _is_text(item: ast.AST) -> bool:
    return isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and isinstance(item.value.value, str)
