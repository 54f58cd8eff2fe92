"""What probes record, as Parquet: a row per probed response and one per token of each true answer, never only means.

    responses.parquet   a row per step, sample and response
    tokens.parquet      a row per step, sample and token of the chosen response
    probe.json          settings, the steps that were probed, and what probing cost

Probability and log-probability are those of the next token under teacher forcing; everything in nats.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from cwdpo.base import files
from cwdpo.base.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Kind = Literal["chosen", "hard", "medium", "easy", "greedy", "shuffled", "other"]
"""What a probed response is:

- `chosen`: the true answer;
- `hard`, `medium`, `easy`: graded negatives;
- `greedy`: what the base model answered, before any training;
- `shuffled`, `other`: controls: the words of the true answer in another order, and the answer of another image.
"""

KINDS: tuple[Kind, ...] = get_args(Kind)
GRADES: tuple[Kind, ...] = ("hard", "medium", "easy")
TOP = 5
"""Tokens of the greatest probability that are kept of each distribution."""

RESPONSES, TOKENS, ABOUT = "responses.parquet", "tokens.parquet", "probe.json"

IN_RUN = "probe"
"""Folder of these files in the artefact of a training that was probed while it ran."""

GROUP_ROWS = 20_000
"""Rows that are in memory while they are written."""

Row = Mapping[str, Any]


def response_schema() -> pa.Schema:
    """Columns of responses.parquet.

    `logp` sums over the tokens of a response, end-of-turn included; `delta_logp` is its change since step 0;
    `residual` sums ||onehot - p||^2 over them, the squared norm of the gradient of `logp` in the logits; `w_c` is the
    cooling weight (Eq. 6) of a graded negative at the scale that probe.json names, null for other kinds.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("step", pa.int32()),
            ("id", pa.string()),
            ("kind", pa.string()),
            ("tokens", pa.int32()),
            ("logp", pa.float32()),
            ("delta_logp", pa.float32()),
            ("residual", pa.float32()),
            ("w_c", pa.float32()),
        ]
    )


def token_schema() -> pa.Schema:
    """Columns of tokens.parquet.

    `token` is the true one at `position` (0-based), `logp` its log-probability; `tv` and `js` are total variation and
    Jensen-Shannon divergence between the distributions there now and at step 0; `top_tokens` and `top_probs` are the
    likeliest ones, in order.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("step", pa.int32()),
            ("id", pa.string()),
            ("position", pa.int32()),
            ("token", pa.int32()),
            ("logp", pa.float32()),
            ("entropy", pa.float32()),
            ("tv", pa.float32()),
            ("js", pa.float32()),
            ("top_tokens", pa.list_(pa.int32())),
            ("top_probs", pa.list_(pa.float32())),
        ]
    )


@dataclass(frozen=True)
class Probes:
    """All that was recorded of one training stage.

    Attributes:
        about: content of probe.json: `stage`, `every`, `steps`, `total` (steps of the schedule), `samples`, `l_floor`
            and `tau` (of w_c), `beta`, `seconds` (of probing), `where` ("run" or "snapshots"),
            `findings` (what is alarming by the probes alone).
        responses, tokens: as in the files, ordered by step.
    """

    about: Mapping[str, Any]
    responses: pd.DataFrame
    tokens: pd.DataFrame


def write_probes(folder: Path, responses: Iterable[Row], tokens: Iterable[Row], about: Mapping[str, Any]) -> None:
    """Write the three files, each whole or not at all, a group of rows at a time; probe.json last."""
    _write(folder / RESPONSES, responses, response_schema())
    _write(folder / TOKENS, tokens, token_schema())
    files.write_json(folder / ABOUT, dict(about))


def _write(path: Path, rows: Iterable[Row], schema: pa.Schema) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    left, options = iter(rows), {"compression": "zstd", "write_page_checksum": True}
    with files.file_written_whole(path) as file, pq.ParquetWriter(file, schema, **options) as writer:
        while group := list(islice(left, GROUP_ROWS)):
            writer.write_table(pa.Table.from_pylist(group, schema))


def read_probes(folders: Sequence[Path]) -> Probes:
    """What was recorded in one folder, or in those of all rounds of a stage, in order.

    Raises:
        StoreError: a file is missing or damaged.
    """
    import pandas as pd

    about = [files.read_json(folder / ABOUT) for folder in folders]
    responses, tokens = (
        pd.concat([read_table(folder / name) for folder in folders], ignore_index=True) for name in (RESPONSES, TOKENS)
    )
    steps = sorted({step for one in about for step in one["steps"]})
    whole = {**about[-1], "steps": steps, "seconds": sum(one["seconds"] for one in about)}
    # Every round reads the start of the stage again: what changes is measured from there.
    responses = responses.drop_duplicates(["step", "id", "kind"]).sort_values("step", kind="stable")
    tokens = tokens.drop_duplicates(["step", "id", "position"]).sort_values("step", kind="stable")
    return Probes(whole, responses.reset_index(drop=True), tokens.reset_index(drop=True))


def read_table(path: Path) -> pd.DataFrame:
    """A Parquet file; `StoreError` where it is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, page_checksum_verification=True).to_pandas()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
