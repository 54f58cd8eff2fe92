"""Sources that make rejected responses themselves: what a source that adds to another one's responses may stand around.

It is an `__init__` because it only registers members: a stage depends on the source that it names, not on all of them.
"""

from __future__ import annotations

from cwdpo.negatives.dataset import Dataset
from cwdpo.negatives.rule import Perturb

Plain = Dataset | Perturb
