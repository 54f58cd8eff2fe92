"""Dotted keys over nested content: which cases a key is for, and what it changes there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from cwdpo.base.config import with_override
from cwdpo.base.errors import ConfigError
from cwdpo.experiment.files import Reader
from cwdpo.objectives import PreferenceObjective
from cwdpo.objectives.online import Online

Content = Mapping[str, Any]
"""An experiment as nested mappings, not checked yet."""


def overridden(content: Content, changes: Mapping[str, Any], reader: Reader, before: str) -> dict[str, Any]:
    """`content` with the changes of sections that it has.

    Args:
        before: of a key, in a message: where it is written.
    """
    found = dict(content)
    for key, value in [(key, value) for key, value in changes.items() if applies(key, content)]:
        found = reader.with_model(with_override(found, key, value), before)
    return found


def check_used(changes: Iterable[str], contents: Iterable[Content], before: str, file: str) -> None:
    """Raise `ConfigError` for a key that none of `contents` would notice.

    Args:
        before: of the key, in the message: where it is written.
        file: what has no such section.
    """
    known = list(contents)
    for key in changes:
        if not any(applies(key, content) for content in known):
            raise ConfigError(f"{before}{key}: no case of {file} has a section {_optional_part(key)}")


def applies(key: str, content: Content) -> bool:
    """False for a key inside a section that a case is without: `stage2.x=1` does not give it a Stage 2."""
    section = _optional_part(key)
    below: Any = content
    for part in section.split(".") if section else ():
        if part == "rollouts" and (below.get("objective") or {}).get("name") in ONLINE:
            return True  # also where the case is content with the defaults
        below = below.get(part) if isinstance(below, Mapping) else None
        if below is None:
            return False
    return True


def leaves(content: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything in nested mappings that is none."""
    if not isinstance(content, Mapping):
        yield from [] if content is None else [(path, content)]
        return
    for key, value in content.items():
        yield from leaves(value, f"{path}.{key}" if path else str(key))


def value_at(content: Any, key: str) -> Any:
    """What lies at a dotted key, or None."""
    for part in key.split("."):
        content = content.get(part) if isinstance(content, Mapping) else None
    return content


def _optional_part(key: str) -> str:
    """The longest beginning of a dotted key that not every case has: `stage2.sft_phase` of its learning rate."""
    parts = key.split(".")[:-1]
    if "of" in parts:  # sources of negatives that stand inside another one, such as `stage2.negatives.of.policy`
        return ".".join(parts)
    return ".".join(parts[: next((place for place, part in enumerate(parts) if part not in _OPTIONAL), len(parts))])


_OBJECTIVES = get_args(get_args(PreferenceObjective)[0])
ONLINE = {member.model_fields["name"].default for member in _OBJECTIVES if issubclass(member, Online)}
"""Names of the objectives that sample their own responses."""

_OPTIONAL = ("stage1", "stage2", "sft_phase", "rollouts", "refresh", "early_stop", "curriculum", "probe", "influence")
