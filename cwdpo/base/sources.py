"""Digests of the code a stage is made of, so that an artefact made by other code can be marked stale.

The digest is over the syntax tree without docstrings, so comments and formatting do not matter. Plumbing (`cwdpo.base`)
is left out: what it changes is where and how files are kept, not what is computed. A data file beside a module that the
module names (`lexicon.yaml`) counts by its bytes.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
PLUMBING = "cwdpo.base"


@cache
def source_digests(module: str) -> dict[str, str]:
    """Module name -> digest for `module` and every module of this package it imports, directly or not."""
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _path_of(name)
        if name in found or path is None or name.startswith(PLUMBING):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found[name] = hashlib.sha256(ast.dump(_without_docstrings(tree)).encode()).hexdigest()[:16]
        found |= _data_files(path, tree)
        waiting += _imports(tree)
    return dict(sorted(found.items()))


def changed_sources(recorded: dict[str, str], module: str) -> list[str]:
    """Modules whose code differs from what an artefact recorded."""
    now = source_digests(module)
    return sorted(name for name in {*recorded, *now} if recorded.get(name) != now.get(name))


def _path_of(name: str) -> Path | None:
    base = PACKAGE.parent.joinpath(*name.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def _imports(tree: ast.Module) -> list[str]:
    """Names of modules of this package that a module imports; `from package import name` may name a module."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return [name for name in names if name.partition(".")[0] == "cwdpo"]


def _data_files(path: Path, tree: ast.Module) -> dict[str, str]:
    """Digests of the files beside a module that it names."""
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    named = [item for item in path.parent.iterdir() if item.name in texts and item.suffix != ".py" and item.is_file()]
    parent = path.parent.relative_to(PACKAGE.parent).as_posix()
    return {f"{parent}/{item.name}": hashlib.sha256(item.read_bytes()).hexdigest()[:16] for item in named}


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [item for item in node.body if not _is_text(item)]
    return tree


def _is_text(item: ast.AST) -> bool:
    return isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and isinstance(item.value.value, str)
