"""Sources that make rejected responses themselves: what a source that adds to or mixes others may stand around.

It is an `__init__` because it only registers members: a stage depends on the source that it names, not on all of them.
"""

from __future__ import annotations

from cwdpo.negatives.augmented_image import AugmentedImage
from cwdpo.negatives.beam import Beam
from cwdpo.negatives.dataset import Dataset
from cwdpo.negatives.own_answer import OwnAnswer
from cwdpo.negatives.rule import Perturb
from cwdpo.negatives.sample import Sampled
from cwdpo.negatives.self_critic import SelfCritic
from cwdpo.negatives.written import Written

Plain = Dataset | Perturb | Written | Beam | Sampled | OwnAnswer | AugmentedImage | SelfCritic
