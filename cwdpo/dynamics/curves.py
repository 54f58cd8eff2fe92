"""From rows of probes to one line per step: the quantities that figures, early stopping and diagnosis go by.

Shapes: N tokens, S samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cwdpo.dynamics.rows import GRADES, Probes

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

BINS = 15
"""Of calibration, equal in width over [0, 1]."""

VULNERABLE = (0.8, 0.99)
"""Remark 1: pairs whose preference probability a lies here have next to no loss and still a gradient."""

ROUNDING = 1e-4
"""Nats by which equal policies differ in float32: a smaller margin is none."""


def curve(probes: Probes) -> pd.DataFrame:
    """A row per step (the index).

    Columns: `mean_logp_<kind>` and `delta_logp_<kind>` (means over samples); `margin` (mean over samples and grades of
    delta_w - delta_l, unweighted) and `margin_<grade>`; `accuracy` (share of positive margins, where one within
    `ROUNDING` of 0 counts half); `w_c_<grade>`; `mean_logp_argmax` (of the likeliest token at each position under
    teacher forcing), `entropy`, `top1`, `top5`, `tv`, `js` (means over tokens, then samples); `ece`; `vulnerable`
    (share of pairs with a in `VULNERABLE`, where a = sigmoid(beta * margin)); `loser_gradient_dpo` and
    `loser_gradient_cw_dpo` (mean over pairs of the norm of the loser's gradient in the logits) and `..._variance` of
    both.
    """
    import pandas as pd

    parts = [_of_responses(probes), _of_pairs(probes), _of_tokens(probes)]
    return pd.concat(parts, axis=1).sort_index()


def pairs(probes: Probes) -> pd.DataFrame:
    """A row per step, sample and graded negative: `margin`, `a`, `w_c`, `residual`, `gradient_dpo`, `gradient_cw_dpo`.

    A gradient is the norm in the logits of the loser's term of the loss, `beta (1 - a) sqrt(residual)`; under `cw_dpo`
    the margin inside the sigmoid and the term itself carry the weight w_c, without the filter that `cw_dpo` has.
    """
    import numpy as np

    beta, rows = probes.about["beta"], probes.responses
    winners = rows[rows.kind == "chosen"][["step", "id", "delta_logp"]]
    found = rows[rows.kind.isin(GRADES)].merge(winners, on=["step", "id"], suffixes=("", "_chosen"))
    margin = found.delta_logp_chosen - found.delta_logp
    cooled = found.delta_logp_chosen - found.w_c * found.delta_logp
    pull = beta * np.sqrt(found.residual)
    return found[["step", "id", "kind", "w_c", "residual"]].assign(
        margin=margin,
        a=_sigmoid(beta * margin),
        gradient_dpo=pull * _sigmoid(-beta * margin),
        gradient_cw_dpo=pull * found.w_c * _sigmoid(-beta * cooled),
    )


def _sigmoid(values: pd.Series) -> Any:
    import numpy as np

    return np.exp(-np.logaddexp(0.0, -values.astype(float)))


def _of_responses(probes: Probes) -> pd.DataFrame:
    rows = probes.responses.assign(mean_logp=probes.responses.logp / probes.responses.tokens)
    table = rows.pivot_table(index="step", columns="kind", values=["mean_logp", "delta_logp"], aggfunc="mean")
    table.columns = [f"{name}_{kind}" for name, kind in table.columns]
    graded = rows[rows.kind.isin(GRADES)].pivot_table(index="step", columns="kind", values="w_c", aggfunc="mean")
    return table.join(graded.add_prefix("w_c_"))


def _of_pairs(probes: Probes) -> pd.DataFrame:
    import pandas as pd

    rows = pairs(probes)
    low, high = VULNERABLE
    judged = rows.assign(
        accuracy=0.5 * (1.0 + (rows.margin > ROUNDING) - (rows.margin < -ROUNDING)),
        vulnerable=rows.a.between(low, high).astype(float),
    )
    by_step = judged.groupby("step")
    means = by_step[["margin", "accuracy", "vulnerable"]].mean()
    grades = judged.pivot_table(index="step", columns="kind", values="margin", aggfunc="mean").add_prefix("margin_")
    names = ("gradient_dpo", "gradient_cw_dpo")
    pulls = {f"loser_{name}": by_step[name].mean() for name in names}
    spread = {f"loser_{name}_variance": by_step[name].var(ddof=0) for name in names}
    return pd.concat([means, grades, pd.DataFrame({**pulls, **spread})], axis=1)


def _of_tokens(probes: Probes) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    rows = probes.tokens
    top = np.stack(rows.top_probs.to_numpy())
    read = rows[["step", "id", "entropy", "tv", "js"]].assign(
        top1=top[:, 0], top5=top.sum(1), mean_logp_argmax=np.log(top[:, 0])
    )
    means = read.groupby(["step", "id"]).mean().groupby("step").mean()
    error = {step: calibration(*_confidence(rows[rows.step == step])).error for step in means.index}
    return means.join(pd.Series(error, name="ece"))


def _confidence(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Greatest probability at each token, and whether the token it is of is the true one. Shapes (N,)."""
    import numpy as np

    first = np.stack(rows.top_tokens.to_numpy())[:, 0]
    return np.stack(rows.top_probs.to_numpy())[:, 0], first == rows.token.to_numpy()


class Calibration:
    """A reliability diagram over the tokens of one step.

    Attributes:
        confidence, accuracy: mean of each bin; NaN where it is empty. Shapes (BINS,).
        share: of the tokens in each bin. Shape (BINS,).
    """

    def __init__(self, confidence: np.ndarray, accuracy: np.ndarray, share: np.ndarray) -> None:
        self.confidence, self.accuracy, self.share = confidence, accuracy, share

    @property
    def error(self) -> float:
        """Expected calibration error: sum over bins of share * |accuracy - confidence| (Guo et al. 2017, Eq. 3)."""
        import numpy as np

        return float(np.nansum(self.share * np.abs(self.accuracy - self.confidence)))


def calibration(confidence: np.ndarray, correct: np.ndarray) -> Calibration:
    """Bins of equal width, each closed at its right end, over the probability of the likeliest token. Shapes (N,)."""
    import numpy as np

    places = np.clip(np.ceil(confidence.astype(float) * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(places, values.astype(float), BINS) / counts for values in (confidence, correct)]
    return Calibration(means[0], means[1], counts / max(counts.sum(), 1))


def calibration_at(probes: Probes, step: int) -> Calibration:
    """The reliability diagram of one probed step."""
    return calibration(*_confidence(probes.tokens[probes.tokens.step == step]))
