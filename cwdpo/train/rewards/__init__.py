"""What a sampled response is worth: a file each, a member of the union each. The paper prints no reward [choice]."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cwdpo.train.rewards.cider_d import CiderReward
from cwdpo.train.rewards.exact_answer import ExactReward

Reward = Annotated[CiderReward | ExactReward, Field(discriminator="name")]
"""What an on-policy stage maximises."""

__all__ = ["CiderReward", "ExactReward", "Reward"]
