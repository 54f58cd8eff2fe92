"""Loaded by a subprocess that has this folder first on PYTHONPATH: what `$CWDPO_TEST_FORBIDDEN` names is not there."""

import os
import sys

FORBIDDEN = frozenset(filter(None, os.environ.get("CWDPO_TEST_FORBIDDEN", "").split(",")))


class Absent:
    """A finder that fails for the forbidden packages."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ModuleNotFoundError(f"{name} must not be imported here", name=name)


sys.meta_path.insert(0, Absent)
