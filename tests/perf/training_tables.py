"""The training benchmark's tables, and the sentences that belong beside their numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from measure import table
from training_parts import Play
from training_sides import BATCH, micro_batch
from training_turns import Measured
from training_world import HIDDEN

Row = Sequence[object]
POINT = "image/response/words"
HEAD_PRODUCTS = 4
"""Products of TRL's LM head at a position: forward, again and backward for the policy, forward for the reference."""

CAVEATS = """\
Read the ratios with this in mind. TRL's LM head skips positions outside the responses on Triton devices only, so on a
CPU it scores all of them; the operations column "TRL on Triton" leaves those out, and with 152k words most of the ratio
is this. It computes the reference in every step, because `precompute_ref_log_probs` refuses images; ours is computed
once per data set, and "with reference" charges all of it to a single epoch. It preprocesses every image twice and
encodes it four times a step (chosen and rejected, policy and reference), here at 20% of a language model's
operations per image token, as in a 7B. Template and prompt are 28 tokens. Ratios are between equal numbers of pairs
a pass; with fewer, both take less memory, and TRL is somewhat quicker on small images (see the settings tried)."""


def against(plays: Sequence[Play]) -> str:
    """Speed, memory and operations beside TRL and beside our own plain way."""
    speed = (POINT, "TRL", "rows", "shared", "shared with reference", "to TRL", "to TRL with reference", "to rows",
             "loss apart")  # fmt: skip
    memory = (POINT, "pairs a pass", "TRL", "rows", "shared", "reference", "to TRL", "TRL before", "ours before")
    counts = (POINT, "TRL", "TRL on Triton", "rows", "shared", "reference", "TRL to shared", "TRL on Triton to shared")
    reference = (POINT, "a row per response", "shared prefixes", "to rows", "CPU seconds to load")
    return "\n\n".join([
        "Pairs per CPU second, and times as many. `with reference` charges our whole reference pass to one epoch;"
        " `loss apart` is the largest difference between TRL's losses and ours, nats, over the steps.",
        table(speed, list(map(_speed, plays))),
        CAVEATS,
        "Peak resident memory of the training process, MB; `before` is what it held before its first step.",
        table(memory, list(map(_memory, plays))),
        "Billions of floating-point operations of matrix products in a step, counted.",
        table(counts, list(map(_operations, plays))),
        "The reference pass alone, once per data set and Stage-1 model: pairs per CPU second.",
        table(reference, list(map(_reference, plays))),
    ])  # fmt: skip


def _speed(play: Play) -> Row:
    sides = play.sides
    ours, theirs = sides["shared"].seconds, sides["TRL"].seconds
    whole = ours + sides["reference"].seconds
    rates = [f"{BATCH / seconds:.2f}" for seconds in (theirs, sides["rows"].seconds, ours, whole)]
    apart = max(abs(a - b) for a, b in zip(sides["TRL"].more["losses"], sides["shared"].more["losses"], strict=True))
    times = [f"{theirs / ours:.2f}x", f"{theirs / whole:.2f}x", f"{sides['rows'].seconds / ours:.2f}x"]
    return (play.point, *rates, *times, f"{apart:.0e}")


def _memory(play: Play) -> Row:
    sides = play.sides
    peaks = [_mega(sides[name].peak) for name in ("TRL", "rows", "shared", "reference")]
    ratio = max(sides["shared"].peak, sides["reference"].peak) / sides["TRL"].peak
    return (
        play.point,
        micro_batch(play.point),
        *peaks,
        f"{ratio:.2f}x",
        _mega(sides["TRL"].resident),
        _mega(sides["shared"].resident),
    )


def _operations(play: Play) -> Row:
    counts = {name: side.flops for name, side in play.sides.items()}
    triton = counts["TRL"] - _skipped(play)
    values = (counts["TRL"], triton, counts["rows"], counts["shared"], counts["reference"])
    ratios = [f"{value / counts['shared']:.2f}x" for value in (counts["TRL"], triton)]
    return (play.point, *(f"{value / 1e9:.0f}" for value in values), *ratios)


def _reference(play: Play) -> Row:
    rows, shared = play.sides["reference in rows"], play.sides["reference"]
    rates = [f"{BATCH / side.seconds:.2f}" for side in (rows, shared)]
    return (play.point, *rates, f"{rows.seconds / shared.seconds:.2f}x", f"{shared.start_cpu:.1f}")


