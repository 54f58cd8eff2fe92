"""What a size puts in the place of data, of sources of negatives, and of settings of benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cwdpo.base.config import merged
from cwdpo.experiment.overrides import Content, leaves, value_at
from cwdpo.experiment.written import SizeFile


def resized(content: Content, size: SizeFile | None) -> dict[str, Any]:
    """`content` with everything that a size has a stand-in or settings for, by name."""
    if size is None:
        return dict(content)
    found = {**content}
    if "data" in found:
        found["data"] = _stood_in(found["data"], size.data)
    for stage in ("stage1", "stage2"):
        if isinstance(content.get(stage), Mapping) and "negatives" in content[stage]:
            found[stage] = {**content[stage], "negatives": _stood_in(content[stage]["negatives"], size.negatives)}
    if isinstance(content.get("benchmarks"), list):
        found["benchmarks"] = [one for old in content["benchmarks"] for one in _benchmark(old, size)]
    return found


def stood_in(content: Content, size: SizeFile) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `resized` changes: dotted keys of data and negatives, and the benchmarks where one of them changes."""
    after = resized(content, size)
    changed = {key: value for key, value in leaves(after, "") if value_at(content, key) != value}
    benchmarks = {key: changed.pop(key) for key in ("benchmarks",) if key in changed}
    return changed, benchmarks


def _stood_in(content: Any, stand_ins: Mapping[str, Mapping[str, Any]]) -> Any:
    """Sources replaced, the inner ones first: those of a stand-in stay as they are."""
    if not isinstance(content, Mapping):
        return content
    inner = {key: _stood_in(value, stand_ins) for key, value in content.items()}
    name = inner.get("source")
    return merged(inner, stand_ins[name]) if isinstance(name, str) and name in stand_ins else inner


def _benchmark(content: Any, size: SizeFile) -> list[Any]:
    """A benchmark with its settings, or nothing where it is taken out."""
    if not isinstance(content, Mapping):
        return [content]
    found = {**content, "data": _stood_in(content["data"], size.data)} if "data" in content else content
    name = content.get("name")
    if not isinstance(name, str) or name not in size.benchmarks:
        return [found]
    settings = size.benchmarks[name]
    return [] if settings is None else [merged(found, settings)]
