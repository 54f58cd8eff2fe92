"""What the stage `influence` writes.

influence.parquet   a row per step, update and observed response
influence.json      settings, the steps, which samples were updated on and which responses were observed
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cwdpo.base import files
from cwdpo.dynamics.rows import Row, read_table

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TABLE, ABOUT = "influence.parquet", "influence.json"

NUMBERS = (
    "loss", "update_gradient_norm", "g_norm", "g_chosen_norm", "g_rejected_norm", "mean_logp",
    "observation_gradient_norm", "a_norm", "predicted", "measured", "fig5_delta_square", "fig5_a_square",
    "fig5_g_square", "fig5_proxy",
)  # fmt: skip


def influence_schema() -> pa.Schema:
    """Columns of influence.parquet; null where there is no such thing, or where a diverged policy has no number.

    `step` is that of the policy; `update` the sample that a plain SGD step is made on, or null where the parameters
    move to where the run itself had them at step `until` (null elsewhere). `observation`, `kind` and `tokens` are of
    the observed response.

    Proposition 1: `mean_logp` before the move, its `predicted` and `measured` change (nats per token); `a_norm` =
    ||grad_z mean_logp(o)||, `g_norm` = ||grad_z L(u)||, of which `g_chosen_norm` and `g_rejected_norm` are the parts of
    the chosen and of all rejected responses; `loss` of the update; both gradients' norms in the trained parameters, so
    that `predicted / (learning_rate * observation_gradient_norm * update_gradient_norm)` is minus their cosine.

    Figure 5, of the observed response (`figure5.py`): `fig5_delta_square` = ||delta log pi||^2 by the move,
    `fig5_a_square`, `fig5_g_square`, and `fig5_proxy`, the first over the product of the other two.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("step", pa.int32()),
            ("update", pa.string()),
            ("until", pa.int32()),
            ("observation", pa.string()),
            ("kind", pa.string()),
            ("tokens", pa.int32()),
            *((name, pa.float64()) for name in NUMBERS),
        ]
    )


def read_influence(folder: Path) -> pd.DataFrame:
    """What a stage `influence` wrote; `StoreError` where it is damaged."""
    return read_table(folder / TABLE)


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write influence.parquet, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with files.file_written_whole(path) as file:
        pq.write_table(pa.Table.from_pylist(list(rows), influence_schema()), file, compression="zstd")