def _skipped(play: Play) -> int:
    """Operations of TRL's LM head at positions that predict no token of a response."""
    positions = 2 * BATCH * (play.prefix_tokens - 1)
    return positions * HEAD_PRODUCTS * 2 * play.point.vocabulary * HIDDEN


def supervised(plays: Sequence[Play]) -> str:
    """The constraint's cost; the bound is what its additional tokens must cost."""
    rows = [(play.point, *_pair(play, "sft", "sft_c")) for play in plays]
    columns = (POINT, "sft", "sft_c", "sft_c to sft", "operations, sft_c to sft", "memory")
    return f"CPU seconds a step. The operations are the bound: no code can be nearer.\n\n{table(columns, rows)}"


def objectives(plays: Sequence[Play]) -> str:
    """The cooling weight's cost."""
    rows = [
        (play.point, f"{play.sides['dpo'].seconds:.3f}", f"{play.sides['cw_dpo'].seconds:.3f}",
         f"{play.sides['cw_dpo'].seconds / play.sides['dpo'].seconds:.3f}x")
        for play in plays
    ]  # fmt: skip
    columns = (POINT, "dpo", "cw_dpo", "cw_dpo to dpo")
    return f"CPU seconds a step; one process, in which every other step is one's.\n\n{table(columns, rows)}"


def _pair(play: Play, plain: str, more: str) -> Row:
    first, second = play.sides[plain], play.sides[more]
    return (
        f"{first.seconds:.2f}", f"{second.seconds:.2f}", f"{second.seconds / first.seconds:.3f}x",
        f"{second.flops / first.flops:.3f}x", f"{second.peak / first.peak:.2f}x",
    )  # fmt: skip


def negatives(plays: Sequence[Play]) -> str:
    """The cost of each further rejected response."""
    return _steps(plays[0], "rejected responses", "the last one's share of a step before it")


def pairs(plays: Sequence[Play]) -> str:
    """The cost of a step by the number of its pairs."""
    (play,) = plays
    rows = [
        (name, f"{side.seconds:.2f}", f"{1000 * side.seconds / int(name):.0f}", _mega(side.peak))
        for name, side in play.sides.items()
    ]
    columns = ("pairs in a step", "CPU seconds a step", "CPU ms a pair", "peak MB")
    return f"At {play.point}.\n\n{table(columns, rows)}"


def _steps(play: Play, what: str, share: str) -> str:
    rows: list[Row] = []
    before: Measured | None = None
    for name, side in play.sides.items():
        added = f"{side.seconds / before.seconds - 1:+.1%}" if before else ""
        counted = f"{side.flops / before.flops - 1:+.1%}" if before else ""
        rows.append((name, f"{side.seconds:.2f}", added, counted, _mega(side.peak)))
        before = side
    columns = (what, "CPU seconds a step", share, "of its operations", "peak MB")
    return f"At {play.point}.\n\n{table(columns, rows)}"


def settings(plays: Sequence[Play]) -> str:
    """Settings that were tried."""
    (play,) = plays
    rows = [
        (name, f"{side.seconds:.2f}", f"{side.wall_seconds:.2f}", _mega(side.peak), f"{side.start_cpu:.1f}")
        for name, side in play.sides.items()
    ]
    columns = ("settings", "CPU seconds a step", "seconds a step", "peak MB", "CPU seconds before the first step")
    note = (
        "Memory of data workers comes on top of the process's own. TRL's `padding_free` is switched off in this"
        " version (it warns and pads), and does not know images in those that had it."
    )
    return f"One after the other, at {play.point}.\n\n{table(columns, rows)}\n\n{note}"


def _mega(value: int) -> str:
    return f"{value / 1e6:,.0f}"


TABLES: Mapping[str, tuple[str, Callable[[Sequence[Play]], str]]] = {
    "against": ("Stage 2 beside TRL's DPOTrainer", against),
    "supervised": ("Stage 1 with and without the constraint", supervised),
    "objectives": ("Stage 2 with and without cooling weights", objectives),
    "negatives": ("More rejected responses", negatives),
    "pairs": ("More pairs", pairs),
    "settings": ("Settings tried", settings),
}
"""Part -> heading and table."""
