# SPDX-License-Identifier: GPL-2.0-only
"""What can go wrong, in one small hierarchy.

Every message is one clear sentence: what was wrong, where, and what to do about it. The command
line and the notebooks print that sentence and nothing else, so code raises the narrowest of these
and never wraps one in another.
"""

from __future__ import annotations


class AnonvmaError(Exception):
    """Any failure that anonvma can explain in one sentence.

    Attributes
    ----------
    exit_code : int
        What the command line ends with.
    """

    exit_code = 1

    def _render_traceback_(self) -> list[str]:
        # What IPython shows in place of a traceback.
        return [f"{type(self).__name__}: {self}"]


class SetupError(AnonvmaError):
    """Something that has to be built or installed first is not there."""


class TargetError(AnonvmaError):
    """The target cannot do what was asked: no privilege, a missing program, a refused setting."""


class PrivilegeError(TargetError):
    """Privilege is needed and not available; the message says what is lacking."""

    exit_code = 3


class TargetTimeout(TargetError):
    """A command on the target took longer than it was given."""


class TargetLost(TargetError):
    """The target itself went away (a panic, a cut connection): not a command that failed on it.

    Attributes
    ----------
    console : bytes
        What its console said until then, where it has one.
    cause : str
        Why, in a few words.
    """

    def __init__(self, sentence: str, console: bytes = b"", cause: str = "") -> None:
        super().__init__(sentence)
        self.console, self.cause = console, cause


class ProbeError(AnonvmaError):
    """vmaprobe could not observe; the message is the sentence it gave."""

    def __init__(self, sentence: str, exit_code: int = 1) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


class WorkloadError(AnonvmaError):
    """The workload cannot be run as described, or it ran and failed."""


class MissingProgram(WorkloadError):
    """A program that the workload needs is not on the target, where others may well run."""


class RunError(AnonvmaError):
    """A run directory cannot be made, or is not one that can be trusted."""


class CensusError(AnonvmaError):
    """A census file is not one, or is damaged."""


class FaultsError(AnonvmaError):
    """What was traced of faults or locks is no such thing, or is damaged."""


class ProfileError(AnonvmaError):
    """What perf recorded, counted or printed is no such thing, or is damaged."""


class SelectionError(AnonvmaError):
    """What is to be explored is not there, or a selection cannot be taken along."""


class ParameterError(AnonvmaError):
    """A notebook was given a parameter it does not have, or an impossible value."""

    exit_code = 2


class NotebookError(AnonvmaError):
    """A notebook did not run to its end."""


class RedactionError(AnonvmaError):
    """Something would name the machine or its users, or the list of what may is no list."""


class MailError(AnonvmaError):
    """A message cannot be made, read or sent; the message says which part of it is wrong."""


class StudyError(AnonvmaError):
    """A study file cannot be read, or asks for something impossible."""

    exit_code = 2


class CellError(AnonvmaError):
    """A cell of a study did not become a run."""


class StoreError(AnonvmaError):
    """A question to the runs cannot be asked, or not be answered."""
