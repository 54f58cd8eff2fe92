"""SFT on truth and revised answers: what OPA-DPO trains before its preference phase (arXiv 2501.09695)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from cwdpo.objectives.supervised import Beside, Responses, State, Supervised

if TYPE_CHECKING:
    from torch import Tensor


class SftRevised(Supervised):
    """`E[nll(truth)] + E[nll(revised)]`: both become likely under the policy that the preference phase starts from."""

    name: Literal["sft_revised"] = "sft_revised"

    beside: ClassVar[Beside | None] = "revised"

    def share(self, chosen: Responses, beside: Responses, state: State) -> Tensor:
        """Share of the loss. Scalar, nats."""
        return chosen.nll_share(self.per_token) + beside.nll_share(self.per_token)
