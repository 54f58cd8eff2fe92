"""Probes that no model made: files as a training leaves them, with distributions that hang together.

What is recorded of a true answer's tokens (entropy, top five, distance to step 0) comes from one softmax a token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cwdpo.dynamics.rows import GRADES, TOP, write_probes

BASE: Mapping[str, float] = {
    "hard": -1.0, "medium": -2.0, "easy": -3.5, "greedy": -0.6, "shuffled": -4.0, "other": -4.5,
}  # fmt: skip
"""Nats per token at step 0; the true answer's come from its distributions."""

DRIFT: Mapping[str, float] = {
    "chosen": 1.0, "hard": -1.5, "medium": -2.5, "easy": -4.0, "greedy": 0.3, "shuffled": -2.0, "other": -1.5,
}  # fmt: skip
"""Nats per token by which each kind moves over the schedule; the true answer's logits move by as much."""

VOCABULARY = 12


@dataclass(frozen=True)
class _World:
    """Knobs of one recording; see `synthetic`."""

    samples: Sequence[str]
    seed: int
    total: int
    tokens: int
    peaking: float
    noise: float
    l_floor: float
    tau: float
    kinds: Sequence[str]
    drift: Mapping[str, float] = field(default_factory=lambda: DRIFT)


def synthetic(
    folder: Path,
    steps: Sequence[int],
    samples: Sequence[str],
    seed: int = 0,
    *,
    total: int | None = None,
    kinds: Sequence[str] = ("chosen", *BASE),
    tokens: int = 4,
    drift: Mapping[str, float] = DRIFT,
    peaking: float = 1.0,
    noise: float = 0.2,
    l_floor: float = -3.0,
    tau: float = 1.0,
    beta: float = 0.1,
    stage: str = "stage2",
) -> Path:
    """Write what `read_probes` reads, for every step and sample; returns the folder.

    Args:
        total: steps of the schedule; the last probed one where none is given.
        kinds: of the responses beside which each sample is probed.
        tokens: of the true answer; other responses are one longer.
        drift: nats per token by which each kind moves over the schedule.
        peaking: how much the logits of a true answer are stretched over the schedule.
        noise: standard deviation, nats per token, of what differs between seeds.
    """
    world = _World(samples, seed, total or max(*steps, 1), tokens, peaking, noise, l_floor, tau, kinds, drift)
    found = [_sample(world, number, step) for step in steps for number in range(len(samples))]
    about = {
        "stage": stage, "every": int(np.diff(sorted(steps)).min(initial=world.total)), "steps": sorted(steps),
        "total": world.total, "samples": len(samples), "l_floor": l_floor, "tau": tau, "beta": beta,
        "seconds": 1.0, "training_seconds": 10.0, "where": "run",
    }  # fmt: skip
    responses = [row for rows, _ in found for row in rows]
    write_probes(folder, responses, [row for _, rows in found for row in rows], about)
    return folder


def _sample(world: _World, number: int, step: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of responses and tokens of one sample at one step."""
    (before, _), (now, truth) = _distributions(world, number, 0), _distributions(world, number, step)
    about = {"step": step, "id": world.samples[number]}
    logps = np.log(np.take_along_axis(now, truth[:, None], 1)[:, 0])
    first = np.log(np.take_along_axis(before, truth[:, None], 1)[:, 0])
    chosen = {
        "kind": "chosen", "tokens": world.tokens, "logp": logps.sum(), "delta_logp": (logps - first).sum(),
        "residual": ((now**2).sum(1) + 1 - 2 * np.exp(logps)).sum(), "w_c": None,
    }  # fmt: skip
    responses = [chosen, *_others(world, number, step)]
    kept = [{**about, **row} for row in responses if row["kind"] in world.kinds]
    return kept, [{**about, **row} for row in _tokens(before, now, truth, logps)]


def _distributions(world: _World, number: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the next token, and the true tokens. Shapes (tokens, VOCABULARY), (tokens,)."""
    fixed = np.random.default_rng(1000 + number)
    logits, truth = fixed.normal(0, 1, (world.tokens, VOCABULARY)), fixed.integers(0, VOCABULARY, world.tokens)
    logits[np.arange(world.tokens), truth] += 1.5
    part = step / world.total
    seeded = np.random.default_rng([world.seed, number]).normal(0, world.noise, logits.shape)
    logits = (logits + part * seeded) * (1 + part * world.peaking)
    logits[np.arange(world.tokens), truth] += part * world.drift.get("chosen", 0.0)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True), truth


def _others(world: _World, number: int, step: int) -> Iterator[dict[str, Any]]:
    """Every response but the true answer."""
    part, length = step / world.total, world.tokens + 1
    for place, (kind, base) in enumerate(BASE.items()):
        seeded = np.random.default_rng([world.seed, number, place]).normal(0, world.noise)
        moved = part * (world.drift.get(kind, 0.0) + seeded)
        mean = base - 0.1 * number + moved
        weight = 1 / (1 + np.exp(-(mean - world.l_floor) / world.tau)) if kind in GRADES else None
        yield {
            "kind": kind, "tokens": length, "logp": mean * length, "delta_logp": moved * length,
            "residual": length * (1 - np.exp(min(mean, 0.0))) ** 2, "w_c": weight,
        }  # fmt: skip


def _tokens(before: np.ndarray, now: np.ndarray, truth: np.ndarray, logps: np.ndarray) -> Iterator[dict[str, Any]]:
    for position, (p, q) in enumerate(zip(before, now, strict=True)):
        top = np.argsort(-q, kind="stable")[:TOP]
        middle = (p + q) / 2
        divergence = (p * np.log(p / middle) + q * np.log(q / middle)).sum() / 2
        yield {
            "position": position, "token": int(truth[position]), "logp": logps[position],
            "entropy": -(q * np.log(q)).sum(), "tv": np.abs(p - q).sum() / 2, "js": divergence,
            "top_tokens": top.tolist(), "top_probs": q[top].tolist(),
        }  # fmt: skip
