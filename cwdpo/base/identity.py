"""What an artefact *is*: a digest of what was computed, never of where it ran."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cwdpo.base.config import Config


def canonical_json(value: Any) -> str:
    """One spelling for equal values: sorted keys, no white space, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any) -> str:
    """Hex SHA-256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()


def identity_card(
    stage: str, version: int, spec: Config, parents: Mapping[str, str], digests: Mapping[str, str]
) -> dict[str, Any]:
    """Everything the identity is made of, as it is written to `stage.json`.

    Args:
        stage: name of the stage.
        version: raised by hand when the meaning of the stage changes.
        spec: the slice of the experiment this stage reads.
        parents: role -> identity of the artefact read in that role.
        digests: role -> digest of a data set or model from outside the store.
    """
    return {
        "stage": stage,
        "version": version,
        "spec": spec.canonical(),
        "parents": dict(parents),
        "digests": dict(digests),
    }


def seed_from(*parts: object) -> int:
    """A 63-bit seed from any printable parts, the same on every machine and Python version."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
