"""Everything that can go wrong through no fault of the code, as a small hierarchy of one-sentence errors.

The command line prints the message of a `CwdpoError` without a traceback and exits with its `exit_code`.
Anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class CwdpoError(Exception):
    """A fault the user can act on: the message names where it is, what was found and what is valid."""

    exit_code: int = 1


class ConfigError(CwdpoError):
    """A YAML file, an override or an option is wrong; nothing was started."""

    exit_code = 2


class DataError(CwdpoError):
    """An annotation file, a record or an image is wrong."""

    exit_code = 3


class ModelError(CwdpoError):
    """A model folder is incomplete or does not fit what is asked of it."""

    exit_code = 3


class StoreError(CwdpoError):
    """The store cannot be written or what it holds is damaged."""

    exit_code = 4


class Fenced(StoreError):
    """A newer attempt owns this stage: this one must stop without publishing."""

    exit_code = 78


class Busy(StoreError):
    """Another living process is working on this stage."""

    exit_code = 76


class InputMissing(StoreError):
    """A stage was started before what it reads is finished."""

    exit_code = 7


class Interrupted(CwdpoError):
    """A signal asked this stage to stop; what it had is saved and the next attempt goes on from there."""

    exit_code = 75


class PeersLost(CwdpoError):
    """Other ranks of the job are gone, do not answer or ended first; the message names them.

    Args:
        status: exit status of the rank that ended, where it could say; the job ends with that.
    """

    exit_code = 77

    def __init__(self, message: str, status: int = exit_code) -> None:
        super().__init__(message)
        self.exit_code = status


class PortTaken(CwdpoError):
    """Another program uses the port on which the ranks were to meet."""

    exit_code = 79


class TrainingError(CwdpoError):
    """Training cannot go on (non-finite loss, a checkpoint that does not fit this run)."""

    exit_code = 5


class NotAvailable(CwdpoError):
    """Something optional is missing on this machine; the message is the reason a cell shows."""

    exit_code = 6


def name_valid(found: object, valid: Iterable[object]) -> str:
    """Say what was found, the closest valid value, and all valid ones: `'foo'; did you mean 'fob'? valid: ...`."""
    choices = sorted(str(choice) for choice in valid)
    close = get_close_matches(str(found), choices, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ";"
    return f"'{found}'{hint} valid: {', '.join(choices) or 'none'}"
